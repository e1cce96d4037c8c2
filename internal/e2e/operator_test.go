package e2e

import (
	"context"
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/google/uuid"
)

// listedHold is a hold of a list.
type listedHold struct {
	hold
	RemainingSeconds *int
	Expired          *bool
}

// list follows the links of a list from its first page to its last. It returns the holds and the
// number of pages.
func (d *deployment) list(query string) (holds []listedHold, pages int) {
	d.t.Helper()
	const most = 100
	path := "/api/reservations?" + query
	for path != "" && pages < most {
		a := d.get(path).want(d.t, http.StatusOK, "")
		if got := a.header.Get("Cache-Control"); got != "no-store" {
			d.t.Errorf("Cache-Control = %q, want no-store", got)
		}
		holds = append(holds, decode[[]listedHold](d.t, a)...)
		pages++
		path = ""
		if m := nextLink.FindStringSubmatch(a.header.Get("Link")); m != nil {
			path = m[1]
		}
	}
	return holds, pages
}

// wantList fails the test unless the list has these holds in this order.
func (d *deployment) wantList(query string, want ...hold) {
	d.t.Helper()
	got, pages := d.list(query + "&limit=2")
	var gotIDs, wantIDs []string
	for _, h := range got {
		gotIDs = append(gotIDs, h.ID)
		alive := h.Status == "PENDING"
		if h.RemainingSeconds == nil || alive != (*h.RemainingSeconds > 0) || h.Expired == nil ||
			*h.Expired != (h.Status == "EXPIRED") || len(h.Items) == 0 {
			d.t.Errorf("listed hold = %+v, which contradicts itself", h)
		}
	}
	for _, h := range want {
		wantIDs = append(wantIDs, h.ID)
	}
	if marshal(d.t, gotIDs) != marshal(d.t, wantIDs) || pages != max(1, (len(want)+1)/2) {
		d.t.Errorf("the list of %q = %v in %d pages, want %v, two a page", query, gotIDs, pages,
			wantIDs)
	}
}

func TestOperatorListsHoldsByStatusProductAndWarehouse(t *testing.T) {
	eachTransport(t, func(t *testing.T, d *deployment) {
		d.wantList("status=PENDING")
		first := d.reserve(line(mug, newYork, 1))
		long := d.reserve(`{"productId":"` + keyboard.String() + `","warehouseId":"` +
			newYork.String() + `","quantity":1,"ttlSeconds":3000}`)
		both := d.reserve(cart(line(mug, newYork, 1), line(keyboard, sanFrancisco, 1)))
		sold := d.reserve(line(mug, sanFrancisco, 1))
		given := d.reserve(line(mug, newYork, 1))
		dead := d.reserve(line(mug, losAngeles, 1))
		d.post("/api/reservations/"+sold.ID+"/confirm", "").want(t, http.StatusOK, "")
		d.post("/api/reservations/"+given.ID+"/release", "").want(t, http.StatusOK, "")
		d.killDayAgo(dead) // this also moves its creation a day back

		for range 2 {
			d.wantList("status=PENDING", first, both, long)
			d.wantList("status=CONFIRMED", sold)
			d.wantList("status=RELEASED", given)
			d.wantList("status=EXPIRED", dead)
			d.wantList("", given, sold, both, long, first, dead)
			d.wantList("productId="+mug.String(), given, sold, both, first, dead)
			d.wantList("productId="+keyboard.String()+"&warehouseId="+newYork.String(), long)
			d.wantList("warehouseId="+sanFrancisco.String()+"&status=PENDING", both)
			d.wantList("productId=" + mug.String() + "&warehouseId=" + uuid.Nil.String())
			d.sweep() // which changes nothing that is seen
		}

		listed, _ := d.list("status=CONFIRMED")
		read := d.get("/api/reservations/"+sold.ID).want(t, http.StatusOK, "").hold(t)
		if l, r := marshal(t, listed[0].hold), marshal(t, read); l != r {
			t.Errorf("the list tells of a hold %s and a read %s", l, r)
		}
	})
}

