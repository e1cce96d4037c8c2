//go:build !linux

package main

import "time"

// delay waits for one fixed time, again and again.
type delay struct{ d time.Duration }

func newDelay(d time.Duration) (*delay, error) { return &delay{d}, nil }

func (d *delay) wait() error { time.Sleep(d.d); return nil }

func (d *delay) close() error { return nil }
