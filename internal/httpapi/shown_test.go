package httpapi_test

import (
	"fmt"
	"io"
	"net/http"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/allo/reservations/internal/httpapi"
	"github.com/allo/reservations/internal/pgtest"
	"github.com/allo/reservations/internal/reservation"
)

// newLimitedClient is a client of a shop that shows shoppers so many units of a stock row, with the
// catalog of newStockedClient.
func newLimitedClient(t *testing.T, shown int) stockedClient {
	t.Helper()
	s := newStockedClient(t)
	service := reservation.New(newPool(t, s.db.URL),
		reservation.Options{HoldTTL: holdTTL, MaxHold: maxHold})
	s.client = newClientOf(t,
		httpapi.New(service, httpapi.Options{Log: newLog(io.Discard), StockShown: shown}))
	return s
}

// newBoundedClient is a client of a shop whose holds have at most so many units and lines.
func newBoundedClient(t *testing.T, units, lines int) stockedClient {
	t.Helper()
	return newStockedClient(t).bounded(t, units, lines)
}

// bounded returns a client of the same shop with these limits.
func (s stockedClient) bounded(t *testing.T, units, lines int) stockedClient {
	t.Helper()
	service := reservation.New(newPool(t, s.db.URL), reservation.Options{
		HoldTTL: holdTTL, MaxHold: maxHold, MaxUnits: units, MaxLines: lines,
	})
	s.client = newClientOf(t, httpapi.New(service, httpapi.Options{Log: newLog(io.Discard)}))
	return s
}

// shownRow is a stock row as a shopper sees it.
type shownRow struct {
	WarehouseName                   string
	TotalQuantity, ReservedQuantity *int
	AvailableStock                  int
	OrMore                          *bool
}

func (r shownRow) String() string {
	text := fmt.Sprint(r.WarehouseName, " ", r.AvailableStock)
	if r.OrMore != nil && *r.OrMore {
		text += "+"
	}
	if r.TotalQuantity != nil && r.ReservedQuantity != nil {
		text += fmt.Sprint(" of ", *r.TotalQuantity, ", ", *r.ReservedQuantity, " held")
	}
	return text
}

func TestTheCatalogShowsNoMoreUnitsThanTheOperatorAllows(t *testing.T) {
	t.Parallel()

	for shown, want := range map[int][]string{
		0:  {"East 7 of 10, 3 held", "West 1 of 1, 0 held"},
		1:  {"East 1+", "West 1+"},
		6:  {"East 6+", "West 1"},
		7:  {"East 7+", "West 1"},
		8:  {"East 7", "West 1"},
		99: {"East 7", "West 1"},
	} {
		s := newLimitedClient(t, shown)
		s.reserve(t, reserveBody(s.mug, s.east, 3))
		type entry struct{ Inventories []shownRow }
		entries := map[string]entry{
			"/api/products/" + s.mug.String(): decode[entry](t, s.get("/api/products/"+s.mug.String())),
			"/api/products?sku=CM-300": decode[[]entry](t,
				s.get("/api/products?sku=CM-300"))[0],
			"/api/products": decode[[]entry](t, s.get("/api/products"))[1],
		}
		for path, e := range entries {
			var got []string
			for _, row := range e.Inventories {
				got = append(got, row.String())
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s with %d units shown differs (-want +got):\n%s", path, shown, diff)
			}
		}
	}
}

// Who asks for too much is told no more than the catalog shows. The control is the shop that shows
// all: the same refusal tells the exact number.
func TestARefusalTellsNoMoreUnitsThanTheCatalogShows(t *testing.T) {
	t.Parallel()

	for shown, want := range map[int]string{
		0: "11 of 7, 2 of 1", 5: "11 of 5+, 2 of 1", 7: "11 of 7+, 2 of 1", 1: "11 of 1+, 2 of 1+",
	} {
		s := newLimitedClient(t, shown)
		s.reserve(t, reserveBody(s.mug, s.east, 3))
		a := s.post("/api/reservations", cartBody(reserveBody(s.mug, s.east, 11),
			reserveBody(s.mug, s.west, 2))).want(t, http.StatusConflict, "INSUFFICIENT_STOCK")
		short := map[uuid.UUID]string{}
		for _, line := range decode[struct {
			Shortages []struct {
				WarehouseID          uuid.UUID
				Requested, Available int
				OrMore               bool
			}
		}](t, a).Shortages {
			text := fmt.Sprint(line.Requested, " of ", line.Available)
			if line.OrMore {
				text += "+"
			}
			short[line.WarehouseID] = text
		}
		if got := short[s.east] + ", " + short[s.west]; got != want {
			t.Errorf("with %d units shown the shortages are %s, want %s", shown, got, want)
		}
	}
}

// A hold may take more units than are shown.
func TestMoreUnitsThanAreShownCanBeHeld(t *testing.T) {
	t.Parallel()

	s := newLimitedClient(t, 2)
	s.reserve(t, reserveBody(s.mug, s.east, 10))
	if got := s.db.Counts(s.mug, s.east); got != (pgtest.Counts{Total: 10, Reserved: 10}) {
		t.Errorf("the stock row has %+v, want all ten held", got)
	}
}
