package app

import (
	"log/slog"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/allo/reservations/internal/config"
	"github.com/allo/reservations/internal/pgtest"
)

// Lambda freezes an environment that nobody calls as soon as it asks for a call.
func TestAProvisionedFunctionConnectsBeforeItAsksForACall(t *testing.T) {
	t.Parallel()

	db := pgtest.New(t)
	a, err := New(config.Config{
		DatabaseURL: db.DirectURL, HoldTTL: time.Minute, MaxHold: time.Hour,
	}, slog.New(slog.DiscardHandler), 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Close)
	admin, err := pgx.Connect(t.Context(), db.DirectURL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = admin.Close(t.Context()) })
	sessions := func() (n int) {
		t.Helper()
		err := admin.QueryRow(t.Context(), `
			SELECT count(*) FROM pg_stat_activity
			WHERE datname = current_database() AND application_name = 'allo-reservations'`).Scan(&n)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if n := sessions(); n != 0 {
		t.Fatalf("there are %d sessions of the service before it starts", n)
	}

	a.connectAtStart(true)

	if n := sessions(); n != 1 {
		t.Errorf("the function asks for a call with %d sessions, want 1", n)
	}
}
