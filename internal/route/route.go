// Package route has the one table of the service's routes. The HTTP handlers, the local gateway,
// the CDK stack and the OpenAPI test all read it, so none of them can have a route that another
// lacks.
package route

import "net/http"

// Route binds a method and a path to the Lambda function that answers it.
type Route struct {
	// Function is the name of the Lambda and of its directory under functions/.
	Function string
	// Method is an upper-case HTTP method.
	Method string
	// Path is in API Gateway's syntax: {id} matches one segment, {proxy+} matches all that follow.
	Path string
	// Scope is the permission that a caller needs where the gateway authorizes callers. It is empty
	// for a route that every shopper may call.
	Scope string
}

// The scopes of the routes.
const (
	// ScopeConfirm belongs to the payment side: a shopper with it could take stock without paying.
	ScopeConfirm = "reservations:confirm"
	// ScopeRead belongs to the operator: it shows everybody's holds and the shop's figures.
	ScopeRead = "inventory:read"
	// ScopeCatalog belongs to the back office: it decides what is for sale.
	ScopeCatalog = "catalog:write"
	// ScopeWrite belongs to the ERP and to the operator: it changes what lies on the shelves.
	ScopeWrite = "inventory:write"
	// ScopeEvents belongs to the consumers of the events, which show everybody's holds.
	ScopeEvents = "events:read"
)

// Key is the route key of an HTTP API: the method, a space and the path.
func (r Route) Key() string { return r.Method + " " + r.Path }

// API lists the routes of the reservation API, in the order of the contract.
func API() []Route {
	const reservations, reservation = "/api/reservations", "/api/reservations/{id}"
	return []Route{
		{Function: "list-products", Method: "GET", Path: "/api/products"},
		{Function: "list-products", Method: "GET", Path: "/api/products/{id}"},
		{Function: "list-warehouses", Method: "GET", Path: "/api/warehouses"},
		{Function: "reserve", Method: "POST", Path: reservations},
		{Function: "list-reservations", Method: "GET", Path: reservations, Scope: ScopeRead},
		{Function: "get-reservation", Method: "GET", Path: reservation},
		{Function: "confirm", Method: "POST", Path: reservation + "/confirm", Scope: ScopeConfirm},
		{Function: "release", Method: "POST", Path: reservation + "/release"},
		{Function: "extend", Method: "POST", Path: reservation + "/extend"},
		{
			Function: "put-products", Method: "POST", Path: "/api/catalog/products",
			Scope: ScopeCatalog,
		},
		{
			Function: "put-warehouses", Method: "POST", Path: "/api/catalog/warehouses",
			Scope: ScopeCatalog,
		},
		{Function: "list-stock", Method: "GET", Path: "/api/stock", Scope: ScopeRead},
		{Function: "move-stock", Method: "POST", Path: "/api/stock/movements", Scope: ScopeWrite},
		{Function: "list-movements", Method: "GET", Path: "/api/stock/movements", Scope: ScopeRead},
		{
			Function: "return-goods", Method: "POST", Path: reservation + "/returns",
			Scope: ScopeWrite,
		},
		{
			Function: "history", Method: "GET", Path: reservation + "/history",
			Scope: ScopeRead,
		},
		{Function: "list-events", Method: "GET", Path: "/api/events", Scope: ScopeEvents},
		{Function: "stats", Method: "GET", Path: "/api/stats", Scope: ScopeRead},
		{Function: "health", Method: "GET", Path: "/api/health"},
	}
}

// Web lists the routes of the function that needs no database. It serves the pages and their
// files, /api/openapi.json and /api/docs, and a 404 page for every other address. Package webui
// has its own table of these, so that a page costs no route of the gateway.
func Web() []Route {
	return []Route{
		{Function: "web", Method: "GET", Path: "/"},
		{Function: "web", Method: "GET", Path: "/{proxy+}"},
	}
}

// All lists every route of the gateway: those of API and Web, and for each GET a HEAD, as the
// gateway matches a method exactly. A request that matches none of them gets the gateway's own 404.
func All() []Route {
	all := append(API(), Web()...)
	for _, r := range all {
		if r.Method == http.MethodGet {
			r.Method = http.MethodHead
			all = append(all, r)
		}
	}
	return all
}
