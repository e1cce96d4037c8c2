package reservation_test

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/allo/reservations/internal/postgres"
	"github.com/allo/reservations/internal/reservation"
)

// countingConn counts what is written to the server: whatever waits for an answer must be sent first, so each round trip is at
// least one write.
type countingConn struct {
	net.Conn
	writes *atomic.Int64
}

func (c countingConn) Write(b []byte) (int, error) {
	c.writes.Add(1)
	return c.Conn.Write(b)
}

// counted is a pool of one connection that counts its writes, except for those that make the connection.
func counted(t *testing.T, w *world) (*postgres.Pool, *atomic.Int64) {
	t.Helper()
	writes := new(atomic.Int64)
	pool := openPool(t, w.db.URL, 1, func(c *pgconn.Config) {
		dial := c.DialFunc
		c.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := dial(ctx, network, address)
			return countingConn{conn, writes}, err
		}
		c.AfterConnect = func(context.Context, *pgconn.PgConn) error {
			writes.Store(0)
			return nil
		}
	})
	return pool, writes
}

// verbCalls calls every verb once and expects its usual answer, and the refusals that matter most too.
func verbCalls(w *world) map[string]func(context.Context, *reservation.Service) error {
	rows := w.stocks(1000, 1000)
	var cart []reservation.Line
	for range reservation.MaxLines {
		cart = append(cart, w.stock(100))
	}
	dead := w.hold(rows...)
	w.kill(dead)
	key := uuid.NewString
	reserve := func(ctx context.Context, s *reservation.Service, key string, lines ...reservation.Line) error {
		_, err := s.Reserve(ctx, reservation.Request{Lines: lines, Key: key})
		return err
	}
	const replayKey = "replayed"
	return map[string]func(context.Context, *reservation.Service) error{
		"reserve a line":       func(ctx context.Context, s *reservation.Service) error { return reserve(ctx, s, "", rows[0]) },
		"reserve under a key":  func(ctx context.Context, s *reservation.Service) error { return reserve(ctx, s, key(), rows[0]) },
		"reserve a cart":       func(ctx context.Context, s *reservation.Service) error { return reserve(ctx, s, "", rows...) },
		"reserve a large cart": func(ctx context.Context, s *reservation.Service) error { return reserve(ctx, s, key(), cart...) },
		"replay":               func(ctx context.Context, s *reservation.Service) error { return reserve(ctx, s, replayKey, rows[1]) },
		"be refused": func(ctx context.Context, s *reservation.Service) error {
			if err := reserve(ctx, s, "", of(rows[0], 5000)); !isShort(err) {
				return errors.Join(errors.New("want it short"), err)
			}
			return nil
		},
		"confirm": func(ctx context.Context, s *reservation.Service) error {
			_, err := s.Confirm(ctx, w.hold(rows...).ID, key())
			return err
		},
		"release": func(ctx context.Context, s *reservation.Service) error {
			_, err := s.Release(ctx, w.hold(rows[0]).ID, key())
			return err
		},
		"release a dead one": func(ctx context.Context, s *reservation.Service) error {
			_, err := s.Release(ctx, dead.ID, "")
			return err
		},
		"extend": func(ctx context.Context, s *reservation.Service) error {
			_, err := s.Extend(ctx, w.hold(rows...).ID, time.Minute, key())
			return err
		},
		"get": func(ctx context.Context, s *reservation.Service) error {
			_, err := s.Get(ctx, dead.ID)
			return err
		},
		"list products": func(ctx context.Context, s *reservation.Service) error {
			_, _, err := s.ListProducts(ctx, reservation.Cursor{}, 50)
			return err
		},
		"list warehouses": func(ctx context.Context, s *reservation.Service) error {
			_, _, err := s.ListWarehouses(ctx, reservation.Cursor{}, 50)
			return err
		},
		"list holds": func(ctx context.Context, s *reservation.Service) error {
			_, err := s.ListHolds(ctx, reservation.HoldFilter{ProductID: &rows[0].ProductID}, reservation.HoldCursor{}, 50)
			return err
		},
		"stats": func(ctx context.Context, s *reservation.Service) error {
			_, err := s.Stats(ctx)
			return err
		},
	}
}

func TestEveryVerbIsOneRoundTrip(t *testing.T) {
	t.Parallel()

	w := newWorld(t, 1)
	ctx := w.context()
	pool, writes := counted(t, w)

	for name, call := range verbCalls(w) {
		for _, connection := range []string{"a fresh connection", "the same connection again"} {
			if connection == "a fresh connection" {
				pool.Reset()
			} else {
				writes.Store(0)
			}
			if err := call(ctx, w.service(pool)); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if n := writes.Load(); n != 1 {
				t.Errorf("%s on %s took %d writes, want 1", name, connection, n)
			}
		}
	}
}

func TestPlainVerbIsFourRoundTrips(t *testing.T) {
	t.Parallel()

	w := newWorld(t, 1)
	w.early = false
	ctx := w.context()
	row := w.stock(10)
	pool, writes := counted(t, w)
	service := w.service(pool)

	if _, err := service.Reserve(ctx, reservation.Request{Lines: []reservation.Line{row}}); err != nil {
		t.Fatal(err)
	}

	if n := writes.Load(); n != 4 {
		t.Errorf("a plain reserve took %d writes, want 4: begin, the verb, the barrier, commit", n)
	}
}
