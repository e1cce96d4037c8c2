package app_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/allo/reservations/internal/app"
	"github.com/allo/reservations/internal/config"
	"github.com/allo/reservations/internal/emf"
	"github.com/allo/reservations/internal/httpapi"
	"github.com/allo/reservations/internal/pgtest"
	"github.com/allo/reservations/internal/postgres"
	"github.com/allo/reservations/internal/route"
)

// readMetrics returns the metrics that CloudWatch would make from the lines. A key is the metric's
// name, or with a dimension "name/value". It checks each line by the rules of the embedded metric
// format, and empties the buffer.
func readMetrics(t *testing.T, out *bytes.Buffer) map[string]float64 {
	t.Helper()
	got := map[string]float64{}
	for line := range bytes.Lines(out.Bytes()) {
		var fields map[string]any
		var head struct {
			AWS struct {
				Timestamp         int64
				CloudWatchMetrics []struct {
					Namespace  string
					Dimensions [][]string
					Metrics    []struct{ Name, Unit string }
				}
			} `json:"_aws"`
		}
		if err := json.Unmarshal(line, &fields); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		if err := json.Unmarshal(line, &head); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		age := time.Since(time.UnixMilli(head.AWS.Timestamp))
		if age < -time.Second || age > 5*time.Minute {
			t.Errorf("%s: its timestamp is %s ago, want it now", line, age)
		}
		if len(head.AWS.CloudWatchMetrics) == 0 {
			t.Errorf("%s: it has no directive", line)
		}
		for _, d := range head.AWS.CloudWatchMetrics {
			if d.Namespace != "AlloReservations/test" || len(d.Dimensions) != 1 ||
				len(d.Metrics) == 0 {
				t.Errorf("%s: its directive is %+v", line, d)
			}
			suffix := ""
			for _, dimension := range d.Dimensions[0] {
				value, isText := fields[dimension].(string)
				if !isText || value == "" {
					t.Errorf("%s: the dimension %s is %v", line, dimension, fields[dimension])
				}
				suffix += "/" + value
			}
			for _, m := range d.Metrics {
				value, isNumber := fields[m.Name].(float64)
				metric := emf.Metric{
					Name: m.Name, Unit: emf.Unit(m.Unit), Dimension: strings.Join(d.Dimensions[0], ","),
				}
				if !isNumber || !slices.Contains(emf.All(), metric) {
					t.Errorf("%s: the metric %+v is %v", line, metric, fields[m.Name])
				}
				got[m.Name+suffix] += value
			}
		}
	}
	out.Reset()
	return got
}

func wantMetrics(t *testing.T, name string, got, want map[string]float64) {
	t.Helper()
	for metric, value := range want {
		if n, found := got[metric]; !found || n != value {
			t.Errorf("%s: the metrics are %v, want %s = %v", name, got, metric, value)
		}
	}
}

// measuredApp is an App that writes its metrics into a buffer.
type measuredApp struct {
	t       *testing.T
	app     *app.App
	fixture *pgtest.Fixture // nil without a database
	metrics bytes.Buffer
}

// The product and the two warehouses of newStockedApp.
const (
	mug  = "0192d000-0000-7000-8000-0000000000a1"
	east = "0192d000-0000-7000-8000-0000000000b1"
	west = "0192d000-0000-7000-8000-0000000000b2"
)

func newMeasuredApp(t *testing.T, databaseURL string) *measuredApp {
	t.Helper()
	s := &measuredApp{t: t}
	c := config.Config{DatabaseURL: databaseURL, HoldTTL: time.Minute, MaxHold: time.Hour}
	var log bytes.Buffer
	t.Cleanup(func() { t.Log(log.String()) })
	handler := slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelError})
	var err error
	if s.app, err = app.New(c, slog.New(handler), 1); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.app.Close)
	s.app.WriteMetrics(&s.metrics, "AlloReservations/test")
	return s
}

