package outbox_test

import (
	"testing"

	"github.com/allo/reservations/internal/pgtest"
)

// pile writes the rows of so many transactions, each with a hundred new holds.
func (f *fixture) pile(transactions int) {
	f.t.Helper()
	for range transactions {
		f.Exec(`
WITH made AS (
    INSERT INTO reservations (id, product_id, warehouse_id, quantity, created_at, updated_at,
                              expires_at, version)
    SELECT gen_random_uuid(), $1, $2, 1, now(), now(), now() + interval '1 h', 1
    FROM generate_series(1, 100)
    RETURNING *
), transitions AS (
    INSERT INTO ledger (at, expires_at, hold_id, version, kind, cause)
    SELECT m.updated_at, m.expires_at, m.id, 1, 'h', 'v' FROM made m
)
UPDATE inventory SET reserved = reserved + 100, first_end = '-infinity', epoch = next_epoch(epoch)`,
			f.product.String(), f.west.String())
	}
}

// tooLong makes a routine fail, as the statement_timeout does, when its batch has more than 600
// rows of the ledger.
func (f *fixture) tooLong(routine, before, prev, this string) {
	f.t.Helper()
	f.mutate(routine, before, `
    IF (SELECT count(*) FROM ledger l
        WHERE is_new(l.xid, ARRAY(SELECT pg_snapshot_xip(`+prev+`)), `+prev+`, `+this+`)) > 600 THEN
        RAISE EXCEPTION 'too many rows' USING ERRCODE = 'query_canceled';
    END IF;
    `+before)
}

// After a pause there are more rows than a statement can read in its time. They are split, so each
// is counted and published. In the control they are one batch, which no statement can read.
func TestMoreRowsThanAStatementCanReadAreSplit(t *testing.T) {
	t.Parallel()
	for _, split := range []bool{true, false} {
		f := newFixture(t)
		sink := &memory{}
		f.drain(sink)
		f.tooLong("count_minutes", "INSERT INTO minute_counts", "_prev", "_this")
		f.tooLong("read_transitions", "RETURN QUERY\n    WITH fresh", "_prev", "_this")
		if split {
			f.mutate("batch_rows", "50000", "500")
			f.mutate("joined_rows", "1000", "500")
		}
		f.pile(50)
		if _, err := f.outbox.Tick(t.Context()); (err == nil) != split {
			t.Errorf("split %t: Tick() = %v", split, err)
		}
		if !split {
			continue
		}
		f.drain(sink)
		f.mustBeWhole(sink.got)
		if n := pgtest.QueryOne[int](f.Fixture, "SELECT sum(held) FROM minute_counts"); n != 5000 {
			t.Errorf("%d holds are counted, want 5000", n)
		}
	}
}

// A call takes up to eight ticks of a large batch, and fewer when they take long: a call that ran
// into the statement_timeout would undo them all, and so would each one after it.
func TestATickEndsInTime(t *testing.T) {
	t.Parallel()
	for limit, want := range map[string]int{"0 s": 1, "1 h": 8} {
		f := newFixture(t)
		f.drain(&memory{})
		f.mutate("batch_rows", "50000", "50")
		f.mutate("take_tick", "interval '1 s'", "interval '"+limit+"'")
		before := f.tick()
		f.pile(12)
		if n := int(f.tick() - before); n != want {
			t.Errorf("within %s a call takes %d ticks, want %d", limit, n, want)
		}
	}
}
