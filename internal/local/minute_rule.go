package local

import (
	"context"
	"encoding/json"
	"log/slog"
	"time"

	"github.com/google/uuid"
)

// ruleTimeout ends a run that hangs. It is the interval of the minute rule: then the next run is
// due.
const ruleTimeout = time.Minute

// RunRule invokes fn with EventBridge's scheduled event, now and then once an interval until ctx
// ends, as the minute rule does. Runs don't overlap: RunRule drops a tick that comes while fn runs.
// It logs a run that fails and goes on.
func RunRule(ctx context.Context, interval time.Duration, fn Invoker, log *slog.Logger) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()

	for at := time.Now(); ctx.Err() == nil; {
		runOnce(ctx, at, fn, log)
		select {
		case at = <-ticker.C:
		case <-ctx.Done():
		}
	}
}

func runOnce(ctx context.Context, at time.Time, fn Invoker, log *slog.Logger) {
	runCtx, cancel := context.WithTimeout(ctx, ruleTimeout)
	defer cancel()

	err := func() (err error) {
		defer recoverError(&err)
		_, err = fn.Invoke(runCtx, ScheduledEvent(at))
		return err
	}()
	if err != nil && ctx.Err() == nil {
		log.ErrorContext(ctx, "scheduled invocation failed", "error", err)
	}
}

// ScheduledEvent returns the JSON that EventBridge sends to the target of a schedule.
func ScheduledEvent(at time.Time) []byte {
	// Text and an empty object always marshal.
	payload, _ := json.Marshal(struct {
		Version    string   `json:"version"`
		ID         string   `json:"id"`
		DetailType string   `json:"detail-type"`
		Source     string   `json:"source"`
		Account    string   `json:"account"`
		Time       string   `json:"time"`
		Region     string   `json:"region"`
		Resources  []string `json:"resources"`
		Detail     struct{} `json:"detail"`
	}{
		Version:    "0",
		ID:         uuid.NewString(),
		DetailType: "Scheduled Event",
		Source:     "aws.events",
		Account:    accountID,
		Time:       at.UTC().Format(time.RFC3339),
		Region:     region,
		Resources:  []string{"arn:aws:events:" + region + ":" + accountID + ":rule/sweep"},
	})
	return payload
}
