package migrate_test

import (
	"context"
	"errors"
	"io/fs"
	"math"
	"os"
	"path"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/allo/reservations/internal/migrate"
	"github.com/allo/reservations/internal/pgtest"
	"github.com/allo/reservations/internal/postgres"
	"github.com/allo/reservations/internal/reservation"
	"github.com/allo/reservations/migrations"
)

// previousVersion is the newest versioned file of the previous release (commit 37f97ce).
const previousVersion = 13

// previousRoutines has this release's routines, but those of testdata/previous in the texts of the
// previous release. change may change a text once more.
func previousRoutines(t *testing.T, change func(file, text string) string) fstest.MapFS {
	t.Helper()
	folder := fstest.MapFS{}
	for name, text := range changed(t, func(file, text string) string {
		if previous, err := os.ReadFile("testdata/previous/" + path.Base(file)); err == nil {
			text = string(previous)
		}
		return change(path.Base(file), text)
	}) {
		folder["procedures/"+name] = &fstest.MapFile{Data: []byte(text)}
	}
	return folder
}

// busyShop is a database of the previous release with a stock row of 10 units and a hold of one.
type busyShop struct {
	*pgtest.Fixture
	t                  *testing.T
	product, warehouse uuid.UUID
	hold               uuid.UUID
	schema             fs.FS // of the release that is deployed
}

func newBusyShop(t *testing.T, change func(file, text string) string) busyShop {
	t.Helper()
	db := pgtest.NewEmpty(t)
	if _, err := migrate.UpWith(t.Context(), postgres.URL(db.DirectURL), "",
		schemaUpTo(t, previousVersion), previousRoutines(t, change)); err != nil {
		t.Fatal(err)
	}
	f := pgtest.NewFixtureOfSize(t, db, 8)
	s := busyShop{
		Fixture: f, t: t, product: f.Product(), warehouse: f.Warehouse(), hold: uuid.New(),
		schema: migrations.Schema,
	}
	s.Stock(s.product, s.warehouse, 10)
	s.Exec(reserveSQL, s.hold.String(), s.product.String(), s.warehouse.String(), nil)
	return s
}

const (
	reserveSQL = "CALL reserve_line($1, $2, $3, 1, '1 h', $4, '" + keyHash + "', NULL, NULL)"
	confirmSQL = "CALL resolve_hold($1, 'CONFIRMED', 'v', NULL, NULL, NULL, $2, '" + keyHash +
		"', NULL, NULL)"
)

// outcome is what a CALL answers.
type outcome struct {
	text string
	err  error
}

// call sends a CALL in the background.
func (s busyShop) call(sql string, args ...any) <-chan outcome {
	done := make(chan outcome, 1)
	go func() {
		var o outcome
		o.err = s.Admin.QueryRow(context.WithoutCancel(s.t.Context()), sql, args...).Scan(&o.text, nil)
		done <- o
	}()
	return done
}

// deploy installs this release in the background.
func (s busyShop) deploy() <-chan error {
	done := make(chan error, 1)
	go func() {
		_, err := migrate.UpWith(context.WithoutCancel(s.t.Context()), postgres.URL(s.DirectURL), "",
			s.schema, migrations.Routines)
		done <- err
	}()
	return done
}

// callsBesideADeploy lets a reserve and a confirm of the previous release wait for a lock, and
// deploys this release meanwhile. The calls wait for the stock row, or for their keys. Those that
// wait for the row have locked the tables, so the deploy must wait for their end. The others have
// locked no table yet, so they go on in the old body on the new schema.
func (s busyShop) callsBesideADeploy(forTheRow bool) (reserved, confirmed outcome) {
	s.t.Helper()
	lock := "SELECT FROM inventory FOR UPDATE"
	if !forTheRow {
		lock = "SELECT FROM claim_key('reserve', '') a, claim_key('confirm', '') b"
	}
	unlock := s.Lock(lock)
	reserve := s.call(reserveSQL, uuid.NewString(), s.product.String(), s.warehouse.String(),
		"reserve")
	confirm := s.call(confirmSQL, s.hold.String(), "confirm")
	s.WaitForBlocked(2)
	deployed := s.deploy()
	if forTheRow {
		// The deploy sleeps between two turns. It then holds no lock, so another caller can go on.
		s.WaitUntil(`
SELECT count(*) > 0 FROM pg_stat_activity
WHERE datname = current_database() AND wait_event = 'PgSleep'`)
		s.Lock("LOCK TABLE inventory, reservations IN ROW EXCLUSIVE MODE NOWAIT")()
		unlock()
		reserved, confirmed = <-reserve, <-confirm
	}
	if err := <-deployed; err != nil {
		s.t.Fatal(err)
	}
	if !forTheRow {
		s.WaitForBlocked(2)
		unlock()
		reserved, confirmed = <-reserve, <-confirm
	}
	return reserved, confirmed
}

