package smoke

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/events"

	"github.com/allo/reservations/internal/config"
	"github.com/allo/reservations/internal/emf"
	"github.com/allo/reservations/internal/local"
	"github.com/allo/reservations/internal/pgtest"
	"github.com/allo/reservations/internal/route"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// called are the functions that the check of a deploy calls. They are those of the stack
// (infra/smoke.go), written out.
var called = []string{
	"health", "put-products", "put-warehouses", "move-stock", "list-stock", "list-products", "reserve",
	"get-reservation", "extend", "release", "start-payment", "confirm",
}

const stackID = "arn:aws:cloudformation:eu-central-1:123456789012:stack/allo-test/1"

// cloud stands in for Lambda and CloudFormation. It runs the functions' own handlers on a database
// of Postgres.
type cloud struct {
	db        pgtest.Database
	functions *local.Functions
	url       string
	logged    *bytes.Buffer
	metrics   *bytes.Buffer

	mu sync.Mutex
	// status is the stack's.
	status string
	// instead answers an invocation in the place of the function, unless it is nil or returns false.
	instead func(w http.ResponseWriter, function string, event events.APIGatewayV2HTTPRequest) bool
	seen    []events.APIGatewayV2HTTPRequest
}

func newCloud(t *testing.T, c config.Config) *cloud {
	t.Helper()
	s := &cloud{
		db: pgtest.New(t), status: "UPDATE_IN_PROGRESS",
		logged: &bytes.Buffer{}, metrics: &bytes.Buffer{},
	}
	c.DatabaseURL, c.HoldTTL, c.MaxHold = s.db.URL, time.Minute, time.Hour
	c.MaxPaymentHold, c.MaxUnits, c.MaxLines = time.Hour, 1000, 100
	functions, err := local.InProcess(c, 2, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = functions.Close() })
	s.functions = functions
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	s.url = server.URL
	return s
}

// ServeHTTP answers Invoke of version 7 of a function, and DescribeStacks.
func (s *cloud) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	name, version := strings.CutPrefix(r.URL.Path, "/2015-03-31/functions/allo-test-")
	s.mu.Lock()
	status, instead := s.status, s.instead
	s.mu.Unlock()
	if !version {
		if status == "" || !strings.Contains(string(body), "DescribeStacks") {
			http.Error(w, "no", http.StatusForbidden)
			return
		}
		fmt.Fprintf(w, "<R><DescribeStacksResult><Stacks><member><StackStatus>%s</StackStatus>"+
			"</member></Stacks></DescribeStacksResult></R>", status)
		return
	}
	name = strings.TrimSuffix(name, "/invocations")
	var event events.APIGatewayV2HTTPRequest
	if err != nil || json.Unmarshal(body, &event) != nil || r.FormValue("Qualifier") != "7" {
		http.Error(w, "no such version", http.StatusNotFound)
		return
	}
	s.mu.Lock()
	s.seen = append(s.seen, event)
	s.mu.Unlock()
	if instead != nil && instead(w, name, event) {
		return
	}
	answer, err := s.functions.HTTP[name].Invoke(r.Context(), body)
	if err != nil {
		w.Header().Set("X-Amz-Function-Error", "Unhandled")
	}
	_, _ = w.Write(answer)
}

// events returns the events that came.
func (s *cloud) events() []events.APIGatewayV2HTTPRequest {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.seen)
}

// replace lets something else answer instead of the functions.
func (s *cloud) replace(
	instead func(http.ResponseWriter, string, events.APIGatewayV2HTTPRequest) bool,
) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.instead = instead
}

// function returns the smoke function of a deploy, which has little patience.
func (s *cloud) function(settings config.Smoke) *Function {
	settings.Functions = map[string]string{}
	for _, name := range called {
		settings.Functions[name] = "arn:aws:lambda:eu-central-1:123456789012:function:allo-test-" +
			name + ":7"
	}
	settings.Stack = stackID
	f := New(config.Config{
		Smoke: settings,
		AWS: config.AWS{
			Region: "eu-central-1", AccessKeyID: "id", SecretAccessKey: "key", Endpoint: s.url,
		},
	}, slog.New(slog.NewJSONHandler(s.logged, nil)), emf.New(s.metrics, "AlloReservations/test"))
	f.patience, f.follow, f.pause = 5*time.Second, 5*time.Second, 20*time.Millisecond
	f.leave = f.follow
	return f
}

// twin returns a second stand-in on the same functions and database, for another run. It tells the
// calls of the two runs apart.
func (s *cloud) twin(t *testing.T) *cloud {
	t.Helper()
	other := &cloud{
		db: s.db, functions: s.functions, status: s.status,
		logged: &bytes.Buffer{}, metrics: &bytes.Buffer{},
	}
	server := httptest.NewServer(other)
	t.Cleanup(server.Close)
	other.url = server.URL
	return other
}

// invoke invokes the function with no payload, as the trigger does.
func invoke(t *testing.T, f *Function, payload string) (Report, error) {
	t.Helper()
	out, err := f.Invoke(t.Context(), []byte(payload))
	var report Report
	if err == nil {
		if err := json.Unmarshal(out, &report); err != nil {
			t.Fatal(err)
		}
	}
	return report, err
}

// fail makes an answer of a function that is broken.
func fail(w http.ResponseWriter, status int, body string) bool {
	answer, err := json.Marshal(events.APIGatewayV2HTTPResponse{StatusCode: status, Body: body})
	if err == nil {
		_, err = w.Write(answer)
	}
	return err == nil
}

// wantPutAway wants the product and the warehouse out of the catalog, and no unit held.
func (s *cloud) wantPutAway(t *testing.T, rows int) *pgtest.Fixture {
	t.Helper()
	f := pgtest.NewFixture(t, s.db)
	for what, sql := range map[string]string{
		"products that are for sale":   "SELECT count(*) FROM products WHERE status <> 'ARCHIVED'",
		"warehouses that are open":     "SELECT count(*) FROM warehouses WHERE status <> 'CLOSED'",
		"stock rows with a held unit":  "SELECT count(*) FROM inventory WHERE reserved <> 0",
		"stock rows more than a check": fmt.Sprintf("SELECT abs(count(*) - %d) FROM inventory", rows),
	} {
		if n := pgtest.QueryOne[int](f, sql); n != 0 {
			t.Errorf("there are %d %s", n, what)
		}
	}
	return f
}

// routeOf returns the route table's row of an event.
func routeOf(t *testing.T, event events.APIGatewayV2HTTPRequest) route.Route {
	t.Helper()
	all := route.All()
	at := slices.IndexFunc(all, func(r route.Route) bool { return r.Key() == event.RouteKey })
	if at < 0 {
		t.Fatalf("no route has the key %s", event.RouteKey)
	}
	return all[at]
}
