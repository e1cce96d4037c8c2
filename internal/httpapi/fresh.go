package httpapi

import (
	"net/http"
	"strings"

	"github.com/allo/reservations/internal/reservation"
	"github.com/allo/reservations/internal/route"
)

// fresh lets a caller of the back office ask for an answer that has every change up to now: with
// Cache-Control: no-cache, in HTTP's own meaning (RFC 9111, section 5.2.1.4), the writer is read.
// The console does so after a change of its own. The open catalog ignores the header, which any
// browser may send: else every shopper could lead the sale's pages back to the writer. What a
// shopper can have the writer do is to look up a product whose id the reader doesn't know.
func fresh(r route.Route, h handler) handler {
	if r.Method != http.MethodGet || r.Scope == "" {
		return h
	}
	return func(w *recorder, r *http.Request) error {
		if asksForFresh(r.Header) {
			r = r.WithContext(reservation.OnWriter(r.Context()))
		}
		return h(w, r)
	}
}

// asksForFresh reports whether a request's Cache-Control has the directive no-cache.
func asksForFresh(header http.Header) bool {
	for directive := range strings.SplitSeq(strings.Join(header.Values("Cache-Control"), ","), ",") {
		if strings.EqualFold(strings.TrimSpace(directive), "no-cache") {
			return true
		}
	}
	return false
}
