package reservation_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/allo/reservations/internal/local/pgserver"
	"github.com/allo/reservations/internal/pgtest"
	"github.com/allo/reservations/internal/reservation"
)

// confirmUnflushed confirms a hold in a transaction that isn't flushed when it commits, and gives
// it an updated_at of half a minute ago. So nothing but the log tells that the change is new.
func (f *fixture) confirmUnflushed(h reservation.Hold) {
	f.t.Helper()
	const earlier = `
UPDATE reservations SET created_at = created_at - interval '1 min',
       updated_at = updated_at - interval '1 min'
WHERE id = '%s'`
	f.unguarded(fmt.Sprintf(earlier, h.ID))
	const confirm = `
BEGIN;
SET LOCAL synchronous_commit = off;
UPDATE reservations
SET status = 'CONFIRMED', updated_at = updated_at + interval '30 s', version = version + 1
WHERE id = '%s';
COMMIT`
	f.Exec(fmt.Sprintf(confirm, h.ID))
}

// tellers are the calls that tell what has become of a confirmed hold.
var tellers = map[string]func(context.Context, *reservation.Service, uuid.UUID) error{
	"a get": func(ctx context.Context, s *reservation.Service, id uuid.UUID) error {
		view, err := s.Get(ctx, id)
		if err == nil && view.Hold.Status != reservation.Confirmed {
			err = fmt.Errorf("it is %s", view.Hold.Status)
		}
		return err
	},
	"a refused release": func(ctx context.Context, s *reservation.Service, id uuid.UUID) error {
		return wantConfirmed(s.Release(ctx, id, ""))
	},
	"a refused release with a key": func(
		ctx context.Context, s *reservation.Service, id uuid.UUID,
	) error {
		return wantConfirmed(s.Release(ctx, id, uuid.NewString()))
	},
	"a refused replacement": func(ctx context.Context, s *reservation.Service, id uuid.UUID) error {
		products, _, err := s.ListProducts(ctx, reservation.Cursor{}, 1) // the list doesn't wait
		if err != nil {
			return err
		}
		line := reservation.Line{
			ProductID: products[0].ID, WarehouseID: products[0].Stocks[0].WarehouseID, Quantity: 1,
		}
		return wantConfirmed(s.Reserve(ctx,
			reservation.Request{Lines: []reservation.Line{line}, Replaces: &id}))
	},
	"a refused extend": func(ctx context.Context, s *reservation.Service, id uuid.UUID) error {
		return wantConfirmed(s.Extend(ctx, id, time.Minute, ""))
	},
}

// wantConfirmed is nil when a verb was refused because its hold is confirmed.
func wantConfirmed(_ reservation.Answer, err error) error {
	if !errors.Is(err, reservation.ErrConfirmed) {
		return fmt.Errorf("error %w, want %w", err, reservation.ErrConfirmed)
	}
	return nil
}

// tellAndCrash confirms a hold without a flush, lets a call tell of it, and kills the server. It
// returns the hold's status after the restart.
func tellAndCrash(
	t *testing.T, server *pgserver.Server, db pgtest.Database,
	tell func(context.Context, *reservation.Service, uuid.UUID) error,
) string {
	t.Helper()
	f := open(t, db, 1)
	f.StopLogWriter()
	hold := f.hold(f.stock(5))
	f.confirmUnflushed(hold)
	if err := tell(f.Context(), f.services()[0], hold.ID); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(server.Kill(), server.Restart(f.Context())); err != nil {
		t.Fatal(err)
	}
	return string(open(t, db, 0).status(hold))
}

func TestAnswersAboutAChangeWaitUntilItIsOnDisk(t *testing.T) {
	t.Parallel()

	server, db := pgtest.NewServer(t, lazyWriter)
	sweep := newService(open(t, db, 0).own)
	if _, err := sweep.Sweep(t.Context()); err != nil { // there is a mark, and it is too old
		t.Fatal(err)
	}
	for name, tell := range tellers {
		if status := tellAndCrash(t, server, db, tell); status != "CONFIRMED" {
			t.Errorf("after %s and a crash, the hold is %s, want CONFIRMED", name, status)
		}
	}

	// The control: each of them shows a confirm that the crash undoes.
	open(t, db, 0).mutate("hold_is_flushed", "RETURN coalesce((",
		"RETURN true OR coalesce((")
	for name, tell := range tellers {
		if status := tellAndCrash(t, server, db, tell); status != "PENDING" {
			t.Errorf("after %s without a wait and a crash, the hold is %s, want PENDING", name, status)
		}
	}
}

// writes reports whether a call got a transaction id, as a call that writes to the log does. No one
// else may use the server.
func (f *fixture) writes(call func() error) bool {
	f.t.Helper()
	const next = "SELECT pg_snapshot_xmax(pg_current_snapshot())::text"
	before := queryOne[string](f, next)
	if err := call(); err != nil {
		f.t.Fatal(err)
	}
	return queryOne[string](f, next) != before
}

