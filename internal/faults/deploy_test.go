package faults

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/allo/reservations/internal/config"
	"github.com/allo/reservations/internal/local"
	"github.com/allo/reservations/internal/pgtest"
)

// lowered has every limit of internal/config that a request meets, lower than settings has it.
func lowered(c config.Config) config.Config {
	c.HoldTTL, c.MaxHold, c.StockShown = 30*time.Second, time.Minute, 1
	c.MaxPaymentHold, c.MaxUnits, c.MaxLines = time.Minute, 1, 1
	return c
}

// checkLowered fails the test when a setting of a function, other than those that no request meets,
// isn't lowered.
func checkLowered(t *testing.T) {
	t.Helper()
	before, after := settings("").Environ(), lowered(settings("")).Environ()
	for n, variable := range before {
		name, _, _ := strings.Cut(variable, "=")
		noRequest := []string{
			"DATABASE_URL", "LOG_LEVEL", "RETENTION_DAYS", "EVENT_SOURCE", "LIVE_URL", "LIVE_HTTP",
			"DEMO", "GUARDED", "OIDC_ISSUER", "OIDC_CLIENT_ID", "OIDC_TOKEN_ORIGIN", "OIDC_AUDIENCE",
			"OIDC_SCOPES", "ORIGIN_SECRETS",
		}
		if !slices.Contains(noRequest, name) && after[n] == variable {
			t.Errorf("%s isn't lowered: let lowered do it", name)
		}
	}
}

func startLowered(t testing.TB, databaseURL string) *local.Functions {
	t.Helper()
	f, err := local.InProcess(lowered(settings(databaseURL)), functionConnections, discardLog())
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// keyedCall sends a request under a key of its own to an instance.
type keyedCall func(ctx context.Context, c client) reply

// callsOfEachLimit are requests that a limit may refuse, and the number of the reserves among them.
// The default TTL is one of them. The hold is extended, and the paid one is being paid.
func callsOfEachLimit(
	rows []stockRow, hold, paid uuid.UUID,
) (calls []keyedCall, reserves int) {
	for _, ttl := range []int{0, 30, 60, 61, 1800, 3600} {
		key := uuid.NewString()
		calls = append(calls, func(ctx context.Context, c client) reply {
			return c.reserve(ctx, key, ttl, item{rows[0].Product, rows[0].Warehouse, 1})
		})
		reserves++
		if ttl == 0 {
			continue
		}
		extension, payment := uuid.NewString(), uuid.NewString()
		calls = append(calls, func(ctx context.Context, c client) reply {
			return c.extend(ctx, hold, extension, ttl)
		}, func(ctx context.Context, c client) reply {
			return c.send(ctx, http.MethodPost, "/api/reservations/"+paid.String()+"/payment", payment,
				map[string]any{"paymentReference": "p", "ttlSeconds": ttl})
		})
	}
	one := func(row stockRow) item { return item{row.Product, row.Warehouse, 1} }
	for _, items := range [][]item{
		{{rows[0].Product, rows[0].Warehouse, 2}}, // too many units
		{one(rows[0]), one(rows[1])},              // too many lines
	} {
		key := uuid.NewString()
		calls = append(calls, func(ctx context.Context, c client) reply {
			return c.reserve(ctx, key, 30, items...)
		})
		reserves++
	}
	return calls, reserves
}

// answers are the answers to one keyed call.
type answers struct {
	mu    sync.Mutex
	first []byte // the body of the first success
	wrong []string
}

// add takes an answer to a call that was sent when told said whether a success was known.
func (a *answers) add(r reply, told bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case r.documented() != nil:
		a.wrong = append(a.wrong, r.documented().Error())
	case r.ok() && a.first == nil:
		a.first = r.Body
	case r.ok() && !bytes.Equal(a.first, r.Body):
		a.wrong = append(a.wrong, fmt.Sprintf("two answers: %s and %s", a.first, r.Body))
	case !r.ok() && told && r.Code != "IDEMPOTENCY_KEY_IN_USE":
		a.wrong = append(a.wrong, fmt.Sprintf("%d %s after a success", r.Status, r.Code))
	}
}

func (a *answers) told() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.first != nil
}

