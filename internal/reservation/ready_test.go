package reservation_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/allo/reservations/internal/pgtest"
	"github.com/allo/reservations/internal/postgres"
	"github.com/allo/reservations/internal/reservation"
)

// wantNotReady checks that Ready names the reason, and nothing else when only is true.
func wantNotReady(t *testing.T, s *reservation.Service, reason string, only bool) {
	t.Helper()
	err := s.Ready(t.Context())
	var lacks *reservation.NotReadyError
	if !errors.As(err, &lacks) {
		t.Errorf("Ready() = %v, want it to lack %q", err, reason)
		return
	}
	all := slices.Concat(lacks.Settings, lacks.Schema, lacks.Routines)
	if !slices.ContainsFunc(all, func(s string) bool { return strings.Contains(s, reason) }) ||
		only && len(all) != 1 {
		t.Errorf("Ready() lacks %q, want %q, alone: %t", all, reason, only)
	}
}

func TestReadyNamesWhatAReserveLacks(t *testing.T) {
	t.Parallel()

	const helper = "FUNCTION reclaim_units(uuid, uuid, timestamptz, bigint)"
	const set = "ALTER ROLE CURRENT_USER IN DATABASE current SET "
	for name, c := range map[string]struct {
		sql, reason string
		only        bool
		works       bool // a reserve of this session still works
	}{
		"nothing": {"SELECT 1", "", false, true},
		"no routine of a verb": {
			"DROP PROCEDURE reserve_line(uuid, uuid, uuid, integer, interval, text, bytea, text, jsonb)",
			"procedures/reserve_line.sql", true, false,
		},
		"no helper, which a reserve calls only when it is short": {
			"DROP " + helper, "procedures/reclaim_holds.sql", true, true,
		},
		"a helper of an older release": {
			"COMMENT ON " + helper + " IS 'allo: procedures/reclaim_holds.sql " +
				strings.Repeat("0", 64) + "'",
			"procedures/reclaim_holds.sql", true, true,
		},
		"a helper of another origin": {
			"COMMENT ON " + helper + " IS NULL", "procedures/reclaim_holds.sql", true, true,
		},
		"a routine that another schema hides": {
			"CREATE SCHEMA first; CREATE FUNCTION first.max_tries() RETURNS integer LANGUAGE sql " +
				"AS 'SELECT 1'; " + set + "search_path = first, public",
			"procedures/max_tries.sql", true, true,
		},
		"a setting that is found on connecting": {
			set + "synchronous_commit = off", "synchronous_commit is off", true, false,
		},
		"a read-only session": {
			set + "default_transaction_read_only = on", "transaction_read_only is on", true, false,
		},
		"an older schema": {
			"UPDATE goose_versions SET is_applied = false", "the schema is older than version",
			true, true,
		},
		"no versions": {"DROP TABLE goose_versions", "the tables are missing", true, true},
		"no table":    {"DROP TABLE idempotency_keys", "INSERT on idempotency_keys", false, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			f := newFixture(t, 0)
			row := f.stock(5)
			f.Exec(strings.Replace(c.sql, "DATABASE current",
				"DATABASE "+pgx.Identifier{f.Name}.Sanitize(), 1))
			s := newService(openPool(t, f.DirectURL, 1))
			if c.reason == "" {
				if err := s.Ready(t.Context()); err != nil {
					t.Errorf("Ready() = %v, want nil", err)
				}
			} else {
				wantNotReady(t, s, c.reason, c.only)
			}
			_, err := s.Reserve(t.Context(), reservation.Request{Lines: []reservation.Line{row}})
			if (err == nil) != c.works {
				t.Errorf("Reserve() = %v, want it to work: %t", err, c.works)
			}
		})
	}
}

func TestAnEmptyDatabaseIsNotReady(t *testing.T) {
	t.Parallel()

	s := newService(openPool(t, pgtest.NewEmpty(t).URL, 1))
	wantNotReady(t, s, "lock_timeout is 0", false)
	s = newService(openPool(t, pgtest.NewEmpty(t).URL, 1, postgres.Unchecked))
	wantNotReady(t, s, "the tables are missing", true)
}

