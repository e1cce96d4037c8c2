package reservation

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/allo/reservations/internal/postgres"
)

// Options are the settings of a Service.
type Options struct {
	// HoldTTL is how long a hold lasts that doesn't say how long.
	HoldTTL time.Duration
	// MaxHold is the longest that a hold may last, extensions included.
	MaxHold time.Duration
	// EarlyRelease lets the procedures commit by themselves, so that stock rows are free before the disk has the commit. Without it
	// they run in transactions of the service's own, for servers that refuse COMMIT in a procedure.
	EarlyRelease bool
}

// Service holds stock. It is safe for concurrent use, and any number of them may work on one database.
type Service struct {
	pool    *postgres.Pool
	opts    Options
	retries atomic.Int64
}

// New makes a Service on a migrated database.
func New(pool *postgres.Pool, opts Options) *Service { return &Service{pool: pool, opts: opts} }

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
	// maxPlainTries bounds the tries of a plain transaction that finds its rows changed, and maxPlainDelay the pauses between them, as
	// the procedures' loops do: together they are about as long as a lock may be waited for.
	maxPlainTries = 30
	maxPlainDelay = 150 * time.Millisecond
)

// retry runs fn, each time in a transaction of its own, until it ends otherwise than in a deadlock or a serialization failure.
func (s *Service) retry(ctx context.Context, fn func() error) error {
	for try := 1; ; try++ {
		err := fn()
		if err == nil || !postgres.Retryable(err) || try == maxTries {
			return classify(err)
		}
		s.retries.Add(1)
		if err := pause(ctx, try, maxDelay); err != nil {
			return classify(err)
		}
	}
}

// query runs one statement that is a transaction of its own.
func (s *Service) query(ctx context.Context, sql string, args ...any) (rows postgres.Rows, err error) {
	err = s.retry(ctx, func() error {
		rows, err = s.pool.Query(ctx, sql, args...)
		return err
	})
	return rows, err
}

// pause waits a random time that grows with the tries, up to the longest.
func pause(ctx context.Context, try int, longest time.Duration) error {
	timer := time.NewTimer(rand.N(min(baseDelay<<try, longest))) // #nosec G404 -- it spreads retries, and guards nothing
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

// procedure is a verb's procedure of Postgres, and the statement that calls it: early or not, its arguments, and the two that it answers
// with.
type procedure struct{ name, sql string }

var (
	reserveLine = procedure{"reserve_line", "CALL reserve_line($1, $2, $3, $4, $5, $6, $7, $8, NULL, NULL)"}
	reserveCart = procedure{"reserve_cart", "CALL reserve_cart($1, $2, $3, $4, $5, $6, $7, $8, NULL, NULL)"}
	resolveHold = procedure{"resolve_hold", "CALL resolve_hold($1, $2, $3, $4, $5, NULL, NULL)"}
	extendHold  = procedure{"extend_hold", "CALL extend_hold($1, $2, $3, $4, $5, $6, NULL, NULL)"}
)

// verb is one call of a verb's procedure.
type verb struct {
	procedure
	args []any
	// success lists the outcomes that are committed, beside a replay.
	success []string
	// lines are what a reserve asks for: before it tries again it waits for whoever has their dead holds.
	lines []Line
	// held makes the new hold of a reserve, which is answered with nothing but the instant at which it begins.
	held func(at time.Time) Hold
}

// The outcomes that have a meaning of their own here; those that are a status are named by it.
const (
	outcomeHeld     = "HELD"
	outcomeReplayed = "REPLAYED"
	outcomeRetry    = "RETRY"
)

// call runs the verb and reads its answer.
func (s *Service) call(ctx context.Context, v verb) (outcome string, answer []byte, err error) {
	err = s.retry(ctx, func() error {
		if s.opts.EarlyRelease {
			outcome, answer, err = v.call(ctx, s.pool, true)
		} else {
			outcome, answer, err = s.callPlain(ctx, v)
		}
		return err
	})
	return outcome, answer, err
}

// call is one round trip. With early the procedure commits, waits for the flush and answers.
func (v verb) call(ctx context.Context, db postgres.Querier, early bool) (outcome string, answer []byte, err error) {
	args := append([]any{strconv.FormatBool(early)}, v.args...)
	rows, err := db.Query(ctx, v.sql, args...)
	if err != nil {
		return "", nil, err
	}
	return string(rows[0][0]), rows[0][1], nil
}

// callPlain runs the verb's procedure in a transaction that commits as any other does. The rule is the procedures' own: a success is
// committed, anything else rolled back, and a RETRY tried again.
func (s *Service) callPlain(ctx context.Context, v verb) (outcome string, answer []byte, err error) {
	undone := errors.New("no success, so rolled back")
	for try := 1; try <= maxPlainTries; try++ {
		err = s.pool.Transaction(ctx, "", func(tx postgres.Tx) error {
			if outcome, answer, err = v.call(ctx, tx, false); err != nil {
				return err
			}
			if !v.succeeded(outcome) {
				return undone
			}
			// A replay writes nothing, and what it repeats may have been committed early by another service: its answer waits
			// for a flush like any other.
			_, err := tx.Query(ctx, "SELECT pg_logical_emit_message(true, 'allo', '')")
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
		if err := pause(ctx, try, maxPlainDelay); err != nil {
			return outcome, answer, err
		}
	}
	return outcome, answer, nil
}

// awaitDead waits as the procedures do between two tries: for one hold or line at a time, holding nothing.
func (s *Service) awaitDead(ctx context.Context, lines []Line) error {
	for _, line := range lines {
		for _, sql := range []string{"SELECT await_dead_hold($1, $2)", "SELECT await_dead_line($1, $2)"} {
			if _, err := s.pool.Query(ctx, sql, line.ProductID.String(), line.WarehouseID.String()); err != nil {
				return err
			}
		}
	}
	return nil
}

func (v verb) succeeded(outcome string) bool {
	return outcome == outcomeReplayed || slices.Contains(v.success, outcome)
}

// resolve turns a verb's outcome into its answer or its error.
func (v verb) resolve(outcome string, answer []byte) (Answer, error) {
	if outcome == outcomeHeld {
		var at time.Time
		if err := json.Unmarshal(answer, &at); err != nil {
			return Answer{}, fmt.Errorf("read when a hold began: %w", err)
		}
		return Answer{Hold: v.held(at.UTC())}, nil
	}
	if v.succeeded(outcome) {
		hold, err := decodeHold(answer)
		return Answer{Hold: hold, Replayed: outcome == outcomeReplayed}, err
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

// key is what a verb's procedure takes for an Idempotency-Key: the key and the hash of what it binds, or two nulls.
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
