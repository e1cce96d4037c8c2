package faults

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/google/uuid"
)

// client calls the API over HTTP, as a storefront does, on its own connections.
type client struct {
	url  string
	http *http.Client
}

// newClient returns a client for so many concurrent callers.
func newClient(url string, callers int) client {
	return client{url: url, http: &http.Client{Transport: &http.Transport{
		MaxIdleConnsPerHost: callers,
		DialContext:         (&net.Dialer{Timeout: answerLimit}).DialContext,
	}}}
}

// item is one line of a reserve.
type item struct {
	ProductID   uuid.UUID `json:"productId"`
	WarehouseID uuid.UUID `json:"warehouseId"`
	Quantity    int       `json:"quantity"`
}

// hold is a reservation as the API shows it.
type hold struct {
	ID        uuid.UUID `json:"id"`
	Status    string    `json:"status"`
	Items     []item    `json:"items"`
	ExpiresAt time.Time `json:"expiresAt"`
	CreatedAt time.Time `json:"createdAt"`
	Version   int       `json:"version"`
	Payment   *struct {
		Reference string `json:"reference"`
	} `json:"payment"`
	Replaces   *uuid.UUID `json:"replaces"`
	ReplacedBy *uuid.UUID `json:"replacedBy"`
}

// reply is an answer of the API.
type reply struct {
	Status int           `json:"-"`
	Header http.Header   `json:"-"`
	Body   []byte        `json:"-"`
	Took   time.Duration `json:"-"`
	// Err is set when there was no answer.
	Err error `json:"-"`
	// The fields below are decoded from the body.
	Code        string `json:"code"`
	Reservation *hold  `json:"reservation"`
	// Outcome is that of a confirm.
	Outcome string `json:"outcome"`
	// PaymentReference is the payment that was first.
	PaymentReference *string `json:"paymentReference"`
	Limits           []struct {
		Max       int `json:"max"`
		Used      int `json:"used"`
		Requested int `json:"requested"`
	} `json:"limits"`
	Shortages []struct {
		ProductID   uuid.UUID `json:"productId"`
		WarehouseID uuid.UUID `json:"warehouseId"`
		Requested   int       `json:"requested"`
		Available   int       `json:"available"`
	} `json:"shortages"`
	// Lines are those that aren't for sale.
	Lines []struct {
		ProductID   uuid.UUID `json:"productId"`
		WarehouseID uuid.UUID `json:"warehouseId"`
	} `json:"lines"`
	// Results are those of a document's lines.
	Results []lineResult `json:"results"`
}

// lineResult is what became of a line of a document.
type lineResult struct {
	Outcome       string `json:"outcome"`
	Delta         int    `json:"delta"`
	TotalQuantity int    `json:"totalQuantity"`
	Seq           int    `json:"seq"`
	Shortfall     int    `json:"shortfall"`
	Problem       struct {
		Code string `json:"code"`
		Held int    `json:"held"`
	} `json:"problem"`
}

func (r reply) ok() bool { return r.Err == nil && r.Status/100 == 2 }

// uncertain reports whether the call may or may not have taken effect.
func (r reply) uncertain() bool {
	return r.Err != nil || r.Status >= 500 && r.Code != "STOCK_BUSY"
}

// send sends a request, with an Idempotency-Key unless key is empty, and times it.
func (c client) send(ctx context.Context, method, path, key string, body any) reply {
	start := time.Now()
	r := c.sendOnce(ctx, method, path, key, body)
	r.Took = time.Since(start)
	return r
}

func (c client) sendOnce(ctx context.Context, method, path, key string, body any) (r reply) {
	ctx, cancel := context.WithTimeout(ctx, 2*answerLimit)
	defer cancel()
	var sent io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return reply{Err: err}
		}
		sent = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.url+path, sent)
	if err != nil {
		return reply{Err: err}
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if key != "" {
		req.Header.Set("Idempotency-Key", key)
	}
	response, err := c.http.Do(req)
	if err != nil {
		return reply{Err: err}
	}
	defer response.Body.Close()
	r = reply{Status: response.StatusCode, Header: response.Header}
	if r.Body, r.Err = io.ReadAll(response.Body); r.Err == nil && len(r.Body) > 0 &&
		r.Body[0] == '{' {
		r.Err = json.Unmarshal(r.Body, &r)
	}
	return r
}

// reserveBody is the body of a reserve.
type reserveBody struct {
	Items      []item     `json:"items"`
	TTLSeconds int        `json:"ttlSeconds,omitempty"`
	Owner      string     `json:"owner,omitempty"`
	Replaces   *uuid.UUID `json:"replaces,omitempty"`
}

func (c client) reserve(ctx context.Context, key string, ttl int, items ...item) reply {
	return c.order(ctx, key, reserveBody{Items: items, TTLSeconds: ttl})
}

// order is a reserve for an owner, or in the place of another hold.
func (c client) order(ctx context.Context, key string, body reserveBody) reply {
	return c.send(ctx, http.MethodPost, "/api/reservations", key, body)
}

