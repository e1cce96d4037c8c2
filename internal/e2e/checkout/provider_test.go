package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"sync"
)

// The states of a payment.
const (
	open     = "open"     // the customer hasn't paid
	failed   = "failed"   // the bank refused; it may still pay later
	captured = "captured" // the provider has the money
	refunded = "refunded" // the customer has it back
)

// charge is a payment as the provider knows it.
type charge struct {
	ID, State, URL, Hold string
	Amount               int64
	paid                 int64    // what was captured
	refunds              []string // the key of each refund that moved money
}

// provider stands in for a payment provider. It captures a payment at most once, and refunds it
// once for each Idempotency-Key. A refund without a key moves the money each time.
type provider struct {
	mu      sync.Mutex
	charges []*charge
	keys    map[string]*charge
	// duringRefund is called once, before the next refund moves money.
	duringRefund func()
}

func newProvider() *provider { return &provider{keys: map[string]*charge{}} }

func (p *provider) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /payments", p.create)
	mux.HandleFunc("GET /payments/{id}", p.read)
	mux.HandleFunc("POST /payments/{id}/refund", p.refund)
	mux.ServeHTTP(w, r)
}

func (p *provider) create(w http.ResponseWriter, r *http.Request) {
	var asked struct {
		Amount int64
		Hold   string
	}
	if json.NewDecoder(r.Body).Decode(&asked) != nil || asked.Amount < 1 {
		respond(w, http.StatusBadRequest, map[string]any{"code": "INVALID"})
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	key := r.Header.Get("Idempotency-Key")
	made := p.keys[key]
	if made == nil || key == "" {
		id := fmt.Sprintf("pay_%d", len(p.charges)+1)
		made = &charge{
			ID: id, State: open, URL: payURL + id, Hold: asked.Hold, Amount: asked.Amount,
		}
		p.charges = append(p.charges, made)
		p.keys[key] = made
	} else if made.Hold != asked.Hold || made.Amount != asked.Amount {
		respond(w, http.StatusUnprocessableEntity, map[string]any{"code": "KEY_REUSED"})
		return
	}
	respond(w, http.StatusOK, made)
}

// payURL is where customers pay, before the payment's id.
const payURL = "https://pay.example/"

func (p *provider) read(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c := p.find(r.PathValue("id")); c != nil {
		respond(w, http.StatusOK, c)
		return
	}
	respond(w, http.StatusNotFound, map[string]any{"code": "NO_PAYMENT"})
}

func (p *provider) refund(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	during := p.duringRefund
	p.duringRefund = nil
	p.mu.Unlock()
	if during != nil {
		during()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	c, key := p.find(r.PathValue("id")), r.Header.Get("Idempotency-Key")
	if c == nil || c.paid == 0 {
		respond(w, http.StatusConflict, map[string]any{"code": "NOT_PAID"})
		return
	}
	if key == "" || !slices.Contains(c.refunds, key) {
		c.refunds = append(c.refunds, key)
		c.State = refunded
	}
	respond(w, http.StatusOK, c)
}

// find returns a payment, or nil. The caller has the lock.
func (p *provider) find(id string) *charge {
	for _, c := range p.charges {
		if c.ID == id {
			return c
		}
	}
	return nil
}

// capture takes the customer's money, once.
func (p *provider) capture(id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c := p.find(id); c != nil && (c.State == open || c.State == failed) {
		c.State, c.paid = captured, c.Amount
	}
}

// fail says that the bank refused.
func (p *provider) fail(id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c := p.find(id); c != nil && c.State == open {
		c.State = failed
	}
}

// hold returns the hold of a payment.
func (p *provider) hold(id string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c := p.find(id); c != nil {
		return c.Hold
	}
	return ""
}

// list returns a copy of all payments.
func (p *provider) list() []charge {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []charge
	for _, c := range p.charges {
		all = append(all, *c)
	}
	return all
}

func respond(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}
