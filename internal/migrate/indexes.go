package migrate

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// concurrentIndex matches the statement that builds an index while others write to its table, and
// the index's name. TestTheFilesWithoutATransactionMayBeRepeated keeps the files to this form.
var concurrentIndex = regexp.MustCompile(
	`(?m)^CREATE (?:UNIQUE )?INDEX CONCURRENTLY IF NOT EXISTS (\w+)`)

// dropInvalidIndexes drops those indexes of a file that Postgres says are invalid. CREATE INDEX
// CONCURRENTLY leaves such an index when it fails or is cancelled, and IF NOT EXISTS would take it
// for done. A valid index stays.
func (f *files) dropInvalidIndexes(ctx context.Context, conn *pgx.Conn, name string) error {
	for _, match := range concurrentIndex.FindAllStringSubmatch(f.texts[name], -1) {
		if err := dropInvalidIndex(ctx, conn, match[1]); err != nil {
			return fmt.Errorf("drop the invalid index %s, which %s builds: %w", match[1], name, err)
		}
	}
	return nil
}

const (
	// dropLockTimeout bounds a drop's wait for its table. Others that want the table wait behind it.
	dropLockTimeout = "200ms"
	// dropTries and dropPause bound the tries. The service's own transactions take five seconds at
	// most.
	dropTries = 60
	dropPause = time.Second
)

// dropInvalidIndex drops an index if it is invalid. It tries again while another session holds the
// table.
func dropInvalidIndex(ctx context.Context, conn *pgx.Conn, index string) error {
	for try := 1; ; try++ {
		table, err := tableOfInvalid(ctx, conn, index)
		if err != nil || table == "" {
			return err
		}
		err = dropIfStillInvalid(ctx, conn, table, index)
		const lockNotAvailable = "55P03"
		var pg *pgconn.PgError
		if err == nil || !errors.As(err, &pg) || pg.Code != lockNotAvailable || try == dropTries {
			return err
		}
		select {
		case <-ctx.Done():
			return errors.Join(err, ctx.Err())
		case <-time.After(dropPause):
		}
	}
}

// tableOfInvalid returns the table of an index if the index is invalid, as SQL writes its name.
// Otherwise, or if there is no such index, it returns nothing.
func tableOfInvalid(ctx context.Context, db rowQuerier, index string) (table string, err error) {
	const sql = `
SELECT coalesce((SELECT indrelid::regclass::text FROM pg_index
                 WHERE indexrelid = to_regclass($1) AND NOT indisvalid), '')`
	err = db.QueryRow(ctx, sql, "public."+index).Scan(&table)
	return table, err
}

// rowQuerier is a connection or a transaction.
type rowQuerier interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// dropIfStillInvalid looks again under the lock that a build of an index holds on the table. So an
// index that somebody else is just building isn't dropped when its build is over.
func dropIfStillInvalid(ctx context.Context, conn *pgx.Conn, table, index string) error {
	return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, "SET LOCAL lock_timeout = '"+dropLockTimeout+"'; "+
			"LOCK TABLE "+table+" IN SHARE UPDATE EXCLUSIVE MODE")
		if err != nil {
			return err
		}
		still, err := tableOfInvalid(ctx, tx, index)
		if err != nil || still == "" {
			return err
		}
		_, err = tx.Exec(ctx, "DROP INDEX public."+pgx.Identifier{index}.Sanitize())
		return err
	})
}
