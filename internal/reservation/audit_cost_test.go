package reservation_test

import (
	"encoding/json"
	"flag"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/allo/reservations/internal/reservation"
)

// The history of TestAnAuditCostsWhatIsNew. This is how to measure with a large one:
//
//	go test ./internal/reservation -run AnAuditCosts -v -timeout 1h -history 10000000 -rows 240000
var (
	historySize = flag.Int("history", 60_000, "confirmed holds, each with its sale")
	stockRows   = flag.Int("rows", 2000, "stock rows of the history, a multiple of ten")
)

// settingsSQL lets a session write rows that no caller wrote, and take its time.
const settingsSQL = `
SET statement_timeout = 0;
SET session_replication_role = replica;
SET enable_seqscan = on;`

// shopSQL makes {rows} stock rows, each opened with a million units.
const shopSQL = settingsSQL + `
INSERT INTO products (id, name, sku)
SELECT gen_random_uuid(), n::text, n::text FROM generate_series(1, {rows} / 10) n;
INSERT INTO warehouses (id, code, name)
SELECT gen_random_uuid(), n::text, n::text FROM generate_series(1, 10) n;
INSERT INTO inventory (product_id, warehouse_id, total, room)
SELECT p.id, w.id, 1000000, NULL FROM products p, warehouses w;
INSERT INTO stock_movements (product_id, warehouse_id, seq, at, kind, delta, total_after)
SELECT product_id, warehouse_id, 1, now() - interval '1 year', 'OPENING', total, total
FROM inventory;
VACUUM ANALYZE inventory, stock_movements;`

// salesSQL makes {sales} holds that were confirmed a tenth of a second apart until a day ago, each
// with its sale and its ledger, by a transaction of its own, from {xid} on. The holds take turns at
// the stock rows.
const salesSQL = settingsSQL + `
CREATE TEMPORARY TABLE sold AS
SELECT ({xid} + s.n)::text::xid8 AS xid,
       i.product_id, i.warehouse_id, i.seq + 1 + s.n / {rows} AS seq,
       i.total - 1 - s.n / {rows} AS total, s.at,
       (lpad(to_hex((extract(epoch FROM s.at) * 1000)::bigint), 12, '0')
        || '70008000' || lpad(to_hex(s.n), 12, '0'))::uuid AS id
FROM (SELECT n, now() - interval '1 day' - ({sales} - n) * interval '0.1 s' AS at
      FROM generate_series(0, {sales} - 1) n) s
JOIN (SELECT *, row_number() OVER (ORDER BY product_id, warehouse_id) - 1 AS k FROM inventory) i
     ON i.k = s.n % {rows};
INSERT INTO reservations (id, product_id, warehouse_id, quantity, created_at, updated_at,
                          expires_at, status, version)
SELECT id, product_id, warehouse_id, 1, at - interval '1 min', at, at + interval '1 min',
       'CONFIRMED', 2
FROM sold ORDER BY id;
INSERT INTO ledger (xid, at, expires_at, hold_id, version, kind, cause)
SELECT xid, at - interval '1 min', at + interval '1 min', id, 1, 'h', 'v' FROM sold
UNION ALL
SELECT xid, at, at + interval '1 min', id, 2, 'c', 'v' FROM sold;
INSERT INTO stock_movements (product_id, warehouse_id, seq, at, xid, reservation_id, kind, delta,
                             total_after)
SELECT product_id, warehouse_id, seq, at, xid, id, 'SALE', -1, total FROM sold ORDER BY id;
UPDATE inventory i SET seq = s.seq, total = s.total
FROM (SELECT product_id, warehouse_id, max(seq) AS seq, min(total) AS total
      FROM sold GROUP BY 1, 2) s
WHERE i.product_id = s.product_id AND i.warehouse_id = s.warehouse_id;
DROP TABLE sold;
VACUUM ANALYZE inventory, reservations, ledger, stock_movements;`

// script runs statements one by one on one connection, for as long as they take.
func (f *fixture) script(sql string, replace ...string) {
	f.t.Helper()
	start := time.Now()
	conn, err := f.Admin.Acquire(f.t.Context())
	if err != nil {
		f.t.Fatal(err)
	}
	defer conn.Release()
	sql = strings.NewReplacer(replace...).Replace(sql)
	for statement := range strings.SplitSeq(strings.TrimSuffix(sql, ";"), ";") {
		if _, err := conn.Exec(f.t.Context(), statement); err != nil {
			f.t.Fatalf("%s: %v", statement, err)
		}
	}
	if err := conn.Conn().Close(f.t.Context()); err != nil { // it has other settings than the others
		f.t.Fatal(err)
	}
	f.t.Logf("to make the rows took %s", time.Since(start))
}

// sell makes and confirms holds, which take turns at the stock rows.
func (f *fixture) sell(n int) {
	f.t.Helper()
	s := newService(f.own)
	rows := queryOne[string](f, `
SELECT json_agg(i)::text FROM (SELECT product_id, warehouse_id, 1 AS quantity FROM inventory
                               ORDER BY product_id, warehouse_id) i`)
	var lines []reservation.Line
	if err := json.Unmarshal([]byte(rows), &lines); err != nil {
		f.t.Fatal(err)
	}
	for i := range n {
		if _, err := s.Confirm(f.Context(), f.hold(lines[i%len(lines)]).ID, ""); err != nil {
			f.t.Fatal(err)
		}
	}
}

