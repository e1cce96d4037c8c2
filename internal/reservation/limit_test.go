package reservation_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/allo/reservations/internal/reservation"
)

// invalidFields are the fields that a request is refused for, or nil.
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

func TestReserveTakesLinesUpToTheirLimits(t *testing.T) {
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
	twins := append(append([]reservation.Line{}, hundred...), hundred...)

	for name, test := range map[string]struct {
		lines   []reservation.Line
		refused string // the field, or empty
		holds   int    // lines, when it isn't refused
	}{
		"no unit":                        {lines: []reservation.Line{of(row, 0)}, refused: "items[0].quantity"},
		"fewer than none":                {lines: []reservation.Line{of(row, -1)}, refused: "items[0].quantity"},
		"one unit":                       {lines: []reservation.Line{of(row, 1)}, holds: 1},
		"the most units":                 {lines: []reservation.Line{of(row, 1_000_000)}, holds: 1},
		"one unit more":                  {lines: []reservation.Line{of(row, 1_000_001)}, refused: "items[0].quantity"},
		"no line":                        {refused: "items"},
		"the most lines":                 {lines: hundred, holds: 100},
		"one line more":                  {lines: hundredAndOne, refused: "items"},
		"the most lines, each twice":     {lines: twins, holds: 100},
		"twins that merge into one line": {lines: []reservation.Line{of(row, 2), of(row, 3)}, holds: 1},
		"twins that add up to the most":  {lines: []reservation.Line{of(row, 999_999), row}, holds: 1},
		"twins that add up to more":      {lines: []reservation.Line{of(row, 1_000_000), row}, refused: "items"},
		"a negative hidden in a sum":     {lines: []reservation.Line{of(row, 5), of(row, -3)}, refused: "items[1].quantity"},
		"two that add up to none":        {lines: []reservation.Line{of(row, 5), of(row, -5)}, refused: "items[1].quantity"},
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
		sum := 0
		for _, line := range test.lines {
			sum += line.Quantity
		}
		if answer.Hold.Quantity != sum {
			t.Errorf("%s: Reserve() holds %d units, want %d", name, answer.Hold.Quantity, sum)
		}
	}
	f.mustAudit(t)
}

func TestHoldLastsAsLongAsAsked(t *testing.T) {
	t.Parallel()

	f := newFixture(t, 1)
	ctx := f.Context()
	s := f.services()[0]
	row := f.stock(1000)

	for _, test := range []struct {
		ttl     time.Duration
		reserve bool // accepted by reserve
		extend  bool // accepted by extend
		lasts   time.Duration
	}{
		{ttl: -time.Second},
		{ttl: 0, reserve: true, lasts: holdTTL}, // not given
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

func TestExtensionEndsWithTheLongestHold(t *testing.T) {
	t.Parallel()

	mustHold(t, 1, func(ctx context.Context, f *fixture, r *report) {
		// The clock of this database's extend stands still at half of the longest time, so that the
		// limit is met to the second.
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
				r.check(
					err == nil && answer.Hold.ExpiresAt.Equal(hold.CreatedAt.Add(maxHold/2+ttl)),
					"limit", "Extend(%s) = %+v, %v", ttl, answer, err)
			}
		}
	})
}

