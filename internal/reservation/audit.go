package reservation

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/allo/reservations/internal/postgres"
)

// Violation is a broken promise, found in the data.
type Violation struct {
	Promise string // I1 to I12, catalog, parties, payments, replacements, or returns
	Detail  string // the rows that break it, and how
}

// maxViolations bounds the rows that one check reports. The first few are enough to see the error.
const maxViolations = 20

// check is a promise as a query. Each row of the result is a violation, described in its one
// column. A check is one statement, so it compares the numbers of one snapshot.
type check struct {
	promise string
	sql     string
}

// part is a table with the checks that read it. A snapshot makes hot rows slow while it is open
// (migrations/0002_old_snapshots.sql), so the audit reads a large table in slices, and each slice
// of each check has a snapshot of its own. The checks of such a part say of each row of a slice
// whether it breaks a promise: $1 is the key before the slice, $2 is the slice's last key.
type part struct {
	// name tells where an audit goes on that was cut off (migrations/0007_closings.sql).
	name string
	// after is a key before all keys, last one behind them.
	after, last string
	// end selects the last key of the slice that begins after $1, or nothing when fewer rows are
	// left than a slice has. It orders by the key itself, as an index does, and not by its text. It
	// is empty for a part that is read whole.
	end    string
	checks []check
	// whole is true for checks that read whole tables, which the role's settings forbid.
	whole bool
	// onWriter is true for checks of the server that the verbs use. The others may read its reader.
	onWriter bool
	// closes is true when the audit also verifies and closes the slice's stock rows.
	closes bool
	// once is true for a part of one slice.
	once bool
	// run is the number of the audit that a server must show before the part is read there, or 0.
	// Such a server has everything that is new for the audit.
	run int64
}

// The bounds of the snapshots.
const (
	// wholeLimit bounds a check that reads whole tables. It reads about ten million holds.
	wholeLimit = 5 * time.Second
	// sliceLimit bounds each check of a slice, which takes a small part of that time.
	sliceLimit = 2 * time.Second
)

// Audit checks every promise that the data can break, on the reader if the service has one. A
// reader may be a moment behind, and each of its snapshots is whole. Audit returns the violations,
// at most maxViolations for each check. It reads everything, however much that is, and relies on no
// earlier audit. When a check doesn't end within its limit or before the context's deadline, Audit
// returns the violations found by the others together with the error.
//
// The tests and the bench call it. The sweeper calls AuditNew and AuditFull, which read in slices
// only, so they leave out the sums of whole tables.
func (s *Service) Audit(ctx context.Context) ([]Violation, error) {
	var found []Violation
	var errs []error
	for _, p := range append(fullParts(), part{checks: wholeChecks, whole: true}) {
		left := slices.Repeat([]int{maxViolations}, len(p.checks))
		for after, more := p.after, true; more; {
			violations, last, err := s.readSlice(ctx, p, after, left)
			found = append(found, violations...)
			if err != nil {
				errs = append(errs, fmt.Errorf("audit: %w", err))
			}
			after, more = last, err == nil && last != p.last
		}
	}
	return found, errors.Join(errs...)
}

// readSlice runs the checks of one slice, which begins after a key, and returns the slice's last
// key. left bounds the violations of each check, and is lowered by their number.
func (s *Service) readSlice(
	ctx context.Context, p part, after string, left []int,
) (found []Violation, last string, err error) {
	allowed := slices.Clone(left)
	err = s.read(ctx, p, func(tx pgx.Tx) error {
		found, last = nil, p.last
		copy(left, allowed)
		var bounds []any
		if p.end != "" {
			err := tx.QueryRow(ctx, p.end, after).Scan(&last)
			if err != nil && !errors.Is(err, pgx.ErrNoRows) {
				return err
			}
			bounds = []any{after, last}
		}
		for i, c := range p.checks {
			violations, err := c.run(ctx, tx, left[i], bounds)
			if err != nil {
				return fmt.Errorf("%s: %w", c.promise, err)
			}
			found = append(found, violations...)
			left[i] -= len(violations)
		}
		return nil
	})
	return found, last, err
}

// errBehind means that the reader doesn't have everything that is new for an audit yet.
var errBehind = errors.New("the reader is behind")

// read runs fn in a read-only transaction, on the reader if there is one and the part allows it.
// When the reader can't be used, cancels the transaction because it must apply a change, or hasn't
// got what is new for the audit, fn runs on the writer.
//
// How far the reader is behind doesn't matter: a promise holds in each snapshot, and an old one is
// as good. What an audit writes, it writes on the writer, by guards of its own: begin_audit takes
// the snapshots there, close_stock moves no closing back, and pass_slice passes each slice once.
func (s *Service) read(ctx context.Context, p part, fn func(pgx.Tx) error) error {
	readOnly := pgx.TxOptions{IsoLevel: pgx.ReadCommitted, AccessMode: pgx.ReadOnly}
	allowed := func(tx pgx.Tx) error {
		if err := p.allow(ctx, tx); err != nil {
			return err
		}
		return fn(tx)
	}
	if !p.onWriter {
		answered, err := s.opts.Reader.AnyAge(ctx,
			func(ctx context.Context, reader *postgres.Pool) error {
				return reader.Transaction(ctx, readOnly, func(tx pgx.Tx) error {
					if err := p.follows(ctx, tx); err != nil {
						return err
					}
					return allowed(tx)
				})
			})
		if answered && !errors.Is(err, errBehind) {
			return err
		}
	}
	return s.pool.Transaction(ctx, readOnly, allowed)
}

// follows returns errBehind unless the reader shows the part's audit.
func (p part) follows(ctx context.Context, tx pgx.Tx) error {
	if p.run == 0 {
		return nil
	}
	var run int64
	err := tx.QueryRow(ctx, "SELECT run FROM audit_state WHERE kind = $1", newAudit).Scan(&run)
	if err == nil && run < p.run {
		return errBehind
	}
	return err
}

// allow sets the limit of each statement of a transaction. The server ends each at the context's
// deadline too, even when this client is gone by then. The planner sees the bounds of a slice,
// because it can't guess how few of a large table's rows they leave.
func (p part) allow(ctx context.Context, tx pgx.Tx) error {
	limit, scan := sliceLimit, "off"
	if p.whole {
		limit, scan = wholeLimit, "on"
	}
	if deadline, ok := ctx.Deadline(); ok {
		limit = min(limit, max(time.Millisecond, time.Until(deadline)))
	}
	_, err := tx.Exec(ctx, `
SELECT set_config('statement_timeout', $1, true), set_config('enable_seqscan', $2, true),
       set_config('plan_cache_mode', 'force_custom_plan', true)`,
		strconv.FormatInt(limit.Milliseconds(), 10), scan)
	return err
}

// run returns at most limit violations. The limit stands outside of the check. Inside, it would
// lead the planner to a plan that finds a first violation soon, and reads a whole table if there is
// none.
func (c check) run(
	ctx context.Context, tx pgx.Tx, limit int, bounds []any,
) ([]Violation, error) {
	sql := fmt.Sprintf("WITH found (detail) AS MATERIALIZED (%s) SELECT detail FROM found LIMIT %d",
		c.sql, limit)
	rows, err := tx.Query(ctx, sql, bounds...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (Violation, error) {
		violation := Violation{Promise: c.promise}
		return violation, row.Scan(&violation.Detail)
	})
}
