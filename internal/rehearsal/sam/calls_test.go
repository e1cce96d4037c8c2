package sam

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/allo/reservations/internal/local/demo"
	"github.com/allo/reservations/internal/pgtest"
	"github.com/allo/reservations/internal/route"
)

const (
	// answerTimeout limits a call. The first waits until SAM has built its image and a container
	// has started.
	answerTimeout = 90 * time.Second
	// answerLimit is far more than the longest answer, the storefront's page, in bytes.
	answerLimit = 4 << 20
	// shortHold is the duration in seconds of a hold that the test lets expire. expiryTimeout is
	// how long the test waits for it.
	shortHold     = 2
	expiryTimeout = time.Minute
)

// hold is the part of a reservation that the test reads.
type hold struct {
	ID, Status string
	Quantity   int
}

// answered checks that every function answers from a container, and that the rule's event makes the
// sweeper expire a hold.
func answered(t *testing.T, out string) {
	address, options := *engine, []string(nil)
	if address == "" {
		p := startPodman(t)
		address, options = p.address, []string{"--skip-pull-image"}
		// This runs after SAM has ended and before the engine ends.
		t.Cleanup(func() {
			if left := p.containers(t); left != "" {
				t.Errorf("SAM leaves containers: %s", left)
			}
		})
	}
	db := pgtest.New(t)
	if _, err := demo.SeedEmpty(t.Context(), db.URL); err != nil {
		t.Fatal(err)
	}
	api := startAPI(t, out, db.URL, address, options...)

	api.reads(t)
	id := api.buys(t)
	api.heads(t, id)
	api.refuses(t, id)
	api.releases(t)
	expired := api.letsExpire(t)
	sweeps(t, db, expired, options, environment(out, db.URL, address))
	t.Logf("SAM's containers served %d calls", strings.Count(api.stderr.String(), "END RequestId"))
}

// answer is an HTTP response with its body.
type answer struct {
	*http.Response
	body string
}

// call sends a request, with an idempotency key unless it is empty, and checks the status.
func (a *api) call(t *testing.T, method, path, key, body string, status int) answer {
	t.Helper()
	request, err := http.NewRequestWithContext(
		t.Context(), method, a.url+path, strings.NewReader(body),
	)
	if err != nil {
		t.Fatal(err)
	}
	if body != "" {
		request.Header.Set("Content-Type", "application/json")
	}
	if key != "" {
		request.Header.Set("Idempotency-Key", key)
	}
	client := &http.Client{Timeout: answerTimeout}
	response, err := client.Do(request)
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", method, path, err, &a.stderr)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, answerLimit))
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	if response.StatusCode != status {
		t.Fatalf("%s %s = %s %s, want %d\n%s", method, path, response.Status, text, status, &a.stderr)
	}
	return answer{response, string(text)}
}

func (a *api) get(t *testing.T, path string) string {
	t.Helper()
	return a.call(t, http.MethodGet, path, "", "", http.StatusOK).body
}

// reserve holds one mug of the demo and returns the whole answer.
func (a *api) reserve(t *testing.T, key, more string) answer {
	t.Helper()
	body := mugRequest(1, more)
	return a.call(t, http.MethodPost, "/api/reservations", key, body, http.StatusCreated)
}

// mugRequest is the request to hold some mugs of the demo, with more members, each after a comma.
func mugRequest(quantity int, more ...string) string {
	return fmt.Sprintf(
		`{"productId": %q, "warehouseId": %q, "quantity": %d%s}`, demo.Products()[2].ID,
		demo.Warehouses()[1].ID, quantity, strings.Join(more, ""),
	)
}

func (a *api) change(t *testing.T, id, verb, body string) hold {
	t.Helper()
	return reservation(
		t, a.call(t, http.MethodPost, "/api/reservations/"+id+"/"+verb, "", body, http.StatusOK).body,
	)
}