func TestInvalidListQueriesNameTheParameter(t *testing.T) {
	eachTransport(t, func(t *testing.T, d *deployment) {
		d.reserve(line(mug, newYork, 1))
		d.reserve(line(mug, newYork, 1))
		first := d.get("/api/reservations?limit=1")
		link, err := url.Parse(nextLink.FindStringSubmatch(first.header.Get("Link"))[1])
		if err != nil {
			t.Fatal(err)
		}
		cursor := link.Query().Get("cursor")
		for query, field := range map[string]string{
			"status=pending":                  "status",
			"status=":                         "status",
			"status=DEAD":                     "status",
			"status=PENDING&status=PENDING":   "status",
			"productId=":                      "productId",
			"productId=x":                     "productId",
			"productId=%00":                   "productId",
			"warehouseId=1":                   "warehouseId",
			"limit=0":                         "limit",
			"limit=201":                       "limit",
			"limit=x":                         "limit",
			"limit=1&limit=2":                 "limit",
			"cursor=":                         "cursor",
			"cursor=x":                        "cursor",
			"cursor=" + cursor + "A":          "cursor",
			"status=PENDING&cursor=" + cursor: "cursor",
		} {
			a := d.get("/api/reservations?"+query).
				want(t, http.StatusBadRequest, "VALIDATION_FAILED")
			details := decode[struct{ Details map[string][]string }](t, a).Details
			if len(details) != 1 || len(details[field]) != 1 {
				t.Errorf("details of %q = %v, want one message for %s", query, details, field)
			}
		}
		d.get("/api/reservations?status=CONFIRMED&limit=1&cursor="+cursor).
			want(t, http.StatusOK, "")
		d.get("/api/reservations?unknown=1").want(t, http.StatusOK, "")
	})
}

type counts struct{ Held, Confirmed, Released, Expired int }

// shopStats is the body of GET /api/stats.
type shopStats struct {
	ServerTime time.Time
	Holds      struct{ Live, LiveUnits, Dead int }
	Stock      struct{ Total, Held int }
	Minutes    []struct {
		At time.Time
		counts
	}
	Hour  counts
	Sweep struct{ LagSeconds *float64 }
	Audit *struct {
		At         time.Time
		Violations int
		Unfinished bool
	}
}

func TestStatsMatchWhatHappened(t *testing.T) {
	eachTransport(t, func(t *testing.T, d *deployment) {
		readStats := func() shopStats {
			t.Helper()
			s := decode[shopStats](t, d.get("/api/stats").want(t, http.StatusOK, ""))
			var sum counts
			for i, m := range s.Minutes {
				sum.Held += m.Held
				sum.Confirmed += m.Confirmed
				sum.Released += m.Released
				sum.Expired += m.Expired
				want := s.ServerTime.Truncate(time.Minute).Add(time.Duration(i-59) * time.Minute)
				if !m.At.Equal(want) {
					t.Errorf("minute %d begins at %v, want %v", i, m.At, want)
				}
			}
			if len(s.Minutes) != 60 || sum != s.Hour || s.Stock.Held != s.Holds.LiveUnits {
				t.Errorf("stats = %+v, which do not add up: the %d minutes sum to %+v", s,
					len(s.Minutes), sum)
			}
			return s
		}
		before := readStats()
		if before.Audit != nil || *before.Sweep.LagSeconds != 0 || before.Holds.Live != 0 ||
			before.Hour != (counts{}) || before.Stock.Total != 144 {
			t.Errorf("stats of a new shop = %+v, want 144 units and no holds", before)
		}
		d.reserve(line(mug, newYork, 3))
		sold := d.reserve(line(mug, newYork, 2))
		given := d.reserve(line(mug, newYork, 1))
		dead := d.reserve(line(mug, newYork, 5))
		d.post("/api/reservations/"+sold.ID+"/confirm", "").want(t, http.StatusOK, "")
		d.post("/api/reservations/"+given.ID+"/release", "").want(t, http.StatusOK, "")
		d.killDayAgo(dead) // it expired a day ago, before the last hour

		got := readStats()
		if want := (counts{Held: 3, Confirmed: 1, Released: 1}); got.Hour != want ||
			got.Stock.Total != 142 {
			t.Errorf("the hour = %+v and %d units, want %+v and 142", got.Hour, got.Stock.Total,
				want)
		}
		if got.Holds.Live != 1 || got.Holds.LiveUnits != 3 || got.Holds.Dead != 1 ||
			*got.Sweep.LagSeconds < 80_000 {
			t.Errorf("holds = %+v, sweep %v s behind; want one live hold of 3 units, and one "+
				"that expired most of a day ago", got.Holds, *got.Sweep.LagSeconds)
		}

		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		if _, err := d.functions.Sweep.Invoke(ctx,
			[]byte(`{"detail":{"audit":true}}`)); err != nil {
			t.Fatal(err)
		}
		after := readStats()
		if after.Holds.Dead != 0 || *after.Sweep.LagSeconds != 0 || after.Hour != got.Hour {
			t.Errorf("stats after the sweep = %+v, want no dead hold and the same hour", after)
		}
		if after.Audit == nil || after.Audit.Violations != 0 || after.Audit.Unfinished ||
			after.ServerTime.Before(after.Audit.At) {
			t.Errorf("audit = %+v, want one without violations", after.Audit)
		}
	})
}
