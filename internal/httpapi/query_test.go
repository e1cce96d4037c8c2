package httpapi_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/allo/reservations/internal/httpapi/openapi"
	"github.com/allo/reservations/internal/route"
)

// queried are the requests whose query is read, each with a query that is valid.
func queried() map[string]request {
	get := func(path string) request { return request{"GET", path, "", nil} }
	csv := func(path, body string) request {
		return request{"POST", path, body, []string{"Content-Type", "text/csv"}}
	}
	const document = `{"source":"s","reference":"r",` +
		`"lines":[{"sku":"A","warehouse":"W","delta":1}]}`
	return map[string]request{
		"products":        get("/api/products?limit=1"),
		"products by SKU": get("/api/products?sku=CM-300"),
		"a search":        get("/api/products?q=mug"),
		"a product":       get("/api/products/" + hold + "?x=1"),
		"warehouses":      get("/api/warehouses?limit=1"),
		"reservations":    get("/api/reservations?status=PENDING"),
		"a short code":    get("/api/reservations?code=7K2M-9QXD"),
		"stock":           get("/api/stock?sku=CM-300"),
		"movements":       get(movementsPath + "?source=s&reference=r"),
		"events":          get("/api/events?limit=1"),
		"lines in CSV": csv(movementsPath+"?source=s&reference=r&together=true&onHeld=CLAMP",
			"sku,warehouse,delta\nA,W,1\n"),
		"lines in JSON":      {"POST", movementsPath + "?", document, nil},
		"products in CSV":    csv(putProducts+"?", "sku,name\nA,A\n"),
		"products in JSON":   {"POST", putProducts + "?", `{"items":[{"sku":"A","name":"A"}]}`, nil},
		"warehouses in CSV":  csv(putWarehouses+"?", "code,name\nA,A\n"),
		"warehouses in JSON": {"POST", putWarehouses + "?", `{"items":[{"code":"A","name":"A"}]}`, nil},
	}
}

// request is a request to send. Headers are pairs.
type request struct {
	method, path, body string
	headers            []string
}

func (c client) do(r request) answer {
	c.t.Helper()
	return c.send(r.method, r.path, r.body, r.headers...)
}

// with adds parameters to a request's query.
func (r request) with(parameters string) request {
	if !strings.HasSuffix(r.path, "?") {
		parameters = "&" + parameters
	}
	r.path += parameters
	return r
}

func TestAMalformedQueryIsRefused(t *testing.T) {
	t.Parallel()

	c := newClient(t, unreachable)
	for name, r := range queried() {
		t.Run(name, func(t *testing.T) {
			c := c.in(t)
			c.do(r).wantAccepted(t)
			for _, bad := range []string{
				"x=CM%", "%=1", "x=%zz", "x=1;limit=1", "together=true%", "status=PENDING%&x=1",
			} {
				a := c.do(r.with(bad))
				a.wantInvalid(t, "query")
				got := strings.Join(decode[problemBody](t, a).Details["query"], " ")
				if advice := "has % as %25 and ; as %3B"; !strings.Contains(got, advice) {
					t.Errorf("%s is told %q, want %q", a.sent, got, advice)
				}
			}
		})
	}
}

// A CDN or a tracker may add a parameter to the address of a GET, but not to an import.
func TestAnImportAloneRefusesAParameterThatItDoesNotKnow(t *testing.T) {
	t.Parallel()

	c := newClient(t, unreachable)
	for name, r := range queried() {
		t.Run(name, func(t *testing.T) {
			c := c.in(t)
			for _, other := range []string{
				"utm_source=mail", "_=1764440000", "Together=true", "Limit=1", "=", "%ff=1", "%00=1",
				strings.Repeat("n", 9000) + "=1", "a&b&c", "dryRun=true&dryRun=true",
			} {
				a := c.do(r.with(other))
				if r.method == "GET" {
					a.wantAccepted(t)
					continue
				}
				a.wantInvalid(t, "query")
				got := decode[problemBody](t, a).Details["query"]
				if len(got) != 1 || len(a.body) > 1000 {
					t.Errorf("%.200s is told %q, want one short message", a.sent, got)
				}
			}
		})
	}
	a := c.do(queried()["lines in CSV"].with("Together=true"))
	const want = `must not have "Together": the parameters are source, reference, onHeld, together`
	if got := decode[problemBody](t, a).Details["query"]; !slices.Equal(got, []string{want}) {
		t.Errorf("%s is told %q, want %q", a.sent, got, want)
	}
	// Beside a body of JSON, the fields of a document in the query would say nothing.
	for _, field := range []string{"source=s", "reference=r", "onHeld=CLAMP", "together=true"} {
		c.do(queried()["lines in JSON"].with(field)).wantInvalid(t, "query")
	}
}

