package reservation

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/allo/reservations/internal/postgres"
)

// Options are the settings of a Service.
type Options struct {
	// HoldTTL is how long a hold lasts that doesn't say how long.
	HoldTTL time.Duration
	// MaxHold is the longest that a hold may last, extensions included.
	MaxHold time.Duration
	// EarlyRelease uses the procedures that let stock rows go before the disk has the commit. Without it the verbs run in
	// transactions of the service's own, for servers that refuse COMMIT in a procedure.
	EarlyRelease bool
}

// Service holds stock. It is safe for concurrent use, and any number of them may work on one database.
type Service struct {
	pool    *pgxpool.Pool
	opts    Options
	retries atomic.Int64
}

// New makes a Service on a migrated database.
func New(pool *pgxpool.Pool, opts Options) *Service { return &Service{pool: pool, opts: opts} }

// Retries counts the transactions that were run again after a deadlock or a serialization failure. It stays at zero unless
// something else takes locks in another order.
func (s *Service) Retries() int64 { return s.retries.Load() }

// Answer is what a verb did, or had done before under the same Idempotency-Key.
type Answer struct {
	Hold     Hold
	Replayed bool
}

// Bounds of a retry. Three more tries ride out a deadlock with anything sensible; the pauses keep two losers from meeting again.
const (
	maxTries  = 4
	baseDelay = 5 * time.Millisecond
	maxDelay  = 50 * time.Millisecond
	// maxPlainTries bounds the tries of a plain transaction that finds its rows changed, as the procedures' loops do.
	maxPlainTries = 30
)

// retry runs fn, each time in a transaction of its own, until it ends otherwise than in a deadlock or a serialization failure.
func (s *Service) retry(ctx context.Context, fn func() error) error {
	for try := 1; ; try++ {
		err := fn()
		if err == nil || !postgres.Retryable(err) || try == maxTries {
			return classify(err)
		}
		s.retries.Add(1)
		if err := pause(ctx, try); err != nil {
			return classify(err)
		}
	}
}

// pause waits a random time that grows with the tries.
func pause(ctx context.Context, try int) error {
	timer := time.NewTimer(rand.N(min(baseDelay<<try, maxDelay)))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// classify gives an error of the database its meaning for the caller, and keeps it for the log.
func classify(err error) error {
	switch {
	case err == nil:
		return nil
	case postgres.LockTimeout(err), postgres.Retryable(err):
		return fmt.Errorf("%w: %w", ErrBusy, err)
	case postgres.Unavailable(err):
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	default:
		return err
	}
}

// verb is one call of a verb's function, or of its procedure.
type verb struct {
	name string // of the function; the procedure has _early behind it
	args []any
	// success lists the outcomes that are committed, beside a replay.
	success []string
	// lines are what a reserve asks for: before it tries again it waits for whoever has their dead holds.
	lines []Line
}

const replayed = "REPLAYED"

// call runs the verb and reads its answer.
func (s *Service) call(ctx context.Context, v verb) (outcome string, answer []byte, err error) {
	err = s.retry(ctx, func() error {
		if s.opts.EarlyRelease {
			outcome, answer, err = s.callEarly(ctx, v)
		} else {
			outcome, answer, err = s.callPlain(ctx, v)
		}
		return err
	})
	return outcome, answer, err
}

// callEarly is one round trip: the procedure commits, waits for the flush and answers.
func (s *Service) callEarly(ctx context.Context, v verb) (outcome string, answer []byte, err error) {
	sql := "CALL " + v.name + "_early(" + placeholders(len(v.args)) + ", NULL, NULL)"
	err = s.pool.QueryRow(ctx, sql, v.args...).Scan(&outcome, &answer)
	return outcome, answer, err
}

// callPlain runs the verb's function in a transaction that commits as any other does. The rule is the procedures': a success is
// committed, anything else rolled back, and a RETRY tried again.
func (s *Service) callPlain(ctx context.Context, v verb) (outcome string, answer []byte, err error) {
	sql := "SELECT outcome, answer FROM " + v.name + "(" + placeholders(len(v.args)) + ")"
	undone := errors.New("no success, so rolled back")
	for try := 1; try <= maxPlainTries; try++ {
		err = pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
			if err := tx.QueryRow(ctx, sql, v.args...).Scan(&outcome, &answer); err != nil {
				return err
			}
			if !v.succeeded(outcome) {
				return undone
			}
			// A replay writes nothing, and what it repeats may have been committed early by another service: its answer waits
			// for a flush like any other.
			_, err := tx.Exec(ctx, "SELECT pg_logical_emit_message(true, 'allo', '')")
			return err
		})
		if err != nil && !errors.Is(err, undone) {
			return outcome, answer, err
		}
		if outcome != outcomeRetry {
			break
		}
		if err := s.awaitDead(ctx, v.lines); err != nil {
			return outcome, answer, err
		}
		if err := pause(ctx, try); err != nil {
			return outcome, answer, err
		}
	}
	return outcome, answer, nil
}

