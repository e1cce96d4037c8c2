package httpapi_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/allo/reservations/internal/reservation"
)

const (
	putProducts   = "/api/catalog/products"
	putWarehouses = "/api/catalog/warehouses"
)

// putAnswer is the answer of a write of the catalog.
type putAnswer struct {
	Results []struct{ SKU, Code, ProductID, WarehouseID, Outcome string }
}

// outcomes lists the results, each as its SKU or code and its outcome.
func (a answer) outcomes(t *testing.T) []string {
	t.Helper()
	var list []string
	for _, r := range decode[putAnswer](t, a.want(t, http.StatusOK, "")).Results {
		if r.ProductID+r.WarehouseID == "" {
			t.Errorf("%s: the result %+v has no id", a.sent, r)
		}
		list = append(list, r.SKU+r.Code+" "+r.Outcome)
	}
	return list
}

func wantOutcomes(t *testing.T, a answer, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, a.outcomes(t)); diff != "" {
		t.Errorf("%s: the outcomes differ (-want +got):\n%s", a.sent, diff)
	}
}

func TestTheCatalogIsWrittenAsJSON(t *testing.T) {
	t.Parallel()

	s := newStockedClient(t)
	body := `{"items":[
		{"sku":"NEW","name":"New","maxPerHold":2,"maxPerOwner":5},
		{"sku":"CM-300","name":"Mug"},
		{"sku":"LA-400","status":"ARCHIVED"}]}`
	first := s.post(putProducts, body, "Idempotency-Key", "k")
	wantOutcomes(t, first, "NEW CREATED", "CM-300 UNCHANGED", "LA-400 UPDATED")
	again := s.post(putProducts, body, "Idempotency-Key", "k")
	if string(again.body) != string(first.body) ||
		again.header.Get("Idempotency-Replayed") != "true" ||
		first.header.Get("Idempotency-Replayed") != "" {
		t.Errorf("the replay is %s %v, want %s marked as replayed", again.body, again.header, first.body)
	}
	s.post(putProducts, `{"items":[{"sku":"X","name":"X"}]}`, "Idempotency-Key", "k").
		want(t, http.StatusUnprocessableEntity, "IDEMPOTENCY_KEY_REUSED")
	wantOutcomes(t, s.post(putWarehouses,
		`{"items":[{"code":"N","name":"North"},{"code":"S","name":"South","status":"CLOSED"}]}`),
		"N CREATED", "S CREATED")

	type entry struct {
		SKU                     string
		MaxPerHold, MaxPerOwner *int
	}
	var shown []string
	for _, e := range decode[[]entry](t, s.get("/api/products")) {
		text := e.SKU
		if e.MaxPerHold != nil {
			text += fmt.Sprint(" ", *e.MaxPerHold, *e.MaxPerOwner)
		}
		shown = append(shown, text)
	}
	if diff := cmp.Diff([]string{"CM-300", "NEW 2 5"}, shown); diff != "" {
		t.Errorf("the catalog differs (-want +got):\n%s", diff)
	}
	codes := decode[[]struct{ Code, Name string }](t, s.get("/api/warehouses"))
	if len(codes) != 3 || codes[1].Code != "N" || codes[1].Name != "North" {
		t.Errorf("the warehouses are %v, want East, North and West", codes)
	}
}

// A caller may write back the limits that it has read: null is no limit. A field that is left out
// keeps the limit, in CSV an empty field too.
func TestALimitOfNullIsLifted(t *testing.T) {
	t.Parallel()

	s := newStockedClient(t)
	limits := func() string {
		t.Helper()
		a := s.get("/api/products/"+s.mug.String()).want(t, http.StatusOK, "")
		read := decode[struct{ MaxPerHold, MaxPerOwner json.RawMessage }](t, a)
		return fmt.Sprintf(`"maxPerHold":%s,"maxPerOwner":%s`, read.MaxPerHold, read.MaxPerOwner)
	}
	put := func(fields, outcome, want string) {
		t.Helper()
		if fields != "" {
			fields = "," + fields
		}
		wantOutcomes(t, s.post(putProducts, `{"items":[{"sku":"CM-300"`+fields+`}]}`),
			"CM-300 "+outcome)
		if got := limits(); got != want {
			t.Errorf("after %s the limits are %s, want %s", fields, got, want)
		}
	}
	const none = `"maxPerHold":null,"maxPerOwner":null`
	const some = `"maxPerHold":4,"maxPerOwner":9`
	put(limits(), "UNCHANGED", none)
	put(some, "UPDATED", some)
	put(limits(), "UNCHANGED", some)
	put("", "UNCHANGED", some)
	put(`"maxPerOwner":9`, "UNCHANGED", some)
	put(`"maxPerHold":null`, "UPDATED", `"maxPerHold":null,"maxPerOwner":9`)
	put(some, "UPDATED", some)
	put(none, "UPDATED", none)
	put(some, "UPDATED", some)
	csv := func(fields, outcome, want string) {
		t.Helper()
		wantOutcomes(t, s.post(putProducts, "sku,maxPerHold,maxPerOwner\nCM-300,"+fields+"\n",
			"Content-Type", "text/csv"), "CM-300 "+outcome)
		if got := limits(); got != want {
			t.Errorf("after %s the limits are %s, want %s", fields, got, want)
		}
	}
	csv(",", "UNCHANGED", some)
	csv("0,", "UPDATED", `"maxPerHold":null,"maxPerOwner":9`)
	csv("0,0", "UPDATED", none)
	const message = "must be a whole number"
	for _, value := range []string{`"4"`, `1.5`, `true`, `1e3`} {
		a := s.post(putProducts, `{"items":[{"sku":"CM-300","maxPerHold":`+value+`}]}`)
		a.wantInvalid(t, "items[0].maxPerHold")
		got := decode[problemBody](t, a).Details["items[0].maxPerHold"]
		if len(got) != 1 || got[0] != message {
			t.Errorf("%s is told %q, want %q", a.sent, got, message)
		}
	}
}

