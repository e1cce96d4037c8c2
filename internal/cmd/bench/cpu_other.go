//go:build !linux

package main

import "time"

// Elsewhere the use of the processor isn't measured.
func processCPU(int) time.Duration { return 0 }
func treeCPU(int) time.Duration    { return 0 }
func machineCPU() time.Duration    { return 0 }

// residentMB can't be measured here.
func residentMB(int, string) float64 { return 0 }

func machineMemory() int { return 0 }
