package e2e

import (
	"net/http"
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
