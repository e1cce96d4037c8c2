package reservation_test

import (
	"flag"
	"math/rand/v2"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/allo/reservations/internal/reservation"
)

// modelHold is a hold of the model.
type modelHold struct {
	status   reservation.Status // the stored status
	quantity int
	created  time.Time
	updated  time.Time
	expires  time.Time
}

// makeModelHolds makes random holds of the last two hours. A fifth of them begin exactly at a full
// minute.
func makeModelHolds(random *rand.Rand, now time.Time, n int) []modelHold {
	var all []modelHold
	for range n {
		age := time.Duration(random.Int64N(int64(2 * time.Hour)))
		created := now.Add(-age).Truncate(time.Microsecond)
		if random.IntN(5) == 0 {
			created = created.Truncate(time.Minute)
		}
		l := modelHold{
			quantity: 1 + random.IntN(3),
			created:  created,
			updated:  created,
			expires:  created.Add(time.Duration(1+random.IntN(3000)) * time.Second),
		}
		after := time.Duration(random.Int64N(int64(l.expires.Sub(created)))) + time.Microsecond
		resolved := created.Add(after).Truncate(time.Microsecond)
		inTime := resolved.Before(now) && resolved.Before(l.expires)
		switch kind := random.IntN(4); {
		case kind == 0 && inTime:
			l.status, l.updated = reservation.Confirmed, resolved
		case kind == 1 && inTime:
			l.status, l.updated = reservation.Released, resolved
		case kind == 2 && l.expires.Before(now):
			l.status, l.updated = reservation.Expired, l.expires
		default:
			l.status = reservation.Pending
		}
		all = append(all, l)
	}
	return all
}

// modelStats computes the stats from the model's holds.
func modelStats(all []modelHold, total int64, now time.Time) reservation.Stats {
	want := reservation.Stats{Now: now, Total: total}
	first := now.Truncate(time.Minute).Add(-(reservation.StatsMinutes - 1) * time.Minute)
	for n := range reservation.StatsMinutes {
		want.Minutes = append(want.Minutes,
			reservation.Minute{At: first.Add(time.Duration(n) * time.Minute)})
	}
	minute := func(at time.Time) *reservation.Minute {
		if n := int(at.Sub(first) / time.Minute); !at.Before(first) &&
			n < reservation.StatsMinutes {
			return &want.Minutes[n]
		}
		return new(reservation.Minute) // outside of the last hour
	}
	for _, l := range all {
		minute(l.created).Held++
		dead := l.status == reservation.Pending && !l.expires.After(now)
		switch {
		case l.status == reservation.Confirmed:
			minute(l.updated).Confirmed++
		case l.status == reservation.Released:
			minute(l.updated).Released++
		case l.status == reservation.Expired || dead:
			minute(l.expires).Expired++
		default:
			want.Live++
			want.LiveUnits += int64(l.quantity)
		}
		if dead {
			want.Dead++
			want.SweepLag = max(want.SweepLag, now.Sub(l.expires))
		}
	}
	return want
}