func reservation(t *testing.T, body string) hold {
	t.Helper()
	return decode[struct{ Reservation hold }](t, body).Reservation
}

// reads calls every route that needs no hold.
func (a *api) reads(t *testing.T) {
	t.Helper()
	if got := a.get(t, "/api/health"); !strings.Contains(got, `"ok"`) {
		t.Errorf("health = %s", got)
	}
	a.call(t, http.MethodGet, "/api/live", "", "", http.StatusNoContent)
	if got, want := a.mugs(t), (stock{Total: 30, Available: 30}); got != want {
		t.Errorf("the catalog has %+v mugs, want %+v", got, want)
	}
	warehouses := decode[[]struct{ Name string }](t, a.get(t, "/api/warehouses"))
	if got, want := len(warehouses), len(demo.Warehouses()); got != want {
		t.Errorf("there are %d warehouses, want %d", got, want)
	}
	if got := a.get(t, "/"); !strings.Contains(got, "<!doctype html>") {
		t.Errorf("the page is %.100s", got)
	}
	if got := a.get(t, "/ops"); !strings.Contains(got, "<!doctype html>") {
		t.Errorf("the operator's page is %.100s", got)
	}
	if got := decode[[]hold](t, a.get(t, "/api/reservations")); len(got) != 0 {
		t.Errorf("there are the holds %+v, want none yet", got)
	}
	if got := decode[struct{ Stock stock }](t, a.get(t, "/api/stats")).Stock; got.Total == 0 {
		t.Errorf("the stats have the stock %+v, want the demo's", got)
	}
	if got := a.get(t, "/reservation/"+uuid.NewString()); !strings.Contains(got, "<!doctype html>") {
		t.Errorf("the hold's page is %.100s", got)
	}
	if got := decode[struct{ OpenAPI string }](t, a.get(t, "/api/openapi.json")).OpenAPI; got == "" {
		t.Error("the document of the API has no version")
	}
	if got := a.get(t, "/api/docs"); !strings.Contains(got, "<!doctype html>") {
		t.Errorf("the page of the API's document is %.100s", got)
	}
}

// heads calls every route of HEAD, with the id of a hold that exists. Each must answer as its GET.
func (a *api) heads(t *testing.T, id string) {
	t.Helper()
	parameters := strings.NewReplacer("{id}", id, "{proxy+}", "ops")
	calls := 0
	for _, r := range route.All() {
		if r.Method != http.MethodHead {
			continue
		}
		path, status := parameters.Replace(r.Path), http.StatusOK
		switch {
		case r.Function == "live":
			status = http.StatusNoContent // there is no live channel
		case strings.HasPrefix(r.Path, "/api/products/"):
			path = "/api/products/" + demo.Products()[2].ID.String()
		case r.Function == "list-movements":
			path += "?source=erp&reference=delivery"
		}
		head := a.call(t, http.MethodHead, path, "", "", status)
		get := a.call(t, http.MethodGet, path, "", "", status)
		if got, want := head.Header.Get("Content-Type"), get.Header.Get("Content-Type"); got != want {
			t.Errorf("HEAD %s has the type %q, want %q as GET has", path, got, want)
		}
		calls++
	}
	if calls == 0 {
		t.Error("the table has no route for HEAD")
	}
}

type stock struct{ Total, Reserved, Available int }

// mugs returns the demo's stock of mugs in New York from the catalog.
func (a *api) mugs(t *testing.T) stock {
	t.Helper()
	products := decode[[]struct {
		ID          uuid.UUID
		Inventories []struct {
			WarehouseID                                     uuid.UUID
			TotalQuantity, ReservedQuantity, AvailableStock int
		}
	}](t, a.get(t, "/api/products"))
	for _, p := range products {
		for _, i := range p.Inventories {
			if p.ID == demo.Products()[2].ID && i.WarehouseID == demo.Warehouses()[1].ID {
				return stock{i.TotalQuantity, i.ReservedQuantity, i.AvailableStock}
			}
		}
	}
	t.Fatal("the catalog has no mugs in New York")
	return stock{}
}

