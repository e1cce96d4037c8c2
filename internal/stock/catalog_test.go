package stock_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/allo/reservations/internal/reservation"
	"github.com/allo/reservations/internal/stock"
)

// storedProduct is a row of products, without its id.
const storedProduct = `
SELECT format('%s|%s|%s|%s|%s', sku, name, status, max_per_hold, max_per_owner)
FROM products WHERE sku = $1`

func TestProductsAreMadeAndChangedBySKU(t *testing.T) {
	t.Parallel()

	f := newFixture(t, 1)
	for _, step := range []struct {
		item   stock.ProductItem
		want   stock.Outcome
		stored string
	}{
		{product("A-1"), stock.Created, "A-1|product A-1|ACTIVE||"},
		{product("A-1"), stock.Unchanged, "A-1|product A-1|ACTIVE||"},
		{stock.ProductItem{SKU: "A-1"}, stock.Unchanged, "A-1|product A-1|ACTIVE||"},
		{
			stock.ProductItem{SKU: "A-1", MaxPerHold: ptr(3), MaxPerOwner: ptr(5)},
			stock.Updated, "A-1|product A-1|ACTIVE|3|5",
		},
		{
			stock.ProductItem{SKU: "A-1", Name: ptr(" Mug, =1+1 ")},
			stock.Updated, "A-1| Mug, =1+1 |ACTIVE|3|5",
		},
		{
			stock.ProductItem{SKU: "A-1", MaxPerHold: ptr(0), Status: ptr(stock.Archived)},
			stock.Updated, "A-1| Mug, =1+1 |ARCHIVED||5",
		},
		{stock.ProductItem{SKU: "A-1", MaxPerHold: ptr(0)}, stock.Unchanged, ""},
		{
			stock.ProductItem{SKU: "A-1", Status: ptr(stock.Active)},
			stock.Updated, "A-1| Mug, =1+1 |ACTIVE||5",
		},
	} {
		if got := f.putProducts(step.item); got[0] != step.want {
			t.Errorf("PutProducts(%+v) = %s, want %s", step.item, got[0], step.want)
		}
		if got := queryOne[string](f, storedProduct, "A-1"); step.stored != "" && got != step.stored {
			t.Errorf("after %+v the product is %s, want %s", step.item, got, step.stored)
		}
	}
	f.mustAudit()
}

func TestWarehousesAreMadeAndChangedByCode(t *testing.T) {
	t.Parallel()

	f := newFixture(t, 1)
	const stored = "SELECT format('%s|%s|%s', code, name, status) FROM warehouses WHERE code = $1"
	for _, step := range []struct {
		item   stock.WarehouseItem
		want   stock.Outcome
		stored string
	}{
		{stock.WarehouseItem{Code: "E", Name: ptr("East")}, stock.Created, "E|East|OPEN"},
		{stock.WarehouseItem{Code: "E"}, stock.Unchanged, "E|East|OPEN"},
		{stock.WarehouseItem{Code: "E", Status: ptr(stock.Closed)}, stock.Updated, "E|East|CLOSED"},
		{stock.WarehouseItem{Code: "E", Name: ptr("Ost")}, stock.Updated, "E|Ost|CLOSED"},
		{stock.WarehouseItem{Code: "E", Status: ptr(stock.Open)}, stock.Updated, "E|Ost|OPEN"},
	} {
		if got := f.putWarehouses(step.item); got[0] != step.want {
			t.Errorf("PutWarehouses(%+v) = %s, want %s", step.item, got[0], step.want)
		}
		if got := queryOne[string](f, stored, "E"); got != step.stored {
			t.Errorf("after %+v the warehouse is %s, want %s", step.item, got, step.stored)
		}
	}
	f.mustAudit()
}

