package e2e

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// putResults is the answer of a write of the catalog.
type putResults struct {
	Results []struct{ SKU, Code, ProductID, WarehouseID, Outcome string }
}

func (d *deployment) put(path, body string) string {
	d.t.Helper()
	a := d.post(path, body).want(d.t, http.StatusOK, "")
	var outcomes []string
	for _, result := range decode[putResults](d.t, a).Results {
		outcomes = append(outcomes, result.SKU+result.Code+" "+result.Outcome)
	}
	return strings.Join(outcomes, ", ")
}

func TestTheBackOfficeArchivesAndCloses(t *testing.T) {
	eachTransport(t, func(t *testing.T, d *deployment) {
		const products, warehouses = "/api/catalog/products", "/api/catalog/warehouses"
		held := d.reserve(line(mug, newYork, 2))

		got := d.put(products, `{"items":[{"sku":"TP-400","name":"Teapot","maxPerHold":2},`+
			`{"sku":"CM-300","status":"ARCHIVED"},{"sku":"WH-100"}]}`)
		if want := "TP-400 CREATED, CM-300 UPDATED, WH-100 UNCHANGED"; got != want {
			t.Errorf("the outcomes are %s, want %s", got, want)
		}
		got = d.put(warehouses, `{"items":[{"code":"LA","status":"CLOSED"}]}`)
		if got != "LA UPDATED" {
			t.Errorf("the outcomes are %s, want LA UPDATED", got)
		}
		for _, body := range []string{
			line(mug, newYork, 1), line(keyboard, losAngeles, 99),
			cart(line(mug, sanFrancisco, 1), line(keyboard, newYork, 1)),
		} {
			a := d.post("/api/reservations", body).want(t, http.StatusConflict, "NOT_FOR_SALE")
			lines := decode[struct {
				Lines []struct{ ProductID, WarehouseID string }
			}](t, a).Lines
			if len(lines) != 1 || !strings.Contains(body, lines[0].ProductID) {
				t.Errorf("%s isn't for sale for the lines %v, want one of them", body, lines)
			}
		}
		d.post("/api/reservations/"+held.ID+"/confirm", "").want(t, http.StatusOK, "")

		var shown []string
		for _, p := range decode[[]product](t, d.get("/api/products").want(t, http.StatusOK, "")) {
			shown = append(shown, p.SKU)
			for _, stock := range p.Inventories {
				if stock.WarehouseID == losAngeles.String() {
					t.Errorf("%s is shown in the closed warehouse", p.SKU)
				}
			}
		}
		if got := strings.Join(shown, " "); got != "MK-200 TP-400 WH-100" {
			t.Errorf("the catalog has %s, want what is active", got)
		}

		again := request{
			method: "POST", path: products, body: "sku;status\nCM-300;ACTIVE\n",
			header: map[string]string{"Content-Type": "text/csv", "Idempotency-Key": "import 7"},
		}
		first := d.send(again).want(t, http.StatusOK, "")
		replay := d.send(again).want(t, http.StatusOK, "")
		if string(first.body) != string(replay.body) ||
			replay.header.Get("Idempotency-Replayed") != "true" {
			t.Errorf("the replay is %s %v, want %s again", replay.body, replay.header, first.body)
		}
		d.reserve(line(mug, newYork, 1))
		d.post(products, `{"items":[{"sku":"cm-300","name":"Mug"}]}`).
			want(t, http.StatusBadRequest, "VALIDATION_FAILED")
		d.post(products, "{}"+strings.Repeat(" ", 1<<20)).
			want(t, http.StatusRequestEntityTooLarge, "BODY_TOO_LARGE")
		plain := request{
			method: "POST", path: warehouses, body: "{}",
			header: map[string]string{"Content-Type": "text/plain"},
		}
		d.send(plain).want(t, http.StatusUnsupportedMediaType, "UNSUPPORTED_MEDIA_TYPE")
	})
}

