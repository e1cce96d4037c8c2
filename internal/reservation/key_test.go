package reservation_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/allo/reservations/internal/pgtest"
	"github.com/allo/reservations/internal/principal"
	"github.com/allo/reservations/internal/reservation"
)

func TestOneKeyMakesOneHold(t *testing.T) {
	t.Parallel()

	mustHold(t, someCallers, raceOfOneKeyToReserve)
}

// raceOfOneKeyToReserve sends one request many times at once: first for a hold of one line, then
// for a cart.
func raceOfOneKeyToReserve(ctx context.Context, f *fixture, r *report) {
	rows := f.stocks(1000, 1000)
	for _, lines := range [][]reservation.Line{rows[:1], rows} {
		request := reservation.Request{Lines: lines, Key: uuid.NewString()}
		raceOfOneKey(f, r, func(s *reservation.Service) (reservation.Answer, error) {
			return s.Reserve(ctx, request)
		})
	}
	r.checkStock(f, rows[0], counts{Total: 1000, Reserved: 2})
	r.checkStock(f, rows[1], counts{Total: 1000, Reserved: 1})
}

// raceOfOneKey lets every caller send the same request under one key. All must get the same answer,
// all but one as a replay. It returns the hold of that answer.
func raceOfOneKey(
	f *fixture, r *report, call func(*reservation.Service) (reservation.Answer, error),
) reservation.Hold {
	services := f.services()
	answers, errs := make([]reservation.Answer, len(services)), make([]error, len(services))

	together(len(services), func(i int) { answers[i], errs[i] = call(services[i]) })

	first := 0
	for i := range services {
		r.check(errs[i] == nil, "error", "a call under one key = %v", errs[i])
		diff := cmp.Diff(answers[0].Hold, answers[i].Hold)
		r.check(diff == "", "I6", "two answers under one key differ: %s", diff)
		if !answers[i].Replayed {
			first++
		}
	}
	r.check(first == 1, "I6", "%d of %d answers under one key aren't marked as replayed, want 1",
		first, len(services))
	return answers[0].Hold
}

func TestOneKeyMakesOneConfirmReleaseAndExtend(t *testing.T) {
	t.Parallel()

	mustHold(t, someCallers, func(ctx context.Context, f *fixture, r *report) {
		row := f.stock(10)
		confirmed, released, extended := f.hold(row), f.hold(row), f.hold(row)
		key := row.ProductID.String()

		got := raceOfOneKey(f, r, func(s *reservation.Service) (reservation.Answer, error) {
			return s.Confirm(ctx, confirmed.ID, "c"+key)
		})
		r.check(got.Status == reservation.Confirmed, "I6", "Confirm() = %+v", got)
		got = raceOfOneKey(f, r, func(s *reservation.Service) (reservation.Answer, error) {
			return s.Release(ctx, released.ID, "r"+key)
		})
		r.check(got.Status == reservation.Released, "I6", "Release() = %+v", got)
		got = raceOfOneKey(f, r, func(s *reservation.Service) (reservation.Answer, error) {
			return s.Extend(ctx, extended.ID, 30*time.Minute, "e"+key)
		})
		ttl := got.ExpiresAt.Sub(got.UpdatedAt)
		r.check(got.Status == reservation.Pending && ttl == 30*time.Minute, "I6",
			"Extend() = %+v, want 30 minutes", got)
		r.checkStock(f, row, counts{Total: 9, Reserved: 1})
	})
}