// loweredLimits sends each call, again and again, to instances with the old and with the lowered
// limits. It returns what contradicts I6.
func loweredLimits(t *testing.T, d, low *deployment, seed uint64) (wrong []string) {
	t.Helper()
	instances := []client{newClient(d.url, callers), newClient(low.url, callers)}
	rows := d.addProduct(2, 1000)
	hold := reserveUntilCreated(t, instances[0], rows[0], uuid.NewString()).Reservation.ID
	paid := reserveUntilCreated(t, instances[0], rows[0], uuid.NewString()).Reservation.ID
	calls, reserves := callsOfEachLimit(rows, hold, paid)
	heard := make([]answers, len(calls))
	const senders = 12 // each sends every call once, to either instance
	runConcurrently(senders, func(n int) {
		r := newRand(seed, uint64(n))
		for _, m := range r.Perm(len(calls)) {
			told := heard[m].told()
			heard[m].add(calls[m](t.Context(), instances[r.IntN(2)]), told)
		}
	})
	for m, call := range calls {
		for _, instance := range []client{instances[0], instances[1], instances[0]} {
			told := heard[m].told()
			heard[m].add(call(t.Context(), instance), told)
		}
		wrong = append(wrong, heard[m].wrong...)
	}
	holds := pgtest.QueryOne[int](d.db, `
SELECT count(*) FROM reservations
WHERE product_id = $1
   OR id IN (SELECT reservation_id FROM reservation_items WHERE product_id = $1)`,
		rows[0].Product.String())
	if want := 2 + reserves; holds != want { // hold and paid, and one for each reserve
		wrong = append(wrong, fmt.Sprintf("there are %d holds, want %d", holds, want))
	}
	return wrong
}

// TestLoweredLimitsOfADeploy serves the same keys by instances with the old limits and with lowered
// ones, as a deploy does half-way. Each key has one effect and one answer.
func TestLoweredLimitsOfADeploy(t *testing.T) {
	checkLowered(t)
	d := newDeployment(t)
	low := deploy(t, d.db.Database, startLowered)
	for n := range rounds(t, 8*time.Second) {
		for _, wrong := range loweredLimits(t, d, low, n) {
			t.Error(wrong)
		}
	}
	d.audit()
}

// TestLoweredLimitsFindTheRemovedGuard is the control: a reserve that a lowered limit refuses isn't
// looked up.
func TestLoweredLimitsFindTheRemovedGuard(t *testing.T) {
	d := newDeployment(t)
	mutate("replay_answer", "coalesce(c.outcome, 'UNUSED')", "'UNUSED'")(d)
	low := deploy(t, d.db.Database, startLowered)
	if wrong := loweredLimits(t, d, low, 0); len(wrong) == 0 {
		t.Error("no answer contradicts another: the control proves nothing")
	}
}

// previousRelease sends the statements of the release in service before this one, as
// internal/migrate/previous_test.go has them.
type previousRelease struct {
	d *deployment
	// suffix is added to each key. It is empty, except in a control.
	suffix string
}

// previousAnswer is an outcome with the hold that it is about.
type previousAnswer struct {
	outcome string
	id      uuid.UUID
	status  string
}

// call runs a statement, and again when the previous release would have.
func (p previousRelease) call(
	ctx context.Context, sql string, args ...[]byte,
) (previousAnswer, error) {
	conn, err := p.d.db.Admin.Acquire(ctx)
	if err != nil {
		return previousAnswer{}, err
	}
	defer conn.Release()
	for {
		result := conn.Conn().PgConn().ExecParams(ctx, sql, args, nil, nil, nil).Read()
		var pgErr *pgconn.PgError
		if errors.As(result.Err, &pgErr) && (pgErr.Code == "40001" || pgErr.Code == "40P01") {
			continue
		}
		if result.Err != nil || len(result.Rows) != 1 {
			return previousAnswer{}, fmt.Errorf("%s: %w", sql, result.Err)
		}
		var hold struct {
			ID     uuid.UUID
			Status string
		}
		outcome, answer := string(result.Rows[0][0]), result.Rows[0][1]
		if len(answer) > 0 && answer[0] == '{' {
			err = json.Unmarshal(answer, &hold)
		}
		return previousAnswer{outcome, hold.ID, hold.Status}, err
	}
}

// keyHash is the hash that binds a key to a request, in every release.
func keyHash(verb string, parts ...[]byte) []byte {
	b := append([]byte{byte(len(verb))}, verb...)
	for _, part := range parts {
		b = append(binary.BigEndian.AppendUint32(b, uint32(len(part))), part...)
	}
	sum := sha256.Sum256(b)
	return fmt.Appendf(nil, `\x%x`, sum)
}

func previousSeconds(n int) []byte { return binary.BigEndian.AppendUint64(nil, uint64(n)) }

