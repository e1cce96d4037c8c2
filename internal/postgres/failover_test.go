package postgres_test

import (
	"context"
	"net"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/allo/reservations/internal/local/pgserver"
	"github.com/allo/reservations/internal/pgtest"
	"github.com/allo/reservations/internal/postgres"
)

// writerName is the name under which pools find the writer of a cluster. The addresses are for
// documentation (RFC 5737): the pools' dial leads from them to the servers.
const (
	writerName   = "writer.db.example"
	oldAddress   = "192.0.2.1"
	newAddress   = "192.0.2.2"
	databasePort = "5432"
)

// cluster is a server and its standby. The writer's name leads to the server, until a fail-over.
type cluster struct {
	t        *testing.T
	names    *pgtest.NameServer
	server   *pgserver.Server
	old, new *pgtest.Fixture
	hosts    map[string]string // the server's address by the one that its name has
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	server, db := pgtest.NewServer(t, nil)
	u, err := url.Parse(db.DirectURL)
	if err != nil {
		t.Fatal(err)
	}
	_, standby := pgtest.NewStandby(t, server, db, u.Host)
	followed, err := url.Parse(standby.DirectURL)
	if err != nil {
		t.Fatal(err)
	}
	c := &cluster{
		t: t, names: pgtest.NewNameServer(t), server: server,
		old: pgtest.NewFixture(t, db), new: pgtest.NewFixture(t, standby),
		hosts: map[string]string{
			net.JoinHostPort(oldAddress, databasePort): u.Host,
			net.JoinHostPort(newAddress, databasePort): followed.Host,
		},
	}
	c.names.Point(writerName, oldAddress)
	return c
}

// open opens a pool that finds the writer by its name.
func (c *cluster) open(size int, options ...postgres.Option) *postgres.Pool {
	c.t.Helper()
	u, err := url.Parse(c.old.DirectURL)
	if err != nil {
		c.t.Fatal(err)
	}
	u.Host = net.JoinHostPort(writerName, databasePort)
	reach := func(config *pgxpool.Config) {
		config.ConnConfig.LookupFunc = c.names.Resolver().LookupHost
		dial := config.ConnConfig.DialFunc
		config.ConnConfig.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
			return dial(ctx, network, c.hosts[addr])
		}
	}
	p, err := postgres.Open(postgres.URL(u.String()), size, append(options, reach)...)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(p.Close)
	return p
}

// demote lets the server take no writes any more. Its sessions stay.
func (c *cluster) demote() {
	c.t.Helper()
	c.old.Exec("ALTER SYSTEM SET default_transaction_read_only = on")
	c.old.Exec("SELECT pg_reload_conf()")
	c.old.WaitUntil("SELECT current_setting('default_transaction_read_only') = 'on'")
}

// promote makes the standby the writer, and leads the writer's name to it.
func (c *cluster) promote() {
	c.t.Helper()
	c.new.Promote()
	c.names.Point(writerName, newAddress)
}

// servedBy returns the port of the server that a query reaches.
func servedBy(t *testing.T, p *postgres.Pool) string {
	t.Helper()
	return queryOne[string](t, p, "SELECT current_setting('port')")
}

func (c *cluster) portOf(f *pgtest.Fixture) string {
	c.t.Helper()
	return pgtest.QueryOne[string](f, "SELECT current_setting('port')")
}

// insertAtOnce inserts n rows in n transactions that are all open at once, so each has a connection
// of its own. It returns how many of them failed, and the last error.
func insertAtOnce(ctx context.Context, p *postgres.Pool, n int) (failed int, last error) {
	if n == 0 {
		return 0, nil
	}
	err := p.Transaction(ctx, pgx.TxOptions{}, func(tx pgx.Tx) error {
		failed, last = insertAtOnce(ctx, p, n-1)
		_, err := tx.Exec(ctx, insertSQL)
		return err
	})
	if err != nil {
		return failed + 1, err
	}
	return failed, last
}

// untilRefused inserts rows until an insert fails. A session may take a moment to notice that its
// server takes no writes any more.
func untilRefused(t *testing.T, p *postgres.Pool) error {
	t.Helper()
	for {
		if err := p.Exec(t.Context(), insertSQL); err != nil || t.Context().Err() != nil {
			return err
		}
	}
}

