package stock_test

import (
	"testing"
	"time"

	"github.com/allo/reservations/internal/postgres"
	"github.com/allo/reservations/internal/reservation"
	"github.com/allo/reservations/internal/stock"
)

// TestTheOperatorReadsOnTheReader has two databases without a follower, so that an answer tells
// where it was read.
func TestTheOperatorReadsOnTheReader(t *testing.T) {
	t.Parallel()

	writer, reader := newStore(t, 1), newStore(t, 1)
	pool, err := postgres.Open(postgres.URL(writer.DirectURL), 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	follower, err := postgres.OpenReader(postgres.URL(reader.DirectURL), 1,
		postgres.ReaderOptions{MaxLag: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(follower.Close)
	s := stock.New(reservation.New(pool,
		reservation.Options{HoldTTL: time.Minute, MaxHold: time.Hour, Reader: follower}))
	for name, c := range map[string]struct {
		of   store
		want int
	}{"the writer": {writer, 0}, "the reader": {reader, 1}} {
		movements, _, err := s.ListMovements(t.Context(),
			stock.MovementFilter{ProductID: &c.of.product, WarehouseID: &c.of.east},
			stock.MovementCursor{}, 10)
		if err != nil || len(movements) != c.want {
			t.Errorf("ListMovements() of a stock row that %s has = %d, %v, want %d", name,
				len(movements), err, c.want)
		}
		rows, _, err := s.ListRows(t.Context(), stock.RowFilter{}, nil, 10)
		isOf := len(rows) == 2 && rows[0].ProductID == c.of.product
		if err != nil || isOf != (c.want == 1) {
			t.Errorf("ListRows() = %+v, %v, which has the stock of %s: %t", rows, err, name, isOf)
		}
	}
}
