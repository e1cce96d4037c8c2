// Package reservation holds stock while a customer pays. It has the domain, its SQL and its use of
// pgx in one place, because each rule is a statement: what a locked row says decides what may
// happen. The statements are procedures of Postgres: migrations/procedures/<name>.sql has the text
// of each. The trigger functions are in migrations/0001_schema.sql.
//
// # States
//
//	           reserve
//	              │
//	              ▼
//	           PENDING ──── confirm, while alive ───▶ CONFIRMED   total and reserved fall
//	            │   │
//	expires_at  │   └────── release, while alive ───▶ RELEASED    reserved falls
//	    passes  │
//	            └────────── reclaim or sweep ───────▶ EXPIRED     reserved falls
//
// A hold is alive while it is PENDING and its expires_at is in the future. From expires_at on it is
// dead for everyone. A reserve that needs the units, or the sweep, writes EXPIRED down later. A
// reader sees no difference, not even in the times.
//
// # Promises
//
// Each is kept in three places: here, as a constraint or a trigger in the migrations where SQL can
// express it, and as a query in [Service.Audit].
//
//	I1  On every stock row, always, 0 <= reserved <= total. The database refuses anything else.
//	I2  reserved of a row is the sum of the lines that are still counted in it: the PENDING holds of
//	    one line, and the cart lines that are marked as counted.
//	I3  A hold is resolved at most once. A resolved hold never changes again, and the service never
//	    deletes it.
//	I4  A hold past its expires_at is dead at once: it can't be confirmed or extended, it reads as
//	    EXPIRED, and its units are available to the next caller and in the catalog before any sweep.
//	I5  A 2xx answer is durable: it survives kill -9 of Postgres in the next microsecond.
//	I6  One Idempotency-Key and one request make one effect and one answer.
//	I7  A cart is held whole or not at all.
//	I8  total changes only by confirming a hold or by a recorded stock adjustment.
//	I9  The sweep may run at any time, twice at once, and die anywhere: every expired hold is expired
//	    exactly once.
//
// # Locks
//
// Every procedure takes its locks in one order: idempotency key, hold, cart lines, stock rows.
// Several lines or stock rows are sorted by (product, warehouse). The reclaim and the sweep, which
// take many holds at once, skip locked holds instead of waiting for them. A reserve that is left
// without enough units ends its transaction first and then waits without any lock. So no circle of
// waits can form, and a deadlock means that something outside this package takes locks in another
// order. It is retried in a new transaction and counted ([Service.Retries]).
//
// Stock rows come last because everybody wants them: a hot row is locked for one update and a
// commit record. For the same reason a hold has no foreign key to its stock row, whose check would
// lock the row once more. The update that holds the units fails without the row, and a row that
// ever had stock can't be deleted because its adjustments refer to it.
//
// # The clock
//
// Decisions use Postgres's clock_timestamp(), read after the locks that they depend on. now() is
// frozen at the start of the transaction, so a verb that waited for a lock would confirm a hold
// that died during the wait. The service's own clock decides nothing. It only provides the leading
// part of the ids, which need to be in order only roughly.
//
//   - A hold begins when its call reached the server. A call that then waited longer than 250 ms,
//     or a quarter of its TTL, begins its hold anew when it has the lock.
//   - Confirm and release guard their update by the clock at their arrival. When they have all
//     their locks, they read the clock again. If the hold died during a wait, they roll back and
//     find it dead.
//   - A dead cart's lines may be reclaimed one stock row at a time. So a procedure that resolves or
//     extends a cart locks its lines and checks that all of them are still counted. If one isn't,
//     the hold died first.
//   - A procedure that finds a hold dead but still PENDING locks it and looks again, because a
//     confirm or an extend that came in time may be about to commit. So nobody is told EXPIRED
//     first and CONFIRMED later. The operator's list and stats are the exception: they lock
//     nothing, and until such a confirm commits they show the hold as EXPIRED.
//   - A reserve first checks on one snapshot, without a lock, whether there are enough units. It
//     counts the units of dead holds as free, by a clock that it reads after taking the snapshot.
//     Death only frees units, so a row that is short by the later clock was short at the snapshot.
//     A refusal is therefore true, never caused by a dead hold (I4), and costs no lock, no log
//     record and no flush. This check only refuses. A success is decided by the guard in the stock
//     row's own update.
//
// # Early lock release, and why an answer is still durable
//
// Postgres keeps a transaction's row locks until its commit record is on disk, so a hot row changes
// hands no more often than the disk flushes. A verb here is one CALL of a procedure that commits
// twice:
//
//  1. The first transaction does the work and commits with synchronous_commit off, which is set for
//     that transaction only. Its commit record is in the log's buffers, its locks are free, and the
//     next caller goes on.
//  2. The second transaction writes one tiny record to the log and commits normally: it waits for the
//     flush.
//
// The log is written and flushed in order, and the second commit record comes after the first. So
// when the second commit returns, the first is on disk too, and on the synchronous standby if there
// is one. Only then does the CALL return, and only then does the service answer 2xx (I5). A crash
// in between loses work that no caller was told of, as a crash before it does. Nor can work survive
// that builds on lost work: a transaction that saw the first one's rows has a later commit record
// in the same log.
//
// The second transaction must have a transaction id and write a record, or its commit would flush
// nothing. pg_logical_emit_message writes the smallest record. A pooler in transaction mode,
// PgBouncer or RDS Proxy, keeps one statement on one server connection, so both transactions run on
// the same one. No session state outlives the CALL: synchronous_commit is set for the transaction
// only, inside a procedure where a proxy can't see it and so doesn't pin the session. (Package
// postgres handles prepared statements behind a pooler.) The argument doesn't depend on the one
// connection, though. There is one log, so any flush that begins after the first commit covers it.
// It does depend on one server: if a fail-over falls between the two commits, the connection
// breaks, the CALL fails, and the service doesn't answer 2xx.
//
// An answer that reports the effect of another call must wait for the disk too. A replay, a second
// confirm, and the reading of a hold that changed moments ago end in the same flush. The catalog
// and the operator's list and stats don't: they are snapshots and promise nothing. Nor does a 409,
// which gives nothing.
//
// All of this depends on fsync and synchronous_commit, which the service checks when it starts. It
// also needs COMMIT inside a procedure, which Postgres has from version 11 on, and Aurora, RDS
// Proxy and PgBouncer pass on. There is no second mode with plain transactions, because no
// supported server needs one.
//
// # Waits
//
// Each limit is shorter than the one around it: 2 s for one lock, 5 s for a statement with all its
// waits (package migrate sets both on the role), 7 s for a request (package httpapi), 10 s for a
// function, 30 s for the gateway. A lock that can't be had in time is [ErrBusy], and nothing
// happened. A statement that didn't end in time is [ErrUnavailable]. Only a retry under the same
// Idempotency-Key can tell whether it took effect.
//
// The form of this text is from riverqueue/river's internal/leadership. Releasing locks before the
// log is on disk is an old idea: DeWitt et al., "Implementation Techniques for Main Memory Database
// Systems" (1984), calls it pre-commit.
package reservation
