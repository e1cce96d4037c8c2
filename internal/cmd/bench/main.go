// Command bench measures the service against the usual design. Both take turns on one embedded
// Postgres that flushes as in production. Rates depend on the machine, so it reports ratios.
//
//	bench                                       everything
//	bench -quick                                the workloads of a flash sale, in short rounds
//	bench -only NAME -rounds N                  the workloads and studies that begin with NAME
//	bench -against COMMIT -only NAME -rounds N  the same by another commit's bench, in turns
//
// It writes results.json, shapes.json, table.md and chart.svg, or with -against compare.md. A wrong
// answer fails the run, however fast it was. README.md explains the workloads and the table.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// options are the command line.
type options struct {
	root, out, only, against string
	quick                    bool
	rounds                   int
	length                   time.Duration
	start                    time.Time
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := bench(ctx, os.Args[1:], os.Stdout); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bench: "+err.Error())
		os.Exit(1)
	}
}

func parse(args []string) (options, error) {
	o := options{start: time.Now()}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.StringVar(&o.root, "root", ".", "the checkout")
	flags.StringVar(&o.out, "out", "build/bench", "where the results go")
	flags.StringVar(&o.only, "only", "", "run only workloads and studies that begin with this")
	flags.StringVar(&o.against, "against", "", "compare with the bench of this commit, in turns")
	flags.BoolVar(&o.quick, "quick", false, "a few workloads, in fewer and shorter rounds")
	flags.IntVar(&o.rounds, "rounds", 5, "rounds; the medians are reported")
	flags.DurationVar(&o.length, "length", time.Second, "the time of a run")
	err := flags.Parse(args)
	if o.quick {
		o.rounds, o.length = 3, 700*time.Millisecond
	}
	return o, err
}

func bench(ctx context.Context, args []string, stdout io.Writer) (err error) {
	o, err := parse(args)
	if err != nil {
		return err
	}
	if o.against != "" {
		return compare(ctx, o, stdout)
	}
	s, err := startServer(ctx, o.root)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close(context.WithoutCancel(ctx))) }()

	selected := choose(workloads(), o, s)
	results, err := rounds(ctx, s, selected, o, stdout)
	if err != nil {
		return err
	}
	shapes, more, err := study(ctx, s, o, stdout)
	if err != nil {
		return err
	}
	head, err := s.describe(ctx, o)
	if err != nil {
		return err
	}
	return publish(head, append(results, more...), shapes, o, stdout)
}

// choose returns the selected workloads, without those that this machine cannot run.
func choose(all []workload, o options, s *server) []workload {
	var chosen []workload
	for _, w := range all {
		if strings.HasPrefix(w.name, o.only) && (!o.quick || w.quick) &&
			(w.flush == 0 || s.flush != nil) {
			chosen = append(chosen, w)
		}
	}
	return chosen
}

// turn is one run of one workload by one design.
type turn struct {
	workload int
	design   string
}

// rounds runs every design on every workload once a round. The order is shuffled anew, so that a
// disturbance of the machine hits all alike.
func rounds(
	ctx context.Context, s *server, list []workload, o options, stdout io.Writer,
) ([]*result, error) {
	results := make([]*result, len(list))
	var turns []turn
	for i, w := range list {
		results[i] = newResult(w)
		for _, d := range w.designs {
			turns = append(turns, turn{i, d})
		}
	}
	for round := range o.rounds {
		rand.Shuffle(len(turns), func(i, j int) { turns[i], turns[j] = turns[j], turns[i] })
		for n, t := range turns {
			w := list[t.workload]
			o.progress(stdout, "round %d of %d, run %d of %d: %s, %s", round+1, o.rounds, n+1,
				len(turns), w.label(), t.design)
			m, err := runQuietly(ctx, s, w, t.design, o.length)
			if err != nil {
				return nil, fmt.Errorf("%s, %d callers, %s: %w", w.name, w.callers, t.design, err)
			}
			results[t.workload].add(m)
		}
	}
	return results, nil
}

// tooBusy is how many cores other processes may use during a run. Beyond it the run is repeated
// once.
const tooBusy = 0.6

func runQuietly(
	ctx context.Context, s *server, w workload, name string, length time.Duration,
) (*measurement, error) {
	m, err := run(ctx, s, w, name, length)
	if err == nil && m.othersCPU > tooBusy {
		m, err = run(ctx, s, w, name, length)
	}
	return m, err
}

// progress prints the current step and the seconds since the start: in one line on a terminal, else
// in a line each.
func (o options) progress(out io.Writer, format string, args ...any) {
	line := fmt.Sprintf(format, args...)
	if file, ok := out.(*os.File); ok {
		if info, err := file.Stat(); err == nil && info.Mode()&os.ModeCharDevice != 0 {
			fmt.Fprintf(out, "\r\x1b[K%4.0f s  %s", time.Since(o.start).Seconds(), line)
			return
		}
	}
	fmt.Fprintf(out, "%4.0f s  %s\n", time.Since(o.start).Seconds(), line)
}

// publish writes the results as JSON, as a table and as a chart, and prints the table.
func publish(head string, results []*result, shapes []shape, o options, stdout io.Writer) error {
	if err := os.MkdirAll(o.out, 0o755); err != nil { //nolint:gosec // for everyone to read
		return err
	}
	table := head + table(results) + shapeTable(shapes)
	fmt.Fprintln(stdout, "\n"+table)
	contents := map[string]string{
		"results.json": document(results), "shapes.json": shapeDocument(shapes),
		"table.md": table, "chart.svg": chart(results),
	}
	for name, content := range contents {
		//nolint:gosec // for everyone to read
		if err := os.WriteFile(filepath.Join(o.out, name), []byte(content), 0o644); err != nil {
			return err
		}
	}
	return nil
}
