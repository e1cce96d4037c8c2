package reservation_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/allo/reservations/internal/reservation"
)

// listed is a hold of the model, with which the lists are compared.
type listed struct {
	id                   uuid.UUID
	status               reservation.Status
	lines                []reservation.Line
	createdAt, expiresAt time.Time
}

var allStatuses = []reservation.Status{
	reservation.Pending, reservation.Confirmed, reservation.Released, reservation.Expired,
}

// copyTimesSQL gives the hold HOLD the times of the oldest live hold.
const copyTimesSQL = `
WITH oldest AS (
    SELECT min(created_at) AS created_at, min(expires_at) AS expires_at
    FROM reservations WHERE status = 'PENDING' AND expires_at > clock_timestamp()
), copied AS (
    UPDATE reservations r
    SET created_at = o.created_at, updated_at = o.created_at, expires_at = o.expires_at
    FROM oldest o WHERE r.id = 'HOLD'
)
UPDATE reservation_items l SET expires_at = o.expires_at
FROM oldest o WHERE l.reservation_id = 'HOLD'`

// startOverSQL makes the times of each live hold those of its first transition, and leaves no
// other.
var startOverSQL = []string{
	"UPDATE reservations SET version = 1 WHERE status = 'PENDING'",
	`DELETE FROM ledger l USING reservations r
	 WHERE r.id = l.hold_id AND r.status = 'PENDING' AND l.version > 1`,
	`UPDATE ledger l SET at = r.updated_at, expires_at = r.expires_at
	 FROM reservations r WHERE r.id = l.hold_id AND r.status = 'PENDING'`,
}

// makeVariedHolds makes holds of every status, of one and of several lines. Some have the same
// times, and some are dead holds that no sweep has expired. It returns the three stock rows.
func makeVariedHolds(f *fixture) []reservation.Line {
	f.t.Helper()
	ctx := f.Context()
	s := newService(f.own)
	rows := f.stocks(1000, 1000)
	rows = append(rows, f.elsewhere(rows[0], 1000))
	carts := [][]reservation.Line{
		{rows[0]},
		{rows[1]},
		{rows[2]},
		{rows[0], rows[1]},
		{rows[0], rows[2]},
		{rows[1], rows[2]},
		rows,
	}
	var swept []reservation.Hold
	for _, lines := range carts {
		confirmed, released := f.hold(lines...), f.hold(lines...)
		_, confirmErr := s.Confirm(ctx, confirmed.ID, "")
		_, releaseErr := s.Release(ctx, released.ID, "")
		if err := errors.Join(confirmErr, releaseErr); err != nil {
			f.t.Fatal(err)
		}
		swept = append(swept, f.hold(lines...))
	}
	f.kill(swept...)
	if _, err := s.Sweep(ctx); err != nil {
		f.t.Fatal(err)
	}
	for _, lines := range carts {
		f.hold(lines...)
		twin := f.hold(lines...)
		f.unguarded(strings.ReplaceAll(copyTimesSQL, "HOLD", twin.ID.String()),
			"UPDATE inventory SET first_end = '-infinity'")
		f.kill(f.hold(lines...))
	}
	f.unguarded(startOverSQL...)
	return rows
}

// readModel reads all holds from the tables. A dead hold counts as EXPIRED.
func readModel(f *fixture) []listed {
	f.t.Helper()
	rows, err := f.Admin.Query(f.Context(), `
SELECT id::text,
       CASE WHEN status = 'PENDING' AND expires_at <= clock_timestamp()
            THEN 'EXPIRED' ELSE status::text END,
       created_at, expires_at
FROM reservations`)
	if err != nil {
		f.t.Fatal(err)
	}
	var all []listed
	var id string
	var h listed
	columns := []any{&id, &h.status, &h.createdAt, &h.expiresAt}
	if _, err := pgx.ForEachRow(rows, columns, func() error {
		h.id = uuid.MustParse(id)
		all = append(all, h)
		return nil
	}); err != nil {
		f.t.Fatal(err)
	}
	for i := range all {
		view, err := newService(f.own).Get(f.Context(), all[i].id)
		if err != nil {
			f.t.Fatal(err)
		}
		all[i].lines = view.Hold.Lines
	}
	return all
}

