package migrate_test

import (
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/allo/reservations/internal/pgtest"
	"github.com/allo/reservations/internal/postgres"
	"github.com/allo/reservations/internal/reservation"
)

// agoSQL lets all that is resolved have happened long ago.
const agoSQL = `
UPDATE reservations SET created_at = created_at - interval '100 d',
       updated_at = updated_at - interval '100 d', expires_at = expires_at - interval '100 d';
UPDATE reservation_items SET expires_at = expires_at - interval '100 d';
UPDATE stock_movements SET at = at - interval '100 d';
` + pgtest.MoveLedgerSQL

// agedShop is a database with a confirmed hold and a released cart of long ago. Its stock rows are
// closed.
func agedShop(t *testing.T) *pgtest.Fixture {
	t.Helper()
	db := pgtest.NewFixture(t, pgtest.New(t))
	product, here, there := db.Product(), db.Warehouse(), db.Warehouse()
	db.Stock(product, here, 9)
	db.Stock(product, there, 9)
	pool, err := postgres.Open(postgres.URL(db.DirectURL), 1)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	s := reservation.New(pool, reservation.Options{HoldTTL: time.Minute, MaxHold: time.Hour})
	line := reservation.Line{ProductID: product, WarehouseID: here, Quantity: 2}
	other := reservation.Line{ProductID: product, WarehouseID: there, Quantity: 1}
	for _, lines := range [][]reservation.Line{{line}, {line, other}, {other}} {
		answer, err := s.Reserve(t.Context(), reservation.Request{Lines: lines})
		if err != nil {
			t.Fatal(err)
		}
		end := s.Confirm
		if len(lines) > 1 {
			end = s.Release
		}
		if _, err := end(t.Context(), answer.Hold.ID, ""); err != nil {
			t.Fatal(err)
		}
	}
	db.Exec("SELECT adjust_stock($1, $2, 5, 'delivery')", product.String(), here.String())
	err = pgx.BeginFunc(t.Context(), db.Admin, func(tx pgx.Tx) error {
		_, err := tx.Exec(t.Context(), `
SET LOCAL session_replication_role = replica;`+agoSQL+`;
INSERT INTO stock_closings (product_id, warehouse_id, seq, total, at)
SELECT product_id, warehouse_id, seq, total, clock_timestamp() FROM inventory`)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return db
}

// archive sweeps with a retention, as the role of a URL.
func archive(t *testing.T, address string) reservation.SweepResult {
	t.Helper()
	pool, err := postgres.Open(postgres.URL(address), 1)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	s := reservation.New(pool, reservation.Options{Retention: 30 * 24 * time.Hour})
	result, err := s.Sweep(t.Context())
	if err != nil {
		t.Fatalf("Sweep() = %v", err)
	}
	return result
}

func TestTheAuditOfThePreviousReleaseReadsAnArchivedShop(t *testing.T) {
	t.Parallel()

	db := agedShop(t)
	if found := pgtest.PreviousAudit(t, db); len(found) != 0 {
		t.Fatalf("before, the previous release's audit finds %q, want nothing", found)
	}
	// The first and the newest movement of each stock row stay, so one sale moves.
	if result := archive(t, db.DirectURL); result.Archived != 3 || result.ArchivedMoves != 1 {
		t.Errorf("Sweep() = %+v, want 3 holds and a movement archived", result)
	}
	if found := pgtest.PreviousAudit(t, db); len(found) != 0 {
		t.Errorf("the previous release's audit finds %q, want nothing", found)
	}
	db.Exec("UPDATE archived_stock SET sold = sold + 1, moved = moved + 2")
	if found := pgtest.PreviousAudit(t, db); len(found) != 2 {
		t.Errorf("with wrong sums the previous release's audit finds %q, want two stock rows", found)
	}
}

// The service's role archives and can't delete. The database's owner, who owns no table, detaches
// and drops a month. Nobody else can.
func TestTheRolesOfTheArchive(t *testing.T) {
	t.Parallel()

	db := agedShop(t)
	service, owner, as, undo := roles(t, db)
	defer undo()
	if result := archive(t, as(service)); result.Archived != 3 || result.ArchivedMoves != 1 {
		t.Errorf("Sweep() by the service's role = %+v, want 3 holds and a movement archived", result)
	}

	month := pgtest.QueryOne[string](db,
		"SELECT min(month AT TIME ZONE 'UTC')::date::text FROM archived_months")
	try := func(role, sql string) string { return tryAs(t, as(role), sql) }
	for _, c := range []struct{ role, sql, want string }{
		{service, "DELETE FROM reservations", "permission denied"},
		{service, "DELETE FROM archived_reservations", "permission denied"},
		{service, "INSERT INTO archived_months SELECT now()", "permission denied"},
		{service, "SELECT make_archive_month(now())", "permission denied"},
		{service, "SELECT detach_archive('" + month + "')", "only the database's owner"},
		{owner, "SELECT detach_archive('" + month + "')", ""},
		{owner, "SELECT * FROM archived_reservations_" + strings.ReplaceAll(month[:7], "-", "_"), ""},
		{service, "SELECT drop_archive('" + month + "')", "only the database's owner"},
		{owner, "SELECT drop_archive('" + month + "')", ""},
	} {
		if got := try(c.role, c.sql); c.want == "" && got != "" || !strings.Contains(got, c.want) {
			t.Errorf("%s as %s = %q, want %q", c.sql, c.role, got, c.want)
		}
	}
	if found := pgtest.PreviousAudit(t, db); len(found) != 0 {
		t.Errorf("after the month is gone, the previous release's audit finds %q, want nothing", found)
	}
}
