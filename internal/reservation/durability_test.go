package reservation_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"regexp"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/allo/reservations/internal/local/pgserver"
	"github.com/allo/reservations/internal/pgtest"
	"github.com/allo/reservations/internal/reservation"
)

// ledger remembers what callers were told with success: all of it must still be so after a crash
// (I5).
type ledger struct {
	mu       sync.Mutex
	statuses map[uuid.UUID]reservation.Status
	keys     map[string]uuid.UUID
	asked    map[uuid.UUID]bool // holds that somebody has begun to resolve, whatever came of it

	target int           // how many holds are enough
	enough chan struct{} // closed when there are
}

func newLedger(target int) *ledger {
	return &ledger{
		statuses: map[uuid.UUID]reservation.Status{}, keys: map[string]uuid.UUID{}, asked: map[uuid.UUID]bool{},
		target: target, enough: make(chan struct{}),
	}
}

func (l *ledger) with(fn func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	fn()
}

// load reserves, replays, confirms and releases until the server is gone, and writes down what it
// was told.
func (l *ledger) load(
	ctx context.Context, s *reservation.Service, rows []reservation.Line, seed int,
) error {
	random := rand.New(rand.NewPCG(uint64(seed), 5))
	for {
		request := reservation.Request{
			Lines: rows[:1+random.IntN(len(rows))],
			Key:   uuid.NewString(),
		}
		answer, err := s.Reserve(ctx, request)
		if err != nil {
			return err
		}
		id := answer.Hold.ID
		l.with(func() {
			l.statuses[id], l.keys[request.Key] = reservation.Pending, id
			if len(l.statuses) == l.target {
				close(l.enough)
			}
		})
		verb, to := s.Confirm, reservation.Confirmed
		switch random.IntN(4) {
		case 0:
			continue
		case 1:
			if _, err := s.Reserve(ctx, request); err != nil {
				return err
			}
			continue
		case 2:
			verb, to = s.Release, reservation.Released
		}
		l.with(func() { l.asked[id] = true })
		if _, err := verb(ctx, id, ""); err != nil {
			return err
		}
		l.with(func() { l.statuses[id] = to })
	}
}

// lost counts what was acknowledged and isn't there.
func (l *ledger) lost(t *testing.T, f *fixture) int {
	t.Helper()
	n := 0
	for id, told := range l.statuses {
		var got reservation.Status
		const sql = "SELECT coalesce((SELECT status::text FROM reservations WHERE id = $1), 'gone')"
		if err := f.Admin.QueryRow(f.Context(), sql, id.String()).Scan(&got); err != nil {
			t.Fatal(err)
		}
		// A resolve whose answer never came may have happened or not.
		if got != told && (got == "gone" || told != reservation.Pending || !l.asked[id]) {
			n++
		}
	}
	for key, id := range l.keys {
		const sql = "SELECT coalesce((SELECT answer ->> 'id' FROM idempotency_keys WHERE key = $1), 'gone')"
		if got := queryOne[string](f, sql, key); got != id.String() {
			n++
		}
	}
	return n
}

// crash lets 16 callers work and kills the server under them. It returns how many acknowledged
// effects were lost.
func crash(
	t *testing.T,
	server *pgserver.Server,
	db pgtest.Database,
	rows []reservation.Line,
	acknowledged int,
) int {
	t.Helper()
	before := open(t, db, fewCallers)
	l := newLedger(acknowledged)
	var failures atomic.Int64
	ctx := before.Context()

	together(fewCallers+1, func(i int) {
		if i < fewCallers {
			err := l.load(ctx, newService(before.callers[i]), rows, i)
			if !errors.Is(err, reservation.ErrUnavailable) && failures.Add(1) == 1 {
				t.Errorf("a caller ended with %v, want %v", err, reservation.ErrUnavailable)
			}
			return
		}
		select {
		case <-l.enough:
		case <-ctx.Done():
		}
		if err := server.Kill(); err != nil {
			t.Errorf("kill the server: %v", err)
		}
	})

	if err := server.Restart(ctx); err != nil {
		t.Fatalf("restart the server: %v", err)
	}
	after := open(t, db, 0)
	lost := l.lost(t, after)
	after.mustAudit(t)
	return lost
}

