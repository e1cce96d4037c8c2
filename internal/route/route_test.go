package route_test

import (
	"slices"
	"testing"

	"github.com/allo/reservations/internal/route"
)

func TestHeadHasTheFunctionAndTheScopeOfGet(t *testing.T) {
	t.Parallel()

	all := route.All()
	heads := 0
	for _, r := range all {
		want := r
		switch r.Method {
		case "GET":
			want.Method = "HEAD"
		case "HEAD":
			want.Method = "GET"
			heads++
		default:
			continue
		}
		if !slices.Contains(all, want) {
			t.Errorf("there is a route %+v and no route %+v", r, want)
		}
	}
	others := slices.Concat(route.API(), route.Direct(), route.Web())
	if want := len(all) - len(others); heads == 0 || heads != want {
		t.Errorf("there are %d routes for HEAD, want %d", heads, want)
	}
}

func TestNoTwoRoutesHaveTheSameKey(t *testing.T) {
	t.Parallel()

	seen := map[string]bool{}
	for _, r := range route.All() {
		if seen[r.Key()] {
			t.Errorf("%s is there twice", r.Key())
		}
		seen[r.Key()] = true
	}
}

func TestOnlyReserveHasAnOptionalScope(t *testing.T) {
	t.Parallel()

	for _, r := range route.All() {
		want := r
		if r.Key() == "POST /api/reservations" {
			want.Scope = "reservations:write"
		} else if r.OptionalScope != "" {
			t.Errorf("%s has the optional scope %s", r.Key(), r.OptionalScope)
		}
		if got := r.Guarded(true); got != want {
			t.Errorf("with reserveAuth the route is %+v, want %+v", got, want)
		}
		if got := r.Guarded(false); got != r {
			t.Errorf("without reserveAuth the route is %+v, want %+v", got, r)
		}
	}
}