// newStockedApp makes a measuredApp on a database with 100 mugs in the east and one in the west.
func newStockedApp(t *testing.T) *measuredApp {
	t.Helper()
	db := pgtest.New(t)
	s := newMeasuredApp(t, db.URL)
	s.fixture = pgtest.NewFixture(t, db)
	s.fixture.Exec("INSERT INTO products (id, name, sku) VALUES ($1, 'mug', 'M')", mug)
	s.fixture.Exec("INSERT INTO warehouses (id, name) VALUES ($1, 'east'), ($2, 'west')", east, west)
	s.fixture.Stock(uuid.MustParse(mug), uuid.MustParse(east), 100)
	s.fixture.Stock(uuid.MustParse(mug), uuid.MustParse(west), 1)
	return s
}

// call sends an event to a function as the gateway does. It returns the response's Location and the
// metrics that the function wrote.
func (s *measuredApp) call(
	function, method, path, body, key string,
) (location string, metrics map[string]float64) {
	s.t.Helper()
	path, query, _ := strings.Cut(path, "?")
	event := events.APIGatewayV2HTTPRequest{
		Version:        "2.0",
		RawPath:        path,
		RawQueryString: query,
		Body:           body,
		Headers:        map[string]string{"content-type": "application/json"},
	}
	if key != "" {
		event.Headers["idempotency-key"] = key
	}
	event.RequestContext.HTTP.Method, event.RequestContext.HTTP.Path = method, path
	response, err := s.app.HTTP(function)(s.t.Context(), event)
	if err != nil {
		s.t.Fatal(err)
	}
	for name, value := range response.Headers {
		if strings.EqualFold(name, "Location") {
			location = value
		}
	}
	return location, readMetrics(s.t, &s.metrics)
}

// line returns the body of a reserve of mugs.
func line(warehouse, quantity, ttl string) string {
	return `{"productId":"` + mug + `","warehouseId":"` + warehouse + `","quantity":` + quantity +
		`,"ttlSeconds":` + ttl + `}`
}

// document returns the body of a delivery of one unit to the east.
func document(product, together string) string {
	return `{"source":"s","reference":"r","together":` + together + `,"lines":[{"productId":"` +
		product + `","warehouseId":"` + east + `","delta":1}]}`
}

// parcel returns the body of a return of mugs of the east.
func parcel(reference, quantity, to string) string {
	return `{"reference":"` + reference + `","lines":[{"productId":"` + mug + `","warehouseId":"` +
		east + `","quantity":` + quantity + `,"toWarehouseId":"` + to + `"}]}`
}

