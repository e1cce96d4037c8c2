package app

import (
	"context"
	"encoding/json"
	"log/slog"
	"time"

	"github.com/aws/aws-lambda-go/events"

	"github.com/allo/reservations/internal/reservation"
)

// The bounds of the sweeper's audits.
const (
	// auditLimit bounds an audit.
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
	// Full is true for a part of a full audit, false for an audit of what is new.
	Full bool `json:"full,omitempty"`
	// Violations counts what was found. When a full audit is complete, it counts those of all its
	// parts.
	Violations int `json:"violations"`
	// Unfinished is true when the audit ran out of time or the database failed. There may be more
	// violations than were found. The next audit of the same kind goes on where this one ended.
	Unfinished bool `json:"unfinished,omitempty"`
}

// auditKind is the kind of audit that a sweep makes.
type auditKind int

const (
	noAudit auditKind = iota
	newAudit
	fullAudit
)

// wantedAudit says which audit an event asks for: a full one if its detail is {"audit": "full"},
// and one of what is new if it is {"audit": true}, or else in the first minute of an hour, by the
// time in the rule's event.
func wantedAudit(event events.EventBridgeEvent) auditKind {
	var detail struct {
		Audit any `json:"audit"`
	}
	_ = json.Unmarshal(event.Detail, &detail) // any other detail doesn't ask for an audit
	switch {
	case detail.Audit == "full":
		return fullAudit
	case detail.Audit == true, !event.Time.IsZero() && event.Time.Minute() == 0:
		return newAudit
	default:
		return noAudit
	}
}

// dueAudit says which audit a sweep makes: the one that its event asks for, or else the next part
// of a full audit that is under way, if the sweep has left nothing to do.
func (a *App) dueAudit(ctx context.Context, event events.EventBridgeEvent, quiet bool) auditKind {
	wanted := wantedAudit(event)
	if wanted != noAudit || !quiet {
		return wanted
	}
	underWay, err := a.Service.FullAuditUnderWay(ctx)
	if err != nil {
		a.log.WarnContext(ctx, "a full audit may be under way", "error", err)
	}
	if underWay {
		return fullAudit
	}
	return noAudit
}

// audit makes an audit until its time is over. It reports the result in the log, in the metrics
// AuditViolations and AuditUnfinished, and in the database for the operator's page.
func (a *App) audit(ctx context.Context, kind auditKind) *AuditReport {
	start := time.Now()
	end := start.Add(auditLimit)
	if deadline, ok := ctx.Deadline(); ok && deadline.Add(-auditMargin).Before(end) {
		end = deadline.Add(-auditMargin)
	}
	auditing, cancel := context.WithDeadline(ctx, end)
	defer cancel()
	var report *AuditReport
	var violations []reservation.Violation
	var err error
	if kind == fullAudit {
		report, violations, err = a.auditFull(auditing)
	} else {
		violations, err = a.Service.AuditNew(auditing)
		report = &AuditReport{Violations: len(violations), Unfinished: err != nil}
	}
	attrs := []any{
		"full", report.Full, "found", report.Violations, "unfinished", report.Unfinished,
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
	a.observeAudit(report, a.storeAudit(ctx, report))
	return report
}

// auditFull makes the next part of a full audit. If it is the last one, the violations are those of
// the complete audit.
func (a *App) auditFull(
	ctx context.Context,
) (*AuditReport, []reservation.Violation, error) {
	audit, err := a.Service.AuditFull(ctx)
	if audit.Complete {
		return &AuditReport{Full: true, Violations: audit.All}, audit.First, err
	}
	report := &AuditReport{Full: true, Violations: len(audit.Found), Unfinished: true}
	return report, audit.Found, err
}

// storeAudit stores an audit's result for the operator's page. It returns how many violations are
// known, those of the other kind of audit included, or nil when nobody knows. A failure is only
// logged, because the result is in the log already. A part of a full audit that found nothing isn't
// a result.
func (a *App) storeAudit(ctx context.Context, report *AuditReport) (known *int) {
	if report.Full && report.Unfinished && report.Violations == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeLimit)
	defer cancel()
	n, err := a.Service.KeepAudit(ctx, report.Full, report.Violations, report.Unfinished)
	if err != nil {
		a.log.WarnContext(ctx, "the audit's result isn't stored", "error", err)
		if report.Violations == 0 {
			return nil
		}
		n = report.Violations
	}
	if n > report.Violations {
		a.log.WarnContext(ctx, "an earlier audit found more", "violations", n)
	}
	return &n
}
