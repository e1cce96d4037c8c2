package local

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/allo/reservations/internal/problem"
)

// named answers with the name of a cell.
func named(name string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, name)
	})
}

func newRouter(t *testing.T) *Router {
	t.Helper()
	r, err := NewRouter(
		Cell{Name: "north", Hosts: []string{"north.example", "snow.example"}, Gateway: named("north")},
		Cell{Name: "south", Hosts: []string{"South.Example"}, Gateway: named("south")},
	)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestRouterSendsARequestToTheCellOfItsHost(t *testing.T) {
	t.Parallel()

	router := newRouter(t)
	for host, want := range map[string]string{
		"north.example":      "north",
		"snow.example":       "north",
		"south.example":      "south",
		"SOUTH.example":      "south",
		"south.example:8080": "south",
		"south.example.":     "south",
		"south.example.:443": "south",
	} {
		w, r := httptest.NewRecorder(), httptest.NewRequest("GET", "/api/products", nil)
		r.Host = host
		router.ServeHTTP(w, r)
		if w.Code != http.StatusOK || w.Body.String() != want {
			t.Errorf("a call of %s = %d %s, want the answer of %s", host, w.Code, w.Body, want)
		}
	}
}

func TestRouterRefusesAnUnknownHost(t *testing.T) {
	t.Parallel()

	router := newRouter(t)
	for _, host := range []string{
		"", "example", "west.example", "north.example.evil", "evil.north.example", "[::1]:80", ":80",
		"north.example:80:80", "north.example/south.example",
	} {
		w, r := httptest.NewRecorder(), httptest.NewRequest("POST", "/api/reservations", nil)
		r.Host = host
		router.ServeHTTP(w, r)
		var got problem.Problem
		if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
			t.Fatalf("a call of %q = %s, want a problem: %v", host, w.Body, err)
		}
		if w.Code != http.StatusMisdirectedRequest || got.Code != codeNoCell || got.RequestID == "" ||
			w.Header().Get("Content-Type") != problem.ContentType {
			t.Errorf("a call of %q = %d %s, want 421 %s", host, w.Code, w.Body, codeNoCell)
		}
	}
}

func TestNewRouterRefusesCellsThatCannotWork(t *testing.T) {
	t.Parallel()

	north := Cell{Name: "north", Hosts: []string{"north.example"}, Gateway: named("north")}
	for want, second := range map[string]Cell{
		"the same host north.example": {Hosts: []string{"NORTH.example"}, Gateway: named("")},
		"needs a gateway":             {Hosts: []string{"south.example"}},
		"at least one host":           {Gateway: named("")},
		`"south.example:80" isn't`:    {Hosts: []string{"south.example:80"}, Gateway: named("")},
		`"south.example." isn't`:      {Hosts: []string{"south.example."}, Gateway: named("")},
		`"south_example" isn't`:       {Hosts: []string{"south_example"}, Gateway: named("")},
		`"south.example/" isn't`:      {Hosts: []string{"south.example/"}, Gateway: named("")},
		`"" isn't`:                    {Hosts: []string{""}, Gateway: named("")},
	} {
		if _, err := NewRouter(north, second); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("NewRouter with %+v error = %v, want one with %q", second, err, want)
		}
	}
}
