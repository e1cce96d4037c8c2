package main

import (
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/allo/reservations/internal/local"
)

const root = "../../.."

func TestRunWritesResultsTableAndChart(t *testing.T) {
	t.Parallel()

	out := t.TempDir()
	err := bench(t.Context(), []string{
		"-root", root, "-out", out, "-only", "sold-out", "-rounds",
		"1", "-length", "50ms",
	}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	document, err := os.ReadFile(filepath.Join(out, "results.json"))
	if err != nil {
		t.Fatal(err)
	}
	var rows []row
	if err := json.Unmarshal(document, &rows); err != nil {
		t.Fatal(err)
	}
	if len(rows) != 2 || rows[0].Workload != "sold-out" || rows[1].Workload != "sold-out-dead" {
		t.Fatalf("rows = %+v, want sold-out and sold-out-dead", rows)
	}
	for _, r := range rows {
		if r.Ours.OpsPerSecond <= 0 || r.Reference.OpsPerSecond <= 0 || r.Ratio <= 0 ||
			r.Ours.P99Ms < r.Ours.P50Ms {
			t.Errorf("row = %+v, want positive rates and a p99 of at least the p50", r)
		}
	}
	table, err := os.ReadFile(filepath.Join(out, "table.md"))
	if err != nil || !strings.Contains(string(table), "| sold-out | 64 | 1 | 0 |") {
		t.Errorf("table = %s, %v, want a line for sold-out", table, err)
	}
	chart, err := os.Open(filepath.Join(out, "chart.svg"))
	if err != nil {
		t.Fatal(err)
	}
	defer chart.Close()
	for decoder := xml.NewDecoder(chart); ; {
		if _, err := decoder.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("the chart is not XML: %v", err)
		}
	}
}

// A wrong answer must fail the run, however fast it is, and whichever check must catch it.
func TestWrongAnswerFailsTheRun(t *testing.T) {
	t.Parallel()

	s, err := startServer(t.Context(), root)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.close(context.Background()); err != nil {
			t.Error(err)
		}
	}()
	honest := workload{
		name: "honest", callers: 2, designs: both, calls: 10,
		setup: stocked(1, ample), caller: reserveOne(func() int { return 0 }), check: allHeld,
	}
	for _, name := range []string{"reference", "plain", "outbox", "ours"} {
		if m, err := run(t.Context(), s, honest, name, time.Minute); err != nil || m.done != 10 {
			t.Errorf("run(%s) = %+v, %v, want 10 holds", name, m, err)
		}
	}

	// This caller claims to hold, and does nothing.
	idle := honest
	idle.caller = func(design, int) func(context.Context) error {
		return func(context.Context) error { return nil }
	}
	if _, err := run(t.Context(), s, idle, "ours", time.Second); err == nil ||
		!strings.Contains(err.Error(), "were told of") {
		t.Errorf("run() of callers that hold nothing = %v, want an error", err)
	}

	// This check breaks the stock behind the service, so the audit must fail.
	miscounting := honest
	miscounting.check = func(ctx context.Context, s *server, _ *measurement) error {
		return s.exec(ctx, "UPDATE inventory SET reserved = reserved + 1")
	}
	if _, err := run(t.Context(), s, miscounting, "ours", time.Second); !errors.Is(err, errAudit) {
		t.Errorf("run() on a broken stock row = %v, want %v", err, errAudit)
	}
}

// BenchmarkOverhead profiles what a Lambda does for one call: go test -bench Overhead -benchmem
// -memprofile FILE.
func BenchmarkOverhead(b *testing.B) {
	s, err := startServer(b.Context(), root)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = s.close(context.Background()) }()
	if err := s.load(b.Context(), manyRows, ample); err != nil {
		b.Fatal(err)
	}
	a, err := newApp(b.Context(), s.url(), &network{})
	if err != nil {
		b.Fatal(err)
	}
	defer a.Close()
	function, event := local.Handler(a.HTTP("reserve")), reserveEvent(stockLine(0, 1))
	b.ReportAllocs()
	for b.Loop() {
		if err := invoke(b.Context(), function, event); err != nil {
			b.Fatal(err)
		}
	}
}

func TestRatioIsOfTheMediansOfTheRounds(t *testing.T) {
	t.Parallel()

	r := newResult(workload{name: "w", designs: both})
	for _, calls := range []int{100, 900, 300} {
		r.add(&measurement{design: "ours", done: calls, took: time.Second})
		r.add(&measurement{design: "reference", done: 100, took: time.Second})
	}
	ratio, least, most := r.ratio()
	if diff := cmp.Diff([]float64{3, 1, 9}, []float64{ratio, least, most}); diff != "" {
		t.Errorf("ratio, least, most (-want +got):\n%s", diff)
	}
}

func TestComparisonPairsWorkloadsAndStudies(t *testing.T) {
	t.Parallel()

	before, after := newSide("HEAD", "", ""), newSide("this build", "", "")
	for _, rate := range []float64{100, 300, 200} {
		r := row{Workload: "w", Callers: 8, Ours: figures{OpsPerSecond: rate, ServerCPUUs: 50}}
		before.rows[r.label()] = append(before.rows[r.label()], r)
		r.Ours.OpsPerSecond *= 2
		r.Ours.ServerCPUUs = 40
		after.rows[r.label()] = append(after.rows[r.label()], r)
	}
	after.rows["new, 8 callers"] = []row{{Workload: "new"}}
	before.studies["s: ms"], after.studies["s: ms"] = []float64{4, 8, 6}, []float64{3, 3, 3}
	table := comparison(before, after)
	for _, want := range []string{
		"| w, 8 callers | 200 | 400 | **×2.00** (2.00 to 2.00) | 0.0 to 0.0 | 50 to 40 |",
		"| s: ms | 6 | 3 | ×0.50 |",
	} {
		if !strings.Contains(table, want) {
			t.Errorf("comparison() = %s, want %s in it", table, want)
		}
	}
	if strings.Contains(table, "new, 8 callers") {
		t.Errorf("comparison() = %s, want no workload that one side lacks", table)
	}
}

func TestZipfPicksRowsByRank(t *testing.T) {
	t.Parallel()

	const rows, picks = 1000, 200_000
	count := make([]int, rows)
	pick := zipf(rows, 0.99)
	for range picks {
		count[pick()]++
	}
	// Row n is picked n^-0.99 times as often as the first. The first of a thousand gets about 13 %
	// of all picks.
	if share := float64(count[0]) / picks; share < 0.11 || share > 0.15 {
		t.Errorf("the first row has %.3f of all picks, want about 0.13", share)
	}
	if half := float64(count[1]) / float64(count[0]); half < 0.45 || half > 0.56 {
		t.Errorf("the second row has %.2f of the first's picks, want about 0.50", half)
	}
}

func TestDelayWaitsItsFullTime(t *testing.T) {
	t.Parallel()

	d, err := newDelay(2 * time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := d.close(); err != nil {
			t.Error(err)
		}
	}()
	start := time.Now()
	const times = 20
	for range times {
		if err := d.wait(); err != nil {
			t.Fatal(err)
		}
	}
	if took := time.Since(start); took < times*2*time.Millisecond {
		t.Errorf("%d waits of 2 ms took %v, want no less than 40 ms", times, took)
	}
}