func TestTheCatalogIsWrittenAsCSV(t *testing.T) {
	t.Parallel()

	s := newStockedClient(t)
	const csv = "text/csv; charset=utf-8"
	wantOutcomes(t, s.post(putProducts, "\ufeff"+`name;sku;maxPerHold
"Cup; ""small""";C-1;
=SUM(A1);C-2;7
`, "Content-Type", csv), "C-1 CREATED", "C-2 CREATED")
	wantOutcomes(t, s.post(putProducts, "sku,name,maxPerHold\r\nC-2,=SUM(A1),7\r\nC-1,,3\r\n",
		"Content-Type", csv), "C-2 UNCHANGED", "C-1 UPDATED")
	// An empty field keeps what is there.
	wantOutcomes(t, s.post(putProducts, "sku,name,status,maxPerHold,maxPerOwner\nC-1,,,,\nC-2,,,,",
		"Content-Type", csv), "C-1 UNCHANGED", "C-2 UNCHANGED")
	wantOutcomes(t, s.post(putWarehouses, "code,name\nN,North", "Content-Type", "text/csv"),
		"N CREATED")
	wantOutcomes(t, s.post(putWarehouses, "name,status,code\n,,N", "Content-Type", "text/csv"),
		"N UNCHANGED")
	stored := "SELECT string_agg(name || ' ' || max_per_hold, '|' ORDER BY sku) FROM products " +
		"WHERE sku LIKE 'C-%'"
	var got string
	if err := s.db.Admin.QueryRow(t.Context(), stored).Scan(&got); err != nil {
		t.Fatal(err)
	}
	if want := `Cup; "small" 3|=SUM(A1) 7`; got != want {
		t.Errorf("the products are %q, want %q", got, want)
	}

	for body, field := range map[string]string{
		"sku,name\nD-1,D\nc-1,C\n":                           "line 3, column 1 (sku)",
		"sku,name\nD-1,D\nd-1,D\n":                           "line 3, column 1 (sku)",
		"sku,name\nD-1,D\nD-2,\n":                            "line 3, column 2 (name)",
		"sku\nD-1\n":                                         "line 2, column name",
		"sku,name\nD-1,\"D\nD\"\n D-2,D\n":                   "line 2, column 2 (name)",
		"name,sku\nD,D-1\n\nD, D-2\n":                        "line 4, column 2 (sku)",
		"sku,name,maxPerHold\nD-1,D,x\n":                     "line 2, column 3 (maxPerHold)",
		"sku,name,maxPerHold\nD-1,D,1.5\n":                   "line 2, column 3 (maxPerHold)",
		"sku,name,maxPerOwner\nD-1,D,99999999999999999999\n": "line 2, column 3 (maxPerOwner)",
		"sku,price\nD-1,1\n":                                 "line 1, column 2",
		"sku,name\nD-1\n":                                    "line 2, column 2 (name)",
		"name\nD\n":                                          "line 2, column sku",
		"sku,name\n":                                         "body",
		"":                                                   "body",
		"sku,name\n" + strings.Repeat("D,D\n", 501):          "body",
	} {
		a := s.post(putProducts, body, "Content-Type", csv)
		details := decode[problemBody](t, a.want(t, http.StatusBadRequest, "VALIDATION_FAILED")).Details
		if len(details[field]) != 1 {
			t.Errorf("%.60q = details %v, want one message for %s", body, details, field)
		}
	}
}

