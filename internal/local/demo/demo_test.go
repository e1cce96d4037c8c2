package demo

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/jackc/pgx/v5"

	"github.com/allo/reservations/internal/pgtest"
	"github.com/allo/reservations/internal/postgres"
	"github.com/allo/reservations/internal/reservation"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

func countRows(db *pgtest.Fixture, table string) int {
	return pgtest.QueryOne[int](db, "SELECT count(*) FROM "+table)
}

func TestSeedEmptyNeverTouchesADatabaseWithData(t *testing.T) {
	t.Parallel()

	db := pgtest.NewFixture(t, pgtest.New(t))
	db.NamedWarehouse("Mine")
	if seeded, err := SeedEmpty(t.Context(), db.DirectURL); seeded || err != nil {
		t.Errorf("SeedEmpty() = %v, %v, want false: a warehouse is there", seeded, err)
	}
	if n := countRows(db, "products"); n != 0 {
		t.Errorf("products = %d, want none", n)
	}
}

func TestTwoStartsSeedOnce(t *testing.T) {
	t.Parallel()

	db := pgtest.NewFixture(t, pgtest.New(t))
	results := make(chan bool, 2)
	for range 2 {
		go func() {
			seeded, err := SeedEmpty(context.Background(), db.DirectURL)
			if err != nil {
				t.Error(err)
			}
			results <- seeded
		}()
	}
	if a, b := <-results, <-results; a == b {
		t.Errorf("two SeedEmpty() = %v and %v, want one true", a, b)
	}
	want := len(Products()) * len(Warehouses())
	if n := countRows(db, "inventory"); n != want {
		t.Errorf("stock rows = %d, want %d", n, want)
	}
}

func TestResetPutsTheCatalogBack(t *testing.T) {
	t.Parallel()

	db := pgtest.NewFixture(t, pgtest.New(t))
	if _, err := SeedEmpty(t.Context(), db.DirectURL); err != nil {
		t.Fatal(err)
	}
	const none = "inventory WHERE total = 0"
	empty := countRows(db, none) // of the demo itself
	db.Exec(`
SELECT adjust_stock(product_id, warehouse_id, -total, 'test') FROM inventory WHERE total > 0`)
	db.NamedWarehouse("Mine")
	if err := Reset(t.Context(), db.DirectURL); err != nil {
		t.Fatal(err)
	}
	if n := countRows(db, none); n != empty {
		t.Errorf("stock rows that are empty = %d, want the demo's %d", n, empty)
	}
	if n := countRows(db, "warehouses"); n != 3 {
		t.Errorf("warehouses = %d, want the demo's 3", n)
	}
}

// The new movements have the ids of the old ones, so their source must be another one.
func TestResetBeginsAnEpoch(t *testing.T) {
	t.Parallel()

	db := pgtest.NewFixture(t, pgtest.New(t))
	if _, err := SeedEmpty(t.Context(), db.DirectURL); err != nil {
		t.Fatal(err)
	}
	epoch := func() string { return pgtest.QueryOne[string](db, "SELECT epoch::text FROM stream") }
	before := epoch()
	if err := Reset(t.Context(), db.DirectURL); err != nil {
		t.Fatal(err)
	}
	if epoch() == before {
		t.Error("the events after a reset have the source of those before")
	}
	if n := countRows(db, "ledger"); n != 0 {
		t.Errorf("the ledger has %d rows, want none", n)
	}
}

// stays lists the tables that a reset doesn't empty.
const stays = "stream ticks sinks live audit_state flush_mark goose_versions goose_lock"

// forgotten lists the tables that a reset neither empties nor leaves alone on purpose.
func forgotten(db *pgtest.Fixture) (tables []string) {
	all := pgtest.QueryOne[[]string](db, `
SELECT array_agg(c.relname::text) FROM pg_class c
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition`)
	emptied := strings.FieldsFunc(resetSQL, func(r rune) bool {
		return r != '_' && !unicode.IsLetter(r)
	})
	for _, table := range all {
		if !slices.Contains(emptied, table) && !slices.Contains(strings.Fields(stays), table) {
			tables = append(tables, table)
		}
	}
	return tables
}

// A later migration can't make a table that a reset forgets. The control makes one.
func TestResetKnowsEveryTable(t *testing.T) {
	t.Parallel()

	db := pgtest.NewFixture(t, pgtest.New(t))
	if tables := forgotten(db); len(tables) != 0 {
		t.Errorf("a reset forgets the tables %v", tables)
	}
	db.Exec("CREATE TABLE coupons (id uuid)")
	if tables := forgotten(db); !slices.Equal(tables, []string{"coupons"}) {
		t.Errorf("a reset forgets the tables %v, want coupons", tables)
	}
}

