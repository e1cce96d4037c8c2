package stock_test

import (
	"net/url"
	"testing"
	"time"

	"github.com/allo/reservations/internal/pgtest"
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
	if err := follower.Connect(t.Context()); err != nil {
		t.Fatal(err)
	}
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

// A list of movements that begins on the writer misses nothing that the reader doesn't have yet.
func TestALaterPageOfMovementsMissesNone(t *testing.T) {
	t.Parallel()

	primary, db := pgtest.NewServer(t, nil)
	u, err := url.Parse(db.DirectURL)
	if err != nil {
		t.Fatal(err)
	}
	_, standby := pgtest.NewStandby(t, primary, db, u.Host)
	f, followed := pgtest.NewFixture(t, db), pgtest.NewFixture(t, standby)
	product, place := f.NamedProduct("Mug", "CM-300"), f.CodedWarehouse("E", "East")
	pool, err := postgres.Open(postgres.URL(db.DirectURL), 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	reader, err := postgres.OpenReader(postgres.URL(standby.DirectURL), 1,
		postgres.ReaderOptions{MaxLag: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(reader.Close)
	if err := reader.Connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	options := reservation.Options{HoldTTL: time.Minute, MaxHold: time.Hour}
	alone := stock.New(reservation.New(pool, options))
	options.Reader = reader
	s := stock.New(reservation.New(pool, options))
	const moves, limit = 6, 2
	lines := make([]stock.Line, moves)
	for i := range lines {
		lines[i] = delta(product, place, 1)
	}
	move := func(lines []stock.Line) {
		t.Helper()
		if _, _, err := alone.Move(t.Context(), document("d", lines...), ""); err != nil {
			t.Fatal(err)
		}
	}
	move(lines[:1])
	written := pgtest.QueryOne[string](f, "SELECT pg_current_wal_insert_lsn()::text")
	followed.WaitUntil("SELECT pg_last_wal_replay_lsn() >= $1::pg_lsn", written)
	followed.Exec("SELECT pg_wal_replay_pause()")
	followed.WaitUntil("SELECT pg_get_wal_replay_pause_state() = 'paused'")
	move(lines)
	source, reference := "erp", "d"
	for name, filter := range map[string]stock.MovementFilter{
		"a stock row": {ProductID: &product, WarehouseID: &place},
		"a document":  {Source: &source, Reference: &reference},
	} {
		page, next, err := alone.ListMovements(t.Context(), filter, stock.MovementCursor{}, limit)
		n := len(page)
		for err == nil && next != nil {
			page, next, err = s.ListMovements(t.Context(), filter, *next, limit)
			n += len(page)
		}
		if err != nil || n != moves {
			t.Errorf("the list of %s that began on the writer has %d movements, %v, want %d", name, n, err,
				moves)
		}
		page, _, err = s.ListMovements(t.Context(), filter, stock.MovementCursor{}, moves)
		if err != nil || len(page) != 1 {
			t.Errorf("the reader has %d movements of %s, %v: the test proves nothing", len(page), name, err)
		}
	}
}
