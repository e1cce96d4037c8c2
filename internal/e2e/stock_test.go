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

func TestTheStockHasArchivedAndClosedRows(t *testing.T) {
	eachTransport(t, func(t *testing.T, d *deployment) {
		d.put("/api/catalog/products", `{"items":[{"sku":"CM-300","status":"ARCHIVED"}]}`)
		d.put("/api/catalog/warehouses", `{"items":[{"code":"LA","status":"CLOSED"}]}`)
		d.post("/api/stock/movements", `{"source":"erp","reference":"r","lines":[
{"sku":"CM-300","warehouse":"LA","delta":6}]}`).want(t, http.StatusOK, "")
		type row struct {
			ProductID, SKU, Name, Status, WarehouseID, WarehouseCode, WarehouseStatus string
			TotalQuantity, ReservedQuantity, AvailableStock, Seq                      int
		}
		rows := decode[[]row](t, d.get("/api/stock?limit=500").want(t, http.StatusOK, ""))
		want := row{
			mug.String(), "CM-300", "Ceramic Mug", "ARCHIVED", losAngeles.String(), "LA", "CLOSED",
			7, 0, 7, 2,
		}
		if len(rows) != 9 || rows[0] != want {
			t.Errorf("the stock is %+v, want nine rows with %+v first", rows, want)
		}
		for i, r := range rows {
			closed, archived := r.WarehouseCode == "LA", r.SKU == "CM-300"
			if closed != (r.WarehouseStatus == "CLOSED") || archived != (r.Status == "ARCHIVED") {
				t.Errorf("row %d is %+v, want what the catalog was told", i, r)
			}
			if i > 0 && rows[i-1].SKU+rows[i-1].WarehouseCode >= r.SKU+r.WarehouseCode {
				t.Errorf("row %d is %+v, want the order by SKU and code", i, r)
			}
		}
		if one := decode[[]row](t, d.get("/api/stock?limit=1")); len(one) != 1 {
			t.Errorf("a page of one row has %d", len(one))
		}
		for _, limit := range []string{"0", "501", "x", ""} {
			d.get("/api/stock?limit="+limit).want(t, http.StatusBadRequest, "VALIDATION_FAILED")
		}
	})
}
