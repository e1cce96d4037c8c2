// Package route has the one table of the service's routes. The HTTP handlers, the local gateway,
// the CDK stack and the OpenAPI test all read it, so none of them can have a route that another
// lacks.
package route

import (
	"net/http"
	"slices"
)

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
	// OptionalScope is the permission that a caller of a route without a Scope needs where the
	// deployment asks for it: with reserveAuth, only the shop's back end and signed-in shoppers
	// reserve. It is empty for the other routes.
	OptionalScope string
}

// The scopes of the routes.
const (
	// ScopeConfirm belongs to the payment side: a shopper with it could take stock without paying.
	ScopeConfirm = "reservations:confirm"
	// ScopeReserve belongs to whoever may hold stock, where that isn't everybody.
	ScopeReserve = "reservations:write"
	// ScopeSupport belongs to the people who help customers: it cancels holds that are being paid,
	// and erases owners.
	ScopeSupport = "reservations:support"
	// ScopeRead belongs to the operator: it shows everybody's holds and the shop's figures.
	ScopeRead = "inventory:read"
	// ScopeCatalog belongs to the back office: it decides what is for sale.
	ScopeCatalog = "catalog:write"
	// ScopeWrite belongs to the ERP and to the operator: it changes what lies on the shelves.
	ScopeWrite = "inventory:write"
	// ScopeEvents belongs to the consumers of the events, which show everybody's holds.
	ScopeEvents = "events:read"
	// ScopeRedeliver belongs to the operator: it sends the dead letters of a webhook once more.
	ScopeRedeliver = "events:write"
)

// Guarded returns the route as a deployment has it: with reserveAuth, its OptionalScope is its
// Scope.
func (r Route) Guarded(reserveAuth bool) Route {
	if reserveAuth && r.Scope == "" {
		r.Scope = r.OptionalScope
	}
	return r
}

// Key is the route key of an HTTP API: the method, a space and the path.
func (r Route) Key() string { return r.Method + " " + r.Path }

// API lists the routes of the reservation API that need the database, in the order of the contract.
func API() []Route {
	const reservations, reservation = "/api/reservations", "/api/reservations/{id}"
	return []Route{
		{Function: "list-products", Method: "GET", Path: "/api/products"},
		{Function: "list-products", Method: "GET", Path: "/api/products/{id}"},
		{Function: "list-warehouses", Method: "GET", Path: "/api/warehouses"},
		{
			Function: "reserve", Method: "POST", Path: reservations,
			OptionalScope: ScopeReserve,
		},
		{Function: "list-reservations", Method: "GET", Path: reservations, Scope: ScopeRead},
		{Function: "get-reservation", Method: "GET", Path: reservation},
		{Function: "confirm", Method: "POST", Path: reservation + "/confirm", Scope: ScopeConfirm},
		{Function: "release", Method: "POST", Path: reservation + "/release"},
		{Function: "extend", Method: "POST", Path: reservation + "/extend"},
		{
			Function: "start-payment", Method: "POST", Path: reservation + "/payment",
			Scope: ScopeConfirm,
		},
		{
			Function: "fail-payment", Method: "POST", Path: reservation + "/payment/failed",
			Scope: ScopeConfirm,
		},
		{
			Function: "cancel", Method: "POST", Path: reservation + "/cancel",
			Scope: ScopeSupport,
		},
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
		{
			Function: "history", Method: "GET", Path: reservation + "/payments",
			Scope: ScopeRead,
		},
		{
			Function: "history", Method: "GET", Path: reservation + "/returns",
			Scope: ScopeRead,
		},
		{
			Function: "erase-owner", Method: "POST", Path: "/api/owners/erase",
			Scope: ScopeSupport,
		},
		{Function: "list-events", Method: "GET", Path: "/api/events", Scope: ScopeEvents},
		{Function: "live", Method: "GET", Path: "/api/live"},
		{Function: "stats", Method: "GET", Path: "/api/stats", Scope: ScopeRead},
		{Function: "health", Method: "GET", Path: "/api/health"},
	}
}

// Direct lists the routes of the API whose functions need no database. Each function has a handler
// of its own, so that it links no driver.
func Direct() []Route {
	return []Route{
		{Function: "list-webhooks", Method: "GET", Path: "/api/webhooks", Scope: ScopeEvents},
		{
			Function: "redeliver-webhook", Method: "POST", Path: "/api/webhooks/{name}/redeliver",
			Scope: ScopeRedeliver,
		},
	}
}

// Web lists the routes of the function of the pages, which needs no database. It serves the pages
// and their files, /api/openapi.json and /api/docs, and a 404 page for every other address. Package
// webui has its own table of these, so that a page costs no route of the gateway.
func Web() []Route {
	return []Route{
		{Function: "web", Method: "GET", Path: "/"},
		{Function: "web", Method: "GET", Path: "/{proxy+}"},
	}
}

// All lists every route of the gateway: those of API, Direct and Web, and for each GET a HEAD, as
// the gateway matches a method exactly. A request that matches none of them gets the gateway's own
// 404.
func All() []Route {
	all := slices.Concat(API(), Direct(), Web())
	for _, r := range all {
		if r.Method == http.MethodGet {
			r.Method = http.MethodHead
			all = append(all, r)
		}
	}
	return all
}
