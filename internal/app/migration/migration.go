// Package migration wires the migrate function, which applies the migrations and grants the
// service's role its rights. It is apart from package app because no other function links goose.
package migration

import (
	"context"
	"encoding/json"
	"errors"
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

const (
	// deployLimit is how long a run in a deploy goes on. The CDK's trigger waits for it in a function
	// of 900 seconds, Lambda's most, which has to tell CloudFormation of the result. A deploy whose
	// trigger is cut off waits for an hour.
	deployLimit = 14 * time.Minute
	// lastWords is how long before the function's own end a run ends, but at most a tenth of its time.
	lastWords = 10 * time.Second
)

// Event is what the migrate function is asked to do.
type Event struct {
	// Apply applies the versioned files also where a deploy doesn't (MIGRATE=manual).
	Apply bool `json:"apply"`
	// Seconds is how long the run waits for a file without a transaction. Then the run answers that
	// it isn't done, and the next one goes on. With 0 the run waits as long as a deploy's, and fails.
	Seconds int `json:"seconds"`
}

// Report is the migrate function's result.
type Report struct {
	// Applied are the names of the migrations that the run applied.
	Applied []string `json:"applied"`
	// Unfinished says what the database still does, if the run isn't done.
	Unfinished string `json:"unfinished,omitempty"`
}

// Lambda returns the handler of the migrate function.
func Lambda() Function {
	c, log := config.Start(true)
	source, err := awsdb.Source(c)
	if err != nil {
		log.Error("can't start", "error", err.Error())
		os.Exit(1)
	}
	return Handler(source, Settings{AppRole: c.AppRole, ByHand: c.MigrateByHand}, log)
}

// Function is the migrate function. A payload that isn't an [Event] stands for the zero one: the
// trigger of a deploy sends none.
type Function func(ctx context.Context, payload []byte) (Report, error)

// Invoke is the method of lambda.Handler.
func (f Function) Invoke(ctx context.Context, payload []byte) ([]byte, error) {
	report, err := f(ctx, payload)
	if err != nil {
		return nil, err
	}
	return json.Marshal(report)
}

// Settings are those of the function.
type Settings struct {
	// AppRole is the role to which each run grants the service's rights, or empty.
	AppRole string
	// ByHand means that only an event with Apply applies the versioned files.
	ByHand bool
}

// Handler migrates the source's database. It waits up to a minute for a database that can't be
// reached yet.
func Handler(source postgres.Source, s Settings, log *slog.Logger) Function {
	return func(ctx context.Context, payload []byte) (Report, error) {
		var event Event
		if json.Unmarshal(payload, &event) != nil {
			event = Event{} // a deploy's
		}
		ctx, cancel := context.WithTimeout(ctx, limit(ctx))
		defer cancel()
		report := Report{Applied: []string{}}
		err := reach(ctx, source, log)
		if err == nil {
			var applied []string
			applied, err = migrate.Run(ctx, source, options(ctx, s, event))
			report.Applied = append(report.Applied, applied...)
		}
		var unfinished *migrate.UnfinishedError
		if event.Seconds > 0 && errors.As(err, &unfinished) {
			report.Unfinished, err = unfinished.Error(), nil
		}
		if err = remedy(err); err != nil {
			log.Error("migrate", "applied", report.Applied, "error", err.Error())
			return report, err
		}
		log.Info("migrate", "applied", report.Applied, "unfinished", report.Unfinished,
			"granted", s.AppRole)
		return report, nil
	}
}

// limit is how long a run may take: a deploy's limit, or what is left of the function's time.
func limit(ctx context.Context) time.Duration {
	if end, ok := ctx.Deadline(); ok {
		return min(deployLimit, withoutLastWords(time.Until(end)))
	}
	return deployLimit
}

// withoutLastWords leaves the end of a time to the answer.
func withoutLastWords(left time.Duration) time.Duration { return left - min(lastWords, left/10) }

// options lets the run leave a file without a transaction before its context ends, which would
// cancel the file's statement.
func options(ctx context.Context, s Settings, event Event) migrate.Options {
	end, _ := ctx.Deadline() // limit set one
	o := migrate.Options{
		AppRole: s.AppRole, RoutinesAlone: s.ByHand && !event.Apply,
		Leave: max(withoutLastWords(time.Until(end)), time.Millisecond),
	}
	if event.Seconds > 0 {
		o.Leave = min(o.Leave, time.Duration(event.Seconds)*time.Second)
	}
	return o
}

// remedy adds what an operator has to do.
func remedy(err error) error {
	var pending *migrate.PendingError
	var unfinished *migrate.UnfinishedError
	switch {
	case errors.As(err, &pending):
		return fmt.Errorf("%w, and with migrate=manual a deploy doesn't apply them: "+
			"run `make migrate-remote` from this commit, then deploy again", err)
	case errors.As(err, &unfinished):
		return fmt.Errorf("%w: run `make migrate-remote` from this commit, which waits for it, "+
			"then deploy again", err)
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%w: a file that takes longer than the function must be one with "+
			"NO TRANSACTION (internal/migrate)", err)
	}
	return err
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