func TestAReplayGivesTheFirstAnswerEvenAfterTheHoldChanged(t *testing.T) {
	t.Parallel()

	mustHold(t, 1, func(ctx context.Context, f *fixture, r *report) {
		s := f.services()[0]
		rows := f.stocks(3, 3)
		request := reservation.Request{Lines: rows, Key: "k" + rows[0].ProductID.String()}
		first, err := s.Reserve(ctx, request)
		r.check(err == nil && !first.Replayed, "error", "Reserve() = %+v, %v", first, err)
		_, err = s.Confirm(ctx, first.Hold.ID, "")
		r.check(err == nil, "error", "Confirm() = %v", err)
		// The key binds the lines, not their order.
		request.Lines = []reservation.Line{rows[1], rows[0]}

		again, err := s.Reserve(ctx, request)

		r.check(err == nil && again.Replayed, "I6", "Reserve() again = %+v, %v", again, err)
		diff := cmp.Diff(first.Hold, again.Hold)
		r.check(diff == "", "I6", "the replay differs: %s", diff)
		r.checkStock(f, rows[0], counts{Total: 2})
	})
}

func TestKeyOfAnotherRequestIsRefused(t *testing.T) {
	t.Parallel()

	mustHold(t, 1, func(ctx context.Context, f *fixture, r *report) {
		s := f.services()[0]
		rows := f.stocks(10, 10)
		key := "k" + rows[0].ProductID.String()
		first, err := s.Reserve(ctx, reservation.Request{Lines: rows[:1], Key: key})
		r.check(err == nil, "error", "Reserve() = %v", err)

		others := map[string]func() error{
			"another quantity": func() error {
				_, err := s.Reserve(ctx,
					reservation.Request{Lines: []reservation.Line{of(rows[0], 2)}, Key: key})
				return err
			},
			"another row": func() error {
				_, err := s.Reserve(ctx, reservation.Request{Lines: rows[1:], Key: key})
				return err
			},
			"a cart": func() error {
				_, err := s.Reserve(ctx, reservation.Request{Lines: rows, Key: key})
				return err
			},
			"another TTL": func() error {
				_, err := s.Reserve(ctx,
					reservation.Request{Lines: rows[:1], TTL: time.Minute, Key: key})
				return err
			},
			"an explicit default TTL": func() error {
				_, err := s.Reserve(ctx,
					reservation.Request{Lines: rows[:1], TTL: holdTTL, Key: key})
				return err
			},
			"confirm": func() error { _, err := s.Confirm(ctx, first.Hold.ID, key); return err },
			"release": func() error { _, err := s.Release(ctx, first.Hold.ID, key); return err },
			"extend": func() error {
				_, err := s.Extend(ctx, first.Hold.ID, time.Minute, key)
				return err
			},
		}
		for name, call := range others {
			err := call()
			r.check(errors.Is(err, reservation.ErrKeyReused), "I6",
				"%s under the same key = %v, want %v", name, err, reservation.ErrKeyReused)
		}
		r.checkStock(f, rows[0], counts{Total: 10, Reserved: 1})
		r.checkStock(f, rows[1], counts{Total: 10})
	})
}

func TestConfirmAndReleaseUnderOneKeyAreDifferentRequests(t *testing.T) {
	t.Parallel()

	mustHold(t, 1, func(ctx context.Context, f *fixture, r *report) {
		s := f.services()[0]
		row := f.stock(10)
		one, two := f.hold(row), f.hold(row)
		key := "k" + row.ProductID.String()
		_, err := s.Confirm(ctx, one.ID, key)
		r.check(err == nil, "error", "Confirm() = %v", err)

		_, err = s.Confirm(ctx, two.ID, key)
		r.check(errors.Is(err, reservation.ErrKeyReused), "I6",
			"Confirm(another hold) = %v, want %v", err, reservation.ErrKeyReused)
		_, err = s.Release(ctx, one.ID, key)
		r.check(errors.Is(err, reservation.ErrKeyReused), "I6", "Release() = %v, want %v", err,
			reservation.ErrKeyReused)
	})
}

