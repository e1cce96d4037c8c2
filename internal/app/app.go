// Package app wires a Lambda: environment, log, pool, service and handlers.
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
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/allo/reservations/internal/app/fault"
	"github.com/allo/reservations/internal/app/objective"
	"github.com/allo/reservations/internal/awsdb"
	"github.com/allo/reservations/internal/config"
	"github.com/allo/reservations/internal/emf"
	feed "github.com/allo/reservations/internal/events"
	"github.com/allo/reservations/internal/events/outbox"
	"github.com/allo/reservations/internal/httpapi"
	"github.com/allo/reservations/internal/lambdahttp"
	"github.com/allo/reservations/internal/postgres"
	"github.com/allo/reservations/internal/reservation"
)

// lambdaConnections is the size of a Lambda's pool. An environment answers one request at a time,
// and a request needs one connection.
const lambdaConnections = 1

// connectTimeout bounds the connect at a start: it includes the check of the server's settings.
const connectTimeout = 6 * time.Second

// App is the service with its pool, log and handlers.
type App struct {
	Service *reservation.Service
	outbox  *outbox.Outbox
	log     *slog.Logger
	pool    *postgres.Pool
	reader  *postgres.Reader // nil without DATABASE_READER
	api     *httpapi.API
	// originSecrets are the secrets that the CDN may show.
	originSecrets []string
	// metrics is nil unless WriteMetrics was called.
	metrics *emf.Writer
	// reportedRetries counts the service's retries that the metrics have so far.
	reportedRetries atomic.Int64
}

// HTTPHandler is the handler of a function behind the gateway, as lambda.Start takes it.
type HTTPHandler = fault.Handler

// New makes an App with a pool of the given size. It doesn't connect. Every connect that finds the
// server unsafe writes an error line with the reason, and its caller gets 503.
func New(
	c config.Config, log *slog.Logger, connections int, options ...postgres.Option,
) (*App, error) {
	source, err := awsdb.Source(c)
	if err != nil {
		return nil, err
	}
	pool, err := postgres.Open(source, connections, append(options, logUnsafe(log))...)
	if err != nil {
		return nil, err
	}
	a := &App{log: log, pool: pool, originSecrets: c.OriginSecrets}
	if a.reader, err = a.openReader(c, connections); err != nil {
		pool.Close()
		return nil, err
	}
	a.Service = reservation.New(pool,
		reservation.Options{
			HoldTTL: c.HoldTTL, MaxHold: c.MaxHold, MaxPaymentHold: c.MaxPaymentHold,
			MaxUnits: c.MaxUnits, MaxLines: c.MaxLines,
			Retention: time.Duration(c.RetentionDays) * 24 * time.Hour, Reader: a.reader,
		})
	feedOptions := outbox.Options{Source: c.EventSource, StockShown: c.StockShown}
	a.outbox = outbox.New(a.Service, feedOptions)
	a.api = httpapi.New(a.Service,
		httpapi.Options{
			Events: feedOptions,
			Log:    log, RequestID: lambdahttp.RequestID, MaxBody: lambdahttp.MaxBody, Observe: a.observe,
			StockShown: c.StockShown, Live: httpapi.LiveOf(c.LiveURL, c.LiveHTTP),
		})
	return a, nil
}

// logUnsafe is an option that logs why a server was refused. The callers aren't told.
func logUnsafe(log *slog.Logger) postgres.Option {
	return func(c *pgxpool.Config) {
		afterConnect := c.AfterConnect
		c.AfterConnect = func(ctx context.Context, conn *pgx.Conn) error {
			err := afterConnect(ctx, conn)
			if unsafe := (*postgres.UnsafeServerError)(nil); errors.As(err, &unsafe) {
				log.Error("connect", "error", err.Error())
			}
			return err
		}
	}
}

// Lambda makes an App for a Lambda, which connects at once. A failed connect ends nothing: the
// requests connect anew.
func Lambda() *App {
	c, log := config.Start(true)
	a, err := New(c, log, lambdaConnections)
	if err != nil {
		log.Error("can't start", "error", err.Error())
		os.Exit(1)
	}
	a.WriteMetrics(os.Stdout, c.MetricNamespace)
	a.connectAtStart(c.Provisioned)
	return a
}

