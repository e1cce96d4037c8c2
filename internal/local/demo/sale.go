package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
)

// The size of a flash sale.
const (
	// saleBuyers is how many buyers come.
	saleBuyers = 200
	// saleCallers is how many of them have a call under way at once. More would wait inside the
	// gateway, and a person who shops meanwhile would wait with them.
	saleCallers = 24
	// arrival is the time in which they come.
	arrival = 2 * time.Second
	// saleLimit bounds the time of all buyers together. Some seconds are usual.
	saleLimit = 60 * time.Second
	// checkLimit bounds the checks after the sale.
	checkLimit = 30 * time.Second
	// movementPage is the most movements of a page of the API. It has room for a sale to each buyer
	// and for others' sales meanwhile.
	movementPage = 500
	// maxFound is the most violations that a sale tells.
	maxFound = 5
)

// thought is how long a buyer with a hold takes to enter a card.
var thought = span{400 * time.Millisecond, 2500 * time.Millisecond}

// phase is what a sale does.
type phase string

const (
	phaseRunning  phase = "RUNNING"  // the buyers fight
	phaseChecking phase = "CHECKING" // the audit reads everything
	phaseDone     phase = "DONE"
	phaseFailed   phase = "FAILED" // Problem says why
)

// The states of a buyer, each a letter of saleState.Buyers.
const (
	buyerAway       = 'w' // hasn't come yet
	buyerTrying     = 't'
	buyerHolds      = 'h' // has a hold, and pays
	buyerBought     = 's'
	buyerRefused    = 'r' // nothing was left
	buyerUnanswered = 'u' // gave up without an answer
)

// saleState is a sale as a page shows it.
type saleState struct {
	ID          string `json:"id"`
	ProductID   string `json:"productId"`
	ProductName string `json:"productName"`
	Phase       phase  `json:"phase"`
	// Buyers has a letter for each buyer.
	Buyers string `json:"buyers"`
	// Stock is how many units were available at the start, and Left how many are now.
	Stock int `json:"stock"`
	Left  int `json:"left"`
	// Sold, Refused and Unanswered count buyers. The other buyers are still at it.
	Sold       int `json:"sold"`
	Refused    int `json:"refused"`
	Unanswered int `json:"unanswered"`
	// Calls is how many requests the buyers have sent.
	Calls int `json:"calls"`
	// Milliseconds is how long the buyers have taken.
	Milliseconds int64 `json:"milliseconds"`
	// Oversold is how many buyers were told that a unit is theirs that never left a shelf. It is null
	// until that is checked.
	Oversold *int `json:"oversold"`
	// Audit is null until all promises are checked.
	Audit *auditResult `json:"audit"`
	// Problem says why a sale failed, and is empty otherwise.
	Problem string `json:"problem"`
}

// auditResult has how many violations the audit found, and the first few of them.
type auditResult struct {
	Violations int      `json:"violations"`
	Found      []string `json:"found"`
}

// saleroom has the newest sale. There is one at a time.
type saleroom struct {
	running sync.WaitGroup
	mu      sync.Mutex // guards newest
	newest  *sale
}

// current returns the newest sale, or nil.
func (r *saleroom) current() *sale {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.newest
}

func (r *saleroom) isOpen() bool {
	s := r.current()
	return s != nil && s.isOpen()
}

// open makes a sale the newest, unless another one still runs.
func (r *saleroom) open(s *sale) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.newest != nil && r.newest.isOpen() {
		return false
	}
	r.newest = s
	return true
}

// sale is a flash sale of one product.
type sale struct {
	api     *client
	product goods
	began   time.Time
	calls   chan struct{} // bounds the calls under way

	mu     sync.Mutex // guards the fields below
	state  saleState
	buyers [saleBuyers]byte
	// bought has the holds that buyers were told are theirs.
	bought map[uuid.UUID]bool
}

func newSale(api *client, product goods) *sale {
	s := &sale{
		api: api, product: product, began: time.Now(), calls: make(chan struct{}, saleCallers),
		bought: map[uuid.UUID]bool{},
		state: saleState{
			ID: uuid.NewString(), ProductID: product.ID.String(), ProductName: product.Name,
			Phase: phaseRunning, Stock: product.left(),
		},
	}
	for n := range s.buyers {
		s.buyers[n] = buyerAway
	}
	return s
}

func (s *sale) isOpen() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state.Phase == phaseRunning || s.state.Phase == phaseChecking
}

// shown returns the sale as a page shows it.
func (s *sale) shown() saleState {
	s.mu.Lock()
	defer s.mu.Unlock()
	state := s.state
	state.Buyers = string(s.buyers[:])
	held := 0
	for _, b := range s.buyers {
		switch b {
		case buyerBought:
			state.Sold++
		case buyerRefused:
			state.Refused++
		case buyerUnanswered:
			state.Unanswered++
		case buyerHolds:
			held++
		}
	}
	if state.Phase == phaseRunning {
		state.Milliseconds = time.Since(s.began).Milliseconds()
	}
	if state.Audit == nil { // nobody has counted what is left
		state.Left = max(0, state.Stock-state.Sold-held)
	}
	return state
}