// insertModelHolds inserts the model's holds. Those of more than one unit become carts of two
// lines.
func insertModelHolds(f *fixture, rows []reservation.Line, all []modelHold) {
	f.t.Helper()
	f.Exec("UPDATE inventory SET first_end = '-infinity'")
	var batch pgx.Batch
	const hold = `
WITH made AS (
    INSERT INTO reservations
           (id, product_id, warehouse_id, quantity, created_at, updated_at, expires_at, status,
            version)
    VALUES (gen_random_uuid(), $1, $2, $3, $4, $5, $6, $7::text::reservation_status,
            CASE $7::text WHEN 'PENDING' THEN 1 ELSE 2 END)
    RETURNING id, expires_at, status
)
INSERT INTO reservation_items
       (reservation_id, product_id, warehouse_id, expires_at, quantity, counted)
SELECT id, product_id, warehouse_id, expires_at, quantity, status = 'PENDING'
FROM made, unnest($8::uuid[], $9::uuid[], $10::integer[]) l (product_id, warehouse_id, quantity)`
	product, warehouse := rows[0].ProductID.String(), rows[0].WarehouseID.String()
	product2, warehouse2 := rows[1].ProductID.String(), rows[1].WarehouseID.String()
	for _, l := range all {
		// A hold of one line has a product and a warehouse. A cart has arrays of them instead.
		oneProduct, oneWarehouse := &product, &warehouse
		var products, warehouses []string
		var quantities []int
		if l.quantity > 1 {
			oneProduct, oneWarehouse = nil, nil
			products = []string{product, product2}
			warehouses = []string{warehouse, warehouse2}
			quantities = []int{1, l.quantity - 1}
		}
		batch.Queue(hold, oneProduct, oneWarehouse, l.quantity, l.created, l.updated, l.expires,
			string(l.status), products, warehouses, quantities)
	}
	if err := f.Admin.SendBatch(f.Context(), &batch).Close(); err != nil {
		f.t.Fatal(err)
	}
	f.Exec("ALTER TABLE inventory DISABLE TRIGGER i8_total_moves")
	f.Exec("ALTER TABLE stock_movements DISABLE TRIGGER i8_movement_is_right")
	f.Exec(`
WITH lines AS (
    SELECT r.id, r.product_id, r.warehouse_id, r.quantity, r.status, r.updated_at
    FROM reservations r WHERE r.product_id IS NOT NULL
    UNION ALL
    SELECT r.id, l.product_id, l.warehouse_id, l.quantity, r.status, r.updated_at
    FROM reservation_items l JOIN reservations r ON r.id = l.reservation_id
), sales AS (
    SELECT *, row_number() OVER w AS n, sum(quantity) OVER w AS sold
    FROM lines WHERE status = 'CONFIRMED'
    WINDOW w AS (PARTITION BY product_id, warehouse_id ORDER BY id)
), stock AS (
    UPDATE inventory i
    SET reserved = s.held, total = total - s.sold, seq = seq + s.sales
    FROM (SELECT product_id, warehouse_id,
                 coalesce(sum(quantity) FILTER (WHERE status = 'PENDING'), 0) AS held,
                 coalesce(sum(quantity) FILTER (WHERE status = 'CONFIRMED'), 0) AS sold,
                 count(*) FILTER (WHERE status = 'CONFIRMED') AS sales
          FROM lines GROUP BY 1, 2) s
    WHERE i.product_id = s.product_id AND i.warehouse_id = s.warehouse_id
    RETURNING i.product_id, i.warehouse_id, i.seq - s.sales AS seq, i.total + s.sold AS total
), transitions AS (
    INSERT INTO ledger (at, expires_at, hold_id, version, kind, cause)
    SELECT r.created_at, r.expires_at, r.id, 1, 'h', 'v' FROM reservations r
    UNION ALL
    SELECT r.updated_at, r.expires_at, r.id, 2,
           CASE r.status WHEN 'CONFIRMED' THEN 'c' WHEN 'RELEASED' THEN 'r' ELSE 'e' END,
           CASE r.status WHEN 'EXPIRED' THEN 's' ELSE 'v' END
    FROM reservations r WHERE r.status <> 'PENDING'
)
INSERT INTO stock_movements
       (product_id, warehouse_id, seq, at, reservation_id, kind, delta, total_after)
SELECT product_id, warehouse_id, k.seq + s.n, s.updated_at, s.id, 'SALE', -s.quantity,
       k.total - s.sold
FROM sales s JOIN stock k USING (product_id, warehouse_id)`)
	f.Exec("ALTER TABLE inventory ENABLE TRIGGER i8_total_moves")
	f.Exec("ALTER TABLE stock_movements ENABLE TRIGGER i8_movement_is_right")
}

// withinAMicrosecond compares durations that went through floating point.
var withinAMicrosecond = cmp.Comparer(
	func(a, b time.Duration) bool { return (a - b).Abs() < time.Microsecond })

