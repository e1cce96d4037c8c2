package postgres_test

import (
	"context"
	"errors"
	"net"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/allo/reservations/internal/local/pgserver"
	"github.com/allo/reservations/internal/pgtest"
	"github.com/allo/reservations/internal/postgres"
)

// following is a server, a standby of it, and a reader of the standby.
type following struct {
	*testing.T
	primary, standby     *pgserver.Server
	db, followed         *pgtest.Fixture
	reader               *postgres.Reader
	mu                   sync.Mutex // guards the two below
	fallbacks            []postgres.Fallback
	found                []error
	dials                atomic.Int64
	primaryDB, standbyDB pgtest.Database
}

func newFollowing(t *testing.T, maxLag time.Duration) *following {
	t.Helper()
	f := &following{T: t}
	f.primary, f.primaryDB = pgtest.NewServer(t, nil)
	u, err := url.Parse(f.primaryDB.DirectURL)
	if err != nil {
		t.Fatal(err)
	}
	f.standby, f.standbyDB = pgtest.NewStandby(t, f.primary, f.primaryDB, u.Host)
	f.db = pgtest.NewFixtureOfSize(t, f.primaryDB, 1)
	f.followed = pgtest.NewFixtureOfSize(t, f.standbyDB, 1)
	f.open(f.standbyDB.DirectURL, maxLag)
	f.patient()
	return f
}

// patient gives the reader the time that a slow machine takes. It is for a reader whose server is
// there, and answers or refuses.
func (f *following) patient() {
	f.reader.SetPatience(time.Minute)
	f.reader.SetLimit(time.Minute)
}

// open opens the reader at a URL, with one connection.
func (f *following) open(url string, maxLag time.Duration) {
	f.Helper()
	f.openOfSize(1, url, maxLag)
}