// expectedIDs returns the ids of the model's holds that the filter selects, in the list's order.
func expectedIDs(all []listed, f reservation.HoldFilter) []uuid.UUID {
	all = slices.Clone(all)
	slices.SortFunc(all, func(a, b listed) int {
		order := b.createdAt.Compare(a.createdAt)
		if f.Status == reservation.Pending {
			order = a.expiresAt.Compare(b.expiresAt)
		}
		switch {
		case order != 0:
			return order
		case f.Status == reservation.Pending:
			return bytes.Compare(a.id[:], b.id[:])
		default:
			return bytes.Compare(b.id[:], a.id[:])
		}
	})
	var ids []uuid.UUID
	for _, h := range all {
		has := slices.ContainsFunc(h.lines, func(l reservation.Line) bool {
			return (f.ProductID == nil || l.ProductID == *f.ProductID) &&
				(f.WarehouseID == nil || l.WarehouseID == *f.WarehouseID)
		})
		if has && (f.Status == "" || f.Status == h.status) {
			ids = append(ids, h.id)
		}
	}
	return ids
}

// filters returns every combination of a status, a product and a warehouse, each of which may be
// left open. It includes a product and a warehouse without holds.
func filters(rows []reservation.Line) []reservation.HoldFilter {
	unknown := uuid.UUID{}
	products := []*uuid.UUID{nil, &rows[0].ProductID, &rows[1].ProductID, &unknown}
	warehouses := []*uuid.UUID{
		nil, &rows[0].WarehouseID, &rows[1].WarehouseID, &rows[2].WarehouseID, &unknown,
	}
	var all []reservation.HoldFilter
	for _, status := range append([]reservation.Status{""}, allStatuses...) {
		for _, product := range products {
			for _, warehouse := range warehouses {
				all = append(all, reservation.HoldFilter{
					Status: status, ProductID: product, WarehouseID: warehouse,
				})
			}
		}
	}
	return all
}

// maxPages bounds the pages of a list, so that a cursor that doesn't move fails the test.
const maxPages = 1000

// readHolds reads all pages of a list.
func readHolds(
	ctx context.Context, s *reservation.Service, f reservation.HoldFilter, limit int,
) (holds []reservation.Hold, err error) {
	var after reservation.HoldCursor
	for range maxPages {
		page, err := s.ListHolds(ctx, f, after, limit)
		if err != nil || len(page.Holds) > limit {
			return nil, fmt.Errorf("ListHolds(%+v, %+v, %d) = %d holds, %w", f, after, limit,
				len(page.Holds), err)
		}
		holds = append(holds, page.Holds...)
		if page.Next == nil {
			return holds, nil
		}
		after = *page.Next
	}
	return nil, fmt.Errorf("the list of %+v has more than %d pages", f, maxPages)
}

func ids(holds []reservation.Hold) []uuid.UUID {
	var out []uuid.UUID
	for _, h := range holds {
		out = append(out, h.ID)
	}
	return out
}

func TestHoldsAreListedByEveryFilterInPagesOfAnySize(t *testing.T) {
	t.Parallel()

	f := newFixture(t, 1)
	rows := makeVariedHolds(f)
	for _, diff := range listDiffs(f, rows) {
		t.Error(diff)
	}
	f.mustAudit(t)
}

// listDiffs compares every list with the model, in pages of several sizes, and returns the
// differences.
func listDiffs(f *fixture, rows []reservation.Line) (diffs []string) {
	f.t.Helper()
	ctx := f.Context()
	s := f.services()[0]
	all := readModel(f)
	for _, filter := range filters(rows) {
		want := expectedIDs(all, filter)
		n := len(want)
		for _, limit := range []int{1, 3, max(n, 1), n + 1, reservation.MaxHoldPage} {
			got, err := readHolds(ctx, s, filter, limit)
			if err != nil {
				diffs = append(diffs, err.Error())
			} else if diff := cmp.Diff(want, ids(got)); diff != "" {
				diffs = append(diffs, fmt.Sprintf(
					"the holds of %+v in pages of %d differ (-want +got):\n%s", filter, limit, diff))
			}
		}
	}
	return diffs
}

