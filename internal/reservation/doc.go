// Package reservation holds stock while a customer pays. It is the domain, its SQL and its use of pgx in one place, because the
// rule is the statement: what may happen is decided by what a row says once it is locked, and nowhere else. The statements
// themselves are procedures of Postgres: reserve, confirm, release and the sweep in migrations/0004_leaner_verbs.sql, what the operator
// reads in 0005_operator.sql, the others in 0003_lean_verbs.sql.
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
// A hold is alive while it is PENDING and its expires_at lies ahead. From expires_at on it is dead for everyone at once; writing
// that down is bookkeeping that may come later, done by whoever comes first: a reserve that needs the units, or the sweep. To a
// reader the two look the same, down to the times.
//
// # Promises
//
// Each is kept in three places: here, as a constraint or a trigger in the migrations where SQL can say it, and as a
// query in [Service.Audit].
//
//	I1  On every stock row, always, 0 <= reserved <= total. The database refuses anything else.
//	I2  reserved of a row is the sum of the lines that are still counted in it: the PENDING holds of one line, and the lines
//	    of carts that say so themselves.
//	I3  A hold is resolved at most once; a resolved hold never changes again and is never deleted by the service.
//	I4  A hold past its expires_at is dead at once: it can't be confirmed or extended, it reads as EXPIRED, and its units can
//	    be had by the next caller and are in the catalog before any sweep.
//	I5  A 2xx answer is durable: it survives kill -9 of Postgres in the next microsecond.
//	I6  One Idempotency-Key and one request make one effect and one answer.
//	I7  A cart is held whole or not at all.
//	I8  total changes only by confirming a hold or by a recorded stock adjustment.
//	I9  The sweep may run at any time, twice at once, and die anywhere: every expired hold is expired exactly once.
//
// # Locks
//
// Everything takes its locks in one order: idempotency key, hold, cart lines, stock rows; several lines or stock rows by
// (product, warehouse). What takes many holds at once, the reclaim and the sweep, skips those that are locked, so it waits for no
// hold; a reserve that is left without enough ends its transaction and then waits, holding nothing. So nobody waits in a circle,
// and a deadlock means that something outside this package takes locks in another order. It is retried all the same, counted
// ([Service.Retries]), in a fresh transaction.
//
// Stock rows come last because they are what everybody wants: a hot row is locked for one update and a commit record. For the
// same reason a hold has no foreign key to its stock row: its check would lock the row once more. The update that holds the units finds
// the row, and what was ever in stock can't be deleted, as its adjustments refer to it.
//
// # The clock
//
// It is Postgres's clock_timestamp(), read after the locks that a decision stands on. now() is frozen when a transaction begins;
// a verb that waited for a lock would confirm a hold that died in the meantime. The service's own clock decides nothing; it only
// leads the ids, which need no more than to be roughly in order.
//
//   - a hold begins when its call reached the server. One that since then waited for longer than a quarter of a second, or a quarter of its
//     time, begins anew when it has its lock.
//   - confirm and release guard their update by the clock as it was when they came, and look at it once more when they have all their
//     locks: if the hold died while they waited for one, they roll back and find it dead.
//   - a cart's lines may be reclaimed one stock row at a time, from its very end on. So whoever resolves or extends a cart locks its
//     lines and finds them all still counted, or the hold died first.
//   - whoever finds a hold dead but not yet written down takes its lock and looks again, since a confirm or an extend that came in time
//     may be about to commit. So nobody is told EXPIRED and later CONFIRMED. The operator's list and stats are the exception: they lock
//     nothing, and for the moment until such a confirm commits they show the hold as EXPIRED.
//   - a reserve judges by one snapshot, without a lock, whether there is enough, counting what dead holds occupy by a clock read
//     after that snapshot. Death only ever frees units, so what is short by a later clock was short when the snapshot was taken: a
//     refusal is true, costs no lock, no log record and no flush, and is never caused by a dead hold (I4). That look decides refusals
//     only; a success is decided by the guard in the stock row's own update.
//
// # Early lock release, and why an answer is durable all the same
//
// Postgres keeps a transaction's row locks until its commit record is on disk, so a hot row can't be had more often than the disk
// flushes. A verb here is one CALL of a procedure that commits twice:
//
//  1. The first transaction does the work and commits with synchronous_commit off, which is set for it alone. Its commit record is in
//     the log's buffers, its locks are free, the next caller goes on.
//  2. The second writes one tiny record of its own to the log and commits as the server normally does, waiting for the flush.
//
// The log is written and flushed in order, and the second commit record lies behind the first. So when the second commit returns, the
// first is on disk too, and on the synchronous standby if there is one. Only then does the CALL return, and only then is anything
// answered with 2xx (I5). A crash in between loses work that nobody was told of, the same as a crash before it. Nor can work be
// kept that builds on lost work: whatever saw the first transaction's rows has its own commit record behind it in the same log.
//
// The second transaction must have an id and write a record, or its commit would flush nothing: hence pg_logical_emit_message, the
// smallest record there is. A pooler in transaction mode, PgBouncer or RDS Proxy, keeps one statement on one server connection, so both
// run on one; and nothing of a session outlives the CALL, since synchronous_commit is set for the transaction alone, inside a procedure
// where a proxy doesn't see it and so has no reason to pin the session. (Package postgres tells how prepared statements fare there.) The
// argument doesn't need the one connection, though: there is one log, so a flush that begins after the first commit has returned covers
// it, whichever connection asks. What it does need is that both go
// to one server: if a fail-over falls between the two, the connection breaks, the CALL fails, and nothing is answered with 2xx.
//
// Whoever answers 2xx because of what another call did must wait for the disk as well: a replay, a second confirm, and the reading of
// a hold that changed moments ago all end in such a flush. The catalog doesn't, nor do the operator's list and stats: they are pictures,
// and promise nothing to anybody.
// A 409 doesn't either: it gives nothing.
//
// It all stands on fsync and synchronous_commit, which the service checks when it starts. Options.EarlyRelease off runs the same
// procedures in plain transactions, for servers that refuse COMMIT in one.
//
// # Waits
//
// Each limit is shorter than the one around it: the wait for one lock 2 s, a statement and so all its waits 5 s (both set on the role
// by package migrate), a request 7 s (package httpapi), a function 10 s, the gateway 30 s. A lock that can't be had is [ErrBusy], and
// nothing happened; a statement that didn't end is [ErrUnavailable], and only a retry under the same Idempotency-Key can tell
// whether it took effect.
//
// The shape of this text is from riverqueue/river's internal/leadership. Letting locks go before the log is on disk is an old idea:
// DeWitt et al., "Implementation Techniques for Main Memory Database Systems" (1984), calls it pre-commit.
package reservation
