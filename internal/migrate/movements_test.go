package migrate_test

import (
	"io/fs"
	"math"
	"os"
	"path"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/allo/reservations/internal/migrate"
	"github.com/allo/reservations/internal/pgtest"
	"github.com/allo/reservations/internal/postgres"
	"github.com/allo/reservations/internal/reservation"
	"github.com/allo/reservations/migrations"
)

// schemaUpTo has the versioned files up to a number.
func schemaUpTo(t *testing.T, version int) fstest.MapFS {
	t.Helper()
	names, err := fs.Glob(migrations.Schema, "*.sql")
	if err != nil {
		t.Fatal(err)
	}
	folder := fstest.MapFS{}
	for _, name := range names[:min(version, len(names))] {
		text, err := fs.ReadFile(migrations.Schema, name)
		if err != nil {
			t.Fatal(err)
		}
		folder[name] = &fstest.MapFile{Data: text}
	}
	return folder
}

// withoutMovements has this release's routines, but those of testdata/previous in the texts of the
// release before the movements (commit 17ecc4e). They change total and not seq. The other routines
// that write movements are missing, and those that Postgres refuses on a schema without the
// catalog's own columns or the sinks.
func withoutMovements(t *testing.T) fstest.MapFS {
	t.Helper()
	folder := fstest.MapFS{}
	for name, text := range changed(t, func(file, text string) string {
		previous, err := os.ReadFile("testdata/previous/" + path.Base(file))
		if path.Base(file) == "previous_release.sql" { // this release's has resolve_hold, too
			previous, err = os.ReadFile("testdata/before_ledger/previous_release.sql")
		}
		switch {
		case err == nil:
			return string(previous)
		case strings.Contains(text, "stock_movements"), strings.Contains(text, "truth_of_stock_row"),
			strings.Contains(text, " sinks;"):
			return ""
		default:
			return text
		}
	}) {
		folder["procedures/"+name] = &fstest.MapFile{Data: []byte(text)}
	}
	return folder
}

// oldShop is a database of the release before the movements. It has two stock rows of a product.
type oldShop struct {
	*pgtest.Fixture
	t              *testing.T
	product, empty uuid.UUID
	here, there    uuid.UUID
}

func newOldShop(t *testing.T) oldShop {
	t.Helper()
	db := pgtest.NewEmpty(t)
	if _, err := migrate.UpWith(t.Context(), postgres.URL(db.DirectURL), "", schemaUpTo(t, 3),
		withoutMovements(t)); err != nil {
		t.Fatal(err)
	}
	f := pgtest.NewFixture(t, db)
	s := oldShop{
		Fixture: f, t: t, product: f.Product(), empty: f.Product(),
		here: uuid.New(), there: uuid.New(),
	}
	s.Exec("INSERT INTO warehouses (id, name) VALUES ($1, 'Here'), ($2, 'There')",
		s.here.String(), s.there.String())
	s.Stock(s.product, s.here, 10)
	s.Stock(s.product, s.there, 0)
	s.Stock(s.empty, s.here, 0)
	s.adjust(s.there, 20)
	s.confirm(s.hold(s.here))
	s.confirm(s.hold(s.here, s.there))
	return s
}

func (s oldShop) adjust(warehouse uuid.UUID, delta int) {
	s.t.Helper()
	s.Exec("SELECT adjust_stock($1, $2, $3, 'test')", s.product.String(), warehouse.String(), delta)
}

// hold makes a hold of a unit in each warehouse. It calls no routine.
func (s oldShop) hold(warehouses ...uuid.UUID) uuid.UUID {
	s.t.Helper()
	id := uuid.New()
	var product, warehouse *string
	if len(warehouses) == 1 {
		one, where := s.product.String(), warehouses[0].String()
		product, warehouse = &one, &where
	}
	s.Exec(`
INSERT INTO reservations
       (id, product_id, warehouse_id, quantity, created_at, updated_at, expires_at)
VALUES ($1, $2, $3, $4, now(), now(), now() + interval '10 min')`,
		id.String(), product, warehouse, len(warehouses))
	for _, w := range warehouses {
		if warehouse == nil {
			s.Exec(`
INSERT INTO reservation_items (reservation_id, product_id, warehouse_id, quantity, expires_at)
SELECT id, $2, $3, 1, expires_at FROM reservations WHERE id = $1`,
				id.String(), s.product.String(), w.String())
		}
		s.Exec(`
UPDATE inventory SET reserved = reserved + 1, first_end = '-infinity'
WHERE product_id = $1 AND warehouse_id = $2`, s.product.String(), w.String())
	}
	return id
}

