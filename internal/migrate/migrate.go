// Package migrate applies the embedded migrations with goose. It is a package of its own so that goose and database/sql are
// linked into the migrate function and the local programs, and into no Lambda that answers callers.
package migrate

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"

	"github.com/allo/reservations/migrations"
)

// The service's waits inside Postgres, set on the role because a pooler in transaction mode refuses them at connect and
// forgets them when set in a session. Each is shorter than the one around it: lock, statement, request, function, gateway.
const (
	lockTimeout              = 2 * time.Second
	statementTimeout         = 5 * time.Second
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
func Up(ctx context.Context, databaseURL string) (applied []string, err error) {
	config, err := pgx.ParseConfig(databaseURL)
	if err != nil {
		return nil, fmt.Errorf("parse the URL of the database to migrate: %w", err)
	}
	// A migration may take longer than a request may: the role's defaults are for the service.
	config.RuntimeParams["statement_timeout"] = "0"
	db := stdlib.OpenDB(*config)
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
	return applied, Defaults(ctx, databaseURL)
}

// Defaults sets the timeouts and the planner's settings of the role that the URL names, in that database only. Sessions opened later have
// them.
func Defaults(ctx context.Context, databaseURL string) error {
	conn, err := pgx.Connect(ctx, databaseURL)
	if err != nil {
		return fmt.Errorf("connect to set the role's defaults: %w", err)
	}
	defer conn.Close(context.WithoutCancel(ctx))

	err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error { return setDefaults(ctx, tx) })
	if err != nil {
		return fmt.Errorf("set the role's defaults: %w", err)
	}
	return nil
}

// defaults are the role's settings. The planner's keep what a verb costs from depending on when its session began: a plan is made once,
// for any arguments, and never reads a whole table, however small the table was when the plan was made.
func defaults() map[string]string {
	return map[string]string{
		"lock_timeout":                        lockTimeout.String(),
		"statement_timeout":                   statementTimeout.String(),
		"idle_in_transaction_session_timeout": idleInTransactionTimeout.String(),
		"enable_seqscan":                      "off",
		"plan_cache_mode":                     "force_generic_plan",
		"jit":                                 "off",
	}
}

// setDefaults holds a lock meanwhile, as Postgres refuses two changes of one role's settings at once instead of letting one wait.
func setDefaults(ctx context.Context, tx pgx.Tx) error {
	var database string
	const lockAndName = "SELECT current_database() FROM pg_advisory_xact_lock(hashtextextended('allo role defaults', 0))"
	if err := tx.QueryRow(ctx, lockAndName).Scan(&database); err != nil {
		return err
	}
	for name, value := range defaults() {
		stmt := fmt.Sprintf("ALTER ROLE CURRENT_USER IN DATABASE %s SET %s = '%s'", pgx.Identifier{database}.Sanitize(), name, value)
		if _, err := tx.Exec(ctx, stmt); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}
