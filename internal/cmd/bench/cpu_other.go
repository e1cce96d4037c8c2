//go:build !linux

package main

import "time"

// Processor time is measured on Linux only.
func processCPU(int) time.Duration { return 0 }
func treeCPU(int) time.Duration    { return 0 }
func machineCPU() time.Duration    { return 0 }

// residentMB is measured on Linux only.
func residentMB(int, string) float64 { return 0 }

func machineMemory() int { return 0 }
