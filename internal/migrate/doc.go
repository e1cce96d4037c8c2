// Package migrate brings a database up to the present release: first the schema, then the routines.
// It is a package of its own, so that goose and database/sql are linked into the migrate function and
// the local programs only, and into no Lambda that answers callers.
//
// # The schema
//
// The versioned files of migrations/ are applied in order, each once, by goose. They go forward only.
// A release is deployed while the previous one still serves callers, so a file must leave a schema on
// which the previous release works: it adds, and a later release removes what nobody uses any more.
// A versioned file never calls a routine, because the routines come after it.
//
// # The routines
//
// migrations/procedures/ has each routine once, in its present text. [Up] installs the files whose
// text has changed, all in one transaction, under the lock that also keeps two deploys from applying
// the schema at once. A comment on each installed routine names its file and the hash of the file's
// text (see [pg_description]); a file whose routines carry its present hash is left alone, so that an
// idle deploy writes nothing.
//
// The rules for a change:
//
//   - A changed text replaces the routine, also while calls are running: a running call finishes in
//     the body that it started with, and the next call runs the new one.
//   - A changed signature, result included, is a new routine. The previous release still calls the old
//     one, so the old one stays until the next release. Up does that by itself: a routine that is in no
//     file any more is first retired, which only marks it, and is dropped by the next Up that installs
//     anything.
//   - A helper that changes its meaning is a new routine too, because a retired routine may call it.
//   - A deploy that goes back installs its older text, and retires the routines that only the newer
//     release has. It doesn't drop them: until the traffic has moved, the newer release calls them.
//
// A routine without such a comment isn't ours, and Up leaves it alone.
//
// [pg_description]: https://www.postgresql.org/docs/17/sql-comment.html
package migrate