func TestAcknowledgedHoldsSurviveKills(t *testing.T) {
	t.Parallel()

	const kills = 4
	server, db := pgtest.NewServer(t, nil)
	rows := open(t, db, 0).stocks(1_000_000, 1_000_000, 1_000_000)

	for n := range kills {
		if lost := crash(t, server, db, rows, 100*(n+1)); lost != 0 {
			t.Errorf("kill %d lost %d acknowledged effects, want none", n+1, lost)
		}
	}
}

// barrier is the statement of commit_early that makes a verb wait for the disk.
const barrier = "PERFORM pg_logical_emit_message(true, 'allo', '');"

// TestAcknowledgedHoldsAreLostWithoutTheBarrier takes the second transaction's record out of every
// procedure, so that nothing waits for the disk. The log's writer sleeps as long as it may, which
// changes nothing for those who wait.
func TestAcknowledgedHoldsAreLostWithoutTheBarrier(t *testing.T) {
	t.Parallel()

	const kills = 5
	server, db := pgtest.NewServer(t,
		map[string]string{"wal_writer_delay": "10s", "wal_writer_flush_after": "1GB"})
	f := open(t, db, 0)
	rows := f.stocks(1_000_000, 1_000_000, 1_000_000)
	f.mutate("commit_early", barrier, "NULL;")
	f.Exec("CHECKPOINT") // what the set-up wrote is not at stake

	for n := range kills {
		if lost := crash(t, server, db, rows, 300); lost != 0 {
			t.Logf("kill %d lost %d acknowledged effects, as it must", n+1, lost)
			return
		}
	}
	t.Errorf("%d kills lost nothing without the barrier, want something lost", kills)
}

// confirmWithoutBarrier confirms while another session has the lock without which the test's
// commit_early leaves its barrier out.
func confirmWithoutBarrier(f *fixture, h reservation.Hold) error {
	ctx := f.Context()
	tx, err := f.Admin.Begin(ctx)
	if err != nil {
		return err
	}
	defer tx.Rollback(ctx) // gives the lock back, and writes nothing to the log
	if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock(1)"); err != nil {
		return err
	}
	_, err = newService(f.own).Confirm(ctx, h.ID, "")
	return err
}

// lastWords reads a hold while its transaction is committed but not on disk, kills the server, and
// returns the status that is left, or "gone".
func lastWords(
	t *testing.T,
	server *pgserver.Server,
	db pgtest.Database,
	read func(*fixture, reservation.Hold) error,
) (string, error) {
	t.Helper()
	f := open(t, db, 1)
	hold := f.hold(f.stock(5))
	if err := read(f, hold); err != nil {
		return "", fmt.Errorf("read hold %s: %w", hold.ID, err)
	}
	if err := errors.Join(server.Kill(), server.Restart(f.Context())); err != nil {
		return "", err
	}
	return queryOne[string](open(t, db, 0),
		"SELECT coalesce((SELECT status::text FROM reservations WHERE id = $1), 'gone')",
		hold.ID.String()), nil
}