func TestEveryOutcomeIsCounted(t *testing.T) {
	t.Parallel()

	s := newStockedApp(t)
	seen := map[string]bool{}
	// want checks that got has the outcome, once, and the other metrics, and nothing else.
	want := func(outcome string, got map[string]float64, others ...string) {
		t.Helper()
		for _, function := range emf.Objectives() { // The machine decides which answers are slow.
			delete(got, emf.SlowAnswers.Name+"/"+function)
		}
		names := append([]string{"Reservations/" + outcome}, others...)
		slices.Sort(names)
		if diff := cmp.Diff(names, slices.Sorted(maps.Keys(got))); diff != "" {
			t.Errorf("%s: the metrics differ (-want +got):\n%s", outcome, diff)
		}
		wantMetrics(t, outcome, got, map[string]float64{"Reservations/" + outcome: 1})
		seen[outcome] = true
	}
	reserve := func(outcome, body, key string, others ...string) string {
		t.Helper()
		location, got := s.call("reserve", http.MethodPost, "/api/reservations", body, key)
		want(outcome, got, others...)
		return location
	}
	move := func(outcome, product, together string) {
		t.Helper()
		_, got := s.call("move-stock", http.MethodPost, "/api/stock/movements", document(product,
			together), "")
		want(outcome, got)
	}
	verb := func(outcome, name, hold, body string, others ...string) {
		t.Helper()
		_, got := s.call(name, http.MethodPost, hold+"/"+name, body, "")
		want(outcome, got, others...)
	}

	hold := reserve("HELD", line(east, "1", "60"), "a")
	reserve("REPLAYED", line(east, "1", "60"), "a")
	reserve("IDEMPOTENCY_KEY_REUSED", line(east, "2", "60"), "a")
	verb("EXTENDED", "extend", hold, `{"ttlSeconds":120}`)
	verb("EXTENSION_LIMIT", "extend", hold, `{"ttlSeconds":86400}`)
	verb("CONFIRMED", "confirm", hold, "")
	verb("RESERVATION_CONFIRMED", "release", hold, "")
	hold = reserve("HELD", line(east, "1", "60"), "")
	verb("RELEASED", "release", hold, "")
	verb("RESERVATION_RELEASED", "confirm", hold, "")
	verb("RESERVATION_NOT_FOUND", "confirm", "/api/reservations/"+mug, "")
	reserve("INVALID", `{"quantity":"one"}`, "")
	reserve("INVALID", line(east, "1", "60"), "two,keys")
	reserve("INVENTORY_NOT_FOUND", strings.ReplaceAll(line(east, "1", "60"), mug, west), "")
	reserve("INSUFFICIENT_STOCK", line(west, "2", "60"), "", "Shortages")
	archive := func(status string) {
		t.Helper()
		_, got := s.call("put-products", http.MethodPost, "/api/catalog/products",
			`{"items":[{"sku":"M","status":"`+status+`"}]}`, "")
		if len(got) != 0 {
			t.Errorf("a write of the catalog has the metrics %v, want none", got)
		}
	}
	archive("ARCHIVED")
	reserve("NOT_FOR_SALE", line(east, "1", "60"), "")
	archive("ACTIVE")

	takeBack := func(outcome, hold, reference, quantity, to string) {
		t.Helper()
		_, got := s.call("return-goods", http.MethodPost, hold+"/returns", parcel(reference, quantity,
			to), "")
		want(outcome, got)
	}
	sold := reserve("HELD", line(east, "2", "60"), "")
	takeBack("RESERVATION_NOT_CONFIRMED", sold, "r", "1", east)
	verb("CONFIRMED", "confirm", sold, "")
	takeBack("RETURNED", sold, "r", "1", east)
	takeBack("REFERENCE_REUSED", sold, "r", "2", east)
	takeBack("RETURN_EXCEEDS_SOLD", sold, "s", "2", east)
	takeBack("WAREHOUSE_NOT_FOUND", sold, "s", "1", mug)
	const setTotal = `
SELECT adjust_stock(product_id, warehouse_id, $1 - total, 'test') FROM inventory
WHERE warehouse_id = $2`
	s.fixture.Exec(setTotal, 2_000_000_000, east)
	takeBack("TOO_MANY_UNITS", sold, "s", "1", east)
	s.fixture.Exec(setTotal, 100, east)

	move("MOVED", mug, "false")
	move("MOVEMENTS_REFUSED", west, "true")

	s.payments(want, reserve)

	dying := reserve("HELD", line(east, "1", "1"), "")
	s.awaitDead(strings.TrimPrefix(dying, "/api/reservations/"))
	verb("RESERVATION_EXPIRED", "confirm", dying, "")
	verb("EXPIRED", "release", dying, "")

	unlock := s.fixture.Lock("SELECT pg_advisory_xact_lock(1, hashtext('b'))")
	reserve("IDEMPOTENCY_KEY_IN_USE", line(east, "1", "60"), "b")
	unlock()
	unlock = s.fixture.Lock("SELECT FROM inventory FOR UPDATE")
	reserve("STOCK_BUSY", line(east, "1", "60"), "", "ServerErrors/reserve")
	s.fixture.Exec("TRUNCATE stock_movements")
	move("MOVEMENTS_INCOMPLETE", mug, "false")
	unlock()
	s.fixture.Exec(`
ALTER PROCEDURE extend_hold(uuid, "char", text, text, interval, interval, interval, text, bytea,
    text, jsonb) RENAME TO another`)
	verb("INTERNAL", "extend", dying, `{"ttlSeconds":60}`, "Faults/extend")

	unreachable := newMeasuredApp(t, "postgres://u:p@127.0.0.1:1/d")
	_, got := unreachable.call("reserve", http.MethodPost, "/api/reservations",
		line(east, "1", "60"), "")
	want("DATABASE_UNAVAILABLE", got, "PoolErrors", "ServerErrors/reserve")

	// Each route bounds its own answers, so no request can cause the last resort. A test of package
	// httpapi does, with a lower limit.
	seen["ANSWER_TOO_LARGE"] = true
	all := httpapi.Outcomes()
	slices.Sort(all)
	if diff := cmp.Diff(all, slices.Sorted(maps.Keys(seen))); diff != "" {
		t.Errorf("the outcomes of this test differ from all outcomes (-all +test):\n%s", diff)
	}
}