func TestTheResultsAreInTheOrderOfTheItems(t *testing.T) {
	t.Parallel()

	f := newFixture(t, 1)
	var items []stock.ProductItem
	for i := range stock.MaxItems {
		items = append(items, product(fmt.Sprintf("SKU-%03d", stock.MaxItems-i)))
	}
	if _, _, err := f.callers[0].PutProducts(f.Context(), items[:100], ""); err != nil {
		t.Fatal(err)
	}
	results, _, err := f.callers[0].PutProducts(f.Context(), items, "")
	if err != nil {
		t.Fatal(err)
	}
	for i, result := range results {
		want := stock.ProductResult{SKU: items[i].SKU, Outcome: stock.Created}
		if i < 100 {
			want.Outcome = stock.Unchanged
		}
		want.ProductID = uuid.MustParse(queryOne[string](f,
			"SELECT id::text FROM products WHERE sku = $1", items[i].SKU))
		if result != want {
			t.Fatalf("result %d = %+v, want %+v", i, result, want)
		}
	}
}

// wantProblems fails the test unless err has exactly these problems, each as "item field: message".
func wantProblems(t *testing.T, err error, want ...string) {
	t.Helper()
	var wrong *stock.ItemsError
	if !errors.As(err, &wrong) {
		t.Errorf("the error is %v, want the problems %q", err, want)
		return
	}
	var got []string
	for _, p := range wrong.Problems {
		text := fmt.Sprintf("%d %s: %s", p.Item, p.Field, p.Message)
		if p.Other >= 0 {
			text += fmt.Sprint(" ", p.Other)
		}
		got = append(got, text)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the problems differ (-want +got):\n%s", diff)
	}
}

func TestItemsAreChecked(t *testing.T) {
	t.Parallel()

	f := newFixture(t, 1)
	const (
		length  = "must have from 1 to 100 characters"
		control = "must not have control characters"
		space   = "must not begin or end with white space"
		units   = "must be a whole number from 0 to 1000000, where 0 means no limit"
		nothing = "must have from 1 to 500 characters, not only white space"
	)
	for _, test := range []struct {
		item stock.ProductItem
		want string
	}{
		{stock.ProductItem{SKU: ""}, "sku: " + length},
		{stock.ProductItem{SKU: strings.Repeat("é", 101)}, "sku: " + length},
		{stock.ProductItem{SKU: "a\xff"}, "sku: " + length},
		{product(" A"), "sku: " + space},
		{product("A\u00a0"), "sku: " + space},
		{product("A\u2003"), "sku: " + space},
		{stock.ProductItem{SKU: "A\x00B"}, "sku: " + control},
		{stock.ProductItem{SKU: "A\n"}, "sku: " + control},
		{stock.ProductItem{SKU: "A", Name: ptr("")}, "name: " + nothing},
		{stock.ProductItem{SKU: "A", Name: ptr(" \u00a0")}, "name: " + nothing},
		{stock.ProductItem{SKU: "A", Name: ptr(strings.Repeat("n", 501))}, "name: " + nothing},
		{stock.ProductItem{SKU: "A", Name: ptr("a\tb")}, "name: " + control},
		{stock.ProductItem{SKU: "A", Status: ptr("OPEN")}, "status: must be ACTIVE or ARCHIVED"},
		{stock.ProductItem{SKU: "A", Status: ptr("active")}, "status: must be ACTIVE or ARCHIVED"},
		{stock.ProductItem{SKU: "A", MaxPerHold: ptr(-1)}, "maxPerHold: " + units},
		{stock.ProductItem{SKU: "A", MaxPerOwner: ptr(1_000_001)}, "maxPerOwner: " + units},
	} {
		_, _, err := f.callers[0].PutProducts(f.Context(),
			[]stock.ProductItem{product("GOOD"), test.item}, "")
		wantProblems(t, err, "1 "+test.want)
	}
	_, _, err := f.callers[0].PutProducts(f.Context(), nil, "")
	wantProblems(t, err, "-1 items: must be from 1 to 500 items")
	_, _, err = f.callers[0].PutProducts(f.Context(), make([]stock.ProductItem, 501), "")
	wantProblems(t, err, "-1 items: must be from 1 to 500 items")
	_, _, err = f.callers[0].PutWarehouses(f.Context(), make([]stock.WarehouseItem, 501), "")
	wantProblems(t, err, "-1 items: must be from 1 to 500 items")
	_, _, err = f.callers[0].PutWarehouses(f.Context(), []stock.WarehouseItem{{Code: " E"}, {}}, "")
	wantProblems(t, err, "0 code: "+space, "1 code: "+length)
	_, _, err = f.callers[0].PutWarehouses(f.Context(), warehouseStatus("E", stock.Active), "")
	wantProblems(t, err, "0 status: must be OPEN or CLOSED")
	if n := queryOne[int](f, "SELECT count(*) FROM products"); n != 0 {
		t.Errorf("there are %d products, want none", n)
	}
}

