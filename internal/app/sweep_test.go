package app_test

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/jackc/pgx/v5"

	"github.com/allo/reservations/internal/app"
	"github.com/allo/reservations/internal/config"
	"github.com/allo/reservations/internal/local/demo"
	"github.com/allo/reservations/internal/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// newSweeper makes an App on a database with the demo's stock. It also returns the buffers of its
// log and of its metrics.
func newSweeper(t *testing.T) (a *app.App, db pgtest.Database, logged, metrics *bytes.Buffer) {
	t.Helper()
	db = pgtest.New(t)
	if _, err := demo.SeedEmpty(t.Context(), db.DirectURL); err != nil {
		t.Fatal(err)
	}
	logged, metrics = new(bytes.Buffer), new(bytes.Buffer)
	c := config.Config{DatabaseURL: db.URL, HoldTTL: time.Minute, MaxHold: time.Hour}
	a, err := app.New(c, slog.New(slog.NewJSONHandler(logged, nil)), 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Close)
	a.WriteMetrics(metrics, "AlloReservations/test")
	return a, db, logged, metrics
}

// auditLine is an audit's line in the log.
type auditLine struct {
	Level, Msg string
	Found      int
	Unfinished bool
	Violations []struct{ Promise, Detail string }
}

// readAudit returns the first audit's line in a log, or nil.
func readAudit(t *testing.T, log *bytes.Buffer) *auditLine {
	t.Helper()
	for _, line := range bytes.Split(log.Bytes(), []byte("\n")) {
		var read auditLine
		if len(line) > 0 {
			if err := json.Unmarshal(line, &read); err != nil {
				t.Fatalf("%s: %v", line, err)
			}
		}
		if read.Msg == "audit" {
			return &read
		}
	}
	return nil
}

// auditEvent asks a sweep for an audit.
var auditEvent = events.EventBridgeEvent{Detail: json.RawMessage(`{"audit":true}`)}

func TestTheSweeperReportsTheAuditsResult(t *testing.T) {
	t.Parallel()

	for name, c := range map[string]struct {
		corrupt    string
		violations int
		level      string
	}{
		"no corruption": {"SELECT 1", 0, "INFO"},
		"reserved is off by one": {
			"UPDATE inventory SET reserved = reserved + 1 WHERE total = 50", 1, "ERROR",
		},
		"a movement is missing": {
			"SET session_replication_role = replica; " +
				"UPDATE inventory SET seq = seq + 1 WHERE total IN (50, 30)", 2, "ERROR",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			a, db, log, metrics := newSweeper(t)
			conn, err := pgx.Connect(t.Context(), db.DirectURL)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close(context.Background())
			if _, err := conn.Exec(t.Context(), c.corrupt); err != nil {
				t.Fatal(err)
			}

			report, err := a.Sweep(t.Context(), auditEvent)

			if err != nil || report.Audit == nil || report.Audit.Unfinished ||
				report.Audit.Violations != c.violations {
				t.Fatalf("Sweep() = %+v, %v, want an audit with %d violations", report.Audit, err,
					c.violations)
			}
			line := readAudit(t, log)
			if line == nil || line.Level != c.level || line.Found != c.violations ||
				line.Unfinished || len(line.Violations) != c.violations {
				t.Fatalf("the log is %s, want %d violations at %s", log, c.violations, c.level)
			}
			wantMetrics(t, "an audit", readMetrics(t, metrics),
				map[string]float64{"AuditViolations": float64(c.violations), "AuditUnfinished": 0})
		})
	}
}

func TestTheSweeperAuditsInTheFirstMinuteOfAnHour(t *testing.T) {
	t.Parallel()

	a, _, _, _ := newSweeper(t)
	hour := time.Date(2026, 11, 24, 12, 0, 30, 0, time.UTC)
	for event, want := range map[*events.EventBridgeEvent]bool{
		{Time: hour}:                       true,
		{Time: hour.Add(time.Minute)}:      false,
		{Time: hour.Add(59 * time.Minute)}: false,
		{}:                                 false,
		{Detail: json.RawMessage(`{"audit":false}`)}:             false,
		{Detail: json.RawMessage(`"audit"`)}:                     false,
		{Time: hour.Add(time.Minute), Detail: auditEvent.Detail}: true,
	} {
		report, err := a.Sweep(t.Context(), *event)
		if err != nil || (report.Audit != nil) != want {
			t.Errorf("Sweep(%+v) = %+v, %v, want an audit: %t", *event, report.Audit, err, want)
		}
	}
}

func TestAnUnfinishedAuditIsReported(t *testing.T) {
	t.Parallel()

	a, db, log, metrics := newSweeper(t)
	conn, err := pgx.Connect(t.Context(), db.DirectURL)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	tx, err := conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	// The audit reads the movements, so it waits for this lock until lock_timeout. The sweep doesn't
	// read them.
	if _, err := tx.Exec(t.Context(),
		"LOCK TABLE stock_movements IN ACCESS EXCLUSIVE MODE"); err != nil {
		t.Fatal(err)
	}

	report, err := a.Sweep(t.Context(), auditEvent)

	if err != nil || report.Audit == nil || !report.Audit.Unfinished {
		t.Fatalf("Sweep() = %+v, %v, want an unfinished audit", report.Audit, err)
	}
	if line := readAudit(t, log); line == nil || line.Level != "WARN" || !line.Unfinished {
		t.Errorf("the log is %s, want an unfinished audit at WARN", log)
	}
	got := readMetrics(t, metrics)
	wantMetrics(t, "an unfinished audit", got, map[string]float64{"AuditUnfinished": 1})
	if _, known := got["AuditViolations"]; known {
		t.Error("there is a metric AuditViolations, though their number is unknown")
	}
}

// A sweep prunes the old ticks, but for one a minute. When that fails, the sweep succeeds all the
// same, and its log has the error.
func TestASweepPrunesOldTicks(t *testing.T) {
	t.Parallel()

	a, db, log, _ := newSweeper(t)
	f := pgtest.NewFixture(t, db)
	sweep := func() {
		if _, err := a.Sweep(t.Context(), events.EventBridgeEvent{}); err != nil {
			t.Fatal(err)
		}
	}
	sweep() // takes the first tick
	f.Exec(`
INSERT INTO ticks (n, at, snapshot)
SELECT t.n + i, date_trunc('minute', now()) - interval '8 days' + i * interval '1 s', t.snapshot
FROM ticks t, generate_series(0, 59) i WHERE i > 0`)
	const count = "SELECT count(*) FROM ticks WHERE at < now() - interval '7 days'"
	pgtest.Mutate(t, db, "prune_old_ticks", "more := false;", "RAISE EXCEPTION 'no pruning today';")
	sweep()
	if n := pgtest.QueryOne[int](f, count); n != 59 || !bytes.Contains(log.Bytes(),
		[]byte("no pruning today")) {
		t.Errorf("when the pruning fails, %d old ticks are left and the log is %s", n, log)
	}
	pgtest.Mutate(t, db, "prune_old_ticks", "RAISE EXCEPTION 'no pruning today';", "more := false;")
	sweep()
	// No sink has published, so the last tick is what all have passed. It stays.
	if n := pgtest.QueryOne[int](f, count); n > 2 {
		t.Errorf("after a sweep %d old ticks of a minute are left", n)
	}
}