// keepReadOnly is the control of the rule that closes a connection for SQLSTATE 25006. It leaves
// the driver's own rule, which closes a connection for fatal errors.
func keepReadOnly(config *pgxpool.Config) {
	beforeConnect := config.BeforeConnect
	config.BeforeConnect = func(ctx context.Context, c *pgx.ConnConfig) error {
		err := beforeConnect(ctx, c)
		c.OnPgError = func(_ *pgconn.PgConn, pg *pgconn.PgError) bool {
			return !strings.EqualFold(pg.Severity, "FATAL")
		}
		return err
	}
}

const poolSize = 4

// The old writer of a fail-over works on, but takes no writes. One caller meets it. The pool then
// leaves it with all connections.
func TestAPoolLeavesADemotedServerAtTheFirstRefusal(t *testing.T) {
	t.Parallel()

	c := newCluster(t)
	// Standby turns off the rule about what the server says of itself, which a pooler keeps back.
	p, slow := c.open(poolSize, postgres.Standby), c.open(poolSize, postgres.Standby)
	stuck := c.open(poolSize, postgres.Standby, keepReadOnly)
	for _, pool := range []*postgres.Pool{p, stuck, slow} {
		pool.SetPingAfter(time.Hour)
		if failed, err := insertAtOnce(t.Context(), pool, poolSize); failed > 0 {
			t.Fatal(err)
		}
	}
	slow.KeepSiblings()
	c.demote()
	c.promote()
	for _, pool := range []*postgres.Pool{p, stuck, slow} {
		if err := untilRefused(t, pool); !postgres.HasCode(err, "25006") ||
			!postgres.Unavailable(err) || postgres.NoConnection(err) {
			t.Fatalf("an insert on the demoted server = %v, want SQLSTATE 25006, unavailable", err)
		}
	}

	if failed, err := insertAtOnce(t.Context(), p, poolSize); failed > 0 {
		t.Errorf("%d of %d inserts after the refusal failed: %v", failed, poolSize, err)
	}
	if got, want := servedBy(t, p), c.portOf(c.new); got != want {
		t.Errorf("the pool is at the server on port %s, want the new writer's %s", got, want)
	}
	for range 3 { // the control: a connection that isn't closed stays where it is
		if failed, err := insertAtOnce(t.Context(), stuck, poolSize); failed != poolSize ||
			!postgres.HasCode(err, "25006") {
			t.Errorf("without the rule %d of %d inserts failed, want all: %v", failed, poolSize, err)
		}
	}
	// The control of the siblings: each of the other connections costs a caller an error.
	if failed, err := insertAtOnce(t.Context(), slow, poolSize); failed != poolSize-1 ||
		!postgres.HasCode(err, "25006") {
		t.Errorf("with the siblings kept %d inserts failed, want %d: %v", failed, poolSize-1, err)
	}
}

// When the server dies, its connections break. One caller meets that, too.
func TestAPoolLeavesADeadServerAtTheFirstBrokenConnection(t *testing.T) {
	t.Parallel()

	c := newCluster(t)
	p, slow := c.open(poolSize), c.open(poolSize)
	for _, pool := range []*postgres.Pool{p, slow} {
		pool.SetPingAfter(time.Hour)
		if failed, err := insertAtOnce(t.Context(), pool, poolSize); failed > 0 {
			t.Fatal(err)
		}
	}
	slow.KeepSiblings()
	if err := c.server.Kill(); err != nil {
		t.Fatal(err)
	}
	c.promote()
	for _, pool := range []*postgres.Pool{p, slow} {
		if err := untilRefused(t, pool); !postgres.Unavailable(err) {
			t.Fatalf("an insert on a connection to the dead server = %v, want it unavailable", err)
		}
	}

	if failed, err := insertAtOnce(t.Context(), p, poolSize); failed > 0 {
		t.Errorf("%d of %d inserts after the first error failed: %v", failed, poolSize, err)
	}
	failed := 0 // the control: each of the other connections costs a caller an error
	for slow.Exec(t.Context(), insertSQL) != nil {
		failed++
	}
	if failed != poolSize-1 {
		t.Errorf("with the siblings kept %d inserts failed, want %d", failed, poolSize-1)
	}
}

// counted is an Option that counts the dials.
func counted(dials *atomic.Int64) postgres.Option {
	return func(config *pgxpool.Config) {
		dial := config.ConnConfig.DialFunc
		config.ConnConfig.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
			dials.Add(1)
			return dial(ctx, network, addr)
		}
	}
}

