package e2e

import (
	"bytes"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/allo/reservations/internal/config"
	"github.com/allo/reservations/internal/lambdahttp"
	"github.com/allo/reservations/internal/local/demo"
	"github.com/allo/reservations/internal/pgtest"
	"github.com/allo/reservations/internal/route"
)

// Each function that the gateway invokes refuses who goes around the CDN, as it was built. Who
// comes through the CDN is served with either secret.
func TestEveryFunctionServesOnlyTheCDN(t *testing.T) {
	t.Parallel()

	secrets := []string{"first0123456789abcdefABCDEF012345", "second0123456789abcdefABCDEF01234"}
	db := pgtest.NewFixture(t, pgtest.New(t))
	if _, err := demo.SeedSmall(t.Context(), db.DirectURL); err != nil {
		t.Fatal(err)
	}
	d := deployWith(t, binaries, config.Config{
		DatabaseURL: db.URL, HoldTTL: 10 * time.Minute, MaxHold: time.Hour,
		MaxPaymentHold: 24 * time.Hour, MaxUnits: 1000, MaxLines: 100, LogLevel: slog.LevelError,
		OriginSecrets: secrets,
	})
	for _, r := range route.All() {
		path := strings.NewReplacer("{id}", "1", "{name}", "crm", "{proxy+}", "ops").Replace(r.Path)
		for _, secret := range []string{"", secrets[0] + secrets[1]} {
			a := d.sendRaw(request{
				method: r.Method, path: path, header: map[string]string{lambdahttp.OriginHeader: secret},
			})
			isRefusal := bytes.Contains(a.body, []byte(lambdahttp.CodeNotThroughCDN)) ||
				r.Method == http.MethodHead // which has no body
			if a.status != http.StatusForbidden || !isRefusal {
				t.Errorf("%s answers %d %s who goes around the CDN", r.Key(), a.status, a.body)
			}
		}
	}
	for _, secret := range secrets {
		header := map[string]string{lambdahttp.OriginHeader: secret}
		body := line(mug, newYork, 1)
		a := d.sendRaw(request{method: "POST", path: "/api/reservations", header: header, body: body})
		if a.status != http.StatusCreated {
			t.Errorf("a reserve through the CDN is answered with %d %s", a.status, a.body)
		}
		for _, path := range []string{"/", "/api/products", "/api/live", "/api/health"} {
			if a := d.sendRaw(request{method: "GET", path: path, header: header}); a.status >= 300 {
				t.Errorf("GET %s through the CDN is answered with %d %s", path, a.status, a.body)
			}
		}
	}
}
