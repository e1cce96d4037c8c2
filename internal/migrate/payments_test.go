package migrate_test

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/allo/reservations/internal/pgtest"
)

// The calls of the previous release (commit e81ea59), and those that took their place.
const (
	oldReserveLine = "CALL reserve_line($1, $2, $3, $4, $5, $6, $7, NULL, NULL)"
	oldReserveCart = "CALL reserve_cart($1, $2, $3, $4, $5, $6, $7, NULL, NULL)"
	oldResolve     = "CALL resolve_hold($1, $2, 'v', $3, $4, $5, NULL, NULL)"
	oldExtend      = "CALL extend_hold($1, $2, $3, $4, $5, NULL, NULL)"
	newResolve     = "CALL resolve_hold($1, $2, 'v', $3, NULL, NULL, $4, $5, NULL, NULL)"
	newExtend      = "CALL extend_hold($1, $2, $3, NULL, $4, NULL, $5, NULL, NULL, NULL, NULL)"
)

// paymentShop is a database with two products, of which 9 units each are in a warehouse.
func paymentShop(t *testing.T) (*pgtest.Fixture, *pgconn.PgConn) {
	t.Helper()
	db := pgtest.NewFixture(t, pgtest.New(t))
	db.Exec(`
INSERT INTO products VALUES ('` + product + `', 'mug', 'M'), ('` + other + `', 'lamp', 'L');
INSERT INTO warehouses VALUES ('` + warehouse + `', 'here');
INSERT INTO inventory (product_id, warehouse_id, total)
SELECT p.id, w.id, 9 FROM products p, warehouses w`)
	conn, err := pgconn.Connect(t.Context(), db.DirectURL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(t.Context()) })
	return db, conn
}

// While a deploy moves the traffic, the previous release meets holds that are being paid. What the
// payment forbids is refused with an outcome that it knows. Its confirm is that of the payment. The
// present routines have an outcome of their own, to which it would answer 500.
func TestThePreviousReleaseMeetsAPayment(t *testing.T) {
	t.Parallel()
	db, conn := paymentShop(t)
	for _, call := range []recordedCall{
		{
			oldReserveLine,
			[]string{single, product, warehouse, "2", tenMin, "", ""},
			[]string{"HELD", "T"},
		},
		{newExtend, []string{single, "p", "pay 1", tenMin, hour}, []string{"PENDING", "pay 1"}},
		{oldResolve, []string{single, "RELEASED", "", "", ""}, []string{"RETRY", ""}},
		{newResolve, []string{single, "RELEASED", "", "", ""}, []string{"PAYMENT_STARTED", ""}},
		{oldExtend, []string{single, tenMin, hour, "", ""}, []string{"EXTENSION_LIMIT", ""}},
		{newExtend, []string{single, "x", "", tenMin, hour}, []string{"PAYMENT_STARTED", ""}},
		{
			oldResolve,
			[]string{single, "CONFIRMED", "shop", "key", keyHash},
			[]string{"CONFIRMED", single},
		},
		{oldResolve, []string{single, "CONFIRMED", "shop", "key", keyHash}, []string{"REPLAYED", single}},
		{
			"SELECT hold, matches, walked, to_json(seen_at) FROM list_holds($1, $2, $3, $4, $5, $6, $7)",
			[]string{"", "", "", "infinity", "ffffffff-ffff-ffff-ffff-ffffffffffff", "51", "51"},
			[]string{single, "t", "1", "T"},
		},
	} {
		call.run(t, conn)
	}
	const want = "pay 1 CONFIRMED"
	if got := pgtest.QueryOne[string](db, `
SELECT string_agg(concat(reference, ' ', outcome), ', ') FROM hold_payments`); got != want {
		t.Errorf("the payments are %s, want %s", got, want)
	}
}

// The previous release names no owner. It knows SHORT, and reads its shortages.
func TestThePreviousReleaseRefusesWhatIsLimited(t *testing.T) {
	t.Parallel()
	db, conn := paymentShop(t)
	db.Exec("UPDATE products SET max_per_owner = 4 WHERE sku = 'M'")
	db.Exec("UPDATE inventory SET max_per_owner = 4 WHERE product_id = $1", product)
	type shortage struct { // as the previous release reads it
		ProductID   string `json:"product_id"`
		WarehouseID string `json:"warehouse_id"`
		Requested   int    `json:"requested"`
		Available   int    `json:"available"`
		NotForSale  bool   `json:"not_for_sale"`
	}
	want := []shortage{{ProductID: product, WarehouseID: warehouse, Requested: 2, Available: 4}}
	for sql, args := range map[string][]string{
		oldReserveLine: {single, product, warehouse, "2", tenMin, "", ""},
		oldReserveCart: {
			cart, "{" + product + "," + other + "}", "{" + warehouse + "," + warehouse + "}", "{2,1}",
			tenMin, "", "",
		},
	} {
		row := recordedCall{sql, args, []string{"SHORT", "["}}.run(t, conn)
		if row == nil {
			continue
		}
		var got []shortage
		if err := json.Unmarshal(row[1], &got); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: the shortages differ (-want +got):\n%s", sql, diff)
		}
	}
	if n := pgtest.QueryOne[int](db, "SELECT count(*) FROM reservations"); n != 0 {
		t.Errorf("%d holds were made, want 0", n)
	}
}

// The previous release replays what this one has answered, and passes over what it doesn't know.
func TestThePreviousReleaseReplaysAnAnswerWithAnOwner(t *testing.T) {
	t.Parallel()
	_, conn := paymentShop(t)
	recordedCall{
		"CALL reserve_detailed($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, NULL, NULL)",
		[]string{
			single, "{" + product + "}", "{" + warehouse + "}", "{2}", tenMin, "ann", "order 1", "",
			"key", keyHash,
		},
		[]string{"PENDING", `"owner": "ann"`},
	}.run(t, conn)
	recordedCall{
		"SELECT outcome, answer FROM replay_answer($1, $2)",
		[]string{"key", keyHash},
		[]string{"REPLAYED", single},
	}.run(t, conn)
	recordedCall{
		"SELECT outcome, answer FROM read_hold($1)", []string{single}, []string{"PENDING", `"hold": {`},
	}.run(t, conn)
}
