package e2e

import (
	"fmt"
	"net/http"
	"testing"
)

// movementResults writes the results of a document for a comparison.
func movementResults(t *testing.T, a answer) (lines []string) {
	t.Helper()
	for _, r := range decode[struct {
		Results []struct {
			Line, Delta   int
			Outcome       string
			TotalQuantity *int
			Problem       struct{ Code string }
		}
	}](t, a).Results {
		total := -1
		if r.TotalQuantity != nil {
			total = *r.TotalQuantity
		}
		lines = append(lines,
			fmt.Sprintf("%d %s %d %d %s", r.Line, r.Outcome, r.Delta, total, r.Problem.Code))
	}
	return lines
}

func TestTheERPMovesStock(t *testing.T) {
	eachTransport(t, func(t *testing.T, d *deployment) {
		const path = "/api/stock/movements"
		want := func(a answer, status int, code string, results ...string) {
			t.Helper()
			a.want(t, status, code)
			if got := movementResults(t, a); fmt.Sprint(got) != fmt.Sprint(results) {
				t.Errorf("results = %q, want %q", got, results)
			}
		}
		d.reserve(line(mug, newYork, 4))
		sold := d.reserve(line(mug, newYork, 2))
		d.post("/api/reservations/"+sold.ID+"/confirm", "").want(t, http.StatusOK, "")

		delivery := fmt.Sprintf(`{"source":"erp","reference":"d1","lines":[
{"sku":"CM-300","warehouseId":%q,"delta":40},
{"sku":"CM-300","warehouseId":%q,"counted":29,"asOfSeq":1},
{"sku":"CM-300","warehouseId":%q,"counted":3}]}`, newYork, newYork, newYork)
		want(d.post(path, delivery), http.StatusOK, "",
			"1 APPLIED 40 68 ", "2 APPLIED -1 67 ", "3 REFUSED 0 -1 STOCK_HELD")
		want(d.post(path, delivery), http.StatusOK, "",
			"1 REPLAYED 40 68 ", "2 REPLAYED -1 67 ", "3 REFUSED 0 -1 STOCK_HELD")
		csv := fmt.Sprintf("\ufeffsku;warehouseId;counted\r\n\"CM-300\";%s;3\r\n", newYork)
		want(d.send(request{
			method: "POST", path: path + "?source=erp&reference=d2&onHeld=CLAMP", body: csv,
			header: map[string]string{"Content-Type": "text/csv"},
		}), http.StatusOK, "", "1 APPLIED -63 4 ")
		want(d.post(path, fmt.Sprintf(`{"source":"erp","reference":"d3","together":true,"lines":[
{"sku":"CM-300","warehouseId":%q,"delta":1},{"sku":"none","warehouseId":%q,"delta":1}]}`,
			newYork, newYork)), http.StatusConflict, "MOVEMENTS_REFUSED",
			"1 UNCHANGED 0 -1 ", "2 REFUSED 0 -1 PRODUCT_NOT_FOUND")
		d.wantStock(mug, newYork, 4, 4)

		var kinds []string
		for _, m := range decode[[]struct{ Kind string }](t, d.get(path+"?productId="+mug.String()+
			"&warehouseId="+newYork.String()).want(t, http.StatusOK, "")) {
			kinds = append(kinds, m.Kind)
		}
		if got := fmt.Sprint(kinds); got != "[COUNT COUNT ADJUSTMENT SALE OPENING]" {
			t.Errorf("the movements are %s", got)
		}
	})
}