func TestOnlyAnswersAboutRecentChangesWriteToTheLog(t *testing.T) {
	t.Parallel()

	_, db := pgtest.NewServer(t, map[string]string{"autovacuum": "off"})
	f := open(t, db, 1)
	s := f.services()[0]
	row, other := f.stock(9), f.stock(9)
	single, cart := f.hold(row), f.hold(row, other)
	want := func(when string, want bool) {
		t.Helper()
		for _, hold := range []reservation.Hold{single, cart} {
			get := func() error {
				_, err := s.Get(f.Context(), hold.ID)
				return err
			}
			if writes := f.writes(get); writes != want {
				t.Errorf("%s a get of a hold of %d lines writes: %t, want %t", when, len(hold.Lines),
					writes, want)
			}
		}
	}
	sweep := func() {
		t.Helper()
		if _, err := s.Sweep(f.Context()); err != nil {
			t.Fatal(err)
		}
	}

	want("before any sweep", true)
	sweep()
	want("after a sweep", false)
	unknown := func() error {
		_, err := s.Get(f.Context(), uuid.New())
		if errors.Is(err, reservation.ErrNotFound) {
			err = nil
		}
		return err
	}
	if f.writes(unknown) {
		t.Error("a get of an unknown hold writes, want no record")
	}

	for _, hold := range []reservation.Hold{single, cart} {
		if _, err := s.Extend(f.Context(), hold.ID, 20*time.Minute, ""); err != nil {
			t.Fatal(err)
		}
	}
	want("after an extend", true)
	sweep()
	want("after the next sweep", false)

	// A cart whose line alone has changed.
	f.Exec("UPDATE reservation_items SET counted = false WHERE product_id = $1",
		other.ProductID.String())
	if !f.writes(func() error { _, err := s.Get(f.Context(), cart.ID); return err }) {
		t.Error("after a line was reclaimed, a get of its cart doesn't write, want a record")
	}
	sweep()

	// The marks of another server, from before a restore, and of none.
	f.Exec("UPDATE flush_mark SET below = '4000000000'")
	want("with a mark that is ahead", true)
	f.Exec("UPDATE flush_mark SET below = '0'")
	want("with the mark of no transaction", true)
	f.Exec("DELETE FROM flush_mark")
	want("without a mark", true)
}

