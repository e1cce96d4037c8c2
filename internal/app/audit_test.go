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
	kept := func() (violations int, unfinished, there bool) {
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
	if _, _, there := kept(); there {
		t.Error("a sweep without an audit keeps the result of one")
	}
	for _, step := range []struct {
		sql        string
		violations int
	}{{"SELECT 1", 0}, {"UPDATE inventory SET reserved = reserved + 1 WHERE total = 50", 1}, {"UPDATE inventory SET reserved = reserved - 1 WHERE total = 50", 0}} {
		if _, err := conn.Exec(t.Context(), step.sql); err != nil {
			t.Fatal(err)
		}
		if _, err := a.Sweep(t.Context(), asked); err != nil {
			t.Fatal(err)
		}
		if violations, unfinished, there := kept(); violations != step.violations || unfinished ||
			!there {
			t.Errorf("after %s the audit kept is %d, %t, %t, want %d violations", step.sql,
				violations, unfinished, there, step.violations)
		}
	}

	tx, err := conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(),
		"LOCK TABLE stock_adjustments IN ACCESS EXCLUSIVE MODE"); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Sweep(t.Context(), asked); err != nil {
		t.Fatal(err)
	}
	if _, unfinished, _ := kept(); !unfinished {
		t.Error("an audit that didn't end is kept as one that did")
	}
}

// The audit has been told in the log, so a sweep doesn't fail over it.
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

	report, err := a.Sweep(t.Context(), asked)

	if err != nil || report.Audit == nil || report.Audit.Unfinished {
		t.Fatalf("Sweep() = %+v, %v, want a finished audit", report.Audit, err)
	}
	if readAudit(t, log) == nil ||
		!strings.Contains(log.String(), "the audit's result isn't stored") {
		t.Errorf("the log says %s, want the audit, and that it isn't kept", log)
	}
}
