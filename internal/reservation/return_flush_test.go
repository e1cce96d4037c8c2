package reservation_test

import (
	"errors"
	"testing"

	"github.com/allo/reservations/internal/local/pgserver"
	"github.com/allo/reservations/internal/pgtest"
	"github.com/allo/reservations/internal/reservation"
	"github.com/allo/reservations/internal/stock"
)

// returnsAfterCrash takes a unit of a confirmed hold back, whose commit isn't on disk yet. It reads
// the hold, which tells of the return, and kills the server. It returns how many returns the hold
// has after the restart.
func returnsAfterCrash(t *testing.T, server *pgserver.Server, db pgtest.Database) int {
	t.Helper()
	f := open(t, db, 0)
	hold := f.hold(f.stock(5))
	s := newService(f.own)
	if _, err := s.Confirm(f.Context(), hold.ID, ""); err != nil {
		t.Fatal(err)
	}
	line := stock.ReturnLine{
		ProductID: hold.Lines[0].ProductID, WarehouseID: hold.Lines[0].WarehouseID, Quantity: 1,
	}
	parcel := stock.Return{
		Reservation: hold.ID, Reference: "r", Lines: []stock.ReturnLine{line},
	}
	if _, err := stock.New(s).Return(f.Context(), parcel, ""); err != nil {
		t.Fatal(err)
	}
	view, err := s.Get(f.Context(), hold.ID)
	want := reservation.ReturnedUnits{
		ProductID: line.ProductID, WarehouseID: line.WarehouseID, Quantity: 1,
	}
	if err != nil || len(view.Returned) != 1 || view.Returned[0] != want {
		t.Fatalf("the hold tells of the returns %+v, %v, want %+v", view.Returned, err, want)
	}
	if err := errors.Join(server.Kill(), server.Restart(f.Context())); err != nil {
		t.Fatal(err)
	}
	return queryOne[int](open(t, db, 0), "SELECT count(*) FROM returns WHERE reservation_id = $1",
		hold.ID.String())
}

// The return's own call doesn't wait for the disk here, and the hold itself is on disk. So the read
// must wait because it tells of the return.
func TestAReadThatTellsOfAReturnWaitsForTheDisk(t *testing.T) {
	t.Parallel()

	server, db := pgtest.NewServer(t, lazyWriter)
	f := open(t, db, 0)
	f.mutate("return_goods", logRecord, "NULL;")
	f.mutate("hold_is_flushed", "RETURN coalesce((", "RETURN true OR coalesce((")
	if got := returnsAfterCrash(t, server, db); got != 1 {
		t.Errorf("after a read and a crash, the hold has %d returns, want 1", got)
	}

	// The control: without the wait the crash undoes the return, unless the log writer happens to wake
	// up just then.
	open(t, db, 0).mutate("read_hold", "_returned IS NOT NULL OR ", "")
	got := 1
	for n := 0; n < 3 && got != 0; n++ {
		got = returnsAfterCrash(t, server, db)
	}
	if got != 0 {
		t.Errorf("after a read without a wait and a crash, the hold has %d returns, want none", got)
	}
}
