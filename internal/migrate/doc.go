// Package migrate brings a database up to the present release: first the schema, then the routines.
// It is a package of its own, so that only the migrate function and the local programs link goose
// and database/sql. No Lambda that answers callers does.
//
// # The schema
//
// Goose applies the versioned files of migrations/ in order, each once. There is no way back. A
// release is deployed while the previous one still serves callers, so a file must leave a schema on
// which the previous release works. It may only add. A later release removes a table or a column
// that no running release uses any more. A versioned file never calls a routine, because the
// routines are installed after it. The service's role gets its rights between the two
// ([UpAndGrant]): the release that is in service calls the new routines as soon as they are
// installed.
//
// # Files that take long
//
// A file runs in one transaction, and a run that is cut off has done nothing. So what may take
// longer than a minute is in a file of its own with the line "-- +goose NO TRANSACTION". Its
// statements run each by itself, and a run that was cut off runs the whole file again. So each of
// them may be repeated. They have one of two forms, to which a test keeps them:
//
//   - CREATE INDEX CONCURRENTLY IF NOT EXISTS. One that failed leaves an index that Postgres marks
//     as invalid. The next run drops it first, and builds it anew. A valid index is never dropped.
//   - DO with a loop that changes a batch of rows, commits, and ends when no row is left to change.
//     The next run goes on with the rows that are left.
//
// Either goes on inside Postgres when its client is gone (see line). A run that mustn't wait any
// longer leaves it there (Options.Leave). The next run waits for its end, and then finds the file's
// work done. So a statement may take longer than a Lambda.
//
// # The routines
//
// migrations/procedures/ has each routine once, in its present text. [Up] installs the files whose
// text has changed, all in one transaction, under the lock that also keeps two deploys from
// applying the schema at once. A comment on each installed routine names its file and the hash of
// the file's text (see [pg_description]). Up leaves a file alone when all its routines carry the
// present hash, so an Up that has nothing to change writes nothing. The comment also keeps the
// hashes of the routine's earlier texts. By them the health check of a release knows that its own
// routines were installed, even when a newer release's are in place by now
// (Ready in internal/reservation).
//
// The rules for a change:
//
//   - A changed text replaces the routine, even while calls are running. A running call finishes in
//     the body that it started with, and the next call runs the new one.
//   - A changed signature is a new routine, and the names of the arguments and the result belong to
//     the signature. Postgres refuses to replace a routine whose argument names or result changed.
//     No routine has default arguments, because a default can't be taken back and makes a call of
//     an older overload ambiguous.
//   - The previous release still calls the old routine. So Up doesn't drop a routine that is in no
//     file any more: it marks it as retired, and drops it a week later. The week is counted by the
//     database's clock and not in deploys, because a deploy may fail and be repeated while the
//     previous release goes on serving.
//   - A helper that changes its meaning is a new routine too, because a running call or a retired
//     routine may call it next.
//   - A deploy that goes back installs its older text and retires the routines that only the newer
//     release has. Until the traffic has moved, the newer release still calls them.
//
// A routine without such a comment isn't ours, and Up leaves it alone.
//
// [pg_description]: https://www.postgresql.org/docs/17/sql-comment.html
package migrate
