package app

import (
	"context"
	"encoding/json"
	"time"

	"github.com/aws/aws-lambda-go/events"
)

// Bounds of an audit by the sweeper.
const (
	// auditLimit ends an audit whose tables have outgrown it: it reads them whole. It ends well before the function is ended.
	auditLimit = 20 * time.Second
	// maxLogged bounds the violations in the log's line. One is bad enough.
	maxLogged = 20
)

// AuditReport is the result of an audit. Unfinished says that it didn't end in time, or that the database couldn't be asked: then nothing is
// known.
type AuditReport struct {
	Violations int  `json:"violations"`
	Unfinished bool `json:"unfinished,omitempty"`
}

// wantsAudit is true once an hour, as the rule's events tell the minute that they are for, and for whoever asks.
func wantsAudit(event events.EventBridgeEvent) bool {
	var detail struct {
		Audit bool `json:"audit"`
	}
	// A detail that is no such object doesn't ask for one.
	_ = json.Unmarshal(event.Detail, &detail)
	return detail.Audit || !event.Time.IsZero() && event.Time.Minute() == 0
}

// audit checks all promises and tells the result in one line of the log, which CloudWatch reads as the metrics AuditViolations and
// AuditUnfinished too: it is in the embedded metric format.
func (a *App) audit(ctx context.Context) *AuditReport {
	start := time.Now()
	ctx, cancel := context.WithTimeout(ctx, auditLimit)
	defer cancel()
	violations, err := a.Service.Audit(ctx)
	report := &AuditReport{Violations: len(violations), Unfinished: err != nil}
	unfinished := 0
	if report.Unfinished {
		unfinished = 1
	}
	attrs := []any{
		"_aws", metrics(start, "AuditViolations", "AuditUnfinished"),
		"AuditViolations", report.Violations, "AuditUnfinished", unfinished, "tookMs", time.Since(start).Milliseconds(),
	}
	switch {
	case err != nil:
		a.log.Warn("audit", append(attrs, "error", err)...)
	case report.Violations > 0:
		a.log.Error("audit", append(attrs, "violations", violations[:min(maxLogged, len(violations))])...)
	default:
		a.log.Info("audit", attrs...)
	}
	return report
}

// metricNamespace is where CloudWatch shows the service's metrics.
const metricNamespace = "AlloReservations"

// metrics says which of a log line's fields are metrics, in CloudWatch's embedded metric format. All are counts, and have no dimension.
func metrics(at time.Time, names ...string) any {
	type metric struct{ Name, Unit string }
	type directive struct {
		Namespace  string
		Dimensions [][]string
		Metrics    []metric
	}
	d := directive{Namespace: metricNamespace, Dimensions: [][]string{{}}}
	for _, name := range names {
		d.Metrics = append(d.Metrics, metric{name, "Count"})
	}
	return struct {
		Timestamp         int64
		CloudWatchMetrics []directive
	}{at.UnixMilli(), []directive{d}}
}
