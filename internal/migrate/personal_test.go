package migrate_test

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/allo/reservations/internal/pgtest"
)

// personalTexts are the columns in which a caller's text or name lies, with the words of it in
// RUNBOOK.md's table of personal data. The archive's tables have the columns of the others.
var personalTexts = map[string]string{
	"hold_parties.owner":           "the owner",
	"hold_parties.reference":       "the reference",
	"hold_payments.reference":      "the payment's reference",
	"idempotency_keys.answer":      "the stored answer",
	"idempotency_keys.key":         "the caller's key",
	"ledger.actor":                 "the actor",
	"old_stock_adjustments.reason": "the reason",
	"returns.actor":                "the actor",
	"returns.reference":            "the reference",
	"stock_movements.actor":        "the actor",
	"stock_movements.note":         "the note",
	"stock_movements.reference":    "the reference",
	"stock_movements.source":       "the source",
}

// impersonalTexts are the columns that the service writes itself, and those about goods.
var impersonalTexts = []string{
	"audit_state.after", "audit_state.found", "audit_state.kind", "audit_state.part",
	"hold_payments.short", "idempotency_keys.request_hash", "inventory.room",
	"parked.error", "parked.id", "parked.sink", "parked.subject",
	"products.name", "products.sku", "warehouses.code", "warehouses.name",
	"sinks.after", "sinks.error", "sinks.name",
}

// textColumns lists the columns of the schema in which a text can be, each with its table.
func textColumns(db *pgtest.Fixture) []string {
	return pgtest.QueryOne[[]string](db, `
SELECT array_agg(format('%s.%s', c.relname, a.attname)
                 ORDER BY format('%s.%s', c.relname, a.attname) COLLATE "C")
FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
  AND c.relname NOT LIKE 'goose_%' AND c.relname NOT LIKE 'archived_%'
  AND a.attnum > 0 AND NOT a.attisdropped
  AND a.atttypid IN ('text'::regtype, 'varchar'::regtype, 'json'::regtype, 'jsonb'::regtype,
                     'bytea'::regtype, 'text[]'::regtype)`)
}

// unlistedTexts returns the columns of which the runbook's table of personal data should speak and
// doesn't, and those that only this file has.
func unlistedTexts(columns []string, runbook string) (problems []string) {
	known := slices.Clone(impersonalTexts)
	_, section, _ := strings.Cut(runbook, "\n## Personal data\n")
	section, _, _ = strings.Cut(section, "\n## ")
	for column, words := range personalTexts {
		known = append(known, column)
		table, _, _ := strings.Cut(column, ".")
		if !slices.ContainsFunc(strings.Split(section, "\n"), func(row string) bool {
			where, what, _ := strings.Cut(strings.TrimPrefix(row, "| "), " | ")
			return strings.Contains(where, "`"+table+"`") && strings.Contains(what, words)
		}) {
			problems = append(problems, "no row says "+words+" of "+table)
		}
	}
	slices.Sort(known)
	if diff := cmp.Diff(known, columns); diff != "" {
		problems = append(problems, "the columns (-known +schema):\n"+diff)
	}
	return problems
}

// A migration that adds a column for a text must say whether a person can be named in it.
func TestTheRunbookHasEachTextOfAPerson(t *testing.T) {
	t.Parallel()

	text, err := os.ReadFile("../../infra/RUNBOOK.md")
	if err != nil {
		t.Fatal(err)
	}
	runbook := string(text)
	db := pgtest.NewFixture(t, pgtest.New(t))
	columns := textColumns(db)
	for _, problem := range unlistedTexts(columns, runbook) {
		t.Error(problem)
	}
	without := strings.Replace(runbook, "| `returns` |", "| goods |", 1)
	if found := unlistedTexts(columns, without); len(found) != 2 {
		t.Errorf("without its row of returns the page has the faults %q", found)
	}
	db.Exec("ALTER TABLE warehouses ADD COLUMN manager text")
	if found := unlistedTexts(textColumns(db), runbook); len(found) != 1 {
		t.Errorf("with a column of a later migration the page has the faults %q", found)
	}
}
