package migration_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/lambda"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/allo/reservations/internal/app/migration"
	"github.com/allo/reservations/internal/migrate"
	"github.com/allo/reservations/internal/pgtest"
	"github.com/allo/reservations/internal/postgres"
	"github.com/allo/reservations/internal/reservation"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// as returns the URL with another user, whose password is the user's name.
func as(t *testing.T, address, user string) string {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword(user, user)
	return u.String()
}

// fixtureAs makes a fixture whose statements run as a user.
func fixtureAs(t *testing.T, address, user string) *pgtest.Fixture {
	t.Helper()
	return pgtest.NewFixture(t, pgtest.Database{DirectURL: as(t, address, user)})
}

func discardLog() *slog.Logger { return slog.New(slog.DiscardHandler) }

// bootstrappedDatabase makes a database like the stack's and returns its URL. The server has the
// role rds_iam. The owner, master, may make roles and isn't a superuser. bootstrap.sql has run,
// twice. Unlike in RDS, the roles that it makes log in by password.
func bootstrappedDatabase(t *testing.T) (address string) {
	t.Helper()
	db := pgtest.NewEmpty(t)
	root := pgtest.NewFixture(t, db)
	root.Exec("CREATE ROLE rds_iam")
	root.Exec("CREATE ROLE master LOGIN CREATEROLE CREATEDB PASSWORD 'master'")
	root.Exec("GRANT rds_iam TO master WITH ADMIN OPTION")
	root.Exec("GRANT pg_monitor TO master")
	root.Exec("ALTER DATABASE " + db.Name + " OWNER TO master")
	for range 2 {
		bootstrap(t, db.DirectURL)
	}
	wantMember := func(role, of string, want bool) {
		t.Helper()
		const sql = "SELECT pg_has_role($1, $2, 'MEMBER')"
		if member := pgtest.QueryOne[bool](root, sql, role, of); member != want {
			t.Errorf("%s is a member of %s: %t, want %t", role, of, member, want)
		}
	}
	// RDS refuses the password of a direct or indirect member of rds_iam. The master user logs in by
	// password, the other two by IAM.
	wantMember("master", "allo_migrator", false)
	wantMember("master", "allo_app", false)
	wantMember("master", "pg_monitor", true)
	wantMember("allo_migrator", "rds_iam", true)
	wantMember("allo_app", "rds_iam", true)
	root.Exec("ALTER ROLE allo_migrator PASSWORD 'allo_migrator'")
	root.Exec("ALTER ROLE allo_app PASSWORD 'allo_app'")
	return db.DirectURL
}

// bootstrap runs bootstrap.sql as the master user.
func bootstrap(t *testing.T, address string) {
	t.Helper()
	statement, err := os.ReadFile("../../../infra/bootstrap.sql")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(statement), ":") {
		t.Error("bootstrap.sql has a colon, which the RDS Data API takes for a parameter")
	}
	fixtureAs(t, address, "master").Exec(string(statement))
}

// stockRows names two stock rows of one product.
type stockRows struct{ product, here, there uuid.UUID }

func TestTheServicesRoleHasOnlyTheRightsThatItNeeds(t *testing.T) {
	t.Parallel()

	address := bootstrappedDatabase(t)
	migrator := postgres.URL(as(t, address, "allo_migrator"))
	run := migration.Handler(migrator, migration.Settings{AppRole: "allo_app"}, discardLog())
	if report, err := run(t.Context(), nil); err != nil || len(report.Applied) == 0 {
		t.Fatalf("the migration = %+v, %v, want all applied", report, err)
	}
	// The operator owns the database, but not the tables.
	master := fixtureAs(t, address, "master")
	rows := stockRows{master.Product(), master.Warehouse(), master.Warehouse()}
	master.Stock(rows.product, rows.here, 4)
	master.Stock(rows.product, rows.there, 4)
	master.Exec("SELECT adjust_stock($1, $2, 1, 'found one')", rows.product.String(),
		rows.here.String())

	callEveryVerb(t, as(t, address, "allo_app"), rows)
	wantRefused(t, address)

	// A second deploy revokes rights that were granted by hand. Another owner's table doesn't disturb
	// it. Nor does a version that only a newer release has: the older release then has nothing to do.
	master.Exec("CREATE TABLE others ()")
	owner := fixtureAs(t, address, "allo_migrator")
	owner.Exec("GRANT DELETE, TRUNCATE ON reservations TO allo_app")
	if report, err := run(t.Context(), nil); err != nil || len(report.Applied) != 0 {
		t.Errorf("the second migration = %+v, %v, want nothing to do", report, err)
	}
	wantRefused(t, address)
	owner.Exec("INSERT INTO goose_versions (version_id, is_applied) VALUES (1000, true)")
	if applied, err := migrate.Up(t.Context(), migrator); err != nil || len(applied) != 0 {
		t.Errorf("a migration without an app role = %v, %v, want nothing to do", applied, err)
	}
	callEveryVerb(t, as(t, address, "allo_app"), rows)
	wantAgesIfTheMasterMayGrantThem(t, address)
}