// openOfSize opens the reader at a URL, and counts its connects.
func (f *following) openOfSize(size int, url string, maxLag time.Duration) {
	f.Helper()
	options := postgres.ReaderOptions{
		MaxLag: maxLag,
		OnFallback: func(why postgres.Fallback, err error) {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.fallbacks, f.found = append(f.fallbacks, why), append(f.found, err)
		},
	}
	reader, err := postgres.OpenReader(postgres.URL(url), size, options, func(c *pgxpool.Config) {
		dial := c.ConnConfig.DialFunc
		c.ConnConfig.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
			f.dials.Add(1)
			return dial(ctx, network, addr)
		}
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(reader.Close)
	f.reader = reader
}

// read runs a statement on the reader, and reports whether the reader answered it.
func (f *following) read(sql string) (answered bool, err error) {
	f.Helper()
	return f.reader.Fresh(f.Context(), func(ctx context.Context, p *postgres.Pool) error {
		return p.Exec(ctx, sql)
	})
}

// wantRead checks who answers a read. Without a reason it is the reader.
func (f *following) wantRead(what string, want postgres.Fallback) {
	f.Helper()
	f.fallbacks, f.found = nil, nil
	answered, err := f.read(countSQL)
	var wanted []postgres.Fallback
	if want != "" {
		wanted = append(wanted, want)
	}
	if err != nil || answered != (want == "") || !slices.Equal(f.fallbacks, wanted) {
		f.Errorf("%s the reader answered: %t, %v, because of %v %v, want %q", what, answered, err,
			f.fallbacks, f.found, want)
	}
}

// awaitReader reads until the reader answers. The queries and the server's start pace the loop.
func (f *following) awaitReader(what string) {
	f.Helper()
	f.reader.SetPause(time.Millisecond)
	ctx, cancel := context.WithTimeout(f.Context(), time.Minute)
	defer cancel()
	for answered := false; !answered; {
		if ctx.Err() != nil {
			f.Fatalf("%s the reader never answered: %v", what, f.found)
		}
		answered, _ = f.read(countSQL)
	}
	f.reader.SetPause(time.Hour)
}

// followUp waits until the standby has what the server has.
func (f *following) followUp() {
	f.Helper()
	written := pgtest.QueryOne[string](f.db, "SELECT pg_current_wal_insert_lsn()::text")
	f.followed.WaitUntil("SELECT pg_last_wal_replay_lsn() >= $1::pg_lsn", written)
}

// sinceReplay is a condition of the standby: its newest transaction is of long ago.
const sinceReplay = "SELECT clock_timestamp() - pg_last_xact_replay_timestamp() > interval '100 ms'"

// By the time of its last replayed transaction alone, a standby of an idle primary would look as if
// it lagged.
func TestAnIdlePrimaryIsNoLag(t *testing.T) {
	t.Parallel()

	f := newFollowing(t, 50*time.Millisecond)
	f.db.Exec(insertSQL)
	f.followUp()
	f.followed.WaitUntil(sinceReplay)
	f.awaitReader("while the primary is idle,")
}

func TestAReaderThatStandsStillLags(t *testing.T) {
	t.Parallel()

	f := newFollowing(t, 50*time.Millisecond)
	f.reader.SetPause(time.Hour)
	f.db.Exec(insertSQL)
	f.followUp()
	f.followed.Exec("SELECT pg_wal_replay_pause()")
	f.followed.WaitUntil("SELECT pg_get_wal_replay_pause_state() = 'paused'")
	f.db.Exec(insertSQL)
	f.followed.WaitUntil("SELECT pg_last_wal_receive_lsn() > pg_last_wal_replay_lsn()")
	f.followed.WaitUntil(sinceReplay)

	f.wantRead("while it stands still,", postgres.Lagging)
	if len(f.found) != 1 || !errors.As(f.found[0], new(*postgres.LagError)) {
		t.Errorf("the reader was found to be %v, want a LagError", f.found)
	}
	f.wantRead("a moment later,", postgres.Lagging)
	if len(f.found) != 1 || f.found[0] != nil {
		t.Errorf("a moment later it was found to be %v, want that it wasn't asked", f.found)
	}
	answered, err := f.reader.AnyAge(t.Context(), func(ctx context.Context, p *postgres.Pool) error {
		return p.Exec(ctx, countSQL)
	})
	if !answered || err != nil {
		t.Errorf("AnyAge() of a reader that lags = %t, %v, want its answer", answered, err)
	}
	f.followed.Exec("SELECT pg_wal_replay_resume()")
	f.followUp()
	f.awaitReader("once it has followed,")
}

// A standby that has applied all that it has received isn't up to date when nothing comes any more.
func TestAReaderWithoutItsPrimaryLags(t *testing.T) {
	t.Parallel()

	f := newFollowing(t, 50*time.Millisecond)
	f.reader.SetPause(time.Hour)
	f.db.Exec(insertSQL)
	f.followUp()
	f.awaitReader("while it follows,")
	if err := f.primary.Stop(); err != nil {
		t.Fatal(err)
	}
	f.followed.WaitUntil("SELECT count(*) = 0 FROM pg_stat_wal_receiver")
	f.followed.WaitUntil("SELECT pg_last_wal_replay_lsn() >= pg_last_wal_receive_lsn()")
	f.followed.WaitUntil(sinceReplay)
	f.reader.Reconnect() // so that the lag is measured anew, however soon the primary stopped
	f.wantRead("without its primary,", postgres.Lagging)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := f.primary.Restart(ctx); err != nil {
		t.Fatal(err)
	}
	f.awaitReader("with its primary again,")
}

// A dead reader costs the time of a connect once in each pause, and not for each read.
func TestADeadReaderIsLeftAloneForAWhile(t *testing.T) {
	t.Parallel()

	f := newFollowing(t, time.Hour)
	f.reader.SetPause(time.Hour)
	f.wantRead("at first", "")
	if err := f.standby.Stop(); err != nil {
		t.Fatal(err)
	}
	f.wantRead("once it has stopped,", postgres.Unreachable)
	dials := f.dials.Load()
	f.wantRead("a moment later,", postgres.Unreachable)
	if n := f.dials.Load() - dials; n != 0 {
		t.Errorf("a reader that is left alone was dialled %d times, want none", n)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := f.standby.Restart(ctx); err != nil {
		t.Fatal(err)
	}
	f.wantRead("before the pause is over,", postgres.Unreachable)
	f.awaitReader("once it is back,")
	if f.dials.Load() == dials {
		t.Error("the reader is back without a dial: the count proves nothing")
	}
}

// A proxy accepts connections and lets their queries wait while it has no reader.
func TestAReaderThatNeverAnswersCostsASecond(t *testing.T) {
	t.Parallel()

	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	f := &following{T: t}
	f.open("postgres://u@"+listener.Addr().String()+"/d?sslmode=disable", time.Hour)
	start := time.Now()
	f.wantRead("behind a socket that never answers,", postgres.Unreachable)
	if took := time.Since(start); took < 500*time.Millisecond ||
		took >= postgres.ConnectTimeout {
		t.Errorf("a reader that never answers took %s, want a second or two", took)
	}
}

// single is a reader of a database that follows nothing.
func single(t *testing.T, maxLag time.Duration) *following {
	t.Helper()
	f := &following{T: t}
	db := pgtest.New(t)
	f.db = pgtest.NewFixtureOfSize(t, db, 1)
	f.open(db.DirectURL, maxLag)
	f.patient()
	return f
}

// raise is a statement that fails with an error of Postgres.
func raise(code string) string {
	return "DO $$ BEGIN RAISE 'x' USING ERRCODE = '" + code + "'; END $$"
}

func TestWhatAReadersErrorMeans(t *testing.T) {
	t.Parallel()

	for name, c := range map[string]struct {
		sql      string
		want     postgres.Fallback
		isPaused bool
	}{
		"conflict":                 {raise("serialization_failure"), postgres.Conflict, false},
		"deadlock with the replay": {raise("deadlock_detected"), postgres.Conflict, false},
		"its session ends": {
			"SELECT pg_terminate_backend(pg_backend_pid())", postgres.Unreachable, true,
		},
		"it starts up":          {raise("cannot_connect_now"), postgres.Unreachable, true},
		"it has no memory":      {raise("out_of_memory"), postgres.Unreachable, true},
		"a table is missing":    {"SELECT FROM not_there", postgres.Schema, true},
		"a column is missing":   {"SELECT not_there FROM products", postgres.Schema, true},
		"a routine is missing":  {"SELECT not_there()", postgres.Schema, true},
		"a right is missing":    {raise("insufficient_privilege"), postgres.Schema, true},
		"the statement is slow": {raise("query_canceled"), "", false},
		"the statement is bad":  {"SELECT 1 / 0", "", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			f := single(t, time.Hour)
			f.reader.SetPause(time.Hour)
			answered, err := f.read(c.sql)
			if answered != (c.want == "") || answered != (err != nil) {
				t.Errorf("Fresh() = %t, %v, because of %v, want %q", answered, err, f.fallbacks, c.want)
			}
			if c.want != "" && !slices.Equal(f.fallbacks, []postgres.Fallback{c.want}) {
				t.Errorf("the read fell back because of %v, want %s", f.fallbacks, c.want)
			}
			next := postgres.Fallback("")
			if c.isPaused {
				next = c.want
			}
			f.wantRead("after that", next)
		})
	}
}

// A reader that has too much to do mustn't lead its load to the writer.
func TestASlowReadIsNotRepeatedOnTheWriter(t *testing.T) {
	t.Parallel()

	f := single(t, time.Hour)
	f.reader.SetLimit(100 * time.Millisecond)
	answered, err := f.read("SELECT pg_sleep(60)")
	if !answered || !postgres.HasCode(err, "57014") || !postgres.Unavailable(err) {
		t.Errorf("Fresh() of a slow read = %t, %v, want its error", answered, err)
	}
	f.reader.SetLimit(time.Minute)
	f.wantRead("after that", "")
}

// readAtOnce lets n callers read at once. It returns for which reasons how many of their reads fell
// back, and what was found.
func (f *following) readAtOnce(n int) (reasons map[postgres.Fallback]int, found []error) {
	f.Helper()
	f.fallbacks, f.found = nil, nil
	var all sync.WaitGroup
	for range n {
		all.Go(func() {
			if _, err := f.read(countSQL); err != nil {
				f.Errorf("a read of many = %v, want the reader's answer or the writer's", err)
			}
		})
	}
	all.Wait()
	reasons = map[postgres.Fallback]int{}
	for _, why := range f.fallbacks {
		reasons[why]++
	}
	return reasons, f.found
}

// A process with many callers may have a full pool. The reader works all the same, so the read that
// found no connection is the only one for the writer.
func TestAFullPoolIsNotTakenForADeadReader(t *testing.T) {
	t.Parallel()

	f := single(t, time.Hour)
	f.reader.SetPause(time.Hour)
	f.wantRead("at first", "")
	f.withTheConnection(func() {
		f.reader.SetPatience(time.Second)
		f.wantRead("while another caller has the only connection,", postgres.Busy)
		if len(f.found) != 1 || errors.Is(f.found[0], postgres.ErrSaturated) {
			t.Errorf("the read fell back because of %v, want that its time was over", f.found)
		}
	})
	f.reader.SetPatience(time.Minute)
	f.wantRead("once the connection is free,", "")
}

// Few callers wait for a full pool. The others read on the writer at once, however long those wait.
func TestFewCallersWaitForAFullPool(t *testing.T) {
	t.Parallel()

	const others = 20
	f := single(t, time.Hour)
	f.wantRead("at first", "")
	var waiting sync.WaitGroup
	f.withTheConnection(func() {
		for range postgres.ReaderQueue {
			waiting.Go(func() {
				if answered, err := f.read(countSQL); !answered || err != nil {
					t.Errorf("a read that waited = %t, %v, want the reader's answer", answered, err)
				}
			})
		}
		await(t, "the queue is full", func() bool { return f.reader.Waiting() == postgres.ReaderQueue })
		reasons, found := f.readAtOnce(others)
		if len(reasons) != 1 || reasons[postgres.Busy] != others {
			t.Errorf("%d reads of a full pool fell back because of %v", others, reasons)
		}
		for _, err := range found {
			if !errors.Is(err, postgres.ErrSaturated) {
				t.Errorf("a read fell back because of %v, want that the queue was full", err)
			}
		}
	})
	waiting.Wait()
}

// withTheConnection calls do while a caller has the reader's only connection.
func (f *following) withTheConnection(do func()) {
	f.Helper()
	answered, err := f.reader.AnyAge(f.Context(), func(ctx context.Context, p *postgres.Pool) error {
		return p.Transaction(ctx, pgx.TxOptions{}, func(pgx.Tx) error {
			do()
			return nil
		})
	})
	if !answered || err != nil {
		f.Errorf("the read with the connection = %t, %v, want the reader's answer", answered, err)
	}
}

// await waits until a condition holds.
func await(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !holds(); {
		if time.Now().After(deadline) {
			t.Fatalf("it isn't true within a minute that %s", what)
		}
		<-time.After(time.Millisecond)
	}
}

// The control: the callers of a dead reader wait for a connection too, and nobody has one.
func TestADeadReaderIsNotTakenForAFullPool(t *testing.T) {
	t.Parallel()

	const size = 4
	const callers = postgres.ReaderQueue * size
	f := &following{T: t}
	f.openOfSize(size, "postgres://u@"+listenSilently(t)+"/d?sslmode=disable", time.Hour)
	f.reader.SetPause(time.Hour)
	if reasons, _ := f.readAtOnce(callers); reasons[postgres.Unreachable] != callers {
		t.Errorf("%d reads of a dead reader fell back because of %v", callers, reasons)
	}
	f.wantRead("after that", postgres.Unreachable)
}

// A caller whose ping gets no answer has met a dead reader, although another one has a connection.
func TestAPingWithoutAnAnswerIsNoFullPool(t *testing.T) {
	t.Parallel()

	network := newNetwork(t, pgtest.New(t).DirectURL)
	f := &following{T: t}
	f.openOfSize(2, network.url, time.Hour)
	f.patient()
	f.reader.SetPause(time.Hour)
	f.reader.SetPingAfter(0)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	_, err := f.reader.AnyAge(ctx, func(ctx context.Context, p *postgres.Pool) error {
		return p.Transaction(ctx, pgx.TxOptions{}, func(pgx.Tx) error {
			f.wantRead("while another caller has a connection,", "")
			network.forget()
			f.reader.SetPatience(time.Second)
			f.wantRead("once the network has died,", postgres.Unreachable)
			cancel()
			return nil
		})
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("the transaction on the dead network = %v, want that its caller gave up", err)
	}
}

func TestACallerWhoGivesUpDoesNotReadOnTheWriter(t *testing.T) {
	t.Parallel()

	f := single(t, time.Hour)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	answered, err := f.reader.Fresh(ctx, func(ctx context.Context, p *postgres.Pool) error {
		return p.Exec(ctx, countSQL)
	})
	if !answered || !postgres.Unavailable(err) || len(f.fallbacks) != 0 {
		t.Errorf("Fresh() of a caller who gave up = %t, %v, and %v", answered, err, f.fallbacks)
	}
	f.wantRead("after that", "")
}

func TestWithoutAReaderTheWriterAnswers(t *testing.T) {
	t.Parallel()

	var none *postgres.Reader
	answered, err := none.Fresh(t.Context(), func(context.Context, *postgres.Pool) error {
		return errors.New("there is no reader")
	})
	if answered || err != nil {
		t.Errorf("Fresh() without a reader = %t, %v, want that it answers nothing", answered, err)
	}
	none.Close()
}

// auroraSQL makes the functions by which an instance of Aurora tells its lag, as the Amazon Aurora
// User Guide has them. The instance is named by a setting of the database.
const auroraSQL = `
CREATE TABLE replica_status (server_id text, session_id text, replica_lag_in_msec double precision);
CREATE FUNCTION aurora_replica_status() RETURNS SETOF replica_status
LANGUAGE sql AS $$ SELECT * FROM replica_status $$;
CREATE FUNCTION aurora_db_instance_identifier() RETURNS varchar
LANGUAGE sql AS $$ SELECT 'two'::varchar $$;
INSERT INTO replica_status VALUES ('one', 'MASTER_SESSION_ID', NULL), ('three', 'c', 1)`

func TestAuroraTellsTheLagOfItsInstance(t *testing.T) {
	t.Parallel()

	for name, c := range map[string]struct {
		own  string
		want postgres.Fallback
	}{
		"a reader":                 {`('two', 'b', 19)`, ""},
		"a reader that lags":       {`('two', 'b', 1001)`, postgres.Lagging},
		"a reader without a lag":   {`('two', 'b', NULL)`, postgres.Lagging},
		"the writer":               {`('two', 'MASTER_SESSION_ID', NULL)`, ""},
		"an instance without rows": {`('four', 'd', 1)`, postgres.Lagging},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			f := single(t, time.Second)
			f.db.Exec(auroraSQL)
			f.db.Exec("INSERT INTO replica_status VALUES " + c.own)
			f.wantRead(name, c.want)
		})
	}
}