func TestWhatDiffersByCaseAloneIsRefused(t *testing.T) {
	t.Parallel()

	f := newFixture(t, 1)
	f.putProducts(product("CM-300"), product("É-1"))
	put := func(skus ...string) error {
		var items []stock.ProductItem
		for _, sku := range skus {
			items = append(items, product(sku))
		}
		_, _, err := f.callers[0].PutProducts(f.Context(), items, "")
		return err
	}

	wantProblems(t, put("NEW", "cm-300"), "1 sku: differs from CM-300 by case alone")
	if queryOne[bool](f, "SELECT current_setting('server_version_num')::int >= 170000") {
		wantProblems(t, put("é-1"), "0 sku: differs from É-1 by case alone")
	}
	wantProblems(t, put("CM-300", "cm-300"), "1 sku: must not be given twice: see 0")
	wantProblems(t, put("new", "B", "NEW", "new"),
		"2 sku: must not be given twice: see 0", "3 sku: must not be given twice: see 0")
	_, _, err := f.callers[0].PutProducts(f.Context(),
		[]stock.ProductItem{product("OTHER"), {SKU: "NAMELESS"}}, "")
	wantProblems(t, err, "1 name: is required, because the sku is new")
	if n := queryOne[int](f, "SELECT count(*) FROM products"); n != 2 {
		t.Errorf("there are %d products, want the 2 of the beginning: all or none", n)
	}

	f.putWarehouses(stock.WarehouseItem{Code: "East", Name: ptr("East")})
	_, _, err = f.callers[0].PutWarehouses(f.Context(),
		[]stock.WarehouseItem{{Code: "EAST", Name: ptr("East")}, {Code: "X"}}, "")
	wantProblems(t, err, "0 code: differs from East by case alone",
		"1 name: is required, because the code is new")
}

// Letters whose small form isn't the only one: lower() alone tells a final sigma from another one.
const manyCases = "ΣΑΣ \u017fuit \u00b5-1 \u01c5-1 \u212a-9"

// otherCases has the words of manyCases in another case.
const otherCases = "σας SUIT \u039c-1 \u01c6-1 k-9"

// acceptedOfOtherCases returns which of otherCases are made beside manyCases.
func (f *fixture) acceptedOfOtherCases() (skus, codes []string) {
	f.t.Helper()
	for _, word := range strings.Fields(manyCases) {
		f.putProducts(product(word))
		f.putWarehouses(stock.WarehouseItem{Code: word, Name: &word})
	}
	for _, word := range strings.Fields(otherCases) {
		_, _, err := f.callers[0].PutProducts(f.Context(), []stock.ProductItem{product(word)}, "")
		if err == nil {
			skus = append(skus, word)
		}
		_, _, err = f.callers[0].PutWarehouses(f.Context(),
			[]stock.WarehouseItem{{Code: word, Name: &word}}, "")
		if err == nil {
			codes = append(codes, word)
		}
	}
	return skus, codes
}

// hasUnicode says whether the server has Unicode's case whatever its locale is, as Postgres 17 has.
func (f *fixture) hasUnicode() bool {
	return queryOne[bool](f, "SELECT count(*) > 0 FROM pg_collation WHERE collname = 'pg_c_utf8'")
}

