package migrate_test

import (
	"net/url"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/allo/reservations/internal/migrate"
	"github.com/allo/reservations/internal/pgtest"
	"github.com/allo/reservations/internal/postgres"
)

// roles makes a role for the service and one that owns the database and no table, and gives them
// their rights. as is the database's URL for one of them.
func roles(t *testing.T, db *pgtest.Fixture) (
	service, owner string, as func(role string) string, undo func(),
) {
	t.Helper()
	suffix := strings.TrimPrefix(db.Name, "allo_test_")
	service, owner = "serves_"+suffix, "operates_"+suffix
	database := pgx.Identifier{db.Name}.Sanitize()
	before := pgtest.QueryOne[string](db, "SELECT quote_ident(current_user)")
	undo = func() {
		db.Exec("ALTER DATABASE " + database + " OWNER TO " + before)
		for _, role := range []string{service, owner} {
			db.Exec("DROP OWNED BY " + pgx.Identifier{role}.Sanitize())
			db.Exec("DROP ROLE " + pgx.Identifier{role}.Sanitize())
		}
	}
	for _, role := range []string{service, owner} {
		db.Exec("CREATE ROLE " + pgx.Identifier{role}.Sanitize() + " LOGIN PASSWORD 'role'")
	}
	db.Exec("ALTER DATABASE " + database + " OWNER TO " + pgx.Identifier{owner}.Sanitize())
	if _, err := migrate.UpAndGrant(t.Context(), postgres.URL(db.DirectURL), service); err != nil {
		t.Fatal(err)
	}
	return service, owner, func(role string) string {
		u, err := url.Parse(db.DirectURL)
		if err != nil {
			t.Fatal(err)
		}
		u.User = url.UserPassword(role, "role")
		return u.String()
	}, undo
}

// tryAs runs a statement with a role's URL and returns its error's text, or nothing.
func tryAs(t *testing.T, address, sql string, args ...any) string {
	t.Helper()
	f := pgtest.NewFixture(t, pgtest.Database{DirectURL: address})
	defer f.Admin.Close()
	if _, err := f.Admin.Exec(t.Context(), sql, args...); err != nil {
		return err.Error()
	}
	return ""
}

// The database's owner, who owns no table, adjusts stock where dead holds are in the way.
func TestTheOwnerTakesTheUnitsOfDeadHolds(t *testing.T) {
	t.Parallel()

	db := pgtest.NewFixture(t, pgtest.New(t))
	product, warehouse := db.Product(), db.Warehouse()
	db.Stock(product, warehouse, 10)
	_, owner, as, undo := roles(t, db)
	defer undo()
	dead := func() {
		id := uuid.New()
		db.Exec("CALL reserve_line($1, $2, $3, 5, '1 h', NULL, NULL, NULL, NULL)", id.String(),
			product.String(), warehouse.String())
		db.Kill(id)
	}
	dead()
	if got := tryAs(t, as(owner), "SELECT adjust_stock($1, $2, -6, 'broken')", product.String(),
		warehouse.String()); got != "" {
		t.Errorf("adjust_stock() by the owner = %s", got)
	}
	db.Exec("SELECT adjust_stock($1, $2, 1, 'found')", product.String(), warehouse.String())
	dead()
	free := func() string {
		return tryAs(t, as(owner), "CALL free_units($1, $2, 5, NULL)", product.String(),
			warehouse.String())
	}
	for _, right := range []string{"INSERT ON ledger", "UPDATE (version) ON reservations"} {
		db.Exec("REVOKE " + right + " FROM pg_database_owner")
		if got := free(); !strings.Contains(got, "permission denied") {
			t.Errorf("without %s free_units() = %q, want it refused", right, got)
		}
		db.Exec("GRANT " + right + " TO pg_database_owner")
	}
	if got := free(); got != "" {
		t.Errorf("free_units() by the owner = %s", got)
	}
	if n := pgtest.QueryOne[int](db, "SELECT count(*) FROM ledger WHERE kind = 'e'"); n != 2 {
		t.Errorf("the ledger has %d expiries, want 2", n)
	}
}
