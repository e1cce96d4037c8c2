package reservation_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/allo/reservations/internal/pgtest"
	"github.com/allo/reservations/internal/reservation"
)

// burned is how many transactions the tests begin after something that keeps dead versions.
const burned = 500

// burnSQL begins and ends that many transactions. None writes anything.
const burnSQL = `
DO $$ BEGIN
    FOR i IN 1..%d LOOP
        PERFORM pg_current_xact_id();
        COMMIT;
    END LOOP;
END $$`

// keeper is something that may keep dead row versions.
type keeper struct {
	// start begins it and returns its end.
	start func(f *fixture) (end func())
	// want tells whether it keeps versions, and hasAge whether its age is known.
	want, hasAge bool
	// old and replacement mutate read_horizon, so that it is wrong about the keeper.
	old, replacement string
}

var keepers = map[string]keeper{
	"a session's snapshot": {
		start: inSession("", "BEGIN ISOLATION LEVEL REPEATABLE READ", "SELECT 1"),
		want:  true, hasAge: true,
		old: "(a.backend_xmin), (a.backend_xid)", replacement: "(a.backend_xid)",
	},
	"a session that has written": {
		start: inSession("", "BEGIN", "SELECT pg_current_xact_id()"),
		want:  true, hasAge: true,
		old: "(a.backend_xmin), (a.backend_xid)", replacement: "(a.backend_xmin)",
	},
	"a session's age": {
		start: inSession("", "BEGIN ISOLATION LEVEL REPEATABLE READ", "SELECT 1"),
		want:  true, hasAge: true,
		old: "_now - min(h.since)", replacement: "_now - _now",
	},
	"a prepared transaction": {
		start: func(f *fixture) func() {
			conn := connectTo(f, "")
			execAll(f, conn, "BEGIN", "SELECT pg_current_xact_id()", "PREPARE TRANSACTION 'p'")
			return func() { execAll(f, conn, "ROLLBACK PREPARED 'p'") }
		},
		want: true, hasAge: true,
		old: "WHERE p.database = current_database()", replacement: "WHERE false",
	},
	"a replica": {
		start: func(f *fixture) func() { return replicate(f, "") },
		want:  true,
		old:   "OR a.datid IS NULL", replacement: "",
	},
	"a replica with a slot": {
		start: func(f *fixture) func() {
			f.Exec("SELECT pg_create_physical_replication_slot('replica')")
			end := replicate(f, "SLOT replica")
			return func() {
				end()
				f.WaitUntil("SELECT NOT active FROM pg_replication_slots")
				f.Exec("SELECT pg_drop_replication_slot('replica')")
			}
		},
		want: true,
		old:  "NULL, s.xmin", replacement: "NULL, NULL::xid",
	},
	"a reader of Aurora": {
		start: auroraReader,
		want:  true,
		old:   "greatest(transactions, _reader)", replacement: "transactions",
	},
	"a session of another database": {
		start: inSession("another", "BEGIN ISOLATION LEVEL REPEATABLE READ", "SELECT 1"),
		old:   "a.datname = current_database()", replacement: "true",
	},
	"a running vacuum": {
		start: vacuum,
		old:   "AND a.pid NOT IN (SELECT v.pid FROM pg_stat_progress_vacuum v)", replacement: "",
	},
}

func TestTheHorizonSeesWhatKeepsDeadVersions(t *testing.T) {
	t.Parallel()

	_, db := pgtest.NewServer(t, map[string]string{
		"max_prepared_transactions": "2", "autovacuum": "off",
	})
	f := open(t, db, 1)
	f.Exec("CREATE DATABASE another")
	f.Exec("CREATE TABLE pages AS SELECT repeat('x', 4000) FROM generate_series(1, 200)")
	source := queryOne[string](f, "SELECT pg_get_functiondef('read_horizon'::regproc)")
	for name, k := range keepers {
		if problem := checkHorizon(f, k); problem != "" {
			t.Errorf("%s: %s", name, problem)
		}
		// This is the control.
		pgtest.Mutate(t, db, "read_horizon", k.old, k.replacement)
		if checkHorizon(f, k) == "" {
			t.Errorf("%s: the test accepts a read_horizon without %q", name, k.old)
		}
		f.Exec(source)
	}
	if h, err := f.services()[0].Horizon(f.Context()); err != nil || !h.Complete ||
		h.Transactions != 0 || h.Oldest != 0 {
		t.Errorf("Horizon() without a keeper = %+v, %v, want zeros from all sessions", h, err)
	}
}

// checkHorizon says what is wrong about the horizon while the keeper is there, or "".
func checkHorizon(f *fixture, k keeper) (problem string) {
	f.t.Helper()
	const clock = "SELECT clock_timestamp()"
	earliest := queryOne[time.Time](f, clock)
	end := k.start(f)
	defer end()
	latest := queryOne[time.Time](f, clock)
	f.Exec(fmt.Sprintf(burnSQL, burned))
	before := queryOne[time.Time](f, clock)
	h, err := f.services()[0].Horizon(f.Context())
	after := queryOne[time.Time](f, clock)
	if err != nil {
		f.t.Fatal(err)
	}
	least, most := before.Sub(latest), after.Sub(earliest)
	switch {
	case (h.Transactions >= burned) != k.want:
		return fmt.Sprintf("it keeps %d transactions, want %d or more: %t",
			h.Transactions, burned, k.want)
	case k.hasAge && (h.Oldest < least-time.Microsecond || h.Oldest > most+time.Microsecond):
		return fmt.Sprintf("its age is %s, want %s to %s", h.Oldest, least, most)
	case !k.hasAge && h.Oldest != 0:
		return fmt.Sprintf("its age is %s, want 0", h.Oldest)
	}
	return ""
}

