package reservation_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/allo/reservations/internal/reservation"
)

// paymentEnds starts and fails payments, and compares the ends of the holds.
func paymentEnds(ctx context.Context, f *fixture, r *report) {
	bounded := func(most time.Duration) *reservation.Service {
		return reservation.New(f.own, reservation.Options{
			HoldTTL: holdTTL, MaxHold: maxHold, MaxPaymentHold: most,
		})
	}
	s := bounded(30 * time.Minute)
	limited := func(what string, err error) {
		r.check(errors.Is(err, reservation.ErrExtensionLimit), money, "%s = %v", what, err)
	}
	rows := f.stocks(9, 9)
	for n := range 2 {
		h := f.hold(rows[:1+n]...)
		short, first := s.StartPayment(ctx, h.ID, "p", time.Minute, "")
		long, second := s.StartPayment(ctx, h.ID, "p", 20*time.Minute, "")
		_, tooLong := s.StartPayment(ctx, h.ID, "p", 31*time.Minute, "")
		limited("a start that is too long", tooLong)
		failed, third := s.FailPayment(ctx, h.ID, "p", nil, "")
		again, fourth := s.StartPayment(ctx, h.ID, "p", time.Minute, "")
		most := 31 * time.Minute
		_, tooLong = s.FailPayment(ctx, h.ID, "p", &most, "")
		limited("a failure that is too long", tooLong)
		if err := errors.Join(first, second, third, fourth); err != nil {
			r.check(false, "error", "%v", err)
			return
		}
		r.check(short.Hold.ExpiresAt.Equal(h.ExpiresAt), money, "a start moved the end from %s to %s",
			h.ExpiresAt, short.Hold.ExpiresAt)
		end := long.Hold.UpdatedAt.Add(20 * time.Minute)
		r.check(long.Hold.ExpiresAt.Equal(end), money, "a start moved the end to %s, want %s",
			long.Hold.ExpiresAt, end)
		end = failed.Hold.UpdatedAt.Add(holdTTL)
		r.check(failed.Hold.ExpiresAt.Equal(end), money, "a failure moved the end to %s, want %s",
			failed.Hold.ExpiresAt, end)
		r.check(failed.Hold.Payment == nil, money, "the payment is %+v", failed.Hold.Payment)
		begun := [3]time.Time{
			short.Hold.Payment.StartedAt, long.Hold.Payment.StartedAt, again.Hold.Payment.StartedAt,
		}
		r.check(begun[0].Equal(begun[1]) && begun[1].Before(begun[2]), money,
			"a payment that starts three times, and fails before the third, began at %v", begun)
		r.checkShortenedFailures(ctx, f, bounded(5*time.Minute), rows[:1+n])
	}
}

// checkShortenedFailures lets payments fail without a time, under a bound of five minutes.
func (r *report) checkShortenedFailures(
	ctx context.Context, f *fixture, s *reservation.Service, lines []reservation.Line,
) {
	answer, err := s.Reserve(ctx, reservation.Request{Lines: lines, TTL: time.Minute})
	r.check(err == nil, "error", "Reserve() = %v", err)
	// The second hold was made under a longer bound.
	for _, h := range []reservation.Hold{answer.Hold, f.hold(lines...)} {
		_, startErr := s.StartPayment(ctx, h.ID, "p", time.Minute, "")
		failed, err := s.FailPayment(ctx, h.ID, "p", nil, "")
		r.check(errors.Join(startErr, err) == nil, "error", "%v, %v", startErr, err)
		end := h.CreatedAt.Add(5 * time.Minute)
		if end.Before(h.ExpiresAt) {
			end = h.ExpiresAt
		}
		r.check(failed.Hold.ExpiresAt.Equal(end), money, "a failure moved the end from %s to %s",
			h.ExpiresAt, failed.Hold.ExpiresAt)
	}
}

func TestAPaymentMovesTheEndWithinItsBound(t *testing.T) {
	t.Parallel()

	mustHold(t, 0, paymentEnds)
}

func TestAPaymentMovesTheEndOtherwiseWithoutItsGuards(t *testing.T) {
	t.Parallel()

	for name, c := range map[string]struct{ routine, old, replacement string }{
		"the later end": {"extend_hold", "greatest(_end, _hold.expires_at)", "_end"},
		"the bound of a failure": {
			"extend_hold", "least(_end, greatest(_hold.expires_at, _hold.created_at + _max))", "_end",
		},
		"the end under a longer bound": {
			"extend_hold", "greatest(_hold.expires_at, _hold.created_at + _max)",
			"_hold.created_at + _max",
		},
		"the bound": {"judge_extension", "_end > _hold.created_at + _max", "false"},
		"the time of the first start": {
			"keep_payment", "THEN p.at ELSE excluded.at", "THEN excluded.at ELSE p.at",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			mustBreak(t, 0, money, func(f *fixture) { f.mutate(c.routine, c.old, c.replacement) },
				paymentEnds)
		})
	}
}
