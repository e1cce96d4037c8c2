package app

import (
	"context"
	"encoding/json"
	"log/slog"
	"time"

	"github.com/aws/aws-lambda-go/events"
)

// The bounds of the sweeper's audit.
const (
	// auditLimit bounds an audit, which reads whole tables.
	auditLimit = 20 * time.Second
	// auditMargin is how long before the function's deadline an audit ends. It leaves time to
	// report and store the result.
	auditMargin = 2 * time.Second
	// storeLimit bounds the storing of the result. It fits into auditMargin.
	storeLimit = time.Second
	// maxLogged bounds the violations in the log line.
	maxLogged = 20
)

// AuditReport is the result of an audit.
type AuditReport struct {
	Violations int `json:"violations"`
	// Unfinished is true when the audit ran out of time or the database failed. There may be more
	// violations than were found.
	Unfinished bool `json:"unfinished,omitempty"`
}

// wantsAudit reports whether a sweep should also audit: in the first minute of an hour, by the time
// in the rule's event, and whenever the event's detail is {"audit": true}.
func wantsAudit(event events.EventBridgeEvent) bool {
	var detail struct {
		Audit bool `json:"audit"`
	}
	_ = json.Unmarshal(event.Detail, &detail) // any other detail doesn't ask for an audit
	return detail.Audit || !event.Time.IsZero() && event.Time.Minute() == 0
}

// audit checks all promises. It reports the result in the log, in the metrics AuditViolations and
// AuditUnfinished, and in the database for the operator's page.
func (a *App) audit(ctx context.Context) *AuditReport {
	start := time.Now()
	end := start.Add(auditLimit)
	if deadline, ok := ctx.Deadline(); ok && deadline.Add(-auditMargin).Before(end) {
		end = deadline.Add(-auditMargin)
	}
	auditing, cancel := context.WithDeadline(ctx, end)
	defer cancel()
	violations, err := a.Service.Audit(auditing)
	report := &AuditReport{Violations: len(violations), Unfinished: err != nil}
	a.observeAudit(report)
	attrs := []any{
		"found", report.Violations, "unfinished", report.Unfinished,
		"tookMs", time.Since(start).Milliseconds(),
	}
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
	a.storeAudit(ctx, report)
	return report
}

// storeAudit stores an audit's result for the operator's page. A failure is only logged, because
// the result is in the log already.
func (a *App) storeAudit(ctx context.Context, report *AuditReport) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeLimit)
	defer cancel()
	if err := a.Service.KeepAudit(ctx, report.Violations, report.Unfinished); err != nil {
		a.log.WarnContext(ctx, "the audit's result isn't stored", "error", err)
	}
}
