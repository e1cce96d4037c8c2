package smoke

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"time"

	"github.com/google/uuid"

	"github.com/allo/reservations/internal/awsapi"
	"github.com/allo/reservations/internal/config"
)

const (
	// callLimit bounds a call of the public address. A shopper doesn't wait longer.
	callLimit = 10 * time.Second
	// maxAnswer bounds an answer, in bytes. A page of the catalog with one product is far smaller.
	maxAnswer = 1 << 20
)

// website calls the public address over HTTP.
type website struct {
	url    string
	client *http.Client
}

// newWebsite makes a client that trusts the roots of a Lambda and Mozilla's. It follows no
// redirect, because the API has none. Minutes lie between two runs, so it keeps no connection.
func newWebsite(address string) *website {
	return &website{url: address, client: &http.Client{
		Timeout: callLimit,
		Transport: &http.Transport{
			TLSClientConfig:   &tls.Config{RootCAs: awsapi.Roots(), MinVersion: tls.VersionTLS12},
			DisableKeepAlives: true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

func (w *website) send(ctx context.Context, c call) (answer, error) {
	body := []byte{}
	if c.body != nil {
		var err error
		if body, err = json.Marshal(c.body); err != nil {
			return answer{}, fmt.Errorf("encode the body of %s: %w", c, err)
		}
	}
	address := w.url + c.path()
	if len(c.query) > 0 {
		address += "?" + c.query.Encode()
	}
	request, err := http.NewRequestWithContext(ctx, c.method(), address, bytes.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	request.Header.Set("User-Agent", "allo-smoke")
	if c.body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	if c.key != "" {
		request.Header.Set("Idempotency-Key", c.key)
	}
	response, err := w.client.Do(request)
	if err != nil {
		return answer{}, err
	}
	defer func() { _ = response.Body.Close() }()
	got, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	return answer{status: response.StatusCode, body: got}, err
}

// publicRun is one run of the check of the public address.
type publicRun struct {
	caller

	settings config.Smoke
	id       string
	product  string // its id, when it is known
}

// newPublicRun makes a run that repeats no call: the alarm wants two runs of three to fail.
func newPublicRun(s config.Smoke, id string, log *slog.Logger) *publicRun {
	return &publicRun{
		caller: caller{api: newWebsite(s.URL), log: log, pause: pause}, settings: s, id: id,
	}
}

// check makes all calls, also after one that failed, and joins what is wrong.
func (p *publicRun) check(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, publicLimit)
	defer cancel()
	var catalog []struct{ ID string }
	return errors.Join(
		p.want(ctx, call{route: "GET /"}, http.StatusOK, "", nil),
		p.want(ctx, call{route: "GET /api/health"}, http.StatusOK, "", nil),
		p.want(ctx, call{route: "GET /api/products", query: url.Values{"limit": {"1"}}},
			http.StatusOK, "", &catalog),
		p.want(ctx, call{route: "GET /api/reservations/{id}", id: uuid.NewString()},
			http.StatusNotFound, "RESERVATION_NOT_FOUND", nil),
		p.reserve(ctx))
}

// reserve holds a unit of the operator's product and releases it. Without a product it asks for one
// that doesn't exist, which the database says. Where reserving needs authorization, which the check
// doesn't have, it wants to be refused.
func (p *publicRun) reserve(ctx context.Context) error {
	switch {
	case p.settings.ReserveAuth:
		status := http.StatusUnauthorized
		if p.settings.Auth == "iam" {
			status = http.StatusForbidden
		}
		return p.want(ctx, p.nothing(), status, "", nil)
	case p.settings.SKU == "":
		return p.want(ctx, p.nothing(), http.StatusNotFound, "INVENTORY_NOT_FOUND", nil)
	default:
		return p.hold(ctx)
	}
}

// nothing asks for a product that doesn't exist.
func (p *publicRun) nothing() call {
	return call{
		route: "POST /api/reservations", key: p.key("reserve"),
		body: map[string]any{
			"productId": uuid.NewString(), "warehouseId": uuid.NewString(), "quantity": 1,
		},
	}
}

func (p *publicRun) key(of string) string { return "synthetic-" + p.id + "-" + of }

// hold holds a unit, reads the hold and releases it.
func (p *publicRun) hold(ctx context.Context) error {
	place, err := p.find(ctx)
	if err != nil {
		return err
	}
	hold, err := p.holdUnit(ctx, p.product, place, p.key("reserve"))
	if err != nil {
		return err
	}
	// A failed read doesn't keep the unit.
	return errors.Join(p.isNow(ctx, hold, "PENDING"), p.free(ctx, hold, p.key("release")))
}

// find finds a warehouse with a free unit of the operator's product.
func (p *publicRun) find(ctx context.Context) (place string, err error) {
	var products []struct {
		ID          string
		Inventories []struct {
			WarehouseID    string
			AvailableStock int
		}
	}
	q := call{route: "GET /api/products", query: url.Values{"sku": {p.settings.SKU}}}
	if err := p.want(ctx, q, http.StatusOK, "", &products); err != nil {
		return "", err
	}
	for _, product := range products {
		p.product = product.ID
		for _, i := range product.Inventories {
			if i.AvailableStock > 0 {
				return i.WarehouseID, nil
			}
		}
	}
	return "", fmt.Errorf("the catalog has no free unit of the product %s, of which the check holds "+
		"one: give it stock, or choose another (-c syntheticSku)", p.settings.SKU)
}
