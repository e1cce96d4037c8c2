package reservation_test

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/allo/reservations/internal/postgres"
	"github.com/allo/reservations/internal/reservation"
)

// countingConn counts the writes to the server. Each round trip is at least one.
type countingConn struct {
	net.Conn
	writes *atomic.Int64
}

func (c countingConn) Write(b []byte) (int, error) {
	c.writes.Add(1)
	return c.Conn.Write(b)
}

// countWrites opens a pool of one connection and counts its writes. It doesn't count the writes
// that set up the connection.
func countWrites(t *testing.T, f *fixture) (*postgres.Pool, *atomic.Int64) {
	t.Helper()
	writes := new(atomic.Int64)
	pool := openPool(t, f.URL, 1, func(c *pgxpool.Config) {
		dial, afterConnect := c.ConnConfig.DialFunc, c.AfterConnect
		c.ConnConfig.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := dial(ctx, network, addr)
			return countingConn{conn, writes}, err
		}
		c.AfterConnect = func(ctx context.Context, conn *pgx.Conn) error {
			err := afterConnect(ctx, conn)
			writes.Store(0)
			return err
		}
	})
	return pool, writes
}

// verbCall calls a verb. It returns an error unless the verb gives the expected answer.
type verbCall func(context.Context, *reservation.Service) error

// verbCalls returns a call of each verb, and the most frequent refusals.
func verbCalls(f *fixture) map[string]verbCall {
	rows := f.stocks(1000, 1000)
	var cart []reservation.Line
	for range reservation.MaxLines {
		cart = append(cart, f.stock(100))
	}
	dead := f.hold(rows...)
	f.kill(dead)
	newKey := uuid.NewString
	reserve := func(key func() string, lines ...reservation.Line) verbCall {
		return func(ctx context.Context, s *reservation.Service) error {
			_, err := s.Reserve(ctx, reservation.Request{Lines: lines, Key: key()})
			return err
		}
	}
	noKey := func() string { return "" }
	reserveTooMuch := reserve(noKey, of(rows[0], 5000))
	limited := f.stock(1000)
	f.limit(0, 1000, limited)
	inPlaceOf := func(lines ...reservation.Line) verbCall {
		return func(ctx context.Context, s *reservation.Service) error {
			old := f.hold(rows...)
			_, err := s.Reserve(ctx, reservation.Request{
				Lines: lines, Key: newKey(), Owner: "ann", Reference: "order 1", Replaces: &old.ID,
			})
			return err
		}
	}
	return map[string]verbCall{
		"reserve a line":       reserve(noKey, rows[0]),
		"reserve under a key":  reserve(newKey, rows[0]),
		"reserve a cart":       reserve(noKey, rows...),
		"reserve a large cart": reserve(newKey, cart...),
		"replace a hold":       inPlaceOf(rows[0]),
		"replace by a limited": inPlaceOf(rows[0], limited),
		"replay":               reserve(func() string { return "replayed" }, rows[1]),
		"be refused for a long time": func(ctx context.Context, s *reservation.Service) error {
			_, err := s.Reserve(ctx,
				reservation.Request{Lines: rows[:1], TTL: 2 * maxHold, Key: newKey()})
			if len(invalidFields(err)) == 0 {
				return errors.Join(errors.New("want ttlSeconds refused"), err)
			}
			return nil
		},
		"be refused": func(ctx context.Context, s *reservation.Service) error {
			if err := reserveTooMuch(ctx, s); !isShort(err) {
				return errors.Join(errors.New("want it short"), err)
			}
			return nil
		},
		"confirm": func(ctx context.Context, s *reservation.Service) error {
			_, err := s.Confirm(ctx, f.hold(rows...).ID, newKey())
			return err
		},
		"release": func(ctx context.Context, s *reservation.Service) error {
			_, err := s.Release(ctx, f.hold(rows[0]).ID, newKey())
			return err
		},
		"release a dead hold": func(ctx context.Context, s *reservation.Service) error {
			_, err := s.Release(ctx, dead.ID, "")
			return err
		},
		"extend": func(ctx context.Context, s *reservation.Service) error {
			_, err := s.Extend(ctx, f.hold(rows...).ID, time.Minute, newKey())
			return err
		},
		"start a payment": func(ctx context.Context, s *reservation.Service) error {
			_, err := s.StartPayment(ctx, f.hold(rows...).ID, "p", time.Minute, newKey())
			return err
		},
		"fail a payment": func(ctx context.Context, s *reservation.Service) error {
			_, err := s.FailPayment(ctx, f.hold(rows...).ID, "p", nil, newKey())
			return err
		},
		"pay": func(ctx context.Context, s *reservation.Service) error {
			_, err := s.ConfirmPayment(ctx, f.hold(rows...).ID, "p", true, newKey())
			return err
		},
		"pay late": func(ctx context.Context, s *reservation.Service) error {
			late := f.hold(rows...)
			f.kill(late)
			_, err := s.ConfirmPayment(ctx, late.ID, "p", true, newKey())
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
			_, err := s.ListHolds(ctx, reservation.HoldFilter{ProductID: &rows[0].ProductID},
				reservation.HoldCursor{}, 50)
			return err
		},
		"stats": func(ctx context.Context, s *reservation.Service) error {
			_, err := s.Stats(ctx)
			return err
		},
	}
}

// The second call of a statement on a connection also prepares it, which takes one more round trip.
// Through a pooler no statement is prepared.
func TestEveryVerbIsOneRoundTrip(t *testing.T) {
	t.Parallel()

	f := newFixture(t, 1)
	ctx := f.Context()
	pool, writes := countWrites(t, f)
	preparing := int64(2)
	if f.URL != f.DirectURL {
		preparing = 1
	}

	for name, call := range verbCalls(f) {
		pool.Reset()
		for n, want := range []int64{1, preparing, 1} {
			writes.Store(0)
			if err := call(ctx, newService(pool)); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if got := writes.Load(); got != want {
				t.Errorf("call %d of %s on a connection took %d round trips, want %d", n+1, name,
					got, want)
			}
		}
	}
}