// Each case removes one part of a list's statement. The comparison with the model must show it.
func TestABrokenListDiffersFromTheModel(t *testing.T) {
	t.Parallel()

	for name, c := range map[string]struct{ function, old, replacement string }{
		"list_live_holds skips holds of the same end": {
			"list_live_holds", "(r.expires_at, r.id) > (_at, _id)", "r.expires_at > _at",
		},
		"holds of the same end of a product are skipped": {
			"live_holds_of_product", "(r.expires_at, r.id) > (_at, _id)", "r.expires_at > _at",
		},
		"carts of the same end of a product are skipped": {
			"live_holds_of_product", "(l.expires_at, l.reservation_id) > (_at, _id)",
			"l.expires_at > _at",
		},
		"holds of the same end in a warehouse are skipped": {
			"live_holds_of_warehouse", "(f.expires_at, f.id) > (_at, _id)", "f.expires_at > _at",
		},
		"dead holds of a product are shown": {"live_holds_of_product", "r.expires_at > _now", "true"},
		"dead carts of a product are shown": {"live_holds_of_product", "l.expires_at > _now", "true"},
		"dead holds in a warehouse are shown": {
			"live_holds_of_warehouse", "f.expires_at > _now", "true",
		},
		"carts of a product are missed":        {"live_holds_of_product", "l.counted", "false"},
		"carts in a warehouse are missed":      {"live_holds_of_warehouse", "l.counted", "false"},
		"single lines of a product are missed": {"live_holds_of_product", "= 'PENDING'", "IS NULL"},
		"single lines in a warehouse are missed": {
			"live_holds_of_warehouse", "= 'PENDING'", "IS NULL",
		},
		"the warehouse of a product's holds doesn't matter": {
			"live_holds_of_product", "w.id = coalesce(_warehouse, w.id)", "true",
		},
		"carts are found twice": {"list_live_holds", "UNION --", "UNION ALL --"},
		"the holds found have no order": {
			"list_live_holds", "ORDER BY expires_at, id LIMIT", "ORDER BY id LIMIT",
		},
		"list_holds skips holds of the same time": {
			"list_holds", "(r.created_at, r.id) < (_at, _id)", "r.created_at < _at",
		},
		"list_holds misses dead holds": {
			"list_holds", "AND r.expires_at <= _now", "AND false",
		},
		"list_live_holds shows dead holds": {
			"list_live_holds", "AND r.expires_at > _now", "",
		},
		"list_holds misses live holds when it lists all": {
			"list_holds", "coalesce(_status, 'PENDING') = 'PENDING' AND _all", "false",
		},
		"list_holds ignores the product of a cart's line": {
			"list_holds", "AND l.product_id = coalesce(_product, l.product_id)", "",
		},
		"list_holds ignores the warehouse of a cart's line": {
			"list_holds", "AND l.warehouse_id = coalesce(_warehouse, l.warehouse_id)", "",
		},
		"list_holds ignores the product of a hold of one line": {
			"list_holds", "(a.r).product_id = coalesce(_product, (a.r).product_id)", "true",
		},
		"list_holds ignores the warehouse of a hold of one line": {
			"list_holds", "AND (a.r).warehouse_id = coalesce(_warehouse, (a.r).warehouse_id)", "",
		},
		"list_holds orders by id": {
			"list_holds", "ORDER BY w.created_at DESC, w.id DESC", "ORDER BY w.id DESC",
		},
		"list_holds doesn't return the last hold that it read": {
			"list_holds", " OR w.n = _scan", " AND w.n <> _scan",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			f := newFixture(t, 1)
			rows := makeVariedHolds(f)
			f.mutate(c.function, c.old, c.replacement)
			if diffs := listDiffs(f, rows); len(diffs) == 0 {
				t.Error("the lists agree with the model, want a difference")
			}
		})
	}
}

// withManyHolds makes each warehouse have too many live holds for a search by the index.
func (f *fixture) withManyHolds() {
	f.t.Helper()
	f.mutate("list_live_holds", "has_few_holds(_warehouse, _scan)", "false")
}

func TestTheHoldsOfALargeWarehouseAreListed(t *testing.T) {
	t.Parallel()

	f := newFixture(t, 1)
	rows := makeVariedHolds(f)
	f.withManyHolds()
	for _, diff := range listDiffs(f, rows) {
		t.Error(diff)
	}
}

