package migrate_test

import (
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/allo/reservations/internal/events"
	"github.com/allo/reservations/internal/events/outbox"
	"github.com/allo/reservations/internal/pgtest"
	"github.com/allo/reservations/internal/postgres"
	"github.com/allo/reservations/internal/reservation"
)

// The service's role takes ticks, prunes them and serves a relay, and can't delete a tick. The
// database's owner, who owns no table, reads the feed's tables, redrives and rebases the stream.
func TestTheRolesOfTheFeed(t *testing.T) {
	t.Parallel()

	db := pgtest.NewFixture(t, pgtest.New(t))
	db.Stock(db.Product(), db.Warehouse(), 5)
	service, owner, as, undo := roles(t, db)
	defer undo()
	serveRelay(t, db, as(service))

	try := func(role, sql string) string { return tryAs(t, as(role), sql) }
	// As if the last movement came from a server with more transactions.
	db.Exec("ALTER TABLE stock_movements DISABLE TRIGGER USER")
	db.Exec("UPDATE stock_movements SET xid = '9000000000'")
	db.Exec("ALTER TABLE stock_movements ENABLE TRIGGER USER")
	for _, c := range []struct{ role, sql, want string }{
		{service, "DELETE FROM ticks", "permission denied"},
		{service, "UPDATE stream SET archived = '9'", "permission denied"},
		{service, "SELECT rebase_stream()", "only the database's owner"},
		{service, "SELECT begin_epoch()", "only the database's owner"},
		{service, "SELECT redrive_parked('topic')", "only the database's owner"},
		{owner, "SELECT redrive_parked('bus')", "there is no sink bus"},
		{service, "SELECT forget_sink('topic')", "only the database's owner"},
		{owner, "SELECT forget_sink('bus')", "there is no sink bus"},
		{owner, "SELECT begin_epoch()", ""},
		{owner, "SELECT rebase_stream()", ""},
		{owner, "SELECT FROM ledger, ticks, sinks, parked, stream, minute_counts, archived_ledger", ""},
	} {
		if got := try(c.role, c.sql); c.want == "" && got != "" || !strings.Contains(got, c.want) {
			t.Errorf("%s as %s = %q, want %q", c.sql, c.role, got, c.want)
		}
	}
	if n := pgtest.QueryOne[int](db, "SELECT count(*) FROM stock_movements WHERE xid = '3'"); n == 0 {
		t.Error("the owner's rebase_stream() left an id of the other server")
	}
}

// serveRelay lets the service's role do all that the outbox does.
func serveRelay(t *testing.T, db *pgtest.Fixture, databaseURL string) {
	t.Helper()
	pool, err := postgres.Open(postgres.URL(databaseURL), 1)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	o := outbox.New(reservation.New(pool, reservation.Options{}), outbox.Options{})
	request := events.Request{Sink: "topic", Lease: uuid.NewString()}
	for range 4 {
		page, err := o.Next(t.Context(), request)
		if err != nil || len(page.Events) == 0 {
			t.Fatalf("Next() by the service's role = %+v, %v, want events", page, err)
		}
		request.Ack = page.Position
		request.Parked = []events.Parked{{ID: page.Events[0].ID, Subject: "another", Error: "test"}}
		// The old ticks are all of one minute.
		db.Exec(`
UPDATE ticks SET at = date_trunc('hour', at) - interval '8 d' WHERE at > now() - interval '1 d'`)
		db.Stock(db.Product(), db.Warehouse(), 5)
	}
	request.Patient, request.Parked = true, nil
	if page, err := o.Next(t.Context(), request); err != nil || len(page.Events) == 0 {
		t.Errorf("Next() of a patient relay by the service's role = %+v, %v, want events", page, err)
	}
	if err := o.Prune(t.Context()); err != nil {
		t.Errorf("Prune() by the service's role = %v", err)
	}
	if _, _, err := o.List(t.Context(), "", nil, 10); err != nil {
		t.Errorf("List() by the service's role = %v", err)
	}
	if n := pgtest.QueryOne[int](db, "SELECT count(*) FROM ticks"); n >= 4 {
		t.Errorf("%d ticks are left, want some pruned", n)
	}
	live := events.LiveRequest{Lease: uuid.NewString()}
	if page, err := o.Live(t.Context(), live); err != nil || !page.Leased {
		t.Errorf("Live() by the service's role = %+v, %v, want the lease", page, err)
	}
	db.Exec("UPDATE live SET looked = looked - interval '2 s', seen = seen - interval '2 s'")
	db.Stock(db.Product(), db.Warehouse(), 5)
	if page, err := o.Live(t.Context(), live); err != nil || len(page.Stock) == 0 {
		t.Errorf("Live() by the service's role = %+v, %v, want the stock row", page, err)
	}
}
