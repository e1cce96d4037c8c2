package migrate

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/allo/reservations/internal/postgres"
	"github.com/allo/reservations/migrations"
)

// operatorRights are the privileges of the database's owner: to read everything, to keep the
// catalog and to adjust stock. The owner needs them when the migrations run as a role of their own,
// which then owns the tables.
var operatorRights = []migrations.Right{
	{Table: "products", Privilege: "SELECT, INSERT, UPDATE"},
	{Table: "warehouses", Privilege: "SELECT, INSERT, UPDATE"},
	{Table: "inventory", Privilege: "SELECT, INSERT, UPDATE"},
	{Table: "stock_movements", Privilege: "SELECT, INSERT"},
	{Table: "stock_adjustments", Privilege: "SELECT"}, // a view
	{Table: "reservations", Privilege: "SELECT"},
	// adjust_stock and free_units expire dead holds, and uncount the lines of dead carts.
	{Table: "reservations", Privilege: "UPDATE", Columns: "status, updated_at, version"},
	{Table: "ledger", Privilege: "INSERT"},
	{Table: "reservation_items", Privilege: "SELECT"},
	{Table: "reservation_items", Privilege: "UPDATE", Columns: "counted"},
	{Table: "idempotency_keys", Privilege: "SELECT"},
	{Table: "archived_reservations", Privilege: "SELECT"},
	{Table: "archived_items", Privilege: "SELECT"},
	{Table: "archived_movements", Privilege: "SELECT"},
	{Table: "archived_months", Privilege: "SELECT"},
	{Table: "archived_stock", Privilege: "SELECT"},
	{Table: "last_audit", Privilege: "SELECT"},
	{Table: "audit_state", Privilege: "SELECT"},
	{Table: "stock_closings", Privilege: "SELECT"},
	{Table: "ledger", Privilege: "SELECT"},
	{Table: "archived_ledger", Privilege: "SELECT"},
	{Table: "ticks", Privilege: "SELECT"},
	{Table: "sinks", Privilege: "SELECT"},
	{Table: "parked", Privilege: "SELECT"},
	{Table: "stream", Privilege: "SELECT"},
	{Table: "live", Privilege: "SELECT"},
	{Table: "minute_counts", Privilege: "SELECT"},
	{Table: "flush_mark", Privilege: "SELECT"},
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
		statements = append(statements, grants(migrations.ServiceRights(), name)...)
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
func grants(rights []migrations.Right, role string) []string {
	var statements []string
	for _, r := range rights {
		privilege := r.Privilege
		if r.Columns != "" {
			privilege += " (" + r.Columns + ")"
		}
		statements = append(statements,
			fmt.Sprintf("GRANT %s ON public.%s TO %s", privilege, r.Table, role))
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
