package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// side is one of the two builds of a comparison, with what its rounds measured.
type side struct {
	name, binary, root string
	rows               map[string][]row // by workload
	studies            map[string][]float64
}

// compare runs the bench of another commit and this one in turns, each round in a process and on a
// server of its own, and prints the medians side by side.
func compare(ctx context.Context, o options, stdout io.Writer) (err error) {
	dir, err := os.MkdirTemp("", "allo-bench-before-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	// As root, Postgres runs as another user, who must reach its programs through this directory.
	if err := os.Chmod(dir, 0o755); err != nil { //nolint:gosec // it holds nothing secret
		return err
	}
	o.progress(stdout, "build the bench of %s", o.against)
	if err := buildCommit(ctx, o, dir); err != nil {
		return fmt.Errorf("build %s: %w", o.against, err)
	}
	this, err := os.Executable()
	if err != nil {
		return err
	}
	before := newSide(o.against, filepath.Join(dir, "bench"), dir)
	after := newSide("this build", this, o.root)
	for round := range o.rounds {
		order := []*side{before, after}
		if round%2 == 1 {
			slices.Reverse(order)
		}
		for _, s := range order {
			o.progress(stdout, "round %d of %d: %s", round+1, o.rounds, s.name)
			if err := s.runRound(ctx, o, filepath.Join(dir, "round")); err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
		}
	}
	table := comparison(before, after)
	fmt.Fprintln(stdout, "\n"+table)
	if err := os.MkdirAll(o.out, 0o755); err != nil { //nolint:gosec // for everyone to read
		return err
	}
	//nolint:gosec // see above
	return os.WriteFile(filepath.Join(o.out, "compare.md"), []byte(table), 0o644)
}

// buildCommit exports a commit into dir, with this checkout's Postgres, and builds its bench there.
func buildCommit(ctx context.Context, o options, dir string) error {
	archive := filepath.Join(dir, "source.tar")
	for _, command := range [][]string{
		{"git", "-C", o.root, "archive", "--output", archive, o.against},
		{"tar", "-x", "-f", archive, "-C", dir},
	} {
		out, err := exec.CommandContext(ctx, command[0], command[1:]...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%s: %w: %s", command[0], err, out)
		}
	}
	root, err := filepath.Abs(o.root)
	if err != nil {
		return err
	}
	modules := filepath.Join("infra", "node_modules")
	if err := os.Symlink(filepath.Join(root, modules), filepath.Join(dir, modules)); err != nil {
		return err
	}
	build := exec.CommandContext(ctx, "go", "build", "-buildvcs=false", "-o", "bench",
		"./internal/cmd/bench")
	build.Dir = dir
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w: %s", err, out)
	}
	return nil
}

func newSide(name, binary, root string) *side {
	return &side{
		name: name, binary: binary, root: root,
		rows: map[string][]row{}, studies: map[string][]float64{},
	}
}

// turnRounds is how many rounds a process makes of each workload, of which it reports the median.
// The first on a fresh server is slower: it fills the buffers and creates the WAL's files.
const turnRounds = 3

// runRound runs the selected workloads and studies once, in a process of its own, and keeps their
// figures.
func (s *side) runRound(ctx context.Context, o options, out string) error {
	cmd := exec.CommandContext(ctx, s.binary, "-root", s.root, "-out", out, "-only", o.only,
		"-rounds", strconv.Itoa(turnRounds), "-length", o.length.String())
	if said, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, said)
	}
	var rows []row
	var shapes []shape
	for name, into := range map[string]any{"results.json": &rows, "shapes.json": &shapes} {
		document, err := os.ReadFile(filepath.Join(out, name))
		if err != nil {
			return err
		}
		if err := json.Unmarshal(document, into); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	for _, r := range rows {
		s.rows[r.label()] = append(s.rows[r.label()], r)
	}
	for _, shape := range shapes {
		for figure, value := range shape.Figures {
			key := shape.Name + ": " + figure
			s.studies[key] = append(s.studies[key], value)
		}
	}
	return nil
}

// label names a row by its workload, its callers and how far away the database and its disk are.
func (r row) label() string {
	return label(r.Workload, r.Callers, r.RTTMs, r.FlushDelayMs)
}

// comparison is the table of two sides, in Markdown: medians before and after, with the ratio of
// the medians. A workload that only one side has is left out.
func comparison(before, after *side) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s against this build, medians of interleaved rounds.\n\n", before.name)
	if len(after.rows) > 0 {
		b.WriteString("| workload | before /s | after /s | ratio (rounds) | p99 ms | " +
			"server µs | client µs | log B |\n|---|---:|---:|---:|---:|---:|---:|---:|\n")
	}
	for _, name := range slices.Sorted(maps.Keys(after.rows)) {
		old, now := before.rows[name], after.rows[name]
		if len(old) == 0 {
			continue
		}
		least, most := roundRatios(old, now)
		pair := func(figure func(figures) float64) (float64, float64) {
			return medianOf(old, figure), medianOf(now, figure)
		}
		oldRate, newRate := pair(func(f figures) float64 { return f.OpsPerSecond })
		oldTail, newTail := pair(func(f figures) float64 { return f.P99Ms })
		oldServer, newServer := pair(func(f figures) float64 { return f.ServerCPUUs })
		oldClient, newClient := pair(func(f figures) float64 { return f.ClientCPUUs })
		oldLog, newLog := pair(func(f figures) float64 { return f.WALBytes })
		fmt.Fprintf(&b, "| %s | %.0f | %.0f | **×%.2f** (%.2f to %.2f) | %.1f to %.1f | "+
			"%.0f to %.0f | %.0f to %.0f | %.0f to %.0f |\n", name, oldRate, newRate,
			newRate/oldRate, least, most, oldTail, newTail, oldServer, newServer,
			oldClient, newClient, oldLog, newLog)
	}
	if len(after.studies) > 0 {
		b.WriteString("\n| study | before | after | ratio |\n|---|---:|---:|---:|\n")
	}
	for _, name := range slices.Sorted(maps.Keys(after.studies)) {
		if len(before.studies[name]) == 0 {
			continue
		}
		old, now := median(before.studies[name]), median(after.studies[name])
		fmt.Fprintf(&b, "| %s | %.4g | %.4g | ×%.2f |\n", name, old, now, now/old)
	}
	return b.String()
}

func medianOf(rows []row, figure func(figures) float64) float64 {
	var values []float64
	for _, r := range rows {
		values = append(values, figure(r.Ours))
	}
	return median(values)
}

// roundRatios are the least and the most that a round's rate was of the other side's in that round.
func roundRatios(before, after []row) (least, most float64) {
	for i, r := range after[:min(len(before), len(after))] {
		one := r.Ours.OpsPerSecond / before[i].Ours.OpsPerSecond
		if i == 0 || one < least {
			least = one
		}
		most = max(most, one)
	}
	return least, most
}
