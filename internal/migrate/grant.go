package migrate

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/allo/reservations/internal/postgres"
)

// tableRights are privileges on one table, as GRANT takes them.
type tableRights struct{ table, privileges string }

// serviceRights are the privileges of the service's role. It may delete old idempotency keys and
// nothing else. It can't change the product, the warehouse or the quantity of a hold, and it can't
// make products or stock. The routines run with their caller's rights, so they add nothing.
//
// A release that needs another right adds it here. A right that a release no longer needs goes one
// release later, because both releases run while a deploy moves the traffic.
var serviceRights = []tableRights{
	{"products", "SELECT"},
	{"warehouses", "SELECT"},
	{"inventory", "SELECT, UPDATE (total, reserved, first_end, epoch)"},
	{"stock_adjustments", "SELECT"}, // for the audit
	{"reservations", "SELECT, INSERT, UPDATE (status, created_at, updated_at, expires_at)"},
	{"reservation_items", "SELECT, INSERT, UPDATE (counted, expires_at)"},
	{"idempotency_keys", "SELECT, INSERT, UPDATE, DELETE"},
	{"last_audit", "SELECT, INSERT, UPDATE"}, // by the sweeper
	{"flush_mark", "SELECT, INSERT, UPDATE"}, // by the sweeper
	{"log_records", "UPDATE"},                // a sequence
	{versionTable, "SELECT"},                 // for the health check
}

// operatorRights are the privileges of the database's owner: to read everything, to keep the
// catalog and to adjust stock. The owner needs them when the migrations run as a role of their own,
// which then owns the tables.
var operatorRights = []tableRights{
	{"products", "SELECT, INSERT, UPDATE"},
	{"warehouses", "SELECT, INSERT, UPDATE"},
	{"inventory", "SELECT, INSERT, UPDATE"},
	{"stock_adjustments", "SELECT, INSERT"},
	{"reservations", "SELECT, UPDATE (status, updated_at)"}, // adjust_stock expires dead holds
	{"reservation_items", "SELECT, UPDATE (counted)"},       // and uncounts the lines of dead carts
	{"idempotency_keys", "SELECT"},
	{"last_audit", "SELECT"},
	{"flush_mark", "SELECT"},
}

// grant does the part of [UpAndGrant] that concerns the role, in one transaction. The source's role
// must own the tables. If it may grant pg_read_all_stats, grant does, so that the sweeper sees how
// old the oldest transaction is.
func grant(ctx context.Context, source postgres.Source, role string) error {
	return inTransaction(ctx, source, "grant "+role+" its rights", func(tx pgx.Tx) error {
		name := pgx.Identifier{role}.Sanitize()
		statements, err := revocations(ctx, tx, name)
		if err != nil {
			return err
		}
		statements = append(statements, "GRANT USAGE ON SCHEMA public TO "+name)
		statements = append(statements, grants(serviceRights, name)...)
		statements = append(statements, grants(operatorRights, "pg_database_owner")...)
		may, err := mayGrantStatistics(ctx, tx)
		if err != nil {
			return err
		}
		if may {
			statements = append(statements, "GRANT pg_read_all_stats TO "+name)
		}
		for _, statement := range statements {
			if _, err := tx.Exec(ctx, statement); err != nil {
				return fmt.Errorf("%s: %w", statement, err)
			}
		}
		return setDefaults(ctx, tx, name)
	})
}

// mayGrantStatistics reports whether the current role may grant pg_read_all_stats. On Aurora it may
// not, and bootstrap.sql has made the grant.
func mayGrantStatistics(ctx context.Context, tx pgx.Tx) (may bool, err error) {
	const sql = "SELECT pg_has_role(current_user, 'pg_read_all_stats', 'USAGE WITH ADMIN OPTION')"
	if err := tx.QueryRow(ctx, sql).Scan(&may); err != nil {
		return false, fmt.Errorf("look for the right to grant pg_read_all_stats: %w", err)
	}
	return may, nil
}

// grants returns the statements that give rights to a role, as SQL writes its name.
func grants(rights []tableRights, role string) []string {
	var statements []string
	for _, r := range rights {
		statements = append(statements,
			fmt.Sprintf("GRANT %s ON public.%s TO %s", r.privileges, r.table, role))
	}
	return statements
}

// revocations returns the statements that take all privileges on our tables and sequences from a
// role. Other owners' tables, such as an extension's, are left alone.
func revocations(ctx context.Context, tx pgx.Tx, role string) ([]string, error) {
	const sql = `
SELECT relname::text FROM pg_class
WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'S')
  AND pg_get_userbyid(relowner) = current_user
ORDER BY 1`
	rows, err := tx.Query(ctx, sql)
	if err != nil {
		return nil, fmt.Errorf("list our tables: %w", err)
	}
	tables, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("list our tables: %w", err)
	}
	var statements []string
	for _, table := range tables {
		statements = append(statements,
			fmt.Sprintf("REVOKE ALL ON public.%s FROM %s", pgx.Identifier{table}.Sanitize(), role))
	}
	return statements, nil
}
