// Package problem is the one shape of an error's body: an RFC 9457 problem document with a stable
// code. Everything that answers HTTP by itself writes it.
package problem

import (
	"fmt"
	"net/http"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/uuid"
)

// ContentType is the media type of a problem.
const ContentType = "application/problem+json"

// Codes that more than one package answers with.
const (
	CodeInternal = "INTERNAL"
	CodeNotFound = "NOT_FOUND"
)

// retryAfter is the number of seconds after which a caller may repeat a request that got a 503.
// It is about as long as a statement waits for a row's lock.
const retryAfter = "1"

// Problem is the body of every error. The fields from Details on are present only where the code
// has them.
type Problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"`
	// Code is stable: programs decide by it.
	Code string `json:"code"`
	// Error repeats Detail, for clients that look for a field of this name.
	Error     string `json:"error"`
	RequestID string `json:"requestId"`
	// Details maps each invalid field of a request to its messages.
	Details map[string][]string `json:"details,omitempty"`
	// Shortages lists the lines that asked for more than there is. Of a payment that is lost it may be
	// empty, and is there all the same, unless it is nil.
	Shortages []Shortage `json:"shortages,omitzero"`
	// Limits lists the limits that the request would exceed.
	Limits []Limit `json:"limits,omitempty"`
	// PaymentReference points to the payment that was first, and to nil if that wasn't named.
	PaymentReference **string `json:"paymentReference,omitzero"`
	// Lines lists the lines that aren't for sale.
	Lines []StockKey `json:"lines,omitempty"`
	// Results has what became of each line of a document that was refused.
	Results []LineResult `json:"results,omitempty"`
	// Excess lists the lines of a return of which more would be back than was sold.
	Excess []Excess `json:"excess,omitempty"`
}

// StockKey names a product in a warehouse.
type StockKey struct {
	ProductID   uuid.UUID `json:"productId"`
	WarehouseID uuid.UUID `json:"warehouseId"`
}

// LineResult is what became of a line of a document of movements.
type LineResult struct {
	Line          int          `json:"line"`
	ProductID     *uuid.UUID   `json:"productId"`
	WarehouseID   *uuid.UUID   `json:"warehouseId"`
	Outcome       string       `json:"outcome"`
	Delta         int          `json:"delta"`
	TotalQuantity *int         `json:"totalQuantity"`
	Seq           *int64       `json:"seq"`
	Shortfall     *int         `json:"shortfall,omitempty"`
	Problem       *LineProblem `json:"problem,omitempty"`
}

// LineProblem says why a line was refused.
type LineProblem struct {
	Code   string `json:"code"`
	Status int    `json:"status"`
	Detail string `json:"detail"`
	Held   *int   `json:"held,omitempty"`
}

// Shortage is a line that asked for more units than were available.
type Shortage struct {
	ProductID   uuid.UUID `json:"productId"`
	WarehouseID uuid.UUID `json:"warehouseId"`
	Requested   int       `json:"requested"`
	Available   int       `json:"available"`
	// OrMore says that Available is the most that a caller is told. There may be more, but fewer
	// than Requested.
	OrMore bool `json:"orMore,omitzero"`
}

// Limit is a limit of a product that a request would exceed. Used is what the owner has already,
// and 0 for the limit of a hold.
type Limit struct {
	ProductID uuid.UUID `json:"productId"`
	Max       int       `json:"max"`
	Used      int       `json:"used"`
	Requested int       `json:"requested"`
}

// Excess is a line of a hold of which more would be back than was sold.
type Excess struct {
	ProductID   uuid.UUID `json:"productId"`
	WarehouseID uuid.UUID `json:"warehouseId"`
	Sold        int       `json:"sold"`
	Returned    int       `json:"returned"`
	Requested   int       `json:"requested"`
}

// New returns a problem without a request id; Write fills that in.
func New(status int, code, title, detail string) Problem {
	return Problem{
		Type: "urn:allo:problem:" + code, Title: title, Status: status,
		Detail: detail, Code: code, Error: detail,
	}
}

// Internal is the answer to a bug. It gives no reason: the log has the reason, under the same
// request id.
func Internal() Problem {
	return New(http.StatusInternalServerError, CodeInternal, "Internal server error",
		"Something went wrong on our side.")
}

// NotFound is the answer to an address or a method that the service doesn't have.
func NotFound() Problem {
	return New(http.StatusNotFound, CodeNotFound, "Not found", "There is nothing at this address.")
}

// Write answers with p. Its requestId is the X-Request-Id that w's header has, or else a random
// one. A 503 also gets a Retry-After header.
func (p Problem) Write(w http.ResponseWriter) {
	header := w.Header()
	if header.Get("X-Request-Id") == "" {
		header.Set("X-Request-Id", uuid.NewString())
	}
	p.RequestID = header.Get("X-Request-Id")
	header.Set("Content-Type", ContentType)
	header.Set("Cache-Control", "no-store")
	if p.Status == http.StatusServiceUnavailable {
		header.Set("Retry-After", retryAfter)
	}
	w.WriteHeader(p.Status)
	_, _ = w.Write(p.JSON()) // an error means that the caller has gone
}

// JSON encodes p. Invalid UTF-8 becomes the replacement character.
func (p Problem) JSON() []byte {
	body, err := json.Marshal(p, json.Deterministic(true), jsontext.AllowInvalidUTF8(true))
	if err != nil {
		panic(fmt.Sprintf("problem: encode strings and numbers: %v", err)) // can't happen
	}
	return body
}
