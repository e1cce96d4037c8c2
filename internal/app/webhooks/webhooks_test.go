package webhooks

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/allo/reservations/internal/app/deliver"
	"github.com/allo/reservations/internal/httpapi/apitest"
)

// double is the operator of two webhooks.
type double struct {
	redelivered []string
	failed      error
}

func (d *double) States(context.Context) ([]deliver.State, error) {
	at := time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)
	return []deliver.State{
		{Name: "crm", URL: "https://crm.example.com", Types: []string{"allo.stock.moved"}},
		{
			Name: "erp", URL: "https://erp.example.com", Parked: true, Waiting: 2, DeadLetters: 3,
			Lag: new(90500 * time.Millisecond),
			Deliveries: []deliver.Delivery{
				{ID: "a-1", Type: "allo.stock.moved", At: at, Attempt: 2, Outcome: deliver.Dead},
				{ID: "a-1", Type: "allo.stock.moved", At: at, Attempt: 1, Status: 500, Outcome: "FAILED"},
			},
		},
	}, d.failed
}

func (d *double) Redeliver(_ context.Context, name string) (int, error) {
	if name != "erp" {
		return 0, deliver.ErrUnknownWebhook
	}
	d.redelivered = append(d.redelivered, name)
	return 3, d.failed
}

var quiet = slog.New(slog.DiscardHandler)

func (d *double) send(
	t *testing.T, function, method, path, body string, header ...string,
) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	for i := 0; i < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	Handler(function, d, quiet).ServeHTTP(w, r)
	if w.Header().Get("X-Request-Id") == "" {
		t.Errorf("%s %s has no request id", method, path)
	}
	return w
}

func TestTheWebhooksAreListedAsTheDocumentSays(t *testing.T) {
	t.Parallel()

	d := &double{}
	w := d.send(t, "list-webhooks", "GET", "/api/webhooks", "")
	r := httptest.NewRequest("GET", "/api/webhooks", nil)
	apitest.Validate(t, r, nil, w.Code, w.Header(), w.Body.Bytes())
	const want = `[{"name":"crm","url":"https://crm.example.com","types":["allo.stock.moved"],` +
		`"parked":false,"waiting":0,"deadLetters":0,"lagSeconds":null,"deliveries":null},` +
		`{"name":"erp","url":"https://erp.example.com","types":[],"parked":true,"waiting":2,` +
		`"deadLetters":3,"lagSeconds":90.5,"deliveries":[{"id":"a-1","type":"allo.stock.moved",` +
		`"at":"2026-03-01T10:00:00Z","attempt":2,"status":null,"outcome":"DEAD","milliseconds":0},` +
		`{"id":"a-1","type":"allo.stock.moved","at":"2026-03-01T10:00:00Z","attempt":1,` +
		`"status":500,"outcome":"FAILED","milliseconds":0}]}]`
	if w.Code != http.StatusOK || w.Body.String() != want {
		t.Errorf("the list is %d\n%s\nwant\n%s", w.Code, w.Body, want)
	}
	none := &double{failed: errors.New("access denied")}
	w = none.send(t, "list-webhooks", "GET", "/api/webhooks", "")
	apitest.Validate(t, r, nil, w.Code, w.Header(), w.Body.Bytes())
	if w.Code != http.StatusServiceUnavailable || strings.Contains(w.Body.String(), "denied") {
		t.Errorf("the answer to a failure is %d %s", w.Code, w.Body)
	}
}

func TestARedeliveryAnswersAsTheDocumentSays(t *testing.T) {
	t.Parallel()

	long, blanks := strings.Repeat("k", maxKey+1), strings.Repeat(" ", maxBody)
	for _, c := range []struct {
		name, path, body, key string
		status                int
		code                  string
	}{
		{"plain", "/api/webhooks/erp/redeliver", "", "", 200, ""},
		{"an empty object", "/api/webhooks/erp/redeliver", " { } ", "k", 200, ""},
		{"a body", "/api/webhooks/erp/redeliver", `{"a":1}`, "", 400, "VALIDATION_FAILED"},
		{"a long body", "/api/webhooks/erp/redeliver", blanks + "{}", "", 413, "BODY_TOO_LARGE"},
		{"a text", "/api/webhooks/erp/redeliver", "all", "", 415, "UNSUPPORTED_MEDIA_TYPE"},
		{"a bad key", "/api/webhooks/erp/redeliver", "", "a,b", 400, "VALIDATION_FAILED"},
		{"a long key", "/api/webhooks/erp/redeliver", "", long, 400, "VALIDATION_FAILED"},
		{"another name", "/api/webhooks/cms/redeliver", "", "", 404, CodeUnknown},
		{"a name with a slash", "/api/webhooks/a%2Fb/redeliver", "", "", 404, CodeUnknown},
		{"another path", "/api/webhooks/erp", "", "", 404, "NOT_FOUND"},
		{"an empty name", "/api/webhooks//redeliver", "", "", 404, "NOT_FOUND"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			d := &double{}
			var header []string
			if c.key != "" {
				header = append(header, "Idempotency-Key", c.key)
			}
			if strings.Contains(c.body, "{") {
				header = append(header, "Content-Type", "application/json")
			}
			w := d.send(t, "redeliver-webhook", "POST", c.path, c.body, header...)
			if w.Code != c.status || !strings.Contains(w.Body.String(), c.code) {
				t.Errorf("the answer is %d %s, want %d %s", w.Code, w.Body, c.status, c.code)
			}
			if (w.Code == http.StatusOK) != (len(d.redelivered) == 1) {
				t.Errorf("%d redeliveries were begun", len(d.redelivered))
			}
		})
	}
	d := &double{failed: errors.New("a queue is gone")}
	w := d.send(t, "redeliver-webhook", "POST", "/api/webhooks/erp/redeliver", "")
	if w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" {
		t.Errorf("the answer to a failure is %d %s", w.Code, w.Body)
	}
}

func TestEachRequestIsALineInTheLog(t *testing.T) {
	t.Parallel()

	reader, writer := io.Pipe()
	lines := make(chan string, 1)
	go func() {
		line := make([]byte, 1000)
		n, _ := reader.Read(line)
		lines <- string(line[:n])
	}()
	d := &double{failed: errors.New("access denied")}
	h := Handler("list-webhooks", d, slog.New(slog.NewJSONHandler(writer, nil)))
	h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/api/webhooks", nil))
	line := <-lines
	for _, want := range []string{
		`"msg":"request"`, `"route":"GET /api/webhooks"`, `"status":503`, `"error":"access denied"`,
	} {
		if !strings.Contains(line, want) {
			t.Errorf("the line %s has no %s", line, want)
		}
	}
}

func TestAnotherFunctionHasNoHandler(t *testing.T) {
	t.Parallel()

	defer func() {
		if recover() == nil {
			t.Error("another function has a handler")
		}
	}()
	Handler("deliver", &double{}, quiet)
}