func TestTheCatalogIsWrittenWholeOrNotAtAll(t *testing.T) {
	eachTransport(t, func(t *testing.T, d *deployment) {
		const products, warehouses = "/api/catalog/products", "/api/catalog/warehouses"
		skus := func() string {
			t.Helper()
			var found []string
			for _, p := range decode[[]product](t, d.get("/api/products").want(t, http.StatusOK, "")) {
				found = append(found, p.SKU)
			}
			return strings.Join(found, " ")
		}
		before := skus()
		for _, body := range []string{
			`{"items":[{"sku":"NEW","name":"New"},{"sku":"NAMELESS"}]}`,
			`{"items":[{"sku":"NEW","name":"New"},{"sku":"wh-100","name":"Case"}]}`,
			`{"items":[{"sku":"ΣΑΣ","name":"New"},{"sku":"σας","name":"New"}]}`,
			`{"items":[{"sku":"CM-300","status":"ARCHIVED"},{"sku":"NEW","name":"New","maxPerHold":-1}]}`,
			`{"items":[]}`,
			`{"items":[` + repeated(`{"sku":"N-%d","name":"New"}`, 501) + `]}`,
		} {
			d.post(products, body).want(t, http.StatusBadRequest, "VALIDATION_FAILED")
		}
		if after := skus(); after != before {
			t.Errorf("after refused writes the catalog has %s, want %s", after, before)
		}
		got := d.put(products, `{"items":[`+repeated(`{"sku":"N-%d","name":"New"}`, 500)+`]}`)
		if n := strings.Count(got, " CREATED"); n != 500 {
			t.Errorf("500 products made %d", n)
		}

		names := func() (found []string) {
			t.Helper()
			for _, w := range decode[[]struct{ Code, Name string }](t,
				d.get("/api/warehouses").want(t, http.StatusOK, "")) {
				found = append(found, w.Code+" "+w.Name)
			}
			return found
		}
		d.send(csv(warehouses, "code;name;status\nB;Basel;\nB-2;;OPEN\n")).
			want(t, http.StatusBadRequest, "VALIDATION_FAILED")
		a := d.send(csv(warehouses, "code;name;status\r\nB;Basel;\r\n\r\nLA;;CLOSED\r\n")).
			want(t, http.StatusOK, "")
		var outcomes []string
		for _, r := range decode[putResults](t, a).Results {
			outcomes = append(outcomes, r.Code+" "+r.Outcome)
		}
		if want := "[B CREATED LA UPDATED]"; fmt.Sprint(outcomes) != want {
			t.Errorf("the outcomes are %v, want %s", outcomes, want)
		}
		if want := "[B Basel NY New York SF San Francisco]"; fmt.Sprint(names()) != want {
			t.Errorf("the warehouses are %v, want the open ones: %s", names(), want)
		}
		d.put(warehouses, `{"items":[{"code":"LA","status":"OPEN"}]}`)
		if len(names()) != 4 {
			t.Errorf("the warehouses are %v, want LA again", names())
		}
	})
}

// repeated joins n bodies, in which %d is a number from 1.
func repeated(body string, n int) string {
	var all []string
	for i := range n {
		all = append(all, strings.ReplaceAll(body, "%d", strconv.Itoa(i+1)))
	}
	return strings.Join(all, ",")
}

func TestTheCatalogShowsTheLimitsOfAProduct(t *testing.T) {
	eachTransport(t, func(t *testing.T, d *deployment) {
		const path = "/api/catalog/products"
		shown := func() string {
			t.Helper()
			read := decode[struct{ MaxPerHold, MaxPerOwner *int }](t,
				d.get("/api/products/"+mug.String()).want(t, http.StatusOK, ""))
			return strings.ReplaceAll(marshal(t, read), "MaxPer", "maxPer")
		}
		put := func(fields, outcome, want string) {
			t.Helper()
			got := d.put(path, `{"items":[{"sku":"CM-300",`+fields+`}]}`)
			if got != "CM-300 "+outcome || shown() != want {
				t.Errorf("%s is %s, and shows as %s, want %s and %s", fields, got, shown(), outcome, want)
			}
		}
		const none, both = `{"maxPerHold":null,"maxPerOwner":null}`, `{"maxPerHold":2,"maxPerOwner":3}`
		put(`"maxPerHold":null,"maxPerOwner":null`, "UNCHANGED", none)
		put(`"maxPerHold":2,"maxPerOwner":3`, "UPDATED", both)
		put(`"name":"Ceramic Mug"`, "UNCHANGED", both)
		d.send(csv(path, "sku,maxPerHold,maxPerOwner\nCM-300,,\n")).want(t, http.StatusOK, "")
		if got := shown(); got != both {
			t.Errorf("after empty fields in CSV the limits are %s, want %s", got, both)
		}
		d.post("/api/reservations", line(mug, newYork, 1)).
			want(t, http.StatusUnprocessableEntity, "OWNER_REQUIRED")
		d.post("/api/reservations", with(line(mug, newYork, 3), `"owner":"ann"`)).
			want(t, http.StatusUnprocessableEntity, "LIMIT_EXCEEDED")
		put(`"maxPerHold":null,"maxPerOwner":null`, "UPDATED", none)
		d.reserve(line(mug, newYork, 3))
	})
}

// A page of the catalog ends early rather than with more than 5,000 stock rows.
func TestAPageOfTheCatalogHas5000StockRows(t *testing.T) {
	eachTransport(t, func(t *testing.T, d *deployment) {
		const more = 2000
		d.db.Exec(`
INSERT INTO warehouses (id, code, name)
SELECT gen_random_uuid(), 'M-' || n, 'More ' || n FROM generate_series(1, $1::integer) n`, more)
		d.db.Exec(`
INSERT INTO inventory (product_id, warehouse_id, total)
SELECT p.id, w.id, 1 FROM products p, warehouses w WHERE w.code LIKE 'M-%'`)
		d.db.Exec("ANALYZE")
		var sizes []int
		rows := map[string]bool{}
		for path := "/api/products"; path != "" && len(sizes) < 10; {
			a := d.sendRaw(request{method: "GET", path: path}).want(t, http.StatusOK, "")
			n := 0
			for _, p := range decode[[]product](t, a) {
				n += len(p.Inventories)
				for _, i := range p.Inventories {
					rows[p.ID+i.WarehouseID] = true
				}
			}
			sizes = append(sizes, n)
			path = ""
			if m := nextLink.FindStringSubmatch(a.header.Get("Link")); m != nil {
				path = m[1]
			}
		}
		if want := 3*more + 9; len(rows) != want || len(sizes) != 2 || slices.Max(sizes) > 5000 {
			t.Errorf("the pages have %v rows, %d different ones, want two pages of at most 5000 and %d",
				sizes, len(rows), want)
		}
	})
}
