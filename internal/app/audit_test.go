package app_test

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/jackc/pgx/v5"

	"github.com/allo/reservations/internal/app"
	"github.com/allo/reservations/internal/pgtest"
)

func TestTheAuditsResultIsStored(t *testing.T) {
	t.Parallel()

	a, db, _, _ := newSweeper(t)
	conn, err := pgx.Connect(t.Context(), db.DirectURL)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	stored := func() (violations int, unfinished, found bool) {
		t.Helper()
		stats, err := a.Service.Stats(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if stats.Audit == nil {
			return 0, false, false
		}
		return stats.Audit.Violations, stats.Audit.Unfinished, true
	}

	if _, err := a.Sweep(t.Context(), events.EventBridgeEvent{}); err != nil {
		t.Fatal(err)
	}
	if _, _, found := stored(); found {
		t.Error("a sweep without an audit stored a result")
	}
	for _, step := range []struct {
		sql        string
		violations int
	}{
		{"SELECT 1", 0},
		{"UPDATE inventory SET reserved = reserved + 1 WHERE total = 50", 1},
		{"UPDATE inventory SET reserved = reserved - 1 WHERE total = 50", 0},
	} {
		if _, err := conn.Exec(t.Context(), step.sql); err != nil {
			t.Fatal(err)
		}
		if _, err := a.Sweep(t.Context(), auditEvent); err != nil {
			t.Fatal(err)
		}
		violations, unfinished, found := stored()
		if violations != step.violations || unfinished || !found {
			t.Errorf("after %s the stored audit is %d, %t, %t, want %d violations", step.sql,
				violations, unfinished, found, step.violations)
		}
	}

	tx, err := conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(),
		"LOCK TABLE stock_movements IN ACCESS EXCLUSIVE MODE"); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Sweep(t.Context(), auditEvent); err != nil {
		t.Fatal(err)
	}
	if _, unfinished, _ := stored(); !unfinished {
		t.Error("an unfinished audit is stored as finished")
	}
}