// Each case removes one part of the look through the next holds that end, or of the search for the
// newest ones. The comparison with the model must show it.
func TestABrokenLookThroughTheHoldsDiffersFromTheModel(t *testing.T) {
	t.Parallel()

	for name, c := range map[string]struct{ function, old, replacement string }{
		"the warehouse of a hold of one line doesn't matter": {
			"list_live_holds", "(a.r).warehouse_id = _warehouse", "true",
		},
		"the warehouse of a cart doesn't matter": {
			"list_live_holds", "AND l.warehouse_id = _warehouse", "",
		},
		"the holds found have no order": {
			"list_live_holds", "ORDER BY w.expires_at, w.id", "ORDER BY w.id",
		},
		"carts are missed": {"newest_holds_of", "l.counted", "false"},
		"carts are found twice": {
			"newest_holds_of", "SELECT DISTINCT", "SELECT",
		},
		"single lines are missed": {"newest_holds_of", "r.product_id IS NOT NULL", "false"},
		"dead holds are shown twice": {
			"newest_holds_of", "expires_at > _now", "expires_at IS NOT NULL",
		},
		"the warehouse doesn't matter": {
			"newest_holds_of", "AND coalesce(_warehouse, _most)", "AND _most",
		},
		"the product doesn't matter": {
			"newest_holds_of", "BETWEEN coalesce(_product, _least)", "BETWEEN _least",
		},
		"the oldest holds are found": {
			"newest_holds_of", "ORDER BY r.created_at DESC", "ORDER BY r.created_at",
		},
		"the list of all has no live holds": {"list_holds", "AND NOT _all", "AND false"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			f := newFixture(t, 1)
			rows := makeVariedHolds(f)
			for range 4 {
				f.hold(rows[0]) // so that a page of another product has them before its own
			}
			f.withManyHolds()
			f.mutate(c.function, c.old, c.replacement)
			if diffs := listDiffs(f, rows); len(diffs) == 0 {
				t.Error("the lists agree with the model, want a difference")
			}
		})
	}
}

// A dead cart is listed under every line that it had, also when the clock jumps back behind its
// end.
func TestACartThatLostALineIsListedUnderEachLine(t *testing.T) {
	t.Parallel()

	for _, many := range []bool{false, true} {
		f := newFixture(t, 1)
		if many {
			f.withManyHolds()
		}
		if wrong := listsOfHalfACart(f); len(wrong) > 0 {
			t.Errorf("the lists differ, beside many holds: %t: %q", many, wrong)
		}
	}
}

func TestListsWithoutALookAtLinesShowHalfACartAlive(t *testing.T) {
	t.Parallel()

	for name, c := range map[string]struct{ function, old, replacement string }{
		"it isn't found":       {"half_carts", "NOT l.counted", "false"},
		"live carts are found": {"half_carts", "count(*) > 0", "count(*) >= 0"},
		"it is found twice":    {"list_holds", "OR NOT has_counted_line", "OR has_counted_line"},
		"it is shown as live":  {"hold_is_dead", " OR has_lost_line(_hold)", ""},
		"it is live":           {"list_live_holds", "OR NOT has_lost_line(r)", "OR true"},
		"it is a live cart of a product": {
			"live_holds_of_product", "has_whole_cart(l.reservation_id)", "true",
		},
		"it is a live cart in a warehouse": {
			"live_holds_of_warehouse", "has_whole_cart(f.reservation_id)", "true",
		},
		"dead carts are missed": {"list_holds", "AND r.expires_at <= _now", "AND false"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			f := newFixture(t, 1)
			if c.function == "list_live_holds" { // it looks at the holds of a large warehouse alone
				f.withManyHolds()
			}
			f.mutate(c.function, c.old, c.replacement)
			if wrong := listsOfHalfACart(f); len(wrong) == 0 {
				t.Error("the lists are right, want a difference")
			}
		})
	}
}

// listsOfHalfACart reads every list of a cart of which a reserve has reclaimed the first line, when
// the cart is dead, and again when the clock is back behind its end. It returns the lists that
// don't show the cart once as EXPIRED, or that show it as live.
func listsOfHalfACart(f *fixture) (wrong []string) {
	f.t.Helper()
	s := f.services()[0]
	rows := f.stocks(1, 2)
	cart := f.hold(rows...)
	f.kill(cart)
	f.hold(rows[0])
	f.hold(rows[1], f.elsewhere(rows[1], 1)) // a whole cart
	for _, when := range []string{"dead", "alive again"} {
		if when != "dead" {
			f.Exec(aliveAgainSQL, cart.ID.String())
		}
		for _, status := range []reservation.Status{"", reservation.Expired, reservation.Pending} {
			for _, row := range rows {
				for _, filter := range []reservation.HoldFilter{
					{Status: status, ProductID: &row.ProductID},
					{Status: status, WarehouseID: &row.WarehouseID},
				} {
					holds, err := readHolds(f.Context(), s, filter, 10)
					if err != nil {
						f.t.Fatal(err)
					}
					if !showsHalfACart(holds, cart.ID, status) {
						wrong = append(wrong, fmt.Sprintf("%s: %+v: %+v", when, filter, holds))
					}
				}
			}
		}
	}
	return wrong
}