// callAtOnce makes n inserts at once. Each of them must fail because the database is unavailable.
func callAtOnce(ctx context.Context, t *testing.T, p *postgres.Pool, n int) {
	t.Helper()
	var all sync.WaitGroup
	for range n {
		all.Go(func() {
			if err := p.Exec(ctx, insertSQL); !postgres.Unavailable(err) {
				t.Errorf("an insert without a writer = %v, want it unavailable", err)
			}
		})
	}
	all.Wait()
}

// While the name leads to the old writer, the calls bound the connects to it: one for each, when
// the old writer only reads, and when it refuses.
func TestACallConnectsOnceWhileTheNameLeadsToTheOldWriter(t *testing.T) {
	t.Parallel()

	const calls = 10 * poolSize
	c := newCluster(t)
	var dials atomic.Int64
	p := c.open(poolSize, counted(&dials))
	if failed, err := insertAtOnce(t.Context(), p, poolSize); failed > 0 || dials.Load() != poolSize {
		t.Fatalf("%d connections took %d dials: %v", poolSize, dials.Load(), err)
	}
	c.demote()
	if err := untilRefused(t, p); !postgres.HasCode(err, "25006") {
		t.Fatalf("an insert on the demoted server = %v, want SQLSTATE 25006", err)
	}
	dials.Store(0)
	callAtOnce(t.Context(), t, p, calls)
	if n := dials.Load(); n != calls {
		t.Errorf("%d calls took %d dials to the server that only reads, want one each", calls, n)
	}
	if err := c.server.Kill(); err != nil {
		t.Fatal(err)
	}
	dials.Store(0)
	callAtOnce(t.Context(), t, p, calls)
	if n := dials.Load(); n != calls {
		t.Errorf("%d calls took %d dials to the dead server, want one each", calls, n)
	}
	c.promote()
	if failed, err := insertAtOnce(t.Context(), p, poolSize); failed > 0 {
		t.Errorf("%d of %d inserts on the new writer failed: %v", failed, poolSize, err)
	}
}

// A machine that has gone answers no dial. Callers who give up make room for no further dials.
func TestAMachineThatHasGoneIsDialledByAsManyAsHavePlaces(t *testing.T) {
	t.Parallel()

	const calls = 10 * poolSize
	var dials atomic.Int64
	gone, back := context.WithCancel(t.Context())
	defer back()
	p, err := postgres.Open(postgres.URL("postgres://u@192.0.2.1/d?sslmode=disable"), poolSize,
		func(config *pgxpool.Config) {
			config.ConnConfig.DialFunc = func(context.Context, string, string) (net.Conn, error) {
				<-gone.Done()
				return nil, syscall.EHOSTUNREACH
			}
		}, counted(&dials))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	var all sync.WaitGroup
	defer all.Wait()
	ctx, giveUp := context.WithCancel(t.Context())
	defer giveUp()
	all.Go(func() { callAtOnce(ctx, t, p, calls) })
	await(t, "all callers wait, and as many as have places dial", func() bool {
		return p.Waiting() == calls && dials.Load() >= poolSize
	})
	giveUp()
	all.Wait()
	if n := dials.Load(); n != poolSize {
		t.Errorf("%d callers dialled %d times, want %d", calls, n, poolSize)
	}
	back()
	dials.Store(0)
	callAtOnce(t.Context(), t, p, calls)
	if n := dials.Load(); n != calls {
		t.Errorf("%d callers of a machine that refuses dialled %d times, want once each", calls, n)
	}
}

// A connection that broke late must not close those that were made since.
func TestALateBreakLeavesNewerConnections(t *testing.T) {
	t.Parallel()

	db := pgtest.New(t)
	admin := open(t, db.DirectURL)
	p, err := postgres.Open(postgres.URL(db.DirectURL), 2)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	p.SetPingAfter(time.Hour)
	var newer int
	err = p.Transaction(t.Context(), pgx.TxOptions{}, func(tx pgx.Tx) error {
		terminate(t, admin, queryOne[int](t, p, backendSQL))
		if err := p.Exec(t.Context(), insertSQL); err != nil && !postgres.Unavailable(err) {
			t.Errorf("an insert on a connection that has ended = %v, want it unavailable", err)
		}
		newer = queryOne[int](t, p, backendSQL)
		var mine int
		if err := tx.QueryRow(t.Context(), backendSQL).Scan(&mine); err != nil {
			return err
		}
		terminate(t, admin, mine)
		return tx.QueryRow(t.Context(), backendSQL).Scan(&mine)
	})
	if !postgres.Unavailable(err) {
		t.Errorf("a transaction whose session was ended = %v, want it unavailable", err)
	}
	if again := queryOne[int](t, p, backendSQL); again != newer {
		t.Errorf("the next query ran on backend %d, want the newer connection's %d", again, newer)
	}
}

