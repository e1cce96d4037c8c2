package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/allo/reservations/internal/app"
	"github.com/allo/reservations/internal/config"
	"github.com/allo/reservations/internal/events"
	"github.com/allo/reservations/internal/local"
	"github.com/allo/reservations/internal/route"
)

const (
	// products are few, so that the stock rows are hot.
	products = 3
	// stock is more than a drill can sell.
	stock = 1_000_000
	// sellers is how many customers buy at once.
	sellers = 4
	// connections is how many calls of a function run at once.
	connections = 4
	// callLimit bounds a call: the gateway answers within thirty seconds.
	callLimit = 30 * time.Second
)

// seed makes the catalog.
func seed(ctx context.Context, s *server) error {
	conn, err := s.connect(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	_, err = conn.Exec(ctx, fmt.Sprintf(`
INSERT INTO warehouses (id, code, name) VALUES (gen_random_uuid(), 'w', 'warehouse');
INSERT INTO products (id, name, sku)
SELECT gen_random_uuid(), 'product ' || n, 'p' || n FROM generate_series(1, %d) n;
INSERT INTO inventory (product_id, warehouse_id, total)
SELECT p.id, w.id, %d FROM products p, warehouses w`, products, stock))
	if err != nil {
		return fmt.Errorf("seed the catalog: %w", err)
	}
	return nil
}

// shop is the service on a server: its functions behind a gateway, and the relay.
type shop struct {
	on        *server
	url       string
	client    *http.Client
	rows      []row
	functions *local.Functions
	gateway   *http.Server
	own       *app.App // for the audit
	// relay makes a relay whose runs last so long, or until nothing is left with 0.
	relay     func(lasts time.Duration) *events.Relay
	relaying  sync.WaitGroup
	stopRelay context.CancelFunc
}

// row names a stock row.
type row struct{ Product, Warehouse string }

// open starts the service on a server.
func (d *drill) open(on *server) (s *shop, err error) {
	log := slog.New(slog.DiscardHandler)
	c := config.Config{
		DatabaseURL: on.url(), HoldTTL: time.Minute, MaxHold: time.Hour, MaxPaymentHold: time.Hour,
		MaxUnits: stock, MaxLines: 10, EventSource: "drill",
	}
	s = &shop{on: on, client: &http.Client{
		Timeout:   callLimit,
		Transport: &http.Transport{MaxIdleConnsPerHost: sellers},
	}}
	if s.rows, err = rowsOf(on); err != nil {
		return nil, err
	}
	if s.own, err = app.New(c, log, 1); err != nil {
		return nil, err
	}
	if s.functions, err = local.InProcess(c, connections, log); err != nil {
		return nil, err
	}
	handler, err := local.NewGateway(route.All(), s.functions.HTTP, log)
	if err != nil {
		return nil, err
	}
	var config net.ListenConfig
	listener, err := config.Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s.url, s.gateway = "http://"+listener.Addr().String(), local.NewServer("", handler)
	go func() { _ = s.gateway.Serve(listener) }() // it ends with close
	s.relay = func(lasts time.Duration) *events.Relay {
		return events.NewRelay(s.functions.Outbox, map[string]events.Sink{"topic": d.consumers},
			events.Options{For: lasts, Poll: 100 * time.Millisecond, Log: log})
	}
	var ctx context.Context
	ctx, s.stopRelay = context.WithCancel(context.Background())
	s.relaying.Go(func() {
		for ctx.Err() == nil {
			_ = s.relay(time.Minute).Run(ctx) // the next run does the work of a failed one
		}
	})
	return s, nil
}

func rowsOf(on *server) (rows []row, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), callLimit)
	defer cancel()
	conn, err := on.connect(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close(ctx) }()
	var list []byte
	const sql = `
SELECT coalesce(json_agg(json_build_object('Product', product_id, 'Warehouse', warehouse_id)), '[]')
FROM inventory`
	if err := conn.QueryRow(ctx, sql).Scan(&list); err != nil {
		return nil, fmt.Errorf("read the stock rows: %w", err)
	}
	if err := json.Unmarshal(list, &rows); err != nil {
		return nil, err
	}
	if len(rows) != products {
		return nil, fmt.Errorf("there are %d stock rows, want %d", len(rows), products)
	}
	return rows, nil
}

// close stops the calls and the relay.
func (s *shop) close() error {
	s.stopRelay()
	s.relaying.Wait()
	s.own.Close()
	return errors.Join(s.gateway.Close(), s.functions.Close())
}

// drainPause is how long the drill waits before it looks again for what is left.
const drainPause = 200 * time.Millisecond

// drain publishes what is left, as infra/RUNBOOK.md says under "A moved database".
func (s *shop) drain(ctx context.Context) error {
	s.stopRelay()
	s.relaying.Wait()
	conn, err := s.on.connect(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	for times := 0; times < 2; {
		_ = s.relay(0).Run(ctx) // its error is that something is left
		var done bool
		const sql = "SELECT bool_and(done = (SELECT max(n) FROM ticks)) FROM sinks"
		if err := conn.QueryRow(ctx, sql).Scan(&done); err != nil {
			return fmt.Errorf("wait for the relay: %w", err)
		}
		if done {
			times++ // once more: the first run may not have seen the last rows
			continue
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for the relay: %w", ctx.Err())
		case <-time.After(drainPause):
		}
	}
	return nil
}

// audit checks every promise on everything that the server has.
func (s *shop) audit(ctx context.Context) error {
	violations, err := s.own.Service.Audit(ctx)
	if err != nil {
		return err
	}
	if len(violations) > 0 {
		return fmt.Errorf("the audit found %d violations, such as %v", len(violations), violations[0])
	}
	return nil
}

// post makes a call and decodes the reservation in its answer.
func (s *shop) post(ctx context.Context, path string, body any) (id uuid.UUID, err error) {
	text, err := json.Marshal(body)
	if err != nil {
		return uuid.Nil, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url+path,
		bytes.NewReader(text))
	if err != nil {
		return uuid.Nil, err
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Idempotency-Key", uuid.NewString())
	response, err := s.client.Do(request)
	if err != nil {
		return uuid.Nil, err
	}
	defer func() { _ = response.Body.Close() }()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		return uuid.Nil, err
	}
	if response.StatusCode/100 != 2 {
		return uuid.Nil, fmt.Errorf("POST %s was answered %s: %.300s", path, response.Status, answer)
	}
	var decoded struct {
		Reservation struct {
			ID uuid.UUID `json:"id"`
		} `json:"reservation"`
	}
	err = json.Unmarshal(answer, &decoded)
	return decoded.Reservation.ID, err
}