func TestALetterOfSeveralSmallFormsIsOneLetter(t *testing.T) {
	t.Parallel()

	f := newFixture(t, 1)
	if !f.hasUnicode() {
		t.Skip("the server has the case of its locale")
	}
	if skus, codes := f.acceptedOfOtherCases(); len(skus)+len(codes) > 0 {
		t.Errorf("beside %s the SKUs %q and the codes %q are made", manyCases, skus, codes)
	}
	const different = `
SELECT count(*)
FROM (SELECT chr(n) COLLATE pg_c_utf8 AS c FROM generate_series(1, 131071) n
      WHERE n NOT BETWEEN 55296 AND 57343) letter
WHERE case_folded(upper(c)) <> case_folded(c) OR case_folded(lower(c)) <> case_folded(c)`
	if n := queryOne[int](f, different); n > 0 {
		t.Errorf("%d characters differ from themselves in another case", n)
	}
	for _, index := range []string{"products_by_folded_sku", "warehouses_by_folded_code"} {
		if queryOne[int](f, "SELECT count(*) FROM pg_indexes WHERE indexname = $1", index) != 1 {
			t.Errorf("there is no index %s", index)
		}
	}
}

// The control: by lower() alone, both are made.
func TestALetterOfSeveralSmallFormsIsTwoLettersByLowerAlone(t *testing.T) {
	t.Parallel()

	f := newFixture(t, 1)
	if !f.hasUnicode() {
		t.Skip("the server has the case of its locale")
	}
	for _, routine := range []string{"put_products", "put_warehouses"} {
		f.mutate(routine, "case_folded(", "without_case(")
	}
	skus, codes := f.acceptedOfOtherCases()
	if want := []string{"σας", "SUIT", "\u039c-1"}; !slices.Equal(skus, want) ||
		!slices.Equal(codes, want) {
		t.Errorf("the SKUs %q and the codes %q are made, want %q", skus, codes, want)
	}
}

// A shop may have had such SKUs before. Each is still its own product's name.
func TestSKUsThatDifferByCaseSinceEverAreChangedByTheirOwnName(t *testing.T) {
	t.Parallel()

	f := newFixture(t, 1)
	f.NamedProduct("upper", "AB")
	f.NamedProduct("lower", "ab")
	f.putProducts(stock.ProductItem{SKU: "ab", Name: ptr("changed")})

	const names = "SELECT string_agg(name, ' ' ORDER BY sku) FROM products"
	if got := queryOne[string](f, names); got != "upper changed" {
		t.Errorf("the products are called %q, want only ab changed", got)
	}
	_, _, err := f.callers[0].PutProducts(f.Context(), []stock.ProductItem{product("aB")}, "")
	if wrong := (*stock.ItemsError)(nil); !errors.As(err, &wrong) {
		t.Errorf("a third one of another case = %v, want it refused", err)
	}
}

func TestAKeyBindsOneRequestAndOneAnswer(t *testing.T) {
	t.Parallel()

	s := newStore(t, 1)
	ctx := s.Context()
	put := func(key string, items ...stock.ProductItem) ([]stock.ProductResult, bool, error) {
		return s.callers[0].PutProducts(ctx, items, key)
	}
	first, replayed, err := put("k", product("NEW"), stock.ProductItem{SKU: "CM-300"})
	if err != nil || replayed || first[0].Outcome != stock.Created {
		t.Fatalf("PutProducts() = %+v, %t, %v, want NEW created", first, replayed, err)
	}
	again, replayed, err := put("k", product("NEW"), stock.ProductItem{SKU: "CM-300"})
	if diff := cmp.Diff(first, again); diff != "" || !replayed || err != nil {
		t.Errorf("the replay = %t, %v, and differs (-first +replay):\n%s", replayed, err, diff)
	}
	if _, _, err := put("k", product("NEW")); !errors.Is(err, reservation.ErrKeyReused) {
		t.Errorf("another request under the key = %v, want %v", err, reservation.ErrKeyReused)
	}
	_, _, err = s.callers[0].PutWarehouses(ctx, warehouseStatus("E", stock.Open), "k")
	if !errors.Is(err, reservation.ErrKeyReused) {
		t.Errorf("warehouses under the key = %v, want %v", err, reservation.ErrKeyReused)
	}
	var invalid *reservation.InvalidError
	if _, _, err := put("a,b", product("X")); !errors.As(err, &invalid) {
		t.Errorf("a key with a comma = %v, want it refused", err)
	}
	s.mustAudit()
}

