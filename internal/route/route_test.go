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
	if want := len(all) - len(route.API()) - len(route.Web()); heads == 0 || heads != want {
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
