package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// measurement is the result of one run of one design.
type measurement struct {
	design                string
	done, refused         int
	warm                  int // calls that succeeded in the warm-up
	took                  time.Duration
	p50, p99, p999        time.Duration
	serverCPU, clientCPU  time.Duration
	wal                   int   // bytes
	updates, hot          int64 // of stock rows; hot ones stayed on their page
	deadlocks, retries    int64
	roundTrips, othersCPU float64 // writes a call; cores used by other processes
}

func (m *measurement) calls() int { return m.done + m.refused }

func (m *measurement) perSecond() float64 { return float64(m.calls()) / m.took.Seconds() }

// caller is one closed loop: it calls, waits for the answer, and calls again.
type caller struct {
	design     design
	call, warm func(context.Context) error
	tally
}

// tally counts the results of a caller's calls.
type tally struct {
	latencies []time.Duration
	refused   int
	err       error
}

// run measures a workload once and audits the database.
func run(
	ctx context.Context, s *server, w workload, name string, length time.Duration,
) (*measurement, error) {
	m, err := measure(ctx, s, w, name, length)
	if err != nil {
		return nil, err
	}
	if name != "ours" { // no other design keeps first_end right
		if err := s.exec(ctx, "UPDATE inventory SET first_end = '-infinity'"); err != nil {
			return nil, err
		}
	}
	return m, audit(ctx, s)
}

// measure loads the workload's data, runs its callers, and checks the database against their
// answers.
func measure(
	ctx context.Context, s *server, w workload, name string, length time.Duration,
) (*measurement, error) {
	if err := errors.Join(s.setFlush(0), w.setup(ctx, s)); err != nil {
		return nil, err
	}
	n := &network{rtt: w.rtt}
	callers, err := connectCallers(ctx, s, w, name, n)
	if err != nil {
		return nil, err
	}
	if err := s.setFlush(w.flush); err != nil {
		return nil, err
	}
	m := &measurement{design: name}
	if m.warm, err = warmUp(ctx, callers); err != nil {
		return nil, err
	}
	before, err := s.observe(ctx, false)
	if err != nil {
		return nil, err
	}
	n.writes.Store(0)
	m.took = loop(ctx, callers, w.calls, length)
	m.used(before.usage, s.use()) // now: ending 64 sessions costs as much as a thousand calls
	m.roundTrips = float64(n.writes.Load())
	for _, c := range callers {
		m.retries += c.design.retries()
		c.design.close(ctx)
	}
	if err := m.collect(callers); err != nil {
		return nil, err
	}
	after, err := s.observe(ctx, true)
	if err != nil {
		return nil, err
	}
	m.subtract(before, after)
	return m, errors.Join(s.setFlush(0), w.check(ctx, s, m))
}

func connectCallers(
	ctx context.Context, s *server, w workload, name string, n *network,
) ([]*caller, error) {
	callers := make([]*caller, w.callers)
	for i := range callers {
		d, err := designs[name](ctx, s.url(), n)
		if err != nil {
			return nil, fmt.Errorf("connect: %w", err)
		}
		callers[i] = &caller{design: d, call: w.caller(d, i)}
		callers[i].warm = callers[i].call
		if w.warm != nil {
			callers[i].warm = w.warm(d, i)
		}
	}
	return callers, nil
}

// warmFor is how long callers call before the measurement. Each makes at least one call.
const warmFor = 300 * time.Millisecond

// warmUp makes every connection do its one-off work: reading the system catalogs, compiling and
// planning. In a run of a second with a hundred callers that would be most of the figures; the
// cold-start study measures it. It returns the number of calls that succeeded.
func warmUp(ctx context.Context, callers []*caller) (done int, err error) {
	begin := time.Now()
	var group sync.WaitGroup
	for _, c := range callers {
		group.Go(func() {
			for first := true; c.err == nil &&
				(first || time.Since(begin) < warmFor); first = false {
				c.make(ctx, c.warm)
			}
		})
	}
	group.Wait()
	for _, c := range callers {
		done += len(c.latencies) - c.refused
		err = errors.Join(err, c.err)
		c.tally = tally{}
	}
	return done, err
}

