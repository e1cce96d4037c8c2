package app

import (
	"context"
	"encoding/json"
	"log/slog"
	"time"

	"github.com/aws/aws-lambda-go/events"
)

// Bounds of an audit by the sweeper.
const (
	// auditLimit ends an audit whose tables have outgrown it: it reads them whole.
	auditLimit = 20 * time.Second
	// auditMargin is how long before the function's deadline an audit ends, so that its result is still told.
	auditMargin = 2 * time.Second
	// maxLogged bounds the violations in the log's line. One is bad enough.
	maxLogged = 20
)

// AuditReport is the result of an audit. Unfinished says that it didn't end in time, or that the database couldn't be asked: then there may be
// more violations than were found.
type AuditReport struct {
	Violations int  `json:"violations"`
	Unfinished bool `json:"unfinished,omitempty"`
}

// wantsAudit is true in an hour's first minute, as the rule's events tell when they are for, and for whoever asks.
func wantsAudit(event events.EventBridgeEvent) bool {
	var detail struct {
		Audit bool `json:"audit"`
	}
	// A detail that is no such object doesn't ask for one.
	_ = json.Unmarshal(event.Detail, &detail)
	return detail.Audit || !event.Time.IsZero() && event.Time.Minute() == 0
}

// audit checks all promises and tells the result in one line of the log, and in the metrics AuditViolations and AuditUnfinished.
func (a *App) audit(ctx context.Context) *AuditReport {
	start := time.Now()
	end := start.Add(auditLimit)
	if deadline, ok := ctx.Deadline(); ok && deadline.Add(-auditMargin).Before(end) {
		end = deadline.Add(-auditMargin)
	}
	ctx, cancel := context.WithDeadline(ctx, end)
	defer cancel()
	violations, err := a.Service.Audit(ctx)
	report := &AuditReport{Violations: len(violations), Unfinished: err != nil}
	a.observeAudit(report)
	attrs := []any{"found", report.Violations, "unfinished", report.Unfinished, "tookMs", time.Since(start).Milliseconds()}
	level := slog.LevelInfo
	if err != nil {
		level = slog.LevelWarn
		attrs = append(attrs, "error", err)
	}
	if report.Violations > 0 {
		level = slog.LevelError
		attrs = append(attrs, "violations", violations[:min(maxLogged, len(violations))])
	}
	a.log.Log(context.WithoutCancel(ctx), level, "audit", attrs...)
	return report
}