// Neither of two values is the obvious one.
func TestAParameterIsGivenOnceUnlessItIsAList(t *testing.T) {
	t.Parallel()

	c := newClient(t, unreachable)
	for path, values := range map[string]map[string]string{
		"/api/products?":              {"limit": "1", "cursor": "x", "total": "true", "q": "mug"},
		"/api/products?q=mug&":        {"limit": "1", "cursor": "x", "total": "true"},
		"/api/products?sku=CM-1&":     {"cursor": "x"},
		"/api/products/" + hold + "?": {"cursor": "x"},
		"/api/warehouses?":            {"limit": "1", "cursor": "x"},
		"/api/reservations?": {
			"status": "PENDING", "productId": hold, "warehouseId": hold, "reference": "r",
			"owner": "ann", "updatedSince": "2026-03-01T10:00:00Z", "code": "7K2M-9QXD", "limit": "1",
			"cursor": "x", "total": "false",
		},
		"/api/stock?": {
			"sku": "A", "warehouse": "W", "productId": hold, "warehouseId": hold, "q": "mug",
			"availableBelow": "1", "limit": "1", "cursor": "x", "total": "true",
		},
		movementsPath + "?source=s&reference=r&": {"limit": "1", "cursor": "x"},

		movementsPath + "?productId=" + hold + "&warehouseId=" + hold + "&": {"limit": "1"},
		"/api/events?": {
			"limit": "1", "after": "x", "types": "allo.stock.moved", "since": "2026-03-01T10:00:00Z",
		},
	} {
		for name, value := range values {
			parameter := name + "=" + value
			c.get(path+parameter+"&"+parameter).wantInvalid(t, name)
		}
	}
	for _, name := range []string{"source", "reference", "onHeld", "together"} {
		r := queried()["lines in CSV"]
		value := map[string]string{"onHeld": "CLAMP", "together": "true"}[name]
		r.path = strings.Replace(r.path, name+"=", fmt.Sprintf("%s=%s&%s=", name, value, name), 1)
		c.do(r).wantInvalid(t, name)
	}
	c.get("/api/products?sku=A&sku=B").wantAccepted(t)
}

// A new route that reads its query belongs into queried.
func TestEachRouteWithParametersIsQueried(t *testing.T) {
	t.Parallel()

	document, err := openapi.JSON()
	if err != nil {
		t.Fatal(err)
	}
	doc, err := openapi3.NewLoader().LoadFromData(document)
	if err != nil {
		t.Fatal(err)
	}
	tried := map[string]bool{}
	for _, r := range queried() {
		path, _, _ := strings.Cut(r.path, "?")
		tried[r.method+" "+strings.Replace(path, hold, "{id}", 1)] = true
	}
	var untried []string
	for _, r := range route.API() {
		item := doc.Paths.Value(r.Path)
		parameters := slices.Concat(item.Parameters, item.GetOperation(r.Method).Parameters)
		inQuery := func(p *openapi3.ParameterRef) bool { return p.Value.In == "query" }
		if slices.ContainsFunc(parameters, inQuery) && !tried[r.Key()] {
			untried = append(untried, r.Key())
		}
		delete(tried, r.Key())
	}
	if len(untried) > 0 || len(tried) > 0 {
		t.Errorf("queried lacks %v, and has %v, which are no routes", untried, tried)
	}
}