// wantAgesIfTheMasterMayGrantThem checks that bootstrap.sql lets the app see the ages of other
// roles' transactions, with either right that its server lets the master user grant. Without one
// bootstrap.sql works all the same.
func wantAgesIfTheMasterMayGrantThem(t *testing.T, address string) {
	t.Helper()
	root := pgtest.NewFixture(t, pgtest.Database{DirectURL: address})
	app := fixtureAs(t, address, "allo_app")
	unlock := fixtureAs(t, address, "master").Lock("SELECT pg_current_xact_id()")
	defer unlock()
	want := func(with string, want bool) {
		t.Helper()
		bootstrap(t, address)
		const sql = "SELECT oldest_seconds > 0 AND complete FROM read_horizon()"
		if got := pgtest.QueryOne[bool](app, sql); got != want {
			t.Errorf("with %s the app sees the age of another's transaction: %t, want %t", with, got,
				want)
		}
	}
	want("no right", false)
	for _, right := range []string{"pg_read_all_stats", "pg_monitor"} {
		root.Exec("GRANT " + right + " TO master WITH ADMIN OPTION")
		want(right, true)
		root.Exec("REVOKE " + right + " FROM master CASCADE")
		want("no right any more", false)
	}
	// Where the migrations run as a role that may grant it, they do.
	root.Exec("GRANT pg_read_all_stats TO allo_migrator WITH ADMIN OPTION")
	owner := postgres.URL(as(t, address, "allo_migrator"))
	if _, err := migrate.UpAndGrant(t.Context(), owner, "allo_app"); err != nil {
		t.Error(err)
	}
	want("pg_read_all_stats, granted by the migrator,", true)
}

// callEveryVerb runs every use case of the service.
func callEveryVerb(t *testing.T, address string, rows stockRows) {
	t.Helper()
	pool, err := postgres.Open(postgres.URL(address), 1)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	if err := pool.Connect(t.Context()); err != nil {
		t.Errorf("Connect() as the app = %v, want its role to have timeouts", err)
	}
	s := reservation.New(pool, reservation.Options{HoldTTL: time.Minute, MaxHold: time.Hour})
	line := reservation.Line{ProductID: rows.product, WarehouseID: rows.here, Quantity: 1}
	other := reservation.Line{ProductID: rows.product, WarehouseID: rows.there, Quantity: 1}
	reserve := func(ttl time.Duration, lines ...reservation.Line) uuid.UUID {
		t.Helper()
		answer, err := s.Reserve(t.Context(),
			reservation.Request{Key: rand.Text(), TTL: ttl, Lines: lines})
		if err != nil {
			t.Fatalf("Reserve(%v) = %v", lines, err)
		}
		return answer.Hold.ID
	}
	must := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Error(err)
		}
	}
	app := pgtest.NewFixture(t, pgtest.Database{DirectURL: address})
	app.Stock(app.Product(), app.Warehouse(), 1) // a new stock row loses its filling
	must(s.Confirm(t.Context(), reserve(0, line), "a"+rand.Text()))
	must(s.Release(t.Context(), reserve(0, line, other), ""))
	held := reserve(0, line, other)
	must(s.Extend(t.Context(), held, 2*time.Minute, ""))
	must(s.Get(t.Context(), held))
	must(s.Release(t.Context(), held, ""))
	must(nil, s.Ping(t.Context()))
	_, _, err = s.ListProducts(t.Context(), reservation.Cursor{}, 10)
	must(nil, err)
	_, _, err = s.ListWarehouses(t.Context(), reservation.Cursor{}, 10)
	must(nil, err)

	// Two holds die. A reserve that is short reclaims the first, and the sweep expires the cart.
	all := other
	all.Quantity = 3
	reserve(time.Second, all)
	cart := reserve(time.Second, line, other)
	pgtest.NewFixture(t, pgtest.Database{DirectURL: address}).WaitUntil(
		"SELECT expires_at < clock_timestamp() FROM reservations WHERE id = $1", cart.String())
	must(s.Release(t.Context(), reserve(0, all), ""))
	must(s.Horizon(t.Context()))
	result, err := s.Sweep(t.Context())
	if err != nil || result.Expired == 0 {
		t.Errorf("Sweep() = %+v, %v, want the dead holds swept", result, err)
	}
	if violations, err := s.Audit(t.Context()); err != nil || len(violations) > 0 {
		t.Errorf("Audit() = %v, %v, want none", violations, err)
	}
}

