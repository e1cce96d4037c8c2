package migrate_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

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
	detailed  = "0192d000-0000-7000-8000-000000000013"
	replacing = "0192d000-0000-7000-8000-000000000014"
	successor = "0192d000-0000-7000-8000-000000000015"
	living    = "0192d000-0000-7000-8000-000000000016"
	lease     = "0192d000-0000-7000-8000-000000000021"
	newOne    = "0192d000-0000-7000-8000-000000000031"
	lowest    = "00000000-0000-0000-0000-000000000000"
	highest   = "ffffffff-ffff-ffff-ffff-ffffffffffff"
	tenMin    = "600000000 microseconds"
	hour      = "3600000000 microseconds"
	keyHash   = `\x0000000000000000000000000000000000000000000000000000000000000000`
	otherHash = `\x0000000000000000000000000000000000000000000000000000000000000001`
)

// recordedCall is a statement that the previous release sends. The arguments are in text form. Each
// column of the first row of the answer must contain the text in want. Without want, the call must
// succeed.
type recordedCall struct {
	sql  string
	args []string // "" is null, and empty is ""
	want []string
}

// empty stands for an argument that is an empty text.
const empty = "''"

// The statements of verbs.
const (
	reserveLine     = "CALL reserve_line($1, $2, $3, $4, $5, $6, $7, NULL, NULL)"
	reserveCart     = "CALL reserve_cart($1, $2, $3, $4, $5, $6, $7, NULL, NULL)"
	reserveDetailed = "CALL reserve_detailed($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, NULL, NULL)"
	resolveHold     = "CALL resolve_hold($1, $2, $3, $4, $5, $6, $7, $8, NULL, NULL)"
	extendHold      = "CALL extend_hold($1, $2, $3, $4, $5, $6, $7, $8, $9, NULL, NULL)"
	moveStock       = "CALL move_stock($1, $2, $3, $4, $5, $6, $7, $8, NULL, NULL)"
	returnGoods     = "CALL return_goods($1, $2, $3, $4, $5, $6, NULL, NULL)"
)

// verbCalls are the calls that change holds and stock.
var verbCalls = []recordedCall{
	{
		reserveLine,
		[]string{single, product, warehouse, "2", tenMin, "key", keyHash},
		[]string{"HELD", "T"},
	},
	{
		reserveLine,
		[]string{single, product, warehouse, "2", tenMin, "key", keyHash},
		[]string{"REPLAYED", single},
	},
	{
		reserveLine,
		[]string{single, product, warehouse, "2", tenMin, "key", otherHash},
		[]string{"KEY_REUSED", ""},
	},
	{
		reserveLine,
		[]string{cart, product, warehouse, "99", tenMin, "", ""},
		[]string{"SHORT", `"available": 7`},
	},
	{
		reserveLine,
		[]string{cart, product, newOne, "1", tenMin, "", ""},
		[]string{"INVENTORY_NOT_FOUND", ""},
	},
	{
		"SELECT outcome, answer FROM replay_answer($1, $2)",
		[]string{"key", keyHash},
		[]string{"REPLAYED", single},
	},
	{
		reserveCart,
		[]string{
			cart, "{" + product + "," + other + "}", "{" + warehouse + "," + warehouse + "}",
			"{1,2}", tenMin, "", "",
		},
		[]string{"HELD", "T"},
	},
	{
		reserveDetailed,
		[]string{
			detailed, "{" + other + "}", "{" + warehouse + "}", "{1}", tenMin, "ann", "order 1", "",
			"", "",
		},
		[]string{"PENDING", `"owner": "ann"`},
	},
	{
		reserveDetailed,
		[]string{
			replacing, "{" + other + "}", "{" + warehouse + "}", "{2}", tenMin, "ann", "order 1",
			detailed, "", "",
		},
		[]string{"PENDING", `"replaces": "` + detailed},
	},
	{
		extendHold,
		[]string{single, "x", "", "", tenMin, "", hour, "", ""},
		[]string{"PENDING", `"version": 2`},
	},
	{
		extendHold,
		[]string{replacing, "p", "pay 1", "shop", tenMin, "", hour, "", ""},
		[]string{"PENDING", "pay 1"},
	},
	{
		extendHold,
		[]string{replacing, "x", "", "", tenMin, "", hour, "", ""},
		[]string{"PAYMENT_STARTED", ""},
	},
	{
		extendHold,
		[]string{replacing, "f", "pay 1", "shop", "", tenMin, hour, "", ""},
		[]string{"PENDING", `"paying": false`},
	},
	{
		resolveHold,
		[]string{single, "CONFIRMED", "v", "shop", "", "", "again", keyHash},
		[]string{"CONFIRMED", `"version": 3`},
	},
	{
		resolveHold,
		[]string{single, "CONFIRMED", "v", "shop", "", "", "again", keyHash},
		[]string{"REPLAYED", single},
	},
	{
		resolveHold,
		[]string{cart, "RELEASED", "v", "", "", "", "", ""},
		[]string{"RELEASED", `"items": [`},
	},
	{
		resolveHold,
		[]string{replacing, "RELEASED", "o", "clerk", "", "", "", ""},
		[]string{"RELEASED", replacing},
	},
	{
		resolveHold,
		[]string{cart, "CONFIRMED", "v", "shop", "pay 2", successor, "", ""},
		[]string{"REACQUIRED", successor},
	},
	{
		resolveHold,
		[]string{replacing, "CONFIRMED", "v", "shop", "pay 3", "", "", ""},
		[]string{"RELEASED", ""},
	},
	{
		reserveLine,
		[]string{living, other, warehouse, "1", tenMin, "", ""},
		[]string{"HELD", "T"},
	},
	{
		returnGoods,
		[]string{
			single, "parcel", "shop", `[{"line": 1, "product_id": "` + product +
				`", "warehouse_id": "` + warehouse + `", "quantity": 1, "to_warehouse_id": "` +
				warehouse + `"}]`, "", "",
		},
		[]string{"RETURNED", single},
	},
	{
		moveStock,
		[]string{
			"erp", "delivery", "erp", "false", "false",
			`[{"line": 1, "sku": "M", "warehouse": "here", "delta": 5}]`, "", "",
		},
		[]string{"MOVED", "APPLIED"},
	},
	{
		moveStock,
		[]string{
			"erp", "count", "erp", "true", "true",
			`[{"line": 1, "product_id": "` + product + `", "warehouse_id": "` + warehouse +
				`", "counted": 3}]`, "", "",
		},
		[]string{"MOVED", "APPLIED"},
	},
	{
		"SELECT adjust_stock($1, $2, $3, $4)",
		[]string{product, warehouse, "5", "delivery"},
		[]string{""},
	},
}

