package reservation

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// The bounds of a count. A console shows how many entries a list has, and nobody counts beyond
// them.
const (
	// MaxCount is the most entries that a count counts. That takes about 50 ms.
	MaxCount = 200_000
	// maxCountScan is how many holds of each status a count looks at where no index has those that the
	// filter selects.
	maxCountScan = maxHoldScan
	// MaxSearch is how many products one page of a search looks at, and MaxCountSearch one count. A
	// thousand take less than a millisecond.
	MaxSearch      = 20_000
	MaxCountSearch = 50_000
)

// Count is how many entries a list has.
type Count struct {
	N int64
	// AtLeast says that there may be more, because the count met one of its bounds.
	AtLeast bool
}

// CountRow is the answer of a routine that counts.
type CountRow struct {
	N     int64
	Whole bool
}

// Count makes a Count of the answer.
func (r CountRow) Count() Count { return Count{N: r.N, AtLeast: !r.Whole} }

const countHoldsSQL = `SELECT n, whole FROM count_holds($1, $2, $3, $4, $5, $6, $7)`

// CountHolds counts the holds that ListHolds lists. It counts up to MaxCount holds where an index
// has those of the filter, and otherwise looks at fewer. It takes no filter of UpdatedSince: such a
// list follows the changes, and may have a hold twice. It is read as ListHolds does, and returns
// ErrBusy or ErrUnavailable.
func (s *Service) CountHolds(ctx context.Context, f HoldFilter) (Count, error) {
	rows, err := read(ctx, s, pgx.RowToStructByPos[CountRow], countHoldsSQL,
		optional(string(f.Status)), optionalID(f.ProductID), optionalID(f.WarehouseID),
		optional(f.Owner), optional(f.Reference), MaxCount, maxCountScan)
	if err != nil {
		return Count{}, fmt.Errorf("count holds: %w", err)
	}
	return rows[0].Count(), nil // a call of a function has one row
}

const countProductsSQL = `SELECT n, whole FROM count_products($1, $2)`

// CountProducts counts the products that ListProducts lists, up to MaxCount, or with words those
// that SearchProducts finds among the first MaxCountSearch. It returns ErrBusy or ErrUnavailable.
func (s *Service) CountProducts(ctx context.Context, words []string) (Count, error) {
	look := MaxCount
	if words != nil {
		look = MaxCountSearch
	}
	rows, err := read(ctx, s, pgx.RowToStructByPos[CountRow], countProductsSQL, words, look)
	if err != nil {
		return Count{}, fmt.Errorf("count products: %w", err)
	}
	return rows[0].Count(), nil
}
