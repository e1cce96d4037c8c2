package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// tick is the unit of /proc's times: a hundredth of a second on every Linux that Go runs on.
const tick = 10 * time.Millisecond

// processCPU is what a process has used, and its children that have ended.
func processCPU(pid int) time.Duration {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0 // it has ended: its parent has its times
	}
	// The name, in brackets, may hold anything; the fields behind it begin with the third.
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	sum := 0
	for _, i := range []int{11, 12, 13, 14} {
		n, _ := strconv.Atoi(fields[i])
		sum += n
	}
	return time.Duration(sum) * tick
}

// treeCPU adds a process and its living children up.
func treeCPU(pid int) time.Duration {
	sum := processCPU(pid)
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, list := range lists {
		children, _ := os.ReadFile(list)
		for _, child := range strings.Fields(string(children)) {
			if n, err := strconv.Atoi(child); err == nil {
				sum += processCPU(n)
			}
		}
	}
	return sum
}

// machineCPU is what the whole machine has used: everything but idling and waiting for disks.
func machineCPU() time.Duration {
	stat, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0
	}
	line, _, _ := strings.Cut(string(stat), "\n")
	sum := 0
	for i, field := range strings.Fields(line) {
		n, _ := strconv.Atoi(field)
		if i >= 1 && i <= 8 && i != 4 && i != 5 { // user nice system (idle iowait) irq softirq steal
			sum += n
		}
	}
	return time.Duration(sum) * tick
}

// residentMB is the memory that a child of a process that runs a binary has in use, or 0 when there is none.
func residentMB(parent int, binary string) float64 {
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", parent))
	for _, list := range lists {
		children, _ := os.ReadFile(list)
		for _, child := range strings.Fields(string(children)) {
			if path, _ := os.Readlink("/proc/" + child + "/exe"); path != binary {
				continue
			}
			status, _ := os.ReadFile("/proc/" + child + "/status")
			_, rest, _ := strings.Cut(string(status), "VmRSS:")
			kB, _ := strconv.Atoi(strings.Fields(rest)[0])
			return float64(kB) / 1000
		}
	}
	return 0
}

// machineMemory is what the machine has, in GiB.
func machineMemory() int {
	info, _ := os.ReadFile("/proc/meminfo")
	_, rest, _ := strings.Cut(string(info), "MemTotal:")
	if fields := strings.Fields(rest); len(fields) > 0 {
		kB, _ := strconv.Atoi(fields[0])
		return (kB + 1<<19) >> 20
	}
	return 0
}
