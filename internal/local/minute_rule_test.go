package local

import (
	"context"
	"encoding/json"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestRunRuleRunsNowAndThenEachInterval(t *testing.T) {
	t.Parallel()

	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 150*time.Second)
		defer cancel()
		start := time.Now()
		var got []time.Duration
		RunRule(ctx, time.Minute, function(func(context.Context, []byte) ([]byte, error) {
			got = append(got, time.Since(start))
			return nil, errors.New("a failure doesn't end the rule")
		}), quiet)

		if diff := cmp.Diff([]time.Duration{0, time.Minute, 2 * time.Minute}, got); diff != "" {
			t.Errorf("runs (-want +got):\n%s", diff)
		}
		if stopped := time.Since(start); stopped != 150*time.Second {
			t.Errorf("stopped after %v, want when ctx ends", stopped)
		}
	})
}

func TestRunRuleNeverOverlaps(t *testing.T) {
	t.Parallel()

	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 9*time.Minute+30*time.Second)
		defer cancel()
		runs, running := 0, 0
		RunRule(ctx, 10*time.Second, function(func(ctx context.Context, _ []byte) ([]byte, error) {
			running++
			defer func() { running-- }()
			if runs++; running != 1 {
				t.Errorf("%d runs at once", running)
			}
			<-ctx.Done() // It hangs until its timeout.
			return nil, ctx.Err()
		}), quiet)

		if runs != 10 {
			t.Errorf("%d runs in nine and a half minutes, want 10", runs)
		}
	})
}

func TestRunRuleSurvivesAPanicAndStopsMidRun(t *testing.T) {
	t.Parallel()

	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		runs := 0
		RunRule(ctx, time.Minute, function(func(ctx context.Context, _ []byte) ([]byte, error) {
			if runs++; runs == 1 {
				panic("boom")
			}
			cancel()
			return nil, ctx.Err()
		}), quiet)

		if runs != 2 {
			t.Errorf("%d runs, want 2", runs)
		}
	})
}

func TestScheduledEvent(t *testing.T) {
	t.Parallel()

	var got map[string]any
	at := time.Date(2026, 11, 23, 10, 0, 0, 5, time.FixedZone("IST", 19_800))
	if err := json.Unmarshal(ScheduledEvent(at), &got); err != nil {
		t.Fatal(err)
	}
	normalize(t, got, "id", `^[0-9a-f-]{36}$`)

	want := map[string]any{
		"version": "0", "id": "id", "detail-type": "Scheduled Event", "source": "aws.events",
		"account": "123456789012", "time": "2026-11-23T04:30:00Z", "region": "us-east-1",
		"resources": []any{"arn:aws:events:us-east-1:123456789012:rule/sweep"}, "detail": map[string]any{},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("event (-want +got):\n%s", diff)
	}
}
