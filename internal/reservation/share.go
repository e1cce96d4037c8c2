package reservation

import (
	"context"

	"github.com/jackc/pgx/v5"
)

// This file is for the packages that work on the same database by the same rules: internal/stock.

// QueryRow runs one statement that returns exactly one row, as a transaction of its own. It runs it
// again after a deadlock or a serialization failure. Its errors are ErrBusy, ErrUnavailable and
// those of a statement that is wrong. Statements and arguments are those of postgres.Query.
func QueryRow[T any](
	ctx context.Context, s *Service, to pgx.RowToFunc[T], sql string, args ...any,
) (row T, err error) {
	return queryRow(ctx, s, to, sql, args...)
}

// Query is QueryRow for a statement that returns any number of rows.
func Query[T any](
	ctx context.Context, s *Service, to pgx.RowToFunc[T], sql string, args ...any,
) (rows []T, err error) {
	return query(ctx, s, to, sql, args...)
}

// Read is Query for a statement that only reads: it may go to a server that follows the database,
// and miss a change of the last moment.
func Read[T any](
	ctx context.Context, s *Service, to pgx.RowToFunc[T], sql string, args ...any,
) (rows []T, err error) {
	return read(ctx, s, to, sql, args...)
}

// ReadKnown is Read for what its caller knows by an id. When found is false for the rows of the
// server that follows, ReadKnown reads again where the other calls do.
func ReadKnown[T any](
	ctx context.Context, s *Service, found func([]T) bool, to pgx.RowToFunc[T], sql string,
	args ...any,
) (rows []T, err error) {
	return readKnown(ctx, s, found, to, sql, args...)
}

// KeyArgs returns the two arguments of a routine for an Idempotency-Key of the context's principal:
// the key as the database knows it, and the hash of the request. Without a key both are nil. verb
// and parts must tell two different requests apart, and stay the same across releases. KeyArgs
// returns an *InvalidError.
func KeyArgs(
	ctx context.Context, key, verb string, parts ...[]byte,
) (name *string, hash []byte, err error) {
	var invalid InvalidError
	validateKey(ctx, &invalid, key)
	name, hash = keyArgs(ctx, key, verb, parts...)
	return name, hash, invalid.orNil()
}

// DecodeHold reads a hold from the JSON of the SQL function hold_json, which may have more fields.
func DecodeHold(data []byte) (Hold, error) { return decodeHold(data) }
