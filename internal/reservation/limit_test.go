package reservation_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/allo/reservations/internal/reservation"
)

// invalidFields returns the fields of an *InvalidError, or nil for another error.
func invalidFields(err error) []string {
	var invalid *reservation.InvalidError
	if !errors.As(err, &invalid) {
		return nil
	}
	var fields []string
	for field := range invalid.Fields {
		fields = append(fields, field)
	}
	return fields
}

func TestReserveChecksTheLimitsOfLines(t *testing.T) {
	t.Parallel()

	f := newFixture(t, 1)
	ctx := f.Context()
	s := f.services()[0]
	row := f.stock(1_000_000_000)
	var hundred, hundredAndOne []reservation.Line
	for range reservation.MaxLines {
		hundred = append(hundred, f.stock(10))
	}
	hundredAndOne = append(hundredAndOne, hundred...)
	hundredAndOne = append(hundredAndOne, row)
	eachTwice := slices.Concat(hundred, hundred)
	sum := func(quantities ...int) []reservation.Line {
		var lines []reservation.Line
		for _, n := range quantities {
			lines = append(lines, of(row, n))
		}
		return lines
	}

	for name, test := range map[string]struct {
		lines   []reservation.Line
		refused string // the invalid field, or empty
		holds   int    // the number of lines, unless the request is refused
	}{
		"no unit":                    {lines: sum(0), refused: "items[0].quantity"},
		"a negative quantity":        {lines: sum(-1), refused: "items[0].quantity"},
		"one unit":                   {lines: sum(1), holds: 1},
		"the most units":             {lines: sum(1_000_000), holds: 1},
		"one unit too many":          {lines: sum(1_000_001), refused: "items[0].quantity"},
		"no line":                    {refused: "items"},
		"the most lines":             {lines: hundred, holds: 100},
		"one line too many":          {lines: hundredAndOne, refused: "items"},
		"the most lines, each twice": {lines: eachTwice, holds: 100},
		"two lines of one row":       {lines: sum(2, 3), holds: 1},
		"a sum of the most units":    {lines: sum(999_999, 1), holds: 1},
		"a sum that is too large":    {lines: sum(1_000_000, 1), refused: "items"},
		"a negative number in a sum": {lines: sum(5, -3), refused: "items[1].quantity"},
		"two lines that add up to 0": {lines: sum(5, -5), refused: "items[1].quantity"},
	} {
		answer, err := s.Reserve(ctx, reservation.Request{Lines: test.lines})
		if test.refused != "" {
			if diff := cmp.Diff([]string{test.refused}, invalidFields(err)); diff != "" {
				t.Errorf("%s: Reserve() = %v, want %s refused", name, err, test.refused)
			}
			continue
		}
		if err != nil || len(answer.Hold.Lines) != test.holds {
			t.Errorf("%s: Reserve() = %d lines, %v, want %d", name, len(answer.Hold.Lines), err,
				test.holds)
		}
		units := 0
		for _, line := range test.lines {
			units += line.Quantity
		}
		if answer.Hold.Quantity != units {
			t.Errorf("%s: Reserve() holds %d units, want %d", name, answer.Hold.Quantity, units)
		}
	}
	f.mustAudit(t)
}

func TestAHoldLastsForTheRequestedTime(t *testing.T) {
	t.Parallel()

	f := newFixture(t, 1)
	ctx := f.Context()
	s := f.services()[0]
	row := f.stock(1000)

	for _, test := range []struct {
		ttl     time.Duration
		reserve bool // whether reserve accepts it
		extend  bool // whether extend accepts it
		lasts   time.Duration
	}{
		{ttl: -time.Second},
		{ttl: 0, reserve: true, lasts: holdTTL}, // the default
		{ttl: time.Nanosecond},
		{ttl: time.Second - 1},
		{ttl: time.Second, reserve: true, extend: true, lasts: time.Second},
		{ttl: 1500 * time.Millisecond},
		{ttl: maxHold - time.Second, reserve: true, extend: true, lasts: maxHold - time.Second},
		{ttl: maxHold, reserve: true, lasts: maxHold},
		{ttl: maxHold + time.Second},
		{ttl: 1 << 62},
	} {
		answer, err := s.Reserve(ctx,
			reservation.Request{Lines: []reservation.Line{row}, TTL: test.ttl})
		if ok := err == nil; ok != test.reserve ||
			!ok && cmp.Diff([]string{"ttlSeconds"}, invalidFields(err)) != "" {
			t.Errorf("Reserve(TTL %s) = %v, want it accepted: %t", test.ttl, err, test.reserve)
		}
		if got := answer.Hold.ExpiresAt.Sub(answer.Hold.CreatedAt); got != test.lasts {
			t.Errorf("Reserve(TTL %s) lasts %s, want %s", test.ttl, got, test.lasts)
		}
		answer, err = s.Extend(ctx, f.hold(row).ID, test.ttl, "")
		if ok := err == nil; ok != test.extend {
			t.Errorf("Extend(%s) = %v, want it accepted: %t", test.ttl, err, test.extend)
		}
		if got := answer.Hold.ExpiresAt.Sub(answer.Hold.UpdatedAt); test.extend &&
			got != test.lasts {
			t.Errorf("Extend(%s) lasts %s, want %s", test.ttl, got, test.lasts)
		}
	}
}

