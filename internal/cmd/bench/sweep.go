package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/allo/reservations/internal/postgres"
	"github.com/allo/reservations/internal/reservation"
)

// openService returns the service on its own pool, without a delay.
func openService(s *server, connections int) (*reservation.Service, func(), error) {
	pool, err := postgres.Open(postgres.URL(s.url()), connections)
	if err != nil {
		return nil, nil, err
	}
	service := reservation.New(pool, reservation.Options{HoldTTL: holdTTL, MaxHold: holdTTL})
	return service, pool.Close, nil
}

// traffic is the shoppers during a study: each reserves, confirms, and pauses.
type traffic struct {
	mu        sync.Mutex
	latencies []time.Duration // of the current phase
	err       error
}

const (
	shoppers  = 16
	thinkTime = 4 * time.Millisecond
)

// run lets the shoppers use the first `rows` stock rows until ctx ends.
func (t *traffic) run(ctx context.Context, service *reservation.Service, rows int) {
	var group sync.WaitGroup
	for range shoppers {
		group.Go(func() {
			for ctx.Err() == nil {
				begin := time.Now()
				answer, err := service.Reserve(ctx,
					reservation.Request{Lines: []reservation.Line{stockLine(rand.IntN(rows), 1)}})
				if err == nil {
					_, err = service.Confirm(ctx, answer.Hold.ID, "")
				}
				t.note(ctx, time.Since(begin), err)
				time.Sleep(thinkTime)
			}
		})
	}
	group.Wait()
}

func (t *traffic) note(ctx context.Context, took time.Duration, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if ctx.Err() != nil {
		return
	}
	t.latencies = append(t.latencies, took)
	t.err = errors.Join(t.err, err)
}

// phase ends a phase of the traffic and returns its 99th percentile.
func (t *traffic) phase() (p99 time.Duration, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	latencies := t.latencies
	t.latencies = nil
	if len(latencies) == 0 {
		return 0, errors.Join(errors.New("the shoppers made no call"), t.err)
	}
	slices.Sort(latencies)
	return latencies[len(latencies)*99/100], t.err
}

// sweepUnderTraffic lets one sweep expire a million dead holds of the first `rows` stock rows,
// while shoppers use the same rows.
func sweepUnderTraffic(
	ctx context.Context, s *server, name string, rows int,
) ([]shape, []*result, error) {
	const dead, quiet, limit, wantTail = 1_000_000, 5 * time.Second, 50 * time.Second, 3.0
	if err := errors.Join(s.load(ctx, rows, 3*ample),
		s.hold(ctx, dead, rows, -time.Hour)); err != nil {
		return nil, nil, err
	}
	before, err := s.observe(ctx, false)
	if err != nil {
		return nil, nil, err
	}
	shop, closeShop, err := openService(s, shoppers)
	if err != nil {
		return nil, nil, err
	}
	defer closeShop()
	sweeper, closeSweeper, err := openService(s, 1)
	if err != nil {
		return nil, nil, err
	}
	defer closeSweeper()

	var t traffic
	shopping, stop := context.WithCancel(ctx)
	var group sync.WaitGroup
	group.Go(func() { t.run(shopping, shop, rows) })
	time.Sleep(quiet)
	calm, calmErr := t.phase()
	sweeping, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	began := time.Now()
	swept, sweepErr := sweeper.Sweep(sweeping)
	took := time.Since(began)
	busy, busyErr := t.phase()
	stop()
	group.Wait()
	if err := errors.Join(calmErr, sweepErr, busyErr); err != nil {
		return nil, nil, err
	}
	after, err := s.observe(ctx, false)
	if err != nil {
		return nil, nil, err
	}
	if err := audit(ctx, s); err != nil {
		return nil, nil, err
	}
	tail := ms(busy) / ms(calm)
	deadlocks := after.deadlocks - before.deadlocks
	gone := swept.Expired == dead && !swept.More
	return []shape{{
		Name: name,
		Wanted: fmt.Sprintf("a million expired within %v, live p99 at most %g times, no deadlock",
			limit, wantTail),
		Met: gone && tail <= wantTail && deadlocks == 0,
		Figures: map[string]float64{
			"swept": float64(swept.Expired), "seconds": took.Seconds(),
			"holds/s":            float64(swept.Expired) / took.Seconds(),
			"live p99 before ms": ms(calm), "live p99 meanwhile ms": ms(busy), "p99 ratio": tail,
			"deadlocks": float64(deadlocks),
		},
	}}, nil, nil
}