func TestAWriteOfTheCatalogIsStrict(t *testing.T) {
	t.Parallel()

	c := newClient(t, unreachable)
	for body, field := range map[string]string{
		`{"items":[{"sku":"A"}]}`:                                    "",
		`{"items":[{"sku":"A","name":null}]}`:                        "",
		`{"items":[{"sku":"A","maxPerHold":0}]}`:                     "",
		`{"items":[{"sku":"A","maxPerHold":1000000}]}`:               "",
		`{"items":[{"sku":"A","maxPerHold":1000001}]}`:               "items[0].maxPerHold",
		`{"items":[{"sku":"A","maxPerHold":-1}]}`:                    "items[0].maxPerHold",
		`{"items":[{"sku":"A","maxPerOwner":99999999999999999999}]}`: "items[0].maxPerOwner",
		`{"items":[{"sku":"A","maxPerHold":1.5}]}`:                   "items[0].maxPerHold",
		`{"items":[{"sku":"A","maxPerHold":"1"}]}`:                   "items[0].maxPerHold",
		`{"items":[{"sku":"A","status":"OPEN"}]}`:                    "items[0].status",
		`{"items":[{"sku":"A","price":1}]}`:                          "items[0].price",
		`{"items":[{"sku":" A"}]}`:                                   "items[0].sku",
		`{"items":[{"sku":"A\u0000"}]}`:                              "items[0].sku",
		`{"items":[{"sku":1}]}`:                                      "items[0].sku",
		`{"items":[{"name":"A"}]}`:                                   "items[0].sku",
		`{"items":[{"sku":"A","name":""}]}`:                          "items[0].name",
		`{"items":[]}`:                                               "items",
		`{"items":null}`:                                             "items",
		`{}`:                                                         "items",
		`[]`:                                                         "body",
		``:                                                           "body",
		`{"items":[{"sku":"A"}]}{}`:                                  "body",
	} {
		if a := c.post(putProducts, body); field == "" {
			a.wantAccepted(t)
		} else {
			a.wantInvalid(t, field)
		}
	}
	for body, field := range map[string]string{
		`{"items":[{"code":"A","name":"N","status":"CLOSED"}]}`: "",
		`{"items":[{"code":"A","status":"ARCHIVED"}]}`:          "items[0].status",
		`{"items":[{"code":"A","maxPerHold":1}]}`:               "items[0].maxPerHold",
		`{"items":[{"name":"A"}]}`:                              "items[0].code",
	} {
		if a := c.post(putWarehouses, body); field == "" {
			a.wantAccepted(t)
		} else {
			a.wantInvalid(t, field)
		}
	}
}

func TestAnImportMayHaveAMebibyteOfJSONOrCSV(t *testing.T) {
	t.Parallel()

	const most = 1 << 20
	c := newClient(t, unreachable)
	for path, body := range map[string]string{
		putProducts: `{"items":[{"sku":"A"}]}`, putWarehouses: `{"items":[{"code":"A"}]}`,
	} {
		padded := func(size int) string { return body + strings.Repeat(" ", size-len(body)) }
		c.post(path, padded(most)).wantAccepted(t)
		c.post(path, padded(most+1)).want(t, http.StatusRequestEntityTooLarge, "BODY_TOO_LARGE")
		for contentType, ok := range map[string]bool{
			"application/json": true, "application/json; charset=utf-8": true,
			"text/plain": false, "application/json; charset=utf-16": false,
			"text/csv; charset=iso-8859-1": false, "application/vnd.ms-excel": false,
		} {
			a := c.post(path, body, "Content-Type", contentType)
			if ok {
				a.wantAccepted(t)
			} else {
				a.want(t, http.StatusUnsupportedMediaType, "UNSUPPORTED_MEDIA_TYPE")
			}
		}
		for _, key := range []string{"", "a,b", "é"} {
			c.post(path, body, "Idempotency-Key", key).wantInvalid(t, "Idempotency-Key")
		}
	}
	c.post(putProducts, "sku\nA\n"+strings.Repeat("\n", most-6), "Content-Type", "text/csv").
		wantAccepted(t)
	c.post(putWarehouses, "code\nA\n", "Content-Type", "text/csv; charset=UTF-8").wantAccepted(t)
}

func TestNotForSaleNamesEveryLine(t *testing.T) {
	t.Parallel()

	s := newStockedClient(t)
	s.post(putProducts, `{"items":[{"sku":"CM-300","status":"ARCHIVED"}]}`).
		want(t, http.StatusOK, "")
	type key = reservation.StockKey
	for body, want := range map[string][]key{
		reserveBody(s.mug, s.east, 99): {{ProductID: s.mug, WarehouseID: s.east}},
		cartBody(reserveBody(s.mug, s.east, 1), reserveBody(s.lamp, s.west, 99)): {
			{ProductID: s.mug, WarehouseID: s.east},
		},
	} {
		a := s.post("/api/reservations", body).want(t, http.StatusConflict, "NOT_FOR_SALE")
		got := decode[struct {
			Lines []struct{ ProductID, WarehouseID string }
		}](t, a).Lines
		if len(got) != len(want) || got[0].ProductID != want[0].ProductID.String() ||
			got[0].WarehouseID != want[0].WarehouseID.String() {
			t.Errorf("%s = lines %v, want %v", a.sent, got, want)
		}
	}
	s.post("/api/reservations", reserveBody(s.lamp, s.west, 99)).
		want(t, http.StatusConflict, "INSUFFICIENT_STOCK")
}