// buys reserves, repeats that under the same key, reads the hold and confirms it.
func (a *api) buys(t *testing.T) string {
	t.Helper()
	key := uuid.NewString()
	first := a.reserve(t, key, "")
	h := reservation(t, first.body)
	if got, want := first.Header.Get("Location"), "/api/reservations/"+h.ID; got != want ||
		h.Status != "PENDING" {
		t.Errorf("the hold's Location is %q and it is %+v, want %q and PENDING", got, h, want)
	}
	again := a.reserve(t, key, "")
	if again.Header.Get("Idempotency-Replayed") != "true" || again.body != first.body {
		t.Errorf("the replay is %v %s, want %s", again.Header, again.body, first.body)
	}
	if got := reservation(t, a.get(t, "/api/reservations/"+h.ID)); got != h {
		t.Errorf("the hold reads as %+v, want %+v", got, h)
	}
	if got, want := a.mugs(t), (stock{30, 1, 29}); got != want {
		t.Errorf("with one held there are %+v mugs, want %+v", got, want)
	}
	const payment = `{"paymentReference": "p", "ttlSeconds": 900}`
	for _, verb := range []string{"payment", "payment/failed", "payment"} {
		if got := a.change(t, h.ID, verb, payment).Status; got != "PENDING" {
			t.Errorf("after %s the hold is %s", verb, got)
		}
	}
	if got := a.change(t, h.ID, "confirm", `{"paymentReference": "p"}`).Status; got != "CONFIRMED" {
		t.Errorf("a confirmed hold is %s", got)
	}
	if got, want := a.mugs(t), (stock{29, 0, 29}); got != want {
		t.Errorf("with one sold there are %+v mugs, want %+v", got, want)
	}
	return h.ID
}

// refuses makes calls that must fail, each with its code of the contract.
func (a *api) refuses(t *testing.T, confirmed string) {
	t.Helper()
	for _, c := range []struct {
		method, path, body string
		status             int
		code               string
	}{
		{
			http.MethodGet, "/api/reservations/" + uuid.NewString(), "",
			http.StatusNotFound, "RESERVATION_NOT_FOUND",
		},
		{
			http.MethodGet, "/api/reservations/nonsense", "",
			http.StatusNotFound, "RESERVATION_NOT_FOUND",
		},
		{
			http.MethodPost, "/api/reservations", `{"quantity": 0}`,
			http.StatusBadRequest, "VALIDATION_FAILED",
		},
		{
			http.MethodPost, "/api/reservations/" + confirmed + "/release", "",
			http.StatusConflict, "RESERVATION_CONFIRMED",
		},
		{
			http.MethodPost, "/api/reservations", mugRequest(1000),
			http.StatusConflict, "INSUFFICIENT_STOCK",
		},
		{
			http.MethodPost, "/api/reservations/" + confirmed + "/confirm", `{"paymentReference": "q"}`,
			http.StatusConflict, "ALREADY_PAID",
		},
		{
			http.MethodPost, "/api/webhooks/erp/redeliver", "",
			http.StatusNotFound, "WEBHOOK_NOT_FOUND",
		},
		{http.MethodGet, "/api/nothing", "", http.StatusNotFound, "NOT_FOUND"},
		// No route takes this one. SAM refuses it itself, without a code.
		{http.MethodDelete, "/api/products", "", http.StatusForbidden, ""},
	} {
		answer := a.call(t, c.method, c.path, "", c.body, c.status)
		if got := decode[struct{ Code string }](t, answer.body).Code; got != c.code {
			t.Errorf("%s %s: code = %s, want %s", c.method, c.path, got, c.code)
		}
	}
}

