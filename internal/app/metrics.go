package app

import (
	"io"
	"time"

	"github.com/allo/reservations/internal/emf"
	"github.com/allo/reservations/internal/httpapi"
	"github.com/allo/reservations/internal/reservation"
)

// WriteMetrics makes the App write its metrics, whatever the LOG_LEVEL: an alarm takes their absence for a sweeper that is dead. A Lambda does
// so; the local program, where nobody would read them, doesn't.
func (a *App) WriteMetrics(to io.Writer, namespace string) { a.metrics = emf.New(to, namespace) }

// write writes metrics, if they are written at all.
func (a *App) write(groups ...emf.Group) {
	if a.metrics != nil {
		a.metrics.Write(groups...)
	}
}

// observe writes what became of a request.
func (a *App) observe(o httpapi.Observation) {
	var verb emf.Group
	if o.Outcome != "" {
		verb = emf.Group{Dimension: "Outcome", Value: o.Outcome, Metrics: []emf.Metric{{Name: "Reservations", Unit: emf.Count, Value: 1}}}
	}
	a.write(verb, emf.Group{Metrics: a.troubles(o.NoConnection, o.Shortages)})
}

// troubles are the metrics that are written only where there is something to tell.
func (a *App) troubles(noConnection bool, shortages int) []emf.Metric {
	var metrics []emf.Metric
	add := func(name string, count int64) {
		if count > 0 {
			metrics = append(metrics, emf.Metric{Name: name, Unit: emf.Count, Value: float64(count)})
		}
	}
	add("Shortages", int64(shortages))
	add("Retries", a.untoldRetries())
	if noConnection {
		add("PoolErrors", 1)
	}
	return metrics
}

// untoldRetries counts the service's retries since it was last asked. In a Lambda they are the request's own, as it answers one at a time.
func (a *App) untoldRetries() int64 {
	for {
		told, now := a.told.Load(), a.Service.Retries()
		if now <= told {
			return 0
		}
		if a.told.CompareAndSwap(told, now) {
			return now - told
		}
	}
}

// observeSweep writes what a sweep did, also one that failed. Of the lag nothing is known when the dead holds couldn't be looked for.
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
		metrics = append(metrics, emf.Metric{Name: "SweepLag", Unit: emf.Seconds, Value: result.Oldest.Seconds()})
	}
	a.write(emf.Group{Metrics: append(metrics, a.troubles(reservation.NoConnection(err), 0)...)})
}

// observeAudit writes what an audit found.
func (a *App) observeAudit(report *AuditReport) {
	unfinished := 0.0
	if report.Unfinished {
		unfinished = 1
	}
	metrics := []emf.Metric{{Name: "AuditUnfinished", Unit: emf.Count, Value: unfinished}}
	if !report.Unfinished || report.Violations > 0 { // of an unfinished audit that found nothing, nothing is known
		metrics = append(metrics, emf.Metric{Name: "AuditViolations", Unit: emf.Count, Value: float64(report.Violations)})
	}
	a.write(emf.Group{Metrics: metrics})
}