// inSession starts a session of a database, the test's if empty, that runs statements and idles.
func inSession(database string, statements ...string) func(f *fixture) func() {
	return func(f *fixture) func() {
		conn := connectTo(f, database)
		execAll(f, conn, statements...)
		return func() { closeConn(f, conn.PgConn()) }
	}
}

// connectTo opens a connection of the test's own.
func connectTo(f *fixture, database string) *pgx.Conn {
	f.t.Helper()
	config, err := pgx.ParseConfig(f.DirectURL)
	if err != nil {
		f.t.Fatal(err)
	}
	if database != "" {
		config.Database = database
	}
	conn, err := pgx.ConnectConfig(f.Context(), config)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

func execAll(f *fixture, conn *pgx.Conn, statements ...string) {
	f.t.Helper()
	for _, statement := range statements {
		if _, err := conn.Exec(f.Context(), statement); err != nil {
			f.t.Fatalf("%s: %v", statement, err)
		}
	}
}

// closeConn closes a connection and waits until its session is gone.
func closeConn(f *fixture, conn *pgconn.PgConn) {
	f.t.Helper()
	_ = conn.Close(context.Background())
	f.WaitUntil("SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = $1", int32(conn.PID()))
}

// replicate does what a replica does whose oldest snapshot is of this moment: it streams the log
// and sends its horizon to the server.
func replicate(f *fixture, slot string) (end func()) {
	f.t.Helper()
	config, err := pgconn.ParseConfig(f.DirectURL)
	if err != nil {
		f.t.Fatal(err)
	}
	config.RuntimeParams["replication"] = "true"
	conn, err := pgconn.ConnectConfig(f.Context(), config)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { _ = conn.Close(context.Background()) })
	lsn := queryOne[string](f, "SELECT pg_current_wal_flush_lsn()::text")
	xmin := queryOne[int64](f, "SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint")

	// The message has the clock, and then an xmin and an epoch, of the tables and of the catalog.
	feedback := make([]byte, 1, 25)
	feedback[0] = 'h'
	feedback = binary.BigEndian.AppendUint64(feedback, 0)
	feedback = binary.BigEndian.AppendUint32(feedback, uint32(xmin))
	feedback = binary.BigEndian.AppendUint32(feedback, uint32(xmin>>32))
	feedback = binary.BigEndian.AppendUint64(feedback, 0)
	frontend := conn.Frontend()
	frontend.SendQuery(&pgproto3.Query{
		String: strings.Join([]string{"START_REPLICATION", slot, "PHYSICAL", lsn}, " "),
	})
	frontend.Send(&pgproto3.CopyData{Data: feedback})
	if err := frontend.Flush(); err != nil {
		f.t.Fatal(err)
	}
	f.WaitUntil(`
SELECT (SELECT count(backend_xmin) FROM pg_stat_replication)
     + (SELECT count(xmin) FROM pg_replication_slots) > 0`)
	return func() { closeConn(f, conn) }
}

// auroraReader makes Aurora's function, as it would show a reader with a snapshot of this moment.
func auroraReader(f *fixture) (end func()) {
	conn := connectTo(f, "")
	xmin := queryOne[string](f, "SELECT pg_snapshot_xmin(pg_current_snapshot())::text")
	execAll(f, conn, "SET allow_system_table_mods = on", `
CREATE FUNCTION pg_catalog.aurora_replica_status(OUT server_id text, OUT feedback_xmin bigint)
RETURNS SETOF record LANGUAGE sql AS 'VALUES (''writer'', 0), (''reader'', `+xmin+`)'`)
	return func() {
		execAll(f, conn, "DROP FUNCTION pg_catalog.aurora_replica_status()")
		closeConn(f, conn.PgConn())
	}
}

// vacuum starts a vacuum that takes many seconds, and waits until it is at work.
func vacuum(f *fixture) (end func()) {
	conn := connectTo(f, "")
	execAll(f, conn, "SET vacuum_cost_delay = '100ms'", "SET vacuum_cost_limit = 1")
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = conn.Exec(context.Background(), "VACUUM (DISABLE_PAGE_SKIPPING) pages")
	}()
	f.WaitUntil("SELECT count(*) > 0 FROM pg_stat_progress_vacuum")
	return func() {
		f.Exec("SELECT pg_terminate_backend(pid) FROM pg_stat_progress_vacuum")
		<-done
		f.WaitUntil("SELECT count(*) = 0 FROM pg_stat_progress_vacuum")
	}
}

// Every role sees which transactions keep versions. Only some are told when these began.
func TestTheHorizonOfAnUnprivilegedRoleIsIncomplete(t *testing.T) {
	t.Parallel()

	f := newFixture(t, 1)
	end := inSession("", "BEGIN ISOLATION LEVEL REPEATABLE READ", "SELECT 1")(f)
	defer end()
	f.Exec(fmt.Sprintf(burnSQL, burned))
	for role, privileged := range map[string]bool{"pg_signal_backend": false, "pg_monitor": true} {
		tx, err := f.Admin.Begin(f.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tx.Exec(f.Context(), "SET LOCAL ROLE "+role); err != nil {
			t.Fatal(err)
		}
		var (
			h   reservation.Horizon
			age float64
		)
		const sql = "SELECT oldest_seconds, transactions, complete FROM read_horizon()"
		err = tx.QueryRow(f.Context(), sql).Scan(&age, &h.Transactions, &h.Complete)
		_ = tx.Rollback(f.Context())
		if err != nil || h.Transactions < burned || h.Complete != privileged ||
			(age > 0) != privileged {
			t.Errorf("read_horizon() of %s = %v, %+v, %v, want the age: %t", role, age, h, err,
				privileged)
		}
	}
}
