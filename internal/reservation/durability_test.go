package reservation_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/allo/reservations/internal/local/pgserver"
	"github.com/allo/reservations/internal/pgtest"
	"github.com/allo/reservations/internal/reservation"
)

// ledger records the successful answers of all callers. After a crash the database must still agree
// with each of them (I5).
type ledger struct {
	mu        sync.Mutex
	statuses  map[uuid.UUID]reservation.Status
	keys      map[string]uuid.UUID
	resolving map[uuid.UUID]bool // the holds for which a confirm or a release was sent

	target int           // how many holds to make before the crash
	enough chan struct{} // closed when the target is reached
}

func newLedger(target int) *ledger {
	return &ledger{
		statuses:  map[uuid.UUID]reservation.Status{},
		keys:      map[string]uuid.UUID{},
		resolving: map[uuid.UUID]bool{},
		target:    target,
		enough:    make(chan struct{}),
	}
}

func (l *ledger) with(fn func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	fn()
}

// load reserves, replays, confirms and releases until a call fails, and records each success.
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
		l.with(func() { l.resolving[id] = true })
		if _, err := verb(ctx, id, ""); err != nil {
			return err
		}
		l.with(func() { l.statuses[id] = to })
	}
}

const (
	statusOrGoneSQL = "SELECT coalesce((SELECT status::text FROM reservations WHERE id = $1), 'gone')"
	answerOrGoneSQL = `
SELECT coalesce((SELECT answer ->> 'id' FROM idempotency_keys WHERE key = $1), 'gone')`
)

// lost counts the acknowledged holds and answers that the database doesn't have any more.
func (l *ledger) lost(t *testing.T, f *fixture) int {
	t.Helper()
	n := 0
	for id, acknowledged := range l.statuses {
		var got reservation.Status
		if err := f.Admin.QueryRow(f.Context(), statusOrGoneSQL, id.String()).Scan(&got); err != nil {
			t.Fatal(err)
		}
		// A confirm or release without an answer may have taken effect or not.
		unanswered := acknowledged == reservation.Pending && l.resolving[id]
		if got != acknowledged && (got == "gone" || !unanswered) {
			n++
		}
	}
	for key, id := range l.keys {
		if got := queryOne[string](f, answerOrGoneSQL, key); got != id.String() {
			n++
		}
	}
	return n
}

// crash lets 16 callers work, kills the server when they have made enough holds, and restarts it.
// It returns how many acknowledged effects were lost.
func crash(
	t *testing.T, server *pgserver.Server, db pgtest.Database, rows []reservation.Line, holds int,
) int {
	t.Helper()
	before := open(t, db, fewCallers)
	l := newLedger(holds)
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

// logRecord is the statement that makes a verb's second commit wait for the disk. In reserve_line
// it is ownLock. When ownLock locks nothing, and after a replay, it is logRecord there too.
// readRecord makes the answer of a read wait.
const (
	logRecord  = "_ignored := write_log_record();"
	ownLock    = "PERFORM FROM reservations r WHERE r.ctid = _place FOR KEY SHARE SKIP LOCKED;"
	readRecord = "PERFORM write_log_record();"
)

// withoutLogRecords lets the second commit of each verb wait for nothing.
func (f *fixture) withoutLogRecords() {
	f.t.Helper()
	f.mutate("write_log_record", "setval('log_records', 1)", "NULL::bigint")
	f.mutate("reserve_line", ownLock, "")
}

// lazyWriter makes Postgres's log writer sleep for as long as it can, and no commit of autovacuum
// flushes the log. A commit that doesn't wait for the disk is then lost in a crash. A commit that
// waits is flushed at once.
var lazyWriter = map[string]string{
	"wal_writer_delay": "10s", "wal_writer_flush_after": "1GB", "autovacuum": "off",
}

// Without the second transaction's record its commit waits for nothing.
func TestAcknowledgedHoldsAreLostWithoutTheLogRecord(t *testing.T) {
	t.Parallel()

	const kills = 5
	server, db := pgtest.NewServer(t, lazyWriter)
	f := open(t, db, 0)
	rows := f.stocks(1_000_000, 1_000_000, 1_000_000)
	f.withoutLogRecords()
	f.Exec("CHECKPOINT") // so that no crash loses the set-up

	for n := range kills {
		if lost := crash(t, server, db, rows, 300); lost != 0 {
			t.Logf("kill %d lost %d acknowledged effects, as expected", n+1, lost)
			return
		}
	}
	t.Errorf("%d kills lost nothing without the log record, want a loss", kills)
}

// confirmWithoutFlush confirms while another session holds advisory lock 1. The mutated
// resolve_hold of [TestReadsAndRepeatedConfirmsWaitForTheDisk] then writes no log record.
func confirmWithoutFlush(f *fixture, h reservation.Hold) error {
	ctx := f.Context()
	tx, err := f.Admin.Begin(ctx)
	if err != nil {
		return err
	}
	defer tx.Rollback(ctx) // releases the lock, and writes nothing to the log
	if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock(1)"); err != nil {
		return err
	}
	_, err = newService(f.own).Confirm(ctx, h.ID, "")
	return err
}