// showsHalfACart reports whether a list of this status has the cart once, as EXPIRED, and all other
// holds as PENDING.
func showsHalfACart(holds []reservation.Hold, cart uuid.UUID, status reservation.Status) bool {
	found := 0
	for _, h := range holds {
		want := reservation.Pending
		if h.ID == cart {
			want = reservation.Expired
			found++
		}
		if h.Status != want || status != "" && status != want {
			return false
		}
	}
	if status == reservation.Pending {
		return found == 0
	}
	return found == 1
}

// othersSQL makes ten thousand holds with the status $2 of other products in other warehouses,
// every fourth of them a cart of two lines. Their ends are in another order than the holds are
// stored. $1 makes their times different from those of other batches.
const othersSQL = `
WITH lines AS (
    SELECT gen_random_uuid() AS id, p.ids[1 + n % 100] AS product_id,
           w.ids[1 + n % 7] AS warehouse_id, n % 4 = 0 AS cart, t.at
    FROM generate_series(1, 10000) n,
         (SELECT array_agg(gen_random_uuid()) AS ids FROM generate_series(1, 100)) p,
         (SELECT array_agg(gen_random_uuid()) AS ids FROM generate_series(1, 7)) w,
         LATERAL (SELECT clock_timestamp() - (n * 7919 % 10000) * interval '100 ms'
                         - $1::integer * interval '10 ms' AS at) t
), holds AS (
    INSERT INTO reservations
           (id, product_id, warehouse_id, quantity, created_at, updated_at, expires_at, status)
    SELECT id, CASE WHEN NOT cart THEN product_id END, CASE WHEN NOT cart THEN warehouse_id END, 2,
           at, at, at + interval '2 h', $2::text::reservation_status
    FROM lines
)
INSERT INTO reservation_items
       (reservation_id, product_id, warehouse_id, expires_at, quantity, counted)
SELECT l.id, u.product, l.warehouse_id, l.at + interval '2 h', 1, $2 = 'PENDING'
FROM lines l, LATERAL unnest(ARRAY[l.product_id, gen_random_uuid()]) u (product) WHERE l.cart`

// ownSQL makes ten thousand live holds of the product $2 in the warehouse $3, which end after those
// of others.
const ownSQL = `
INSERT INTO reservations
       (id, product_id, warehouse_id, quantity, created_at, updated_at, expires_at)
SELECT gen_random_uuid(), $2, $3, 1, t.at, t.at, t.at + interval '4 h'
FROM generate_series(1, 10000) n,
     LATERAL (SELECT clock_timestamp() - (n * 7919 % 10000) * interval '100 ms'
                     - $1::integer * interval '10 ms' AS at) t`

// The statements of a page of fifty holds.
const (
	explainLiveSQL = "SELECT * FROM list_live_holds($1, $2, '-infinity', $3, 51, $4)"
	explainAllSQL  = "SELECT * FROM list_holds($1, $2, $3, NULL, 'infinity', $4, 51, 6000)"
)

// pageCost is a page of holds, and how many blocks it may read.
type pageCost struct {
	sql  string
	args []any
	most int
}

func (f *fixture) checkCosts(pages map[string]pageCost) {
	f.t.Helper()
	for name, c := range pages {
		blocks, took := f.Explain(c.sql, c.args...)
		f.t.Logf("the holds of %s: %d blocks in %.1f ms", name, blocks, took)
		if blocks > c.most {
			f.t.Errorf("the holds of %s take %d blocks, want at most %d", name, blocks, c.most)
		}
	}
}