// The barriers are out of the first calls, so their commits aren't on disk when another caller
// learns of them. That caller's answer must wait for the disk.
func TestReadsAndRepeatsWaitForTheDisk(t *testing.T) {
	t.Parallel()

	server, db := pgtest.NewServer(t,
		map[string]string{"wal_writer_delay": "10s", "wal_writer_flush_after": "1GB"})
	f := open(t, db, 0)
	f.mutate("reserve_line", "CALL commit_early();", "PERFORM set_config('synchronous_commit', 'off', true);")
	f.mutate("commit_early", barrier,
		"IF pg_try_advisory_xact_lock_shared(1) THEN "+barrier+" END IF;")
	get := func(f *fixture, h reservation.Hold) error {
		_, err := newService(f.callers[0]).Get(f.Context(), h.ID)
		return err
	}
	confirmAndGet := func(f *fixture, h reservation.Hold) error {
		if err := confirmWithoutBarrier(f, h); err != nil {
			return err
		}
		return get(f, h)
	}
	confirmTwice := func(f *fixture, h reservation.Hold) error {
		if err := confirmWithoutBarrier(f, h); err != nil {
			return err
		}
		_, err := newService(f.callers[0]).Confirm(f.Context(), h.ID, "")
		return err
	}

	if status, err := lastWords(t, server, db, get); err != nil || status != "PENDING" {
		t.Errorf("a hold that was read before the crash is %s, %v, want PENDING", status, err)
	}
	if status, err := lastWords(t, server, db, confirmAndGet); err != nil || status != "CONFIRMED" {
		t.Errorf("a hold that was read as CONFIRMED before the crash is %s, %v, want CONFIRMED",
			status, err)
	}

	if status, err := lastWords(t, server, db, confirmTwice); err != nil || status != "CONFIRMED" {
		t.Errorf("a hold that was confirmed again before the crash is %s, %v, want CONFIRMED",
			status, err)
	}

	// The control: a read that doesn't wait tells of what a crash takes back, unless the log's
	// writer happens to wake just then.
	open(t, db, 0).mutate("read_hold", "PERFORM pg_logical_emit_message(true, 'allo', '');",
		"NULL;")
	var status string
	for n := 0; n < 3 && status != "gone"; n++ {
		var err error
		if status, err = lastWords(t, server, db, get); err != nil {
			t.Fatal(err)
		}
	}
	if status != "gone" {
		t.Errorf("without its wait a read told of a hold that is %s after the crash, want it gone",
			status)
	}
}

// TestEveryProcedureEndsInABarrier keeps a new verb from forgetting what the tests above show on
// some.
func TestEveryProcedureEndsInABarrier(t *testing.T) {
	t.Parallel()

	f := newFixture(t, 0)
	rows, err := f.Admin.Query(f.Context(), `
SELECT proname::text, pg_get_functiondef(oid) FROM pg_proc
WHERE prokind = 'p' AND pronamespace = 'public'::regnamespace AND proname <> 'commit_early'
  AND obj_description(oid, 'pg_proc') NOT LIKE '%previous_release.sql%'`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()

	// A verb ends in commit_early and commits nowhere else.
	ends := regexp.MustCompile(`(?s)IF [^;]+ THEN\s+CALL commit_early\(\);\s+` +
		`(ELSE\s+ROLLBACK;[^;]*)?END IF;\s+END \$`)
	commits := regexp.MustCompile(`(?m)^\s*COMMIT;`)
	n := 0
	for rows.Next() {
		var name, source string
		if err := rows.Scan(&name, &source); err != nil {
			t.Fatal(err)
		}
		n++
		if !ends.MatchString(source) || commits.MatchString(source) {
			t.Errorf("procedure %s doesn't end in commit_early alone", name)
		}
	}
	if err := rows.Err(); err != nil || n != 4 {
		t.Errorf("there are %d procedures, %v, want 4", n, err)
	}
}

// settleTimeout is how long a caller may take to notice that its server is gone.
const settleTimeout = 5 * time.Second

func TestCallersOfAKilledServerGetAnAnswerSoon(t *testing.T) {
	t.Parallel()

	server, db := pgtest.NewServer(t, nil)
	f := open(t, db, 1)
	row := f.stock(5)
	s := f.services()[0]
	if _, err := s.Reserve(f.Context(),
		reservation.Request{Lines: []reservation.Line{row}}); err != nil {
		t.Fatal(err)
	}
	if err := server.Kill(); err != nil {
		t.Fatal(err)
	}

	for range 2 { // once on the connection that it had, once on one that it can't make
		start := time.Now()
		_, err := s.Reserve(f.Context(), reservation.Request{Lines: []reservation.Line{row}})
		if !errors.Is(err, reservation.ErrUnavailable) || time.Since(start) > settleTimeout {
			t.Errorf("Reserve() on a killed server = %v after %s, want %v", err, time.Since(start),
				reservation.ErrUnavailable)
		}
	}
}