// wantRefused runs statements that the service's role must not run. The tables' owner runs them
// too, to show that they are valid.
func wantRefused(t *testing.T, address string) {
	t.Helper()
	app, owner := fixtureAs(t, address, "allo_app"), fixtureAs(t, address, "allo_migrator")
	try := func(user *pgtest.Fixture, statement string) error {
		tx, err := user.Admin.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		_, err = tx.Exec(t.Context(), statement)
		return errors.Join(err, tx.Rollback(t.Context()))
	}
	for _, statement := range []string{
		"DROP TABLE idempotency_keys", "ALTER TABLE reservations ADD COLUMN note text",
		"TRUNCATE reservation_items", "DELETE FROM reservations WHERE false",
		"DELETE FROM reservation_items WHERE false", "DELETE FROM stock_movements WHERE false",
		"UPDATE stock_movements SET note = 'other' WHERE false",
		"INSERT INTO archived_reservations SELECT * FROM reservations WHERE false",
		"INSERT INTO archived_stock SELECT gen_random_uuid(), gen_random_uuid() WHERE false",
		"UPDATE archived_months SET detached = true",
		"DELETE FROM products WHERE false", "UPDATE products SET sku = sku",
		"DELETE FROM warehouses WHERE false", "UPDATE warehouses SET code = code",
		"UPDATE inventory SET product_id = product_id", "UPDATE inventory SET room = NULL",
		"UPDATE reservations SET quantity = 1 WHERE false",
		"CREATE TABLE mine ()",
		"CREATE FUNCTION mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
		"DROP FUNCTION write_log_record", "DROP TRIGGER i3_resolved_once_i4_alive ON reservations",
		"DROP INDEX reservations_live_by_expiry",
		"DELETE FROM goose_versions", "ALTER ROLE allo_migrator SET jit = on",
		"CREATE ROLE mine", "SET ROLE allo_migrator",
	} {
		if err := try(owner, statement); err != nil {
			t.Errorf("as the owner: %s: %v", statement, err)
		}
		var pg *pgconn.PgError
		err := try(app, statement)
		const insufficientPrivilege = "42501"
		if !errors.As(err, &pg) || pg.Code != insufficientPrivilege {
			t.Errorf("as the app: %s = %v, want it refused", statement, err)
		}
	}
	if err := try(app, "CREATE TEMPORARY TABLE mine ()"); err == nil ||
		!strings.Contains(err.Error(), "permission denied") {
		t.Errorf("as the app: CREATE TEMPORARY TABLE = %v, want it refused", err)
	}
}

func TestTheFunctionTakesAnyEventAndWaitsForItsDatabase(t *testing.T) {
	t.Parallel()

	source := postgres.URL(wakingServer(t, pgtest.NewEmpty(t).DirectURL))
	var log bytes.Buffer
	handler := lambda.NewHandler(
		migration.Handler(source, migration.Settings{}, slog.New(slog.NewJSONHandler(&log, nil))))

	answer, err := handler.Invoke(t.Context(),
		[]byte(`{"RequestType": "Create", "any": [1, null]}`))
	if err != nil || !strings.Contains(string(answer), `"applied":["0001_schema.sql",`) {
		t.Errorf("the answer to the first event is %s, %v, want the applied files", answer, err)
	}
	if !strings.Contains(log.String(), "can't be reached yet") ||
		!strings.Contains(log.String(), `"applied":["0001_schema.sql",`) {
		t.Errorf("the log is %s, want a line about the wait, and the applied files", log.String())
	}
	for _, event := range []string{`[]`, `"x"`, `null`} {
		if answer, err := handler.Invoke(t.Context(), []byte(event)); err != nil ||
			string(answer) != `{"applied":[]}` {
			t.Errorf("the answer to event %s is %s, %v, want no applied file", event, answer, err)
		}
	}
}

