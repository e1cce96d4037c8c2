package reservation

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// The bounds of an erasure.
const (
	// eraseBatch is how many holds one transaction forgets the owner of.
	eraseBatch = 1000
	// eraseBatches is how many transactions one call makes. Together they take about a second.
	eraseBatches = 20
)

// Erased is the result of EraseOwner.
type Erased struct {
	// Holds counts the holds whose owner and reference this call has erased.
	Holds int `json:"erased"`
	// More is true when the call has met its bound, so that there may be more of them.
	More bool `json:"more"`
	// Replayed is true when an earlier call under the same key had the effect.
	Replayed bool `json:"-"`
}

var eraseOwner = procedure{
	"erase_owner", "SELECT outcome, answer FROM erase_owner($1, $2, $3, $4, $5, $6)",
}

// EraseOwner erases an owner, and the references of the owner's holds. The holds stay (I3), but the
// limit of a product doesn't count them any more (I12). It works in transactions of their own, and
// stops when it has met a bound. A caller then repeats it, under another key, until nothing is
// left. An owner without holds has nothing to erase. A call that failed has stored no answer: its
// repeat goes on, and counts what it erases itself.
//
// It returns an *InvalidError, ErrKeyReused, ErrKeyInUse, ErrBusy or ErrUnavailable, together with
// what it has erased so far.
func (s *Service) EraseOwner(ctx context.Context, owner, idempotencyKey string) (Erased, error) {
	var invalid InvalidError
	validateOwner(&invalid, owner)
	validateKey(ctx, &invalid, idempotencyKey)
	if err := invalid.orNil(); err != nil {
		return Erased{}, err
	}
	name, hash := keyArgs(ctx, idempotencyKey, eraseOwner.name, []byte(owner))
	erased := Erased{More: true}
	for batch := 1; ; batch++ {
		out, err := queryRow(ctx, s, pgx.RowToStructByPos[outcome], eraseOwner.sql, owner, eraseBatch,
			erased.Holds, batch == eraseBatches, name, hash)
		if err != nil {
			return erased, fmt.Errorf("erase an owner: %w", err)
		}
		switch out.Name {
		case outcomeMore, outcomeErased, outcomeReplayed:
			erased = Erased{Replayed: out.Name == outcomeReplayed}
			if err := json.Unmarshal(out.Data, &erased); err != nil {
				return erased, fmt.Errorf("read what was erased: %w", err)
			}
		default:
			return erased, verb{procedure: eraseOwner}.refusal(out.Name)
		}
		if out.Name != outcomeMore {
			return erased, nil
		}
	}
}
