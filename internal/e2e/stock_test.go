package e2e

import (
	"fmt"
	"net/http"
	"testing"
)

func TestTheOperatorListsStock(t *testing.T) {
	eachTransport(t, func(t *testing.T, d *deployment) {
		d.reserve(line(mug, newYork, 4))
		dead := d.reserve(line(mug, newYork, 6))
		d.killDayAgo(dead)
		list := func(query string) (rows []string) {
			t.Helper()
			for path := "/api/stock?" + query; path != ""; {
				a := d.get(path).want(t, http.StatusOK, "")
				for _, r := range decode[[]struct {
					SKU, Status, WarehouseCode                      string
					TotalQuantity, ReservedQuantity, AvailableStock int
				}](t, a) {
					rows = append(rows, fmt.Sprintf("%s %s %s %d-%d=%d", r.SKU, r.Status,
						r.WarehouseCode, r.TotalQuantity, r.ReservedQuantity, r.AvailableStock))
				}
				path = ""
				if m := nextLink.FindStringSubmatch(a.header.Get("Link")); m != nil {
					path = m[1]
				}
			}
			return rows
		}
		if all := list("limit=4"); len(all) != 9 {
			t.Errorf("the stock is %q, want nine rows", all)
		}
		code := decode[[]struct{ Code, Name string }](t, d.get("/api/warehouses"))[1].Code // New York
		want := []string{fmt.Sprintf("CM-300 ACTIVE %s 30-4=26", code)}
		for _, query := range []string{
			"sku=CM-300&warehouse=" + code, "warehouse=" + code + "&availableBelow=27&sku=CM-300",
		} {
			if got := list(query); fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("the stock of %s is %q, want %q", query, got, want)
			}
		}
		d.get("/api/stock?availableBelow=0").want(t, http.StatusBadRequest, "VALIDATION_FAILED")
	})
}