func TestStatsAgreeWithTheModelBeforeAndAfterTheSweep(t *testing.T) {
	t.Parallel()

	const seed, holds = 6, 600
	f := newFixture(t, 1)
	ctx := f.Context()
	s := f.services()[0]
	rows := f.stocks(5000, 5000)
	all := makeModelHolds(rand.New(rand.NewPCG(seed, seed)),
		queryOne[time.Time](f, "SELECT clock_timestamp()"), holds)
	insertModelHolds(f, rows, all)
	total := queryOne[int64](f, "SELECT sum(total) FROM inventory")
	f.mustAudit(t)

	before, err := s.Stats(ctx)
	if err != nil {
		t.Fatal(err)
	}
	want := modelStats(all, total, before.Now)
	if diff := cmp.Diff(want, before, withinAMicrosecond); diff != "" {
		t.Errorf("Stats() before the sweep differ (-want +got):\n%s", diff)
	}
	if want.Live == 0 || want.Dead == 0 || want.SweepLag < time.Minute {
		t.Fatalf("the model's stats are %+v, want live holds, dead holds and a lag", want)
	}
	f.tick()
	counted, err := s.Stats(ctx)
	want = modelStats(all, total, counted.Now)
	if diff := cmp.Diff(want, counted, withinAMicrosecond); err != nil || diff != "" {
		t.Errorf("Stats() after a tick differ (-want +got), %v:\n%s", err, diff)
	}

	if _, err := s.Sweep(ctx); err != nil {
		t.Fatal(err)
	}
	after, err := s.Stats(ctx)
	if err != nil {
		t.Fatal(err)
	}
	// More holds may have died since the sweep. The model doesn't know which dead holds were swept, so
	// Dead and SweepLag are taken from the answer.
	want = modelStats(all, total, after.Now)
	if after.SweepLag > after.Now.Sub(before.Now) || (after.Dead == 0) != (after.SweepLag == 0) {
		t.Errorf("Stats() after the sweep shows %d dead holds and a lag of %v", after.Dead,
			after.SweepLag)
	}
	want.Dead, want.SweepLag = after.Dead, after.SweepLag
	if diff := cmp.Diff(want, after, withinAMicrosecond); diff != "" {
		t.Errorf("Stats() after the sweep differ (-want +got):\n%s", diff)
	}
}

func TestBrokenStatsDifferFromTheModel(t *testing.T) {
	t.Parallel()

	for name, c := range map[string]struct{ old, replacement string }{
		"dead holds count as live": {
			"r.expires_at <= _now OR", "false OR",
		},
		"61 minutes":                        {"interval '59 minutes'", "interval '60 minutes'"},
		"dead holds don't count as expired": {"WHERE p.ended >= _first", "WHERE false"},
		"what was counted is missing":       {"WHERE c.minute >= _first", "WHERE false"},
		"the first counted minute is missing": {
			"c.minute >= _first", "c.minute >= _first + interval '2 min'",
		},
		"what was counted is counted again": {"l.xid >= pg_snapshot_xmax(_last)", "true"},
		"the last two minutes are missing": { // the last one may have just begun
			"c.minute >= _first",
			"c.minute >= _first AND c.minute < _first + interval '58 min'",
		},
		"the lag of the youngest dead hold": {
			"_now - min(p.first_end)", "_now - max(p.first_end)",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			f := newFixture(t, 1)
			rows := f.stocks(5000, 5000)
			all := makeModelHolds(rand.New(rand.NewPCG(6, 6)),
				queryOne[time.Time](f, "SELECT clock_timestamp()"), 600)
			insertModelHolds(f, rows, all)
			total := queryOne[int64](f, "SELECT sum(total) FROM inventory")
			f.tick()
			f.mutate("operator_stats", c.old, c.replacement)

			got, err := f.services()[0].Stats(f.Context())
			if err != nil {
				t.Fatal(err)
			}
			if cmp.Diff(modelStats(all, total, got.Now), got, withinAMicrosecond) == "" {
				t.Error("the stats agree with the model, want a difference")
			}
		})
	}
}

