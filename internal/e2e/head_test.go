package e2e

import (
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/allo/reservations/internal/local"
	"github.com/allo/reservations/internal/route"
)

// headed are the headers that HEAD must answer as GET does. The length of some answers changes with
// the time in them.
var headed = []string{
	"Content-Type", "Cache-Control", "Etag", "Vary", "Content-Security-Policy",
	"X-Content-Type-Options", "Referrer-Policy",
}

// plain asks for a body that isn't compressed. Without it net/http asks for gzip, in a GET alone.
var plain = map[string]string{"Accept-Encoding": "identity"}

// getPaths are the addresses of all that answers a GET, the hold id's among them, and of one that
// nothing does.
func getPaths(id string) []string {
	paths := []string{
		"/", "/ops", "/ops/holds", "/settings.json", "/api/docs", "/api/openapi.json",
		"/reservation/" + id, "/assets/style.0123456789abcdef.css", "/assets/nothing.js",
		"/nothing", "/api/nothing",
	}
	for _, r := range slices.Concat(route.API(), route.Direct()) {
		if r.Method != http.MethodGet {
			continue
		}
		of := id
		if strings.HasPrefix(r.Path, "/api/products/") {
			of = mug.String()
		}
		path := strings.ReplaceAll(r.Path, "{id}", of)
		if r.Function == "list-movements" {
			path += "?source=s&reference=r"
		}
		paths = append(paths, path)
	}
	return paths
}

func TestHeadAnswersAsGetWithoutTheBody(t *testing.T) {
	eachTransport(t, func(t *testing.T, d *deployment) {
		h := d.reserve(line(mug, newYork, 1))
		for _, path := range getPaths(h.ID) {
			get := d.sendRaw(request{method: http.MethodGet, path: path, header: plain})
			head := d.sendRaw(request{method: http.MethodHead, path: path, header: plain})
			if head.status != get.status || len(head.body) > 0 {
				t.Errorf("HEAD %s = %d with %d bytes, want %d with none",
					path, head.status, len(head.body), get.status)
			}
			for _, name := range headed {
				if got, want := head.header.Get(name), get.header.Get(name); got != want {
					t.Errorf("HEAD %s has the %s %q, want %q as GET has", path, name, got, want)
				}
			}
			isMissing := strings.Contains(path, "nothing")
			isFine := get.status == http.StatusOK ||
				path == "/api/live" && get.status == http.StatusNoContent
			if isMissing != (get.status == http.StatusNotFound) || !isMissing && !isFine {
				t.Errorf("GET %s = %d, want 200, or 404 for a path with nothing", path, get.status)
			}
		}
	})
}

// The control: without the routes for HEAD every page is the gateway's 404.
func TestWithoutItsRoutesHeadIs404(t *testing.T) {
	t.Parallel()
	d := deploy(t, inProcess)
	gateway, err := local.NewGateway(
		slices.Concat(route.API(), route.Direct(), route.Web()), d.functions.HTTP,
		slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	d.gateway = gateway
	for path, want := range map[string]int{"/": 404, "/ops": 404, "/api/products": 404} {
		if got := d.sendRaw(request{method: http.MethodHead, path: path}).status; got != want {
			t.Errorf("HEAD %s = %d, want %d", path, got, want)
		}
	}
}
