package pgtest_test

import (
	"testing"
	"time"

	"github.com/allo/reservations/internal/pgtest"
)

// clockErrorSQL is by how many seconds the server's clock is ahead of the given time.
const clockErrorSQL = "SELECT extract(epoch FROM clock_timestamp() - $1::timestamptz)::float8"

func TestADisturbedServersClockJumps(t *testing.T) {
	t.Parallel()

	server, db := pgtest.NewDisturbedServer(t, nil)
	f := pgtest.NewFixture(t, db)
	ahead := func() float64 {
		return pgtest.QueryOne[float64](f, clockErrorSQL, time.Now())
	}
	const tolerance = 1800 // seconds, so that a slow machine doesn't matter
	want := 0.0
	for _, jump := range []time.Duration{time.Hour, -5 * time.Hour, 24 * time.Hour} {
		server.JumpClock(jump)
		want += jump.Seconds()
		if got := ahead(); got < want-tolerance || got > want+tolerance {
			t.Errorf("after a jump by %s the clock is ahead by %.0f s, want %.0f", jump, got, want)
		}
	}
}

func TestAStalledDiskLosesACommit(t *testing.T) {
	t.Parallel()

	server, db := pgtest.NewDisturbedServer(t, nil)
	f := pgtest.NewFixture(t, db)
	const insert = "INSERT INTO warehouses (id, name) VALUES (gen_random_uuid(), $1)"
	f.Exec(insert, "before")
	server.StallDisk()
	waits := make(chan error, 1)
	go func() {
		_, err := f.Admin.Exec(f.Context(), insert, "waits")
		waits <- err
	}()
	f.WaitUntil("SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event = 'WalSync'")
	f.Exec("SET synchronous_commit = off; " +
		"INSERT INTO warehouses (id, name) VALUES (gen_random_uuid(), 'in memory')")
	if got := pgtest.QueryOne[int](f, "SELECT count(*) FROM warehouses"); got != 2 {
		t.Errorf("%d commits are visible during the stall, want 2", got)
	}

	if err := server.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := <-waits; err == nil {
		t.Error("a commit succeeded although its flush was stalled")
	}
	server.ResumeDisk()
	if err := server.Restart(f.Context()); err != nil {
		t.Fatal(err)
	}
	f.Admin.Reset()
	f.Exec("SELECT")
	if pgtest.QueryOne[bool](f, "SELECT EXISTS (SELECT FROM warehouses WHERE name = 'in memory')") {
		t.Error("a commit that was only in the server's memory survived the kill")
	}
}
