// Package route is the one table of what the service answers. The HTTP handlers, the local gateway, the CDK stack and the
// OpenAPI test all read it, so that a route can't exist in one of them and be missing from another.
package route

// Route binds a method and a path to the Lambda function that answers it.
type Route struct {
	// Function is the name of the Lambda, which is also the name of its directory under functions/.
	Function string
	// Method is an upper-case HTTP method.
	Method string
	// Path is written as API Gateway writes it: {id} takes one segment, {proxy+} takes the rest.
	Path string
	// Scope is what a caller must be granted where the gateway asks who calls, empty for what every shopper may do.
	Scope string
}

// The scopes that a route may ask for.
const (
	// ScopeConfirm is the payment side's: a shopper who had it could take stock without paying.
	ScopeConfirm = "reservations:confirm"
	// ScopeRead is the operator's: who holds what, and how the shop goes, is nobody else's business.
	ScopeRead = "inventory:read"
)

// Key is the route key of an HTTP API: the method, a space and the path.
func (r Route) Key() string { return r.Method + " " + r.Path }

// API lists the routes of the reservation API, in the order of the contract.
func API() []Route {
	return []Route{
		{Function: "list-products", Method: "GET", Path: "/api/products"},
		{Function: "list-warehouses", Method: "GET", Path: "/api/warehouses"},
		{Function: "reserve", Method: "POST", Path: "/api/reservations"},
		{Function: "list-reservations", Method: "GET", Path: "/api/reservations", Scope: ScopeRead},
		{Function: "get-reservation", Method: "GET", Path: "/api/reservations/{id}"},
		{Function: "confirm", Method: "POST", Path: "/api/reservations/{id}/confirm", Scope: ScopeConfirm},
		{Function: "release", Method: "POST", Path: "/api/reservations/{id}/release"},
		{Function: "extend", Method: "POST", Path: "/api/reservations/{id}/extend"},
		{Function: "stats", Method: "GET", Path: "/api/stats", Scope: ScopeRead},
		{Function: "health", Method: "GET", Path: "/api/health"},
	}
}

// Web lists the routes of the storefront: its pages, their files and the document that describes the API. None of them
// needs the database.
func Web() []Route {
	return []Route{
		{Function: "web", Method: "GET", Path: "/"},
		{Function: "web", Method: "GET", Path: "/reservation/{id}"},
		{Function: "web", Method: "GET", Path: "/ops"},
		{Function: "web", Method: "GET", Path: "/assets/{proxy+}"},
		{Function: "web", Method: "GET", Path: "/api/openapi.json"},
	}
}

// All lists every route of the service.
func All() []Route { return append(API(), Web()...) }