// An open transaction may have changed a hold, and commit without a flush.
func TestTheFlushMarkStaysBelowOpenTransactions(t *testing.T) {
	t.Parallel()

	_, db := pgtest.NewServer(t, map[string]string{"autovacuum": "off"})
	f := open(t, db, 1)
	s := f.services()[0]
	hold := f.hold(f.stock(9))
	get := func() error {
		_, err := s.Get(f.Context(), hold.ID)
		return err
	}

	tx, err := f.Admin.Begin(f.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(f.Context())
	const change = `
WITH moved AS (
    UPDATE reservations SET expires_at = expires_at + interval '1 min', version = version + 1
    WHERE id = $1 RETURNING *
)` + movedSQL
	if _, err := tx.Exec(f.Context(), change, hold.ID.String()); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Sweep(f.Context()); err != nil {
		t.Fatal(err)
	}
	if err := tx.Commit(f.Context()); err != nil {
		t.Fatal(err)
	}
	if !f.writes(get) {
		t.Error("a get doesn't wait for a change that was open while the mark moved")
	}
}

// logged is a transaction as the log has it: its records in order, and whether all of it was on
// disk when the call that made it returned.
type logged struct {
	Records string
	Flushed bool
}

// loggedBy returns the transactions that a call wrote to the log, as Postgres's own reader of the
// log (pg_walinspect, which decodes as pg_waldump does) shows them.
func (f *fixture) loggedBy(call func() error) []logged {
	f.t.Helper()
	begin := queryOne[string](f, "SELECT pg_current_wal_insert_lsn()::text")
	if err := call(); err != nil {
		f.t.Fatal(err)
	}
	flushed := queryOne[string](f, "SELECT pg_current_wal_flush_lsn()::text")
	end := queryOne[string](f, "SELECT pg_current_wal_insert_lsn()::text")
	f.Exec("CHECKPOINT") // flushes the log, because only what is on disk can be read
	const sql = `
SELECT string_agg(resource_manager || ' ' || record_type, ', ' ORDER BY start_lsn),
       max(end_lsn) <= $3::pg_lsn
FROM pg_get_wal_records_info($1::pg_lsn, $2::pg_lsn)
WHERE xid::text <> '0'
GROUP BY xid::text ORDER BY min(start_lsn)`
	rows, err := f.Admin.Query(f.Context(), sql, begin, end, flushed)
	if err != nil {
		f.t.Fatal(err)
	}
	transactions, err := pgx.CollectRows(rows, pgx.RowToStructByPos[logged])
	if err != nil {
		f.t.Fatal(err)
	}
	return transactions
}

// namedCall is a call of a verb.
type namedCall struct {
	name string
	call func() error
}

// A commit without a record before it doesn't wait for the disk. So the second commit of each verb
// must have one.
func TestTheSecondCommitOfEveryVerbHasARecordAndIsOnDisk(t *testing.T) {
	t.Parallel()

	quiet := map[string]string{"wal_level": "minimal", "max_wal_senders": "0"}
	maps.Copy(quiet, lazyWriter)
	_, db := pgtest.NewServer(t, quiet)
	f := open(t, db, 1)
	f.Exec("CREATE EXTENSION pg_walinspect")
	s := f.services()[0]
	row, other := f.stock(99), f.stock(99)
	single, cart, released := f.hold(row), f.hold(row, other), f.hold(row)
	keyed := reservation.Request{Lines: []reservation.Line{row}, Key: uuid.NewString()}
	lowered := reservation.New(f.callers[0],
		reservation.Options{HoldTTL: holdTTL, MaxHold: holdTTL})
	only := func(_ reservation.Answer, err error) error { return err }
	ctx := f.Context()
	verbs := []namedCall{
		{"a replay", func() error { return only(s.Reserve(ctx, keyed)) }},
		{"a replay past a limit", func() error {
			long := keyed
			long.TTL = maxHold
			long.Key = uuid.NewString()
			if err := only(s.Reserve(ctx, long)); err != nil {
				return err
			}
			return only(lowered.Reserve(ctx, long))
		}},
		{"reserve a cart", func() error {
			return only(s.Reserve(ctx, reservation.Request{Lines: []reservation.Line{row, other}}))
		}},
		{"extend", func() error { return only(s.Extend(ctx, single.ID, time.Minute, "")) }},
		{"extend a cart", func() error { return only(s.Extend(ctx, cart.ID, time.Minute, "")) }},
		{"get", func() error { _, err := s.Get(ctx, cart.ID); return err }},
		{"confirm", func() error { return only(s.Confirm(ctx, single.ID, "")) }},
		{"confirm again", func() error { return only(s.Confirm(ctx, single.ID, "")) }},
		{"a refused release", func() error { return wantConfirmed(s.Release(ctx, single.ID, "")) }},
		{"a refused extend", func() error {
			return wantConfirmed(s.Extend(ctx, single.ID, time.Minute, ""))
		}},
		{"confirm a cart", func() error { return only(s.Confirm(ctx, cart.ID, uuid.NewString())) }},
		{"release", func() error { return only(s.Release(ctx, released.ID, "")) }},
		{"release again", func() error { return only(s.Release(ctx, released.ID, "")) }},
	}
	verbs = append(verbs, f.paymentVerbs(s, row)...)
	mustFlush := func(verb namedCall, record string) {
		t.Helper()
		transactions := f.loggedBy(verb.call)
		want := logged{record + ", Transaction COMMIT", true}
		if len(transactions) == 0 || transactions[len(transactions)-1] != want {
			t.Errorf("%s wrote %+v, want last %+v", verb.name, transactions, want)
		}
	}
	line := namedCall{"reserve", func() error {
		return only(s.Reserve(ctx, reservation.Request{Lines: []reservation.Line{row}}))
	}}
	mustFlush(line, "Heap LOCK")
	mustFlush(namedCall{"reserve with a key", func() error {
		return only(s.Reserve(ctx, keyed))
	}}, "Heap LOCK")
	for _, verb := range verbs {
		mustFlush(verb, "Sequence LOG")
	}

	// A restart changes the hold, so its row isn't where it was inserted.
	restarted, lost := "least(interval '250 ms', _ttl / 4)", "interval '-1 s'"
	f.mutate("lost_time", restarted, lost)
	mustFlush(line, "Sequence LOG")
	f.mutate("lost_time", lost, restarted)

	// The controls: without its record a second commit writes nothing, and nothing is on disk. The
	// log writer may flush a call's log meanwhile, but not that of each call.
	mustNotFlush := func(verb namedCall) {
		t.Helper()
		const calls = 3
		var transactions []logged
		for range calls {
			transactions = f.loggedBy(verb.call)
			if len(transactions) == 1 && !transactions[0].Flushed {
				return
			}
		}
		t.Errorf("without a record %s wrote %+v, want one transaction that isn't on disk",
			verb.name, transactions)
	}
	f.mutate("reserve_line", ownLock, "")
	mustNotFlush(line)
	f.mutate("write_log_record", "setval('log_records', 1)", "NULL::bigint")
	mustNotFlush(namedCall{"a cart", func() error {
		return only(s.Reserve(ctx, reservation.Request{Lines: []reservation.Line{row, other}}))
	}})
}
