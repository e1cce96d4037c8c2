package reservation_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/allo/reservations/internal/reservation"
)

// life is a hold of the model.
type life struct {
	status   reservation.Status // as it is written down
	quantity int
	created  time.Time
	updated  time.Time
	expires  time.Time
}

// lives makes up holds of the last two hours, some of whose times are on the very edge of a minute.
func lives(random *rand.Rand, now time.Time, n int) []life {
	var all []life
	for range n {
		created := now.Add(-time.Duration(random.Int64N(int64(2 * time.Hour)))).Truncate(
			time.Microsecond)
		if random.IntN(5) == 0 {
			created = created.Truncate(time.Minute)
		}
		l := life{
			quantity: 1 + random.IntN(3),
			created:  created,
			updated:  created,
			expires:  created.Add(time.Duration(1+random.IntN(3000)) * time.Second),
		}
		soon := created.Add(
			time.Duration(random.Int64N(int64(l.expires.Sub(created)))) + time.Microsecond,
		).Truncate(time.Microsecond)
		switch kind := random.IntN(4); {
		case kind < 2 && soon.Before(now) && soon.Before(l.expires):
			l.status, l.updated = []reservation.Status{reservation.Confirmed, reservation.Released}[kind], soon
		case kind == 2 && l.expires.Before(now):
			l.status, l.updated = reservation.Expired, l.expires
		default:
			l.status = reservation.Pending
		}
		all = append(all, l)
	}
	return all
}

