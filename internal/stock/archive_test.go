package stock_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/allo/reservations/internal/pgtest"
	"github.com/allo/reservations/internal/reservation"
	"github.com/allo/reservations/internal/stock"
)

// archiveShelf makes six movements of the mug, the second of which names a document, and archives
// what it can: movements 3 to 5. The first and the newest one stay, as does that of the document.
func (s *shelf) archiveShelf() {
	s.t.Helper()
	s.Stock(s.mug, s.here, 5)
	s.move(document("delivery", delta(s.mug, s.here, 10)), "APPLIED +10 to 15 by 2")
	adjust := func(units int) {
		s.t.Helper()
		s.Exec("SELECT adjust_stock($1, $2, $3, 'found')", s.mug.String(), s.here.String(), units)
	}
	adjust(-1)
	s.confirm(s.reserve(s.mug, s.here, 2))
	s.confirm(s.reserve(s.mug, s.here, 1))
	adjust(4)
	s.archive()
}

// archive makes all holds and movements old, closes the stock rows, and archives.
func (s *shelf) archive() {
	s.t.Helper()
	ctx := s.Context()
	err := pgx.BeginFunc(ctx, s.Admin, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `
SET LOCAL session_replication_role = replica;
UPDATE reservations SET created_at = created_at - interval '90 d',
       updated_at = updated_at - interval '90 d', expires_at = expires_at - interval '90 d';
UPDATE stock_movements SET at = at - interval '90 d';
INSERT INTO stock_closings (product_id, warehouse_id, seq, total, at)
SELECT product_id, warehouse_id, seq, total, clock_timestamp() FROM inventory
ON CONFLICT (product_id, warehouse_id) DO UPDATE SET seq = excluded.seq, total = excluded.total;`+
			pgtest.MoveLedgerSQL)
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
	const retention = 30 * 24 * time.Hour
	s.Exec("SELECT archive_holds($1, '-infinity', 100)", retention)
	s.Exec("SELECT archive_movements($1, 100, 100)", retention)
}

func TestArchivedMovementsAreCountedFrom(t *testing.T) {
	t.Parallel()

	s := newShelf(t)
	s.archiveShelf()
	if n := pgtest.QueryOne[int](s.Fixture, "SELECT count(*) FROM archived_movements"); n != 3 {
		t.Errorf("%d movements are archived, want 3", n)
	}
	s.move(document("count", counted(s.mug, s.here, 16, 3), counted(s.mug, s.here, 15, 2),
		counted(s.mug, s.here, 10, 99)),
		"APPLIED +2 to 17 by 7", "UNCHANGED +0 to 17 by 8", "REFUSED +0, SEQ_UNKNOWN")
	s.audit()
}

func TestArchivedMovementsAreUnknownWithoutTheArchive(t *testing.T) {
	t.Parallel()

	s := newShelf(t)
	s.archiveShelf()
	pgtest.Mutate(t, s.Database, "total_after", "FROM archived_movements m\n        WHERE",
		"FROM archived_movements m\n        WHERE false AND")
	s.move(document("count", counted(s.mug, s.here, 16, 3)), "REFUSED +0, SEQ_UNKNOWN")
}

// A line is applied once, for ever, also after its movement could have been archived.
func TestALineIsReplayedAfterYears(t *testing.T) {
	t.Parallel()

	s := newShelf(t)
	s.archiveShelf()
	s.move(document("delivery", delta(s.mug, s.here, 10)), "REPLAYED +10 to 15 by 2")
	s.move(document("delivery", delta(s.mug, s.here, 11)), "REFUSED +0, REFERENCE_REUSED")
	s.audit()
}

func TestALineIsAppliedTwiceWhenItsMovementIsArchived(t *testing.T) {
	t.Parallel()

	s := newShelf(t)
	pgtest.Mutate(t, s.Database, "archive_movements_of", "d.source IS NULL AND ", "")
	s.archiveShelf()
	s.move(document("delivery", delta(s.mug, s.here, 10)), "APPLIED +10 to 25 by 7")
}

func TestTheListOfMovementsReadsTheArchive(t *testing.T) {
	t.Parallel()

	s := newShelf(t)
	s.archiveShelf()
	var seqs []int64
	var after stock.MovementCursor
	for {
		page, next, err := s.stock.ListMovements(s.Context(),
			stock.MovementFilter{ProductID: &s.mug, WarehouseID: &s.here}, after, 4)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range page {
			seqs = append(seqs, m.Seq)
		}
		if next == nil {
			break
		}
		after = *next
	}
	if want := []int64{6, 5, 4, 3, 2, 1}; !slices.Equal(seqs, want) {
		t.Errorf("the list has the movements %d, want %d", seqs, want)
	}
}

func TestGoodsOfAnArchivedHoldComeBack(t *testing.T) {
	t.Parallel()

	s := newShelf(t)
	s.Stock(s.mug, s.here, 10)
	s.Stock(s.lamp, s.here, 10)
	mugs := reservation.Line{ProductID: s.mug, WarehouseID: s.here, Quantity: 2}
	lamp := reservation.Line{ProductID: s.lamp, WarehouseID: s.here, Quantity: 1}
	for name, hold := range map[string]uuid.UUID{
		"a line": s.sell(mugs), "a cart": s.sell(mugs, lamp),
	} {
		first := parcel(hold, "first", back(s.mug, s.here, 1))
		before := s.takeBack(first, "")
		s.archive()
		if n := pgtest.QueryOne[int](s.Fixture,
			"SELECT count(*) FROM archived_reservations WHERE id = $1", hold.String()); n != 1 {
			t.Fatalf("%s isn't in the archive", name)
		}
		again := s.takeBack(first, "")
		if diff := cmp.Diff(before.Lines, again.Lines); diff != "" {
			t.Errorf("%s: the return was repeated with another answer (-first +repeated):\n%s", name, diff)
		}
		after := s.takeBack(parcel(hold, "second", back(s.mug, s.here, 1)), "")
		if diff := cmp.Diff(again.Hold, after.Hold); diff != "" {
			t.Errorf("%s: the hold has changed (-before +after):\n%s", name, diff)
		}
		_, err := s.stock.Return(s.Context(), parcel(hold, "third", back(s.mug, s.here, 1)), "")
		var excess *stock.ExcessError
		if !errors.As(err, &excess) || excess.Lines[0].Sold != 2 || excess.Lines[0].Returned != 2 {
			t.Errorf("%s: a third unit of two = %v, want the excess", name, err)
		}
		if _, err := s.Admin.Exec(s.Context(), `
INSERT INTO returns (reservation_id, reference, line, product_id, warehouse_id, quantity, at)
VALUES ($1, 'third', 1, $2, $3, 1, now())`, hold.String(), s.mug.String(),
			s.here.String()); err == nil {
			t.Errorf("%s: the schema took a third unit of two", name)
		}
	}
	if total := s.Counts(s.mug, s.here).Total; total != 10 {
		t.Errorf("the total is %d, want 10 after all came back", total)
	}
	s.audit()
}
