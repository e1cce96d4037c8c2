package migrate

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/pressly/goose/v3/lock"

	"github.com/allo/reservations/internal/postgres"
	"github.com/allo/reservations/migrations"
)

// The limits of the service's waits inside Postgres. They are settings of the role: a pooler in
// transaction mode refuses them as start-up parameters, and forgets them when a session sets them.
// Each limit is shorter than the one around it: lock, statement, request, function, gateway.
const (
	lockTimeout = 2 * time.Second
	// StatementTimeout bounds one statement of the service, its waits for locks included.
	StatementTimeout         = 5 * time.Second
	idleInTransactionTimeout = 10 * time.Second
)

// The migration lock keeps two deploys from migrating at once. It is a row with a lease, not a
// session's advisory lock, which a pooler in transaction mode would leak. A deploy waits up to a
// minute for it. The lease is renewed while a migration runs. It is short, so that a killed deploy
// doesn't block the next one for long.
const (
	lockRetryEvery = 250 * time.Millisecond
	lockRetries    = 240
	lockLease      = 4 * time.Second
	lockHeartbeat  = time.Second
)

// The tables by which a database's age is known. goose records the applied files in VersionTable.
// Databases from before the first release have goose's default table instead, beside ours.
const (
	unreleasedVersions = "goose_db_version"
	anyOfOurTables     = "reservations"
)

// ErrUnreleasedDatabase means that the database was made by migrations from before the first
// release. It can't be migrated.
var ErrUnreleasedDatabase = errors.New("this database was made by an unreleased version " +
	"and can't be migrated: run `make reset`, or give an empty database")

// Up applies the versioned files that the database lacks, in order, installs the routines that have
// changed, and gives the source's role the settings of [Defaults]. It returns the files that it
// applied or installed. When there is nothing to do, it writes nothing. Two calls may run at once:
// the second waits and finds nothing to do. Up must reach Postgres directly, not through a pooler.
// It returns ErrUnreleasedDatabase, and changes nothing, for a database from before the first
// release.
func Up(ctx context.Context, source postgres.Source) (applied []string, err error) {
	return Run(ctx, source, Options{})
}

// UpAndGrant is Up, and gives a role the privileges that the service needs, revokes its other
// privileges on our tables, and gives it the settings of [Defaults]. The source's role must be
// allowed to alter the other role. The role gets its rights after the schema has changed and before
// the routines do: the release that is in service runs the new routines at once.
func UpAndGrant(
	ctx context.Context, source postgres.Source, role string,
) (applied []string, err error) {
	return Run(ctx, source, Options{AppRole: role})
}

// Options are the choices of a run. The zero value is that of [Up].
type Options struct {
	// AppRole is the role to which the run grants the service's rights, or empty.
	AppRole string
	// RoutinesAlone says that the run applies no versioned file. It returns a *PendingError if the
	// database lacks one, unless the database is empty: there no file takes long.
	RoutinesAlone bool
	// Leave is how long the run waits for the files without a transaction. Then it leaves the
	// statement that runs to the database, where it goes on, and returns an *UnfinishedError. 0 means
	// that it waits until the context ends.
	Leave time.Duration
}

// Run is [UpAndGrant] with options.
func Run(ctx context.Context, source postgres.Source, o Options) (applied []string, err error) {
	return run(ctx, source, o, migrations.Schema, migrations.Routines)
}