// readAndCrash makes a hold whose commit isn't on disk yet, reads it, and kills the server. It
// returns the hold's status after the restart, or "gone".
func readAndCrash(
	t *testing.T, server *pgserver.Server, db pgtest.Database,
	read func(*fixture, reservation.Hold) error,
) (string, error) {
	t.Helper()
	f := open(t, db, 1)
	f.StopLogWriter()
	hold := f.hold(f.stock(5))
	if err := read(f, hold); err != nil {
		return "", fmt.Errorf("read hold %s: %w", hold.ID, err)
	}
	if err := errors.Join(server.Kill(), server.Restart(f.Context())); err != nil {
		return "", err
	}
	return queryOne[string](open(t, db, 0), statusOrGoneSQL, hold.ID.String()), nil
}

// The first calls don't wait for the disk, so their commits aren't on disk when another caller sees
// their effect. That caller's answer must wait for the disk.
func TestReadsAndRepeatedConfirmsWaitForTheDisk(t *testing.T) {
	t.Parallel()

	server, db := pgtest.NewServer(t, lazyWriter)
	f := open(t, db, 0)
	f.mutate("reserve_line", ownLock, "")
	f.mutate("reserve_line", logRecord, "NULL;")
	f.mutate("resolve_hold", logRecord,
		"IF pg_try_advisory_xact_lock_shared(1) THEN "+logRecord+" END IF;")
	get := func(f *fixture, h reservation.Hold) error {
		_, err := newService(f.callers[0]).Get(f.Context(), h.ID)
		return err
	}
	confirmAndGet := func(f *fixture, h reservation.Hold) error {
		if err := confirmWithoutFlush(f, h); err != nil {
			return err
		}
		return get(f, h)
	}
	confirmTwice := func(f *fixture, h reservation.Hold) error {
		if err := confirmWithoutFlush(f, h); err != nil {
			return err
		}
		_, err := newService(f.callers[0]).Confirm(f.Context(), h.ID, "")
		return err
	}

	// A flush covers all that was committed before it, so the replay saves the hold too.
	replay := func(f *fixture, h reservation.Hold) error {
		request := reservation.Request{Lines: h.Lines, TTL: maxHold, Key: uuid.NewString()}
		_, first := newService(f.own).Reserve(f.Context(), request)
		lowered := reservation.New(f.callers[0],
			reservation.Options{HoldTTL: holdTTL, MaxHold: holdTTL})
		_, again := lowered.Reserve(f.Context(), request)
		return errors.Join(first, again)
	}

	if status, err := readAndCrash(t, server, db, replay); err != nil || status != "PENDING" {
		t.Errorf("a hold is %s, %v after a replay and a crash, want PENDING", status, err)
	}
	if status, err := readAndCrash(t, server, db, get); err != nil || status != "PENDING" {
		t.Errorf("a hold that was read before the crash is %s, %v, want PENDING", status, err)
	}
	if status, err := readAndCrash(t, server, db, confirmAndGet); err != nil || status != "CONFIRMED" {
		t.Errorf("a hold that was read as CONFIRMED before the crash is %s, %v, want CONFIRMED",
			status, err)
	}

	if status, err := readAndCrash(t, server, db, confirmTwice); err != nil || status != "CONFIRMED" {
		t.Errorf("a hold that was confirmed again before the crash is %s, %v, want CONFIRMED",
			status, err)
	}

	// The control: a read that doesn't wait shows a hold that the crash undoes.
	for routine, read := range map[string]func(*fixture, reservation.Hold) error{
		"read_hold": get, "replay_answer": replay,
	} {
		open(t, db, 0).mutate(routine, readRecord, "NULL;")
		status, err := readAndCrash(t, server, db, read)
		if err != nil {
			t.Fatal(err)
		}
		if status != "gone" {
			t.Errorf("after a %s without a wait and a crash, the hold is %s, want it gone", routine,
				status)
		}
	}
}

