package migrate_test

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/allo/reservations/internal/pgtest"
)

// The arguments of the recorded calls.
const (
	product   = "0192d000-0000-7000-8000-000000000001"
	warehouse = "0192d000-0000-7000-8000-000000000002"
	other     = "0192d000-0000-7000-8000-000000000003"
	single    = "0192d000-0000-7000-8000-000000000011"
	cart      = "0192d000-0000-7000-8000-000000000012"
	extended  = "0192d000-0000-7000-8000-000000000013"
	tenMin    = "600000000 microseconds"
	hour      = "3600000000 microseconds"
	keyHash   = `\x0000000000000000000000000000000000000000000000000000000000000000`
)

// recordedCall is a statement that the previous release (commit 9373b8c) sends. The arguments are
// in text form. Each column of the first row of the answer must contain the text in want.
type recordedCall struct {
	sql  string
	args []string // "" is null
	want []string
}

var previousCalls = []recordedCall{
	{"SELECT 1", nil, []string{"1"}},
	{
		`
SELECT CASE WHEN to_regproc('aurora_version') IS NULL THEN current_setting('fsync') ` +
			`ELSE 'on' END, current_setting('synchronous_commit'),
       current_setting('lock_timeout'), current_setting('statement_timeout')`,
		nil,
		[]string{"", "on", "2s", "5s"},
	},
	{
		"CALL reserve_line($1, $2, $3, $4, $5, $6, $7, $8, NULL, NULL)",
		[]string{"true", single, product, warehouse, "2", tenMin, "key", keyHash},
		[]string{"HELD", "T"},
	},
	{
		"CALL reserve_line($1, $2, $3, $4, $5, $6, $7, $8, NULL, NULL)",
		[]string{"true", single, product, warehouse, "2", tenMin, "key", keyHash},
		[]string{"REPLAYED", single},
	},
	{
		"CALL reserve_line($1, $2, $3, $4, $5, $6, $7, $8, NULL, NULL)",
		[]string{"true", cart, product, warehouse, "99", tenMin, "", ""},
		[]string{"SHORT", `"available": 7`},
	},
	{
		"CALL reserve_cart($1, $2, $3, $4, $5, $6, $7, $8, NULL, NULL)",
		[]string{
			"true", cart, "{" + product + "," + other + "}", "{" + warehouse + "," + warehouse + "}",
			"{1,2}", tenMin, "", "",
		},
		[]string{"HELD", "T"},
	},
	{
		"CALL reserve_line($1, $2, $3, $4, $5, $6, $7, $8, NULL, NULL)",
		[]string{"true", extended, other, warehouse, "1", tenMin, "", ""},
		[]string{"HELD", "T"},
	},
	{
		"CALL extend_hold($1, $2, $3, $4, $5, $6, NULL, NULL)",
		[]string{"true", extended, tenMin, hour, "", ""},
		[]string{"PENDING", extended},
	},
	{
		"CALL resolve_hold($1, $2, $3, $4, $5, NULL, NULL)",
		[]string{"true", single, "CONFIRMED", "", ""},
		[]string{"CONFIRMED", `"status": "CONFIRMED"`},
	},
	{
		"CALL resolve_hold($1, $2, $3, $4, $5, NULL, NULL)",
		[]string{"true", cart, "RELEASED", "", ""},
		[]string{"RELEASED", `"items": [`},
	},
	{
		"SELECT outcome, answer FROM read_hold($1)",
		[]string{cart},
		[]string{"RELEASED", `"hold": {`},
	},
	{
		"SELECT * FROM list_products($1, $2, $3)",
		[]string{"", "00000000-0000-0000-0000-000000000000", "51"},
		[]string{other, "lamp", "L", warehouse, "here", "9", "1"},
	},
	{
		`
SELECT id, name FROM warehouses
WHERE (name, id) > ($1, $2)
ORDER BY name, id
LIMIT $3`,
		[]string{" ", "00000000-0000-0000-0000-000000000000", "51"},
		[]string{warehouse, "here"},
	},
	{
		"SELECT hold, matches, walked, to_json(seen_at) FROM list_live_holds($1, $2, $3, $4, $5, $6)",
		[]string{other, "", "-infinity", "00000000-0000-0000-0000-000000000000", "51", "10000"},
		[]string{extended, "t", "1", "T"},
	},
	{
		"SELECT hold, matches, walked, to_json(seen_at) FROM list_holds($1, $2, $3, $4, $5, $6, $7)",
		[]string{"CONFIRMED", "", "", "infinity", "ffffffff-ffff-ffff-ffff-ffffffffffff", "51", "51"},
		[]string{single, "t", "1", "T"},
	},
	{"SELECT operator_stats()", nil, []string{`"live": 1`}},
	{"SELECT keep_audit($1, $2)", []string{"0", "false"}, []string{""}},
	{
		`
SELECT to_json(s) FROM (
    SELECT expired, units, coalesce(extract(epoch FROM oldest), 0) AS oldest, more
    FROM sweep_holds($1)) s`,
		[]string{"1000"},
		[]string{`"expired":0`},
	},
	{`SELECT to_json(s) FROM sweep_keys($1) s`, []string{"1000"}, []string{"0"}},
	{
		"SELECT adjust_stock($1, $2, $3, $4)",
		[]string{product, warehouse, "5", "delivery"},
		[]string{""},
	},
}

