package app_test

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/events"

	"github.com/allo/reservations/internal/app"
	"github.com/allo/reservations/internal/config"
	"github.com/allo/reservations/internal/pgtest"
)

// getProducts invokes the function list-products with an event of the gateway.
func getProducts(t *testing.T, handler app.HTTPHandler) (status int) {
	t.Helper()
	event := events.APIGatewayV2HTTPRequest{RouteKey: "GET /api/products", RawPath: "/api/products"}
	event.RequestContext.HTTP.Method = http.MethodGet
	event.RequestContext.HTTP.Path = event.RawPath
	answer, err := handler(t.Context(), event)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode
}

// A read that falls back is answered, counted by its reason each time, and logged once.
func TestAReadThatFallsBackIsCounted(t *testing.T) {
	t.Parallel()

	nobody := httptest.NewServer(nil)
	nobody.Close()
	var metrics, log bytes.Buffer
	c := config.Config{
		DatabaseURL: pgtest.New(t).URL, HoldTTL: time.Minute, MaxHold: time.Hour,
		DatabaseReader: strings.TrimPrefix(nobody.URL, "http://"), ReaderLag: time.Second,
	}
	a, err := app.New(c, slog.New(slog.NewJSONHandler(&log, nil)), 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Close)
	a.WriteMetrics(&metrics, "AlloReservations/test")
	handler := a.HTTP("list-products")
	for range 3 {
		if status := getProducts(t, handler); status != http.StatusOK {
			t.Errorf("the catalog without the reader = %d, want 200", status)
		}
	}
	got := readMetrics(t, &metrics)
	wantMetrics(t, "three reads", got, map[string]float64{"ReaderFallbacks/unreachable": 3})
	if _, found := got["PoolErrors"]; found {
		t.Errorf("the metrics are %v, want no PoolErrors: every caller was answered", got)
	}
	lines := 0
	for line := range bytes.Lines(log.Bytes()) {
		var entry struct{ Level, Msg, Reason, Error string }
		if err := json.Unmarshal(line, &entry); err != nil {
			t.Fatal(err)
		}
		if entry.Msg == "the writer answers a read" {
			lines++
			if entry.Level != "WARN" || entry.Reason != "unreachable" || entry.Error == "" {
				t.Errorf("the line is %s, want a warning with the reason and the error", line)
			}
		}
	}
	if lines != 1 {
		t.Errorf("%d lines tell of the reader, want one: %s", lines, &log)
	}
}