func TestNothingIsReservedOfAnArchivedProductOrFromAClosedWarehouse(t *testing.T) {
	t.Parallel()

	s := newStore(t, 1)
	ctx := s.Context()
	c := s.callers[0]
	lamp := s.NamedProduct("Lamp", "LA-400")
	s.Stock(lamp, s.east, 1)
	keyed := reservation.Request{Lines: []reservation.Line{s.line(s.east)}, Key: uuid.NewString()}
	before, err := c.holds.Reserve(ctx, keyed)
	if err != nil {
		t.Fatal(err)
	}
	const every = 1_000_000 // more than there is: NOT_FOR_SALE comes before SHORT
	lampLine := reservation.Line{ProductID: lamp, WarehouseID: s.east, Quantity: every}
	line := func(warehouse uuid.UUID) reservation.Line {
		l := s.line(warehouse)
		l.Quantity = every
		return l
	}
	refused := func(lines ...reservation.Line) []reservation.StockKey {
		_, err := c.holds.Reserve(ctx, reservation.Request{Lines: lines})
		return refusedLines(err)
	}
	keys := func(lines ...reservation.Line) (keys []reservation.StockKey) {
		for _, l := range reservation.MergeLines(lines) {
			keys = append(keys, reservation.StockKey{ProductID: l.ProductID, WarehouseID: l.WarehouseID})
		}
		return keys
	}

	s.putWarehouses(warehouseStatus("E", stock.Closed)...)
	east, west := line(s.east), line(s.west)
	for _, test := range []struct{ lines, want []reservation.Line }{
		{[]reservation.Line{east}, []reservation.Line{east}},
		{[]reservation.Line{lampLine}, []reservation.Line{lampLine}},
		{[]reservation.Line{east, west}, []reservation.Line{east}},
		{[]reservation.Line{east, west, lampLine}, []reservation.Line{east, lampLine}},
	} {
		if diff := cmp.Diff(keys(test.want...), refused(test.lines...)); diff != "" {
			t.Errorf("the lines of %+v that aren't for sale differ (-want +got):\n%s", test.lines, diff)
		}
	}
	if answer, err := c.holds.Reserve(ctx, keyed); err != nil || answer.Hold.ID != before.Hold.ID {
		t.Errorf("the replay of a reserve from before = %+v, %v, want %s", answer, err, before.Hold.ID)
	}
	if _, err := s.reserve(c, s.west); err != nil {
		t.Errorf("a reserve from the open warehouse = %v", err)
	}

	s.putProducts(productStatus("CM-300", stock.Archived)...)
	if diff := cmp.Diff(keys(east, west), refused(east, west)); diff != "" {
		t.Errorf("the lines of an archived product differ (-want +got):\n%s", diff)
	}
	s.putWarehouses(warehouseStatus("E", stock.Open)...)
	if _, err := s.reserve(c, s.east); refusedLines(err) == nil {
		t.Errorf("an archived product in an open warehouse = %v, want it refused", err)
	}
	s.putProducts(productStatus("CM-300", stock.Active)...)
	if _, err := s.reserve(c, s.east, s.west); err != nil {
		t.Errorf("a cart of the product that is active again = %v", err)
	}
	s.mustAudit()
}

