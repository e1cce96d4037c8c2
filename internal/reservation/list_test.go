package reservation_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/allo/reservations/internal/pgtest"
	"github.com/allo/reservations/internal/reservation"
)

// listed is a hold as the model of the list sees it.
type listed struct {
	id                  uuid.UUID
	status              reservation.Status
	lines               []reservation.Line
	createdAt, expireAt time.Time
}

// variety makes holds of every status and of every kind of line, some with the same times as
// others, and some dead that no sweep has found.
func variety(f *fixture) []reservation.Line {
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
		f.Exec(
			"UPDATE reservations SET created_at = t.created_at, updated_at = t.created_at, expires_at = t.expires_at FROM (SELECT min(created_at) AS created_at, min(expires_at) AS expires_at FROM reservations WHERE status = 'PENDING' AND expires_at > clock_timestamp()) t WHERE id = $1",
			twin.ID.String(),
		)
		f.Exec(
			"UPDATE reservation_items l SET expires_at = r.expires_at FROM reservations r WHERE r.id = l.reservation_id AND r.id = $1",
			twin.ID.String(),
		)
		f.kill(f.hold(lines...))
	}
	return rows
}

// everyHold reads all holds from the tables, as they are to a reader now.
func everyHold(f *fixture) []listed {
	f.t.Helper()
	rows, err := f.Admin.Query(f.Context(), `
SELECT id::text, CASE WHEN status = 'PENDING' AND expires_at <= clock_timestamp() THEN 'EXPIRED' ELSE status::text END, created_at, expires_at
FROM reservations`)
	if err != nil {
		f.t.Fatal(err)
	}
	var all []listed
	var id string
	var h listed
	if _, err := pgx.ForEachRow(
		rows,
		[]any{&id, &h.status, &h.createdAt, &h.expireAt},
		func() error {
			h.id = uuid.MustParse(id)
			all = append(all, h)
			return nil
		},
	); err != nil {
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

// expect is the model: the ids that the filter takes, in their order.
func expect(all []listed, f reservation.HoldFilter) []uuid.UUID {
	all = slices.Clone(all)
	slices.SortFunc(all, func(a, b listed) int {
		order := b.createdAt.Compare(a.createdAt)
		if f.Status == reservation.Pending {
			order = a.expireAt.Compare(b.expireAt)
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

// filters are those of every status with every combination of what may be asked of a line, and of
// what is nowhere.
func filters(rows []reservation.Line) []reservation.HoldFilter {
	nowhere := uuid.UUID{}
	var all []reservation.HoldFilter
	for _, status := range []reservation.Status{"", reservation.Pending, reservation.Confirmed, reservation.Released, reservation.Expired} {
		for _, product := range []*uuid.UUID{nil, &rows[0].ProductID, &rows[1].ProductID, &nowhere} {
			for _, warehouse := range []*uuid.UUID{nil, &rows[0].WarehouseID, &rows[1].WarehouseID, &rows[2].WarehouseID, &nowhere} {
				all = append(
					all,
					reservation.HoldFilter{
						Status:      status,
						ProductID:   product,
						WarehouseID: warehouse,
					},
				)
			}
		}
	}
	return all
}

// maxPages bounds a walk through a list, so that a cursor that doesn't move fails the test.
const maxPages = 1000

// readHolds follows the cursors from the first page to the last.
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
	rows := variety(f)
	for _, diff := range listDiffs(f, rows) {
		t.Error(diff)
	}
	f.mustAudit(t)
}

// listDiffs holds every list against the model, in pages of several sizes, and tells where they
// differ.
func listDiffs(f *fixture, rows []reservation.Line) (diffs []string) {
	f.t.Helper()
	ctx := f.Context()
	s := f.services()[0]
	all := everyHold(f)
	for _, filter := range filters(rows) {
		want := expect(all, filter)
		for _, limit := range []int{1, 3, max(len(want), 1), len(want) + 1, reservation.MaxHoldPage} {
			got, err := readHolds(ctx, s, filter, limit)
			if err != nil {
				diffs = append(diffs, err.Error())
			} else if diff := cmp.Diff(want, ids(got)); diff != "" {
				diffs = append(
					diffs,
					fmt.Sprintf("the holds of %+v in pages of %d differ (-want +got):\n%s", filter,
						limit, diff),
				)
			}
		}
	}
	return diffs
}

// Each takes one thing away that a list stands on; the comparison with the model must find it
// missing.
func TestAWrongListDiffersFromTheModel(t *testing.T) {
	t.Parallel()

	for name, c := range map[string]struct{ function, old, replacement string }{
		"a tie is skipped in the live list":       {"list_live_holds", "(r.expires_at, r.id) > (_at, _id)", "r.expires_at > _at"},
		"a tie is skipped in the others":          {"list_holds", "(r.created_at, r.id) < (_at, _id)", "r.created_at < _at"},
		"the dead that aren't swept are missing":  {"list_holds", "AND r.expires_at <= _now", "AND false"},
		"the dead that aren't swept are alive":    {"list_live_holds", "AND r.expires_at > _now", ""},
		"the live are missing among all":          {"list_holds", "_status IS NULL AND", "false AND"},
		"any line of a cart will do for each":     {"has_line", "AND l.product_id = coalesce(_product, l.product_id)", ""},
		"a warehouse isn't asked for":             {"has_line", " AND _hold.warehouse_id = coalesce(_warehouse, _hold.warehouse_id)", ""},
		"the order is that of the ids":            {"list_holds", "ORDER BY w.created_at DESC, w.id DESC", "ORDER BY w.id DESC"},
		"the last that was looked at isn't found": {"list_holds", " OR w.n = _scan", " AND w.n <> _scan"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			f := newFixture(t, 1)
			rows := variety(f)
			f.mutate(c.function, c.old, c.replacement)
			if diffs := listDiffs(f, rows); len(diffs) == 0 {
				t.Error("the lists agree with the model all the same")
			}
		})
	}
}

func TestListAndGetShowTheSameHold(t *testing.T) {
	t.Parallel()

	f := newFixture(t, 1)
	ctx := f.Context()
	s := f.services()[0]
	variety(f)

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
			t.Errorf("Get() and ListHolds() tell of one hold differently (-get +list):\n%s", diff)
		}
	}
}

func TestAHoldIsListedAsExpiredTheMomentItDies(t *testing.T) {
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
	answer, err := s.Reserve(ctx,
		reservation.Request{Lines: []reservation.Line{row}, TTL: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	if count(reservation.Pending) != 1 || count(reservation.Expired) != 0 {
		t.Fatal("a live hold isn't listed as PENDING alone")
	}

	if err := pgtest.Wait(ctx, f.Admin,
		"SELECT clock_timestamp() > expires_at FROM reservations WHERE id = $1",
		answer.Hold.ID.String()); err != nil {
		t.Fatal(err)
	}

	if count(reservation.Pending) != 0 || count(reservation.Expired) != 1 ||
		f.status(answer.Hold) != reservation.Pending {
		t.Error("a dead hold that no sweep has found isn't listed as EXPIRED alone")
	}
}

// rare puts so many resolved holds of one stock row between a new and an old one of another.
func rare(f *fixture, between int) (common, scarce reservation.Line) {
	f.t.Helper()
	rows := f.stocks(1_000_000, 10)
	const insert = `
INSERT INTO reservations (id, product_id, warehouse_id, quantity, created_at, updated_at, expires_at, status)
SELECT gen_random_uuid(), $1, $2, 1, t, t, t + interval '1 min', 'RELEASED'
FROM generate_series(1, $3::integer) n, LATERAL (SELECT clock_timestamp() - interval '1 h' - $4::integer * interval '1 h' AS t) made`
	for i, n := range []int{1, between, 1} {
		line := rows[1]
		if i == 1 {
			line = rows[0]
		}
		f.Exec(insert, line.ProductID.String(), line.WarehouseID.String(), n, i)
	}
	return rows[0], rows[1]
}

func TestASearchForARareLineIsPaged(t *testing.T) {
	t.Parallel()

	f := newFixture(t, 1)
	ctx := f.Context()
	s := f.services()[0]
	_, scarce := rare(f, 20_500)
	for _, status := range []reservation.Status{"", reservation.Released} {
		f := reservation.HoldFilter{Status: status, ProductID: &scarce.ProductID}
		var after reservation.HoldCursor
		var found []int
		for range maxPages {
			page, err := s.ListHolds(ctx, f, after, 50)
			if err != nil {
				t.Fatal(err)
			}
			found = append(found, len(page.Holds))
			if page.Next == nil {
				break
			}
			after = *page.Next
		}
		if diff := cmp.Diff([]int{1, 0, 1}, found); diff != "" {
			t.Errorf(
				"the pages of a rare product's holds (%q) have other numbers of holds (-want +got):\n%s",
				status,
				diff,
			)
		}
	}
}

func TestAnEmptyListHasNoNextPage(t *testing.T) {
	t.Parallel()

	f := newFixture(t, 1)
	for _, status := range []reservation.Status{"", reservation.Pending, reservation.Confirmed, reservation.Released, reservation.Expired} {
		page, err := f.services()[0].ListHolds(f.Context(), reservation.HoldFilter{Status: status},
			reservation.HoldCursor{}, 50)
		if err != nil || len(page.Holds) != 0 || page.Next != nil {
			t.Errorf("ListHolds(%q) = %+v, %v, want none", status, page, err)
		}
	}
}

// A list is read page by page while others reserve, confirm, release, die and are swept. What
// nobody touches is seen once and in its place, however often it is read.
func TestPagesNeitherRepeatNorSkipUnchangedHolds(t *testing.T) {
	t.Parallel()

	f := newFixture(t, 4)
	ctx := f.Context()
	rows := variety(f)
	other := f.stock(100_000)
	still := map[uuid.UUID]bool{}
	for _, h := range everyHold(f) {
		still[h.id] = true
	}
	stop := make(chan struct{})
	var churn sync.WaitGroup
	var changes [3]int
	for i, s := range f.services()[1:] {
		churn.Go(func() { changes[i] = churning(ctx, t, s, other, stop) })
	}
	all := everyHoldOf(f, still)

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
			got := slices.DeleteFunc(ids(holds), func(id uuid.UUID) bool { return !still[id] })
			if diff := cmp.Diff(expect(all, filter), got); diff != "" {
				t.Errorf("what didn't change is listed by %+v otherwise (-want +got):\n%s", filter,
					diff)
			}
		}
	}

	close(stop)
	churn.Wait()
	for i, n := range changes {
		if n == 0 {
			t.Errorf("caller %d changed nothing meanwhile, so the test shows nothing", i)
		}
	}
	f.mustAudit(t)
}

// everyHoldOf is everyHold of the holds that are given.
func everyHoldOf(f *fixture, of map[uuid.UUID]bool) []listed {
	return slices.DeleteFunc(everyHold(f), func(h listed) bool { return !of[h.id] })
}

// churning changes holds of its own until it is stopped, and answers how many it changed. Every
// hold is resolved, so that the lists don't grow faster than they are read; one in four isn't at
// once.
func churning(
	ctx context.Context,
	t *testing.T,
	s *reservation.Service,
	row reservation.Line,
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

// A list that waited for a lock, or took one, would be in the way of those who reserve.
func TestTheOperatorsReadsWaitForNoLock(t *testing.T) {
	t.Parallel()

	f := newFixture(t, 1)
	ctx := f.Context()
	variety(f)
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