// confirm confirms a hold by a payment. When the hold is gone, it takes the units anew if reacquire
// is set.
func (c client) confirm(
	ctx context.Context, id uuid.UUID, key, payment string, reacquire bool,
) reply {
	body := map[string]string{"paymentReference": payment}
	if reacquire {
		body["onGone"] = "REACQUIRE"
	}
	return c.send(ctx, http.MethodPost, "/api/reservations/"+id.String()+"/confirm", key, body)
}

// pay says that a payment is under way for so many seconds, and fail that it failed.
func (c client) pay(ctx context.Context, id uuid.UUID, key, payment string, ttl int) reply {
	return c.send(ctx, http.MethodPost, "/api/reservations/"+id.String()+"/payment", key,
		map[string]any{"paymentReference": payment, "ttlSeconds": ttl})
}

func (c client) fail(ctx context.Context, id uuid.UUID, key, payment string, ttl int) reply {
	return c.send(ctx, http.MethodPost, "/api/reservations/"+id.String()+"/payment/failed", key,
		map[string]any{"paymentReference": payment, "ttlSeconds": ttl})
}

// returned is a line of a return. By default its units go back to the shelf that they came from.
type returned struct {
	item
	Restock       *bool      `json:"restock,omitempty"`
	ToWarehouseID *uuid.UUID `json:"toWarehouseId,omitempty"`
}

// bringBack returns goods of a confirmed hold.
func (c client) bringBack(
	ctx context.Context, id uuid.UUID, reference string, lines ...returned,
) reply {
	return c.send(ctx, http.MethodPost, "/api/reservations/"+id.String()+"/returns", "",
		map[string]any{"reference": reference, "lines": lines})
}

func (c client) act(ctx context.Context, id uuid.UUID, verb, key string) reply {
	return c.send(ctx, http.MethodPost, "/api/reservations/"+id.String()+"/"+verb, key, nil)
}

func (c client) extend(ctx context.Context, id uuid.UUID, key string, ttl int) reply {
	return c.send(ctx, http.MethodPost, "/api/reservations/"+id.String()+"/extend", key,
		map[string]int{"ttlSeconds": ttl})
}

func (c client) get(ctx context.Context, id uuid.UUID) reply {
	return c.send(ctx, http.MethodGet, "/api/reservations/"+id.String(), "", nil)
}

// document is a document of movements.
type document struct {
	Source    string         `json:"source"`
	Reference string         `json:"reference"`
	OnHeld    string         `json:"onHeld,omitempty"`
	Together  bool           `json:"together,omitempty"`
	Lines     []documentLine `json:"lines"`
}

// documentLine is a line of a document. It has a delta or a count.
type documentLine struct {
	ProductID   uuid.UUID `json:"productId"`
	WarehouseID uuid.UUID `json:"warehouseId"`
	Delta       *int      `json:"delta,omitempty"`
	Counted     *int      `json:"counted,omitempty"`
	AsOfSeq     *int      `json:"asOfSeq,omitempty"`
}

func (c client) move(ctx context.Context, d document) reply {
	return c.send(ctx, http.MethodPost, "/api/stock/movements", "", d)
}

// movement is a movement as the API lists it.
type movement struct {
	Seq        int    `json:"seq"`
	Kind       string `json:"kind"`
	Delta      int    `json:"delta"`
	TotalAfter int    `json:"totalAfter"`
}

// movements reads the newest movements of a stock row.
func (c client) movements(ctx context.Context, row stockRow, limit int) ([]movement, reply) {
	r := c.send(ctx, http.MethodGet, "/api/stock/movements?productId="+row.Product.String()+
		"&warehouseId="+row.Warehouse.String()+"&limit="+strconv.Itoa(limit), "", nil)
	var newest []movement
	if r.ok() {
		r.Err = json.Unmarshal(r.Body, &newest)
	}
	return newest, r
}

// catalogProduct is a product of the catalog.
type catalogProduct struct {
	ID          uuid.UUID
	Inventories []struct {
		WarehouseID                                     uuid.UUID
		TotalQuantity, ReservedQuantity, AvailableStock int
	}
}

// catalog reads the first entries of the catalog.
func (c client) catalog(ctx context.Context, limit int) ([]catalogProduct, reply) {
	r := c.send(ctx, http.MethodGet, "/api/products?limit="+strconv.Itoa(limit), "", nil)
	var shelves []catalogProduct
	if r.ok() {
		r.Err = json.Unmarshal(r.Body, &shelves)
	}
	return shelves, r
}

// documented returns an error unless the contract allows the answer: a success, a 4xx with a code,
// or a 503 with Retry-After.
func (r reply) documented() error {
	switch {
	case r.Err != nil:
		return r.Err
	case r.Status/100 == 2:
		return nil
	case r.Status/100 == 4 && r.Code != "":
		return nil
	case r.Status == http.StatusServiceUnavailable && r.Header.Get("Retry-After") != "":
		return nil
	}
	return errors.New(http.StatusText(r.Status) + ": " + string(r.Body))
}
