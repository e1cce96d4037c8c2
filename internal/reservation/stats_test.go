package reservation_test

import (
	"math/rand/v2"
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
	var batch pgx.Batch
	const hold = `
WITH made AS (
    INSERT INTO reservations
           (id, product_id, warehouse_id, quantity, created_at, updated_at, expires_at, status)
    VALUES (gen_random_uuid(), $1, $2, $3, $4, $5, $6, $7::text::reservation_status)
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
		"61 minutes": {"interval '59 minutes'", "interval '60 minutes'"},
		"resolved holds don't count as held": {
			"SELECT began AS minute, 'HELD' AS event, n FROM lives",
			"SELECT began AS minute, 'HELD' AS event, n FROM lives WHERE status IS NULL",
		},
		"holds made before the hour are missing": {
			"r.updated_at >= _first", "r.created_at >= _first",
		},
		"the last two minutes are missing": { // the last one may have just begun
			"r.updated_at >= _first",
			"r.updated_at >= _first AND r.updated_at < _first + interval '58 min'",
		},
		"the lag of the youngest dead hold": {"min(p.expires_at)", "max(p.expires_at)"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			f := newFixture(t, 1)
			rows := f.stocks(5000, 5000)
			all := makeModelHolds(rand.New(rand.NewPCG(6, 6)),
				queryOne[time.Time](f, "SELECT clock_timestamp()"), 600)
			insertModelHolds(f, rows, all)
			total := queryOne[int64](f, "SELECT sum(total) FROM inventory")
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

func TestStatsShowTheLastAudit(t *testing.T) {
	t.Parallel()

	f := newFixture(t, 1)
	ctx := f.Context()
	s := f.services()[0]
	var last time.Time
	for _, want := range []reservation.AuditResult{
		{Violations: 3, Unfinished: true}, {}, {Violations: 1},
	} {
		if err := s.KeepAudit(ctx, want.Violations, want.Unfinished); err != nil {
			t.Fatal(err)
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
