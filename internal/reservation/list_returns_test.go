package reservation_test

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/allo/reservations/internal/reservation"
	"github.com/allo/reservations/internal/stock"
)

// mustListReturns lists what came back of a hold.
func mustListReturns(f *fixture, hold uuid.UUID) []reservation.ReturnedLine {
	f.t.Helper()
	lines, err := newService(f.own).ListReturns(f.Context(), hold)
	if err != nil {
		f.t.Fatal(err)
	}
	return lines
}

// The returns of a hold stay when it moves to the archive. The control forgets to look there.
func TestAnArchivedHoldListsItsReturns(t *testing.T) {
	t.Parallel()
	f := newFixture(t, 0)
	ctx, s := f.Context(), newService(f.own)
	hold := f.hold(of(f.stock(5), 2))
	told(s.Confirm(ctx, hold.ID, ""))
	for _, reference := range []string{"b", "a"} {
		_, err := stock.New(s).Return(ctx, stock.Return{
			Reservation: hold.ID, Reference: reference, Lines: []stock.ReturnLine{{
				ProductID: hold.Lines[0].ProductID, WarehouseID: hold.Lines[0].WarehouseID, Quantity: 1,
			}},
		}, "")
		if err != nil {
			t.Fatal(err)
		}
	}
	before := mustListReturns(f, hold.ID)
	if len(before) != 2 || before[0].Reference != "b" || before[1].Reference != "a" {
		t.Fatalf("the returns are %+v, want b and then a", before)
	}
	f.age(old)
	f.mustArchive(1, 0)
	if diff := cmp.Diff(before, mustListReturns(f, hold.ID)); diff != "" {
		t.Errorf("the returns of an archived hold differ (-before +after):\n%s", diff)
	}
	if _, err := s.ListReturns(ctx, uuid.New()); !errors.Is(err, reservation.ErrNotFound) {
		t.Errorf("ListReturns(unknown) = %v, want %v", err, reservation.ErrNotFound)
	}
	f.mutate("hold_exists", "FROM archived_reservations", "FROM reservations")
	if got, err := s.ListReturns(ctx, hold.ID); !errors.Is(err, reservation.ErrNotFound) {
		t.Errorf("without the archive ListReturns() = %v, %v, want %v", got, err,
			reservation.ErrNotFound)
	}
}

// A hold of very many returns lists the newest ones. The control lists them all.
func TestAListOfReturnsIsBounded(t *testing.T) {
	t.Parallel()
	f := newFixture(t, 0)
	const all = reservation.MaxReturnedLines + 50
	row := f.stock(all)
	hold := f.hold(of(row, all))
	told(newService(f.own).Confirm(f.Context(), hold.ID, ""))
	f.Exec(`INSERT INTO returns
    (reservation_id, reference, line, product_id, warehouse_id, quantity, at)
SELECT $1, 'r' || n, 1, $2, $3, 1, now() + n * interval '1 s' FROM generate_series(1, $4) n`,
		hold.ID.String(), row.ProductID.String(), row.WarehouseID.String(), all)
	lines := mustListReturns(f, hold.ID)
	if n := len(lines); n != reservation.MaxReturnedLines || lines[0].Reference != "r51" ||
		lines[n-1].Reference != "r250" {
		t.Errorf("%d lines from %+v, want the newest %d", n, lines[0], reservation.MaxReturnedLines)
	}
	f.mutate("list_returns", "LIMIT _limit", "")
	if lines := mustListReturns(f, hold.ID); len(lines) != all {
		t.Errorf("without the limit there are %d lines, want %d", len(lines), all)
	}
}
