package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/allo/reservations/internal/app/migration"
)

// invoker invokes the migrate function and returns its answer.
type invoker func(ctx context.Context, payload []byte) ([]byte, error)

// pause is the time between two invocations. It keeps a function that answers at once from being
// asked without end.
const pause = time.Second

// follow invokes the function until the migrations are applied. It prints what each invocation did.
func follow(ctx context.Context, invoke invoker, out io.Writer) error {
	payload, err := json.Marshal(migration.Event{Apply: true, Seconds: stepSeconds})
	if err != nil {
		return err
	}
	start := time.Now()
	for {
		answer, err := invoke(ctx, payload)
		if err != nil {
			return err
		}
		var report migration.Report
		if err := json.Unmarshal(answer, &report); err != nil {
			return fmt.Errorf("read the function's answer %.200q: %w", answer, err)
		}
		after := time.Since(start).Round(time.Second)
		if len(report.Applied) > 0 {
			fmt.Fprintf(out, "%s: applied %s\n", after, strings.Join(report.Applied, ", "))
		}
		if report.Unfinished == "" {
			fmt.Fprintf(out, "%s: the schema is what this commit needs; deploy it now\n", after)
			return nil
		}
		fmt.Fprintf(out, "%s: %s\n", after, report.Unfinished)
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w; the database goes on by itself: start this again to follow it",
				context.Cause(ctx))
		case <-time.After(pause):
		}
	}
}