func unchanged(_, text string) string { return text }

func TestCallsThatWaitWhileADeployRunsFinish(t *testing.T) {
	t.Parallel()

	for name, forTheRow := range map[string]bool{"for the row": true, "for their keys": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			s := newBusyShop(t, unchanged)
			reserved, confirmed := s.callsBesideADeploy(forTheRow)
			if reserved != (outcome{"HELD", nil}) || confirmed != (outcome{"CONFIRMED", nil}) {
				t.Errorf("the reserve = %v, the confirm = %v, want HELD and CONFIRMED", reserved,
					confirmed)
			}
			s.wantSound()
			if got := s.Counts(s.product, s.warehouse); got.Total != 9 || got.Reserved != 1 {
				t.Errorf("%d of %d units are reserved, want 1 of 9", got.Reserved, got.Total)
			}
			const rows = "SELECT string_agg(concat(kind, version), ' ' ORDER BY version, kind) FROM ledger"
			if got := pgtest.QueryOne[string](s.Fixture, rows); got != "h1 h1 c2" {
				t.Errorf("the ledger has %s, want h1 h1 c2", got)
			}
		})
	}
}

// The controls. A confirm that relies on the trigger to write its row is refused by this release's
// schema. A column that the running calls don't fill makes them fail.
func TestCallsThatDontFitTheSchemaFail(t *testing.T) {
	t.Parallel()

	const raises = "updated_at = greatest(updated_at, _now), version = version + 1"
	writesNoRow := func(file, text string) string {
		if file != "resolve_hold.sql" {
			return text
		}
		if !strings.Contains(text, raises) {
			t.Errorf("%s has no %q: the control must follow it", file, raises)
		}
		return strings.Replace(text, raises, "updated_at = greatest(updated_at, _now)", 1)
	}
	s := newBusyShop(t, writesNoRow)
	reserved, confirmed := s.callsBesideADeploy(false)
	if reserved != (outcome{"HELD", nil}) || !refused(confirmed.err, "23514", "I10") {
		t.Errorf("the reserve = %v, the confirm = %v, want HELD and I10", reserved, confirmed)
	}
	s.wantSound()

	s = newBusyShop(t, unchanged)
	schema := schemaUpTo(t, math.MaxInt)
	schema["9999_control.sql"] = &fstest.MapFile{Data: []byte(`-- +goose Up
ALTER TABLE ledger ADD COLUMN other text NOT NULL DEFAULT '';
ALTER TABLE ledger ALTER COLUMN other DROP DEFAULT;
`)}
	s.schema = schema
	reserved, confirmed = s.callsBesideADeploy(false)
	if !refused(reserved.err, "23502", "other") || !refused(confirmed.err, "23502", "other") {
		t.Errorf("the reserve = %v, the confirm = %v, want both refused", reserved, confirmed)
	}
}

// refused reports whether an error has an SQLSTATE, and a word in its text.
func refused(err error, code, word string) bool {
	var pgErr *pgconn.PgError
	return errors.As(err, &pgErr) && pgErr.Code == code && strings.Contains(pgErr.Message, word)
}

// wantSound wants an audit of everything and one of what is new to find nothing.
func (s busyShop) wantSound() {
	s.t.Helper()
	pool, err := postgres.Open(postgres.URL(s.DirectURL), 1)
	if err != nil {
		s.t.Fatal(err)
	}
	defer pool.Close()
	service := reservation.New(pool, reservation.Options{})
	all, err := service.Audit(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	fresh, err := service.AuditNew(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	if found := slices.Concat(all, fresh); len(found) != 0 {
		s.t.Errorf("the audits find %v, want nothing", found)
	}
}