func TestKeyIsFreeAgainAfterADay(t *testing.T) {
	t.Parallel()

	mustHold(t, 1, func(ctx context.Context, f *fixture, r *report) {
		s := f.services()[0]
		row := f.stock(10)
		request := reservation.Request{
			Lines: []reservation.Line{row}, Key: "k" + row.ProductID.String(),
		}
		first, err := s.Reserve(ctx, request)
		r.check(err == nil, "error", "Reserve() = %v", err)
		const age = `
UPDATE idempotency_keys SET created_at = clock_timestamp() - $2::interval WHERE key = $1`

		f.Exec(age, request.Key, 24*time.Hour-time.Minute)
		young, err := s.Reserve(ctx, request)
		r.check(err == nil && young.Replayed, "I6",
			"Reserve() under a key of less than a day = %+v, %v, want it replayed", young, err)

		f.Exec(age, request.Key, 24*time.Hour)
		request.Lines[0].Quantity = 2 // any request may use the key now
		old, err := s.Reserve(ctx, request)
		r.check(err == nil && !old.Replayed && old.Hold.ID != first.Hold.ID, "I6",
			"Reserve() under a key of a day = %+v, %v, want a new hold", old, err)
		again, err := s.Reserve(ctx, request)
		r.check(err == nil && again.Replayed && again.Hold.ID == old.Hold.ID, "I6",
			"Reserve() again = %+v, %v, want it replayed", again, err)
		r.checkStock(f, row, counts{Total: 10, Reserved: 3})
	})
}

// The two services stand for two instances in a deploy that lowers MAX_HOLD.
func TestAReplayComesBeforeALimitThatWasLowered(t *testing.T) {
	t.Parallel()

	mustHold(t, 2, func(ctx context.Context, f *fixture, r *report) {
		const ttl = 40 * time.Minute
		before := newService(f.callers[0])
		after := reservation.New(f.callers[1],
			reservation.Options{HoldTTL: holdTTL, MaxHold: ttl - time.Second})
		rows := f.stocks(9, 9)

		for _, lines := range [][]reservation.Line{rows[:1], rows} {
			request := reservation.Request{Lines: lines, TTL: ttl, Key: uuid.NewString()}
			for range 2 { // a refusal leaves the key free
				_, err := after.Reserve(ctx, request)
				r.check(slices.Equal(invalidFields(err), []string{"ttlSeconds"}), "limit",
					"Reserve() above the limit = %v, want ttlSeconds refused", err)
			}
			first, err := before.Reserve(ctx, request)
			r.check(err == nil && !first.Replayed, "error", "Reserve() = %+v, %v", first, err)
			again, err := after.Reserve(ctx, request)
			r.check(err == nil && again.Replayed && cmp.Equal(again.Hold, first.Hold), "I6",
				"Reserve() again, above the limit = %+v, %v, want %+v", again, err, first.Hold)

			other := request
			other.TTL += time.Minute
			_, err = after.Reserve(ctx, other)
			r.check(errors.Is(err, reservation.ErrKeyReused), "I6",
				"Reserve() of another time under the key = %v, want %v", err,
				reservation.ErrKeyReused)
			other.Key = ""
			_, err = after.Reserve(ctx, other)
			r.check(slices.Equal(invalidFields(err), []string{"ttlSeconds"}), "limit",
				"Reserve() without a key = %v, want ttlSeconds refused", err)
			invalid := request
			invalid.Lines = []reservation.Line{of(lines[0], 0)}
			_, err = after.Reserve(ctx, invalid)
			r.check(len(invalidFields(err)) == 2, "limit",
				"Reserve() of no unit = %v, want two fields refused", err)
		}

		hold, key := f.hold(rows[0]), uuid.NewString()
		_, err := after.Extend(ctx, hold.ID, ttl, key)
		r.check(errors.Is(err, reservation.ErrExtensionLimit), "limit",
			"Extend() above the limit = %v, want %v", err, reservation.ErrExtensionLimit)
		first, err := before.Extend(ctx, hold.ID, ttl, key)
		r.check(err == nil && !first.Replayed, "error", "Extend() = %+v, %v", first, err)
		again, err := after.Extend(ctx, hold.ID, ttl, key)
		r.check(err == nil && again.Replayed && cmp.Equal(again.Hold, first.Hold), "I6",
			"Extend() again, above the limit = %+v, %v, want %+v", again, err, first.Hold)
	})
}