// The tests above show durability for some verbs. This one checks that no verb, present or future,
// commits in another way.
func TestEveryVerbEndsInTwoCommits(t *testing.T) {
	t.Parallel()

	f := newFixture(t, 0)
	rows, err := f.Admin.Query(f.Context(), `
SELECT proname::text, pg_get_functiondef(oid) FROM pg_proc
WHERE prokind = 'p' AND pronamespace = 'public'::regnamespace
  -- a step of a verb, whose caller is told nothing
  AND proname NOT IN ('free_units', 'await_units', 'await_units_of_hold')
  -- a step of a catalog write, which waits at its own end
  AND proname NOT IN ('follow_busy_row', 'await_limited_reserves')
  AND obj_description(oid, 'pg_proc') NOT LIKE '%previous_release.sql%'`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()

	const withParty = `((IF [^;]+ THEN\s+)?answer := with_party\(answer\);\s+(END IF;\s+)?)?`
	ends := regexp.MustCompile(`(?s)IF [^;]+ THEN\s+` + withParty +
		`COMMIT;\s+_ignored := write_log_record\(\);\s+` +
		`(ELSE\s+ROLLBACK;[^;]*IF (_payment IS NOT NULL OR )?` +
		`NOT hold_is_flushed\((_id|_replaces)\) THEN\s+_ignored := write_log_record\(\);` +
		`[^;]*END IF;\s+)?END IF;\s+END \$`)
	// A new hold of one line flushes the lock of its row, and the verb returns. Of the successes
	// only a replay comes to the end.
	endsLine := regexp.MustCompile(`(?s)COMMIT;\s+` + regexp.QuoteMeta(ownLock) +
		`\s+IF NOT FOUND THEN\s+_ignored := write_log_record\(\);\s+END IF;\s+RETURN;.*` +
		`IF outcome = 'REPLAYED' THEN\s+COMMIT;\s+_ignored := write_log_record\(\);\s+END IF;` +
		`\s+END \$`)
	// A document of movements commits each line, and waits once, at its end.
	endsDocument := regexp.MustCompile(`(?s)IF NOT _together THEN\s+COMMIT;\s+END IF;.*` +
		`\s+COMMIT;\s+_ignored := write_log_record\(\);\s+END \$`)
	// A refused return tells of a confirm or a return before, so it waits too.
	endsReturn := regexp.MustCompile(`(?s)THEN\s+` + withParty +
		`COMMIT;\s+ELSE\s+ROLLBACK;[^;]*END IF;` +
		`\s+_ignored := write_log_record\(\);[^;]*END \$`)
	commits := regexp.MustCompile(`(?m)^\s*COMMIT;`)
	const doesNotWait = "_ignored := set_config('synchronous_commit', 'off', true);"
	n := 0
	for rows.Next() {
		var name, source string
		if err := rows.Scan(&name, &source); err != nil {
			t.Fatal(err)
		}
		n++
		end, most := ends, 1
		switch name {
		case "reserve_line":
			end, most = endsLine, 2
		case "move_stock":
			end, most = endsDocument, 2
		case "return_goods":
			end = endsReturn
		}
		if !end.MatchString(source) || len(commits.FindAllString(source, -1)) != most ||
			!strings.Contains(source, doesNotWait) {
			t.Errorf("procedure %s doesn't end in its two commits, or commits before them", name)
		}
	}
	if err := rows.Err(); err != nil || n != 7 {
		t.Errorf("there are %d procedures, %v, want 7", n, err)
	}
}

// noticeTimeout bounds the time in which a caller must notice that its server is gone. A connect
// may take 5 s, and a call that notices nothing takes the test's minute.
const noticeTimeout = 10 * time.Second

func TestCallersOfAKilledServerGetAnErrorSoon(t *testing.T) {
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

	for range 2 { // the first uses the open connection, the second has to connect
		start := time.Now()
		_, err := s.Reserve(f.Context(), reservation.Request{Lines: []reservation.Line{row}})
		if !errors.Is(err, reservation.ErrUnavailable) || time.Since(start) > noticeTimeout {
			t.Errorf("Reserve() on a killed server = %v after %s, want %v", err, time.Since(start),
				reservation.ErrUnavailable)
		}
	}
}
