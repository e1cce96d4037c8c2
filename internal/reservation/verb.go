package reservation

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
)

// Answer is the result of a verb, now or at the first call under the same Idempotency-Key.
type Answer struct {
	Hold Hold
	// Replayed is true when an earlier call under the same key had the effect.
	Replayed bool
	// Reacquired is true when a payment came too late and got the units anew: Hold is the successor.
	Reacquired bool
}

// procedure is a verb's stored procedure and the statement that calls it. Its last two parameters
// return the outcome and its data.
type procedure struct{ name, sql string }

var (
	reserveLine = procedure{
		"reserve_line", "CALL reserve_line($1, $2, $3, $4, $5, $6, $7, NULL, NULL)",
	}
	reserveCart = procedure{
		"reserve_cart", "CALL reserve_cart($1, $2, $3, $4, $5, $6, $7, NULL, NULL)",
	}
	resolveHold = procedure{
		"resolve_hold", "CALL resolve_hold($1, $2, $3, $4, $5, $6, $7, $8, NULL, NULL)",
	}
	reserveDetailed = procedure{
		"reserve_detailed",
		"CALL reserve_detailed($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, NULL, NULL)",
	}
	extendHold = procedure{
		"extend_hold", "CALL extend_hold($1, $2, $3, $4, $5, $6, $7, $8, $9, NULL, NULL)",
	}
	// replayAnswer is a function: it only reads.
	replayAnswer = procedure{
		"replay_answer", "SELECT outcome, answer FROM replay_answer($1, $2)",
	}
)

// The causes of a transition, as the ledger has them.
const (
	causeVerb     = "v"
	causeOperator = "o"
)

// errKeyUnused means that no answer is stored under the key.
var errKeyUnused = errors.New("idempotency key unused")

// verb is one call of a verb's procedure.
type verb struct {
	procedure
	args []any
	// success lists the outcomes that are a success, apart from a replay.
	success []string
	// newHold makes the hold of a reserve from the time at which it begins. The procedure returns
	// only that time, because the caller knows the rest.
	newHold func(at time.Time) Hold
}

// outcome is the result of a procedure: the outcome's name, and its data as JSON or nil.
type outcome struct {
	Name string
	Data []byte
}

// The outcomes of the procedures, apart from the hold's statuses.
const (
	outcomeHeld           = "HELD"
	outcomeReplayed       = "REPLAYED"
	outcomeRetry          = "RETRY"
	outcomeNotFound       = "NOT_FOUND"
	outcomeNoStockRow     = "INVENTORY_NOT_FOUND"
	outcomeShort          = "SHORT"
	outcomeExtensionLimit = "EXTENSION_LIMIT"
	outcomeKeyReused      = "KEY_REUSED"
	outcomeKeyInUse       = "KEY_IN_USE"
	outcomeKeyUnused      = "UNUSED"
	outcomeUnchanged      = "UNCHANGED"
	outcomePaymentStarted = "PAYMENT_STARTED"
	outcomeAlreadyPaid    = "ALREADY_PAID"
	outcomeReacquired     = "REACQUIRED"
	outcomePaymentLost    = "PAYMENT_LOST"
	outcomeErased         = "ERASED"
	outcomeMore           = "MORE"
)

// call runs a verb in one round trip. When it returns a success, the effect is on disk (I5).
func (s *Service) call(ctx context.Context, v verb) (Answer, error) {
	out, err := queryRow(ctx, s, pgx.RowToStructByPos[outcome], v.sql, v.args...)
	if err != nil {
		return Answer{}, fmt.Errorf("%s: %w", v.name, err)
	}
	return v.answer(out)
}

// answer turns a procedure's outcome into the verb's answer or its error.
func (v verb) answer(out outcome) (Answer, error) {
	switch {
	case out.Name == outcomeHeld:
		var at time.Time
		if err := json.Unmarshal(out.Data, &at); err != nil {
			return Answer{}, fmt.Errorf("read when a hold began: %w", err)
		}
		return Answer{Hold: v.newHold(at.UTC())}, nil
	case out.Name == outcomeReplayed, slices.Contains(v.success, out.Name),
		out.Name == outcomePaymentLost:
		return decodeAnswer(out.Data, out.Name == outcomeReplayed)
	case out.Name == outcomeShort:
		return Answer{}, decodeShortages(out.Data)
	case out.Name == outcomeAlreadyPaid:
		return Answer{}, decodeAlreadyPaid(out.Data)
	default:
		return Answer{}, v.refusal(out.Name)
	}
}

// refusal is the error of an outcome that has no data.
func (v verb) refusal(name string) error {
	switch name {
	case outcomeNotFound:
		return ErrNotFound
	case outcomeNoStockRow:
		return ErrInventoryNotFound
	case string(Expired):
		return ErrExpired
	case string(Confirmed):
		return ErrConfirmed
	case string(Released):
		return ErrReleased
	case outcomePaymentStarted:
		return ErrPaymentStarted
	case outcomeExtensionLimit:
		return ErrExtensionLimit
	case outcomeKeyReused:
		return ErrKeyReused
	case outcomeKeyInUse:
		return ErrKeyInUse
	case outcomeKeyUnused:
		return errKeyUnused
	case outcomeRetry:
		return fmt.Errorf("%w: the rows changed at every try of %s", ErrBusy, v.name)
	default:
		return fmt.Errorf("%s returned %q, which I3 doesn't allow", v.name, name)
	}
}
