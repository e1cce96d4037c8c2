package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// tick is the unit of times in /proc: a hundredth of a second on every Linux that Go supports.
const tick = 10 * time.Millisecond

// processCPU returns the processor time used by a process and by its children that have ended.
func processCPU(pid int) time.Duration {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0 // it has ended: its parent counts its time
	}
	// The name, in brackets, may hold any character. The fields after it begin with the third.
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	sum := 0
	for _, i := range []int{11, 12, 13, 14} {
		n, _ := strconv.Atoi(fields[i])
		sum += n
	}
	return time.Duration(sum) * tick
}

// treeCPU returns the processor time of a process and its living children.
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

// machineCPU returns the processor time used by the whole machine: all but idling and waiting for
// disks.
func machineCPU() time.Duration {
	stat, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0
	}
	line, _, _ := strings.Cut(string(stat), "\n")
	sum := 0
	for i, field := range strings.Fields(line) {
		n, _ := strconv.Atoi(field)
		// The fields: user nice system (idle iowait) irq softirq steal.
		if i >= 1 && i <= 8 && i != 4 && i != 5 {
			sum += n
		}
	}
	return time.Duration(sum) * tick
}

// residentMB returns the memory in use by a child of the parent process that runs the binary, or 0
// if there is none.
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

// machineMemory returns the memory of the machine in GiB.
func machineMemory() int {
	info, _ := os.ReadFile("/proc/meminfo")
	_, rest, _ := strings.Cut(string(info), "MemTotal:")
	if fields := strings.Fields(rest); len(fields) > 0 {
		kB, _ := strconv.Atoi(fields[0])
		return (kB + 1<<19) >> 20
	}
	return 0
}
