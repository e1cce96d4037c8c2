package migrate_test

import (
	"os"
	"path"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/allo/reservations/internal/migrate"
	"github.com/allo/reservations/internal/pgtest"
	"github.com/allo/reservations/internal/postgres"
	"github.com/allo/reservations/internal/reservation"
	"github.com/allo/reservations/migrations"
)

// beforeLedger has this release's routines, but those of testdata/before_ledger in the texts of the
// release before the ledger (commit 0dc3be1). They change holds and write no ledger.
func beforeLedger(t *testing.T) fstest.MapFS {
	t.Helper()
	folder := fstest.MapFS{}
	for name, text := range changed(t, func(file, text string) string {
		if previous, err := os.ReadFile("testdata/before_ledger/" + path.Base(file)); err == nil {
			return string(previous)
		}
		return text
	}) {
		folder["procedures/"+name] = &fstest.MapFile{Data: []byte(text)}
	}
	return folder
}

// ledgerShop is a database in which two releases take turns: this one and the one before.
type ledgerShop struct {
	*pgtest.Fixture
	t           *testing.T
	product     uuid.UUID
	here, there uuid.UUID
	s           *reservation.Service
}

func newLedgerShop(t *testing.T) ledgerShop {
	t.Helper()
	f := pgtest.NewFixture(t, pgtest.New(t))
	pool, err := postgres.Open(postgres.URL(f.DirectURL), 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	shop := ledgerShop{
		Fixture: f, t: t, product: f.Product(), here: f.Warehouse(), there: f.Warehouse(),
		s: reservation.New(pool, reservation.Options{HoldTTL: time.Hour, MaxHold: 2 * time.Hour}),
	}
	f.Stock(shop.product, shop.here, 8)
	f.Stock(shop.product, shop.there, 8)
	return shop
}

// install puts the routines of a release in place.
func (s ledgerShop) install(routines fstest.MapFS) {
	s.t.Helper()
	if _, err := migrate.UpWith(s.t.Context(), postgres.URL(s.DirectURL), "", migrations.Schema,
		routines); err != nil {
		s.t.Fatal(err)
	}
}

// thisRelease has the routines of this release.
func thisRelease(t *testing.T) fstest.MapFS {
	t.Helper()
	folder := fstest.MapFS{}
	for name, text := range changed(t, func(_, text string) string { return text }) {
		folder["procedures/"+name] = &fstest.MapFile{Data: []byte(text)}
	}
	return folder
}

// hold holds a unit in each warehouse by the routines that are in place.
func (s ledgerShop) hold(warehouses ...uuid.UUID) string {
	s.t.Helper()
	id := uuid.NewString()
	if len(warehouses) == 1 {
		s.Exec("CALL reserve_line($1, $2, $3, 1, '1 h', NULL, NULL, NULL, NULL)", id,
			s.product.String(), warehouses[0].String())
		return id
	}
	places := []string{s.here.String(), s.there.String()}
	slices.Sort(places)
	s.Exec("CALL reserve_cart($1, $2, $3, '{1,1}', '1 h', NULL, NULL, NULL, NULL)", id,
		[]string{s.product.String(), s.product.String()}, places)
	return id
}

// The calls of the previous release for a hold.
func (s ledgerShop) resolve(id, status string) {
	s.t.Helper()
	s.Exec("CALL resolve_hold($1, $2::text::reservation_status, NULL, NULL, NULL, NULL)", id, status)
}

func (s ledgerShop) extend(id string) {
	s.t.Helper()
	s.Exec("CALL extend_hold($1, '90 min', '2 h', NULL, NULL, NULL, NULL)", id)
}

func (s ledgerShop) wantLedger(what, id string, version int, want ...string) {
	s.t.Helper()
	got := pgtest.QueryOne[[]string](s.Fixture, `
SELECT coalesce(array_agg(concat(l.kind, l.cause) ORDER BY l.version), '{}')
FROM ledger l WHERE l.hold_id = $1`, id)
	if diff := cmp.Diff(append([]string{}, want...), got); diff != "" {
		s.t.Errorf("the ledger of %s differs (-want +got):\n%s", what, diff)
	}
	if got := pgtest.QueryOne[int](s.Fixture, "SELECT version FROM reservations WHERE id = $1",
		id); got != version {
		s.t.Errorf("%s is of version %d, want %d", what, got, version)
	}
}

// broken returns the promises that an audit of everything, or one of what is new, finds broken.
func (s ledgerShop) broken() (promises []string) {
	s.t.Helper()
	all, err := s.s.Audit(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	fresh, err := s.s.AuditNew(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	for _, v := range append(all, fresh...) {
		promises = append(promises, v.Promise)
	}
	slices.Sort(promises)
	return slices.Compact(promises)
}

func (s ledgerShop) wantSound(when string) {
	s.t.Helper()
	if broken := s.broken(); len(broken) != 0 {
		s.t.Errorf("%s the audits find %v broken, want nothing", when, broken)
	}
	if found := previousAudit(s.t, s.Fixture); len(found) != 0 {
		s.t.Errorf("%s the audit of a release before finds %q, want nothing", when, found)
	}
}

// takenOver are holds of this release that the previous one's routines changed.
type takenOver struct {
	confirmed, cart, released, extended, swept, sweptCart, reclaimed string
}

// workOnAsBefore lets the previous release's routines change holds of this one.
func (s ledgerShop) workOnAsBefore() takenOver {
	s.t.Helper()
	h := takenOver{
		confirmed: s.hold(s.here), cart: s.hold(s.here, s.there), released: s.hold(s.here),
		extended: s.hold(s.here), swept: s.hold(s.here), sweptCart: s.hold(s.here, s.there),
		reclaimed: s.hold(s.there),
	}
	s.install(beforeLedger(s.t))
	s.resolve(h.confirmed, "CONFIRMED")
	s.resolve(h.cart, "CONFIRMED")
	s.resolve(h.released, "RELEASED")
	s.extend(h.extended)
	s.extend(h.extended)
	s.Kill(uuid.MustParse(h.reclaimed))
	s.Exec(`
SELECT adjust_stock(product_id, warehouse_id, reserved - total, 'gone')
FROM inventory WHERE warehouse_id = $1`, s.there.String())
	s.hold(s.there) // needs the dead hold's unit
	s.Kill(uuid.MustParse(h.swept), uuid.MustParse(h.sweptCart))
	s.Exec("SELECT sweep_holds(1000)")
	return h
}

// A deploy that goes back, or a call that runs through one, has the previous release's routines
// change this one's holds.
func TestTheTransitionsOfThePreviousReleasesRoutinesAreInTheLedger(t *testing.T) {
	t.Parallel()

	s := newLedgerShop(t)
	h := s.workOnAsBefore()
	s.wantLedger("a confirmed hold", h.confirmed, 2, "hv", "cv")
	s.wantLedger("a confirmed cart", h.cart, 2, "hv", "cv")
	s.wantLedger("a released hold", h.released, 2, "hv", "rv")
	s.wantLedger("an extended hold", h.extended, 3, "hv", "xv", "xv")
	s.wantLedger("a swept hold", h.swept, 2, "hv", "es")
	s.wantLedger("a swept cart", h.sweptCart, 2, "hv", "es")
	s.wantLedger("a reclaimed hold", h.reclaimed, 2, "hv", "em")
	s.wantSound("after calls of the previous release")

	s.install(thisRelease(t))
	s.resolve(h.extended, "CONFIRMED")
	s.wantLedger("an extended hold", h.extended, 4, "hv", "xv", "xv", "cv")
	s.wantSound("after calls of this release")
}

func TestTheTransitionsOfThePreviousReleaseAreMissingWithoutTheTrigger(t *testing.T) {
	t.Parallel()

	s := newLedgerShop(t)
	pgtest.Mutate(t, s.Database, "take_over_transition", "IF _hold.version = 0 THEN", "IF true THEN")
	h := s.workOnAsBefore()
	s.wantLedger("a confirmed hold", h.confirmed, 1, "hv")
	if broken := s.broken(); !slices.Contains(broken, "I10") {
		t.Errorf("the audits find %v broken, want I10 among them", broken)
	}
}

// A hold that the previous release made has no ledger, until this release changes it.
func TestAHoldOfThePreviousReleaseHasALedgerFromItsNextTransitionOn(t *testing.T) {
	t.Parallel()

	s := newLedgerShop(t)
	s.install(beforeLedger(t))
	confirmed, cart := s.hold(s.here), s.hold(s.here, s.there)
	later, extended, swept := s.hold(s.here), s.hold(s.here, s.there), s.hold(s.here)
	s.resolve(confirmed, "CONFIRMED")
	s.resolve(cart, "CONFIRMED")
	for _, id := range []string{confirmed, cart, later} {
		s.wantLedger("a hold of the previous release", id, 0)
	}
	s.wantSound("after calls of the previous release")

	s.install(thisRelease(t))
	s.resolve(later, "CONFIRMED")
	s.extend(extended)
	s.resolve(extended, "CONFIRMED")
	s.Kill(uuid.MustParse(swept))
	s.Exec("SELECT sweep_holds(1000)")
	s.wantLedger("a confirmed hold", later, 1, "cv")
	s.wantLedger("an extended cart", extended, 2, "xv", "cv")
	s.wantLedger("a swept hold", swept, 1, "es")
	s.wantSound("after calls of this release")

	s.Exec(`
ALTER TABLE stock_movements DISABLE TRIGGER i8_movements_stay;
UPDATE stock_movements SET kind = 'ADJUSTMENT' WHERE reservation_id = '` + confirmed + `'`)
	if broken := s.broken(); !slices.Contains(broken, "I8") {
		t.Errorf("without the sale of a hold of version 0 the audits find %v broken, want I8", broken)
	}
}

// restartSQL makes a hold as this release does, and restarts it in the same transaction.
const restartSQL = `
WITH held AS (
    INSERT INTO reservations
           (id, product_id, warehouse_id, quantity, created_at, updated_at, expires_at, version)
    SELECT gen_random_uuid(), product_id, warehouse_id, 1, now(), now(), now() + interval '1 h', 1
    FROM inventory LIMIT 1
    RETURNING *
), stock AS (
    UPDATE inventory i SET reserved = i.reserved + 1 FROM held h
    WHERE h.product_id = i.product_id AND h.warehouse_id = i.warehouse_id
)
INSERT INTO ledger (at, expires_at, hold_id, version, kind, cause)
SELECT updated_at, expires_at, id, 1, 'h', 'v' FROM held;
SELECT restart_hold(hold_id, '1 h', NULL) FROM ledger`

// The text of restart_hold may be the previous release's while a reserve of this one runs.
func TestARestartByThePreviousReleaseMovesTheLedger(t *testing.T) {
	t.Parallel()

	for name, c := range map[string]struct {
		routines func(*testing.T) fstest.MapFS
		without  bool
		broken   []string
	}{
		"this release":                          {thisRelease, false, nil},
		"the previous release":                  {beforeLedger, false, nil},
		"the previous release without the move": {beforeLedger, true, []string{"I10"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			s := newLedgerShop(t)
			if c.without {
				pgtest.Mutate(t, s.Database, "take_over_transition", "SET at = _hold.updated_at, ",
					"SET at = at, ")
			}
			s.install(c.routines(t))
			s.Exec("BEGIN; " + restartSQL + "; COMMIT")
			if got := s.broken(); !slices.Equal(got, c.broken) {
				t.Errorf("the audits find %v broken, want %v", got, c.broken)
			}
		})
	}
}

// A deploy that goes back gives the service's role the rights of the previous release only.
func TestTheRoleOfThePreviousReleaseWritesTheLedger(t *testing.T) {
	t.Parallel()

	s := newLedgerShop(t)
	id := s.hold(s.here)
	role := pgx.Identifier{"ledger_" + s.Name}.Sanitize()
	s.Exec("CREATE ROLE " + role)
	defer s.Exec("DROP ROLE " + role)
	defer s.Exec("DROP OWNED BY " + role)
	s.Exec("GRANT SELECT, UPDATE (status, updated_at) ON reservations TO " + role)
	s.Exec("GRANT SELECT, UPDATE (reserved) ON inventory TO " + role)
	change := "BEGIN; SET LOCAL ROLE " + role + `;
UPDATE reservations SET status = 'RELEASED', updated_at = clock_timestamp();
UPDATE inventory SET reserved = 0; COMMIT`
	s.Exec(change)
	s.wantLedger("a released hold", id, 2, "hv", "rv")
	s.wantSound("after a change")

	s.hold(s.here)
	s.Exec("ALTER FUNCTION take_over_transition SECURITY INVOKER")
	_, err := s.Admin.Exec(t.Context(), strings.Replace(change, "clock_timestamp()",
		"clock_timestamp() WHERE status = 'PENDING'", 1))
	if err == nil || !strings.Contains(err.Error(), "permission denied") {
		t.Errorf("a change without the owner's rights = %v, want it refused", err)
	}
}

// The previous release's archive_holds knows of no ledger. It archives its own holds, and none of
// this release: the rows that it would leave behind are of a hold that nobody finds.
func TestThePreviousReleaseArchivesNoHoldWithoutItsLedger(t *testing.T) {
	t.Parallel()

	const archive = "SELECT archived FROM archive_holds('30 days', '-infinity', 100)"
	for name, guarded := range map[string]bool{"guarded": true, "without the guard": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			s := newLedgerShop(t)
			s.resolve(s.hold(s.here), "RELEASED")
			s.Exec("BEGIN; SET LOCAL session_replication_role = replica;" + agoSQL + "; COMMIT")
			s.install(beforeLedger(t))
			if !guarded {
				pgtest.Mutate(t, s.Database, "refuse_removal_of_hold",
					"FROM ledger l WHERE l.hold_id = old.id", "FROM ledger WHERE false")
			}
			_, err := s.Admin.Exec(t.Context(), archive)
			refused := err != nil && strings.Contains(err.Error(), "I10: the ledger")
			if refused != guarded {
				t.Fatalf("archive_holds() = %v, want it refused: %t", err, guarded)
			}
			if broken := s.broken(); slices.Contains(broken, "I10") == guarded {
				t.Errorf("the audits find %v broken, want I10: %t", broken, !guarded)
			}
			if !guarded {
				return
			}
			s.install(thisRelease(t))
			if n := pgtest.QueryOne[int](s.Fixture, archive); n != 1 {
				t.Errorf("this release archives %d holds, want 1", n)
			}
			s.wantSound("after this release has archived")
		})
	}
}

// agoSQL lets all that is resolved have happened long ago.
const agoSQL = `
UPDATE reservations SET created_at = created_at - interval '100 d',
       updated_at = updated_at - interval '100 d', expires_at = expires_at - interval '100 d';
UPDATE reservation_items SET expires_at = expires_at - interval '100 d';
UPDATE stock_movements SET at = at - interval '100 d';
` + pgtest.MoveLedgerSQL

// The calls of the previous release (commit 0dc3be1) whose routines have another signature now, or
// another text.
var lastCalls = []recordedCall{
	{
		"CALL reserve_line($1, $2, $3, $4, $5, $6, $7, NULL, NULL)",
		[]string{single, product, warehouse, "2", tenMin, "key", keyHash},
		[]string{"HELD", "T"},
	},
	{
		"CALL reserve_cart($1, $2, $3, $4, $5, $6, $7, NULL, NULL)",
		[]string{
			cart, "{" + product + "," + other + "}", "{" + warehouse + "," + warehouse + "}",
			"{1,2}", tenMin, "", "",
		},
		[]string{"HELD", "T"},
	},
	{
		"CALL extend_hold($1, $2, $3, $4, $5, NULL, NULL)",
		[]string{single, tenMin, hour, "", ""},
		[]string{"PENDING", single},
	},
	{
		"CALL resolve_hold($1, $2, $3, $4, NULL, NULL)",
		[]string{single, "CONFIRMED", "again", keyHash},
		[]string{"CONFIRMED", `"version": 3`},
	},
	{
		"CALL resolve_hold($1, $2, $3, $4, NULL, NULL)",
		[]string{single, "CONFIRMED", "again", keyHash},
		[]string{"REPLAYED", single},
	},
	{
		"CALL resolve_hold($1, $2, $3, $4, NULL, NULL)",
		[]string{cart, "RELEASED", "", ""},
		[]string{"RELEASED", `"items": [`},
	},
	{
		"SELECT run, part, after, since FROM begin_audit($1, $2::text::timestamptz)",
		[]string{"NEW", "2026-01-01"},
		[]string{"1", "", "", "20"},
	},
	{
		"SELECT violations, found::text FROM end_audit($1, $2, $3, $4)",
		[]string{"NEW", "1", "true", "0"},
		[]string{"0", "[]"},
	},
	{
		"SELECT archived, coalesce(reached, 'epoch'), more FROM archive_holds($1, $2, $3)",
		[]string{"40 days", "0001-01-01", "1000"},
		[]string{"0", "1970", "f"},
	},
	{
		"SELECT archived, more FROM archive_movements($1, $2, $3)",
		[]string{"40 days", "1000", "1000"},
		[]string{"0", "f"},
	},
	{"SELECT operator_stats()", nil, []string{`"confirmed": 1`}},
}

func TestCallsOfTheReleaseBeforeTheLedgerWork(t *testing.T) {
	t.Parallel()

	callAll(t, lastCalls)
}