// The first request may still be running on an instance with the higher limit.
func TestARequestAboveTheLimitWaitsForItsTwin(t *testing.T) {
	t.Parallel()

	f := newFixtureWithLimits(t, 1)
	request := reservation.Request{
		Lines: []reservation.Line{f.stock(1)}, TTL: 2 * maxHold, Key: "key",
	}
	f.lock("SELECT pg_advisory_xact_lock(1, hashtext('key'))")

	_, err := f.services()[0].Reserve(f.Context(), request)

	if !errors.Is(err, reservation.ErrKeyInUse) {
		t.Errorf("Reserve() beside its twin = %v, want %v", err, reservation.ErrKeyInUse)
	}
}

func TestFailedCallLeavesItsKeyFree(t *testing.T) {
	t.Parallel()

	mustHold(t, 1, func(ctx context.Context, f *fixture, r *report) {
		s := f.services()[0]
		row := f.stock(1)
		key := "k" + row.ProductID.String()
		request := reservation.Request{Lines: []reservation.Line{of(row, 2)}, Key: key}
		_, err := s.Reserve(ctx, request)
		r.check(isShort(err), "error", "Reserve() = %v, want it short", err)
		dead := f.hold(row)
		f.kill(dead)
		_, err = s.Confirm(ctx, dead.ID, key)
		r.check(errors.Is(err, reservation.ErrExpired), "error", "Confirm() = %v", err)
		_, err = s.Extend(ctx, dead.ID, time.Minute, key)
		r.check(errors.Is(err, reservation.ErrExpired), "error", "Extend() = %v", err)
		n := queryOne[int](f, "SELECT count(*) FROM idempotency_keys WHERE key = $1", key)
		r.check(n == 0, "I6", "%d answers are stored under the key of failed calls, want none", n)

		f.Exec("SELECT adjust_stock($1, $2, 1, 'test')", row.ProductID.String(),
			row.WarehouseID.String())
		answer, err := s.Reserve(ctx, request)
		r.check(err == nil && !answer.Replayed, "I6",
			"Reserve() after stock came in = %+v, %v, want a hold", answer, err)
	})
}

func TestARetryUnderTheKeyFinishesAnInterruptedCall(t *testing.T) {
	t.Parallel()
	pgtest.WithoutPooler(t)

	mustHold(t, 8, raceOfInterruptedCalls)
}

// raceOfInterruptedCalls gives each call too little time and sends it again until it succeeds. An
// interrupted try may have taken effect or not. In the end each key must have one hold.
func raceOfInterruptedCalls(ctx context.Context, f *fixture, r *report) {
	const calls = 12
	services := f.services()
	rows := f.stocks(1000, 1000)

	together(len(services), func(i int) {
		for n := range calls {
			request := reservation.Request{Lines: rows[:1+n%2], Key: uuid.NewString()}
			for try := 0; ; try++ {
				timeout := rand.N(4 * time.Millisecond)
				if try > 3 {
					timeout = testTimeout
				}
				callCtx, cancel := context.WithTimeout(ctx, timeout)
				_, err := services[i].Reserve(callCtx, request)
				cancel()
				if err == nil {
					break
				}
				if !errors.Is(err, reservation.ErrUnavailable) || try > 3 {
					r.check(false, "error", "Reserve() within %s = %v", timeout, err)
					break
				}
			}
		}
	})

	r.checkStock(f, rows[0], counts{Total: 1000, Reserved: calls * len(services)})
	r.checkStock(f, rows[1], counts{Total: 1000, Reserved: calls * len(services) / 2})
}

// named returns a context of a caller with a token.
func named(ctx context.Context, subject string) context.Context {
	return principal.With(ctx, principal.Principal{Kind: principal.JWT, ID: subject})
}