// payments causes the outcomes of payments, owners and limits, with the helpers of its caller.
func (s *measuredApp) payments(
	want func(outcome string, got map[string]float64, others ...string),
	reserve func(outcome, body, key string, others ...string) string,
) {
	s.t.Helper()
	call := func(outcome, function, path, body, key string, others ...string) {
		s.t.Helper()
		_, got := s.call(function, http.MethodPost, path, body, key)
		want(outcome, got, others...)
	}
	const (
		p, q = `{"paymentReference":"p","ttlSeconds":60}`, `{"paymentReference":"q"}`
		late = `{"paymentReference":"p","onGone":"REACQUIRE"}`
	)
	hold := reserve("HELD", line(east, "1", "60"), "")
	call("PAYING", "start-payment", hold+"/payment", p, "")
	call("PAYMENT_STARTED", "release", hold+"/release", "", "")
	call("PAYMENT_FAILED", "fail-payment", hold+"/payment/failed", p, "")
	call("CONFIRMED", "confirm", hold+"/confirm", `{"paymentReference":"p"}`, "")
	call("ALREADY_PAID", "confirm", hold+"/confirm", q, "")
	call("RELEASED", "cancel", reserve("HELD", line(east, "1", "60"), "")+"/cancel", "", "")

	gone := reserve("HELD", line(west, "1", "60"), "")
	call("RELEASED", "release", gone+"/release", "", "")
	other := reserve("HELD", line(west, "1", "60"), "")
	call("PAYMENT_LOST", "confirm", gone+"/confirm", late, "lost", "Shortages")
	call("REPLAYED", "confirm", gone+"/confirm", late, "lost")
	call("RELEASED", "release", other+"/release", "", "")
	call("REACQUIRED", "confirm", other+"/confirm", late, "")
	s.fixture.Exec("SELECT adjust_stock($1, $2, 1, 'test')", mug, west)

	limit := func(units string) {
		s.t.Helper()
		s.call("put-products", http.MethodPost, "/api/catalog/products",
			`{"items":[{"sku":"M","maxPerOwner":`+units+`}]}`, "")
	}
	limit("1")
	reserve("OWNER_REQUIRED", line(east, "1", "60"), "")
	owned := strings.Replace(line(east, "2", "60"), "{", `{"owner":"ann",`, 1)
	reserve("LIMIT_EXCEEDED", owned, "")
	limit("0")
	call("ERASED", "erase-owner", "/api/owners/erase", `{"owner":"ann"}`, "")
}

func (s *measuredApp) awaitDead(id string) {
	s.t.Helper()
	s.fixture.WaitUntil("SELECT expires_at < clock_timestamp() FROM reservations WHERE id = $1", id)
}

func TestShortagesRetriesAndFailedConnectionsAreCounted(t *testing.T) {
	t.Parallel()

	s := newStockedApp(t)
	cart := `{"items":[{"productId":"` + mug + `","warehouseId":"` + east + `","quantity":101},` +
		`{"productId":"` + mug + `","warehouseId":"` + west + `","quantity":2}]}`
	_, got := s.call("reserve", http.MethodPost, "/api/reservations", cart, "")
	wantMetrics(t, "a cart that is short twice", got, map[string]float64{"Shortages": 2})

	// The first two tries fail with a serialization failure.
	s.fixture.Exec("CREATE SEQUENCE tries")
	s.fixture.Exec(`
CREATE FUNCTION collide() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF nextval('tries') <= 2 THEN
        RAISE EXCEPTION 'collided' USING ERRCODE = 'serialization_failure';
    END IF;
    RETURN NEW;
END $$`)
	s.fixture.Exec(`
CREATE TRIGGER collide BEFORE INSERT ON reservations
FOR EACH ROW EXECUTE FUNCTION collide()`)
	_, got = s.call("reserve", http.MethodPost, "/api/reservations", line(east, "1", "60"), "")
	wantMetrics(t, "a reserve that collides twice", got,
		map[string]float64{"Retries": 2, "Reservations/HELD": 1})
	_, got = s.call("reserve", http.MethodPost, "/api/reservations", line(east, "1", "60"), "")
	if diff := cmp.Diff(map[string]float64{"Reservations/HELD": 1}, got); diff != "" {
		t.Errorf("a reserve without a retry: the metrics differ (-want +got):\n%s", diff)
	}

	// A function that only reads writes no metric, unless it gets no connection.
	for function, path := range map[string]string{
		"list-products": "/api/products", "health": "/api/health",
		"get-reservation": "/api/reservations/" + mug,
	} {
		if _, got := s.call(function, http.MethodGet, path, "", ""); len(got) > 0 {
			t.Errorf("%s: the metrics are %v, want none", function, got)
		}
		unreachable := newMeasuredApp(t, "postgres://u:p@127.0.0.1:1/d")
		_, got := unreachable.call(function, http.MethodGet, path, "", "")
		if diff := cmp.Diff(map[string]float64{"PoolErrors": 1}, got); diff != "" {
			t.Errorf("%s without a database: the metrics differ (-want +got):\n%s", function, diff)
		}
	}
}

