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

// waitingMaker is a caller that has made a hold of the last unit of a stock row, and waits for a
// disk that stalls.
type waitingMaker struct {
	*fixture
	t      *testing.T
	row    reservation.Line
	hold   uuid.UUID
	other  *reservation.Service
	server *pgtest.Disturbed
	answer chan error
}

// stall makes a hold while the disk stalls.
func stall(t *testing.T, ttl time.Duration, change func(*fixture)) *waitingMaker {
	t.Helper()
	server, db := pgtest.NewDisturbedServer(t, nil)
	f := open(t, db, 2)
	f.Patient()
	f.mutate("lost_time", "least(", "greatest(interval '1 h', ") // a restart would move the hold's row
	change(f)
	maker, other := f.services()[0], f.services()[1]
	m := &waitingMaker{
		fixture: f, t: t, row: f.stock(2), other: other, server: server,
		answer: make(chan error, 1),
	}
	request := reservation.Request{Lines: []reservation.Line{m.row}}
	warmed, err := maker.Reserve(f.Context(), request)
	request.TTL = ttl
	if err == nil {
		_, err = m.other.Confirm(f.Context(), warmed.Hold.ID, "")
	}
	if err != nil {
		t.Fatal(err)
	}

	server.StallDisk()
	go func() {
		_, err := maker.Reserve(f.Context(), request)
		m.answer <- err
	}()
	const made = "SELECT id::text FROM reservations WHERE status = 'PENDING' AND xmax <> '0'"
	f.WaitUntil("SELECT EXISTS (" + made + ")")
	m.hold = uuid.MustParse(queryOne[string](f, made))
	return m
}

// awaitEnd waits until the hold is dead by the database's clock.
func (m *waitingMaker) awaitEnd() {
	m.t.Helper()
	m.WaitUntil("SELECT expires_at < clock_timestamp() FROM reservations WHERE id = $1",
		m.hold.String())
}

// resolves reports whether the other caller resolves the hold before the disk goes on. It lets the
// disk go on.
func (m *waitingMaker) resolves(verb func(context.Context) error) bool {
	m.t.Helper()
	ctx := m.Context()
	answer := make(chan error, 1)
	go func() { answer <- verb(ctx) }()
	const blocked = `SELECT EXISTS (SELECT FROM pg_stat_activity
WHERE datname = current_database() AND wait_event_type = 'Lock')`
	const resolved = "SELECT status <> 'PENDING' FROM reservations WHERE id = $1"
	m.WaitUntil("SELECT ("+resolved+") OR ("+blocked+")", m.hold.String())
	was := queryOne[bool](m.fixture, resolved, m.hold.String())
	m.resume()
	if err := <-answer; err != nil {
		m.t.Error(err)
	}
	return was
}

// resume lets the disk go on, and awaits the maker's answer.
func (m *waitingMaker) resume() {
	m.t.Helper()
	m.server.ResumeDisk()
	if err := <-m.answer; err != nil {
		m.t.Error(err)
	}
	m.mustAudit(m.t)
}

func (m *waitingMaker) confirm(ctx context.Context) error {
	_, err := m.other.Confirm(ctx, m.hold, "")
	return err
}

func (m *waitingMaker) reserve(ctx context.Context) error {
	_, err := m.other.Reserve(ctx, reservation.Request{Lines: []reservation.Line{m.row}})
	return err
}

// sweeps reports whether a sweep expires the hold before the disk goes on. It lets the disk go on.
func (m *waitingMaker) sweeps() bool {
	m.t.Helper()
	expired := queryOne[int64](m.fixture, "SELECT expired FROM sweep_holds(100)")
	m.resume()
	return expired == 1
}

func asBuilt(*fixture) {}

// stronger lets routines lock holds FOR UPDATE.
func stronger(routines ...string) func(*fixture) {
	return func(f *fixture) {
		for _, routine := range routines {
			f.mutate(routine, "FOR NO KEY UPDATE", "FOR UPDATE")
		}
	}
}

// Others resolve a hold whose maker waits for the disk. In the control a lock is stronger than it
// need be: then they wait, or skip the hold.
func TestNobodyWaitsForTheFlushOfAReserve(t *testing.T) {
	t.Parallel()

	for name, test := range map[string]struct {
		ttl     time.Duration
		control func(*fixture)
		resolve func(*waitingMaker) bool
	}{
		"confirm": {
			time.Minute,
			func(f *fixture) {
				f.mutate("reserve_line", "FOR KEY SHARE SKIP LOCKED", "FOR UPDATE SKIP LOCKED")
			},
			func(m *waitingMaker) bool { return m.resolves(m.confirm) },
		},
		"reclaim": {
			time.Second, stronger("reclaim_holds", "await_dead_hold"),
			func(m *waitingMaker) bool { m.awaitEnd(); return m.resolves(m.reserve) },
		},
		"sweep": {
			time.Second, stronger("sweep_holds"),
			func(m *waitingMaker) bool { m.awaitEnd(); return m.sweeps() },
		},
	} {
		for kind, change := range map[string]func(*fixture){
			"as built": asBuilt, "control": test.control,
		} {
			t.Run(name+", "+kind, func(t *testing.T) {
				t.Parallel()
				want := kind == "as built"
				if got := test.resolve(stall(t, test.ttl, change)); got != want {
					t.Errorf("the hold was resolved before the disk went on: %t, want %t", got, want)
				}
			})
		}
	}
}

