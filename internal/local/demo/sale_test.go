package demo

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/allo/reservations/internal/pgtest"
)

// headphones is the id of the first product, of which there are 25 units.
const headphones = `{"productId":"0192d000-0000-7000-8000-000000000101"}`

// sell starts a sale and waits for its end.
func (s *shop) sell() page {
	s.t.Helper()
	begun := s.post("/demo/sale", headphones)
	if begun.Status != http.StatusAccepted || len(begun.Buyers) != saleBuyers {
		s.t.Fatalf("the sale begins with %+v, want 202 and %d buyers", begun, saleBuyers)
	}
	if p := s.post("/demo/sale", headphones); p.Code != "SALE_RUNNING" {
		s.t.Errorf("a second sale = %d %s, want SALE_RUNNING", p.Status, p.Code)
	}
	if p := s.post("/demo/sale/restock", headphones); p.Code != "SALE_RUNNING" {
		s.t.Errorf("a restock within a sale = %d %s, want SALE_RUNNING", p.Status, p.Code)
	}
	var newest page
	s.until(func() bool {
		newest = s.get("/demo/sale")
		return newest.Phase == phaseDone || newest.Phase == phaseFailed
	})
	return newest
}

func TestAFlashSaleSellsEachUnitOnce(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	var now, most atomic.Int64
	s.before.Store(new(func(_ http.ResponseWriter, r *http.Request) bool {
		if strings.HasPrefix(r.URL.Path, "/api/reservations") {
			under := now.Add(1)
			context.AfterFunc(r.Context(), func() { now.Add(-1) })
			for seen := most.Load(); under > seen && !most.CompareAndSwap(seen, under); {
				seen = most.Load()
			}
		}
		return false
	}))

	done := s.sell()
	if done.Phase != phaseDone || done.Sold != 25 || done.Refused != saleBuyers-25 ||
		done.Left != 0 || *done.Oversold != 0 || done.Audit.Violations != 0 {
		t.Errorf("the sale of 25 = %+v, oversold %v, %+v; want 25 sold, and nothing wrong",
			done.saleState, done.Oversold, done.Audit)
	}
	t.Logf("%d calls in %d ms, at most %d at once", done.Calls, done.Milliseconds, most.Load())
	// A context ends a moment after its answer has left, so a few calls may seem to overlap.
	if got := most.Load(); got > 2*saleCallers {
		t.Errorf("%d calls were under way at once, want at most %d", got, saleCallers)
	}
	if sold := pgtest.QueryOne[int](s.db, "SELECT count(*) FROM reservations "+
		"WHERE status = 'CONFIRMED'"); sold != 25 {
		t.Errorf("%d holds are confirmed, want 25", sold)
	}

	if p := s.post("/demo/sale", headphones); p.Code != "NOTHING_LEFT" {
		t.Errorf("a sale of nothing = %d %s, want NOTHING_LEFT", p.Status, p.Code)
	}
	for _, want := range []int{25, 0} { // the shelves are full after the first
		if p := s.post("/demo/sale/restock", headphones); p.Status != 200 || p.Added != want {
			t.Errorf("a restock = %d with %d units, want %d", p.Status, p.Added, want)
		}
	}
	if n := pgtest.QueryOne[int](s.db, "SELECT count(*) FROM stock_movements "+
		"WHERE source = 'demo'"); n != 3 {
		t.Errorf("the restock made %d movements, want one for each shelf", n)
	}
}

// The control of the test above: a shop that promises each buyer a unit is found out.
func TestAFlashSaleFindsOutAShopThatOversells(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	s.before.Store(new(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodPost || !strings.HasPrefix(r.URL.Path, "/api/reservations") {
			return false
		}
		w.Header().Set("Content-Type", "application/json")
		if strings.HasSuffix(r.URL.Path, "/confirm") {
			id := strings.Split(r.URL.Path, "/")[3]
			_, _ = fmt.Fprintf(w, `{"outcome":"CONFIRMED","reservation":{"id":%q}}`, id)
			return true
		}
		w.WriteHeader(http.StatusCreated)
		_, _ = fmt.Fprintf(w, `{"reservation":{"id":%q}}`, uuid.NewString())
		return true
	}))
	if done := s.sell(); done.Sold != saleBuyers || *done.Oversold != saleBuyers {
		t.Errorf("the sale = %+v, oversold %v; want %d oversold", done.saleState, done.Oversold,
			saleBuyers)
	}
}

// A service that is away is no refusal: the buyers give up without an answer.
func TestAFlashSaleTellsWhoGotNoAnswer(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	s.server.api.pause = time.Millisecond
	s.before.Store(new(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodPost || r.URL.Path != "/api/reservations" {
			return false
		}
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = io.WriteString(w, `{"code":"UNAVAILABLE"}`)
		return true
	}))
	if done := s.sell(); done.Unanswered != saleBuyers || done.Sold+done.Refused != 0 {
		t.Errorf("the sale = %+v, want all without an answer", done.saleState)
	}
}
