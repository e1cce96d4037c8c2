// Checkout is a shop's back end, to copy from. It keeps or refunds each payment exactly once.
//
// It stores nothing. The stock service knows which payment got the units of a hold, for ever. The
// payment provider knows each payment's state and hold. Every call may be repeated. So the program
// may die at any line: the basket, or the provider with its webhook, then asks again.
package main

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"log"
	"net/http"
	"net/url"
	"os"
	"time"
)

// shop is the configuration. KeySecret makes the Idempotency-Keys hard to guess.
type shop struct {
	Listen, KeySecret, CallerSecret string
	Stock, Provider                 api
}

// order comes from the shop's basket, which knows the amount. Number is new for each cart and after
// a 410, and is used for less than a day. Attempt is new for each try to pay.
type order struct {
	Number, Attempt string
	Amount          int64
	Items           json.RawMessage // as the stock service takes them
}

// checkout holds the units, makes the payment and says that it has started. Only then does the
// customer get the URL to pay at.
func (s *shop) checkout(ctx context.Context, o order) answer {
	made := s.Stock.call(ctx, "/api/reservations",
		object{"items": o.Items, "reference": o.Number}, sign(s.KeySecret, "hold "+o.Number))
	if made.Status >= 300 {
		return made
	}
	hold := made.Reservation.ID
	p := s.Provider.call(ctx, "/payments", object{"amount": o.Amount, "hold": hold},
		sign(s.KeySecret, "pay "+hold+" "+o.Attempt))
	if p.Status >= 300 {
		return p
	}
	started := s.Stock.call(ctx, "/api/reservations/"+hold+"/payment",
		object{"paymentReference": p.ID, "ttlSeconds": 1800})
	if started.Status >= 300 {
		return started
	}
	return p
}

// settle does what a payment's state asks for. It reads the state from the provider, because a
// webhook may be late, repeated, overtaken, or wrong about the attempt. If one may never come, a
// timer should post each payment of the last days in its place.
func (s *shop) settle(ctx context.Context, e event) answer {
	p := s.Provider.call(ctx, "/payments/"+url.PathEscape(e.Payment), nil)
	hold := "/api/reservations/" + p.Hold
	switch {
	case p.Hold == "": // no answer, or a payment of something else
	case p.State == "failed":
		return s.Stock.call(ctx, hold+"/payment/failed", object{"paymentReference": p.ID})
	case p.State == "captured": // and not refunded
		kept := s.Stock.call(ctx, hold+"/confirm",
			object{"paymentReference": p.ID, "onGone": "REACQUIRE"})
		if kept.Code == "PAYMENT_LOST" || kept.Code == "ALREADY_PAID" { // as final as 200
			return s.Provider.call(ctx, "/payments/"+p.ID+"/refund", object{}, "refund "+p.ID)
		}
		return kept // a 503 says nothing about the payment: refund nothing, and be asked again
	}
	return p
}

func main() { // checkout < configuration.json
	var s shop
	if err := json.NewDecoder(os.Stdin).Decode(&s); err != nil {
		log.Fatal(err)
	}
	http.HandleFunc("POST /checkout", serve(s.CallerSecret, s.checkout))
	http.HandleFunc("POST /webhook", serve(s.CallerSecret, s.settle))
	log.Fatal((&http.Server{Addr: s.Listen, ReadTimeout: 10 * time.Second}).ListenAndServe())
}

// serve answers a signed request. The caller asks again while the answer is 503.
func serve[In any](secret string, do func(context.Context, In) answer) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var in In
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<16))
		signed := hmac.Equal([]byte(r.Header.Get("Signature")), []byte(sign(secret, string(body))))
		a := answer{Status: http.StatusBadRequest, Code: "NOT_SIGNED"}
		if err == nil && signed && json.Unmarshal(body, &in) == nil {
			a = do(r.Context(), in)
		}
		log.Printf("%s %d %q", r.Pattern, a.Status, a.Code) // #nosec G706 -- %q quotes
		w.WriteHeader(a.Status)
		_, _ = io.WriteString(w, a.URL+a.Code)
	}
}

type (
	event  struct{ Payment string } // what the program reads of a webhook
	api    struct{ URL, Token string }
	object map[string]any
)

// answer is what the program reads of an answer. Its Status is 503 when none came, or half of it.
type answer struct {
	Status                     int
	Code, ID, State, URL, Hold string
	Reservation                struct{ ID string }
}

// call gets, or posts an object, perhaps with an Idempotency-Key.
func (a api) call(ctx context.Context, path string, in object, key ...string) (out answer) {
	method, body := http.MethodGet, []byte(nil)
	if in != nil {
		method = http.MethodPost
		body, _ = json.Marshal(in)
	}
	r, err := http.NewRequestWithContext(ctx, method, a.URL+path, bytes.NewReader(body))
	if err != nil {
		return answer{Status: http.StatusServiceUnavailable, Code: err.Error()}
	}
	r.Header.Set("Authorization", "Bearer "+a.Token)
	r.Header.Set("Content-Type", "application/json")
	r.Header["Idempotency-Key"] = key
	got, err := (&http.Client{Timeout: 10 * time.Second}).Do(r)
	if err != nil {
		return answer{Status: http.StatusServiceUnavailable, Code: err.Error()}
	}
	defer func() { _ = got.Body.Close() }()
	if err = json.NewDecoder(got.Body).Decode(&out); err != nil {
		return answer{Status: http.StatusServiceUnavailable, Code: err.Error()}
	}
	out.Status = got.StatusCode
	return out
}

// sign returns the HMAC of a text.
func sign(secret, text string) string {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(text))
	return hex.EncodeToString(mac.Sum(nil))
}
