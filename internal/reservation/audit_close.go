package reservation

import (
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"
)

// maxVerified bounds the movements that one statement verifies.
const maxVerified = 10_000

// changedRow is a stock row that differs from its closing: it has later movements, or a problem.
type changedRow struct {
	ProductID, WarehouseID string
	// Closed is the number of the movement at which the row is closed, ClosedTotal the total that it
	// led to. Both are 0 for a row without a closing.
	Closed      int64
	ClosedTotal int32
	// Newest is the number of the row's newest movement.
	Newest  int64
	Problem *string
}

// A closing is never newer than its stock row. When they agree, the movements have been verified.
const changedRowsSQL = `
SELECT product_id::text, warehouse_id::text, coalesce(c.seq, 0), coalesce(c.total, 0),
       coalesce(i.seq, 0),
       CASE WHEN c.seq >= coalesce(i.seq, 0)
            THEN format('product %s in warehouse %s: total is %s by movement %s, but an audit has '
                        'verified movement %s, to %s',
                        product_id, warehouse_id, i.total, i.seq, c.seq, c.total) END
FROM (SELECT * FROM inventory WHERE product_id > $1 AND product_id <= $2) i
FULL JOIN (SELECT * FROM stock_closings WHERE product_id > $1 AND product_id <= $2) c
     USING (product_id, warehouse_id)
WHERE i.seq IS DISTINCT FROM c.seq OR i.total IS DISTINCT FROM c.total
ORDER BY product_id, warehouse_id`

// verified is the result of verifySQL for one row: the last verified movement, or a problem.
type verified struct {
	ProductID, WarehouseID string
	Closed, Seq            int64
	Total                  int32
	Problem                *string
}

// verifySQL verifies the movements of stock rows from their closings up to the numbers in $5: that
// each follows from the one before, that the newest one is what the stock row says, that the sales
// are those of confirmed holds, and that each RETURN has its return. It names the first problem of
// a row. It answers nothing for a stock row of which this server doesn't have these movements yet.
var verifySQL = `
WITH asked AS (
    SELECT product_id, warehouse_id, closed, closed_total, upto
    FROM unnest($1::text[]::uuid[], $2::text[]::uuid[], $3::bigint[], $4::integer[],
                $5::bigint[]) a (product_id, warehouse_id, closed, closed_total, upto)
), chain AS (
    SELECT m.*, lag(m.seq, 1, a.closed) OVER w AS seq_before,
           lag(m.total_after, 1, a.closed_total) OVER w AS total_before
    FROM asked a
    CROSS JOIN LATERAL (
        SELECT * FROM stock_movements m
        WHERE m.product_id = a.product_id AND m.warehouse_id = a.warehouse_id
          AND m.seq > a.closed AND m.seq <= a.upto
        OFFSET 0) m
    WINDOW w AS (PARTITION BY m.product_id, m.warehouse_id ORDER BY m.seq)
), chains AS (
    SELECT product_id, warehouse_id, max(seq) AS seq,
           (array_agg(total_after ORDER BY seq DESC))[1] AS total,
           (array_agg(format('movement %s, by %s to %s, follows movement %s, to %s',
                             seq, delta, total_after, seq_before, total_before) ORDER BY seq)
            FILTER (WHERE seq <> seq_before + 1 OR total_after <> total_before + delta))[1]
           AS problem
    FROM chain GROUP BY product_id, warehouse_id
), sales AS (
    SELECT m.product_id, m.warehouse_id,
           (array_agg(format('movement %s is a sale of %s units of hold %s, which is %s and has %s '
                             'in one of %s sales', m.seq, -m.delta, m.reservation_id,
                             coalesce(h.status::text, 'missing'), coalesce(h.quantity, 0),
                             h.sales) ORDER BY m.seq))[1] AS problem
    FROM chain m` + wrongSaleSQL + `
    GROUP BY m.product_id, m.warehouse_id
), returned AS (
    SELECT m.product_id, m.warehouse_id,
           format('movement %s is a RETURN, and no return has it', min(m.seq)) AS problem
    FROM chain m` + wrongReturnSQL + `
    GROUP BY m.product_id, m.warehouse_id
), newest AS (
    SELECT a.*, i.seq AS newest, i.total AS newest_total,
           (SELECT max(m.seq) FROM stock_movements m
            WHERE m.product_id = a.product_id AND m.warehouse_id = a.warehouse_id) AS last_seq
    FROM asked a JOIN inventory i USING (product_id, warehouse_id)
    WHERE i.seq > a.closed
)
SELECT n.product_id::text, n.warehouse_id::text, n.closed, coalesce(c.seq, 0), coalesce(c.total, 0),
       format('product %s in warehouse %s: ', n.product_id, n.warehouse_id) || coalesce(
           c.problem,
           CASE WHEN n.last_seq IS DISTINCT FROM n.newest
                  OR c.seq IS DISTINCT FROM least(n.newest, n.upto)
                  OR c.seq = n.newest AND c.total <> n.newest_total
                THEN format('total is %s by movement %s, but the newest is %s, to %s',
                            n.newest_total, n.newest, n.last_seq, c.total) END,
           s.problem, r.problem)
FROM newest n
LEFT JOIN chains c USING (product_id, warehouse_id)
LEFT JOIN sales s USING (product_id, warehouse_id)
LEFT JOIN returned r USING (product_id, warehouse_id)`

