package app

import (
	"io"
	"time"

	"github.com/allo/reservations/internal/emf"
	"github.com/allo/reservations/internal/httpapi"
	"github.com/allo/reservations/internal/reservation"
)

// WriteMetrics makes the App write its metrics, at any LOG_LEVEL, because an alarm takes missing
// metrics for a dead sweeper. A Lambda calls it, before HTTP. The local program doesn't, because
// nobody would read its metrics.
func (a *App) WriteMetrics(to io.Writer, namespace string) { a.metrics = emf.New(to, namespace) }

// observe writes the metrics of a request.
func (a *App) observe(o httpapi.Observation) {
	values := a.troubles(o.NoConnection, o.Shortages)
	if o.Outcome != "" {
		values = append(values, emf.Reservations.Of(o.Outcome, 1))
	}
	a.metrics.Write(values...)
}

// troubles returns the metrics that are written only when they aren't zero.
func (a *App) troubles(noConnection bool, shortages int) []emf.Value {
	var values []emf.Value
	if shortages > 0 {
		values = append(values, emf.Shortages.Value(float64(shortages)))
	}
	if retries := a.newRetries(); retries > 0 {
		values = append(values, emf.Retries.Value(float64(retries)))
	}
	if noConnection {
		values = append(values, emf.PoolErrors.Value(1))
	}
	return values
}

// newRetries counts the service's retries since its last call. In a Lambda they are the request's
// own, because it answers one request at a time.
func (a *App) newRetries() int64 {
	for {
		reported, now := a.reportedRetries.Load(), a.Service.Retries()
		if now <= reported {
			return 0
		}
		if a.reportedRetries.CompareAndSwap(reported, now) {
			return now - reported
		}
	}
}

// observeSweep writes the metrics of a sweep, even of one that failed. The lag is unknown when the
// search for dead holds failed, and the horizon is nil when it is unknown.
func (a *App) observeSweep(
	result reservation.SweepResult, took time.Duration, err error, horizon *HorizonReport,
) {
	more := 0.0
	if result.More {
		more = 1
	}
	values := []emf.Value{
		emf.Expired.Value(float64(result.Expired)),
		emf.SweepDuration.Value(float64(took.Microseconds()) / 1000),
		emf.SweepMore.Value(more),
	}
	if result.Looked {
		values = append(values, emf.SweepLag.Value(result.Oldest.Seconds()))
	}
	if horizon != nil {
		values = append(values,
			emf.OldestTransaction.Value(horizon.OldestTransactionSeconds),
			emf.HorizonTransactions.Value(float64(horizon.Transactions)))
	}
	a.metrics.Write(append(values, a.troubles(reservation.NoConnection(err), 0)...)...)
}

// observeAudit writes the metrics of an audit. A full audit takes many calls, so being unfinished
// is no trouble, and says nothing of the audits of what is new. known is the number of violations,
// those of the other kind of audit included, or nil when nobody knows.
func (a *App) observeAudit(report *AuditReport, known *int) {
	var values []emf.Value
	if !report.Full {
		unfinished := 0.0
		if report.Unfinished {
			unfinished = 1
		}
		values = append(values, emf.AuditUnfinished.Value(unfinished))
	}
	// An unfinished audit says nothing about their number when none is known.
	if known != nil && (!report.Unfinished || *known > 0) {
		values = append(values, emf.AuditViolations.Value(float64(*known)))
	}
	a.metrics.Write(values...)
}