func (s oldShop) confirm(hold uuid.UUID) {
	s.t.Helper()
	s.Exec("CALL resolve_hold($1, 'CONFIRMED', NULL, NULL, NULL, NULL)", hold.String())
	if status := s.Status(hold); status != "CONFIRMED" {
		s.t.Fatalf("a confirmed hold is %s", status)
	}
}

func (s oldShop) up(schema, routines fs.FS) {
	s.t.Helper()
	_, err := migrate.UpWith(s.t.Context(), postgres.URL(s.DirectURL), "", schema, routines)
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s oldShop) wantMovements(warehouse uuid.UUID, want ...string) {
	s.t.Helper()
	got := pgtest.QueryOne[[]string](s.Fixture, `
SELECT array_agg(concat_ws(' ', kind, delta, total_after, note) ORDER BY seq) FROM stock_movements
WHERE product_id = $1 AND warehouse_id = $2`, s.product.String(), warehouse.String())
	if diff := cmp.Diff(want, got); diff != "" {
		s.t.Errorf("the movements differ (-want +got):\n%s", diff)
	}
}

// audit returns the promises that the audit finds broken.
func (s oldShop) audit() (broken []string) {
	s.t.Helper()
	pool, err := postgres.Open(postgres.URL(s.DirectURL), 1)
	if err != nil {
		s.t.Fatal(err)
	}
	defer pool.Close()
	violations, err := reservation.New(pool, reservation.Options{}).Audit(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	for _, v := range violations {
		broken = append(broken, v.Promise+": "+v.Detail)
	}
	return broken
}

func (s oldShop) wantSound(when string) {
	s.t.Helper()
	if broken := s.audit(); len(broken) != 0 {
		s.t.Errorf("%s the audit finds %q, want nothing", when, broken)
	}
	if found := previousAudit(s.t, s.Fixture); len(found) != 0 {
		s.t.Errorf("%s the previous release's audit finds %q, want nothing", when, found)
	}
}

// previousAudit runs the previous release's audit and returns what it finds.
func previousAudit(t *testing.T, db *pgtest.Fixture) (found []string) {
	t.Helper()
	text, err := os.ReadFile("testdata/previous_audit.sql")
	if err != nil {
		t.Fatal(err)
	}
	statements := strings.Split(string(text), "\n;\n")
	if len(statements) != 13 {
		t.Fatalf("there are %d statements, want 13", len(statements))
	}
	for _, sql := range statements {
		rows, err := db.Admin.Query(t.Context(), sql)
		if err != nil {
			t.Fatal(err)
		}
		details, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
		found = append(found, details...)
	}
	return found
}

// workOnAsBefore lets the previous release's routines change the totals.
func (s oldShop) workOnAsBefore() {
	s.confirm(s.hold(s.here))
	s.confirm(s.hold(s.here, s.there))
	s.adjust(s.here, 5)
	// This takes one unit out of total and one out of reserved, as a confirm does.
	s.adjust(s.there, -17)
	s.Kill(s.hold(s.there))
	s.adjust(s.there, -1)
}

// A deploy changes the schema before the routines, and one that goes back installs the previous
// release's routines on the new schema.
func TestThePreviousReleasesRoutinesWriteMovements(t *testing.T) {
	t.Parallel()

	s := newOldShop(t)
	s.up(migrations.Schema, withoutMovements(t))
	s.wantMovements(s.here, "OPENING 8 8 taken over")
	s.wantMovements(s.there, "OPENING 19 19 taken over")
	s.wantSound("after the schema's change")

	s.workOnAsBefore()
	const by = " by the previous release"
	s.wantMovements(s.here, "OPENING 8 8 taken over",
		"SALE -1 7"+by, "SALE -1 6"+by, "ADJUSTMENT 5 11"+by)
	s.wantMovements(s.there, "OPENING 19 19 taken over",
		"SALE -1 18"+by, "ADJUSTMENT -17 1"+by, "ADJUSTMENT -1 0"+by)
	s.wantSound("after calls of the previous release")

	s.up(migrations.Schema, migrations.Routines)
	s.confirm(s.hold(s.here))
	s.adjust(s.here, -10)
	s.wantMovements(s.here, "OPENING 8 8 taken over", "SALE -1 7"+by, "SALE -1 6"+by,
		"ADJUSTMENT 5 11"+by, "SALE -1 10", "ADJUSTMENT -10 0 test")
	s.wantSound("after calls of this release")
}

func TestThePreviousReleasesRoutinesWriteNoMovementWithoutTheTrigger(t *testing.T) {
	t.Parallel()

	s := newOldShop(t)
	s.up(migrations.Schema, withoutMovements(t))
	s.Exec("DROP TRIGGER i8_total_moves ON inventory")
	s.workOnAsBefore()
	if broken := s.audit(); len(broken) == 0 || !strings.HasPrefix(broken[0], "I8") {
		t.Errorf("the audit finds %q, want I8 broken", broken)
	}
}

// A deploy that goes back gives the service's role the rights of the previous release only.
func TestTheRoleOfThePreviousReleaseWritesMovements(t *testing.T) {
	t.Parallel()

	s := newOldShop(t)
	role := pgx.Identifier{"back_" + s.Name}.Sanitize()
	s.Exec("CREATE ROLE " + role)
	defer s.Exec("DROP ROLE " + role)
	defer s.Exec("DROP OWNED BY " + role)
	s.Exec("GRANT SELECT, UPDATE (total, reserved) ON inventory TO " + role)
	s.Exec("GRANT SELECT, INSERT ON stock_adjustments TO " + role)
	s.up(migrations.Schema, withoutMovements(t))

	s.Exec("BEGIN; SET LOCAL ROLE " + role + `;
UPDATE inventory SET total = total + 1;
INSERT INTO stock_adjustments (product_id, warehouse_id, delta, reason)
SELECT product_id, warehouse_id, 1, 'found' FROM inventory;
SELECT sum(delta) FROM stock_adjustments; COMMIT`)
	s.wantMovements(s.here, "OPENING 8 8 taken over", "ADJUSTMENT 1 9 by the previous release")
	s.wantSound("after a change")
}

// changeWhileADeployWaits lets a deploy of the movements wait for a reader. Meanwhile a total
// changes, and a stock row is made.
func changeWhileADeployWaits(s oldShop, schema fs.FS) {
	unlock := s.Lock("SELECT 1 FROM inventory")
	done := make(chan error, 1)
	go func() {
		_, err := migrate.UpWith(s.t.Context(), postgres.URL(s.DirectURL), "", schema,
			migrations.Routines)
		done <- err
	}()
	s.WaitUntil(`
SELECT count(*) > 0 FROM pg_stat_activity
WHERE datname = current_database() AND wait_event = 'PgSleep'`)
	s.adjust(s.here, 3)
	s.Stock(s.empty, s.there, 4)
	unlock()
	if err := <-done; err != nil {
		s.t.Fatal(err)
	}
}

func TestTheOpeningsAreTheTotalsUnderTheLock(t *testing.T) {
	t.Parallel()

	s := newOldShop(t)
	changeWhileADeployWaits(s, migrations.Schema)
	s.wantMovements(s.here, "OPENING 11 11 taken over")
	s.wantSound("after the deploy")
}

func TestAnOpeningIsOutOfDateWithoutTheSecondPass(t *testing.T) {
	t.Parallel()

	schema := schemaUpTo(t, math.MaxInt)
	const name, pass = "0004_movements.sql", "WHERE NOT EXISTS (\n            SELECT FROM inventory i"
	text := string(schema[name].Data)
	if !strings.Contains(text, pass) {
		t.Fatalf("%s has no %q: the control must follow it", name, pass)
	}
	schema[name].Data = []byte(strings.Replace(text, pass, "WHERE false AND "+pass[len("WHERE "):], 1))
	s := newOldShop(t)
	changeWhileADeployWaits(s, schema)
	if broken := s.audit(); len(broken) == 0 || !strings.HasPrefix(broken[0], "I8") {
		t.Errorf("the audit finds %q, want I8 broken", broken)
	}
}
