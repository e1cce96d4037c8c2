package app

import (
	"context"
	"time"
)

// keepLimit bounds the writing down of what an audit found. It ends within what auditMargin leaves of the function's time.
const keepLimit = time.Second

// keepAudit writes down what an audit found, so that the operator's page can tell it without an audit of its own. One that can't be kept was
// told in the log all the same.
func (a *App) keepAudit(ctx context.Context, report *AuditReport) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), keepLimit)
	defer cancel()
	if err := a.Service.KeepAudit(ctx, report.Violations, report.Unfinished); err != nil {
		a.log.WarnContext(ctx, "the audit's result isn't kept", "error", err)
	}
}