func TestOneKeyOfTwoPrincipalsMakesTwoHolds(t *testing.T) {
	t.Parallel()

	mustHold(t, someCallers, func(ctx context.Context, f *fixture, r *report) {
		raceOfOneKeyOfTwo(named(ctx, "ann"), named(ctx, "bob"), f, r)
		raceOfOneKeyOfTwo(named(ctx, "ann"), ctx, f, r)
	})
}

// A service without namespaces would know everybody as one principal.
func TestOneKeyMakesOneHoldWithoutPrincipals(t *testing.T) {
	t.Parallel()

	mustBreak(t, someCallers, "I6", func(*fixture) {},
		func(ctx context.Context, f *fixture, r *report) { raceOfOneKeyOfTwo(ctx, ctx, f, r) })
}

// raceOfOneKeyOfTwo lets two principals send the same requests under one key, all at once: first
// for a hold of one line, then for a cart. Each principal must have one hold of each.
func raceOfOneKeyOfTwo(one, two context.Context, f *fixture, r *report) {
	services := f.services()
	rows := f.stocks(1000, 1000)
	for _, lines := range [][]reservation.Line{rows[:1], rows} {
		request := reservation.Request{Lines: lines, Key: uuid.NewString()}
		answers, errs := make([]reservation.Answer, len(services)), make([]error, len(services))
		together(len(services), func(i int) {
			answers[i], errs[i] = services[i].Reserve([]context.Context{one, two}[i%2], request)
		})
		holds, first := map[uuid.UUID]bool{}, 0
		for i, answer := range answers {
			r.check(errs[i] == nil, "error", "Reserve() = %v", errs[i])
			r.check(answer.Hold.ID == answers[i%2].Hold.ID, "I6",
				"a principal's requests under one key made the holds %s and %s", answer.Hold.ID,
				answers[i%2].Hold.ID)
			holds[answer.Hold.ID] = true
			if !answer.Replayed {
				first++
			}
		}
		r.check(len(holds) == 2 && first == 2, "I6",
			"two principals share a key: they have %d holds, %d not replayed", len(holds), first)
	}
	if len(r.found) == 0 {
		r.checkStock(f, rows[0], counts{Total: 1000, Reserved: 4})
		r.checkStock(f, rows[1], counts{Total: 1000, Reserved: 2})
	}
}

func TestNobodyElsesKeyBlocksAVerb(t *testing.T) {
	t.Parallel()

	mustHold(t, 1, func(ctx context.Context, f *fixture, r *report) {
		s := f.services()[0]
		row := f.stock(10)
		paid, dropped, longer := f.hold(row), f.hold(row), f.hold(row)
		key := uuid.NewString()
		_, err := s.Reserve(ctx, reservation.Request{Lines: []reservation.Line{row}, Key: key})
		r.check(err == nil, "error", "Reserve() = %v", err)

		_, err = s.Confirm(named(ctx, "payments"), paid.ID, key)
		r.check(err == nil, "I6", "Confirm() under a stranger's key = %v", err)
		_, err = s.Release(named(ctx, "ann"), dropped.ID, key)
		r.check(err == nil, "I6", "Release() under a stranger's key = %v", err)
		_, err = s.Extend(named(ctx, "bob"), longer.ID, time.Minute, key)
		r.check(err == nil, "I6", "Extend() under a stranger's key = %v", err)

		_, err = s.Confirm(named(ctx, "payments"), longer.ID, key)
		r.check(errors.Is(err, reservation.ErrKeyReused), "I6",
			"Confirm() of another hold under one's own key = %v, want %v", err,
			reservation.ErrKeyReused)
		r.checkStock(f, row, counts{Total: 9, Reserved: 2})
	})
}