func TestKeysAreCheckedByTheirCharacters(t *testing.T) {
	t.Parallel()

	f := newFixture(t, 1)
	ctx := f.Context()
	s := f.services()[0]
	row := f.stock(1000)

	for name, test := range map[string]struct {
		key string
		ok  bool
	}{
		"one character":      {"k", true},
		"the longest":        {strings.Repeat("k", 255), true},
		"one character more": {strings.Repeat("k", 256), false},
		"first and last":     {"! key ~", true},
		"comma":              {"a,b", false},
		"newline":            {"a\nb", false},
		"tab":                {"a\tb", false},
		"NUL":                {"a\x00b", false},
		"DEL":                {"a\x7fb", false},
		"not ASCII":          {"schlüssel", false},
		"not UTF-8":          {"a\xffb", false},
		"quotes":             {`'"; DROP TABLE inventory --`, true},
	} {
		hold := f.hold(row)
		_, reserve := s.Reserve(ctx,
			reservation.Request{Lines: []reservation.Line{row}, Key: test.key})
		_, confirm := s.Confirm(ctx, hold.ID, test.key)
		_, release := s.Release(ctx, hold.ID, test.key)
		_, extend := s.Extend(ctx, hold.ID, time.Minute, test.key)
		if test.ok {
			if reserve != nil || !errors.Is(confirm, reservation.ErrKeyReused) {
				t.Errorf("%s: Reserve(Key: %q) = %v, Confirm() = %v, want it taken", name, test.key,
					reserve, confirm)
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
		nobody := uuid.New()
		_, confirm := s.Confirm(ctx, nobody, "")
		_, release := s.Release(ctx, nobody, "key")
		_, extend := s.Extend(ctx, nobody, time.Minute, "")
		_, get := s.Get(ctx, nobody)
		for verb, err := range map[string]error{"confirm": confirm, "release": release, "extend": extend, "get": get} {
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
		gone, err := s.Release(ctx, released.ID, "")
		r.check(err == nil, "error", "Release() = %v", err)

		again, err := s.Confirm(ctx, confirmed.ID, confirmed.ID.String())
		r.check(err == nil && cmp.Equal(first, again), "I3", "Confirm() again = %+v, %v, want %+v",
			again, err, first)
		againGone, err := s.Release(ctx, released.ID, released.ID.String())
		r.check(err == nil && cmp.Equal(gone, againGone), "I3",
			"Release() again = %+v, %v, want %+v", againGone, err, gone)
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
		r.check(
			view.Product != nil && view.Product.ID == row.ProductID && view.Warehouse != nil &&
				view.Warehouse.ID == row.WarehouseID,
			"error",
			"Get() shows product %+v in %+v",
			view.Product,
			view.Warehouse,
		)
	})
}

func TestARefusalNamesEveryShortLineAndItsAvailableUnits(t *testing.T) {
	t.Parallel()

	mustHold(t, 1, func(ctx context.Context, f *fixture, r *report) {
		s := f.services()[0]
		rows := f.stocks(10, 10, 10, 0)
		f.hold(of(rows[0], 8))                          // two are left
		f.kill(f.hold(of(rows[1], 7)))                  // its dead units can be had
		f.kill(f.hold(of(rows[1], 2), of(rows[2], 10))) // and those of a cart

		_, err := s.Reserve(
			ctx,
			reservation.Request{
				Lines: []reservation.Line{
					of(rows[3], 1),
					of(rows[0], 3),
					of(rows[1], 11),
					of(rows[2], 10),
				},
			},
		)

		var short *reservation.InsufficientStockError
		want := []reservation.Shortage{
			{
				ProductID:   rows[0].ProductID,
				WarehouseID: rows[0].WarehouseID,
				Requested:   3,
				Available:   2,
			},
			{
				ProductID:   rows[1].ProductID,
				WarehouseID: rows[1].WarehouseID,
				Requested:   11,
				Available:   10,
			},
			{
				ProductID:   rows[3].ProductID,
				WarehouseID: rows[3].WarehouseID,
				Requested:   1,
				Available:   0,
			},
		}
		if !errors.As(err, &short) {
			r.check(false, "error", "Reserve() = %v, want it short", err)
			return
		}
		diff := cmp.Diff(want, short.Shortages)
		r.check(diff == "", "I4", "the shortages differ (-want +got):\n%s", diff)
		// A refusal changes nothing: the dead holds wait for the sweep.
		r.checkStock(f, rows[1], counts{Total: 10, Reserved: 9})
		r.checkStock(f, rows[2], counts{Total: 10, Reserved: 10})

		_, err = s.Reserve(
			ctx,
			reservation.Request{
				Lines: []reservation.Line{of(rows[0], 2), of(rows[1], 10), of(rows[2], 10)},
			},
		)
		r.check(err == nil, "I4", "Reserve() of all there is = %v", err)
	})
}