func TestLiveHoldsGoOnAfterTheClosing(t *testing.T) {
	t.Parallel()

	s := newStore(t, 1)
	ctx := s.Context()
	c := s.callers[0]
	var holds []uuid.UUID
	for _, warehouses := range [][]uuid.UUID{{s.east}, {s.east, s.west}} {
		for range 4 {
			hold, err := s.reserve(c, warehouses...)
			if err != nil {
				t.Fatal(err)
			}
			holds = append(holds, hold.ID)
		}
	}
	s.putProducts(productStatus("CM-300", stock.Archived)...)
	s.putWarehouses(warehouseStatus("E", stock.Closed)...)

	for i, id := range holds {
		var err error
		switch i % 4 {
		case 0:
			_, err = c.holds.Extend(ctx, id, 10*time.Minute, "")
			if err == nil {
				_, err = c.holds.Confirm(ctx, id, "")
			}
		case 1:
			_, err = c.holds.Release(ctx, id, "")
		case 2:
			s.Kill(id)
			if _, err = c.holds.Sweep(ctx); err == nil && s.Status(id) != "EXPIRED" {
				err = fmt.Errorf("it is %s", s.Status(id))
			}
		case 3:
			var view reservation.HoldView
			view, err = c.holds.Get(ctx, id)
			if err == nil && (view.Hold.Status != reservation.Pending ||
				len(view.Hold.Lines) == 1 && view.Warehouse.Code != "E") {
				err = fmt.Errorf("it reads as %+v", view)
			}
		}
		if err != nil {
			t.Errorf("hold %d of a closed warehouse: %v", i, err)
		}
	}
	if got := s.Counts(s.product, s.east); got.Total != 98 || got.Reserved != 2 {
		t.Errorf("the closed warehouse has %+v, want 2 sold and 2 held", got)
	}
	s.mustAudit()
}

func TestTheCatalogOmitsWhatIsArchivedOrClosed(t *testing.T) {
	t.Parallel()

	s := newStore(t, 1)
	lamp := s.NamedProduct("Lamp", "LA-400")
	s.Stock(lamp, s.west, 1)
	s.putProducts(stock.ProductItem{SKU: "CM-300", MaxPerHold: ptr(3)})
	shown := func() string {
		t.Helper()
		var text []string
		entries, _, err := s.callers[0].holds.ListProducts(s.Context(), reservation.Cursor{}, 50)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			entry := e.SKU
			if e.MaxPerHold != nil {
				entry += fmt.Sprint("<=", *e.MaxPerHold)
			}
			for _, stock := range e.Stocks {
				entry += " " + stock.WarehouseCode
			}
			text = append(text, entry)
		}
		warehouses, _, err := s.callers[0].holds.ListWarehouses(s.Context(), reservation.Cursor{}, 50)
		if err != nil {
			t.Fatal(err)
		}
		for _, warehouse := range warehouses {
			text = append(text, warehouse.Code)
		}
		return strings.Join(text, ", ")
	}
	want := func(want string) {
		t.Helper()
		if got := shown(); got != want {
			t.Errorf("the catalog is %q, want %q", got, want)
		}
	}

	want("LA-400 W, CM-300<=3 E W, E, W")
	s.putWarehouses(warehouseStatus("W", stock.Closed)...)
	want("LA-400, CM-300<=3 E, E")
	s.putProducts(productStatus("LA-400", stock.Archived)...)
	want("CM-300<=3 E, E")
	s.putWarehouses(warehouseStatus("W", stock.Open)...)
	want("CM-300<=3 E W, E, W")
}

// The pages of the catalog end where they would without what is archived.
func TestPagesPassOverWhatIsArchived(t *testing.T) {
	t.Parallel()

	f := newFixture(t, 1)
	f.Exec(`
INSERT INTO products (id, name, sku, status)
SELECT gen_random_uuid(), lpad(n::text, 4, '0'), n,
       CASE WHEN n % 10 = 0 THEN 'ACTIVE' ELSE 'ARCHIVED' END::product_status
FROM generate_series(1, 1000) n`)
	var got []string
	after := reservation.Cursor{}
	for pages := 0; pages < 20; pages++ {
		entries, next, err := f.callers[0].holds.ListProducts(f.Context(), after, 7)
		if err != nil || len(entries) == 0 {
			t.Fatalf("ListProducts() = %d entries, %v", len(entries), err)
		}
		for _, e := range entries {
			got = append(got, e.SKU)
		}
		if next == nil {
			break
		}
		after = *next
	}
	if len(got) != 100 || !slices.Contains(got, "1000") {
		t.Errorf("the pages have %d products, want the 100 that are active", len(got))
	}
}