// make makes one call.
func (c *caller) make(ctx context.Context, call func(context.Context) error) {
	begin := time.Now()
	err := call(ctx)
	c.latencies = append(c.latencies, time.Since(begin))
	if errors.Is(err, errShort) {
		c.refused++
	} else if err != nil {
		c.err = err
	}
}

// loop runs the callers until they have made `calls` calls together or, if that is 0, for `length`.
// Calls that have begun are completed.
func loop(ctx context.Context, callers []*caller, calls int, length time.Duration) time.Duration {
	var made atomic.Int64
	var group sync.WaitGroup
	start := time.Now()
	more := func() bool {
		if calls > 0 {
			return made.Add(1) <= int64(calls)
		}
		return time.Since(start) < length
	}
	for _, c := range callers {
		group.Go(func() {
			for c.err == nil && more() {
				c.make(ctx, c.call)
			}
		})
	}
	group.Wait()
	return time.Since(start)
}

// collect sums the callers' results.
func (m *measurement) collect(callers []*caller) error {
	var all []time.Duration
	for _, c := range callers {
		if c.err != nil {
			return fmt.Errorf("%s: a call failed: %w", m.design, c.err)
		}
		all = append(all, c.latencies...)
		m.refused += c.refused
	}
	if len(all) == 0 {
		return errors.New("no call was made")
	}
	m.done = len(all) - m.refused
	m.roundTrips /= float64(len(all))
	slices.Sort(all)
	at := func(share float64) time.Duration {
		return all[min(int(share*float64(len(all))), len(all)-1)]
	}
	m.p50, m.p99, m.p999 = at(0.5), at(0.99), at(0.999)
	return nil
}

// usage is the processor time that the server, the bench and the whole machine have used so far.
type usage struct {
	at                   time.Time
	server, own, machine time.Duration
}

func (s *server) use() usage {
	return usage{time.Now(), treeCPU(s.PID()), processCPU(os.Getpid()), machineCPU()}
}

// used computes the processor time of a run, and of others during it.
func (m *measurement) used(before, after usage) {
	m.serverCPU, m.clientCPU = after.server-before.server, after.own-before.own
	others := (after.machine - before.machine) - m.serverCPU - m.clientCPU
	m.othersCPU = max(0, others.Seconds()/after.at.Sub(before.at).Seconds())
}

// observation is the state of the server's counters.
type observation struct {
	usage
	wal          int
	updates, hot int64
	deadlocks    int64
}

// observeLimit bounds the wait for the callers' sessions to end.
const observeLimit = 10 * time.Second

const othersSQL = `
SELECT EXISTS (SELECT FROM pg_stat_activity
               WHERE backend_type = 'client backend' AND datname = current_database()
                 AND pid <> pg_backend_pid())`

const observeSQL = `
SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint,
       (SELECT n_tup_upd FROM pg_stat_user_tables WHERE relname = 'inventory'),
       (SELECT n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'inventory'),
       (SELECT deadlocks FROM pg_stat_database WHERE datname = current_database())`

// observe reads the counters. A session reports its counts when it ends, so with alone it first
// waits for the callers' sessions to end.
func (s *server) observe(ctx context.Context, alone bool) (o observation, err error) {
	for deadline := time.Now().Add(observeLimit); alone; {
		if err := s.admin.QueryRow(ctx, othersSQL).Scan(&alone); err != nil {
			return o, err
		}
		if time.Now().After(deadline) {
			return o, errors.New("the callers' sessions did not end")
		}
	}
	err = s.admin.QueryRow(ctx, observeSQL).Scan(&o.wal, &o.updates, &o.hot, &o.deadlocks)
	o.usage = s.use()
	return o, err
}

func (m *measurement) subtract(before, after observation) {
	m.wal = after.wal - before.wal
	m.updates, m.hot = after.updates-before.updates, after.hot-before.hot
	m.deadlocks = after.deadlocks - before.deadlocks
}

// audit returns an error if the service's audit finds a violation.
func audit(ctx context.Context, s *server) error {
	d, err := newOurs(ctx, s.url(), &network{})
	if err != nil {
		return err
	}
	defer d.close(ctx)
	violations, err := d.(ours).service.Audit(ctx)
	if err != nil {
		return err
	}
	if len(violations) > 0 {
		return fmt.Errorf("%w: %v", errAudit, violations)
	}
	return nil
}
