package reservation_test

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/allo/reservations/internal/pgtest"
	"github.com/allo/reservations/internal/postgres"
	"github.com/allo/reservations/internal/reservation"
)

// auditShop is a database with at least one row of every kind. A test then corrupts one of them.
type auditShop struct {
	*fixture
	row                          reservation.Line
	live, confirmed, dead        reservation.Hold
	cart, deadCart, releasedCart reservation.Hold
}

func newAuditShop(t *testing.T) auditShop {
	t.Helper()
	f := newFixture(t, 0)
	ctx := f.Context()
	rows := f.stocks(100, 100)
	s := newService(f.own)
	shop := auditShop{
		fixture: f, row: rows[0],
		live: f.hold(rows[0]), confirmed: f.hold(rows[0]), dead: f.hold(rows[0]),
		cart: f.hold(rows...), deadCart: f.hold(rows...), releasedCart: f.hold(rows...),
	}
	if _, err := s.Confirm(ctx, shop.confirmed.ID, "key"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Release(ctx, shop.releasedCart.ID, ""); err != nil {
		t.Fatal(err)
	}
	shop.kill(shop.dead, shop.deadCart)
	shop.mustAudit(t)
	return shop
}

// corrupt runs a change that the schema would refuse. It drops a constraint first, unless dropSQL
// is empty, and switches triggers and foreign keys off. The change must hit exactly one row.
func (shop auditShop) corrupt(dropSQL, sql string, args ...any) {
	shop.t.Helper()
	ctx := shop.Context()
	if dropSQL != "" {
		shop.Exec(dropSQL)
	}
	err := pgx.BeginFunc(ctx, shop.Admin, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SET LOCAL session_replication_role = replica"); err != nil {
			return err
		}
		tag, err := tx.Exec(ctx, sql, args...)
		if err == nil && tag.RowsAffected() != 1 {
			shop.t.Fatalf("%s changed %d rows, want 1", sql, tag.RowsAffected())
		}
		return err
	})
	if err != nil {
		shop.t.Fatalf("%s: %v", sql, err)
	}
}

const (
	dropWithinTotalSQL = "ALTER TABLE inventory DROP CONSTRAINT i1_reserved_within_total"
	// firstLine selects one line of the cart $1.
	firstLine = `
WHERE reservation_id = $1
  AND product_id = (SELECT min(product_id::text)::uuid FROM reservation_items)`
)

// corruption is an error in the data, and the promises that Audit must report as broken.
type corruption struct {
	promises []string
	dropSQL  string // drops the constraint that would refuse the change; may be empty
	sql      string
	hold     func(auditShop) reservation.Hold // its id is $1; when nil, $1 is the product's id
}

// The holds to corrupt.
func liveHold(shop auditShop) reservation.Hold      { return shop.live }
func confirmedHold(shop auditShop) reservation.Hold { return shop.confirmed }
func deadHold(shop auditShop) reservation.Hold      { return shop.dead }
func cartHold(shop auditShop) reservation.Hold      { return shop.cart }
func releasedHold(shop auditShop) reservation.Hold  { return shop.releasedCart }

