package reservation

import (
	"context"
	"encoding/json"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/allo/reservations/internal/postgres"
)

// This file says which reads may go to the Reader, which follows the database and may be
// READER_LAG behind.
//
// These do: the catalog, the warehouses, the lists of holds, of stock rows, of movements and of
// events, the counts, the history and the payments of a hold, the stats, and the audit (audit.go).
// None of them decides anything: a verb decides by the rows that it has locked on the writer. A
// list shows the state of the shop at one moment, and a moment later it would have been another
// one anyway.
//
// These don't: the verbs, and a hold by its id, which a shopper reads just after the reserve or the
// payment.

// onWriter is the key of a context whose reads go to the writer.
type onWriter struct{}

// OnWriter returns a context whose reads see every change that was committed before.
func OnWriter(ctx context.Context) context.Context {
	return context.WithValue(ctx, onWriter{}, true)
}

// mayRead reports whether the context's reads may go to the Reader.
func (s *Service) mayRead(ctx context.Context) bool {
	return s.opts.Reader != nil && ctx.Value(onWriter{}) == nil
}

// read runs one statement that only reads. It reads on the Reader, if there is one that isn't too
// far behind, and may miss a change of the last moment there. What the Reader doesn't answer is
// read where the other calls are.
func read[T any](
	ctx context.Context, s *Service, to pgx.RowToFunc[T], sql string, args ...any,
) (rows []T, err error) {
	rows, answered, err := readOnReader(ctx, s, to, sql, args...)
	if answered {
		return rows, err
	}
	return query(ctx, s, to, sql, args...)
}

// readKnown is read for what its caller knows by an id. When the Reader doesn't find it, the writer
// may have it already.
func readKnown[T any](
	ctx context.Context, s *Service, found func([]T) bool, to pgx.RowToFunc[T], sql string,
	args ...any,
) (rows []T, err error) {
	rows, answered, err := readOnReader(ctx, s, to, sql, args...)
	if answered && (err != nil || found(rows)) {
		return rows, err
	}
	return query(ctx, s, to, sql, args...)
}

// listOf reads the newest entries of a list that belongs to a hold. The statement answers JSON, or
// null if there is no such hold.
func listOf[T any](
	ctx context.Context, s *Service, sql string, hold uuid.UUID, limit int,
) (entries []T, err error) {
	found := func(answers [][]byte) bool { return len(answers) == 1 && answers[0] != nil }
	answers, err := readKnown(ctx, s, found, pgx.RowTo[[]byte], sql, hold.String(), limit)
	if err != nil {
		return nil, err
	}
	if !found(answers) {
		return nil, ErrNotFound
	}
	err = json.Unmarshal(answers[0], &entries)
	return entries, err
}

// readOnReader reads on the Reader. It answers false when the writer must be read.
func readOnReader[T any](
	ctx context.Context, s *Service, to pgx.RowToFunc[T], sql string, args ...any,
) (rows []T, answered bool, err error) {
	if !s.mayRead(ctx) {
		return nil, false, nil
	}
	answered, err = s.opts.Reader.Fresh(ctx,
		func(ctx context.Context, reader *postgres.Pool) (err error) {
			rows, err = postgres.Query(ctx, reader, to, sql, args...)
			return err
		})
	return rows, answered, classify(err)
}
