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
}

// Key is the route key of an HTTP API: the method, a space and the path.
func (r Route) Key() string { return r.Method + " " + r.Path }

// API lists the routes of the reservation API, in the order of the contract.
func API() []Route {
	return []Route{
		{"list-products", "GET", "/api/products"},
		{"list-warehouses", "GET", "/api/warehouses"},
		{"reserve", "POST", "/api/reservations"},
		{"get-reservation", "GET", "/api/reservations/{id}"},
		{"confirm", "POST", "/api/reservations/{id}/confirm"},
		{"release", "POST", "/api/reservations/{id}/release"},
		{"extend", "POST", "/api/reservations/{id}/extend"},
		{"health", "GET", "/api/health"},
	}
}

// Web lists the routes of the storefront: its pages, their files and the document that describes the API. None of them
// needs the database.
func Web() []Route {
	return []Route{
		{"web", "GET", "/"},
		{"web", "GET", "/reservation/{id}"},
		{"web", "GET", "/assets/{proxy+}"},
		{"web", "GET", "/api/openapi.json"},
	}
}

// All lists every route of the service.
func All() []Route { return append(API(), Web()...) }
