package httpapi_test

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/allo/reservations/internal/pgtest"
)

// stockRow is a stock row of the contract.
type stockRow struct {
	ProductID, SKU, Name, Status                    string
	WarehouseID, WarehouseCode, WarehouseStatus     string
	TotalQuantity, ReservedQuantity, AvailableStock int
	Seq                                             int
}

// stockRows follows the links of the list from its first page. It writes each row for a comparison.
func (s stockedClient) stockRows(t *testing.T, query string) (rows []string, pages int) {
	t.Helper()
	const most = 20
	for path := "/api/stock?" + query; path != "" && pages < most; pages++ {
		a := s.get(path).want(t, http.StatusOK, "")
		if got := a.header.Get("Cache-Control"); got != "no-store" {
			t.Errorf("Cache-Control = %q, want no-store", got)
		}
		for _, r := range decode[[]stockRow](t, a) {
			rows = append(rows, fmt.Sprint(r.SKU, " ", r.Status, " ", r.WarehouseCode, " ",
				r.WarehouseStatus, " ", r.TotalQuantity, "-", r.ReservedQuantity, "=",
				r.AvailableStock, " ", r.Seq))
		}
		path = ""
		if link := nextLink.FindStringSubmatch(a.header.Get("Link")); link != nil {
			path = link[1]
		}
	}
	return rows, pages
}

func TestStockIsListed(t *testing.T) {
	t.Parallel()

	s := newStockedClient(t)
	s.db.Exec("UPDATE warehouses SET code = upper(left(name, 1)) || '&1'")
	s.reserve(t, reserveBody(s.mug, s.east, 3))
	s.kill(s.reserve(t, reserveBody(s.mug, s.east, 4)))
	sold := s.reserve(t, reserveBody(s.lamp, s.east, 2))
	s.post(sold+"/confirm", "").want(t, http.StatusOK, "")
	s.db.NamedProduct("Apron", "AP-1") // which has no stock row
	s.post("/api/catalog/products", `{"items":[{"sku":"LA-400","status":"ARCHIVED"}]}`).
		want(t, http.StatusOK, "")
	s.post("/api/catalog/warehouses", `{"items":[{"code":"W&1","status":"CLOSED"}]}`).
		want(t, http.StatusOK, "")
	all := []string{
		"CM-300 ACTIVE E&1 OPEN 10-3=7 1", "CM-300 ACTIVE W&1 CLOSED 1-0=1 1",
		"LA-400 ARCHIVED E&1 OPEN 8-0=8 2", "LA-400 ARCHIVED W&1 CLOSED 1-0=1 1",
	}
	for query, want := range map[string][]string{
		"":                                 all,
		"sku=LA-400":                       all[2:],
		"sku=la-400":                       nil,
		"sku=AP-1":                         nil,
		"warehouse=E%261":                  {all[0], all[2]},
		"warehouse=E":                      nil,
		"availableBelow=8":                 {all[0], all[1], all[3]},
		"availableBelow=1":                 nil,
		"sku=CM-300&warehouse=W%261":       all[1:2],
		"warehouse=E%261&availableBelow=8": all[:1],
		"unknown=1":                        all,
	} {
		for limit := 1; limit <= 5; limit++ {
			rows, _ := s.stockRows(t, fmt.Sprint(query, "&limit=", limit))
			if diff := cmp.Diff(want, rows); diff != "" {
				t.Errorf("the stock of %q by %d differs (-want +got):\n%s", query, limit, diff)
			}
		}
	}
	if _, pages := s.stockRows(t, "limit=2"); pages != 2 {
		t.Errorf("four stock rows have %d pages of two, want 2", pages)
	}
	one := decode[[]stockRow](t, s.get("/api/stock?limit=1"))[0]
	if one.Name != "Mug" || one.ProductID != s.mug.String() || one.WarehouseID != s.east.String() {
		t.Errorf("the first stock row is %+v, want the mug in the east", one)
	}
}

func TestInvalidStockQueriesNameTheParameter(t *testing.T) {
	t.Parallel()

	s := newStockedClient(t)
	next := func(query string) string {
		t.Helper()
		a := s.get("/api/stock?limit=1"+query).want(t, http.StatusOK, "")
		link, err := url.Parse(nextLink.FindStringSubmatch(a.header.Get("Link"))[1])
		if err != nil {
			t.Fatal(err)
		}
		return link.Query().Get("cursor")
	}
	cursor := next("")
	for query, field := range map[string]string{
		"sku=":                               "sku",
		"sku=%00":                            "sku",
		"sku=a&sku=b":                        "sku",
		"sku=" + strings.Repeat("s", 501):    "sku",
		"warehouse=":                         "warehouse",
		"warehouse=%ff":                      "warehouse",
		"availableBelow=":                    "availableBelow",
		"availableBelow=0":                   "availableBelow",
		"availableBelow=-1":                  "availableBelow",
		"availableBelow=1.5":                 "availableBelow",
		"availableBelow=1000000001":          "availableBelow",
		"availableBelow=9999999999999999999": "availableBelow",
		"limit=0":                            "limit",
		"limit=501":                          "limit",
		"cursor=":                            "cursor",
		"cursor=x":                           "cursor",
		"cursor=" + cursor + "A":             "cursor",
		"cursor=" + cursor[:len(cursor)-10]:  "cursor",
		"sku=CM-300&cursor=" + cursor:        "cursor",
		"availableBelow=9&cursor=" + cursor:  "cursor",
		"cursor=" + next("&sku=CM-300"):      "cursor",
		"cursor=" + cursorOf("sku", ""):      "cursor",
	} {
		s.get("/api/stock?"+query).wantInvalid(t, field)
	}
	s.get("/api/stock?limit=500&cursor="+cursor).want(t, http.StatusOK, "")
	s.get("/api/stock?sku=CM-300&limit=2&cursor="+next("&sku=CM-300")).want(t, http.StatusOK, "")
}

// The largest page has the longest texts that the schema allows.
func TestAPageOfStockIsBounded(t *testing.T) {
	t.Parallel()

	s := newSized(t, 0)
	s.fill(3, 400, 4000)
	var sizes []int
	for path := "/api/stock?limit=500"; path != ""; {
		a := s.size("GET", path, "").wantSize(t, http.StatusOK, 4_000_000)
		sizes = append(sizes, len(decode[[]struct{}](t, a)))
		path, _, _ = strings.Cut(strings.TrimPrefix(a.header.Get("Link"), "<"), ">")
	}
	total := 0
	for _, n := range sizes {
		total += n
	}
	if total != 1200 || sizes[0] < 100 || sizes[0] >= 500 {
		t.Errorf("the pages have %v stock rows, want 1200 in pages that are short", sizes)
	}

	// The control: without the bound a page has 500 stock rows.
	pgtest.Mutate(t, s.Database, "list_stock", "_size > _bytes AND", "false AND")
	if n := len(decode[[]struct{}](t, s.size("GET", "/api/stock?limit=500", ""))); n != 500 {
		t.Errorf("without its bound the page has %d stock rows, want 500", n)
	}
}