// run lets the buyers fight, checks what came of it, and ends the sale.
func (s *sale) run(ctx context.Context, audit auditor) {
	fighting, stop := context.WithTimeout(ctx, saleLimit)
	defer stop()
	var buyers sync.WaitGroup
	for n := range saleBuyers {
		buyers.Go(func() { s.set(n, s.buy(fighting, n)) })
	}
	buyers.Wait()
	s.mu.Lock()
	s.state.Phase, s.state.Milliseconds = phaseChecking, time.Since(s.began).Milliseconds()
	s.mu.Unlock()

	checking, stop := context.WithTimeout(ctx, checkLimit)
	defer stop()
	err := s.check(checking, audit)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state.Phase = phaseDone
	if err != nil {
		s.state.Phase, s.state.Problem = phaseFailed, err.Error()
	}
}

func (s *sale) set(buyer int, state byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.buyers[buyer] = state
}

// buy is one buyer: who comes at some moment, tries one warehouse after the other, and pays. It
// returns how that ended.
func (s *sale) buy(ctx context.Context, n int) byte {
	if sleep(ctx, between(0, arrival)) != nil {
		return buyerUnanswered
	}
	s.set(n, buyerTrying)
	for _, row := range s.choice() {
		hold, a, err := s.reserve(ctx, n, row)
		switch {
		case err != nil || a.isUnknown():
			return buyerUnanswered
		case a.status == http.StatusCreated:
			s.set(n, buyerHolds)
			return s.pay(ctx, hold)
		}
	}
	return buyerRefused
}

// choice returns the warehouses in the order in which a buyer tries them: any order, with the
// empty ones last.
func (s *sale) choice() []shelf {
	rows := slices.Clone(s.product.Inventories)
	shuffle(rows)
	slices.SortStableFunc(rows, func(a, b shelf) int {
		return min(b.AvailableStock, 1) - min(a.AvailableStock, 1)
	})
	return rows
}