// reads is what an audit reads of the holds, their ledger and the movements: blocks, and entries of
// the indexes or rows of the tables.
type reads struct{ blocks, rows int }

// readsOf counts what an audit reads.
func (f *fixture) readsOf(name string, audit func(*reservation.Service) error) reads {
	f.t.Helper()
	const tables = `
WHERE relname IN ('reservations', 'reservation_items', 'ledger', 'stock_movements')`
	count := func() (r reads) {
		f.EndSessions() // they report their counts
		r.blocks = queryOne[int](f, `
SELECT sum(heap_blks_hit + heap_blks_read + idx_blks_hit + idx_blks_read)
FROM pg_statio_user_tables`+tables)
		r.rows = queryOne[int](f, `
SELECT (SELECT sum(seq_tup_read) FROM pg_stat_user_tables`+tables+`)
     + (SELECT sum(idx_tup_read) FROM pg_stat_user_indexes`+tables+")")
		return r
	}
	before := count()
	start := time.Now()
	if err := audit(newService(openPool(f.t, f.DirectURL, 1))); err != nil {
		f.t.Fatalf("%s: %v", name, err)
	}
	took := time.Since(start)
	after := count()
	r := reads{after.blocks - before.blocks, after.rows - before.rows}
	f.t.Logf("%s took %s and read %d blocks and %d rows", name, took, r.blocks, r.rows)
	return r
}

// auditCost is what audits of what is new read of one shop.
type auditCost struct {
	quiet, few reads // with nothing new, and with newSales
	all        reads // when everything is new
}

// mostCalls bounds the calls of an audit that takes everything for new.
const mostCalls = 20

// newSales are the sales that are new for an audit.
const newSales = 1000

// cost measures the audits of a shop, whose history they have read before.
func (f *fixture) cost() (cost auditCost) {
	f.t.Helper()
	auditNew := func(s *reservation.Service) error {
		found, err := s.AuditNew(f.Context())
		if len(found) > 0 {
			f.t.Errorf("AuditNew() = %v, want nothing", found)
		}
		return err
	}
	// A statement of this audit may need longer than the service gives it when the history is
	// large and nothing of it is in memory. The next call goes on, and finds more in memory.
	auditAll := func(s *reservation.Service) (err error) {
		for range mostCalls {
			if err = auditNew(s); err == nil {
				break
			}
			f.t.Logf("unfinished: %v", err)
		}
		return err
	}
	f.Exec("DELETE FROM stock_closings")
	f.Exec("UPDATE audit_state SET since = '-infinity', seen = '1:1:' WHERE kind = 'NEW'")
	cost.all = f.readsOf("an audit that takes everything for new", auditAll)
	f.Exec("UPDATE audit_state SET since = now() WHERE kind = 'NEW'")
	cost.quiet = f.readsOf("an audit of nothing new", auditNew)
	f.sell(newSales)
	cost.few = f.readsOf("an audit of new sales", auditNew)
	return cost
}

// An audit of what is new reads what is new, and a full one reads everything.
func TestAnAuditCostsWhatIsNew(t *testing.T) {
	t.Parallel()

	f := newFixture(t, 0)
	rows, first := strconv.Itoa(*stockRows), *historySize/3
	sales := func(n int, xid string) {
		f.script(salesSQL, "{rows}", rows, "{sales}", strconv.Itoa(n), "{xid}", xid)
	}
	f.script(shopSQL, "{rows}", rows)
	sales(first, "1000000000")
	short := f.cost()
	sales(*historySize-first, "2000000000")
	long := f.cost()
	full := f.readsOf("a full audit", func(s *reservation.Service) error {
		audit, err := s.AuditFull(t.Context())
		if !audit.Complete || audit.All != 0 {
			t.Errorf("AuditFull() = %+v, want it complete and nothing found", audit)
		}
		return err
	})

	// The samples differ by a few rows for each of their holds. An audit that reads a row of each
	// sale reads all those that were added.
	grown := func(before, after reads) bool {
		return after.rows-before.rows > (*historySize-first)/2
	}
	if grown(short.quiet, long.quiet) || grown(short.few, long.few) {
		t.Errorf("the audits read %+v, and %+v of three times the history, want no more", short, long)
	}
	if !grown(short.all, long.all) {
		t.Errorf("the audits that take everything for new read %+v and %+v, want more", short.all,
			long.all)
	}
	// A hold, its sale and its ledger are found by a few index pages each, by three parts of the
	// audit: 60 pages of a short history, and 70 of one of ten million, whose indexes have a level
	// more. The sample is as large as the new.
	const perSale = 80
	limit := perSale * newSales
	if long.quiet.blocks > limit || long.few.blocks > 2*limit {
		t.Errorf("the audits read %+v and %+v, want at most %d and %d blocks", long.quiet, long.few,
			limit, 2*limit)
	}
	if full.rows < *historySize {
		t.Errorf("a full audit read %+v, want more rows than there are sales", full)
	}
	if open := f.open(); open != 0 {
		t.Errorf("%d stock rows aren't closed, want 0", open)
	}
}