func TestTheWaitForADatabaseIsBounded(t *testing.T) {
	t.Parallel()

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	unused := listener.Addr().String()
	_ = listener.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	source := postgres.URL("postgres://u:hidden@" + unused + "/d")
	_, err = migration.Handler(source, migration.Settings{}, discardLog())(ctx, nil)
	if err == nil || !strings.Contains(err.Error(), "couldn't be reached") ||
		strings.Contains(err.Error(), "hidden") {
		t.Errorf("the migration = %v, want an error that the database couldn't be reached", err)
	}
}

// With ByHand, a deploy migrates an empty database and then checks the schema alone.
func TestADeployLeavesTheSchemaToAnOperator(t *testing.T) {
	t.Parallel()

	db := pgtest.NewFixture(t, pgtest.NewEmpty(t))
	run := migration.Handler(postgres.URL(db.DirectURL), migration.Settings{ByHand: true},
		discardLog())
	if report, err := run(t.Context(), nil); err != nil || len(report.Applied) == 0 {
		t.Fatalf("the first deploy = %+v, %v, want all applied", report, err)
	}
	// The newest file is pending again, and a routine is missing.
	const newest = "(SELECT max(version_id) FROM goose_versions)"
	db.Exec("DELETE FROM goose_versions WHERE version_id = " + newest)
	db.Exec("DROP FUNCTION max_tries()")
	report, err := run(t.Context(), []byte(`{"RequestType": "Update"}`))
	if err == nil || len(report.Applied) > 0 ||
		!strings.Contains(err.Error(), "the schema lacks 00") ||
		!strings.Contains(err.Error(), "make migrate-remote") {
		t.Fatalf("a deploy = %+v, %v, want it to name the command", report, err)
	}
	// The operator applies it. Here it is there already, so only its number is missing.
	db.Exec("INSERT INTO goose_versions (version_id, is_applied) " +
		"SELECT max(version_id) + 1, true FROM goose_versions")
	report, err = run(t.Context(), []byte(`{}`))
	if err != nil || len(report.Applied) != 1 || report.Applied[0] != "procedures/max_tries.sql" {
		t.Errorf("the next deploy = %+v, %v, want the routine installed", report, err)
	}
}

func TestAnEventWithApplyMigratesInAnyCase(t *testing.T) {
	t.Parallel()

	db := pgtest.NewFixture(t, pgtest.NewEmpty(t))
	run := migration.Handler(postgres.URL(db.DirectURL), migration.Settings{ByHand: true},
		discardLog())
	if _, err := run(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	db.Exec("DELETE FROM goose_versions " +
		"WHERE version_id = (SELECT max(version_id) FROM goose_versions)")
	if _, err := run(t.Context(), nil); err == nil {
		t.Fatal("a deploy applies the file")
	}
	// The file is there already, so applying it fails: it was tried.
	_, err := run(t.Context(), []byte(`{"apply": true, "seconds": 1}`))
	if err == nil || strings.Contains(err.Error(), "make migrate-remote") ||
		!strings.Contains(err.Error(), "migrate: ") {
		t.Errorf("with apply = %v, want the file tried", err)
	}
}

// wakingServer stands in front of a database like a cluster that is waking up: it closes the first
// connection and carries all others. It returns the database's URL through it.
func wakingServer(t *testing.T, address string) string {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	server := u.Host
	go func() {
		for n := 0; ; n++ {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			if n == 0 {
				_ = client.Close()
				continue
			}
			go pipe(client, server)
		}
	}()
	u.Host = listener.Addr().String()
	return u.String()
}

func pipe(client net.Conn, address string) {
	defer client.Close()
	server, err := net.Dial("tcp", address)
	if err != nil {
		return
	}
	defer server.Close()
	go func() {
		_, _ = io.Copy(server, client)
		_ = server.Close()
	}()
	_, _ = io.Copy(client, server)
}