// steady reserves from one hot row for a minute: the rate must not drop, and the table must not
// grow.
func steady(ctx context.Context, s *server, _ options) ([]shape, []*result, error) {
	const wantEnd, wantHOT, wantMB = 0.9, 0.98, 1.0
	m, err := hotMinute(ctx, s)
	if err != nil {
		return nil, nil, err
	}
	return []shape{{
		Name: "steady: one hot row for a minute, 32 callers",
		Wanted: fmt.Sprintf("the last ten seconds at least %g of the first, HOT over %g, the "+
			"thousand stock rows under %g MB", wantEnd, wantHOT, wantMB),
		Met: m.end() >= wantEnd && m.hot > wantHOT && m.mb < wantMB,
		Figures: map[string]float64{
			"first 10 s, holds/s": m.rates[0], "last 10 s, holds/s": m.rates[len(m.rates)-1],
			"last to first": m.end(), "HOT share": m.hot, "stock table MB": m.mb,
		},
	}}, nil, nil
}

// oldSnapshot is steady beside a session that keeps a snapshot open, as a dump does. The table must
// then grow.
func oldSnapshot(ctx context.Context, s *server, _ options) ([]shape, []*result, error) {
	const wantEnd = 0.4
	dump, err := pgx.Connect(ctx, s.url())
	if err != nil {
		return nil, nil, err
	}
	defer dump.Close(context.WithoutCancel(ctx))
	m, err := hotMinute(ctx, s,
		func() error {
			_, err := dump.Exec(ctx, "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1")
			return err
		})
	if err != nil {
		return nil, nil, err
	}
	figures := map[string]float64{"last to first": m.end()}
	for i, rate := range m.rates {
		figures[fmt.Sprintf("%d s, holds/s", (i+1)*int(hotSlice.Seconds()))] = rate
	}
	return []shape{{
		Name:    "old-snapshot: the same while another session keeps a snapshot",
		Wanted:  fmt.Sprintf("the last ten seconds at least %g of the first", wantEnd),
		Met:     m.end() >= wantEnd,
		Figures: figures,
	}}, nil, nil
}

// hotSlice is how long each rate of a minute is measured.
const hotSlice = 10 * time.Second

// minute is how one hot row did for a minute: the holds a second in each slice, the share of the
// stock rows' updates that stayed on their page, and the size of their table.
type minute struct {
	rates   []float64
	hot, mb float64
}

func (m minute) end() float64 { return m.rates[len(m.rates)-1] / m.rates[0] }

// hotMinute lets 32 callers reserve from one row for a minute. It first calls prepare.
func hotMinute(ctx context.Context, s *server, prepare ...func() error) (m minute, err error) {
	const callers, slices = 32, 6
	w := workload{
		name: "steady", callers: callers, designs: both,
		setup: stocked(someRows, 10*ample), caller: reserveOne(func() int { return 0 }),
		check: allHeld,
	}
	if err := w.setup(ctx, s); err != nil {
		return m, err
	}
	for _, f := range prepare {
		if err := f(); err != nil {
			return m, err
		}
	}
	list, err := connectCallers(ctx, s, w, "ours", &network{})
	if err != nil {
		return m, err
	}
	warm, err := warmUp(ctx, list)
	if err != nil {
		return m, err
	}
	before, err := s.observe(ctx, false)
	if err != nil {
		return m, err
	}
	done := 0
	for range slices {
		took := loop(ctx, list, 0, hotSlice)
		made := 0
		for _, c := range list {
			if c.err != nil {
				return m, c.err
			}
			made += len(c.latencies)
		}
		m.rates = append(m.rates, float64(made-done)/took.Seconds())
		done = made
	}
	for _, c := range list {
		c.design.close(ctx)
	}
	after, err := s.observe(ctx, true)
	if err != nil {
		return m, err
	}
	var size int64
	if err := s.admin.QueryRow(ctx, "SELECT pg_table_size('inventory')").Scan(&size); err != nil {
		return m, err
	}
	if err := errors.Join(holds(ctx, s, done+warm), audit(ctx, s)); err != nil {
		return m, err
	}
	m.hot = float64(after.hot-before.hot) / max(1, float64(after.updates-before.updates))
	m.mb = float64(size) / 1e6
	return m, nil
}