// awaitDead waits as the procedures do between two tries: for one hold or line at a time, holding nothing.
func (s *Service) awaitDead(ctx context.Context, lines []Line) error {
	for _, line := range lines {
		for _, sql := range []string{"SELECT await_dead_hold($1, $2)", "SELECT await_dead_line($1, $2)"} {
			if _, err := s.pool.Exec(ctx, sql, line.ProductID.String(), line.WarehouseID.String()); err != nil {
				return err
			}
		}
	}
	return nil
}

func (v verb) succeeded(outcome string) bool {
	for _, o := range v.success {
		if o == outcome {
			return true
		}
	}
	return outcome == replayed
}

func placeholders(n int) string {
	var b strings.Builder
	for i := range n {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "$%d", i+1)
	}
	return b.String()
}

// The outcomes that verbs share; the others are named where they are a success.
const outcomeRetry = "RETRY"

// resolve turns a verb's outcome into its answer or its error.
func (v verb) resolve(outcome string, answer []byte) (Answer, error) {
	if v.succeeded(outcome) {
		hold, err := decodeHold(answer)
		return Answer{Hold: hold, Replayed: outcome == replayed}, err
	}
	switch outcome {
	case "NOT_FOUND":
		return Answer{}, ErrNotFound
	case "INVENTORY_NOT_FOUND":
		return Answer{}, ErrInventoryNotFound
	case "SHORT":
		return Answer{}, decodeShortages(answer)
	case string(Expired):
		return Answer{}, ErrExpired
	case string(Confirmed):
		return Answer{}, ErrConfirmed
	case string(Released):
		return Answer{}, ErrReleased
	case "EXTENSION_LIMIT":
		return Answer{}, ErrExtensionLimit
	case "KEY_REUSED":
		return Answer{}, ErrKeyReused
	case "KEY_IN_USE":
		return Answer{}, ErrKeyInUse
	case outcomeRetry:
		return Answer{}, fmt.Errorf("%w: the row changed at each of up to %d tries", ErrBusy, maxPlainTries)
	default:
		return Answer{}, fmt.Errorf("%s answered %q, which I3 doesn't allow", v.name, outcome)
	}
}

// do calls a verb and reads what became of it.
func (s *Service) do(ctx context.Context, v verb) (Answer, error) {
	outcome, answer, err := s.call(ctx, v)
	if err != nil {
		return Answer{}, fmt.Errorf("%s: %w", v.name, err)
	}
	return v.resolve(outcome, answer)
}

// key is what a verb's function takes for an Idempotency-Key: the key and the hash of what it binds, or two nulls.
func key(key, verb string, parts ...[]byte) (name *string, hash []byte) {
	if key == "" {
		return nil, nil
	}
	sum := sha256.Sum256(fingerprint(verb, parts...))
	return &key, sum[:]
}

// holdRow is a hold as hold_json writes it.
type holdRow struct {
	ID          uuid.UUID  `json:"id"`
	Status      Status     `json:"status"`
	Quantity    int        `json:"quantity"`
	ProductID   *uuid.UUID `json:"product_id"`
	WarehouseID *uuid.UUID `json:"warehouse_id"`
	Items       []Line     `json:"items"`
	CreatedAt   time.Time  `json:"created_at"`
	UpdatedAt   time.Time  `json:"updated_at"`
	ExpiresAt   time.Time  `json:"expires_at"`
}

func (r holdRow) hold() Hold {
	h := Hold{
		ID: r.ID, Status: r.Status, Quantity: r.Quantity, Lines: r.Items,
		CreatedAt: r.CreatedAt.UTC(), UpdatedAt: r.UpdatedAt.UTC(), ExpiresAt: r.ExpiresAt.UTC(),
	}
	if r.ProductID != nil && r.WarehouseID != nil {
		h.Lines = []Line{{ProductID: *r.ProductID, WarehouseID: *r.WarehouseID, Quantity: r.Quantity}}
	}
	return h
}

func decodeHold(answer []byte) (Hold, error) {
	var row holdRow
	if err := json.Unmarshal(answer, &row); err != nil {
		return Hold{}, fmt.Errorf("read a hold: %w", err)
	}
	return row.hold(), nil
}

func decodeShortages(answer []byte) error {
	var short InsufficientStockError
	if err := json.Unmarshal(answer, &short.Shortages); err != nil {
		return fmt.Errorf("read the shortages: %w", err)
	}
	return &short
}