func (p previousRelease) key(key string) []byte { return []byte(key + p.suffix) }

// reserve makes a hold, or finds the one that its key has made.
func (p previousRelease) reserve(
	ctx context.Context, key string, ttl int, items ...item,
) (previousAnswer, error) {
	var lines []byte
	var products, warehouses, quantities []string
	for _, i := range items { // sorted and different
		lines = append(append(lines, i.ProductID[:]...), i.WarehouseID[:]...)
		lines = binary.BigEndian.AppendUint32(lines, uint32(i.Quantity))
		products = append(products, i.ProductID.String())
		warehouses = append(warehouses, i.WarehouseID.String())
		quantities = append(quantities, fmt.Sprint(i.Quantity))
	}
	id, err := uuid.NewV7()
	if err != nil {
		return previousAnswer{}, err
	}
	routine, open, end := "reserve_cart", "{", "}"
	if len(items) == 1 {
		routine, open, end = "reserve_line", "", ""
	}
	list := func(values []string) []byte { return []byte(open + strings.Join(values, ",") + end) }
	a, err := p.call(ctx, "CALL "+routine+"($1, $2, $3, $4, $5, $6, $7, NULL, NULL)",
		[]byte(id.String()), list(products), list(warehouses), list(quantities),
		fmt.Appendf(nil, "%d000000 microseconds", ttl), p.key(key),
		keyHash("reserve", previousSeconds(ttl), lines))
	if a.outcome == "HELD" {
		a.id, a.status = id, "PENDING"
	}
	return a, err
}

func (p previousRelease) resolve(
	ctx context.Context, verb, to string, id uuid.UUID, key string,
) (previousAnswer, error) {
	return p.call(ctx, "CALL resolve_hold($1, $2, 'v', NULL, NULL, NULL, $3, $4, NULL, NULL)",
		[]byte(id.String()), []byte(to), p.key(key), keyHash(verb+"_hold", id[:]))
}

func (p previousRelease) extend(
	ctx context.Context, id uuid.UUID, ttl int, key string,
) (previousAnswer, error) {
	return p.call(ctx, "CALL extend_hold($1, 'x', NULL, NULL, $2, NULL, $3, $4, $5, NULL, NULL)",
		[]byte(id.String()), fmt.Appendf(nil, "%d000000 microseconds", ttl),
		[]byte("3600000000 microseconds"), p.key(key),
		keyHash("extend_hold", id[:], previousSeconds(ttl)))
}

// releases lets this release and the previous one serve the same holds and keys.
type releases struct {
	*witness
	d        *deployment
	previous previousRelease
	shelf    []stockRow

	mu    sync.Mutex
	holds []uuid.UUID
	made  map[string]map[uuid.UUID]bool // the holds that answers to one key told of
}

func newReleases(d *deployment, suffix string) *releases {
	return &releases{
		witness: newWitness(d), d: d, previous: previousRelease{d, suffix},
		shelf: d.addProduct(3, 40), made: map[string]map[uuid.UUID]bool{},
	}
}

// told takes down an answer of the previous release.
func (s *releases) told(verb string, id uuid.UUID, a previousAnswer, err error) {
	s.witness.mu.Lock()
	defer s.witness.mu.Unlock()
	if err != nil {
		s.problems = append(s.problems, fmt.Errorf("the previous release's %s: %w", verb, err))
		return
	}
	switch a.outcome {
	case "CONFIRMED", "RELEASED":
		s.note(id, testimony{status: a.outcome, by: "the previous release's " + verb})
	case "REPLAYED":
		if a.status == "CONFIRMED" || a.status == "RELEASED" {
			s.note(id, testimony{status: a.status, by: "the previous release's replay of " + verb})
		}
	}
}

func (s *releases) keyMade(key string, id uuid.UUID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.made[key] == nil {
		s.made[key] = map[uuid.UUID]bool{}
		s.holds = append(s.holds, id)
	}
	s.made[key][id] = true
}

// reserve sends one reserve to both releases at once, under one key.
func (s *releases) reserve(r *rand.Rand) {
	var items []item
	for n, row := range s.shelf {
		if len(items) == 0 && n == len(s.shelf)-1 || r.IntN(2) == 0 {
			items = append(items, item{row.Product, row.Warehouse, 1 + r.IntN(2)})
		}
	}
	// The service sorts the lines by their bytes. All are of one product.
	slices.SortFunc(items, func(a, b item) int {
		return bytes.Compare(a.WarehouseID[:], b.WarehouseID[:])
	})
	key, ttl := uuid.NewString(), 1+r.IntN(3)
	both(func() {
		a, err := s.previous.reserve(s.d.t.Context(), key, ttl, items...)
		s.told("reserve", a.id, a, err)
		if a.id != uuid.Nil {
			s.keyMade(key, a.id)
		}
	}, func() {
		if got := s.hear("reserve", uuid.Nil,
			s.client.reserve(context.Background(), key, ttl, items...)); got.Reservation != nil {
			s.keyMade(key, got.Reservation.ID)
		}
	})
}