func TestStatsFollowTheVerbs(t *testing.T) {
	t.Parallel()

	f := newFixture(t, 1)
	ctx := f.Context()
	s := f.services()[0]
	rows := f.stocks(10, 20)
	readStats := func() reservation.Stats {
		t.Helper()
		stats, err := s.Stats(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return stats
	}
	empty := readStats()
	if empty.Live != 0 || empty.LiveUnits != 0 || empty.Dead != 0 || empty.SweepLag != 0 ||
		empty.Total != 30 || len(empty.Minutes) != 60 || empty.Audit != nil {
		t.Errorf("Stats() without holds = %+v, want 30 units, none held", empty)
	}

	f.hold(of(rows[0], 2))
	dead := f.hold(of(rows[0], 3), rows[1])
	confirmed, released := f.hold(of(rows[1], 4)), f.hold(rows[1])
	if _, err := s.Confirm(ctx, confirmed.ID, ""); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Release(ctx, released.ID, ""); err != nil {
		t.Fatal(err)
	}
	f.kill(dead)

	// kill has moved the dead hold's creation out of the hour.
	got := readStats()
	var sum reservation.Minute
	for _, m := range got.Minutes {
		sum.Held += m.Held
		sum.Confirmed += m.Confirmed
		sum.Released += m.Released
		sum.Expired += m.Expired
	}
	if want := (reservation.Minute{Held: 3, Confirmed: 1, Released: 1, Expired: 1}); sum != want {
		t.Errorf("the minutes add up to %+v, want %+v", sum, want)
	}
	if got.Live != 1 || got.LiveUnits != 2 || got.Dead != 1 || got.Total != 26 ||
		got.SweepLag < time.Second || got.SweepLag > testTimeout {
		t.Errorf("Stats() = %+v, want a live hold of 2 units, one that died a second ago, and "+
			"a total of 26", got)
	}
	if _, err := s.Sweep(ctx); err != nil {
		t.Fatal(err)
	}
	if swept := readStats(); swept.Dead != 0 || swept.SweepLag != 0 || swept.Live != 1 {
		t.Errorf("Stats() after the sweep = %+v, want none dead", swept)
	}
	f.mustAudit(t)
}

// held reads the holds of the last hour in the stats.
func held(t *testing.T, s *reservation.Service) (n int64) {
	t.Helper()
	stats, err := s.Stats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range stats.Minutes {
		n += m.Held
	}
	return n
}

// tick takes a tick.
func (f *fixture) tick() {
	f.t.Helper()
	f.Exec("SELECT take_tick()")
}

// reserveDuringATick takes a tick while a transaction that holds a unit is open, and another one
// that began later is over. It returns the number of holds that a read of the stats shows then,
// after the first one's commit, and after another tick.
func (f *fixture) reserveDuringATick(read func() int64) (open, committed, counted int64) {
	f.t.Helper()
	ctx := f.Context()
	row := f.stock(10)
	tx, err := f.Admin.Begin(ctx)
	if err != nil {
		f.t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(ctx) }()
	const hold = `
WITH made AS (
    INSERT INTO reservations
           (id, product_id, warehouse_id, quantity, created_at, updated_at, expires_at, version)
    SELECT gen_random_uuid(), $1, $2, 1, now(), now(), now() + interval '1 h', 1
    RETURNING id, updated_at, expires_at
), stock AS (
    UPDATE inventory SET reserved = reserved + 1, first_end = '-infinity' WHERE product_id = $1
)
INSERT INTO ledger (at, expires_at, hold_id, version, kind, cause)
SELECT updated_at, expires_at, id, 1, 'h', 'v' FROM made`
	if _, err := tx.Exec(ctx, hold, row.ProductID.String(), row.WarehouseID.String()); err != nil {
		f.t.Fatal(err)
	}
	f.hold(f.stock(10))
	f.tick()
	open = read()
	if err := tx.Commit(ctx); err != nil {
		f.t.Fatal(err)
	}
	committed = read()
	f.tick()
	return open, committed, read()
}

func TestStatsCountATransactionThatRanDuringATick(t *testing.T) {
	t.Parallel()

	f := newFixture(t, 0)
	open, committed, counted := f.reserveDuringATick(
		func() int64 { return held(t, newService(f.own)) })
	if open != 1 || committed != 2 || counted != 2 {
		t.Errorf("the stats show %d, %d and %d holds, want 1, 2 and 2", open, committed, counted)
	}
	f.mustAudit(t)
}

// A reader has a tick together with all that the tick's snapshot sees.
func TestStatsOnAReaderCountATransactionThatRanDuringATick(t *testing.T) {
	t.Parallel()

	f := newFollower(t)
	open, committed, counted := f.reserveDuringATick(func() int64 {
		f.followedUp()
		return held(t, f.s)
	})
	if open != 1 || committed != 2 || counted != 2 {
		t.Errorf("the stats show %d, %d and %d holds, want 1, 2 and 2", open, committed, counted)
	}
}

func TestStatsForgetATransactionThatRanDuringATickWithoutTheLook(t *testing.T) {
	t.Parallel()

	f := newFixture(t, 0)
	f.mutate("operator_stats", "l.xid = ANY (ARRAY(SELECT pg_snapshot_xip(_last)))", "false")
	open, committed, counted := f.reserveDuringATick(
		func() int64 { return held(t, newService(f.own)) })
	if open != 1 || committed != 1 || counted != 2 {
		t.Errorf("the stats show %d, %d and %d holds, want 1, 1 and 2", open, committed, counted)
	}
}

// The counts of minutes are kept for a day.
func TestASweepRemovesTheCountsOfMinutesBeforeADay(t *testing.T) {
	t.Parallel()

	f := newFixture(t, 0)
	f.Exec(`
INSERT INTO minute_counts (minute, held)
SELECT date_bin('1 minute', clock_timestamp(), 'epoch') - n * interval '1 hour', 1
FROM generate_series(0, 30) n`)
	if _, err := newService(f.own).Sweep(f.Context()); err != nil {
		t.Fatal(err)
	}
	if n := queryOne[int](f, "SELECT count(*) FROM minute_counts"); n != 24 {
		t.Errorf("%d counts are left, want those of 24 hours", n)
	}
	if n := held(t, newService(f.own)); n != 1 {
		t.Errorf("the stats show %d holds, want the one of the last hour", n)
	}
}

// The numbers of TestTheStatsReadWhatIsLive. This is how to measure with those of a large shop:
//
//	go test ./internal/reservation -run TheStatsReadWhatIsLive -v -timeout 1h \
//	        -live 100000 -resolved 4000000
var (
	liveHolds     = flag.Int("live", 5_000, "live holds")
	resolvedHolds = flag.Int("resolved", 100_000, "holds that were resolved within the hour")
)

// The stats read what is live, and what no tick has counted. The holds that were resolved in the
// hour don't matter.
func TestTheStatsReadWhatIsLive(t *testing.T) {
	t.Parallel()

	f := newFixture(t, 0)
	f.stock(0)
	f.script(settingsSQL+`
INSERT INTO reservations (id, product_id, warehouse_id, quantity, created_at, updated_at,
                          expires_at, status, version)
SELECT gen_random_uuid(), i.product_id, i.warehouse_id, 1, t.at, t.at, t.at + interval '2 h',
       CASE WHEN n <= {resolved} THEN 'RELEASED' ELSE 'PENDING' END::reservation_status,
       CASE WHEN n <= {resolved} THEN 2 ELSE 1 END
FROM inventory i, generate_series(1, {resolved} + {live}) n,
     LATERAL (SELECT clock_timestamp() - (n % 2400) * interval '1 s' AS at) t;
INSERT INTO ledger (at, expires_at, hold_id, version, kind, cause)
SELECT r.created_at, r.expires_at, r.id, v, CASE v WHEN 1 THEN 'h' ELSE 'r' END, 'v'
FROM reservations r, generate_series(1, r.version) v;
VACUUM ANALYZE reservations, ledger;
SET synchronous_commit = on;
SELECT take_tick()`, "{resolved}", strconv.Itoa(*resolvedHolds), "{live}", strconv.Itoa(*liveHolds))
	f.Exec("VACUUM ANALYZE minute_counts, ticks")
	const sql = "SELECT operator_stats()"
	blocks, took := f.Explain(sql)
	t.Logf("the stats with %d live holds read %d blocks and took %.1f ms", *liveHolds, blocks, took)
	// Each live hold is a row of the table, found by an index.
	if limit := *liveHolds + 500; blocks > limit {
		t.Errorf("the stats read %d blocks, want at most %d", blocks, limit)
	}
	if got := held(t, newService(f.own)); got != int64(*resolvedHolds+*liveHolds) {
		t.Errorf("the stats show %d holds, want all", got)
	}
	f.Exec("TRUNCATE ticks")
	if uncounted, took := f.Explain(sql); uncounted < 2*blocks {
		t.Errorf("without the tick they read %d blocks in %.1f ms, want more", uncounted, took)
	}
}

func TestStatsShowTheLastAudit(t *testing.T) {
	t.Parallel()

	f := newFixture(t, 1)
	ctx := f.Context()
	s := f.services()[0]
	var last time.Time
	for _, want := range []reservation.AuditResult{
		{Violations: 3, Unfinished: true}, {}, {Violations: 1},
	} {
		known, err := s.KeepAudit(ctx, false, want.Violations, want.Unfinished)
		if err != nil || known != want.Violations {
			t.Fatalf("KeepAudit() = %d, %v, want %d", known, err, want.Violations)
		}
		stats, err := s.Stats(ctx)
		if err != nil || stats.Audit == nil {
			t.Fatalf("Stats() = %+v, %v, want an audit", stats.Audit, err)
		}
		if !stats.Audit.At.After(last) || stats.Audit.At.After(stats.Now) ||
			stats.Audit.At.Location() != time.UTC {
			t.Errorf("the audit's time is %v, want one between %v and %v, in UTC", stats.Audit.At,
				last, stats.Now)
		}
		last = stats.Audit.At
		want.At = last
		if *stats.Audit != want {
			t.Errorf("the audit = %+v, want %+v", *stats.Audit, want)
		}
	}
	if n := queryOne[int](f, "SELECT count(*) FROM last_audit"); n != 1 {
		t.Errorf("%d audits are stored, want one", n)
	}
}

// keptAudit is a call of KeepAudit, and what Stats shows afterwards.
type keptAudit struct {
	full       bool
	violations int
	unfinished bool
	want       reservation.AuditResult
}

// keepAudits makes the calls, and returns the first one after which Stats shows another result.
func keepAudits(f *fixture, calls []keptAudit) (wrong int, got reservation.AuditResult) {
	f.t.Helper()
	s := newService(f.own)
	for i, c := range calls {
		known, err := s.KeepAudit(f.Context(), c.full, c.violations, c.unfinished)
		if err != nil {
			f.t.Fatal(err)
		}
		stats, err := s.Stats(f.Context())
		if err != nil {
			f.t.Fatal(err)
		}
		got := *stats.Audit
		got.At = time.Time{}
		if got != c.want || known != got.Violations {
			return i, got
		}
	}
	return -1, got
}

// The finding of a full audit stays until one is complete and clean. An audit that was cut off may
// have missed what the one before found.
var keptAudits = map[string]struct {
	calls      []keptAudit
	guard, old string
}{
	"a full audit's finding": {
		calls: []keptAudit{
			{false, 0, false, reservation.AuditResult{}},
			{true, 2, false, reservation.AuditResult{Violations: 2}},
			{false, 0, false, reservation.AuditResult{Violations: 2}},
			{false, 3, false, reservation.AuditResult{Violations: 3}},
			{false, 0, false, reservation.AuditResult{Violations: 2}},
			{true, 0, false, reservation.AuditResult{}},
		},
		guard: "CASE WHEN NOT _full THEN a.full_violations", old: "CASE WHEN NOT _full THEN 0",
	},
	"a part of a full audit": {
		calls: []keptAudit{
			{true, 2, false, reservation.AuditResult{Violations: 2}},
			{true, 1, true, reservation.AuditResult{Violations: 2}},
			{true, 3, true, reservation.AuditResult{Violations: 3}},
			{true, 1, false, reservation.AuditResult{Violations: 1}},
		},
		guard: "greatest(a.full_violations, _violations)", old: "_violations",
	},
	"an audit of what is new beside a full one": {
		calls: []keptAudit{
			{false, 2, true, reservation.AuditResult{Violations: 2, Unfinished: true}},
			{true, 0, false, reservation.AuditResult{Violations: 2, Unfinished: true}},
			{false, 0, false, reservation.AuditResult{}},
		},
		guard: "CASE WHEN _full THEN a.violations", old: "CASE WHEN _full THEN _violations",
	},
	"an audit that was cut off": {
		calls: []keptAudit{
			{false, 2, false, reservation.AuditResult{Violations: 2}},
			{false, 0, true, reservation.AuditResult{Violations: 2, Unfinished: true}},
			{false, 1, false, reservation.AuditResult{Violations: 1}},
		},
		guard: "greatest(a.violations, _violations)\n", old: "_violations\n",
	},
}

func TestEachKindOfAuditKeepsItsResult(t *testing.T) {
	t.Parallel()

	for name, c := range keptAudits {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			f := newFixture(t, 0)
			if i, got := keepAudits(f, c.calls); i >= 0 {
				t.Errorf("after %+v the stats show %+v", c.calls[i], got)
			}
			f.Exec("DELETE FROM last_audit")
			f.mutate("keep_audit", c.guard, c.old)
			if i, _ := keepAudits(f, c.calls); i < 0 {
				t.Error("without the guard the stats show the same")
			}
		})
	}
}