// releases extends a hold and releases it, and cancels another one, whose owner it erases.
func (a *api) releases(t *testing.T) {
	t.Helper()
	h := reservation(t, a.reserve(t, "", "").body)
	if got := a.change(t, h.ID, "extend", `{"ttlSeconds": 900}`).Status; got != "PENDING" {
		t.Errorf("an extended hold is %s", got)
	}
	if got := a.change(t, h.ID, "release", "").Status; got != "RELEASED" {
		t.Errorf("a released hold is %s", got)
	}
	owned := reservation(t, a.reserve(t, "", `, "owner": "ann"`).body)
	if got := a.change(t, owned.ID, "cancel", "").Status; got != "RELEASED" {
		t.Errorf("a cancelled hold is %s", got)
	}
	erased := a.call(t, http.MethodPost, "/api/owners/erase", "", `{"owner": "ann"}`, http.StatusOK)
	if erased.body != `{"erased":1,"more":false}` {
		t.Errorf("the erasure answers %s", erased.body)
	}
}

// letsExpire makes a short hold and waits until it reads as expired. Its unit must then be
// available before any sweep.
func (a *api) letsExpire(t *testing.T) string {
	t.Helper()
	h := reservation(t, a.reserve(t, "", fmt.Sprintf(`, "ttlSeconds": %d`, shortHold)).body)
	waitFor(t, expiryTimeout, "the hold to expire", func() bool {
		return reservation(t, a.get(t, "/api/reservations/"+h.ID)).Status == "EXPIRED"
	})
	if got, want := a.mugs(t), (stock{29, 0, 29}); got != want {
		t.Errorf("after the expiry there are %+v mugs, want %+v", got, want)
	}
	return h.ID
}

// report is the sweeper's answer.
type report struct {
	Expired, Units int
	Audit          *audit
}

type audit struct {
	Violations int
	Unfinished bool
}

// sweeps invokes the sweeper with the rule's event, which marks the dead hold as expired. Then it
// invokes the sweeper with an event that also audits, before and after it corrupts a stock row.
func sweeps(t *testing.T, db pgtest.Database, id string, options, environment []string) {
	t.Helper()
	sweep := func(event ...string) report {
		t.Helper()
		args := append(append([]string{"sweep"}, event...), options...)
		return decode[report](t, sam(t, commandTimeout, environment, args...))
	}
	// Only the sweep may mark the hold.
	if got := status(t, db, id); got != "PENDING" {
		t.Fatalf("before the sweep the hold is %s in the table, want PENDING", got)
	}
	if got, want := sweep(), (report{Expired: 1, Units: 1}); got != want {
		t.Errorf("the sweep answers %+v, want %+v", got, want)
	}
	if got := status(t, db, id); got != "EXPIRED" {
		t.Errorf("after the sweep the hold is %s in the table, want EXPIRED", got)
	}
	const auditing = "infra/sam/audit.json"
	if got, want := sweep(auditing), (report{Audit: &audit{}}); !cmp.Equal(got, want) {
		t.Errorf("the answer of the sweep with an audit (-want +got):\n%s", cmp.Diff(want, got))
	}
	corrupt(t, db, "UPDATE inventory SET reserved = reserved + 1 WHERE total > reserved")
	if got := sweep(auditing); got.Audit == nil || got.Audit.Violations == 0 {
		t.Errorf("with a corrupt stock row the sweep answers %+v, want violations", got)
	}
}

// corrupt changes the database without the service.
func corrupt(t *testing.T, db pgtest.Database, sql string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), db.DirectURL)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	if _, err := conn.Exec(t.Context(), sql); err != nil {
		t.Fatal(err)
	}
}

func status(t *testing.T, db pgtest.Database, id string) string {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), db.DirectURL)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	var status string
	const query = "SELECT status::text FROM reservations WHERE id = $1"
	if err := conn.QueryRow(t.Context(), query, id).Scan(&status); err != nil {
		t.Fatal(err)
	}
	return status
}