// A verb that is broken answers 500, which Lambda takes for a success. A request that is refused,
// and a database that is out of reach, are no faults.
func TestOnlyABugIsAFaultOfItsFunction(t *testing.T) {
	t.Parallel()

	s := newStockedApp(t)
	unreachable := newMeasuredApp(t, "postgres://u:p@127.0.0.1:1/d")
	calls := map[string]struct{ method, path, body string }{
		"list-products":     {http.MethodGet, "/api/products", ""},
		"list-warehouses":   {http.MethodGet, "/api/warehouses", ""},
		"list-reservations": {http.MethodGet, "/api/reservations", ""},
		"stats":             {http.MethodGet, "/api/stats", ""},
		"list-stock":        {http.MethodGet, "/api/stock", ""},
		"list-events":       {http.MethodGet, "/api/events", ""},
		"history":           {http.MethodGet, "/api/reservations/" + mug + "/history", ""},
		"list-movements": {
			http.MethodGet, "/api/stock/movements?source=s&reference=r", "",
		},
		"move-stock": {
			http.MethodPost, "/api/stock/movements", document(mug, "false"),
		},
		"reserve":         {http.MethodPost, "/api/reservations", line(west, "2", "60")},
		"get-reservation": {http.MethodGet, "/api/reservations/" + mug, ""},
		"confirm":         {http.MethodPost, "/api/reservations/" + mug + "/confirm", ""},
		"release":         {http.MethodPost, "/api/reservations/" + mug + "/release", ""},
		"return-goods": {
			http.MethodPost, "/api/reservations/" + mug + "/returns", parcel("r", "1", east),
		},
		"put-products": {
			http.MethodPost, "/api/catalog/products", `{"items":[{"sku":"M"}]}`,
		},
		"put-warehouses": {
			http.MethodPost, "/api/catalog/warehouses", `{"items":[{"code":"E","name":"E"}]}`,
		},
		"extend": {
			http.MethodPost, "/api/reservations/" + mug + "/extend", `{"ttlSeconds":60}`,
		},
	}
	want := func(when, function string, s *measuredApp, faults float64) {
		t.Helper()
		c := calls[function]
		_, got := s.call(function, c.method, c.path, c.body, "")
		if got["Faults/"+function] != faults {
			t.Errorf("%s: %s: the metrics are %v, want %v faults", function, when, got, faults)
		}
	}
	for _, r := range route.API() {
		if r.Function == "health" { // it answers 200 or 503
			continue
		}
		want("a call that succeeds or is refused", r.Function, s, 0)
		want("without a database", r.Function, unreachable, 0)
	}
	// Every statement now fails with an error that no table of errors knows.
	s.fixture.Exec("ALTER SCHEMA public RENAME TO lost")
	for function := range calls {
		want("with a bug", function, s, 1)
	}
}

// This is the control of the test above: Lambda counts such a call as a success.
func TestLambdaSeesNoErrorInAFault(t *testing.T) {
	t.Parallel()

	s := newStockedApp(t)
	s.fixture.Exec("ALTER SCHEMA public RENAME TO lost")
	event := events.APIGatewayV2HTTPRequest{Version: "2.0", RawPath: "/api/products"}
	event.RequestContext.HTTP.Method, event.RequestContext.HTTP.Path = http.MethodGet, event.RawPath
	response, err := s.app.HTTP("list-products")(t.Context(), event)
	if err != nil || response.StatusCode != http.StatusInternalServerError {
		t.Errorf("the answer is %d, %v, want 500 and no error", response.StatusCode, err)
	}
}

