package reservation_test

import (
	"flag"
	"strconv"
	"testing"
	"time"

	"github.com/google/uuid"
)

// The holds of TestAListOfAPartyOrOfWhatWasUpdatedReadsFewHolds. This is how to measure with many:
//
//	go test ./internal/reservation -run WhatWasUpdatedReads -v -timeout 1h -listed 10000000
var listedHolds = flag.Int("listed", 100_000, "confirmed holds, each with an owner")

// manyPartiesSQL makes {holds} holds of a product that were confirmed a tenth of a second apart
// until now, each in a transaction of its own, whose ids begin at a billion. Each hundred of them
// are of one owner, and each has a reference. There was a tick for each second of the last ten
// thousand, and the last one sees all but the last hundred holds.
const manyPartiesSQL = settingsSQL + `
CREATE TEMPORARY TABLE sold AS
SELECT n, (1000000000 + n)::text::xid8 AS xid, t.at, i.product_id, i.warehouse_id,
       (lpad(to_hex((extract(epoch FROM t.at) * 1000)::bigint), 12, '0')
        || '70008000' || lpad(to_hex(n), 12, '0'))::uuid AS id
FROM generate_series(1, {holds}) n,
     LATERAL (SELECT now() - ({holds} - n) * interval '0.1 s' AS at) t, inventory i;
INSERT INTO reservations (id, product_id, warehouse_id, quantity, created_at, updated_at,
                          expires_at, status, version, detailed)
SELECT id, product_id, warehouse_id, 1, at - interval '1 min', at, at + interval '1 min',
       'CONFIRMED', 2, true
FROM sold ORDER BY id;
INSERT INTO ledger (xid, at, expires_at, hold_id, version, kind, cause)
SELECT xid, at - interval '1 min', at + interval '1 min', id, 1, 'h', 'v' FROM sold
UNION ALL
SELECT xid, at, at + interval '1 min', id, 2, 'c', 'v' FROM sold;
INSERT INTO hold_parties (hold_id, owner, reference)
SELECT id, 'owner ' || n / 100, 'order ' || n FROM sold;
INSERT INTO ticks (n, at, snapshot)
SELECT n, now() - (10000 - n) * interval '1 s' - interval '10 s', '4:4:'
FROM generate_series(1, 9999) n;
INSERT INTO ticks (n, at, snapshot)
SELECT 10000, now() - interval '10 s', format('%1$s:%1$s:', 1000000000 + {holds} - 99)::pg_snapshot;
DROP TABLE sold;
VACUUM ANALYZE reservations, ledger, hold_parties, ticks;`

// The statements of a page of fifty holds. explainChangesSQL asks for the changes behind the tick
// $1, and explainUpdatedSQL for a first page.
const (
	explainPartySQL   = "SELECT * FROM list_holds_of($1, $2, NULL, NULL, NULL, NULL, $3, 51, 6000)"
	explainChangesSQL = `
SELECT * FROM list_updated_holds(NULL, NULL, NULL, $2, now(), $3, $1, 0, 2000000000, 2000000000, 51,
                                 4000)`
	explainUpdatedSQL = `
SELECT * FROM list_updated_holds(NULL, NULL, NULL, $1, '-infinity', $2, 0, 0, 0, 0, 51, 4000)`
)

// A page of an owner's or a reference's holds, and of those that were updated since a time, reads
// these, and not the others. The control reads all changes from the first one on.
func TestAListOfAPartyOrOfWhatWasUpdatedReadsFewHolds(t *testing.T) {
	t.Parallel()
	f := newFixture(t, 0)
	f.stock(1000)
	f.script(manyPartiesSQL, "{holds}", strconv.Itoa(*listedHolds))
	var (
		none  *string
		first = uuid.Nil.String()
		last  = uuid.Max.String()
		since = time.Now().Add(-30 * time.Second)
	)
	f.checkCosts(map[string]pageCost{
		"an owner":                  {explainPartySQL, []any{"owner 7", none, last}, 1500},
		"a reference":               {explainPartySQL, []any{none, "order 4711", last}, 100},
		"what changed since a tick": {explainChangesSQL, []any{10_000, since, first}, 3000},
		"what was updated, first":   {explainUpdatedSQL, []any{since, first}, 1000},
	})
	blocks, took := f.Explain("SELECT tick_before($1)", time.Now().Add(-time.Hour))
	t.Logf("the tick of an hour ago: %d blocks in %.1f ms", blocks, took)

	if *listedHolds > 200_000 {
		return // the control would take longer than a statement may
	}
	f.mutate("changes_after", "l.xid >= greatest(_xid, pg_snapshot_xmax(_seen))", "l.xid >= _xid")
	blocks, took = f.Explain(explainChangesSQL, 10_000, since, first)
	t.Logf("a look through all changes: %d blocks in %.1f ms", blocks, took)
	if blocks < 10_000 {
		t.Errorf("a look through all changes takes %d blocks, want 10,000 or more", blocks)
	}
}
