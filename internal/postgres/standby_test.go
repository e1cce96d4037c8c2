package postgres_test

import (
	"context"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/allo/reservations/internal/pgtest"
	"github.com/allo/reservations/internal/postgres"
)

const (
	insertSQL = "INSERT INTO warehouses (id, name) VALUES (gen_random_uuid(), 'w')"
	countSQL  = "SELECT count(*) FROM warehouses"
)

// setStandbys changes the standbys for which commits wait, and waits until the server knows.
func setStandbys(t *testing.T, p *postgres.Pool, names string) {
	t.Helper()
	for _, sql := range []string{
		"ALTER SYSTEM SET synchronous_standby_names = '" + names + "'", "SELECT pg_reload_conf()",
	} {
		if err := p.Exec(t.Context(), sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	for queryOne[string](t, p, "SHOW synchronous_standby_names") != names {
		continue // the query paces the loop, and the test's deadline ends it
	}
	for range 2 { // the checkpointer tells all sessions, once it has read the settings itself
		if err := p.Exec(t.Context(), "CHECKPOINT"); err != nil {
			t.Fatal(err)
		}
	}
}

// When the wait for a synchronous standby is cancelled, Postgres answers with a warning and a
// success: the transaction is committed, but a fail-over to the standby loses it.
func TestACommitThatNoStandbyHasIsUnavailable(t *testing.T) {
	t.Parallel()

	_, db := pgtest.NewServer(t, nil)
	p, admin, f := open(t, db.URL), open(t, db.URL), pgtest.NewFixture(t, db)
	if err := p.Exec(t.Context(), insertSQL); err != nil {
		t.Fatal(err)
	}
	want := 1
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // a lost cancel must not hang
	defer cancel()
	insert := func(ctx context.Context) error { return p.Exec(ctx, insertSQL) }
	insertInTransaction := func(ctx context.Context) error {
		return p.Transaction(ctx, pgx.TxOptions{}, func(tx pgx.Tx) error {
			_, err := tx.Exec(ctx, insertSQL)
			return err
		})
	}
	// Postgres stops its clock of a statement before the statement's own commit, but it runs during a
	// commit inside a procedure.
	const procedure = `
CREATE PROCEDURE add_warehouse() LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO warehouses (id, name) VALUES (gen_random_uuid(), 'w');
  COMMIT;
END $$`
	if err := p.Exec(t.Context(), procedure); err != nil {
		t.Fatal(err)
	}
	insertInProcedure := func(ctx context.Context) error {
		return p.Exec(ctx, "CALL add_warehouse()")
	}
	callerGivesUp := f.UntilItStalls
	// Without the CASE the server might cancel sessions that don't wait.
	const cancelSQL = `
SELECT pid FROM pg_stat_activity
WHERE CASE WHEN wait_event = 'SyncRep' THEN pg_cancel_backend(pid) END`
	operatorCancels := func(run func(context.Context) error) error {
		result := make(chan error, 1)
		go func() { result <- run(ctx) }()
		for {
			pids, err := postgres.Query(ctx, admin, pgx.RowTo[int], cancelSQL)
			if err != nil {
				t.Fatal(err)
			}
			if len(pids) > 0 {
				return <-result
			}
			select {
			case err := <-result:
				return err // it didn't wait
			default:
			}
		}
	}
	all := []func(context.Context) error{insert, insert, insertInTransaction, insertInProcedure}

	setStandbys(t, admin, "nobody")
	check := func(name string, err error) {
		t.Helper()
		want++
		if !postgres.Unavailable(err) || postgres.NoConnection(err) {
			t.Errorf("a commit without its standby, when %s = %v, want it unavailable", name, err)
		}
		f.WaitUntil("SELECT count(*) >= $1 FROM warehouses", want)
		if got := queryOne[int](t, p, countSQL); got != want {
			t.Errorf("when %s, the server has %d rows, want %d: it commits all the same", name, got,
				want)
		}
	}
	for _, run := range all {
		check("the caller gives up", callerGivesUp(run))
		check("an operator cancels", operatorCancels(run))
	}
	check("the statement times out", insertInProcedure(ctx))
	setStandbys(t, admin, "")
	for _, run := range all {
		if err := run(t.Context()); err != nil {
			t.Errorf("a commit on the same connection, without a standby = %v, want nil", err)
		}
	}
}

// lateConn cancels the caller when the server's next answer arrives.
type lateConn struct {
	net.Conn
	cancel *atomic.Pointer[context.CancelFunc]
}

func (c lateConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if cancel := c.cancel.Swap(nil); cancel != nil {
		(*cancel)()
	}
	return n, err
}

// A proxy may keep Postgres's warning to itself. The caller's context then decides.
func TestASuccessAfterTheCallerGaveUpIsUnavailable(t *testing.T) {
	t.Parallel()

	var cancel atomic.Pointer[context.CancelFunc]
	p := open(t, pgtest.New(t).DirectURL, func(c *pgxpool.Config) {
		dial := c.ConnConfig.DialFunc
		c.ConnConfig.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := dial(ctx, network, addr)
			return lateConn{conn, &cancel}, err
		}
	})
	if err := p.Connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, giveUp := context.WithCancel(t.Context())
	cancel.Store(&giveUp)

	err := p.Exec(ctx, insertSQL)

	if !postgres.Unavailable(err) {
		t.Errorf("a success for a caller who gave up = %v, want it unavailable", err)
	}
}