func TestExtensionsAreLimitedByMaxHold(t *testing.T) {
	t.Parallel()

	mustHold(t, 1, func(ctx context.Context, f *fixture, r *report) {
		// In this database extend's clock always shows half of maxHold after the hold's creation, so
		// that the test can reach the limit exactly.
		f.mutate("extend_hold", "_now := clock_timestamp(); -- after the lock",
			"_now := _hold.created_at + interval '30 min';")
		s := f.services()[0]
		for _, lines := range [][]reservation.Line{f.stocks(9), f.stocks(9, 9)} {
			answer, err := s.Reserve(ctx,
				reservation.Request{Lines: lines, TTL: maxHold - time.Second})
			r.check(err == nil, "error", "Reserve() = %v", err)
			hold := answer.Hold

			_, err = s.Extend(ctx, hold.ID, maxHold/2+time.Second, "above "+hold.ID.String())
			r.check(errors.Is(err, reservation.ErrExtensionLimit), "limit",
				"Extend(above the limit) = %v, want %v", err, reservation.ErrExtensionLimit)
			view, err := s.Get(ctx, hold.ID)
			r.check(err == nil && cmp.Equal(view.Hold, hold), "limit",
				"Get() after a refused extension = %+v, %v", view, err)
			for _, ttl := range []time.Duration{maxHold/2 - time.Second, maxHold / 2} {
				answer, err = s.Extend(ctx, hold.ID, ttl, "")
				end := hold.CreatedAt.Add(maxHold/2 + ttl)
				r.check(err == nil && answer.Hold.ExpiresAt.Equal(end), "limit",
					"Extend(%s) = %+v, %v, want its end at %s", ttl, answer, err, end)
			}
		}
	})
}

func TestKeysArePrintableASCIIWithoutAComma(t *testing.T) {
	t.Parallel()

	f := newFixture(t, 1)
	ctx := f.Context()
	s := f.services()[0]
	row := f.stock(1000)

	for name, test := range map[string]struct {
		key string
		ok  bool
	}{
		"one character":  {"k", true},
		"the longest":    {strings.Repeat("k", 255), true},
		"one too many":   {strings.Repeat("k", 256), false},
		"first and last": {"! key ~", true},
		"comma":          {"a,b", false},
		"newline":        {"a\nb", false},
		"tab":            {"a\tb", false},
		"NUL":            {"a\x00b", false},
		"DEL":            {"a\x7fb", false},
		"not ASCII":      {"schlüssel", false},
		"not UTF-8":      {"a\xffb", false},
		"quotes":         {`'"; DROP TABLE inventory --`, true},
	} {
		hold := f.hold(row)
		_, reserve := s.Reserve(ctx,
			reservation.Request{Lines: []reservation.Line{row}, Key: test.key})
		_, confirm := s.Confirm(ctx, hold.ID, test.key)
		_, release := s.Release(ctx, hold.ID, test.key)
		_, extend := s.Extend(ctx, hold.ID, time.Minute, test.key)
		if test.ok {
			if reserve != nil || !errors.Is(confirm, reservation.ErrKeyReused) {
				t.Errorf("%s: Reserve(Key: %q) = %v, Confirm() = %v, want a hold and %v", name,
					test.key, reserve, confirm, reservation.ErrKeyReused)
			}
			continue
		}
		for _, err := range []error{reserve, confirm, release, extend} {
			if diff := cmp.Diff([]string{"Idempotency-Key"}, invalidFields(err)); diff != "" {
				t.Errorf("%s: a call under the key %q = %v, want the key refused", name, test.key,
					err)
			}
		}
	}
}

func TestUnknownIdsAreNotFound(t *testing.T) {
	t.Parallel()

	mustHold(t, 1, func(ctx context.Context, f *fixture, r *report) {
		s := f.services()[0]
		row := f.stock(5)
		id := uuid.New()
		_, confirm := s.Confirm(ctx, id, "")
		_, release := s.Release(ctx, id, "key")
		_, extend := s.Extend(ctx, id, time.Minute, "")
		_, get := s.Get(ctx, id)
		for verb, err := range map[string]error{
			"confirm": confirm, "release": release, "extend": extend, "get": get,
		} {
			r.check(errors.Is(err, reservation.ErrNotFound), "error",
				"%s of an unknown hold = %v, want %v", verb, err, reservation.ErrNotFound)
		}

		unknown := of(row, 1)
		unknown.ProductID = uuid.New()
		for _, lines := range [][]reservation.Line{{unknown}, {row, unknown}, {of(row, 50), unknown}} {
			_, err := s.Reserve(ctx, reservation.Request{Lines: lines, Key: "unknown"})
			r.check(errors.Is(err, reservation.ErrInventoryNotFound), "error",
				"Reserve(%+v) = %v, want %v", lines, err, reservation.ErrInventoryNotFound)
		}
		r.checkStock(f, row, counts{Total: 5})
	})
}