// use pays for a hold that took the place of another one, takes a part of it back, and lets a full
// audit be cut off after it found something.
func use(t *testing.T, db *pgtest.Fixture, s *reservation.Service) {
	t.Helper()
	line := reservation.Line{
		ProductID: Products()[0].ID, WarehouseID: Warehouses()[0].ID, Quantity: 2,
	}
	request := reservation.Request{
		Lines: []reservation.Line{line}, Owner: "ann", Reference: "order 1",
	}
	for range 2 {
		answer, err := s.Reserve(t.Context(), request)
		if err != nil {
			t.Fatal(err)
		}
		request.Replaces = &answer.Hold.ID
	}
	if _, err := s.ConfirmPayment(t.Context(), *request.Replaces, "payment", false, ""); err != nil {
		t.Fatal(err)
	}
	db.Exec(`
INSERT INTO returns (reservation_id, reference, line, product_id, warehouse_id, quantity, at)
VALUES ($1, 'return', 1, $2, $3, 1, clock_timestamp())`,
		*request.Replaces, line.ProductID, line.WarehouseID)
	db.Exec("UPDATE audit_state SET began = clock_timestamp(), violations = 1 WHERE kind = 'FULL'")
}

// After a reset a full audit finds nothing of what was there before. Each control leaves a part of
// it: a table, or the place of an audit that was cut off.
func TestAnAuditFindsNothingAfterAReset(t *testing.T) {
	t.Parallel()

	for _, left := range []string{
		"", " returns,", " hold_payments,", " hold_parties,", " replacements,",
		"began = NULL, part = '', after = '', violations = 0,",
	} {
		db := pgtest.NewFixture(t, pgtest.New(t))
		if _, err := SeedEmpty(t.Context(), db.DirectURL); err != nil {
			t.Fatal(err)
		}
		pool, err := postgres.Open(postgres.URL(db.URL), 2)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(pool.Close)
		s := reservation.New(pool, reservation.Options{
			HoldTTL: time.Minute, MaxHold: time.Hour, MaxPaymentHold: time.Hour,
		})
		use(t, db, s)
		if left == "" {
			if err := Reset(t.Context(), db.DirectURL); err != nil {
				t.Fatal(err)
			}
		} else {
			resetBut(t, db, left)
		}
		found, err := s.Audit(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		full, err := s.AuditFull(t.Context())
		if err != nil || !full.Complete {
			t.Fatalf("AuditFull() = %+v, %v", full, err)
		}
		if clean := len(found) == 0 && full.All == 0; clean != (left == "") {
			t.Errorf("left %q: the audits find %v and %d violations", left, found, full.All)
		}
	}
}

// resetBut resets the database without a part of the statements.
func resetBut(t *testing.T, db *pgtest.Fixture, part string) {
	t.Helper()
	sql := strings.Replace(resetSQL, part, "", 1)
	if sql == resetSQL {
		t.Fatalf("a reset doesn't have %q", part)
	}
	err := inTx(t.Context(), db.DirectURL, func(tx pgx.Tx) error {
		if _, err := tx.Exec(t.Context(), sql); err != nil {
			return err
		}
		return insert(t.Context(), tx, Products())
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestADatabaseOnAnotherMachineIsRefused(t *testing.T) {
	t.Parallel()

	for _, url := range []string{
		"postgres://u:p@db.example/d",
		"postgres://u:p@10.0.0.1/d",
		"postgres://u:p@localhost,db.example/d",
		"postgres://u:p@localhost/d?host=db.example",
		"postgres://u:p@/d?host=db.example",
		"nonsense",
	} {
		if err := RefuseRemote(url); !errors.Is(err, ErrNotLocal) {
			t.Errorf("RefuseRemote(%q) = %v, want ErrNotLocal", url, err)
		}
	}
	for _, url := range []string{
		"postgres://u:p@localhost/d",
		"postgres://u:p@127.0.0.1:5432/d",
		"postgres://u:p@[::1]/d",
		"postgres://u@/d?host=/tmp",
	} {
		if err := RefuseRemote(url); err != nil {
			t.Errorf("RefuseRemote(%q) = %v, want none", url, err)
		}
	}
}
