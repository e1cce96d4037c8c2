package reservation_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/allo/reservations/internal/pgtest"
	"github.com/allo/reservations/internal/reservation"
)

// setStandbys changes the standbys for which commits wait, and waits until the server knows.
func (f *fixture) setStandbys(names string) {
	f.t.Helper()
	f.Exec("ALTER SYSTEM SET synchronous_standby_names = '" + names + "'")
	f.Exec("SELECT pg_reload_conf()")
	for queryOne[string](f, "SHOW synchronous_standby_names") != names {
		continue // the query paces the loop, and the test's deadline ends it
	}
	for range 2 { // the checkpointer tells all sessions, once it has read the settings itself
		f.Exec("CHECKPOINT")
	}
}

// A fail-over to a standby loses the commits that it doesn't have. So no verb may report one as
// done (I5), nor an answer that reports the effect of one.
func TestNoVerbSucceedsWhileTheSynchronousStandbyIsStalled(t *testing.T) {
	t.Parallel()

	_, db := pgtest.NewServer(t, nil)
	f := open(t, db, 1)
	s := f.services()[0]
	row := f.stock(9)
	confirmed, released, extended := f.hold(row), f.hold(row), f.hold(row)
	request := reservation.Request{Lines: []reservation.Line{row}, Key: uuid.NewString()}
	stalled := func(name string, call func(context.Context) error) {
		t.Helper()
		if err := f.UntilItStalls(call); !errors.Is(err, reservation.ErrUnavailable) ||
			reservation.NoConnection(err) {
			t.Errorf("%s without the standby = %v, want %v", name, err, reservation.ErrUnavailable)
		}
	}
	reserve := func(ctx context.Context) error {
		_, err := s.Reserve(ctx, request)
		return err
	}
	confirm := func(ctx context.Context) error {
		_, err := s.Confirm(ctx, confirmed.ID, "")
		return err
	}

	f.setStandbys("nobody")
	stalled("a reserve", reserve)
	stalled("its replay", reserve)
	stalled("a confirm", confirm)
	stalled("a repeated confirm", confirm)
	stalled("a get of the confirmed hold", func(ctx context.Context) error {
		_, err := s.Get(ctx, confirmed.ID)
		return err
	})
	stalled("a release", func(ctx context.Context) error {
		_, err := s.Release(ctx, released.ID, "")
		return err
	})
	stalled("an extend", func(ctx context.Context) error {
		_, err := s.Extend(ctx, extended.ID, time.Minute, "")
		return err
	})

	const mark = "SELECT coalesce(max(below::text), 'none') FROM flush_mark"
	stalled("a sweep", func(ctx context.Context) error {
		_, err := s.Sweep(ctx)
		return err
	})
	if got := queryOne[string](f, mark); got != "none" {
		t.Errorf("the flush mark is %s after a flush that the standby didn't confirm, want none", got)
	}

	f.setStandbys("")
	answer, err := s.Reserve(f.Context(), request)
	if err != nil || !answer.Replayed {
		t.Errorf("the replay, once commits wait for no standby = %+v, %v, want it replayed", answer,
			err)
	}
}
