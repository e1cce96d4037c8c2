package main

import (
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/allo/reservations/internal/route"
)

// Capacity is what a sale needs of the database, of Lambda and of the gateway.
type Capacity struct {
	// MinACU is the cluster's minimum capacity, in Aurora capacity units.
	MinACU float64
	// Provisioned has how many environments of a function wait for calls, by the function's name.
	Provisioned map[string]int
	// Sale is when they do so, nil for always.
	Sale *Sale
	// ConfirmConcurrency is the reserved concurrency of each function of the payment side, 0 for
	// none. An account with a quota of 10 can't reserve any.
	ConfirmConcurrency int
	// ReserveRate and ReserveBurst are the reserves that the gateway allows, each second and at once.
	ReserveRate, ReserveBurst int
}

// Sale is the time of a sale, in UTC.
type Sale struct{ Begin, End time.Time }

// Bounds of the settings.
const (
	// leastMinACU is Aurora's least capacity of a cluster that doesn't pause. The proxy's connections
	// and the sweeper's keep it from pausing.
	leastMinACU = 0.5
	// maxProvisioned bounds the functions of a schedule by their resources, one each, of which a stack
	// has at most 450 (stack_test.go). The first minutes of a sale have fewer functions.
	maxProvisioned = 5
	// mostProvisioned is the quota of concurrent executions that an operator asks for before a sale.
	// More than that in one setting is a typing error.
	mostProvisioned = 1000
	// mostConfirmConcurrency leaves a quota of 1,000 the hundred executions that Lambda insists on and
	// half of the rest, when each of the payment side's three functions reserves as many.
	mostConfirmConcurrency = 150
	// leastSale and mostSale bound the length of a sale. A sale of weeks needs no schedule.
	leastSale = 10 * time.Minute
	mostSale  = 72 * time.Hour
)

const (
	// saleLayout is the layout of a sale's begin.
	saleLayout = "2006-01-02T15:04"
	wantSale   = "a begin in UTC and a length from 10m to 72h, such as 2026-12-24T08:00/4h"
)

// provisionedPattern matches a function and the number of its environments.
var provisionedPattern = regexp.MustCompile(`^([a-z-]+):([1-9][0-9]{0,4})$`)

func (s *Settings) readCapacity(r *reader) {
	c := &s.Capacity
	c.MinACU = r.minACU(s.Stage.MinACU, s.MaxACU)
	if !s.Aurora && r.given("minAcu") {
		r.fail("minAcu is for db=aurora: the stack doesn't manage an external database")
	}
	c.Provisioned = r.provisioned("provisioned")
	c.Sale = r.sale("sale")
	if c.Sale != nil && len(c.Provisioned) == 0 {
		r.fail("sale needs provisioned, such as provisioned=reserve:50: " +
			"it says when these environments wait for calls")
	}
	c.ConfirmConcurrency = r.integer("confirmConcurrency", 0, 0, mostConfirmConcurrency)
	for _, name := range slices.Sorted(maps.Keys(c.Provisioned)) {
		n := c.Provisioned[name]
		if isPayment(name) && c.ConfirmConcurrency > 0 && n > c.ConfirmConcurrency {
			r.fail("provisioned has %d environments of %s; confirmConcurrency allows it only %d: "+
				"raise confirmConcurrency, or provision fewer", n, name, c.ConfirmConcurrency)
		}
	}
	c.ReserveRate = r.integer("reserveRate", s.ThrottleRate, 1, maxThrottle)
	c.ReserveBurst = r.integer("reserveBurst", s.ThrottleBurst, 1, maxThrottle)
}

// minACU reads the cluster's minimum capacity. Aurora counts it in halves.
func (r *reader) minACU(fallback, most float64) float64 {
	value := r.text("minAcu", strconv.FormatFloat(min(fallback, most), 'f', -1, 64))
	units, err := strconv.ParseFloat(value, 64)
	if err != nil || units != float64(int(2*units))/2 || units < leastMinACU || units > most {
		r.fail("minAcu is %q; it must be a number of halves from %v to maxAcu, which is %v",
			value, leastMinACU, most)
		return fallback
	}
	return units
}

// provisioned reads a list of functions and their numbers, separated by commas.
func (r *reader) provisioned(key string) map[string]int {
	value := r.text(key, "")
	if value == "" {
		return nil
	}
	counts := map[string]int{}
	for item := range strings.SplitSeq(value, ",") {
		part := provisionedPattern.FindStringSubmatch(item)
		if part == nil || !slices.Contains(saleFunctions(), part[1]) {
			r.fail("%s has %q; it must be functions of a sale with their numbers, such as "+
				"reserve:50,confirm:10, separated by commas. The functions are %s",
				key, item, strings.Join(saleFunctions(), ", "))
			continue
		}
		n, _ := strconv.Atoi(part[2]) // The pattern matches digits alone.
		switch {
		case counts[part[1]] > 0:
			r.fail("%s has %s twice", key, part[1])
		case n > mostProvisioned:
			r.fail("%s has %d environments of %s; it may have at most %d", key, n, part[1],
				mostProvisioned)
		}
		counts[part[1]] = n
	}
	if len(counts) > maxProvisioned {
		r.fail("%s has %d functions; a stack has room for %d", key, len(counts), maxProvisioned)
	}
	return counts
}

// sale reads the time of a sale: its begin, a slash and its length.
func (r *reader) sale(key string) *Sale {
	value := r.text(key, "")
	if value == "" {
		return nil
	}
	begin, length, _ := strings.Cut(value, "/")
	from, err := time.Parse(saleLayout, begin)
	lasts, lengthErr := time.ParseDuration(length)
	if err != nil || lengthErr != nil || lasts < leastSale || lasts > mostSale ||
		lasts%time.Minute != 0 {
		r.fail("%s is %q; it must be %s", key, value, wantSale)
		return nil
	}
	return &Sale{Begin: from, End: from.Add(lasts)}
}

// saleFunctions returns the names of the functions on which a sale depends, sorted. Their versions
// go out by canary.
func saleFunctions() []string {
	var names []string
	for _, r := range route.All() {
		if !isBackOffice(r) {
			names = append(names, r.Function)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// isPayment reports whether a function is for the payment side alone.
func isPayment(function string) bool {
	return slices.ContainsFunc(paymentRoutes(), func(r route.Route) bool {
		return r.Function == function
	})
}

// paymentRoutes returns the routes of the payment side: who calls them has been paid, or is about
// to be.
func paymentRoutes() []route.Route {
	return slices.DeleteFunc(route.All(), func(r route.Route) bool {
		return r.Scope != route.ScopeConfirm
	})
}
