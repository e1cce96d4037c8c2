// Package grant says which scopes each group of the console's users has. Its table is the only one:
// the function grant-scopes writes the scopes into the tokens of the user pool, the stack makes the
// pool's groups and scopes from it, and the stand-in issuer reads it too.
package grant

import (
	"slices"

	"github.com/allo/reservations/internal/principal"
	"github.com/allo/reservations/internal/route"
)

// The groups. A user may be in several.
const (
	// GroupViewer sees everything and changes nothing. The other groups see as much.
	GroupViewer = "viewer"
	// GroupStock changes the catalog and the stock.
	GroupStock = "stock"
	// GroupSupport cancels holds and erases customers.
	GroupSupport = "support"
	// GroupAdmin may do everything.
	GroupAdmin = "admin"
)

// Groups returns the groups' names, the one with the fewest scopes first.
func Groups() []string { return []string{GroupViewer, GroupStock, GroupSupport, GroupAdmin} }

// All returns every scope of the API, sorted: those of the routes, and principal.ScopeActForAny, by
// which a caller reserves for any owner.
func All() []string {
	all := []string{principal.ScopeActForAny}
	for _, r := range route.All() {
		for _, scope := range []string{r.Scope, r.OptionalScope} {
			if scope != "" {
				all = append(all, scope)
			}
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// Scopes returns the scopes of a group, sorted. A group that isn't one of Groups has none.
func Scopes(group string) []string {
	viewer := []string{route.ScopeEvents, route.ScopeRead}
	switch group {
	case GroupViewer:
		return viewer
	case GroupStock:
		return sorted(append(viewer, route.ScopeCatalog, route.ScopeWrite))
	case GroupSupport:
		return sorted(append(viewer, route.ScopeSupport))
	case GroupAdmin:
		return All()
	default:
		return nil
	}
}

// Of returns the scopes of all these groups together, sorted. A user may be in several groups.
func Of(groups []string) []string {
	var all []string
	for _, group := range groups {
		all = append(all, Scopes(group)...)
	}
	return sorted(all)
}

// sorted sorts the scopes and removes those that are there twice.
func sorted(scopes []string) []string {
	slices.Sort(scopes)
	return slices.Compact(scopes)
}
