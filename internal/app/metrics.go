package app

import (
	"io"
	"time"

	"github.com/allo/reservations/internal/emf"
	"github.com/allo/reservations/internal/httpapi"
	"github.com/allo/reservations/internal/reservation"
)

// WriteMetrics makes the App write its metrics, at any LOG_LEVEL, because an alarm takes missing
// metrics for a dead sweeper. A Lambda calls it. The local program doesn't, because nobody would
// read its metrics.
func (a *App) WriteMetrics(to io.Writer, namespace string) { a.metrics = emf.New(to, namespace) }

// write writes metrics if WriteMetrics was called.
func (a *App) write(groups ...emf.Group) {
	if a.metrics != nil {
		a.metrics.Write(groups...)
	}
}

// observe writes the metrics of a request.
func (a *App) observe(o httpapi.Observation) {
	var verb emf.Group
	if o.Outcome != "" {
		one := emf.Metric{Name: "Reservations", Unit: emf.Count, Value: 1}
		verb = emf.Group{Dimension: "Outcome", Value: o.Outcome, Metrics: []emf.Metric{one}}
	}
	a.write(verb, emf.Group{Metrics: a.troubles(o.NoConnection, o.Shortages)})
}

// troubles returns the metrics that are written only when they aren't zero.
func (a *App) troubles(noConnection bool, shortages int) []emf.Metric {
	var metrics []emf.Metric
	add := func(name string, count int64) {
		if count > 0 {
			metrics = append(metrics,
				emf.Metric{Name: name, Unit: emf.Count, Value: float64(count)})
		}
	}
	add("Shortages", int64(shortages))
	add("Retries", a.newRetries())
	if noConnection {
		add("PoolErrors", 1)
	}
	return metrics
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
// search for dead holds failed.
func (a *App) observeSweep(result reservation.SweepResult, took time.Duration, err error) {
	more := 0.0
	if result.More {
		more = 1
	}
	metrics := []emf.Metric{
		{Name: "Expired", Unit: emf.Count, Value: float64(result.Expired)},
		{Name: "SweepDuration", Unit: emf.Milliseconds, Value: float64(took.Microseconds()) / 1000},
		{Name: "SweepMore", Unit: emf.Count, Value: more},
	}
	if result.Looked {
		metrics = append(metrics,
			emf.Metric{Name: "SweepLag", Unit: emf.Seconds, Value: result.Oldest.Seconds()})
	}
	a.write(emf.Group{Metrics: append(metrics, a.troubles(reservation.NoConnection(err), 0)...)})
}

// observeAudit writes the metrics of an audit.
func (a *App) observeAudit(report *AuditReport) {
	unfinished := 0.0
	if report.Unfinished {
		unfinished = 1
	}
	metrics := []emf.Metric{{Name: "AuditUnfinished", Unit: emf.Count, Value: unfinished}}
	// An unfinished audit without a violation says nothing about their number.
	if !report.Unfinished || report.Violations > 0 {
		found := float64(report.Violations)
		metrics = append(metrics,
			emf.Metric{Name: "AuditViolations", Unit: emf.Count, Value: found})
	}
	a.write(emf.Group{Metrics: metrics})
}
