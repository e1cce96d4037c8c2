package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/allo/reservations/internal/app"
	"github.com/allo/reservations/internal/config"
	"github.com/allo/reservations/internal/lambdahttp"
	"github.com/allo/reservations/internal/local"
	"github.com/allo/reservations/internal/reservation"
	"github.com/allo/reservations/internal/route"
)

// discard is the log of the measured program. It drops every line after formatting it.
var discard = slog.New(slog.NewJSONHandler(io.Discard, nil))

// overHTTP reserves through the local gateway and its own Lambda handler, as a caller of the API
// does. It implements no other verb.
type overHTTP struct {
	design
	server *httptest.Server
	client *http.Client
	end    func()
}

// newOverHTTP puts a function that answers POST /api/reservations behind a gateway.
func newOverHTTP(function app.HTTPHandler, end func()) (design, error) {
	var routes []route.Route
	for _, r := range route.API() {
		if r.Function == "reserve" {
			routes = append(routes, r)
		}
	}
	gateway, err := local.NewGateway(routes,
		map[string]local.Invoker{"reserve": local.Handler(function)}, discard)
	if err != nil {
		return nil, err
	}
	// With its own transport a caller keeps its connection, whatever the others do.
	return overHTTP{
		server: httptest.NewServer(gateway),
		client: &http.Client{Transport: &http.Transport{}}, end: end,
	}, nil
}

// newApp returns the service as its Lambdas run it, on one connection through the network.
func newApp(ctx context.Context, url string, n *network) (*app.App, error) {
	c := config.Config{DatabaseURL: url, HoldTTL: holdTTL, MaxHold: holdTTL}
	a, err := app.New(c, discard, 1, func(c *pgxpool.Config) { c.ConnConfig.DialFunc = n.dial })
	if err != nil {
		return nil, err
	}
	return a, a.Service.Ping(ctx) // connects
}

func newOursOverHTTP(ctx context.Context, url string, n *network) (design, error) {
	a, err := newApp(ctx, url, n)
	if err != nil {
		return nil, err
	}
	return newOverHTTP(a.HTTP("reserve"), a.Close)
}

// newReferenceOverHTTP returns the usual design behind the same gateway and adapter, in the least
// HTTP handler.
func newReferenceOverHTTP(ctx context.Context, url string, n *network) (design, error) {
	d, err := newReference(ctx, url, n)
	if err != nil {
		return nil, err
	}
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var body line
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		id, err := d.reserve(r.Context(),
			[]reservation.Line{{
				ProductID: body.ProductID, WarehouseID: body.WarehouseID,
				Quantity: body.Quantity,
			}})
		switch {
		case errors.Is(err, errShort):
			http.Error(w, err.Error(), http.StatusConflict)
		case err != nil:
			http.Error(w, err.Error(), http.StatusInternalServerError)
		default:
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusCreated)
			_ = json.NewEncoder(w).Encode(map[string]any{"reservation": map[string]any{
				"id":     id,
				"status": "PENDING",
			}})
		}
	})
	return newOverHTTP(lambdahttp.New(h, discard), func() { d.close(context.WithoutCancel(ctx)) })
}

// line is a line in the form of the contract.
type line struct {
	ProductID   uuid.UUID `json:"productId"`
	WarehouseID uuid.UUID `json:"warehouseId"`
	Quantity    int       `json:"quantity"`
}

func reserveBody(l reservation.Line) []byte {
	b, err := json.Marshal(line(l))
	if err != nil {
		panic(err) // ids and a number always encode
	}
	return b
}

func (o overHTTP) reserve(ctx context.Context, lines []reservation.Line) (id uuid.UUID, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, o.server.URL+"/api/reservations",
		bytes.NewReader(reserveBody(lines[0])))
	if err != nil {
		return id, err
	}
	r.Header.Set("Content-Type", "application/json")
	response, err := o.client.Do(r)
	if err != nil {
		return id, err
	}
	defer func() { _ = response.Body.Close() }() // what was read is read
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return id, err
	}
	if response.StatusCode == http.StatusConflict {
		return id, errShort
	}
	var answer struct{ Reservation struct{ ID uuid.UUID } }
	if err := json.Unmarshal(body, &answer); err != nil ||
		response.StatusCode != http.StatusCreated {
		return id, fmt.Errorf("answer %d %s: %w", response.StatusCode, body, err)
	}
	return answer.Reservation.ID, nil
}

func (o overHTTP) retries() int64 { return 0 }

func (o overHTTP) close(context.Context) {
	o.client.CloseIdleConnections()
	o.server.Close()
	o.end()
}

// httpHot reserves one hot row over HTTP: a caller of the API pays for the gateway and the adapter
// too.
func httpHot() workload {
	return workload{
		name: "http-hot", callers: 64, rtt: time.Millisecond,
		designs: []string{"http-reference", "http-ours"}, setup: stocked(someRows, ample),
		caller: reserveOne(func() int { return 0 }), check: allHeld,
	}
}