const closeStockSQL = `SELECT close_stock($1::text[]::uuid[], $2::text[]::uuid[], $3, $4, $5)`

// closeSlice verifies the movements behind the closings of the slice's stock rows, and closes the
// rows there. A row with a violation isn't closed, so the next audit finds it again. It returns at
// most limit violations.
func (s *Service) closeSlice(
	ctx context.Context, p part, after, last string, limit int,
) (found []Violation, err error) {
	var rows []changedRow
	err = s.read(ctx, p, func(tx pgx.Tx) error {
		answer, err := tx.Query(ctx, changedRowsSQL, after, last)
		if err != nil {
			return err
		}
		rows, err = pgx.CollectRows(answer, pgx.RowToStructByPos[changedRow])
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("find the stock rows with new movements: %w", err)
	}
	rows = slices.DeleteFunc(rows, func(r changedRow) bool {
		if r.Problem != nil {
			found = append(found, Violation{Promise: "I8", Detail: *r.Problem})
		}
		return r.Problem != nil
	})
	for len(rows) > 0 {
		var batch []changedRow
		batch, rows = nextBatch(rows)
		violations, open, err := s.closeBatch(ctx, p, batch)
		found = append(found, violations...)
		if err != nil {
			return found[:min(limit, len(found))], err
		}
		if len(open) > 0 {
			rows = append(open, rows...)
		}
	}
	return found[:min(limit, len(found))], nil
}

// nextBatch takes the first rows, with at most maxVerified movements altogether. The last of them
// may have more: closeBatch then leaves it open.
func nextBatch(rows []changedRow) (batch, rest []changedRow) {
	movements := int64(0)
	for i, r := range rows {
		movements += r.Newest - r.Closed
		if movements >= maxVerified {
			return rows[:i+1], rows[i+1:]
		}
	}
	return rows, nil
}

// closeBatch verifies and closes the rows of a batch. open is the last row, when it has more
// movements than one statement verifies.
func (s *Service) closeBatch(
	ctx context.Context, p part, batch []changedRow,
) (found []Violation, open []changedRow, err error) {
	results, err := s.verify(ctx, p, batch)
	if err != nil {
		return nil, nil, fmt.Errorf("verify movements: %w", err)
	}
	var products, warehouses []string
	var closed, seqs []int64
	var totals []int32
	for _, r := range results {
		if r.Problem != nil {
			found = append(found, Violation{Promise: "I8", Detail: *r.Problem})
			continue
		}
		products, warehouses = append(products, r.ProductID), append(warehouses, r.WarehouseID)
		closed, seqs, totals = append(closed, r.Closed), append(seqs, r.Seq), append(totals, r.Total)
		last := batch[len(batch)-1]
		if r.ProductID == last.ProductID && r.WarehouseID == last.WarehouseID && r.Seq < last.Newest {
			last.Closed, last.ClosedTotal = r.Seq, r.Total
			open = append(open, last)
		}
	}
	if len(products) == 0 {
		return found, nil, nil
	}
	err = s.retry(ctx, func() error {
		return s.pool.Exec(ctx, closeStockSQL, products, warehouses, closed, seqs, totals)
	})
	if err != nil {
		return found, nil, fmt.Errorf("close stock rows: %w", err)
	}
	return found, open, nil
}

// verify runs verifySQL for the rows of a batch.
func (s *Service) verify(
	ctx context.Context, p part, batch []changedRow,
) (results []verified, err error) {
	var products, warehouses []string
	var closed, upto []int64
	var totals []int32
	left := int64(maxVerified)
	for _, r := range batch {
		n := min(left, r.Newest-r.Closed)
		left -= n
		products, warehouses = append(products, r.ProductID), append(warehouses, r.WarehouseID)
		closed, totals = append(closed, r.Closed), append(totals, r.ClosedTotal)
		upto = append(upto, r.Closed+n)
	}
	err = s.read(ctx, p, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, verifySQL, products, warehouses, closed, totals, upto)
		if err != nil {
			return err
		}
		results, err = pgx.CollectRows(rows, pgx.RowToStructByPos[verified])
		return err
	})
	return results, err
}