// ownLockSoon makes a reserve wait no longer than a moment for its second transaction's lock.
func (f *fixture) ownLockSoon(before string) {
	f.t.Helper()
	f.mutate("reserve_line", "COMMIT;\n            PERFORM FROM", "COMMIT;\n            "+before+
		"PERFORM set_config('lock_timeout', '100ms', true);\n            PERFORM FROM")
}

// A table lock that comes between the two commits of a reserve makes the second one wait, after the
// hold is made. So the caller isn't told that nothing has changed, and a retry finds the hold.
func TestALockOfTheTableAfterTheFirstCommitLeavesTheAnswerOpen(t *testing.T) {
	t.Parallel()

	for name, before := range map[string]int{"first call of a session": 0, "later call": 1} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			lockTableAfterTheFirstCommit(t, before)
		})
	}
}

// lockTableAfterTheFirstCommit locks the table of holds between the two commits of a reserve, in a
// session that has made so many holds before. The server tells of a statement that the session
// hasn't prepared yet in another field of the error.
func lockTableAfterTheFirstCommit(t *testing.T, before int) {
	f := newFixture(t, 1)
	f.ownLockSoon("")
	row := f.stock(9)
	s := f.services()[0]
	for range before {
		if _, err := s.Reserve(f.Context(),
			reservation.Request{Lines: []reservation.Line{row}}); err != nil {
			t.Fatal(err)
		}
	}
	request := reservation.Request{Lines: []reservation.Line{row}, Key: uuid.NewString()}
	stock := f.lock(lockStockSQL, row.ProductID.String())
	ctx := f.Context()
	answer, locked := make(chan error, 1), make(chan error, 1)
	go func() {
		_, err := s.Reserve(ctx, request)
		answer <- err
	}()
	f.WaitForBlocked(1)
	table := f.lock("SELECT")
	go func() {
		_, err := table.Exec(ctx, "LOCK TABLE reservations IN ACCESS EXCLUSIVE MODE")
		locked <- err
	}()
	f.WaitForBlocked(2)

	err := errors.Join(stock.Rollback(ctx), <-locked)
	got := <-answer
	if err = errors.Join(err, table.Rollback(ctx)); err != nil {
		t.Fatal(err)
	}

	if !errors.Is(got, reservation.ErrUnavailable) || errors.Is(got, reservation.ErrBusy) {
		t.Errorf("Reserve() = %v, want %v", got, reservation.ErrUnavailable)
	}
	again, err := s.Reserve(ctx, request)
	if err != nil || !again.Replayed || !again.Hold.ExpiresAt.After(time.Now()) {
		t.Errorf("Reserve() again = %+v, %v, want the hold of the first call", again, err)
	}
	f.mustAudit(t)
}

// reserveLocked makes a hold that another session locks between the two commits.
func reserveLocked(t *testing.T, change func(*fixture)) error {
	t.Helper()
	f := newFixture(t, 1)
	row := f.stock(9)
	change(f)
	f.ownLockSoon("PERFORM pg_advisory_xact_lock(7);\n            ")
	gate := f.lock("SELECT pg_advisory_xact_lock(7)")
	ctx := f.Context()
	answer := make(chan error, 1)
	go func() {
		_, err := f.services()[0].Reserve(ctx,
			reservation.Request{Lines: []reservation.Line{row}})
		answer <- err
	}()
	f.WaitForBlocked(1)
	unlock := f.Lock("SELECT FROM reservations FOR UPDATE")
	defer unlock()
	if err := gate.Rollback(ctx); err != nil {
		t.Fatal(err)
	}

	return <-answer
}

func TestALockedHoldDoesNotDelayItsMaker(t *testing.T) {
	t.Parallel()

	if err := reserveLocked(t, asBuilt); err != nil {
		t.Errorf("Reserve() of a hold that is locked = %v", err)
	}
}

// The control: a maker that doesn't skip the locked row waits for it, and in vain.
func TestALockedHoldDelaysAMakerThatWaits(t *testing.T) {
	t.Parallel()

	err := reserveLocked(t, func(f *fixture) { f.mutate("reserve_line", " SKIP LOCKED", "") })
	if !errors.Is(err, reservation.ErrUnavailable) {
		t.Errorf("Reserve() that waits for a locked hold = %v, want %v", err,
			reservation.ErrUnavailable)
	}
}
