package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/google/uuid"
)

const (
	// callLimit bounds one call of the API, which itself gives up earlier.
	callLimit = 12 * time.Second
	// maxAnswer is the most bytes of an answer. A page of movements is the largest.
	maxAnswer = 4 << 20
	// maxTries is how often do sends a request whose outcome is unknown.
	maxTries = 4
	// firstPause is the pause before the second try. Each later one is twice as long.
	firstPause = 250 * time.Millisecond
)

// client calls the API through the gateway, as a shop's back end and its customers do.
type client struct {
	url   string
	http  *http.Client
	token func(context.Context) (string, error) // nil when no route needs a token
	pause time.Duration                         // before the second try
}

func newClient(url string, token func(context.Context) (string, error)) *client {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	// The demo calls its own machine: no proxy, and a connection for each call under way.
	transport.Proxy, transport.MaxIdleConnsPerHost = nil, saleCallers+maxShoppers
	return &client{
		url: url, token: token, pause: firstPause,
		http: &http.Client{Transport: transport, Timeout: callLimit},
	}
}

// answer is an answer of the API, read whole.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// isUnknown reports whether the request may have taken effect: only another try can tell.
func (a answer) isUnknown() bool {
	return a.status == http.StatusTooManyRequests || a.status >= http.StatusInternalServerError
}

// code returns the code of a problem, or "".
func (a answer) code() string {
	var problem struct{ Code string }
	_ = json.Unmarshal(a.body, &problem) // an answer without a code has none
	return problem.Code
}

// send sends one request. key is its Idempotency-Key, or empty.
func (c *client) send(
	ctx context.Context, method, path string, body any, key string,
) (answer, error) {
	var content io.Reader
	if body != nil {
		encoded, err := json.Marshal(body)
		if err != nil {
			return answer{}, fmt.Errorf("encode a request: %w", err)
		}
		content = bytes.NewReader(encoded)
	}
	r, err := http.NewRequestWithContext(ctx, method, c.url+path, content)
	if err != nil {
		return answer{}, fmt.Errorf("make a request: %w", err)
	}
	if content != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	if key != "" {
		r.Header.Set("Idempotency-Key", key)
	}
	if c.token != nil {
		token, err := c.token(ctx)
		if err != nil {
			return answer{}, fmt.Errorf("get a token: %w", err)
		}
		r.Header.Set("Authorization", "Bearer "+token)
	}
	response, err := c.http.Do(r)
	if err != nil {
		return answer{}, err
	}
	defer func() { _ = response.Body.Close() }() // what was read decides
	read, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	return answer{response.StatusCode, response.Header, read}, err
}

// post sends a request under a key of its own, and again while its outcome is unknown, maxTries
// times at most.
func (c *client) post(ctx context.Context, path string, body any) (a answer, err error) {
	key, pause := uuid.NewString(), c.pause
	for range maxTries {
		a, err = c.send(ctx, http.MethodPost, path, body, key)
		if err == nil && !a.isUnknown() {
			return a, nil
		}
		if sleep(ctx, pause) != nil {
			return a, errors.Join(err, ctx.Err())
		}
		pause *= 2
	}
	return a, err
}

// get reads a document into out. Any answer but 200 is an error.
func (c *client) get(ctx context.Context, path string, out any) (answer, error) {
	a, err := c.send(ctx, http.MethodGet, path, nil, "")
	if err == nil && a.status != http.StatusOK {
		err = fmt.Errorf("GET %s = %d %s", path, a.status, a.code())
	}
	if err != nil {
		return a, err
	}
	return a, json.Unmarshal(a.body, out)
}

// sleep returns the context's error when the context ends before the pause does.
func sleep(ctx context.Context, pause time.Duration) error {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// shelf is a stock row of the catalog.
type shelf struct {
	WarehouseID    uuid.UUID
	AvailableStock int
	// OrMore says that AvailableStock is the most that the catalog shows (STOCK_SHOWN).
	OrMore bool
}

// goods is a product of the catalog, with its stock.
type goods struct {
	ID          uuid.UUID
	Name, SKU   string
	Inventories []shelf
}

// left is how many units are available in all warehouses.
func (g goods) left() (units int) {
	for _, s := range g.Inventories {
		units += s.AvailableStock
	}
	return units
}

// line is a line of a reservation.
type line struct {
	ProductID   uuid.UUID `json:"productId"`
	WarehouseID uuid.UUID `json:"warehouseId"`
	Quantity    int       `json:"quantity"`
}

// reserve asks for a hold. It returns the hold's id with an answer 201.
func (c *client) reserve(ctx context.Context, body map[string]any) (uuid.UUID, answer, error) {
	a, err := c.post(ctx, "/api/reservations", body)
	if err != nil || a.status != http.StatusCreated {
		return uuid.UUID{}, a, err
	}
	var made struct{ Reservation struct{ ID uuid.UUID } }
	err = json.Unmarshal(a.body, &made)
	return made.Reservation.ID, a, err
}

// pay says that the money of a payment has arrived for a hold.
func (c *client) pay(ctx context.Context, hold uuid.UUID, payment string) (answer, error) {
	return c.post(ctx, "/api/reservations/"+hold.String()+"/confirm", object{
		"paymentReference": payment, "onGone": "REACQUIRE",
	})
}

// object is a JSON object of a request.
type object = map[string]any
