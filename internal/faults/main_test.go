package faults

import (
	"context"
	"flag"
	"fmt"
	"iter"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/allo/reservations/internal/app"
	"github.com/allo/reservations/internal/config"
	"github.com/allo/reservations/internal/local"
	"github.com/allo/reservations/internal/local/builttest"
	"github.com/allo/reservations/internal/pgtest"
	"github.com/allo/reservations/internal/reservation"
	"github.com/allo/reservations/internal/route"
)

// The flags of a run: how long each random attack lasts, and the seed it starts from.
var (
	soak = flag.Duration("soak", 0, "how long each random attack lasts; 0 means its own default")
	seed = flag.Uint64("seed", 0, "the seed of every random attack; 0 draws one")
)

func TestMain(m *testing.M) {
	flag.Parse()
	if *relayOf != "" {
		if err := publishFrom(*relayOf); err != nil {
			fmt.Fprintln(os.Stderr, "relay:", err)
		}
		return
	}
	if *seed == 0 {
		*seed = rand.Uint64()
	}
	// Printed first, because a run that is killed prints nothing else. -seed repeats it.
	fmt.Printf("seed %d\n", *seed)
	pgtest.Main(m)
}

// duration returns how long an attack lasts: -soak, or else the given time, or with -short a
// quarter of it.
func duration(normal time.Duration) time.Duration {
	if *soak > 0 {
		return *soak
	}
	if testing.Short() {
		return normal / 4
	}
	return normal
}

// rounds counts the rounds of a random attack: at least one, until its time is over or a round has
// failed.
func rounds(t *testing.T, normal time.Duration) iter.Seq[uint64] {
	return func(yield func(uint64) bool) {
		start := time.Now()
		for n := uint64(0); n == 0 || time.Since(start) < duration(normal); n++ {
			if !yield(n) || t.Failed() {
				return
			}
		}
	}
}

// newRand returns a random source for one part of an attack. Equal seeds and parts give equal
// draws.
func newRand(parts ...uint64) *rand.Rand {
	mixed := *seed
	for _, part := range parts {
		mixed = mixed*0x9e3779b97f4a7c15 + part
	}
	return rand.New(rand.NewPCG(*seed, mixed))
}

const (
	// answerLimit bounds the time to any answer. The service answers a request within 7 s. The rest
	// is for this machine, which runs the service, the database and the callers, maybe beside other
	// programs. The platform ends a function after 10 s, so a call that only it ended fails.
	answerLimit = 10 * time.Second
	// recoveryLimit bounds how soon after a fault or a promotion the service must work again. It needs
	// a few tenths of a second, and the tests log how long it took. The rest is for a slow machine,
	// on which processes start late and connections open late. It is less than the 7 s that a request
	// may take: a service whose next request runs out of time fails.
	recoveryLimit = 6500 * time.Millisecond
	// testLimit bounds every other wait of a test.
	testLimit = time.Minute
	// mostUnits is the most units of a hold. It is the default of MAX_UNITS.
	mostUnits = 1000
	// ownConnections is how many connections the test itself has at most, for its lockers too.
	ownConnections = 8
	// functionConnections is the pool size of each function that runs in this process.
	functionConnections = 8
)

// deployment is the whole service on its own database, reached through a real socket.
type deployment struct {
	t         testing.TB
	db        *pgtest.Fixture
	functions *local.Functions
	service   *reservation.Service // for Audit
	url       string
	products  int
}

// newDeployment starts the service on a fresh database of the shared server.
func newDeployment(t testing.TB) *deployment {
	t.Helper()
	return deploy(t, pgtest.New(t), startInProcess)
}

// functionStarter starts the functions of a deployment.
type functionStarter func(t testing.TB, databaseURL string) *local.Functions

func settings(databaseURL string) config.Config {
	return config.Config{
		DatabaseURL: databaseURL, HoldTTL: 10 * time.Minute, MaxHold: time.Hour, MaxUnits: mostUnits,
		LogLevel: slog.LevelError,
	}
}

// discardLog returns a log for services whose database is made to fail: their errors are expected.
func discardLog() *slog.Logger { return slog.New(slog.DiscardHandler) }

func startInProcess(t testing.TB, databaseURL string) *local.Functions {
	t.Helper()
	f, err := local.InProcess(settings(databaseURL), functionConnections, discardLog())
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// hastyInvoker gives each call less time than the platform would.
type hastyInvoker struct {
	local.Invoker
	limit time.Duration
}

func (h hastyInvoker) Invoke(ctx context.Context, payload []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, h.limit)
	defer cancel()
	return h.Invoker.Invoke(ctx, payload)
}