// While the name still leads to the old writer, a caller may get a connection to it that works, but
// only reads. A function that never writes must not stay there.
func TestAConnectionToAServerThatOnlyReadsServesOneCaller(t *testing.T) {
	t.Parallel()

	c := newCluster(t)
	c.demote()
	p, reader := c.open(1), c.open(1, postgres.Standby)
	was := c.portOf(c.old)
	for _, pool := range []*postgres.Pool{p, reader} {
		if got := servedBy(t, pool); got != was {
			t.Fatalf("before the fail-over the pool is at port %s, want %s", got, was)
		}
	}
	c.promote()

	if got, want := servedBy(t, p), c.portOf(c.new); got != want {
		t.Errorf("the second caller is at the server on port %s, want the new writer's %s", got, want)
	}
	first := queryOne[int](t, p, backendSQL)
	if again := queryOne[int](t, p, backendSQL); again != first {
		t.Errorf("a connection to the writer was closed: session %d, then %d", first, again)
	}
	// The control, and the rule for a pool that reads from a standby on purpose.
	if got := servedBy(t, reader); got != was {
		t.Errorf("the reader's pool has left its server on port %s for %s", was, got)
	}
}

// The same holds for a connection from before: the server says that it has become read-only.
func TestAConnectionIsClosedWhenItsServerStopsToTakeWrites(t *testing.T) {
	t.Parallel()

	c := newCluster(t)
	p, reader := c.open(1), c.open(1, postgres.Standby)
	before, kept := queryOne[int](t, p, backendSQL), queryOne[int](t, reader, backendSQL)
	if again := queryOne[int](t, p, backendSQL); again != before {
		t.Fatalf("a connection to the writer was closed: session %d, then %d", before, again)
	}
	c.demote()
	for queryOne[int](t, p, backendSQL) == before {
		continue // the session notices at one of its next statements; the test's deadline ends it
	}
	c.promote()
	if got, want := servedBy(t, p), c.portOf(c.new); got != want {
		t.Errorf("after the fail-over the pool is at port %s, want the new writer's %s", got, want)
	}
	if again := queryOne[int](t, reader, backendSQL); again != kept {
		t.Errorf("the reader's pool has left session %d for %d", kept, again)
	}
}

// A Reader reads from a standby all the time, and so keeps its connection.
func TestAReaderKeepsItsConnectionToAStandby(t *testing.T) {
	t.Parallel()

	c := newCluster(t)
	reader, err := postgres.OpenReader(postgres.URL(c.new.DirectURL), 1,
		postgres.ReaderOptions{MaxLag: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(reader.Close)
	session := func() (pid int) {
		t.Helper()
		answered, err := reader.AnyAge(t.Context(),
			func(ctx context.Context, p *postgres.Pool) (err error) {
				pid, err = postgres.QueryRow(ctx, p, pgx.RowTo[int], backendSQL)
				return err
			})
		if !answered || err != nil {
			t.Fatalf("a read on the standby = %t, %v, want it answered", answered, err)
		}
		return pid
	}
	if first, again := session(), session(); first != again {
		t.Errorf("two reads ran in the sessions %d and %d, want one", first, again)
	}
}

// The name server's answers have a TTL of an hour. Nobody keeps them.
func TestTheNameIsLookedUpForEachConnection(t *testing.T) {
	t.Parallel()

	c := newCluster(t)
	p := c.open(1)
	for connects, want := range []string{c.portOf(c.old), c.portOf(c.old), c.portOf(c.new)} {
		if want == c.portOf(c.new) {
			c.names.Point(writerName, newAddress)
		}
		p.Reset()
		for range 2 { // the second query needs no connection
			if got := servedBy(t, p); got != want {
				t.Errorf("connection %d leads to port %s, want %s", connects+1, got, want)
			}
		}
		if got := c.names.Asked(); got < connects+1 || want == c.portOf(c.old) && got != connects+1 {
			t.Errorf("the name server was asked %d times for %d connections", got, connects+1)
		}
	}
}
