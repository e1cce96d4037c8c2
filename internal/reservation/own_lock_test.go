package reservation_test

import (
	"errors"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/allo/reservations/internal/pgtest"
	"github.com/allo/reservations/internal/reservation"
)

// newHoldSQL reads the hold that its maker has locked after the first commit.
const newHoldSQL = "SELECT id FROM reservations WHERE status = 'PENDING' AND xmax <> '0'"

// confirmDuringAStall confirms a hold while its maker waits for a disk that stalls. It returns
// whether the confirm had its first commit before the disk went on.
func confirmDuringAStall(t *testing.T, change func(*fixture)) bool {
	t.Helper()
	server, db := pgtest.NewDisturbedServer(t, nil)
	f := open(t, db, 2)
	row := f.stock(2)
	change(f)
	maker, other := f.services()[0], f.services()[1]
	warmed, err := maker.Reserve(f.Context(), reservation.Request{Lines: []reservation.Line{row}})
	if err == nil {
		_, err = other.Confirm(f.Context(), warmed.Hold.ID, "")
	}
	if err != nil {
		t.Fatal(err)
	}

	server.StallDisk()
	answers := make(chan error, 2)
	go func() {
		_, err := maker.Reserve(f.Context(), reservation.Request{Lines: []reservation.Line{row}})
		answers <- err
	}()
	f.WaitUntil("SELECT EXISTS (" + newHoldSQL + ")")
	id := uuid.MustParse(queryOne[string](f, newHoldSQL))
	go func() {
		_, err := other.Confirm(f.Context(), id, "")
		answers <- err
	}()
	const confirmed = "SELECT count(*) FILTER (WHERE status = 'CONFIRMED') = 2 FROM reservations"
	const blocked = `SELECT EXISTS (SELECT FROM pg_stat_activity
WHERE datname = current_database() AND wait_event_type = 'Lock')`
	f.WaitUntil("SELECT (" + confirmed + ") OR (" + blocked + ")")
	wasConfirmed := queryOne[bool](f, confirmed)
	server.ResumeDisk()
	if err := errors.Join(<-answers, <-answers); err != nil {
		t.Error(err)
	}
	f.mustAudit(t)
	return wasConfirmed
}

func TestAConfirmDoesNotWaitForTheFlushOfTheReserve(t *testing.T) {
	t.Parallel()

	if !confirmDuringAStall(t, func(*fixture) {}) {
		t.Error("the confirm waited for the lock of the hold's maker")
	}
}

// The control: with a stronger lock it waits.
func TestAConfirmWaitsForAReserveThatLocksForUpdate(t *testing.T) {
	t.Parallel()

	if confirmDuringAStall(t, func(f *fixture) {
		f.mutate("reserve_line", "FOR KEY SHARE SKIP LOCKED", "FOR UPDATE SKIP LOCKED")
	}) {
		t.Error("the confirm didn't wait for a lock FOR UPDATE")
	}
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
	answer := make(chan error, 1)
	go func() {
		_, err := s.Reserve(f.Context(), request)
		answer <- err
	}()
	f.WaitForBlocked(1)
	unlock := make(chan func(), 1)
	go func() { unlock <- f.Lock("LOCK TABLE reservations IN ACCESS EXCLUSIVE MODE") }()
	f.WaitForBlocked(2)
	if err := stock.Rollback(f.Context()); err != nil {
		t.Fatal(err)
	}

	release := <-unlock
	err := <-answer
	release()

	if !errors.Is(err, reservation.ErrUnavailable) || errors.Is(err, reservation.ErrBusy) {
		t.Errorf("Reserve() = %v, want %v", err, reservation.ErrUnavailable)
	}
	again, err := s.Reserve(f.Context(), request)
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
	f.mutate("reserve_line", "COMMIT;\n            PERFORM FROM", "COMMIT;\n"+
		"            PERFORM pg_advisory_xact_lock(7);\n            PERFORM FROM")
	gate := f.lock("SELECT pg_advisory_xact_lock(7)")
	answer := make(chan error, 1)
	go func() {
		_, err := f.services()[0].Reserve(f.Context(),
			reservation.Request{Lines: []reservation.Line{row}})
		answer <- err
	}()
	f.WaitForBlocked(1)
	unlock := f.Lock("SELECT FROM reservations FOR UPDATE")
	defer unlock()
	if err := gate.Rollback(f.Context()); err != nil {
		t.Fatal(err)
	}

	return <-answer
}

func TestALockedHoldDoesNotDelayItsMaker(t *testing.T) {
	t.Parallel()

	if err := reserveLocked(t, func(*fixture) {}); err != nil {
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