// The list of a product's or a warehouse's holds doesn't read the live holds of others, and neither
// does it read all of a product that many hold. The controls ask for a look through all live holds,
// and for half carts among all of them, as every release did before.
func TestAListReadsFewHolds(t *testing.T) {
	t.Parallel()

	const others, scan = 80_000, 2000
	f := newFixture(t, 1)
	for batch := range others / 10_000 {
		f.Exec(othersSQL, batch, reservation.Pending)
	}
	for batch := range 2 {
		f.Exec(othersSQL, batch, reservation.Released)
	}
	f.Exec("ANALYZE reservations")
	f.Exec("ANALYZE reservation_items")
	rows := f.stocks(100, 100)
	f.hold(rows[0])
	f.hold(rows...)
	var (
		product   = rows[0].ProductID.String()
		warehouse = rows[0].WarehouseID.String()
		first     = uuid.Nil.String()
		last      = uuid.Max.String()
		none      *string
	)
	live := map[string]pageCost{
		"a product":                {explainLiveSQL, []any{product, none, first, scan}, 200},
		"a product in a warehouse": {explainLiveSQL, []any{product, warehouse, first, scan}, 200},
		"a warehouse":              {explainLiveSQL, []any{none, warehouse, first, scan}, 4000},
	}
	f.checkCosts(live)
	f.checkCosts(map[string]pageCost{
		"a product, of every status":   {explainAllSQL, []any{none, product, none, last}, 18_000},
		"a warehouse, of every status": {explainAllSQL, []any{none, none, warehouse, last}, 19_000},
		"a product, expired": {
			explainAllSQL, []any{reservation.Expired, product, none, last}, 4000,
		},
	})
	blocks, _ := f.Explain(explainLiveSQL, none, none, first, scan)
	if blocks > scan {
		t.Errorf("a page of all live holds takes %d blocks, want at most %d", blocks, scan)
	}

	for batch := range others / 10_000 {
		f.Exec(ownSQL, batch, product, warehouse)
	}
	f.Exec("ANALYZE reservations")
	live["a product"] = pageCost{explainLiveSQL, []any{product, none, first, scan}, 600}
	live["a product in a warehouse"] = pageCost{
		explainLiveSQL, []any{product, warehouse, first, scan}, 600,
	}
	live["a warehouse"] = pageCost{explainLiveSQL, []any{none, warehouse, first, scan}, 20_000}
	f.checkCosts(live)
	f.checkCosts(map[string]pageCost{
		"a hot product, expired": {
			explainAllSQL, []any{reservation.Expired, product, none, last}, 4000,
		},
		"a hot product, confirmed": {
			explainAllSQL, []any{reservation.Confirmed, product, none, last}, 200,
		},
	})

	f.mutate("half_carts", "LIMIT 1000", "")
	blocks, took := f.Explain(explainAllSQL, reservation.Expired, product, none, last)
	t.Logf("a look for half carts among all live holds: %d blocks in %.1f ms", blocks, took)
	if blocks < others {
		t.Errorf("a look for half carts among all holds takes %d blocks, want %d or more", blocks,
			others)
	}
	f.mutate("list_live_holds", "has_few_holds(_warehouse, _scan)", "false")
	blocks, took = f.Explain(explainLiveSQL, none, warehouse, first, 2*others)
	t.Logf("a look through all live holds: %d blocks in %.1f ms", blocks, took)
	if blocks < others {
		t.Errorf("a look through all live holds takes %d blocks, want %d or more", blocks, others)
	}
}

func TestListAndGetShowTheSameHold(t *testing.T) {
	t.Parallel()

	f := newFixture(t, 1)
	ctx := f.Context()
	s := f.services()[0]
	makeVariedHolds(f)

	page, err := s.ListHolds(ctx, reservation.HoldFilter{}, reservation.HoldCursor{},
		reservation.MaxHoldPage)

	if err != nil || len(page.Holds) != 42 || page.Next != nil {
		t.Fatalf("ListHolds() = %d holds, %+v, %v, want all 42", len(page.Holds), page.Next, err)
	}
	if off := time.Since(page.Now).Abs(); off > testTimeout || page.Now.Location() != time.UTC {
		t.Errorf("now = %v, want this moment in UTC", page.Now)
	}
	for _, got := range page.Holds {
		want, err := s.Get(ctx, got.ID)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want.Hold, got); diff != "" {
			t.Errorf("Get() and ListHolds() show a hold differently (-get +list):\n%s", diff)
		}
	}
}