// The previous release calls the new schema until a deploy has moved the traffic.
func TestCallsOfThePreviousReleaseWork(t *testing.T) {
	t.Parallel()

	db, conn := recordedShop(t)
	for _, call := range slices.Concat(verbCalls, catalogCalls, readCalls, feedCalls, sweepCalls) {
		if problem := call.run(t, conn); problem != "" {
			t.Error(problem)
		}
	}
	if found := pgtest.PreviousAudit(t, db); len(found) != 0 {
		t.Errorf("the previous release's audit finds %q, want nothing", found)
	}
}

// The control: a routine that went, and one whose answer changed, are found.
func TestTheRecordedCallsFindAChangedRoutine(t *testing.T) {
	t.Parallel()

	db, conn := recordedShop(t)
	db.Exec("DROP FUNCTION list_returns(uuid, integer)")
	pgtest.Mutate(t, db.Database, "hold_history", "'version', ", "'number', ")
	var found []string
	for _, call := range slices.Concat(verbCalls, catalogCalls, readCalls, feedCalls, sweepCalls) {
		if problem := call.run(t, conn); problem != "" {
			found = append(found, problem)
		}
	}
	all := strings.Join(found, "\n")
	if !strings.Contains(all, "list_returns") || !strings.Contains(all, "hold_history") {
		t.Errorf("the recorded calls find %q", found)
	}
}

// recordedShop is a database with two stock rows.
func recordedShop(t *testing.T) (*pgtest.Fixture, *pgconn.PgConn) {
	t.Helper()
	db := pgtest.NewFixture(t, pgtest.New(t))
	db.Exec(`
INSERT INTO products VALUES ('` + product + `', 'mug', 'M'), ('` + other + `', 'lamp', 'L');
INSERT INTO warehouses (id, name, code) VALUES ('` + warehouse + `', 'here', 'here');
INSERT INTO inventory (product_id, warehouse_id, total)
SELECT p.id, w.id, 9 FROM products p, warehouses w`)
	conn, err := pgconn.Connect(t.Context(), db.DirectURL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(t.Context()) })
	return db, conn
}

// run sends the call and compares the first row of the answer. It returns what is wrong with it.
func (call recordedCall) run(t *testing.T, conn *pgconn.PgConn) (problem string) {
	t.Helper()
	args := make([][]byte, len(call.args))
	for i, arg := range call.args {
		switch arg {
		case "":
		case empty:
			args[i] = []byte{}
		default:
			args[i] = []byte(arg)
		}
	}
	result := conn.ExecParams(t.Context(), call.sql, args, nil, nil, nil).Read()
	if result.Err == nil && call.want == nil {
		return ""
	}
	if result.Err != nil || len(result.Rows) == 0 || len(result.Rows[0]) != len(call.want) {
		return fmt.Sprintf("%s with %v = %q, %v, want %q", call.sql, call.args, result.Rows,
			result.Err, call.want)
	}
	for i, want := range call.want {
		if !strings.Contains(string(result.Rows[0][i]), want) {
			return fmt.Sprintf("%s with %v: column %d is %q, want %q in it", call.sql, call.args, i+1,
				result.Rows[0][i], want)
		}
	}
	return ""
}

// The health check of the previous release asks for the rights that its statements need.
func TestTheRightsOfThePreviousReleaseAreGranted(t *testing.T) {
	t.Parallel()

	db := pgtest.NewFixture(t, pgtest.New(t))
	service, _, _, undo := roles(t, db)
	defer undo()
	text, err := os.ReadFile("testdata/previous_rights.txt")
	if err != nil {
		t.Fatal(err)
	}
	rights := strings.Split(strings.TrimSpace(string(text)), "\n")
	const missing = `
SELECT coalesce(array_agg(r.text), '{}')
FROM unnest($2::text[]) r (text)
CROSS JOIN LATERAL string_to_array(r.text, ' ') w (words)
WHERE CASE WHEN w.words[3] IS NULL
           THEN has_table_privilege($1, to_regclass(w.words[1]), w.words[2])
           ELSE has_column_privilege($1, to_regclass(w.words[1]),
                    (SELECT a.attnum FROM pg_attribute a
                     WHERE a.attrelid = to_regclass(w.words[1]) AND a.attname = w.words[3]),
                    w.words[2]) END IS NOT true`
	if got := pgtest.QueryOne[[]string](db, missing, service, rights); len(got) != 0 {
		t.Errorf("the service's role lacks %q", got)
	}
	db.Exec("DROP VIEW stock_adjustments")
	if got := pgtest.QueryOne[[]string](db, missing, service, rights); len(got) != 1 {
		t.Errorf("without the view the service's role lacks %q, want the view alone", got)
	}
}