func TestAResolvedHoldRefusesByItsStatus(t *testing.T) {
	t.Parallel()

	mustHold(t, 1, func(ctx context.Context, f *fixture, r *report) {
		s := f.services()[0]
		row := f.stock(5)
		confirmed, released := f.hold(row), f.hold(row)
		first, err := s.Confirm(ctx, confirmed.ID, "")
		r.check(err == nil, "error", "Confirm() = %v", err)
		firstRelease, err := s.Release(ctx, released.ID, "")
		r.check(err == nil, "error", "Release() = %v", err)

		again, err := s.Confirm(ctx, confirmed.ID, confirmed.ID.String())
		r.check(err == nil && cmp.Equal(first, again), "I3", "Confirm() again = %+v, %v, want %+v",
			again, err, first)
		secondRelease, err := s.Release(ctx, released.ID, released.ID.String())
		r.check(err == nil && cmp.Equal(firstRelease, secondRelease), "I3",
			"Release() again = %+v, %v, want %+v", secondRelease, err, firstRelease)
		_, err = s.Release(ctx, confirmed.ID, "")
		r.check(errors.Is(err, reservation.ErrConfirmed), "I3",
			"Release() of a confirmed hold = %v", err)
		_, err = s.Extend(ctx, confirmed.ID, time.Minute, "")
		r.check(errors.Is(err, reservation.ErrConfirmed), "I3", "Extend() of a confirmed hold = %v",
			err)
		_, err = s.Confirm(ctx, released.ID, "")
		r.check(errors.Is(err, reservation.ErrReleased), "I3", "Confirm() of a released hold = %v",
			err)
		_, err = s.Extend(ctx, released.ID, time.Minute, "")
		r.check(errors.Is(err, reservation.ErrReleased), "I3", "Extend() of a released hold = %v",
			err)

		view, err := s.Get(ctx, confirmed.ID)
		r.check(err == nil && cmp.Equal(view.Hold, first.Hold), "I3", "Get() = %+v, %v, want %+v",
			view.Hold, err, first.Hold)
		r.check(view.Product != nil && view.Product.ID == row.ProductID &&
			view.Warehouse != nil && view.Warehouse.ID == row.WarehouseID,
			"error", "Get() shows product %+v in %+v", view.Product, view.Warehouse)
	})
}

func TestARefusalNamesEveryShortLineAndItsAvailableUnits(t *testing.T) {
	t.Parallel()

	mustHold(t, 1, func(ctx context.Context, f *fixture, r *report) {
		s := f.services()[0]
		rows := f.stocks(10, 10, 10, 0)
		f.hold(of(rows[0], 8))                          // two units are available
		f.kill(f.hold(of(rows[1], 7)))                  // dead units count as available
		f.kill(f.hold(of(rows[1], 2), of(rows[2], 10))) // so do a dead cart's

		_, err := s.Reserve(ctx, reservation.Request{Lines: []reservation.Line{
			of(rows[3], 1), of(rows[0], 3), of(rows[1], 11), of(rows[2], 10),
		}})

		var short *reservation.InsufficientStockError
		shortage := func(row reservation.Line, requested, available int) reservation.Shortage {
			return reservation.Shortage{
				ProductID: row.ProductID, WarehouseID: row.WarehouseID,
				Requested: requested, Available: available,
			}
		}
		want := []reservation.Shortage{
			shortage(rows[0], 3, 2), shortage(rows[1], 11, 10), shortage(rows[3], 1, 0),
		}
		if !errors.As(err, &short) {
			r.check(false, "error", "Reserve() = %v, want it short", err)
			return
		}
		diff := cmp.Diff(want, short.Shortages)
		r.check(diff == "", "I4", "the shortages differ (-want +got):\n%s", diff)
		// A refusal changes nothing, so the dead holds are left for the sweep.
		r.checkStock(f, rows[1], counts{Total: 10, Reserved: 9})
		r.checkStock(f, rows[2], counts{Total: 10, Reserved: 10})

		_, err = s.Reserve(ctx, reservation.Request{
			Lines: []reservation.Line{of(rows[0], 2), of(rows[1], 10), of(rows[2], 10)},
		})
		r.check(err == nil, "I4", "Reserve() of all available units = %v", err)
	})
}