// startHasty runs the functions in this process, with a deadline that ends soon. A fault that
// outlasts the deadline of every call then takes a moment instead of seven seconds.
func startHasty(limit time.Duration) functionStarter {
	return func(t testing.TB, databaseURL string) *local.Functions {
		t.Helper()
		f := startInProcess(t, databaseURL)
		for name, invoker := range f.HTTP {
			f.HTTP[name] = hastyInvoker{invoker, limit}
		}
		return f
	}
}

// deploy starts the service on a database. To put a proxy in between, let db.URL lead to it.
func deploy(t testing.TB, db pgtest.Database, functions functionStarter) *deployment {
	t.Helper()
	f := functions(t, db.URL)
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	gateway, err := local.NewGateway(route.All(), f.HTTP, discardLog())
	if err != nil {
		t.Fatal(err)
	}
	d := attach(t, db, serve(t, gateway))
	d.functions = f
	return d
}

// serve serves h on a real socket, with the gateway's limits, and returns its URL.
func serve(t testing.TB, h http.Handler) string {
	t.Helper()
	server := httptest.NewUnstartedServer(h)
	server.Config = local.NewServer("", h)
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	server.Start()
	t.Cleanup(server.Close)
	return server.URL
}

// attach wraps a service that already runs at url.
func attach(t testing.TB, db pgtest.Database, url string) *deployment {
	t.Helper()
	a, err := app.New(settings(db.DirectURL), discardLog(), 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Close)
	return &deployment{
		t: t, db: pgtest.NewFixtureOfSize(t, db, ownConnections), service: a.Service, url: url,
	}
}

// withTimeout returns a context that ends after limit, or with the test.
func withTimeout(t testing.TB, limit time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	return ctx
}

// stockRow names a stock row.
type stockRow struct{ Product, Warehouse uuid.UUID }

// addProduct adds a product, with a stock row of total units in each of `rows` new warehouses.
func (d *deployment) addProduct(rows, total int) []stockRow {
	d.t.Helper()
	d.products++
	// The names count down, so that the newest product is first in the catalog.
	name := fmt.Sprintf("product %09d", 999_999_999-d.products)
	product := d.db.NamedProduct(name, name)
	var made []stockRow
	for range rows {
		row := stockRow{product, d.db.Warehouse()}
		d.db.Stock(row.Product, row.Warehouse, total)
		made = append(made, row)
	}
	return made
}

// change changes a product or a warehouse by the catalog's route. table is its name in the path and
// in the schema.
func (d *deployment) change(ctx context.Context, c client, table string, id uuid.UUID,
	fields map[string]any,
) reply {
	d.t.Helper()
	name := "sku"
	if table == "warehouses" {
		name = "code"
	}
	fields[name] = pgtest.QueryOne[string](d.db,
		"SELECT "+name+" FROM "+table+" WHERE id = $1", id.String())
	return c.send(ctx, http.MethodPost, "/api/catalog/"+table, "",
		map[string]any{"items": []any{fields}})
}

// sweep invokes the sweeper as the minute rule does. A separate program has its own rule, so there
// this does nothing.
func (d *deployment) sweep(ctx context.Context) error {
	if d.functions == nil {
		return nil
	}
	_, err := d.functions.Sweep.Invoke(ctx,
		[]byte(`{"source":"aws.events","detail-type":"Scheduled Event","detail":{}}`))
	return err
}

// audit fails the test when the audit finds a broken promise.
func (d *deployment) audit() {
	d.t.Helper()
	violations, err := d.service.Audit(withTimeout(d.t, testLimit))
	if err != nil || len(violations) > 0 {
		d.t.Errorf("Audit() = %v, %v, want none", violations, err)
	}
}

// deadlocks returns how many deadlocks the server counted in this database. A session reports its
// counts at the latest when it ends, so the sessions are ended first.
func (d *deployment) deadlocks() int {
	d.t.Helper()
	d.db.EndSessions()
	return pgtest.QueryOne[int](d.db, "SELECT deadlocks FROM pg_stat_database "+
		"WHERE datname = current_database()")
}

// runConcurrently runs fn n times at once and waits for all.
func runConcurrently(n int, fn func(i int)) {
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() { fn(i) })
	}
	all.Wait()
}

// saveFailure writes what helps to understand a failure to build/faults.
func saveFailure(t *testing.T, name string, write func(*os.File) error) {
	t.Helper()
	dir := filepath.Join(builttest.Root(t), "build", "faults")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Error(err)
		return
	}
	file, err := os.Create(filepath.Join(dir, name))
	if err != nil {
		t.Error(err)
		return
	}
	defer file.Close()
	if err := write(file); err != nil {
		t.Error(err)
	}
	t.Logf("saved %s", file.Name())
}