func TestAHoldIsListedAsExpiredFromItsEnd(t *testing.T) {
	t.Parallel()

	f := newFixture(t, 1)
	ctx := f.Context()
	s := f.services()[0]
	row := f.stock(10)
	count := func(status reservation.Status) int {
		t.Helper()
		page, err := s.ListHolds(ctx, reservation.HoldFilter{Status: status},
			reservation.HoldCursor{}, 10)
		if err != nil {
			t.Fatal(err)
		}
		return len(page.Holds)
	}
	hold := f.hold(row)
	if count(reservation.Pending) != 1 || count(reservation.Expired) != 0 {
		t.Fatal("a live hold isn't listed as PENDING alone")
	}

	f.Exec(endSoonSQL, hold.ID.String(), time.Duration(0))

	if count(reservation.Pending) != 0 || count(reservation.Expired) != 1 ||
		f.status(hold) != reservation.Pending {
		t.Error("a dead hold that no sweep has expired isn't listed as EXPIRED alone")
	}
}

// makeRareLine makes two resolved holds of one stock row, a new and an old one, and many holds of
// another stock row between them. It returns the first row.
func makeRareLine(f *fixture, between int) reservation.Line {
	f.t.Helper()
	rows := f.stocks(1_000_000, 10)
	const insert = `
INSERT INTO reservations
       (id, product_id, warehouse_id, quantity, created_at, updated_at, expires_at, status)
SELECT gen_random_uuid(), $1, $2, 1, t, t, t + interval '1 min', 'RELEASED'
FROM generate_series(1, $3::integer) n,
     LATERAL (SELECT clock_timestamp() - ($4::integer + 1) * interval '1 h' AS t) made`
	for age, holds := range []struct {
		line reservation.Line
		n    int
	}{{rows[1], 1}, {rows[0], between}, {rows[1], 1}} {
		f.Exec(insert, holds.line.ProductID.String(), holds.line.WarehouseID.String(), holds.n, age)
	}
	return rows[1]
}

func TestHoldsOfARareProductAreFoundPageByPage(t *testing.T) {
	t.Parallel()

	f := newFixture(t, 1)
	line := makeRareLine(f, 12_500)
	for _, status := range []reservation.Status{"", reservation.Released} {
		found := f.pageSizes(reservation.HoldFilter{Status: status, ProductID: &line.ProductID})
		if diff := cmp.Diff([]int{1, 0, 1}, found); diff != "" {
			t.Errorf("status %q: the numbers of holds on the pages differ (-want +got):\n%s",
				status, diff)
		}
	}
}