// The previous release calls the new schema until a deploy has moved the traffic.
func TestCallsOfThePreviousReleaseWork(t *testing.T) {
	t.Parallel()

	callAll(t, previousCalls)
}

// callAll sends calls to a database with two stock rows.
func callAll(t *testing.T, calls []recordedCall) {
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
	defer conn.Close(t.Context())

	for _, call := range calls {
		call.run(t, conn)
	}
}

// run sends the call, and compares and returns the first row of the answer: nil when the call
// fails.
func (call recordedCall) run(t *testing.T, conn *pgconn.PgConn) [][]byte {
	t.Helper()
	args := make([][]byte, len(call.args))
	for i, arg := range call.args {
		if arg != "" {
			args[i] = []byte(arg)
		}
	}
	if strings.Contains(call.sql, "list_products") {
		args[0] = []byte{}
	}
	result := conn.ExecParams(t.Context(), call.sql, args, nil, nil, nil).Read()
	if result.Err != nil || len(result.Rows) == 0 || len(result.Rows[0]) != len(call.want) {
		t.Errorf("%s with %v = %q, %v, want %q", call.sql, call.args, result.Rows, result.Err,
			call.want)
		return nil
	}
	for i, want := range call.want {
		if !strings.Contains(string(result.Rows[0][i]), want) {
			t.Errorf("%s with %v: column %d is %q, want %q in it",
				call.sql, call.args, i+1, result.Rows[0][i], want)
		}
	}
	return result.Rows[0]
}

// The previous release (commit df902a4) and the one before don't know that a line isn't for sale:
// they would answer 500 to an outcome of its own. They know SHORT, and read its shortages.
func TestThePreviousReleaseRefusesWhatIsNotForSale(t *testing.T) {
	t.Parallel()

	db := pgtest.NewFixture(t, pgtest.New(t))
	db.Exec(`
INSERT INTO products VALUES ('` + product + `', 'mug', 'M'), ('` + other + `', 'lamp', 'L');
UPDATE products SET status = 'ARCHIVED' WHERE sku = 'M';
INSERT INTO warehouses VALUES ('` + warehouse + `', 'here');
INSERT INTO inventory (product_id, warehouse_id, total)
SELECT p.id, w.id, 9 FROM products p, warehouses w`)
	conn, err := pgconn.Connect(t.Context(), db.DirectURL)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())

	line := []string{single, product, warehouse, "2", tenMin, "", ""}
	lines := []string{
		cart, "{" + product + "," + other + "}", "{" + warehouse + "," + warehouse + "}", "{2,99}",
		tenMin, "", "",
	}
	type shortage struct { // as the previous release reads it
		ProductID   string `json:"product_id"`
		WarehouseID string `json:"warehouse_id"`
		Requested   int    `json:"requested"`
		Available   int    `json:"available"`
	}
	want := []shortage{{product, warehouse, 2, 0}}
	early := func(args []string) []string { return append([]string{"true"}, args...) }
	for sql, args := range map[string][]string{
		"CALL reserve_line($1, $2, $3, $4, $5, $6, $7, NULL, NULL)":     line,
		"CALL reserve_cart($1, $2, $3, $4, $5, $6, $7, NULL, NULL)":     lines,
		"CALL reserve_line($1, $2, $3, $4, $5, $6, $7, $8, NULL, NULL)": early(line),
		"CALL reserve_cart($1, $2, $3, $4, $5, $6, $7, $8, NULL, NULL)": early(lines),
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
}

// After a deploy that goes back, the previous release's audit doesn't know the answers of the
// catalog's writes and of the movements. RUNBOOK.md has the statement that removes them.
func TestTheAuditOfThePreviousReleaseWorksAfterTheRunbooksStatement(t *testing.T) {
	t.Parallel()

	db := pgtest.NewFixture(t, pgtest.New(t))
	db.Exec(`
SELECT put_warehouses(ARRAY[gen_random_uuid()], '{W}', '{Here}', '{OPEN}', 'w', '` + keyHash + `'),
       put_products(ARRAY[gen_random_uuid()], '{S}', '{Mug}', '{ACTIVE}', '{1}', '{1}', 'p',
                    '` + keyHash + `')`)
	db.Exec(`
CALL move_stock('erp', 'delivery', NULL, false, false,
    '[{"line": 1, "sku": "S", "warehouse": "W", "delta": 5}]', 'm', '` + keyHash + `', NULL, NULL)`)
	found := previousAudit(t, db)
	if len(found) != 3 || !strings.HasPrefix(found[0], "key ") {
		t.Fatalf("the audit finds %q, want the three keys", found)
	}
	runbook, err := os.ReadFile("../../infra/RUNBOOK.md")
	if err != nil {
		t.Fatal(err)
	}
	const remove = "DELETE FROM idempotency_keys WHERE answer ? 'results';"
	if !strings.Contains(string(runbook), remove) {
		t.Fatalf("RUNBOOK.md has no %q", remove)
	}
	db.Exec(remove)
	if found := previousAudit(t, db); len(found) != 0 {
		t.Errorf("the audit finds %q, want no violation", found)
	}
}

// The previous release's audit reads the tables directly, so it would miss a column that is gone.
func TestTheAuditOfThePreviousReleaseWorks(t *testing.T) {
	t.Parallel()

	db := pgtest.NewFixture(t, pgtest.New(t))
	db.Stock(db.Product(), db.Warehouse(), 5)
	if found := previousAudit(t, db); len(found) != 0 {
		t.Errorf("the audit finds %q, want no violation", found)
	}
}