// statsOf is the model of Stats.
func statsOf(all []life, total int64, now time.Time) reservation.Stats {
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
		return new(reservation.Minute) // too long ago
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

// plantLives writes the holds down as they are, half of them carts of two lines.
func plantLives(f *fixture, rows []reservation.Line, all []life) {
	f.t.Helper()
	var batch pgx.Batch
	const hold = `
WITH made AS (
    INSERT INTO reservations (id, product_id, warehouse_id, quantity, created_at, updated_at, expires_at, status)
    VALUES (gen_random_uuid(), $1, $2, $3, $4, $5, $6, $7::text::reservation_status)
    RETURNING id, expires_at, status
)
INSERT INTO reservation_items (reservation_id, product_id, warehouse_id, expires_at, quantity, counted)
SELECT id, product_id, warehouse_id, expires_at, quantity, status = 'PENDING'
FROM made, unnest($8::uuid[], $9::uuid[], $10::integer[]) l (product_id, warehouse_id, quantity)`
	for _, l := range all {
		product, warehouse := rows[0].ProductID.String(), rows[0].WarehouseID.String()
		one := []*string{&product, &warehouse}
		var products, warehouses []string
		var quantities []int
		if l.quantity > 1 {
			one = []*string{nil, nil}
			products, warehouses = []string{
				product,
				rows[1].ProductID.String(),
			}, []string{
				warehouse,
				rows[1].WarehouseID.String(),
			}
			quantities = []int{1, l.quantity - 1}
		}
		batch.Queue(hold, one[0], one[1], l.quantity, l.created, l.updated, l.expires,
			string(l.status), products, warehouses, quantities)
	}
	if err := f.Admin.SendBatch(f.Context(), &batch).Close(); err != nil {
		f.t.Fatal(err)
	}
	f.Exec(`
WITH lines AS (
    SELECT r.product_id, r.warehouse_id, r.quantity, r.status FROM reservations r WHERE r.product_id IS NOT NULL
    UNION ALL
    SELECT l.product_id, l.warehouse_id, l.quantity, r.status FROM reservation_items l JOIN reservations r ON r.id = l.reservation_id
)
UPDATE inventory i SET reserved = s.held, total = total - s.sold
FROM (SELECT product_id, warehouse_id, coalesce(sum(quantity) FILTER (WHERE status = 'PENDING'), 0) AS held,
             coalesce(sum(quantity) FILTER (WHERE status = 'CONFIRMED'), 0) AS sold FROM lines GROUP BY 1, 2) s
WHERE i.product_id = s.product_id AND i.warehouse_id = s.warehouse_id`)
}

// roughly compares what floating point carries.
var roughly = cmp.Comparer(
	func(a, b time.Duration) bool { return (a - b).Abs() < time.Microsecond })

func TestStatsAgreeWithTheModelBeforeAndAfterTheSweep(t *testing.T) {
	t.Parallel()

	const seed, holds = 6, 600
	f := newFixture(t, 1)
	ctx := f.Context()
	s := f.services()[0]
	rows := f.stocks(5000, 5000)
	all := lives(rand.New(rand.NewPCG(seed, seed)),
		queryOne[time.Time](f, "SELECT clock_timestamp()"), holds)
	plantLives(f, rows, all)
	total := queryOne[int64](f, "SELECT sum(total) FROM inventory")
	f.mustAudit(t)

	before, err := s.Stats(ctx)
	if err != nil {
		t.Fatal(err)
	}
	want := statsOf(all, total, before.Now)
	if diff := cmp.Diff(want, before, roughly); diff != "" {
		t.Errorf("Stats() before the sweep differ (-want +got):\n%s", diff)
	}
	if want.Live == 0 || want.Dead == 0 || want.SweepLag < time.Minute {
		t.Fatalf("the model's stats are %+v, which show nothing", want)
	}

	if _, err := s.Sweep(ctx); err != nil {
		t.Fatal(err)
	}
	after, err := s.Stats(ctx)
	if err != nil {
		t.Fatal(err)
	}
	// A hold that was alive may have died in between; but for those, of which the model knows
	// nothing, it says what is to be seen.
	want = statsOf(all, total, after.Now)
	if after.SweepLag > after.Now.Sub(before.Now) || (after.Dead == 0) != (after.SweepLag == 0) {
		t.Errorf("Stats() after the sweep know %d dead holds, for %v", after.Dead, after.SweepLag)
	}
	want.Dead, want.SweepLag = after.Dead, after.SweepLag
	if diff := cmp.Diff(want, after, roughly); diff != "" {
		t.Errorf("Stats() after the sweep differ (-want +got):\n%s", diff)
	}
}

func TestWrongStatsDifferFromTheModel(t *testing.T) {
	t.Parallel()

	for name, c := range map[string]struct{ old, replacement string }{
		"the dead count as alive":                 {"r.expires_at <= _now AS dead", "false AS dead"},
		"an hour and a minute":                    {"interval '59 minutes'", "interval '60 minutes'"},
		"what was resolved wasn't held":           {"SELECT began AS minute, 'HELD' AS event, n FROM lives", "SELECT began AS minute, 'HELD' AS event, n FROM lives WHERE status IS NULL"},
		"what was made before the hour is missed": {"r.updated_at >= _first", "r.created_at >= _first"},
		"the holds of the last minute are missed": {"r.updated_at >= _first", "r.updated_at >= _first AND r.updated_at < _first + interval '59 min'"},
		"the lag of the youngest":                 {"min(p.expires_at)", "max(p.expires_at)"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			f := newFixture(t, 1)
			rows := f.stocks(5000, 5000)
			all := lives(rand.New(rand.NewPCG(6, 6)),
				queryOne[time.Time](f, "SELECT clock_timestamp()"), 600)
			plantLives(f, rows, all)
			total := queryOne[int64](f, "SELECT sum(total) FROM inventory")
			f.mutate("operator_stats", c.old, c.replacement)

			got, err := f.services()[0].Stats(f.Context())
			if err != nil {
				t.Fatal(err)
			}
			if cmp.Diff(statsOf(all, total, got.Now), got, roughly) == "" {
				t.Error("the stats agree with the model all the same")
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
	look := func() reservation.Stats {
		t.Helper()
		stats, err := s.Stats(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return stats
	}
	empty := look()
	if empty.Live != 0 || empty.LiveUnits != 0 || empty.Dead != 0 || empty.SweepLag != 0 ||
		empty.Total != 30 ||
		len(empty.Minutes) != 60 ||
		empty.Audit != nil {
		t.Errorf("Stats() of a shop that just opened = %+v, want 30 units and nothing held", empty)
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

	// The dead hold was made an hour before its death, a second ago.
	got := look()
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
		got.SweepLag < time.Second ||
		got.SweepLag > testTimeout {
		t.Errorf(
			"Stats() = %+v, want one live hold of 2 units of 26 and one that died a second ago",
			got)
	}
	if _, err := s.Sweep(ctx); err != nil {
		t.Fatal(err)
	}
	if swept := look(); swept.Dead != 0 || swept.SweepLag != 0 || swept.Live != 1 {
		t.Errorf("Stats() after the sweep = %+v, want none dead", swept)
	}
	f.mustAudit(t)
}

func TestTheLastAuditIsKept(t *testing.T) {
	t.Parallel()

	f := newFixture(t, 1)
	ctx := f.Context()
	s := f.services()[0]
	var last time.Time
	for _, want := range []reservation.AuditResult{{Violations: 3, Unfinished: true}, {}, {Violations: 1}} {
		if err := s.KeepAudit(ctx, want.Violations, want.Unfinished); err != nil {
			t.Fatal(err)
		}
		stats, err := s.Stats(ctx)
		if err != nil || stats.Audit == nil {
			t.Fatalf("Stats() = %+v, %v, want an audit", stats.Audit, err)
		}
		if !stats.Audit.At.After(last) || stats.Audit.At.After(stats.Now) ||
			stats.Audit.At.Location() != time.UTC {
			t.Errorf("the audit is of %v, want between %v and %v in UTC", stats.Audit.At, last,
				stats.Now)
		}
		last = stats.Audit.At
		want.At = last
		if *stats.Audit != want {
			t.Errorf("the audit = %+v, want %+v", *stats.Audit, want)
		}
	}
	if n := queryOne[int](f, "SELECT count(*) FROM last_audit"); n != 1 {
		t.Errorf("%d audits are kept, want one", n)
	}
}