// The horizon is reported, and a horizon that can't be read doesn't fail the sweep.
func TestASweepReportsTheOldestTransaction(t *testing.T) {
	t.Parallel()

	s := newStockedApp(t)
	unlock := s.fixture.Lock("SELECT pg_current_xact_id()")
	const begun = 50
	for range begun {
		s.fixture.Exec("SELECT pg_current_xact_id()")
	}

	report, err := s.app.Sweep(t.Context(), events.EventBridgeEvent{})

	if err != nil || report.Horizon == nil || !report.Horizon.Complete {
		t.Fatalf("Sweep() = %+v, %v, want a complete horizon", report, err)
	}
	h := *report.Horizon
	if h.Transactions < begun || h.OldestTransactionSeconds <= 0 {
		t.Errorf("the horizon is %+v, want an age and at least %d transactions", h, begun)
	}
	wantMetrics(t, "an open transaction", readMetrics(t, &s.metrics), map[string]float64{
		"OldestTransaction":   h.OldestTransactionSeconds,
		"HorizonTransactions": float64(h.Transactions),
	})
	unlock()

	s.fixture.Exec("DROP FUNCTION read_horizon")
	report, err = s.app.Sweep(t.Context(), events.EventBridgeEvent{})
	if err != nil || report.Horizon != nil {
		t.Errorf("Sweep() without read_horizon = %+v, %v, want a sweep without a horizon", report, err)
	}
	got := readMetrics(t, &s.metrics)
	wantMetrics(t, "an unknown horizon", got, map[string]float64{"SweepLag": 0})
	for _, metric := range []string{"OldestTransaction", "HorizonTransactions"} {
		if _, known := got[metric]; known {
			t.Errorf("there is a metric %s, though it is unknown", metric)
		}
	}
}

func TestSweepsAreCountedEvenWhenTheyFail(t *testing.T) {
	t.Parallel()

	s := newStockedApp(t)
	s.call("reserve", http.MethodPost, "/api/reservations", line(east, "1", "60"), "")
	sweep := func() map[string]float64 {
		t.Helper()
		_, _ = s.app.Sweep(t.Context(), events.EventBridgeEvent{})
		return readMetrics(t, &s.metrics)
	}
	got := sweep()
	wantMetrics(t, "a sweep without dead holds", got,
		map[string]float64{"Expired": 0, "SweepLag": 0, "SweepMore": 0})
	s.fixture.KillAgo(time.Hour, uuid.MustParse(
		pgtest.QueryOne[string](s.fixture, "SELECT id::text FROM reservations")))
	got = sweep()
	wantMetrics(t, "a sweep of a hold", got, map[string]float64{"Expired": 1, "SweepMore": 0})
	if lag := got["SweepLag"]; lag < 3500 || lag > 3700 {
		t.Errorf("the sweep's lag is %v s, want about an hour", lag)
	}
	if duration := got["SweepDuration"]; duration <= 0 {
		t.Errorf("the sweep's duration is %v ms, want more than 0", duration)
	}

	// Without its function the sweep fails before it has found the oldest dead hold.
	s.fixture.Exec("ALTER FUNCTION sweep_holds RENAME TO another")
	got = sweep()
	wantMetrics(t, "a sweep that fails", got, map[string]float64{"Expired": 0, "SweepMore": 0})
	if _, known := got["SweepLag"]; known {
		t.Errorf("the metrics of a sweep that failed are %v, want no lag", got)
	}
	unreachable := newMeasuredApp(t, "postgres://u:p@127.0.0.1:1/d")
	_, _ = unreachable.app.Sweep(t.Context(), events.EventBridgeEvent{})
	wantMetrics(t, "a sweep without a database", readMetrics(t, &unreachable.metrics),
		map[string]float64{"Expired": 0, "PoolErrors": 1})
}