var corruptions = map[string]corruption{
	"reserved is negative": {
		promises: []string{"I1", "I2"}, dropSQL: dropWithinTotalSQL,
		sql: "UPDATE inventory SET reserved = -1 WHERE product_id = $1",
	},
	"reserved exceeds total": {
		promises: []string{"I1", "I2"}, dropSQL: dropWithinTotalSQL,
		sql: "UPDATE inventory SET reserved = total + 1 WHERE product_id = $1",
	},
	"reserved is off by one": {
		promises: []string{"I2"},
		sql:      "UPDATE inventory SET reserved = reserved + 1 WHERE product_id = $1",
	},
	"a stock row with holds and movements is deleted": {
		promises: []string{"I2", "I8"},
		sql:      "DELETE FROM inventory WHERE product_id = $1",
	},
	"a live hold is set to EXPIRED by hand": {
		promises: []string{"I2"}, hold: liveHold,
		sql: "UPDATE reservations SET status = 'EXPIRED', updated_at = expires_at WHERE id = $1",
	},
	"the quantity of a confirmed hold changes": {
		promises: []string{"I8"}, hold: confirmedHold,
		sql: "UPDATE reservations SET quantity = quantity + 1 WHERE id = $1",
	},
	"a released hold becomes CONFIRMED": {
		promises: []string{"I8"}, hold: releasedHold,
		sql: "UPDATE reservations SET status = 'CONFIRMED' WHERE id = $1",
	},
	"a line of a resolved hold is counted": {
		promises: []string{"I2"}, hold: releasedHold,
		sql: "UPDATE reservation_items SET counted = true" + firstLine,
	},
	"the hold of some lines is deleted": {
		promises: []string{"I3"}, hold: cartHold,
		sql: "DELETE FROM reservations WHERE id = $1",
	},
	"a hold ends before its stock row's first_end": {
		promises: []string{"I4"},
		sql:      "UPDATE inventory SET first_end = 'infinity' WHERE product_id = $1",
	},
	"a hold was confirmed after its end": {
		promises: []string{"I4"}, hold: confirmedHold,
		sql: "UPDATE reservations SET updated_at = expires_at + interval '1 s' WHERE id = $1",
	},
	"the hold of a key is deleted": {
		promises: []string{"I6", "I8"}, hold: confirmedHold,
		sql: "DELETE FROM reservations WHERE id = $1",
	},
	"a cart's quantity isn't the sum of its lines": {
		promises: []string{"I7"}, hold: cartHold,
		sql: "UPDATE reservations SET quantity = quantity + 1 WHERE id = $1",
	},
	"a line of a live cart isn't counted": {
		promises: []string{"I2", "I7"}, hold: cartHold,
		sql: "UPDATE reservation_items SET counted = false" + firstLine,
	},
	"a line ends before its cart": {
		promises: []string{"I7"}, hold: cartHold,
		sql: "UPDATE reservation_items SET expires_at = expires_at - interval '1 s'" + firstLine,
	},
	"a hold of one line also has a row of lines": {
		promises: []string{"I7", "I2"}, hold: liveHold,
		sql: `INSERT INTO reservation_items
SELECT id, product_id, warehouse_id, expires_at, 1, true FROM reservations WHERE id = $1`,
	},
	"total changes without a movement": {
		promises: []string{"I8"},
		sql:      "UPDATE inventory SET total = total + 1 WHERE product_id = $1",
	},
	"a stock row's number is ahead of its movements": {
		promises: []string{"I8"},
		sql:      "UPDATE inventory SET seq = seq + 1 WHERE product_id = $1",
	},
	"a movement has another delta": {
		promises: []string{"I8"},
		sql:      "UPDATE stock_movements SET delta = delta + 1 WHERE seq = 2 AND product_id = $1",
	},
	"a movement leads to another total": {
		promises: []string{"I8"},
		sql:      "UPDATE stock_movements SET total_after = 7 WHERE seq = 2 AND product_id = $1",
	},
	"a sale becomes an adjustment": {
		promises: []string{"I8"}, hold: confirmedHold,
		sql: "UPDATE stock_movements SET kind = 'ADJUSTMENT' WHERE reservation_id = $1",
	},
	"the first movement is missing": {
		promises: []string{"I8"},
		sql:      "DELETE FROM stock_movements WHERE seq = 1 AND product_id = $1",
	},
	"a movement is missing": {
		promises: []string{"I8"},
		sql:      "DELETE FROM stock_movements WHERE seq = 2 AND product_id = $1",
	},
	"the newest movement is missing": {
		promises: []string{"I8"}, hold: confirmedHold,
		sql: "DELETE FROM stock_movements WHERE reservation_id = $1",
	},
	"a confirmed hold becomes RELEASED": {
		promises: []string{"I8"}, hold: confirmedHold,
		sql: "UPDATE reservations SET status = 'RELEASED' WHERE id = $1",
	},
	"a confirmed hold becomes PENDING": {
		promises: []string{"I2", "I8"}, hold: confirmedHold,
		sql: "UPDATE reservations SET status = 'PENDING' WHERE id = $1",
	},
	"a hold expired before its end": {
		promises: []string{"I2", "I9"}, hold: deadHold,
		sql: `UPDATE reservations SET status = 'EXPIRED', updated_at = expires_at - interval '1 s'
WHERE id = $1`,
	},
}