// The live holds of a large warehouse are looked for among the next 2,000 holds that end.
func TestLiveHoldsOfALargeWarehouseAreFoundPageByPage(t *testing.T) {
	t.Parallel()

	f := newFixture(t, 1)
	rows := f.stocks(10_000, 10)
	f.withManyHolds()
	f.hold(rows[1])
	f.Exec(`
INSERT INTO reservations
       (id, product_id, warehouse_id, quantity, created_at, updated_at, expires_at)
SELECT gen_random_uuid(), $1, $2, 1, t, t, t + interval '15 min'
FROM generate_series(1, 4500) n, LATERAL (SELECT clock_timestamp() AS t) made`,
		rows[0].ProductID.String(), rows[0].WarehouseID.String())
	answer, err := f.services()[0].Reserve(f.Context(),
		reservation.Request{Lines: rows[1:], TTL: 20 * time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	filter := reservation.HoldFilter{
		Status: reservation.Pending, WarehouseID: &answer.Hold.Lines[0].WarehouseID,
	}
	if diff := cmp.Diff([]int{1, 0, 1}, f.pageSizes(filter)); diff != "" {
		t.Errorf("the numbers of holds on the pages differ (-want +got):\n%s", diff)
	}
}

// pageSizes reads a list and returns how many holds each page has.
func (f *fixture) pageSizes(filter reservation.HoldFilter) (found []int) {
	f.t.Helper()
	var after reservation.HoldCursor
	for range maxPages {
		page, err := f.services()[0].ListHolds(f.Context(), filter, after, 50)
		if err != nil {
			f.t.Fatal(err)
		}
		found = append(found, len(page.Holds))
		if page.Next == nil {
			break
		}
		after = *page.Next
	}
	return found
}

func TestAnEmptyListHasNoNextPage(t *testing.T) {
	t.Parallel()

	f := newFixture(t, 1)
	for _, status := range append([]reservation.Status{""}, allStatuses...) {
		page, err := f.services()[0].ListHolds(f.Context(), reservation.HoldFilter{Status: status},
			reservation.HoldCursor{}, 50)
		if err != nil || len(page.Holds) != 0 || page.Next != nil {
			t.Errorf("ListHolds(%q) = %+v, %v, want none", status, page, err)
		}
	}
}

// The lists are read page by page while other callers reserve, confirm, release and extend. Each
// hold that doesn't change must appear once, in its place.
func TestPagesNeitherRepeatNorSkipUnchangedHolds(t *testing.T) {
	t.Parallel()

	f := newFixture(t, 4)
	ctx := f.Context()
	rows := makeVariedHolds(f)
	other := f.stock(100_000)
	unchanged := map[uuid.UUID]bool{}
	for _, h := range readModel(f) {
		unchanged[h.id] = true
	}
	stop := make(chan struct{})
	var changers sync.WaitGroup
	var changes [3]int
	for i, s := range f.services()[1:] {
		changers.Go(func() { changes[i] = changeHolds(ctx, t, s, other, stop) })
	}
	all := slices.DeleteFunc(readModel(f), func(h listed) bool { return !unchanged[h.id] })

	for range 6 {
		for _, filter := range []reservation.HoldFilter{
			{},
			{Status: reservation.Pending},
			{Status: reservation.Confirmed},
			{Status: reservation.Released},
			{Status: reservation.Expired},
			{ProductID: &rows[0].ProductID},
			{Status: reservation.Expired, WarehouseID: &rows[1].WarehouseID},
		} {
			holds, err := readHolds(ctx, f.services()[0], filter, 7)
			if err != nil {
				t.Fatal(err)
			}
			got := slices.DeleteFunc(ids(holds), func(id uuid.UUID) bool { return !unchanged[id] })
			if diff := cmp.Diff(expectedIDs(all, filter), got); diff != "" {
				t.Errorf("the unchanged holds of %+v differ (-want +got):\n%s", filter, diff)
			}
		}
	}

	close(stop)
	changers.Wait()
	for i, n := range changes {
		if n == 0 {
			t.Errorf("caller %d changed nothing during the test, so it proves nothing", i)
		}
	}
	f.mustAudit(t)
}

// changeHolds makes and changes holds until stop is closed. It returns the number of changes. It
// resolves nearly all of its holds, so that the live list stays short.
func changeHolds(
	ctx context.Context, t *testing.T, s *reservation.Service, row reservation.Line,
	stop chan struct{},
) (changes int) {
	var left []uuid.UUID
	for {
		select {
		case <-stop:
			return changes
		default:
		}
		answer, err := s.Reserve(ctx, reservation.Request{Lines: []reservation.Line{row}})
		if err != nil {
			t.Errorf("Reserve() = %v", err)
			return changes
		}
		left = append(left, answer.Hold.ID)
		if len(left) < 4 {
			continue
		}
		_, confirmErr := s.Confirm(ctx, left[0], "")
		_, releaseErr := s.Release(ctx, left[1], "")
		_, extendErr := s.Extend(ctx, left[2], time.Minute, "")
		if err := errors.Join(confirmErr, releaseErr, extendErr); err != nil {
			t.Error(err)
			return changes
		}
		changes, left = changes+3, left[2:]
	}
}

// A list that took locks or waited for them would delay the callers that reserve.
func TestListAndStatsWaitForNoLock(t *testing.T) {
	t.Parallel()

	f := newFixture(t, 1)
	ctx := f.Context()
	makeVariedHolds(f)
	tx, err := f.Admin.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(context.WithoutCancel(ctx))
	for _, table := range []string{"reservations", "reservation_items", "inventory"} {
		if _, err := tx.Exec(ctx, "SELECT FROM "+table+" FOR UPDATE"); err != nil {
			t.Fatal(err)
		}
	}

	for _, status := range []reservation.Status{"", reservation.Pending, reservation.Expired} {
		if _, err := f.services()[0].ListHolds(ctx, reservation.HoldFilter{Status: status},
			reservation.HoldCursor{}, 50); err != nil {
			t.Errorf("ListHolds(%q) while every row is locked = %v", status, err)
		}
	}
	if _, err := f.services()[0].Stats(ctx); err != nil {
		t.Errorf("Stats() while every row is locked = %v", err)
	}
}
