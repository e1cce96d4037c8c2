package app_test

import (
	"context"
	"strings"
	"testing"

	"github.com/aws/aws-lambda-go/events"
	"github.com/jackc/pgx/v5"
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

// The log has the audit's result too, so the sweep doesn't fail.
func TestAnAuditThatCanNotBeStoredIsLogged(t *testing.T) {
	t.Parallel()

	a, db, log, _ := newSweeper(t)
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
}