// The lag is measured anew when the reader could have fallen too far behind since the last time.
func TestALagIsTrustedForTheRestOfTheBound(t *testing.T) {
	t.Parallel()

	const maxLag, lag = 6 * time.Second, 4 * time.Second
	f := single(t, maxLag)
	f.db.Exec(auroraSQL)
	f.db.Exec("INSERT INTO replica_status VALUES ('two', 'b', $1)", float64(lag.Milliseconds()))
	start := time.Now()
	f.wantRead("with a lag below the bound,", "")
	f.db.Exec("UPDATE replica_status SET replica_lag_in_msec = 60000")
	reads := 0
	took := time.Since(start)
	for answered := true; answered && took < 5*maxLag; reads++ {
		answered, _ = f.read(countSQL)
		took = time.Since(start)
	}
	if took < maxLag-lag || took >= maxLag {
		t.Errorf("the reader was trusted for %s, want %s", took, maxLag-lag)
	}
	if reads < 2 || !slices.Equal(f.fallbacks, []postgres.Fallback{postgres.Lagging}) {
		t.Errorf("the reader answered %d reads in that time, and then fell back because of %v", reads,
			f.fallbacks)
	}
}

// A new connection may lead to another server, which nobody has asked yet.
func TestANewConnectionsLagIsMeasured(t *testing.T) {
	t.Parallel()

	f := single(t, time.Hour)
	f.db.Exec(auroraSQL)
	f.db.Exec("INSERT INTO replica_status VALUES ('two', 'b', 0)")
	f.wantRead("without a lag,", "")
	f.db.Exec("UPDATE replica_status SET replica_lag_in_msec = $1",
		float64((2 * time.Hour).Milliseconds()))
	f.wantRead("on the connection that was measured,", "")
	f.reader.Reconnect()
	f.wantRead("on a new connection,", postgres.Lagging)
}