func both(a, b func()) {
	runConcurrently(2, func(n int) {
		if n == 0 {
			a()
		} else {
			b()
		}
	})
}

// resolve sends a verb to both releases at once, under one key, or conflicting verbs.
func (s *releases) resolve(r *rand.Rand, id uuid.UUID) {
	key, ctx := uuid.NewString(), context.Background()
	verbs := [][2]string{{"confirm", "CONFIRMED"}, {"release", "RELEASED"}}
	mine, theirs := verbs[r.IntN(2)], verbs[r.IntN(2)]
	theirKey := key
	if mine != theirs {
		theirKey = uuid.NewString()
	}
	both(func() {
		a, err := s.previous.resolve(s.d.t.Context(), theirs[0], theirs[1], id, theirKey)
		s.told(theirs[0], id, a, err)
	}, func() { s.hear(mine[0], id, s.client.act(ctx, id, mine[0], key)) })
}

func (s *releases) step(r *rand.Rand) {
	s.mu.Lock()
	var id uuid.UUID
	if n := len(s.holds); n > 0 {
		id = s.holds[max(0, n-1-r.IntN(16))]
	}
	s.mu.Unlock()
	switch choice := r.IntN(10); {
	case choice < 5 || id == uuid.Nil:
		s.reserve(r)
	case choice < 8:
		s.resolve(r, id)
	default:
		key := uuid.NewString()
		both(func() {
			a, err := s.previous.extend(s.d.t.Context(), id, 5, key)
			s.told("extend", id, a, err)
		}, func() {
			if got := s.client.extend(context.Background(), id, key, 5); got.documented() != nil {
				s.hear("extend", id, got)
			}
		})
	}
}

// play lets both releases work at once, with their sweeps.
func (s *releases) play(part uint64, lasts time.Duration) {
	ctx, cancel := context.WithTimeout(s.d.t.Context(), lasts)
	defer cancel()
	runConcurrently(ownConnections-1, func(n int) {
		for r := newRand(part, uint64(n)); ctx.Err() == nil; {
			if n > 0 {
				s.step(r)
				continue
			}
			// Both releases sweep by one statement.
			if err := s.d.sweep(ctx); err != nil && ctx.Err() == nil {
				s.told("sweep", uuid.Nil, previousAnswer{}, err)
			}
			sleep(ctx, sweepPause)
		}
	})
}

// twice lists the keys that made two holds.
func (s *releases) twice() (keys []string) {
	for key, holds := range s.made {
		if len(holds) > 1 {
			keys = append(keys, key)
		}
	}
	return keys
}

// TestTwoReleasesAtOnce lets the previous release's statements and this release serve the same
// holds under the same keys, as a deploy does.
func TestTwoReleasesAtOnce(t *testing.T) {
	d := newDeployment(t)
	s := newReleases(d, "")
	s.play(10, duration(8*time.Second))
	if keys := s.twice(); len(keys) > 0 {
		t.Errorf("%d keys made two holds", len(keys))
	}
	if there := pgtest.QueryOne[int](d.db, "SELECT count(*) FROM reservations"); there != len(s.made) {
		t.Errorf("the database has %d holds, %d keys made one", there, len(s.made))
	}
	s.verify(t, d.db)
	d.audit()
	if found := pgtest.PreviousAudit(t, d.db); len(found) > 0 {
		t.Errorf("the previous release's audit found %q", found)
	}
	if n := d.deadlocks(); n > 0 {
		t.Errorf("%d deadlocks", n)
	}
	t.Logf("%d keys made a hold each", len(s.made))
}

// TestTwoReleasesFindTheRemovedGuard is the control: a previous release that keeps its keys apart
// makes second holds.
func TestTwoReleasesFindTheRemovedGuard(t *testing.T) {
	s := newReleases(newDeployment(t), "-previous")
	s.play(11, time.Second)
	if len(s.twice()) == 0 {
		t.Errorf("none of %d keys made two holds: the control proves nothing", len(s.made))
	}
}