// auditsInTurn lets a full audit find a movement that is missing behind a closing, and an hour's
// audit, which can't see it, follow. It returns what the stats and the metric then show, and again
// after the row was repaired and another full audit found nothing.
func auditsInTurn(t *testing.T, mutate func(pgtest.Database)) (shown [2]int, metric [2]float64) {
	t.Helper()
	a, db, log, metrics := newSweeper(t)
	mutate(db)
	f := pgtest.NewFixture(t, db)
	for range 2 {
		f.Exec("SELECT adjust_stock(product_id, warehouse_id, 1, 'x') FROM inventory WHERE total >= 50")
	}
	sweep := func(event events.EventBridgeEvent) {
		t.Helper()
		metrics.Reset()
		if _, err := a.Sweep(t.Context(), event); err != nil {
			t.Fatal(err)
		}
	}
	show := func(i int) {
		t.Helper()
		stats, err := a.Service.Stats(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		shown[i], metric[i] = stats.Audit.Violations, readMetrics(t, metrics)["AuditViolations"]
	}
	sweep(auditEvent)
	f.Exec(`
CREATE TABLE missing AS SELECT * FROM stock_movements WHERE seq = 2 LIMIT 1`)
	f.Exec("ALTER TABLE stock_movements DISABLE TRIGGER USER")
	f.Exec(`
DELETE FROM stock_movements m USING missing d
WHERE (m.product_id, m.warehouse_id, m.seq) = (d.product_id, d.warehouse_id, d.seq)`)
	f.Exec("ALTER TABLE stock_movements ENABLE TRIGGER USER")
	sweep(fullAuditEvent)
	sweep(auditEvent)
	show(0)
	if shown[0] > 0 && !strings.Contains(log.String(), "an earlier audit found more") {
		t.Errorf("the log is %s, want a line about the earlier audit", log)
	}
	f.Exec("ALTER TABLE stock_movements DISABLE TRIGGER USER")
	f.Exec("INSERT INTO stock_movements SELECT * FROM missing")
	f.Exec("ALTER TABLE stock_movements ENABLE TRIGGER USER")
	sweep(fullAuditEvent)
	show(1)
	return shown, metric
}

func TestAFullAuditsFindingStaysUntilAnotherOneIsClean(t *testing.T) {
	t.Parallel()

	shown, metric := auditsInTurn(t, func(pgtest.Database) {})
	if shown != [2]int{1, 0} || metric != [2]float64{1, 0} {
		t.Errorf("the stats show %v and the metric %v, want 1, and then 0", shown, metric)
	}
}

func TestAnHoursAuditClearsAFullOnesFindingWithoutItsColumn(t *testing.T) {
	t.Parallel()

	shown, metric := auditsInTurn(t, func(db pgtest.Database) {
		pgtest.Mutate(t, db, "keep_audit", "CASE WHEN NOT _full THEN a.full_violations",
			"CASE WHEN NOT _full THEN 0")
	})
	if shown[0] != 0 || metric[0] != 0 {
		t.Errorf("the stats show %v and the metric %v, want 0", shown, metric)
	}
}

// The log has the audit's result too, so the sweep doesn't fail.
func TestAnAuditThatCanNotBeStoredIsLogged(t *testing.T) {
	t.Parallel()

	a, db, log, metrics := newSweeper(t)
	conn, err := pgx.Connect(t.Context(), db.DirectURL)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if _, err := conn.Exec(t.Context(), "DROP TABLE last_audit"); err != nil {
		t.Fatal(err)
	}

	report, err := a.Sweep(t.Context(), auditEvent)

	if err != nil || report.Audit == nil || report.Audit.Unfinished {
		t.Fatalf("Sweep() = %+v, %v, want a finished audit", report.Audit, err)
	}
	if readAudit(t, log) == nil ||
		!strings.Contains(log.String(), "the audit's result isn't stored") {
		t.Errorf("the log is %s, want the audit and a line that it isn't stored", log)
	}
	// A full audit may have found something, and nobody knows.
	if n, known := readMetrics(t, metrics)["AuditViolations"]; known {
		t.Errorf("the metric AuditViolations is %g, want none", n)
	}
}

// fullAuditEvent asks a sweep for a full audit.
var fullAuditEvent = events.EventBridgeEvent{Detail: json.RawMessage(`{"audit":"full"}`)}

// A full audit that couldn't end goes on in the sweeps that find nothing to do, but not in the
// first minute of an hour, which has an audit of its own.
func TestAFullAuditGoesOnInQuietMinutes(t *testing.T) {
	t.Parallel()

	a, db, log, metrics := newSweeper(t)
	f := pgtest.NewFixture(t, db)
	f.Exec("UPDATE inventory SET reserved = reserved + 1 WHERE total = 50")
	sweep := func(event events.EventBridgeEvent) *app.AuditReport {
		t.Helper()
		report, err := a.Sweep(t.Context(), event)
		if err != nil {
			t.Fatal(err)
		}
		return report.Audit
	}
	wantAudit := func(what string, got *app.AuditReport, want app.AuditReport) {
		t.Helper()
		if got == nil || *got != want {
			t.Errorf("%s the audit is %+v, want %+v", what, got, want)
		}
	}

	if got := sweep(events.EventBridgeEvent{}); got != nil {
		t.Errorf("a sweep that nobody asked for an audit made one: %+v", got)
	}
	unlock := f.Lock("LOCK TABLE stock_movements IN ACCESS EXCLUSIVE MODE") // until lock_timeout
	wantAudit("under a lock", sweep(fullAuditEvent), app.AuditReport{Full: true, Unfinished: true})
	if line := readAudit(t, log); line == nil || line.Level != "WARN" || !line.Unfinished {
		t.Errorf("the log is %s, want an unfinished audit at WARN", log)
	}
	if _, known := readMetrics(t, metrics)["AuditUnfinished"]; known {
		t.Error("a part of a full audit has the metric AuditUnfinished")
	}
	unlock()

	hour := time.Date(2026, 11, 24, 12, 0, 30, 0, time.UTC)
	wantAudit("in an hour's first minute", sweep(events.EventBridgeEvent{Time: hour}),
		app.AuditReport{Violations: 1})
	metrics.Reset()
	wantAudit("in its second minute", sweep(events.EventBridgeEvent{Time: hour.Add(time.Minute)}),
		app.AuditReport{Full: true, Violations: 1})
	wantMetrics(t, "a complete full audit", readMetrics(t, metrics),
		map[string]float64{"AuditViolations": 1})
	if got := sweep(events.EventBridgeEvent{Time: hour.Add(2 * time.Minute)}); got != nil {
		t.Errorf("after the full audit another one follows: %+v", got)
	}
}