// connectAtStart connects in the background, while the runtime polls for the call that waits. With
// provisioned concurrency no call waits: Lambda freezes the environment as soon as it polls, in the
// middle of a connect. So the connect comes first there.
func (a *App) connectAtStart(provisioned bool) {
	connect := func() {
		ctx, cancel := context.WithTimeout(context.Background(), connectTimeout)
		defer cancel()
		if err := a.connectFirst(ctx); err != nil {
			a.log.Warn("the database can't be used yet", "error", err.Error())
		}
	}
	if provisioned {
		connect()
		return
	}
	go connect()
}

// Connect connects to the database, which checks that the server keeps the commits that it
// acknowledges. The error has a *postgres.UnsafeServerError when it doesn't.
func (a *App) Connect(ctx context.Context) error { return a.pool.Connect(ctx) }

// Close waits for the running statements and closes the pools.
func (a *App) Close() {
	a.pool.Close()
	a.reader.Close()
}

// HTTP returns the handler of a function behind the gateway, by its name in the route table.
func (a *App) HTTP(function string) HTTPHandler {
	handler := lambdahttp.New(a.api.Function(function), a.log,
		lambdahttp.OnlyThroughCDN(a.originSecrets))
	return fault.Count(function, objective.Measure(function, handler, a.metrics), a.metrics)
}

// Outbox returns the handler of the outbox function, which the relay invokes. On one machine the
// relay calls it directly.
func (a *App) Outbox() feed.Outbox { return a.outbox.Next }

// SweepReport is the sweep function's result. The rule ignores it; it is for a call by hand.
type SweepReport struct {
	Expired       int64   `json:"expired"`
	Units         int64   `json:"units"`
	Keys          int64   `json:"keys"`
	Archived      int64   `json:"archived"`      // holds
	ArchivedMoves int64   `json:"archivedMoves"` // movements of stock
	Batches       int     `json:"batches"`
	OldestSeconds float64 `json:"oldestSeconds"`
	More          bool    `json:"more"`
	// Horizon is nil when it couldn't be read.
	Horizon *HorizonReport `json:"horizon,omitempty"`
	Audit   *AuditReport   `json:"audit,omitempty"`
}

// Sweep is the handler of the minute rule. It sweeps until shortly before the function's deadline
// and logs one line, which also says how far the database keeps dead row versions. Then, even when
// the sweep failed, it takes a tick, so that no batch of events is longer than a minute when no
// relay runs, prunes the old ticks, and makes the audit that is due, if any (dueAudit).
func (a *App) Sweep(ctx context.Context, event events.EventBridgeEvent) (SweepReport, error) {
	report, err := a.sweep(ctx)
	a.tick(ctx)
	if kind := a.dueAudit(ctx, event, err == nil && !report.More); kind != noAudit {
		report.Audit = a.audit(ctx, kind)
	}
	return report, err
}

// tick takes a tick and prunes the old ones. It only logs an error, because the next minute's tick
// takes the batch too, and its pruning goes on where this one ended.
func (a *App) tick(ctx context.Context) {
	_, err := a.outbox.Tick(ctx)
	if err == nil {
		err = a.outbox.Prune(ctx)
	}
	if err != nil && !errors.Is(ctx.Err(), context.Canceled) {
		a.log.Error("tick", "error", err.Error())
	}
}

func (a *App) sweep(ctx context.Context) (SweepReport, error) {
	horizon, horizonErr := a.horizon(ctx) // before the sweep, which may use up its time
	start := time.Now()
	result, err := a.Service.Sweep(ctx)
	took := time.Since(start)
	a.observeSweep(result, took, err, horizon)
	report := SweepReport{
		Expired: result.Expired, Units: result.Units, Keys: result.Keys,
		Archived: result.Archived, ArchivedMoves: result.ArchivedMoves, Batches: result.Batches,
		OldestSeconds: result.Oldest.Seconds(), More: result.More, Horizon: horizon,
	}
	attrs := []any{
		"expired", report.Expired, "units", report.Units, "keys", report.Keys,
		"archived", report.Archived, "archivedMoves", report.ArchivedMoves,
		"batches", report.Batches, "oldestSeconds", report.OldestSeconds, "more", report.More,
		"tookMs", took.Milliseconds(),
	}
	if horizonErr != nil {
		attrs = append(attrs, "horizonError", horizonErr)
	} else {
		attrs = append(attrs, "horizon", horizon)
	}
	if err != nil {
		level := slog.LevelError
		if errors.Is(ctx.Err(), context.Canceled) {
			level = slog.LevelInfo // the process is stopping
		}
		a.log.Log(ctx, level, "sweep", append(attrs, "error", err)...)
		return report, fmt.Errorf("the sweep ended early: %w", err)
	}
	a.log.Info("sweep", attrs...)
	return report, nil
}