// A limit that was lowered is where a replay takes another way to the key.
func TestNobodyElsesKeyReplaysAboveALimitThatWasLowered(t *testing.T) {
	t.Parallel()

	f := newFixture(t, 2)
	ctx := f.Context()
	after := reservation.New(f.callers[1],
		reservation.Options{HoldTTL: holdTTL, MaxHold: time.Minute})
	request := reservation.Request{
		Lines: []reservation.Line{f.stock(9)}, TTL: 2 * time.Minute, Key: uuid.NewString(),
	}
	first, err := newService(f.callers[0]).Reserve(named(ctx, "ann"), request)
	if err != nil {
		t.Fatal(err)
	}

	if _, err := after.Reserve(named(ctx, "bob"), request); len(invalidFields(err)) != 1 {
		t.Errorf("bob's Reserve() above the limit = %v, want it refused", err)
	}
	again, err := after.Reserve(named(ctx, "ann"), request)
	if err != nil || !again.Replayed || again.Hold.ID != first.Hold.ID {
		t.Errorf("ann's Reserve() again = %+v, %v, want %+v", again, err, first)
	}
}

// It takes a minute to find a key whose hashtext is that of another one's name in the database. A
// stranger who keeps that key busy holds the lock of this test.
func TestAStrangersKeyOfTheSameHashDoesNotBlock(t *testing.T) {
	t.Parallel()

	newFixtureWithLimits(t, 1).mustHold(raceOfKeysWithOneHash)
}

func TestAStrangersKeyOfTheSameHashBlocksInOneClass(t *testing.T) {
	t.Parallel()

	f := newFixtureWithLimits(t, 1)
	f.mutate("claim_key", "IF left(_key, 1) = ',' THEN", "IF false THEN")
	f.mustBreak("I6", raceOfKeysWithOneHash)
}

func raceOfKeysWithOneHash(ctx context.Context, f *fixture, r *report) {
	s, payments := f.services()[0], named(ctx, "payments")
	hold, key := f.hold(f.stock(1)), uuid.NewString()
	_, err := s.Extend(payments, hold.ID, time.Minute, key)
	r.check(err == nil, "error", "Extend() = %v", err)
	stored := queryOne[string](f, "SELECT key FROM idempotency_keys")

	unlock := f.Lock("SELECT pg_advisory_xact_lock(1, hashtext($1))", stored)
	again, err := s.Extend(payments, hold.ID, time.Minute, key)
	unlock()
	r.check(err == nil && again.Replayed, "I6", "Extend() beside a stranger = %+v, %v", again, err)

	unlock = f.Lock("SELECT claim_key($1, '')", stored)
	_, err = s.Extend(payments, hold.ID, time.Minute, key)
	unlock()
	r.check(errors.Is(err, reservation.ErrKeyInUse), "I6", "Extend() beside its twin = %v, want %v",
		err, reservation.ErrKeyInUse)
	f.Exec("DELETE FROM idempotency_keys")
}

func TestACallerWhomNothingNamesCanUseNoKey(t *testing.T) {
	t.Parallel()

	f := newFixture(t, 1)
	s, row := f.services()[0], f.stock(9)
	hold := f.hold(row)
	ctx := principal.With(f.Context(), principal.Principal{Kind: principal.Unnamed})

	_, reserve := s.Reserve(ctx, reservation.Request{Lines: []reservation.Line{row}, Key: "key"})
	_, confirm := s.Confirm(ctx, hold.ID, "key")
	_, release := s.Release(ctx, hold.ID, "key")
	_, extend := s.Extend(ctx, hold.ID, time.Minute, "key")

	for _, err := range []error{reserve, confirm, release, extend} {
		if diff := cmp.Diff([]string{"Idempotency-Key"}, invalidFields(err)); diff != "" {
			t.Errorf("a call under a key = %v, want the key refused", err)
		}
	}
	if _, err := s.Confirm(ctx, hold.ID, ""); err != nil {
		t.Errorf("Confirm() without a key = %v", err)
	}
}
