// Package migrate applies the embedded migrations with goose. It is a package of its own so that goose and database/sql are
// linked into the migrate function and the local programs, and into no Lambda that answers callers.
package migrate

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"

	"github.com/allo/reservations/internal/postgres"
	"github.com/allo/reservations/migrations"
)

// The service's waits inside Postgres, set on the role because a pooler in transaction mode refuses them at connect and
// forgets them when set in a session. Each is shorter than the one around it: lock, statement, request, function, gateway.
const (
	lockTimeout              = 2 * time.Second
	StatementTimeout         = 5 * time.Second
	idleInTransactionTimeout = 10 * time.Second
)

// goose's lock keeps two deploys from migrating at once: a row with a lease, and not a session's advisory lock, which a pooler in
// transaction mode would leak. It is tried for a minute. The lease is short, so that a deploy that was killed doesn't hold up the next
// one for long, and is renewed while a migration takes its time.
const (
	lockRetryEvery = 250 * time.Millisecond
	lockRetries    = 240
	lockLease      = 4 * time.Second
	lockHeartbeat  = time.Second
)

// Up applies the migrations that the database lacks, in order, and sets the role's Defaults. It returns the names of those
// that it applied. Two of them may run at once: the second waits and finds nothing to do. It must reach Postgres directly,
// not through a pooler.
func Up(ctx context.Context, source postgres.Source) (applied []string, err error) {
	db := sql.OpenDB(connector{source})
	defer db.Close()

	locker, err := lock.NewPostgresTableLocker(
		lock.WithTableLockTimeout(lockRetryEvery, lockRetries),
		lock.WithTableLeaseDuration(lockLease),
		lock.WithTableHeartbeatInterval(lockHeartbeat))
	if err != nil {
		return nil, fmt.Errorf("make the migration lock: %w", err)
	}
	provider, err := goose.NewProvider(goose.DialectPostgres, db, migrations.FS,
		goose.WithLocker(locker), goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return nil, fmt.Errorf("read the migrations: %w", err)
	}
	results, err := provider.Up(ctx)
	for _, r := range results {
		applied = append(applied, r.Source.Path)
	}
	if err != nil {
		return applied, fmt.Errorf("migrate: %w", err)
	}
	return applied, Defaults(ctx, source)
}

// connector makes goose's connections. Each is made to where the source says at that moment, as a token for IAM grows old within minutes.
type connector struct{ source postgres.Source }

func (c connector) Connect(ctx context.Context) (driver.Conn, error) {
	return postgres.Connect(ctx, c.source, func(ctx context.Context, target postgres.Target) (driver.Conn, error) {
		config, err := configure(target)
		if err != nil {
			return nil, &postgres.SourceError{Err: err}
		}
		// A migration may take longer than a request may: the role's defaults are for the service.
		config.RuntimeParams["statement_timeout"] = "0"
		return stdlib.GetConnector(*config).Connect(ctx)
	})
}

func (c connector) Driver() driver.Driver { return stdlib.GetDefaultDriver() }

// connect makes a connection for what isn't goose's.
func connect(ctx context.Context, source postgres.Source) (*pgx.Conn, error) {
	return postgres.Connect(ctx, source, func(ctx context.Context, target postgres.Target) (*pgx.Conn, error) {
		config, err := configure(target)
		if err != nil {
			return nil, &postgres.SourceError{Err: err}
		}
		return pgx.ConnectConfig(ctx, config)
	})
}

// connectTimeout bounds a connect to one address. A deploy can wait for longer than a caller can.
const connectTimeout = 15 * time.Second

func configure(target postgres.Target) (*pgx.ConnConfig, error) {
	config, err := target.Config()
	if err != nil {
		return nil, err
	}
	config.ConnectTimeout = connectTimeout
	return config, nil
}

// Defaults sets the timeouts and the planner's settings of the role that the source names, in that database only. Sessions opened later have
// them.
func Defaults(ctx context.Context, source postgres.Source) error {
	return inTransaction(ctx, source, "set the role's defaults", func(tx pgx.Tx) error { return setDefaults(ctx, tx, "CURRENT_USER") })
}

// inTransaction runs fn while nobody else changes roles: Postgres refuses two changes of one role's settings or of one table's rights at once
// instead of letting one wait.
func inTransaction(ctx context.Context, source postgres.Source, what string, fn func(tx pgx.Tx) error) error {
	conn, err := connect(ctx, source)
	if err != nil {
		return fmt.Errorf("connect to %s: %w", what, err)
	}
	defer conn.Close(context.WithoutCancel(ctx))

	err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock(hashtextextended('allo role defaults', 0))"); err != nil {
			return err
		}
		return fn(tx)
	})
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// defaults are the role's settings. The planner's keep what a verb costs from depending on when its session began: a plan is made once,
// for any arguments, and never reads a whole table, however small the table was when the plan was made.
func defaults() map[string]string {
	return map[string]string{
		"lock_timeout":                        lockTimeout.String(),
		"statement_timeout":                   StatementTimeout.String(),
		"idle_in_transaction_session_timeout": idleInTransactionTimeout.String(),
		"enable_seqscan":                      "off",
		"plan_cache_mode":                     "force_generic_plan",
		"jit":                                 "off",
	}
}

// setDefaults takes the role as SQL writes it.
func setDefaults(ctx context.Context, tx pgx.Tx, role string) error {
	var database string
	if err := tx.QueryRow(ctx, "SELECT current_database()").Scan(&database); err != nil {
		return err
	}
	for name, value := range defaults() {
		stmt := fmt.Sprintf("ALTER ROLE %s IN DATABASE %s SET %s = '%s'", role, pgx.Identifier{database}.Sanitize(), name, value)
		if _, err := tx.Exec(ctx, stmt); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}