// The caller gets 503 and may try again. Only the log has the reason.
func TestAnUnreadableSecretMakesTheDatabaseUnavailable(t *testing.T) {
	t.Parallel()

	manager := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprint(w, `{"__type":"AccessDeniedException","Message":"not authorized"}`)
	}))
	t.Cleanup(manager.Close)
	var log, metrics bytes.Buffer
	a, err := app.New(config.Config{
		DatabaseSecret: "allo/database",
		AWS: config.AWS{
			Region: "eu-central-1", AccessKeyID: "id", SecretAccessKey: "hidden",
			SecretsEndpoint: manager.URL,
		},
	}, slog.New(slog.NewJSONHandler(&log, nil)), 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Close)
	a.WriteMetrics(&metrics, "AlloReservations/test")
	event := events.APIGatewayV2HTTPRequest{Version: "2.0", RawPath: "/api/warehouses"}
	event.RequestContext.HTTP.Method, event.RequestContext.HTTP.Path = http.MethodGet, event.RawPath

	response, err := a.HTTP("list-warehouses")(t.Context(), event)

	if err != nil || response.StatusCode != http.StatusServiceUnavailable ||
		strings.Contains(response.Body, "AccessDenied") {
		t.Errorf("the answer is %d %s, %v, want 503 without the reason", response.StatusCode,
			response.Body, err)
	}
	if got := log.String(); !strings.Contains(got, "AccessDeniedException: not authorized") ||
		strings.Contains(got, "hidden") {
		t.Errorf("the log is %s, want the reason and no key", got)
	}
	wantMetrics(t, "a secret that can't be read", readMetrics(t, &metrics),
		map[string]float64{"PoolErrors": 1})
}

// A function may start while its database is out of reach. Its later connections check the server
// all the same. The caller gets 503, and only the log has the reason.
func TestARequestThatMeetsAnUnsafeServerIsRefusedAndLogged(t *testing.T) {
	t.Parallel()

	db := pgtest.NewFixture(t, pgtest.New(t))
	alter := "ALTER ROLE CURRENT_USER IN DATABASE " + pgx.Identifier{db.Name}.Sanitize()
	db.Exec(alter + " SET synchronous_commit = off")
	var log, metrics bytes.Buffer
	c := config.Config{DatabaseURL: db.DirectURL, HoldTTL: time.Minute, MaxHold: time.Hour}
	a, err := app.New(c, slog.New(slog.NewJSONHandler(&log, nil)), 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Close)
	a.WriteMetrics(&metrics, "AlloReservations/test")
	event := events.APIGatewayV2HTTPRequest{Version: "2.0", RawPath: "/api/warehouses"}
	event.RequestContext.HTTP.Method, event.RequestContext.HTTP.Path = http.MethodGet, event.RawPath
	call := func(want int) {
		t.Helper()
		response, err := a.HTTP("list-warehouses")(t.Context(), event)
		if err != nil || response.StatusCode != want ||
			strings.Contains(response.Body, "synchronous_commit") {
			t.Errorf("the answer is %d %s, %v, want %d without the reason", response.StatusCode,
				response.Body, err, want)
		}
	}

	call(http.StatusServiceUnavailable)

	line, _, _ := strings.Cut(log.String(), "\n")
	if !strings.Contains(line, `"level":"ERROR"`) ||
		!strings.Contains(line, "synchronous_commit is off") {
		t.Errorf("the log begins with %s, want an error with the reason", line)
	}
	wantMetrics(t, "an unsafe server", readMetrics(t, &metrics), map[string]float64{"PoolErrors": 1})
	var unsafe *postgres.UnsafeServerError
	if err := a.Connect(t.Context()); !errors.As(err, &unsafe) {
		t.Errorf("Connect() = %v, want the server refused", err)
	}
	db.Exec(alter + " RESET synchronous_commit")
	call(http.StatusOK)
}

// The local program doesn't call WriteMetrics.
func TestAnAppWritesNoMetricsUnlessAsked(t *testing.T) {
	t.Parallel()

	var log bytes.Buffer
	c := config.Config{DatabaseURL: pgtest.New(t).URL, HoldTTL: time.Minute, MaxHold: time.Hour}
	a, err := app.New(c, slog.New(slog.NewJSONHandler(&log, nil)), 1)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	if _, err := a.Sweep(t.Context(), auditEvent); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(log.String(), "_aws") || !strings.Contains(log.String(), `"msg":"audit"`) {
		t.Errorf("the log is %s, want its lines and no metrics", log.String())
	}
}