// enter waits until a buyer may call. The buyer must call leave afterwards.
func (s *sale) enter(ctx context.Context) error {
	select {
	case s.calls <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	s.mu.Lock()
	s.state.Calls++
	s.mu.Unlock()
	return nil
}

func (s *sale) leave() { <-s.calls }

func (s *sale) reserve(ctx context.Context, n int, row shelf) (uuid.UUID, answer, error) {
	if err := s.enter(ctx); err != nil {
		return uuid.UUID{}, answer{}, err
	}
	defer s.leave()
	return s.api.reserve(ctx, object{
		"items":     []line{{s.product.ID, row.WarehouseID, 1}},
		"reference": "flash sale", "owner": fmt.Sprintf("buyer %d", n+1),
	})
}

func (s *sale) pay(ctx context.Context, hold uuid.UUID) byte {
	if sleep(ctx, thought.any()) != nil || s.enter(ctx) != nil {
		return buyerUnanswered
	}
	defer s.leave()
	a, err := s.api.pay(ctx, hold, "sale "+hold.String())
	switch {
	case err != nil || a.isUnknown():
		return buyerUnanswered
	case a.status != http.StatusOK:
		return buyerRefused // the hold had ended, and the units were gone: the money is refunded
	}
	var paid struct{ Reservation struct{ ID uuid.UUID } }
	if json.Unmarshal(a.body, &paid) != nil {
		return buyerUnanswered
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bought[paid.Reservation.ID] = true
	return buyerBought
}

// check reads how many units are left, looks for the movement of each unit that was sold, and runs
// the audit.
func (s *sale) check(ctx context.Context, audit auditor) error {
	var after goods
	if _, err := s.api.get(ctx, "/api/products/"+s.product.ID.String(), &after); err != nil {
		return fmt.Errorf("read what is left: %w", err)
	}
	gone, err := s.moved(ctx)
	if err != nil {
		return fmt.Errorf("read the movements: %w", err)
	}
	violations, err := audit(ctx)
	result := &auditResult{Violations: len(violations), Found: []string{}}
	for _, v := range violations[:min(len(violations), maxFound)] {
		result.Found = append(result.Found, v.Promise+": "+v.Detail)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	oversold := len(s.bought) - gone
	s.state.Left, s.state.Oversold, s.state.Audit = after.left(), &oversold, result
	return err
}

// moved counts the sold units that left a shelf: the movements of the holds that buyers were told
// are theirs. The total after each is at least 0.
func (s *sale) moved(ctx context.Context) (units int, err error) {
	for _, row := range s.product.Inventories {
		var movements []struct {
			ReservationID *uuid.UUID
			TotalAfter    int
		}
		path := fmt.Sprintf("/api/stock/movements?productId=%s&warehouseId=%s&limit=%d",
			s.product.ID, row.WarehouseID, movementPage)
		if _, err := s.api.get(ctx, path, &movements); err != nil {
			return 0, err
		}
		for _, m := range movements {
			if m.ReservationID != nil && s.bought[*m.ReservationID] && m.TotalAfter >= 0 {
				units++
			}
		}
	}
	return units, nil
}

// saleRequest names what is sold, or restocked.
type saleRequest struct {
	ProductID string `json:"productId"`
}

// product reads the product that a request names. When it can't, it answers and returns false.
func (s *Server) product(w http.ResponseWriter, r *http.Request) (product goods, ok bool) {
	var q saleRequest
	if !read(w, r, &q) {
		return product, false
	}
	id, err := uuid.Parse(q.ProductID)
	if err != nil {
		refuse(w, http.StatusBadRequest, "VALIDATION_FAILED", "productId must be a UUID.")
		return product, false
	}
	a, err := s.api.get(r.Context(), "/api/products/"+id.String(), &product)
	switch {
	case a.status == http.StatusNotFound:
		refuse(w, http.StatusNotFound, "PRODUCT_NOT_FOUND", "There is no such product for sale.")
	case err != nil:
		busy(w, "The catalog can't be read right now.")
	default:
		return product, true
	}
	return product, false
}

// serveStart starts a sale. Its answer is 202 with the sale's state.
func (s *Server) serveStart(w http.ResponseWriter, r *http.Request) {
	product, ok := s.product(w, r)
	if !ok {
		return
	}
	if product.left() == 0 {
		refuse(w, http.StatusConflict, "NOTHING_LEFT", "Nothing is left to sell: restock it first.")
		return
	}
	made := newSale(s.api, product)
	if s.ctx.Err() != nil || !s.sale.open(made) {
		refuse(w, http.StatusConflict, "SALE_RUNNING", "A sale is running: wait for its end.")
		return
	}
	s.sale.running.Go(func() { made.run(s.ctx, s.audit) })
	write(w, http.StatusAccepted, made.shown())
}

// serveSale answers with the newest sale, or with null before the first one.
func (s *Server) serveSale(w http.ResponseWriter, _ *http.Request) {
	if newest := s.sale.current(); newest != nil {
		write(w, http.StatusOK, newest.shown())
		return
	}
	write(w, http.StatusOK, nil)
}

// serveRestock fills the shelves of a product.
func (s *Server) serveRestock(w http.ResponseWriter, r *http.Request) {
	product, ok := s.product(w, r)
	if !ok {
		return
	}
	if s.sale.isOpen() {
		refuse(w, http.StatusConflict, "SALE_RUNNING", "A sale is running: wait for its end.")
		return
	}
	added, err := s.restock(r.Context(), "restock "+uuid.NewString(), missing(product))
	if err != nil {
		s.log.WarnContext(r.Context(), "the demo can't restock", "error", err.Error())
		busy(w, "The delivery couldn't be booked.")
		return
	}
	write(w, http.StatusOK, object{"added": added})
}

// delivery is a line of a delivery.
type delivery struct {
	ProductID   uuid.UUID `json:"productId"`
	WarehouseID uuid.UUID `json:"warehouseId"`
	Delta       int       `json:"delta"`
	Note        string    `json:"note"`
}

// fullShelf is how many units a shelf of a product has that isn't the demo's own.
const fullShelf = 20

// missing returns the lines that bring each shelf of a product back to the demo's first stock.
func missing(product goods) (lines []delivery) {
	for _, row := range product.Inventories {
		short := fullOf(product.ID, row.WarehouseID) - row.AvailableStock
		if short > 0 && !row.OrMore {
			lines = append(lines, delivery{product.ID, row.WarehouseID, short, "Demo delivery"})
		}
	}
	return lines
}

// fullOf returns the demo's first stock of a shelf.
func fullOf(product, warehouse uuid.UUID) int {
	for _, p := range Products() {
		for i, w := range Warehouses() {
			if p.ID == product && w.ID == warehouse {
				return p.Stock[i]
			}
		}
	}
	return fullShelf
}

// restock books a delivery as movements. It returns the units that were added.
func (s *Server) restock(ctx context.Context, reference string, lines []delivery) (int, error) {
	if len(lines) == 0 {
		return 0, nil
	}
	a, err := s.api.post(ctx, "/api/stock/movements", object{
		"source": "demo", "reference": reference, "lines": lines,
	})
	if err == nil && a.status != http.StatusOK {
		err = fmt.Errorf("POST /api/stock/movements = %d %s", a.status, a.code())
	}
	if err != nil {
		return 0, err
	}
	var done struct {
		Results []struct {
			Outcome string
			Delta   int
		}
	}
	if err := json.Unmarshal(a.body, &done); err != nil {
		return 0, err
	}
	units := 0
	for _, result := range done.Results {
		if result.Outcome == "REFUSED" {
			return units, errors.New("a line of the delivery was refused")
		}
		units += result.Delta
	}
	return units, nil
}