// resolvedHolds adds n holds that were confirmed long ago. Their stock is left out: no measured
// query reads it.
func (s *server) resolvedHolds(ctx context.Context, from, n int) error {
	return s.exec(ctx, "SET session_replication_role = replica", fmt.Sprintf(`
INSERT INTO reservations (id, product_id, warehouse_id, quantity,
                          created_at, updated_at, expires_at, status)
SELECT ('00000000-0000-7000-8003-0000' || lpad(to_hex(n), 8, '0'))::uuid,
       ('00000000-0000-7000-8001-0000' || lpad(to_hex(n %% %d), 8, '0'))::uuid, '%s', 1,
       now() - interval '3 days', now() - interval '3 days' + interval '1 minute',
       now() - interval '3 days' + interval '10 minutes', 'CONFIRMED'
FROM generate_series(%d, %d) n`, manyRows, warehouseID, from, from+n-1),
		"RESET session_replication_role", "VACUUM ANALYZE reservations")
}

// tenMillion reads holds by id among ten thousand and among ten million, and counts the pages that
// an idle sweep reads among the latter.
func tenMillion(ctx context.Context, s *server, o options) ([]shape, []*result, error) {
	const few, many, wantShare, wantPages = 10_000, 10_000_000, 0.8, 8.0
	if err := s.load(ctx, manyRows, ample); err != nil {
		return nil, nil, err
	}
	var results []*result
	rate := map[int]float64{}
	have := 0
	for _, n := range []int{few, many} {
		if err := s.resolvedHolds(ctx, have, n-have); err != nil {
			return nil, nil, err
		}
		have = n
		w := workload{
			name: fmt.Sprintf("hold-%d", n), callers: 1, designs: both,
			setup: func(context.Context, *server) error { return nil },
			caller: func(d design, _ int) func(context.Context) error {
				return func(ctx context.Context) error { return d.get(ctx, holdID(rand.IntN(n))) }
			},
			check: func(context.Context, *server, *measurement) error { return nil },
		}
		r := newResult(w)
		for range o.rounds {
			for _, name := range w.designs {
				m, err := measure(ctx, s, w, name, o.length)
				if err != nil {
					return nil, nil, err
				}
				r.add(m)
			}
		}
		results, rate[n] = append(results, r), r.perSecond("ours")
	}
	pages, err := idleSweepPages(ctx, s)
	if err != nil {
		return nil, nil, err
	}
	share := rate[many] / rate[few]
	return []shape{
		{
			Name:   "a hold's read among ten million",
			Wanted: fmt.Sprintf("at least %g of its rate among ten thousand", wantShare),
			Met:    share >= wantShare,
			Figures: map[string]float64{
				"reads/s among 10,000":     rate[few],
				"reads/s among 10,000,000": rate[many], "share": share,
			},
		},
		{
			Name: "an idle sweep among ten million resolved holds",
			Wanted: fmt.Sprintf("at most %g pages, of holds, lines and keys together",
				wantPages),
			Met: pages <= wantPages, Figures: map[string]float64{"pages": pages},
		},
	}, results, nil
}

const pagesSQL = `
SELECT coalesce(sum(heap_blks_read + heap_blks_hit
                  + coalesce(idx_blks_read + idx_blks_hit, 0)), 0)::float8
FROM pg_statio_user_tables`

// idleSweepPages counts the pages that a sweep with nothing to do reads, once its session has its
// plans.
func idleSweepPages(ctx context.Context, s *server) (float64, error) {
	sweeper, end, err := openService(s, 1)
	if err != nil {
		return 0, err
	}
	pages := func() (n float64, err error) {
		return n, s.admin.QueryRow(ctx, pagesSQL).Scan(&n)
	}
	if _, err := sweeper.Sweep(ctx); err != nil {
		return 0, err
	}
	end()
	// Waits until the sessions have ended and reported.
	if _, err := s.observe(ctx, true); err != nil {
		return 0, err
	}
	before, err := pages()
	if err != nil {
		return 0, err
	}
	sweeper, end, err = openService(s, 1)
	if err != nil {
		return 0, err
	}
	const sweeps = 10
	for range sweeps {
		if _, err := sweeper.Sweep(ctx); err != nil {
			return 0, err
		}
	}
	end()
	if _, err := s.observe(ctx, true); err != nil {
		return 0, err
	}
	after, err := pages()
	return (after - before) / sweeps, err
}
