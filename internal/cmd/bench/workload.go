package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sort"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/allo/reservations/internal/reservation"
)

// Sizes of the workloads.
const (
	manyRows = 10_000
	// someRows is the size of the table with the hot row: large enough that its index is used.
	someRows = 1000
	// ample is more stock than any run uses.
	ample = 1_000_000
	// lastUnits are sold out in a run of lastCalls calls.
	lastUnits = 1000
	lastCalls = 4000
	// backgroundLog is how many bytes the server itself may log during a run, about its running and
	// for pages that it tidies. If each refusal took one lock, each would log 54 bytes: several
	// times as much.
	backgroundLog = 8 * 8192
	// leastLog is the least number of bytes that a refusal logs if it logs anything.
	leastLog = 54
)

// workload is what callers do, and the delays of the network and the disk.
type workload struct {
	name    string
	callers int
	rtt     time.Duration
	flush   time.Duration
	// designs are the designs that run it, the reference first.
	designs []string
	// bar is the wanted ratio of ours to the reference. tail is the most that our p99 may be of the
	// reference's. 0 is no goal.
	bar, tail float64
	// calls ends a run after so many calls; 0 ends it by time.
	calls int
	// quick workloads run with -quick too.
	quick bool
	setup func(ctx context.Context, s *server) error
	// caller returns what caller n does over and over.
	caller func(d design, n int) func(ctx context.Context) error
	// warm returns what caller n does in the warm-up; nil is the same as caller.
	warm func(d design, n int) func(ctx context.Context) error
	// check compares the callers' answers with the database. The audit follows it.
	check func(ctx context.Context, s *server, m *measurement) error
}

var (
	both         = []string{"reference", "ours"}
	againstPlain = []string{"reference", "plain", "outbox", "ours"}
)

// workloads returns the workloads in the order of the report.
func workloads() []workload {
	hot := func(callers int, rtt, flush time.Duration, bar, tail float64) workload {
		return workload{
			name: "hot", callers: callers, rtt: rtt, flush: flush, designs: both,
			bar: bar, tail: tail, setup: stocked(someRows, ample),
			caller: reserveOne(func() int { return 0 }), check: allHeld,
		}
	}
	spread := func(
		name string, callers int, rtt time.Duration, pick func() int, bar, tail float64,
		designs ...string,
	) workload {
		return workload{
			name: name, callers: callers, rtt: rtt, designs: designs, bar: bar, tail: tail,
			setup: stocked(manyRows, ample), caller: reserveOne(pick), check: allHeld,
		}
	}
	uniform := func() int { return rand.IntN(manyRows) }
	list := []workload{
		hot(32, 0, 0, 5, 0),
		hot(128, 0, 0, 7, 0),
		hot(64, time.Millisecond, 0, 25, 0.1),
		hot(64, time.Millisecond, 800*time.Microsecond, 30, 0),
		lastThousand(),
		soldOut("sold-out", 0),
		soldOut("sold-out-dead", 100),
		spread("zipf", 64, time.Millisecond, zipf(manyRows, 0.99), 2.8, 0.125, both...),
		spread("uniform", 8, time.Millisecond, uniform, 2.7, 0, againstPlain...),
		spread("uniform", 64, 0, uniform, 1.4, 0, againstPlain...),
		mixedHot(),
		cart(5, 4),
		confirm(),
		replay(),
		httpHot(),
		catalogPage("catalog-10-first", 10, 0),
		catalogPage("catalog-100000-deep", 100_000, 100_000-pageSize),
	}
	for i := range list {
		list[i].quick = slices.Contains([]int{0, 2, 5}, i)
	}
	return list
}

func stocked(rows, total int) func(context.Context, *server) error {
	return func(ctx context.Context, s *server) error { return s.load(ctx, rows, total) }
}

func reserveOne(pick func() int) func(design, int) func(context.Context) error {
	return func(d design, _ int) func(context.Context) error {
		return func(ctx context.Context) error {
			_, err := d.reserve(ctx, []reservation.Line{stockLine(pick(), 1)})
			return err
		}
	}
}

// lastThousand sells a hot row out, and then every call is refused.
func lastThousand() workload {
	return workload{
		name: "last-1000", callers: 64, rtt: time.Millisecond, designs: both, bar: 8,
		calls: lastCalls,
		setup: stocked(someRows, lastUnits), caller: reserveOne(func() int { return 0 }),
		warm: reserveOne(func() int { return 1 + rand.IntN(someRows-1) }),
		check: func(ctx context.Context, s *server, m *measurement) error {
			if m.done != lastUnits || m.refused != lastCalls-lastUnits {
				return fmt.Errorf("sold %d and refused %d, want %d and %d", m.done, m.refused,
					lastUnits, lastCalls-lastUnits)
			}
			return allHeld(ctx, s, m)
		},
	}
}