// run is Run with the files of any release.
func run(
	ctx context.Context, source postgres.Source, o Options, schema, routines fs.FS,
) (applied []string, err error) {
	conn, err := connect(ctx, source)
	if err != nil {
		return nil, fmt.Errorf("connect to migrate: %w", err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if err := refuseUnreleased(ctx, conn); err != nil {
		return nil, err
	}
	f, err := openFiles(source, schema)
	if err != nil {
		return nil, err
	}
	defer f.close()
	grant := func() error {
		if o.AppRole == "" {
			return nil
		}
		return grant(ctx, source, o.AppRole)
	}
	outdated, err := isOutdated(ctx, conn, f, routines)
	if err != nil {
		return nil, err
	}
	if outdated {
		applied, err = applyUnderLock(ctx, conn, f, routines, o, grant)
	} else {
		err = grant()
	}
	if err != nil {
		return applied, err
	}
	return applied, Defaults(ctx, source)
}

func refuseUnreleased(ctx context.Context, conn *pgx.Conn) error {
	exists := map[string]bool{}
	for _, name := range []string{unreleasedVersions, migrations.VersionTable, anyOfOurTables} {
		there, err := tableExists(ctx, conn, name)
		if err != nil {
			return err
		}
		exists[name] = there
	}
	if exists[unreleasedVersions] && exists[anyOfOurTables] && !exists[migrations.VersionTable] {
		return ErrUnreleasedDatabase
	}
	return nil
}

// isOutdated reports whether there is a file to apply or to install. It takes no lock.
func isOutdated(ctx context.Context, conn *pgx.Conn, f *files, routines fs.FS) (bool, error) {
	pending, err := f.pending(ctx, conn)
	if err != nil || len(pending) > 0 {
		return true, err
	}
	change, err := planRoutines(ctx, conn, routines)
	return !change.none(), err
}

// tableExists reports whether the schema public has the table.
func tableExists(ctx context.Context, conn *pgx.Conn, name string) (there bool, err error) {
	err = conn.QueryRow(ctx, "SELECT to_regclass($1) IS NOT NULL", "public."+name).Scan(&there)
	if err != nil {
		return false, fmt.Errorf("look for the table %s: %w", name, err)
	}
	return there, nil
}

// applyUnderLock waits for the migration lock, then applies the pending files, grants, and installs
// the changed routines. It returns the files of both.
func applyUnderLock(
	ctx context.Context, conn *pgx.Conn, f *files, routines fs.FS, o Options, grant func() error,
) (applied []string, err error) {
	locker, err := lock.NewPostgresTableLocker(
		lock.WithTableLockTimeout(lockRetryEvery, lockRetries),
		lock.WithTableLeaseDuration(lockLease),
		lock.WithTableHeartbeatInterval(lockHeartbeat))
	if err != nil {
		return nil, fmt.Errorf("make the migration lock: %w", err)
	}
	if err := locker.Lock(ctx, f.locks); err != nil {
		return nil, fmt.Errorf("wait for the migration lock: %w", err)
	}
	defer func() { err = errors.Join(err, locker.Unlock(context.WithoutCancel(ctx), f.locks)) }()

	applied, err = f.apply(ctx, conn, o)
	if err != nil {
		return applied, err
	}
	if err := grant(); err != nil {
		return applied, err
	}
	installed, err := installRoutines(ctx, conn, routines)
	return append(applied, installed...), err
}

// connect makes a connection for the statements that don't go through goose.
func connect(ctx context.Context, source postgres.Source) (*pgx.Conn, error) {
	dial := func(ctx context.Context, target postgres.Target) (*pgx.Conn, error) {
		config, err := configure(target)
		if err != nil {
			return nil, &postgres.SourceError{Err: err}
		}
		return pgx.ConnectConfig(ctx, config)
	}
	return postgres.Connect(ctx, source, dial)
}

// connectTimeout bounds a connect to one address. A deploy can wait longer than a request can.
const connectTimeout = 15 * time.Second

func configure(target postgres.Target) (*pgx.ConnConfig, error) {
	return target.Config(connectTimeout)
}

// Defaults sets timeouts and planner settings on the source's role, for the source's database only.
// Sessions that are opened later have them.
func Defaults(ctx context.Context, source postgres.Source) error {
	return inTransaction(ctx, source, "set the role's defaults", func(tx pgx.Tx) error {
		return setDefaults(ctx, tx, currentUser)
	})
}

// lockRoles takes the advisory lock of changes to the roles. claim_key.sql lists the classes.
const lockRoles = "SELECT pg_advisory_xact_lock(2, 0)"

// inTransaction runs fn in a transaction that holds an advisory lock. Without the lock, two
// concurrent changes of one role's settings or of one table's privileges would fail: Postgres
// refuses the second one instead of letting it wait.
func inTransaction(
	ctx context.Context, source postgres.Source, what string, fn func(tx pgx.Tx) error,
) error {
	conn, err := connect(ctx, source)
	if err != nil {
		return fmt.Errorf("connect to %s: %w", what, err)
	}
	defer conn.Close(context.WithoutCancel(ctx))

	err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, lockRoles); err != nil {
			return err
		}
		return fn(tx)
	})
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// defaults are the role's settings. With the planner settings the cost of a verb doesn't depend on
// when its session began: a plan is made once, for any arguments, and never reads a whole table,
// even if the table was small when the plan was made.
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

// currentUser is the name by which ALTER ROLE knows the role that runs it.
const currentUser = "CURRENT_USER"

// setDefaults sets the defaults that the role doesn't have yet. role is its name as SQL writes it.
func setDefaults(ctx context.Context, tx pgx.Tx, role string) error {
	var database string
	if err := tx.QueryRow(ctx, "SELECT current_database()").Scan(&database); err != nil {
		return err
	}
	set, err := roleSettings(ctx, tx, role)
	if err != nil {
		return err
	}
	for name, value := range defaults() {
		if slices.Contains(set, name+"="+value) {
			continue
		}
		stmt := fmt.Sprintf("ALTER ROLE %s IN DATABASE %s SET %s = '%s'", role,
			pgx.Identifier{database}.Sanitize(), name, value)
		if _, err := tx.Exec(ctx, stmt); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// roleSettings lists a role's settings for this database, each as name=value.
func roleSettings(ctx context.Context, tx pgx.Tx, role string) (settings []string, err error) {
	const sql = `
SELECT coalesce((
    SELECT s.setconfig FROM pg_db_role_setting s
    JOIN pg_database d ON d.oid = s.setdatabase AND d.datname = current_database()
    WHERE s.setrole = $1::regrole), '{}')`
	if role == currentUser {
		if err := tx.QueryRow(ctx, "SELECT quote_ident(current_user)").Scan(&role); err != nil {
			return nil, fmt.Errorf("read the role's name: %w", err)
		}
	}
	if err := tx.QueryRow(ctx, sql, role).Scan(&settings); err != nil {
		return nil, fmt.Errorf("read the role's settings: %w", err)
	}
	return settings, nil
}
