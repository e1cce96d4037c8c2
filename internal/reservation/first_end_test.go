package reservation_test

import (
	"strings"
	"testing"

	"github.com/allo/reservations/internal/reservation"
)

// A reserve of a sold-out row looks for dead holds when one may be dead, and otherwise doesn't.
func TestASoldOutRowIsSearchedWhenAHoldMayBeDead(t *testing.T) {
	t.Parallel()

	f := newFixture(t, 1)
	s := f.services()[0]
	row, sold := f.stock(1), f.stock(0)
	f.Exec("UPDATE inventory SET first_end = '-infinity' WHERE total = 0")
	hold := f.hold(row)
	const told = "it looked again"
	f.mutate("look_again", "freed := 0;", "RAISE EXCEPTION '"+told+"';")
	reserve := func(row reservation.Line) error {
		_, err := s.Reserve(f.Context(), reservation.Request{Lines: []reservation.Line{row}})
		return err
	}

	if err := reserve(row); !isShort(err) {
		t.Errorf("Reserve() beside a live hold = %v, want it short by the first look", err)
	}
	if err := reserve(sold); !isShort(err) {
		t.Errorf("Reserve() without any hold = %v, want it short by the first look", err)
	}
	f.kill(hold)
	if err := reserve(row); err == nil || !strings.Contains(err.Error(), told) {
		t.Errorf("Reserve() beside a dead hold = %v, want that it looks again", err)
	}
}

// raiseSQL raises the first_end of the one stock row, and endsFirstSQL says whether it is the end
// of a hold.
const (
	raiseSQL     = "SELECT raise_first_end(product_id, warehouse_id) FROM inventory"
	endsFirstSQL = `
SELECT i.first_end = r.expires_at FROM inventory i, reservations r WHERE r.id = $1`
)

// first_end rises to the end of the first live hold, and without one it is infinite.
func TestFirstEndRisesToTheFirstLiveHold(t *testing.T) {
	t.Parallel()

	f := newFixture(t, 0)
	s := newService(f.own)
	row := f.stock(9)
	for _, h := range []reservation.Hold{f.hold(row), f.hold(row)} {
		f.Exec(raiseSQL)
		if !queryOne[bool](f, endsFirstSQL, h.ID.String()) {
			t.Errorf("first_end isn't the end of hold %s, which ends first", h.ID)
		}
		if _, err := s.Release(f.Context(), h.ID, ""); err != nil {
			t.Fatal(err)
		}
	}
	f.Exec(raiseSQL)
	if end := queryOne[string](f, "SELECT first_end::text FROM inventory"); end != "infinity" {
		t.Errorf("without a live hold first_end is %s, want infinity", end)
	}
}