// soldOut refuses every call. With dead holds on the row each call asks for more than they would
// free, so it must look at them and is still refused.
func soldOut(name string, dead int) workload {
	return workload{
		name: name, callers: 64, rtt: time.Millisecond, designs: both, bar: 8,
		setup: func(ctx context.Context, s *server) error {
			if err := s.load(ctx, someRows, 1000); err != nil {
				return err
			}
			if dead > 0 {
				if err := s.hold(ctx, dead, 1, -time.Hour); err != nil {
					return err
				}
			}
			return s.exec(ctx, fmt.Sprintf(`
INSERT INTO reservations (id, product_id, warehouse_id, quantity,
                          created_at, updated_at, expires_at)
SELECT gen_random_uuid(), '%s', '%s', %d, now(), now(), now() + interval '1 hour'`,
				productID(0), warehouseID, 1000-dead),
				fmt.Sprintf("UPDATE inventory SET reserved = 1000, first_end = (SELECT min(expires_at)"+
					" FROM reservations) WHERE product_id = '%s'", productID(0)))
		},
		caller: func(d design, _ int) func(context.Context) error {
			return func(ctx context.Context) error {
				_, err := d.reserve(ctx, []reservation.Line{stockLine(0, dead+1)})
				return err
			}
		},
		check: func(_ context.Context, _ *server, m *measurement) error {
			if m.done != 0 {
				return fmt.Errorf("held %d units of a sold-out row", m.done)
			}
			if m.design == "ours" && m.wal >= m.refused*leastLog/2+backgroundLog {
				return fmt.Errorf("%d refusals wrote %d bytes of log, want none", m.refused, m.wal)
			}
			return nil
		},
	}
}

// mixedHot is 60 % reserves, 30 % confirms and 10 % releases on one row.
func mixedHot() workload {
	var told struct{ held, confirmed, released atomic.Int64 }
	reserve := func(ctx context.Context, d design) (uuid.UUID, error) {
		id, err := d.reserve(ctx, []reservation.Line{stockLine(0, 1)})
		return id, count(&told.held, err)
	}
	confirm := func(ctx context.Context, d design, id uuid.UUID) error {
		return count(&told.confirmed, d.confirm(ctx, id))
	}
	release := func(ctx context.Context, d design, id uuid.UUID) error {
		return count(&told.released, d.release(ctx, id))
	}
	return workload{
		name: "mixed-hot", callers: 64, rtt: time.Millisecond, designs: both, bar: 18,
		setup: func(ctx context.Context, s *server) error {
			told.held.Store(0)
			told.confirmed.Store(0)
			told.released.Store(0)
			return s.load(ctx, someRows, ample)
		},
		caller: func(d design, _ int) func(context.Context) error {
			var mine []uuid.UUID
			return func(ctx context.Context) error {
				dice := rand.Float64()
				if dice < 0.6 || len(mine) == 0 {
					id, err := reserve(ctx, d)
					mine = append(mine, id)
					return err
				}
				id := mine[0]
				mine = mine[1:]
				if dice < 0.9 {
					return confirm(ctx, d, id)
				}
				return release(ctx, d, id)
			}
		},
		// Each verb is called once: by chance, most callers would not reach the rarer verbs.
		warm: func(d design, _ int) func(context.Context) error {
			return func(ctx context.Context) error {
				verbs := []func(context.Context, design, uuid.UUID) error{confirm, release}
				for _, resolve := range verbs {
					id, err := reserve(ctx, d)
					if err != nil {
						return err
					}
					if err := resolve(ctx, d, id); err != nil {
						return err
					}
				}
				return nil
			}
		},
		check: func(ctx context.Context, s *server, _ *measurement) error {
			var held, confirmed, released, total, reserved int64
			if err := s.admin.QueryRow(ctx, `
SELECT count(*),
       count(*) FILTER (WHERE status = 'CONFIRMED'),
       count(*) FILTER (WHERE status = 'RELEASED'),
       (SELECT total FROM inventory WHERE product_id = $1),
       (SELECT reserved FROM inventory WHERE product_id = $1)
FROM reservations`,
				productID(0)).Scan(&held, &confirmed, &released, &total, &reserved); err != nil {
				return err
			}
			h, c, r := told.held.Load(), told.confirmed.Load(), told.released.Load()
			if held != h || confirmed != c || released != r || total != ample-c ||
				reserved != h-c-r {
				return fmt.Errorf("the database has %d holds, %d confirmed, %d released, and %d "+
					"of %d reserved; the callers were told of %d, %d, %d",
					held, confirmed, released, reserved, total, h, c, r)
			}
			return nil
		},
	}
}

