package e2e

import (
	"net/http"
	"strings"
	"testing"
)

// csv is a request with a body of CSV.
func csv(path, body string) request {
	return request{
		method: "POST", path: path, body: body, header: map[string]string{"Content-Type": "text/csv"},
	}
}

// A gateway passes a query on as it came. What can't be parsed must not be left out of it.
func TestAMalformedQueryIsRefused(t *testing.T) {
	eachTransport(t, func(t *testing.T, d *deployment) {
		const lines = "sku,warehouse,delta\nCM-300,NY,1\n"
		const document = "/api/stock/movements?source=erp&reference=r"
		for _, path := range []string{
			"/api/products?limit=1&x=CM%", "/api/products?sku=CM%", "/api/products?q=mug;limit=1",
			"/api/products/" + mug.String() + "?cursor=%", "/api/warehouses?limit=1;2",
			"/api/stock?sku=CM%", "/api/stock?sku=CM-300;limit=1",
			"/api/reservations?status=PENDING%", "/api/reservations?code=%zz",
			"/api/stock/movements?source=erp&reference=%zz", "/api/events?types=%",
		} {
			a := d.get(path).want(t, http.StatusBadRequest, "VALIDATION_FAILED")
			if !strings.Contains(string(a.body), `"details":{"query":[`) {
				t.Errorf("GET %s = %s, want the query named", path, a.body)
			}
		}
		for _, q := range []request{
			csv(document+"&together=true%", lines),
			csv(document+"&Together=true", lines),
			csv(document+";together=true", lines),
			csv(document+"&together=true&together=true", lines),
			csv(document+"&utm_source=mail", lines),
			csv("/api/catalog/products?status=ARCHIVED", "sku\nCM-300\n"),
			csv("/api/catalog/warehouses?%", "code,name\nX,X\n"),
			{
				method: "POST", path: "/api/stock/movements?together=true",
				body: `{"source":"erp","reference":"r","lines":[{"sku":"CM-300","warehouse":"NY","delta":1}]}`,
			},
		} {
			d.send(q).want(t, http.StatusBadRequest, "VALIDATION_FAILED")
		}
		d.wantStock(mug, newYork, 30, 0)

		// A CDN or a tracker adds parameters to a link to the catalog.
		for _, path := range []string{
			"/api/products?utm_source=mail&_=1764440000", "/api/warehouses?x", "/api/stock?Sku=none&=",
		} {
			d.get(path).want(t, http.StatusOK, "")
		}
		d.get("/api/stock?sku=CM%25").want(t, http.StatusOK, "")
		d.get("/api/stock?sku=CM-300%3Blimit=1").want(t, http.StatusOK, "")
	})
}