// plant puts a corruption into the data.
func (shop auditShop) plant(c corruption) {
	shop.t.Helper()
	id := shop.row.ProductID.String()
	if c.hold != nil {
		id = c.hold(shop).ID.String()
	}
	shop.corrupt(c.dropSQL, c.sql, id)
}

func TestAuditFindsEachCorruption(t *testing.T) {
	t.Parallel()

	for name, c := range corruptions {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			shop := newAuditShop(t)
			shop.plant(c)

			wantBroken(t, shop.own, c.promises...)
		})
	}
}

func TestAuditFindsAServerThatIsNotDurable(t *testing.T) {
	t.Parallel()

	f := newFixture(t, 0)
	f.Exec("ALTER ROLE CURRENT_USER IN DATABASE " + pgx.Identifier{f.Name}.Sanitize() +
		" SET synchronous_commit = off")

	wantBroken(t, openPool(t, f.DirectURL, 1, postgres.Unchecked), "I5")
}

// wantBroken fails unless Audit finds that each of the promises is broken.
func wantBroken(t *testing.T, pool *postgres.Pool, promises ...string) {
	t.Helper()
	violations, err := newService(pool).Audit(t.Context())
	if err != nil {
		t.Fatalf("Audit() = %v", err)
	}
	r := report{found: violations}
	for _, promise := range promises {
		if !slices.Contains(r.broken(), promise) {
			t.Errorf("Audit() finds %v broken, want %s among them:%s", r.broken(), promise, &r)
		}
	}
}

// The holds fill several slices, and the audit must look at the last one too.
func TestAuditLooksAtEverySlice(t *testing.T) {
	t.Parallel()

	const holds = 25_000
	f := newFixture(t, 0)
	row := f.stock(holds)
	f.deadHolds(row, holds)
	f.Exec("ANALYZE")
	f.mustAudit(t)
	f.Exec("ALTER TABLE reservations DISABLE TRIGGER i3_resolved_once_i4_alive")
	for _, extreme := range []string{"ASC", "DESC"} {
		f.Exec(`
UPDATE reservations SET status = 'EXPIRED', updated_at = expires_at
WHERE id = (SELECT r.id FROM reservations r ORDER BY r.id ` + extreme + ` LIMIT 1)`)
	}
	f.Exec(`
UPDATE reservations SET updated_at = updated_at - interval '1 s' WHERE status = 'EXPIRED'`)
	f.Exec("UPDATE inventory SET reserved = reserved - 2")

	violations, err := newService(f.own).Audit(f.Context())

	if err != nil || len(violations) != 2 || violations[0].Promise != "I9" {
		t.Errorf("Audit() = %v, %v, want two violations of I9", violations, err)
	}
}