// count counts a success.
func count(n *atomic.Int64, err error) error {
	if err == nil {
		n.Add(1)
	}
	return err
}

// cart reserves k lines, each from its own part of the rows, in the lock order.
func cart(k int, bar float64) workload {
	return workload{
		name: fmt.Sprintf("cart-%d", k), callers: 32, rtt: time.Millisecond, designs: both,
		bar: bar, setup: stocked(manyRows, ample),
		caller: func(d design, _ int) func(context.Context) error {
			return func(ctx context.Context) error {
				lines := make([]reservation.Line, k)
				for i := range lines {
					lines[i] = stockLine(manyRows*i/k+rand.IntN(manyRows/k), 1)
				}
				_, err := d.reserve(ctx, lines)
				return err
			}
		},
		check: allHeld,
	}
}

// confirm confirms holds made before the run, each once. The server's processor time per call is
// then the cost of a confirm alone. The holds are spread over all stock rows, so no call waits.
func confirm() workload {
	const holds = 10_000
	var next atomic.Int64
	return workload{
		name: "confirm", callers: 8, designs: both, calls: holds,
		setup: func(ctx context.Context, s *server) error {
			next.Store(0)
			if err := s.load(ctx, manyRows, ample); err != nil {
				return err
			}
			return s.hold(ctx, holds, manyRows, 2*holdTTL)
		},
		caller: func(d design, _ int) func(context.Context) error {
			return func(ctx context.Context) error {
				return d.confirm(ctx, holdID(int(next.Add(1)-1)))
			}
		},
		// The warm-up confirms holds of its own.
		warm: func(d design, _ int) func(context.Context) error {
			return func(ctx context.Context) error {
				line := stockLine(rand.IntN(manyRows), 1)
				id, err := d.reserve(ctx, []reservation.Line{line})
				if err != nil {
					return err
				}
				return d.confirm(ctx, id)
			}
		},
		check: func(ctx context.Context, s *server, m *measurement) error {
			const sql = `
SELECT count(*), (SELECT sum(total) FROM inventory) FROM reservations WHERE status = 'CONFIRMED'`
			var confirmed, total int
			if err := s.admin.QueryRow(ctx, sql).Scan(&confirmed, &total); err != nil {
				return err
			}
			told := m.done + m.warm
			if m.done != holds || confirmed != told || total != manyRows*ample-told {
				return fmt.Errorf("the database has %d confirmed holds and %d units, "+
					"the callers were told of %d confirms", confirmed, total, told)
			}
			return nil
		},
	}
}

// replay repeats one request of each caller under its key.
func replay() workload {
	const callers = 32
	return workload{
		name: "replay", callers: callers, rtt: time.Millisecond, designs: both,
		setup: stocked(manyRows, ample),
		caller: func(d design, n int) func(context.Context) error {
			key := fmt.Sprintf("caller-%d", n)
			return func(ctx context.Context) error { return d.replay(ctx, stockLine(n, 1), key) }
		},
		check: func(ctx context.Context, s *server, m *measurement) error {
			return holds(ctx, s, callers)
		},
	}
}

// catalogPage reads the page of a catalog after its first `after` products. The reference reads it
// by OFFSET.
func catalogPage(name string, products, after int) workload {
	want := min(pageSize, products-after)
	return workload{
		name: name, callers: 1, designs: both, setup: stocked(products, 10),
		caller: func(d design, _ int) func(context.Context) error {
			return func(ctx context.Context) error {
				n, err := d.page(ctx, after)
				if err == nil && n != want {
					return fmt.Errorf("a page of %d rows, want %d", n, want)
				}
				return err
			}
		},
		check: func(context.Context, *server, *measurement) error { return nil },
	}
}

// zipf picks row n with a probability proportional to n^-s. The standard library requires s > 1.
func zipf(rows int, s float64) func() int {
	sums := make([]float64, rows)
	sum := 0.0
	for i := range sums {
		sum += math.Pow(float64(i+1), -s)
		sums[i] = sum
	}
	return func() int { return min(sort.SearchFloat64s(sums, rand.Float64()*sum), rows-1) }
}

// allHeld checks that the database has as many holds as the callers were told of.
func allHeld(ctx context.Context, s *server, m *measurement) error {
	return holds(ctx, s, m.done+m.warm)
}

func holds(ctx context.Context, s *server, want int) error {
	var got int
	if err := s.admin.QueryRow(ctx, "SELECT count(*) FROM reservations").Scan(&got); err != nil {
		return err
	}
	if got != want {
		return fmt.Errorf("the database has %d holds, the callers were told of %d", got, want)
	}
	return nil
}

var errAudit = errors.New("the audit found violations")