// A standby serves reads, and becomes the writer when it is promoted. The service's connections to
// it are closed when they have met its refusal, because after a fail-over a new connection reaches
// the new writer.
func TestAStandbyIsNotReadyUntilItIsPromoted(t *testing.T) {
	t.Parallel()

	server, db := pgtest.NewServer(t, nil)
	pool := openPool(t, db.URL, 1)
	s := newService(pool)
	f := pgtest.NewFixture(t, db)
	row := reservation.Line{ProductID: f.Product(), WarehouseID: f.Warehouse(), Quantity: 1}
	f.Stock(row.ProductID, row.WarehouseID, 5)
	if err := s.Ready(t.Context()); err != nil {
		t.Fatalf("Ready() = %v", err)
	}
	signal := filepath.Join(pgtest.QueryOne[string](f, "SHOW data_directory"), "standby.signal")
	f.Admin.Close()
	if err := server.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(signal, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := server.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	pool.Reset() // the restart has ended its session

	if !onlyQuery[bool](t, pool, "SELECT pg_is_in_recovery()") {
		t.Fatal("the server is no standby")
	}
	session := func() int { t.Helper(); return onlyQuery[int](t, pool, "SELECT pg_backend_pid()") }
	wantClosed := func(what string, call func() error) {
		t.Helper()
		before := session()
		err := call()
		if after := session(); err == nil || before == after {
			t.Errorf("%s on a standby = %v in session %d, then %d, want an error and a new session",
				what, err, before, after)
		}
	}
	wantClosed("a reserve", func() error {
		_, err := s.Reserve(t.Context(), reservation.Request{Lines: []reservation.Line{row}})
		if !errors.Is(err, reservation.ErrUnavailable) {
			t.Errorf("Reserve() on a standby = %v, want %v", err, reservation.ErrUnavailable)
		}
		return err
	})
	wantClosed("an update", func() error {
		return pool.Exec(t.Context(), "UPDATE products SET name = 'x'")
	})
	wantClosed("a transaction", func() error {
		return pool.Transaction(t.Context(), pgx.TxOptions{}, func(tx pgx.Tx) error {
			_, err := tx.Exec(t.Context(), "UPDATE products SET name = 'x'")
			return err
		})
	})
	wantClosed("a health check", func() error {
		wantNotReady(t, s, "transaction_read_only is on", true)
		return s.Ready(t.Context())
	})
	if _, _, err := s.ListProducts(t.Context(), reservation.Cursor{}, 10); err != nil {
		t.Errorf("ListProducts() on a standby = %v, want the catalog", err)
	}
	if _, err := s.Get(t.Context(), uuid.New()); !errors.Is(err, reservation.ErrNotFound) {
		t.Errorf("Get() on a standby = %v, want %v", err, reservation.ErrNotFound)
	}

	onlyQuery[bool](t, pool, "SELECT pg_promote()")
	if err := s.Ready(t.Context()); err != nil {
		t.Errorf("Ready() after the promotion = %v, want nil", err)
	}
	request := reservation.Request{Lines: []reservation.Line{row}}
	if _, err := s.Reserve(t.Context(), request); err != nil {
		t.Errorf("Reserve() after the promotion = %v, want nil", err)
	}
}

func onlyQuery[T any](t *testing.T, pool *postgres.Pool, sql string) T {
	t.Helper()
	value, err := postgres.QueryRow(t.Context(), pool, pgx.RowTo[T], sql)
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return value
}

// Aurora's storage keeps acknowledged commits, whatever its fsync says, and only Aurora has a
// function aurora_version. The connection, the health check and the audit follow one list.
func TestOnlyAuroraMayHaveFsyncOff(t *testing.T) {
	t.Parallel()

	_, db := pgtest.NewServer(t, map[string]string{"fsync": "off"})
	unchecked := newService(openPool(t, db.URL, 1, postgres.Unchecked))
	checked := openPool(t, db.URL, 1)
	audit := func() []reservation.Violation {
		t.Helper()
		violations, err := unchecked.Audit(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return violations
	}

	wantNotReady(t, newService(checked), "fsync is off", true)
	wantNotReady(t, unchecked, "fsync is off", true)
	if found := audit(); len(found) != 1 || found[0].Promise != "I5" ||
		!strings.Contains(found[0].Detail, "fsync is off") {
		t.Errorf("Audit() = %v, want fsync alone", found)
	}
	pgtest.NewFixture(t, db).Exec(
		"CREATE FUNCTION aurora_version() RETURNS text LANGUAGE sql AS $$ SELECT '17.7.1' $$")
	for name, err := range map[string]error{
		"the connection's check": checked.Connect(t.Context()),
		"the health check":       unchecked.Ready(t.Context()),
	} {
		if err != nil {
			t.Errorf("%s on Aurora = %v, want nil", name, err)
		}
	}
	if found := audit(); len(found) != 0 {
		t.Errorf("Audit() on Aurora = %v, want nothing", found)
	}
}
