// Package app puts the parts of a Lambda together: the environment, the log, the pool, the service and its handlers.
package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	"github.com/aws/aws-lambda-go/events"

	"github.com/allo/reservations/internal/awsdb"
	"github.com/allo/reservations/internal/config"
	"github.com/allo/reservations/internal/emf"
	"github.com/allo/reservations/internal/httpapi"
	"github.com/allo/reservations/internal/lambdahttp"
	"github.com/allo/reservations/internal/postgres"
	"github.com/allo/reservations/internal/reservation"
)

// lambdaConnections is the pool of a Lambda: an environment answers one request at a time, and a request asks once.
const lambdaConnections = 1

// checkTimeout bounds the look at the server's settings while a Lambda starts. It ends within the connect time-out and a trip.
const checkTimeout = 6 * time.Second

// App is a service with what it stands on.
type App struct {
	Service *reservation.Service
	log     *slog.Logger
	pool    *postgres.Pool
	api     *httpapi.API
	// metrics is nil where nobody reads them; told is how many of the service's retries are in them.
	metrics *emf.Writer
	told    atomic.Int64
}

// HTTPHandler is what lambda.Start takes for a function behind the gateway.
type HTTPHandler = func(context.Context, events.APIGatewayV2HTTPRequest) (events.APIGatewayV2HTTPResponse, error)

// New puts an App together on a database, with a pool of the given size. It doesn't connect.
func New(c config.Config, log *slog.Logger, connections int, options ...postgres.Option) (*App, error) {
	source, err := awsdb.Source(c)
	if err != nil {
		return nil, err
	}
	pool, err := postgres.Open(source, connections, options...)
	if err != nil {
		return nil, err
	}
	service := reservation.New(pool, reservation.Options{HoldTTL: c.HoldTTL, MaxHold: c.MaxHold})
	a := &App{Service: service, log: log, pool: pool}
	a.api = httpapi.New(service, httpapi.Options{Log: log, RequestID: lambdahttp.RequestID, Observe: a.observe})
	return a, nil
}

// Lambda puts an App together as a Lambda needs it. The connection is opened in the background, while the runtime makes its first
// poll, and the server's settings are read on it: on one that would lose holds the environment ends, with a line that says why.
func Lambda() *App {
	c, log := config.Start(true)
	a, err := New(c, log, lambdaConnections)
	if err != nil {
		exit(log, err)
	}
	a.WriteMetrics(os.Stdout, c.MetricNamespace)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), checkTimeout)
		defer cancel()
		if err := a.Check(ctx); err != nil {
			var unsafe *postgres.UnsafeServerError
			if errors.As(err, &unsafe) {
				exit(log, err)
			}
			log.Warn("the database can't be reached yet", "error", err)
		}
	}()
	return a
}

func exit(log *slog.Logger, err error) {
	log.Error("can't start", "error", err.Error())
	os.Exit(1)
}

// Check asks the database server whether it keeps what it acknowledges. Its error is a *postgres.UnsafeServerError when not.
func (a *App) Check(ctx context.Context) error { return postgres.Check(ctx, a.pool) }

// Close closes the pool, when what it is doing has ended.
func (a *App) Close() { a.pool.Close() }

// HTTP is the handler of a function behind the gateway, by its name in the route table.
func (a *App) HTTP(function string) HTTPHandler {
	return lambdahttp.New(a.api.Function(function), a.log)
}

// SweepReport is what a sweep answers the rule, for whoever invokes it by hand.
type SweepReport struct {
	Expired       int64        `json:"expired"`
	Units         int64        `json:"units"`
	Keys          int64        `json:"keys"`
	Batches       int          `json:"batches"`
	OldestSeconds float64      `json:"oldestSeconds"`
	More          bool         `json:"more"`
	Audit         *AuditReport `json:"audit,omitempty"`
}

// Sweep is the handler of the minute rule: a sweep that stops short of the function's deadline, and its line in the log. In an hour's first
// minute it also audits, be the sweep a success or not, and so it does when its event says {"audit": true} in its detail.
func (a *App) Sweep(ctx context.Context, event events.EventBridgeEvent) (SweepReport, error) {
	report, err := a.sweep(ctx)
	if wantsAudit(event) {
		report.Audit = a.audit(ctx)
		a.keepAudit(ctx, report.Audit)
	}
	return report, err
}

func (a *App) sweep(ctx context.Context) (SweepReport, error) {
	start := time.Now()
	result, err := a.Service.Sweep(ctx)
	took := time.Since(start)
	a.observeSweep(result, took, err)
	report := SweepReport{
		Expired: result.Expired, Units: result.Units, Keys: result.Keys, Batches: result.Batches,
		OldestSeconds: result.Oldest.Seconds(), More: result.More,
	}
	attrs := []any{
		"expired", report.Expired, "units", report.Units, "keys", report.Keys, "batches", report.Batches,
		"oldestSeconds", report.OldestSeconds, "more", report.More, "tookMs", took.Milliseconds(),
	}
	if err != nil {
		level := slog.LevelError
		if errors.Is(ctx.Err(), context.Canceled) {
			level = slog.LevelInfo // it was told to stop
		}
		a.log.Log(ctx, level, "sweep", append(attrs, "error", err)...)
		return report, fmt.Errorf("the sweep ended early: %w", err)
	}
	a.log.Info("sweep", attrs...)
	return report, nil
}
