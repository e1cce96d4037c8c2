package reservation_test

import (
	"fmt"
	"testing"

	"github.com/google/uuid"

	"github.com/allo/reservations/internal/reservation"
)

// countDiffs compares each count with the number of the model's holds.
func countDiffs(f *fixture, rows []reservation.Line) (diffs []string) {
	f.t.Helper()
	s := f.services()[0]
	all := readModel(f)
	for _, filter := range filters(rows) {
		want := reservation.Count{N: int64(len(expectedIDs(all, filter)))}
		got, err := s.CountHolds(f.Context(), filter)
		if err != nil || got != want {
			diffs = append(diffs,
				fmt.Sprintf("the count of %+v is %+v, %v, want %+v", filter, got, err, want))
		}
	}
	return diffs
}

func TestACountIsThatOfTheList(t *testing.T) {
	t.Parallel()

	f := newFixture(t, 1)
	rows := makeVariedHolds(f)
	for _, diff := range countDiffs(f, rows) {
		t.Error(diff)
	}
}

// Each case removes one part of a count's statement. The comparison with the model must show it.
func TestABrokenCountDiffersFromTheModel(t *testing.T) {
	t.Parallel()

	for name, c := range map[string]struct{ function, old, replacement string }{
		"dead holds are live":          {"count_holds_in", "r.expires_at <= _now", "false"},
		"dead holds of a row are live": {"count_live_holds", "AND s.expires_at > _now", ""},
		"dead carts of a row are live": {"count_live_holds", "AND l.expires_at > _now", ""},
		"carts count each line":        {"count_live_holds", "SELECT DISTINCT l", "SELECT l"},
		"a warehouse doesn't matter": {
			"count_live_holds", "s.warehouse_id = coalesce", "true OR s.warehouse_id = coalesce",
		},
		"resolved holds aren't counted": {"count_other_holds", "r.status = s.status", "false"},
		"dead holds aren't expired":     {"count_other_holds", "AND r.expires_at <= _now", "AND false"},
		"pending ones are all there is": {"count_holds", "_status IS DISTINCT FROM 'PENDING'", "false"},
		"a status has no resolved ones": {"count_holds_in", "r.status = _status", "false"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			f := newFixture(t, 1)
			rows := makeVariedHolds(f)
			f.mutate(c.function, c.old, c.replacement)
			if diffs := countDiffs(f, rows); len(diffs) == 0 {
				t.Error("the counts agree with the model, want a difference")
			}
		})
	}
}

// The holds of an owner and of a reference are counted with every other filter.
func TestTheHoldsOfAPartyAreCounted(t *testing.T) {
	t.Parallel()

	f := newFixture(t, 1)
	ctx := f.Context()
	s := f.services()[0]
	rows := f.stocks(100, 100)
	reserve := func(owner, reference string, row reservation.Line) reservation.Hold {
		t.Helper()
		a, err := s.Reserve(ctx, reservation.Request{
			Lines: []reservation.Line{row}, TTL: holdTTL, Owner: owner, Reference: reference,
		})
		if err != nil {
			t.Fatal(err)
		}
		return a.Hold
	}
	reserve("ann", "order-1", rows[0])
	reserve("ann", "order-2", rows[1])
	if _, err := s.Release(ctx, reserve("ann", "order-2", rows[0]).ID, ""); err != nil {
		t.Fatal(err)
	}
	reserve("bob", "order-2", rows[0])
	for _, c := range []struct {
		filter reservation.HoldFilter
		want   int64
	}{
		{reservation.HoldFilter{Owner: "ann"}, 3},
		{reservation.HoldFilter{Owner: "ann", Status: reservation.Pending}, 2},
		{reservation.HoldFilter{Owner: "ann", Status: reservation.Released}, 1},
		{reservation.HoldFilter{Owner: "ann", ProductID: &rows[1].ProductID}, 1},
		{reservation.HoldFilter{Owner: "cid"}, 0},
		{reservation.HoldFilter{Reference: "order-2"}, 3},
		{reservation.HoldFilter{Reference: "order-2", Owner: "bob"}, 1},
		{reservation.HoldFilter{Reference: "order-2", Owner: "bob", Status: reservation.Expired}, 0},
	} {
		got, err := s.CountHolds(ctx, c.filter)
		if err != nil || got != (reservation.Count{N: c.want}) {
			t.Errorf("the count of %+v is %+v, %v, want %d", c.filter, got, err, c.want)
		}
	}
}

// A count of 100,000 live holds takes a moment, and one that meets its bound says so.
func TestACountIsBounded(t *testing.T) {
	t.Parallel()

	const holds = 100_000
	f := newFixture(t, 1)
	for batch := range holds / 10_000 {
		f.Exec(othersSQL, batch, reservation.Pending)
	}
	for batch := range 2 {
		f.Exec(othersSQL, batch, reservation.Released)
	}
	f.Exec("VACUUM ANALYZE reservations, reservation_items")
	rows := f.stocks(100)
	f.hold(rows[0])
	var (
		none      *string
		product   = rows[0].ProductID.String()
		warehouse = rows[0].WarehouseID.String()
		pending   = reservation.Pending
	)
	const sql = "SELECT * FROM count_holds($1, $2, $3, NULL, NULL, $4, $5)"
	for name, c := range map[string]struct {
		args []any
		most int
	}{
		"all":                 {[]any{none, none, none}, 10_000},
		"live":                {[]any{pending, none, none}, 260_000},
		"released":            {[]any{reservation.Released, none, none}, 1_000},
		"live, of a product":  {[]any{pending, product, none}, 200},
		"live, of a row":      {[]any{pending, product, warehouse}, 200},
		"live, in a place":    {[]any{pending, none, warehouse}, 110_000},
		"all of a product":    {[]any{none, product, none}, 40_000},
		"expired, of product": {[]any{reservation.Expired, product, none}, 20_000},
	} {
		blocks, took := f.Explain(sql, append(c.args, reservation.MaxCount, 6000)...)
		t.Logf("the count of %s: %d blocks in %.1f ms", name, blocks, took)
		if blocks > c.most {
			t.Errorf("the count of %s reads %d blocks, want at most %d", name, blocks, c.most)
		}
	}
	s := f.services()[0]
	for filter, want := range map[reservation.HoldFilter]reservation.Count{
		{}:                             {N: holds + 20_001},
		{Status: reservation.Pending}:  {N: holds + 1},
		{Status: reservation.Released}: {N: 20_000},
	} {
		if got, err := s.CountHolds(f.Context(), filter); err != nil || got != want {
			t.Errorf("the count of %+v is %+v, %v, want %+v", filter, got, err, want)
		}
	}
	for _, c := range []struct{ status, product any }{
		{nil, nil}, {pending, nil}, {reservation.Released, nil}, {reservation.Released, product},
	} {
		var n int64
		var whole bool
		if err := f.Admin.QueryRow(f.Context(), sql, c.status, c.product, none, 1000, 1000).
			Scan(&n, &whole); err != nil || n > 1000 || whole {
			t.Errorf("the bounded count of %v is %d, whole %t, %v", c, n, whole, err)
		}
	}
	unknown := uuid.New()
	got, err := s.CountHolds(f.Context(), reservation.HoldFilter{
		Status: reservation.Released, ProductID: &unknown,
	})
	if want := (reservation.Count{AtLeast: true}); err != nil || got != want {
		t.Errorf("the count of a product that nobody releases is %+v, %v, want %+v", got, err, want)
	}
}
