// Package migration wires the migrate function, which applies the migrations and grants the
// service's role its rights. It is apart from package app because no other function links goose.
package migration

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/allo/reservations/internal/awsdb"
	"github.com/allo/reservations/internal/config"
	"github.com/allo/reservations/internal/migrate"
	"github.com/allo/reservations/internal/postgres"
)

// The bounds of the wait for a database that was just created or is waking up.
const (
	reachLimit = 60 * time.Second
	reachPause = 2 * time.Second
)

// Report is the migrate function's result: the names of the migrations that it applied.
type Report struct {
	Applied []string `json:"applied"`
}

// Lambda returns the handler of the migrate function. It ignores the event.
func Lambda() func(context.Context) (Report, error) {
	c, log := config.Start(true)
	source, err := awsdb.Source(c)
	if err != nil {
		log.Error("can't start", "error", err.Error())
		os.Exit(1)
	}
	return Handler(source, c.AppRole, log)
}

// Handler migrates the source's database. Unless appRole is empty, it also grants that role the
// service's rights. It waits up to a minute for a database that can't be reached yet.
func Handler(
	source postgres.Source, appRole string, log *slog.Logger,
) func(context.Context) (Report, error) {
	return func(ctx context.Context) (Report, error) {
		report := Report{Applied: []string{}}
		err := reach(ctx, source, log)
		if err == nil {
			var applied []string
			if appRole == "" {
				applied, err = migrate.Up(ctx, source)
			} else {
				applied, err = migrate.UpAndGrant(ctx, source, appRole)
			}
			report.Applied = append(report.Applied, applied...)
		}
		if err != nil {
			log.Error("migrate", "applied", report.Applied, "error", err.Error())
			return report, err
		}
		log.Info("migrate", "applied", report.Applied, "granted", appRole)
		return report, nil
	}
}

// reach waits until the database answers, or fails with an error that waiting won't help. It checks
// no settings, because the migration sets some of them.
func reach(ctx context.Context, source postgres.Source, log *slog.Logger) error {
	ctx, cancel := context.WithTimeout(ctx, reachLimit)
	defer cancel()
	pool, err := postgres.Open(source, 1, postgres.Unchecked)
	if err != nil {
		return err
	}
	defer pool.Close()
	for {
		err := pool.Exec(ctx, "SELECT 1")
		if err == nil {
			return nil
		}
		if !postgres.Unavailable(err) {
			return fmt.Errorf("reach the database: %w", err)
		}
		log.Warn("the database can't be reached yet", "error", err.Error())
		select {
		case <-ctx.Done():
			return fmt.Errorf("the database couldn't be reached within %s: %w", reachLimit, err)
		case <-time.After(reachPause):
		}
	}
}