// Each slice of the movements begins where the one before ended.
func TestAuditLooksAtEverySliceOfTheMovements(t *testing.T) {
	t.Parallel()

	const movements = 25_000
	f := newFixture(t, 0)
	row := f.stock(0)
	f.Exec("ALTER TABLE stock_movements DISABLE TRIGGER i8_movement_is_right")
	f.Exec(`
INSERT INTO stock_movements (product_id, warehouse_id, seq, at, kind, delta, total_after)
SELECT product_id, warehouse_id, n, clock_timestamp(), 'ADJUSTMENT', 1, n - 1
FROM inventory, generate_series(2, $1) n`, movements)
	f.Exec("ALTER TABLE inventory DISABLE TRIGGER i8_total_moves")
	f.Exec("UPDATE inventory SET seq = $1::bigint, total = $1::bigint - 1", movements)
	f.mustAudit(t)
	f.Exec("ALTER TABLE stock_movements DISABLE TRIGGER i8_movements_stay")
	for _, seq := range []int{2, 10_000, 10_001, 20_000, movements - 1} {
		const sql = "UPDATE stock_movements SET delta = $1 WHERE seq = $2 AND product_id = $3"
		f.Exec(sql, 2, seq, row.ProductID.String())
		violations, err := newService(f.own).Audit(f.Context())
		f.Exec(sql, 1, seq, row.ProductID.String())
		// All but sales no longer adds up to the total either.
		if err != nil || len(violations) != 2 || violations[0].Promise != "I8" ||
			!strings.Contains(violations[0].Detail, fmt.Sprintf(": movement %d,", seq)) {
			t.Errorf("Audit() = %v, %v, want movement %d found", violations, err, seq)
		}
	}
	f.mustAudit(t)
}

func TestAuditReportsAtMostTwentyViolationsOfACheck(t *testing.T) {
	t.Parallel()

	f := newFixture(t, 0)
	for range 30 {
		row := f.stock(5)
		f.Exec("UPDATE inventory SET reserved = 1 WHERE product_id = $1", row.ProductID.String())
	}

	violations, err := newService(f.own).Audit(f.Context())

	if err != nil || len(violations) != 20 {
		t.Errorf("Audit() = %d violations, %v, want 20 of 30", len(violations), err)
	}
}

// A snapshot on the writer makes hot rows slow, so the audit reads a server that follows it.
func TestTheAuditReadsOnTheReader(t *testing.T) {
	t.Parallel()

	primary, db := pgtest.NewServer(t, nil)
	u, err := url.Parse(db.DirectURL)
	if err != nil {
		t.Fatal(err)
	}
	_, followed := pgtest.NewStandby(t, primary, db, u.Host)
	f, reader := open(t, db, 0), open(t, followed, 0)
	s := reservation.New(f.own,
		reservation.Options{HoldTTL: holdTTL, MaxHold: maxHold, Reader: reader.asReader()})
	followedUp := func() {
		t.Helper()
		written := queryOne[string](f, "SELECT pg_current_wal_insert_lsn()::text")
		reader.WaitUntil("SELECT pg_last_wal_replay_lsn() >= $1::pg_lsn", written)
	}
	promises := func() []string {
		t.Helper()
		found, err := s.Audit(f.Context())
		if err != nil {
			t.Fatal(err)
		}
		var promises []string
		for _, v := range found {
			promises = append(promises, v.Promise)
		}
		return promises
	}

	row := f.stock(5)
	f.hold(row)
	followedUp()
	if got := promises(); len(got) != 0 {
		t.Errorf("the audit of a sound database found %v, want nothing", got)
	}

	// The reader stands still, so it doesn't have the violation yet.
	reader.Exec("SELECT pg_wal_replay_pause()")
	reader.WaitUntil("SELECT pg_get_wal_replay_pause_state() = 'paused'")
	f.Exec("UPDATE inventory SET reserved = 2")
	if got := promises(); len(got) != 0 {
		t.Errorf("the audit found %v that only the writer has, want it to read the reader", got)
	}
	reader.Exec("SELECT pg_wal_replay_resume()")
	followedUp()
	if got := promises(); !slices.Equal(got, []string{"I2"}) {
		t.Errorf("the audit found %v, want I2", got)
	}

	// The settings are the writer's.
	f.Exec("ALTER SYSTEM SET fsync = off")
	f.Exec("SELECT pg_reload_conf()")
	f.WaitUntil("SELECT current_setting('fsync') = 'off'")
	if got := promises(); !slices.Equal(got, []string{"I2", "I5"}) {
		t.Errorf("the audit found %v on a writer without fsync, want I2 and I5", got)
	}
}
