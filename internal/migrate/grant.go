package migrate

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/allo/reservations/internal/postgres"
)

// rights are what the service does, table by table: it deletes nothing but old idempotency keys, it doesn't touch what a hold is of, and it
// makes neither products nor stock. What it calls runs with the caller's rights, so these are all that it can do.
//
// A release that needs more adds it here, and one that needs less takes it away one release later: while traffic moves, both run.
var rights = []struct{ table, privileges string }{
	{"products", "SELECT"},
	{"warehouses", "SELECT"},
	{"inventory", "SELECT, UPDATE (total, reserved)"},
	{"stock_adjustments", "SELECT"}, // for the audit
	{"reservations", "SELECT, INSERT, UPDATE (status, created_at, updated_at, expires_at)"},
	{"reservation_items", "SELECT, INSERT, UPDATE (counted, expires_at)"},
	{"idempotency_keys", "SELECT, INSERT, UPDATE, DELETE"},
	{"last_audit", "SELECT, INSERT, UPDATE"}, // by the sweeper
}

// operatorRights are those of the database's owner, who isn't the tables' owner where the migrations are a role's of their own: to look at
// everything, to keep the catalog, and to adjust stock.
var operatorRights = []struct{ table, privileges string }{
	{"products", "SELECT, INSERT, UPDATE"},
	{"warehouses", "SELECT, INSERT, UPDATE"},
	{"inventory", "SELECT, INSERT, UPDATE"},
	{"stock_adjustments", "SELECT, INSERT"},
	{"reservations", "SELECT, UPDATE (status, updated_at)"}, // adjust_stock takes back what dead holds occupy
	{"reservation_items", "SELECT, UPDATE (counted)"},       // and dead carts
	{"idempotency_keys", "SELECT"},
	{"last_audit", "SELECT"},
}

// Grant gives a role what the service needs, and nothing else of the tables, and sets its Defaults. The role that the source names owns the
// tables and may administer the other. It may be called again, at any time: each call sets all of it anew, in one transaction.
func Grant(ctx context.Context, source postgres.Source, role string) error {
	return inTransaction(ctx, source, "grant "+role+" its rights", func(tx pgx.Tx) error {
		name := pgx.Identifier{role}.Sanitize()
		statements, err := revocations(ctx, tx, name)
		if err != nil {
			return err
		}
		statements = append(statements, "GRANT USAGE ON SCHEMA public TO "+name)
		for _, r := range rights {
			statements = append(statements, fmt.Sprintf("GRANT %s ON public.%s TO %s", r.privileges, r.table, name))
		}
		for _, r := range operatorRights {
			statements = append(statements, fmt.Sprintf("GRANT %s ON public.%s TO pg_database_owner", r.privileges, r.table))
		}
		for _, statement := range statements {
			if _, err := tx.Exec(ctx, statement); err != nil {
				return fmt.Errorf("%s: %w", statement, err)
			}
		}
		return setDefaults(ctx, tx, name)
	})
}

// revocations take everything from a role that it may do with our tables. Others' tables, such as an extension's, aren't ours to judge.
func revocations(ctx context.Context, tx pgx.Tx, role string) ([]string, error) {
	rows, err := tx.Query(ctx, "SELECT tablename::text FROM pg_tables WHERE schemaname = 'public' AND tableowner = current_user ORDER BY 1")
	if err != nil {
		return nil, fmt.Errorf("list our tables: %w", err)
	}
	tables, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("list our tables: %w", err)
	}
	var statements []string
	for _, table := range tables {
		statements = append(statements, fmt.Sprintf("REVOKE ALL ON public.%s FROM %s", pgx.Identifier{table}.Sanitize(), role))
	}
	return statements, nil
}
