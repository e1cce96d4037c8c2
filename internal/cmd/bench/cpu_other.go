//go:build !linux

package main

import "time"

// Elsewhere the use of the processor isn't measured.
func processCPU(int) time.Duration { return 0 }
func treeCPU(int) time.Duration    { return 0 }
func machineCPU() time.Duration    { return 0 }
