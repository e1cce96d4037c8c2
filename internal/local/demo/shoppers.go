package demo

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/google/uuid"
)

const (
	// firstShoppers come without a pause, so that the shop opens with something happening in it.
	firstShoppers = 3
	// maxShoppers is how many shop at once.
	maxShoppers = 8
	// keep is how many units a shopper leaves on a shelf. So the shoppers sell nothing out, and never
	// touch a shelf with a single unit.
	keep = 3
)

// span is a range of times: from least to below most.
type span struct{ least, most time.Duration }

func (s span) any() time.Duration { return between(s.least, s.most) }

// pace is how fast the shoppers are.
type pace struct {
	pause  span // between two shoppers
	hold   span // how long their holds last; whole seconds of it
	paying span // how long a step takes
}

// gentle is a few holds a minute.
var gentle = pace{
	pause:  span{6 * time.Second, 18 * time.Second},
	hold:   span{45 * time.Second, 150 * time.Second},
	paying: span{3 * time.Second, 12 * time.Second},
}

// RunShoppers sends shoppers to the demo's own products until ctx ends: they hold, pay, change
// their minds and forget, and their failed payments are told. Deliveries fill the shelves again.
// They rest while a flash sale runs. Any other catalog has no shoppers.
func (s *Server) RunShoppers(ctx context.Context) {
	var shopping sync.WaitGroup
	defer shopping.Wait()
	places := make(chan struct{}, maxShoppers)
	for n := 0; ctx.Err() == nil; n++ {
		if n >= firstShoppers && sleep(ctx, s.pace.pause.any()) != nil {
			return
		}
		if s.sale.isOpen() {
			continue
		}
		shelves, err := s.shelves(ctx)
		if err != nil || len(shelves) == 0 {
			s.complain(ctx, "look at the shelves", err)
			_ = sleep(ctx, s.pace.pause.most) // the loop ends with ctx
			continue
		}
		select {
		case places <- struct{}{}:
			chosen := shelves[dice(len(shelves))]
			shopping.Go(func() {
				defer func() { <-places }()
				s.complain(ctx, "shop", s.shop(ctx, chosen))
			})
		default: // all are busy
		}
	}
}

// complain logs what the shoppers couldn't do, unless they were stopped.
func (s *Server) complain(ctx context.Context, what string, err error) {
	if err != nil && ctx.Err() == nil {
		s.log.WarnContext(ctx, "the demo's shoppers can't "+what, "error", err.Error())
	}
}

// place is a shelf from which a shopper may take units.
type place struct {
	product, warehouse uuid.UUID
	spare              int // units beyond those that stay
}

// shelves reads the demo's own products, has their half-empty shelves filled, and returns those
// with units to spare.
func (s *Server) shelves(ctx context.Context) (places []place, err error) {
	query := url.Values{}
	own := map[uuid.UUID]bool{}
	for _, p := range Products() {
		query.Add("sku", p.SKU)
		own[p.ID] = true
	}
	var products []goods
	if _, err := s.api.get(ctx, "/api/products?"+query.Encode(), &products); err != nil {
		return nil, err
	}
	var lines []delivery
	for _, p := range products {
		if !own[p.ID] {
			continue
		}
		for _, row := range p.Inventories {
			if spare := row.AvailableStock - keep; spare > 0 {
				places = append(places, place{p.ID, row.WarehouseID, spare})
			}
			full := fullOf(p.ID, row.WarehouseID)
			if full > 2*keep && row.AvailableStock < full/2 && !row.OrMore {
				lines = append(lines, delivery{
					p.ID, row.WarehouseID, full - row.AvailableStock, "Demo delivery",
				})
			}
		}
	}
	_, err = s.restock(ctx, "delivery "+uuid.NewString(), lines)
	return places, err
}

// shop is one shopper.
func (s *Server) shop(ctx context.Context, at place) error {
	hold, a, err := s.api.reserve(ctx, object{
		"items":      []line{{at.product, at.warehouse, 1 + dice(min(2, at.spare))}},
		"ttlSeconds": int(s.pace.hold.any().Seconds()),
		"reference":  fmt.Sprintf("order %d", 1000+dice(9000)),
		"owner":      owners[dice(len(owners))],
	})
	if err != nil || a.status != http.StatusCreated {
		return orStatus(err, a, http.StatusConflict) // somebody else was faster
	}
	if err := sleep(ctx, s.pace.paying.any()); err != nil {
		return err
	}
	path := "/api/reservations/" + hold.String()
	switch chance := dice(100); {
	case chance < 15: // forgets it: the hold expires
		return nil
	case chance < 35:
		a, err = s.api.post(ctx, path+"/release", object{})
		return orStatus(err, a)
	default:
		return s.checkout(ctx, path, hold, chance >= 85)
	}
}

// owners are the customers of the shoppers' holds.
var owners = []string{"ada", "grace", "linus", "margaret", "ken", "barbara", "dennis", "radia"}

// checkout pays for a hold. With fails the first payment fails, and the shopper tries once more.
func (s *Server) checkout(ctx context.Context, path string, hold uuid.UUID, fails bool) error {
	for {
		payment := object{"paymentReference": "demo " + uuid.NewString(), "ttlSeconds": 60}
		a, err := s.api.post(ctx, path+"/payment", payment)
		if err != nil || a.status != http.StatusOK || sleep(ctx, s.pace.paying.any()) != nil {
			return orStatus(err, a, http.StatusGone)
		}
		if !fails {
			a, err = s.api.pay(ctx, hold, payment["paymentReference"].(string))
			return orStatus(err, a, http.StatusConflict)
		}
		fails = false
		if a, err = s.api.post(ctx, path+"/payment/failed", payment); err != nil ||
			a.status != http.StatusOK {
			return orStatus(err, a)
		}
	}
}

// orStatus returns err, or an error for a status other than a success and those allowed.
func orStatus(err error, a answer, allowed ...int) error {
	if err != nil || a.status < http.StatusMultipleChoices {
		return err
	}
	for _, status := range allowed {
		if a.status == status {
			return nil
		}
	}
	return fmt.Errorf("the API answered %d %s", a.status, a.code())
}
