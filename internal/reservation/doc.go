// Package reservation holds stock while a customer pays. Domain, SQL and pgx are in one package,
// because the rules are SQL statements: each decides by the rows that it has locked. The statements
// are routines of Postgres. migrations/procedures/ has each routine once, and
// migrations/0001_schema.sql has the tables and their triggers.
//
// # States
//
//	        reserve                                         a payment that comes too late
//	           │                                            and takes the units anew
//	           ▼                                                     │
//	        PENDING ──── confirm, while alive ─────▶ CONFIRMED ◀─────┘   total falls, and so
//	         │   │                                                       does reserved, if held
//	         │   └────── release, cancel, or a ────▶ RELEASED            reserved falls
//	expires_at           reserve that replaces it,
//	passes   │           while alive
//	         └────────── reclaim, sweep, or a ─────▶ EXPIRED             reserved falls
//	                     payment that comes too late
//
// A hold is alive while it is PENDING and its expires_at is in the future. From expires_at on it is
// dead for everyone. A reserve that needs its units, or the sweep, stores the status EXPIRED later.
// Readers see the same hold before and after that, with the same times. Extend, and a payment that
// starts or fails, move the end of a live hold: it stays PENDING.
//
// A hold has at most one successor: the hold that replaces it, or the one by which a late payment
// takes its units anew. The hold itself is resolved by then, and never changes again (I3).
//
// # Payments
//
// A payment has a reference, which the payment side chooses. Its row of hold_payments says what
// became of it (migrations/0012_payments.sql). A hold without payments has no row, and its calls
// run no statement more.
//
//	        start                 fails, or another one starts or confirms
//	new ────────────▶ STARTED ──────────────────────────────────────────▶ FAILED
//	 │                   │ ▲                                                │ │
//	 │                   │ └─────────────────── start ──────────────────────┘ │
//	 └─────────┬─────────┴────────────────────────────────────────────────────┘
//	           │
//	           ├── confirm, while the hold is alive ───────────────────▶ CONFIRMED
//	           ├── confirm when it is gone, and its units are free ────▶ REACQUIRED
//	           └── confirm when it is gone, and they aren't ───────────▶ LOST
//
// The last three are final. One payment of a hold is STARTED at a time, and one pays for it: it is
// CONFIRMED or REACQUIRED. Each other one that took money must be refunded. The outcome is decided
// under the hold's lock, is durable before it is told (I5), and is told again at every repeat:
//
//   - While the hold is alive, any payment confirms it. Another one that was under way has FAILED.
//   - When the hold is gone, REFUSE records nothing. REACQUIRE writes down the hold's death,
//     reclaims dead holds of its stock rows if they are short, and takes all units under the guard
//     of each stock row, as a CONFIRMED successor. If a line is short or isn't for sale, the
//     owner's limit would be passed (I12), or another hold has replaced the hold, the payment is
//     lost.
//   - A hold is written down as dead in the transaction that makes its late payment's outcome
//     final. So it stays dead, whatever the clock does.
//   - A payment of a hold in the archive is like one of any hold that is gone. Payments aren't
//     archived.
//
// The table has the answer of each call, by the hold's status and its payments P and Q. The first
// three calls are confirm: without a payment, by P with REFUSE, and by P with REACQUIRE, while the
// units are free. The next two are the start and the failure of P. The last is a reserve that
// replaces the hold. CONFIRMED anew is the successor by which a late payment got the units: the
// payment has a row for each of the two holds. EXPIRED is the same before the sweep, after it and
// in the archive, and so are the others in the archive.
//
//	state                   confirm  refuse  anew  start  fail  release  cancel  extend  replace
//	PENDING                 CONF     CONF    CONF  PEND   PEND  REL      REL     PEND    NEW
//	PENDING, P started      CONF     CONF    CONF  PEND   PEND  paying   REL     paying  paying
//	PENDING, Q started      CONF     CONF    CONF  PEND   PEND  paying   REL     paying  paying
//	PENDING, P failed       CONF     CONF    CONF  PEND   PEND  REL      REL     PEND    NEW
//	CONFIRMED               CONF     paid    paid  paid   CONF  conf     conf    conf    conf
//	CONFIRMED by P          CONF     CONF    CONF  CONF   CONF  conf     conf    conf    conf
//	CONFIRMED by Q          CONF     paid    paid  paid   CONF  conf     conf    conf    conf
//	CONFIRMED anew by P     CONF     CONF    CONF  CONF   CONF  conf     conf    conf    conf
//	CONFIRMED anew by Q     CONF     paid    paid  paid   CONF  conf     conf    conf    conf
//	RELEASED                rel      rel     ANEW  rel    REL   REL      REL     rel     SKIP
//	RELEASED, P started     rel      rel     ANEW  rel    REL   REL      REL     rel     SKIP
//	RELEASED, Q started     rel      rel     ANEW  rel    REL   REL      REL     rel     SKIP
//	RELEASED, P failed      rel      rel     ANEW  rel    REL   REL      REL     rel     SKIP
//	RELEASED, replaced      rel      rel     lost  rel    REL   REL      REL     rel     SKIP
//	RELEASED, P reacquired  rel      ANEW    ANEW  REL    REL   REL      REL     rel     SKIP
//	RELEASED, Q reacquired  rel      paid    paid  paid   REL   REL      REL     rel     SKIP
//	RELEASED, P lost        rel      lost    lost  rel    REL   REL      REL     rel     SKIP
//	RELEASED, Q lost        rel      rel     ANEW  rel    REL   REL      REL     rel     SKIP
//	EXPIRED                 exp      exp     ANEW  exp    EXP   EXP      EXP     exp     SKIP
//	EXPIRED, P started      exp      exp     ANEW  exp    EXP   EXP      EXP     exp     SKIP
//	EXPIRED, Q started      exp      exp     ANEW  exp    EXP   EXP      EXP     exp     SKIP
//	EXPIRED, P failed       exp      exp     ANEW  exp    EXP   EXP      EXP     exp     SKIP
//	EXPIRED, P reacquired   exp      ANEW    ANEW  EXP    EXP   EXP      EXP     exp     SKIP
//	EXPIRED, Q reacquired   exp      paid    paid  paid   EXP   EXP      EXP     exp     SKIP
//	EXPIRED, P lost         exp      lost    lost  exp    EXP   EXP      EXP     exp     SKIP
//	EXPIRED, Q lost         exp      exp     ANEW  exp    EXP   EXP      EXP     exp     SKIP
//
//	PEND, CONF, REL, EXP  a success: the hold, which is PENDING, CONFIRMED, RELEASED or EXPIRED
//	ANEW                  a success: the successor, which is CONFIRMED ([Answer].Reacquired)
//	NEW, SKIP             a success: the new hold has replaced this one, or replaces none
//	lost                  [PaymentLostError]
//	paid                  [AlreadyPaidError], with Q, or without a payment if the row names none
//	paying                [ErrPaymentStarted]
//	conf, rel, exp        [ErrConfirmed], [ErrReleased], [ErrExpired]
//
// The same call again gets the same answer, but for NEW, which the second time is SKIP. The answer
// of [Service.Cancel] and of [Service.Release] differ only while a payment is under way.
//
// # Promises
//
// Each promise stands in three places: here, in the schema as a constraint or a trigger where SQL
// can express it, and in [Service.Audit] as a query.
//
//	I1  On every stock row, always, 0 <= reserved <= total. The database refuses anything else.
//	I2  reserved of a row is the sum of the lines that are still counted in it: the PENDING holds of
//	    one line, and the cart lines that are marked as counted.
//	I3  A hold is resolved at most once. A resolved hold never changes again, and the service never
//	    deletes it. Retention moves it to the archive, unchanged, and it can still be read there.
//	I4  A hold past its expires_at is dead at once: it can't be confirmed or extended, it reads as
//	    EXPIRED, and its units are available to the next caller and in the catalog before any sweep.
//	I5  A 2xx answer is durable: it survives kill -9 of Postgres in the next microsecond. It
//	    survives a fail-over to a synchronous standby, and on Aurora, whose instances share their
//	    storage. An asynchronous standby loses what it hasn't received: I5 doesn't hold there, the
//	    other promises about the stock do.
//	I6  One Idempotency-Key of one principal and one request make one effect and one answer, however
//	    often and however concurrently they are sent, and across a deploy. Nobody else's key can
//	    block, read or replay it. The principal is the caller that the gateway has verified: the
//	    subject of its token, or the ARN of its role. All other callers share one name, so the key
//	    of a shopper must be random.
//	I7  A cart is held whole or not at all.
//	I8  total of a stock row is the total_after of its newest movement. A row's movements are
//	    numbered 1, 2, 3, ... without a gap, and each one's total_after is the one before plus its
//	    delta.
//	I9  The sweep may run at any time, twice at once, and die anywhere: every expired hold is expired
//	    exactly once.
//	I10 Every transition of a hold writes exactly one row of the ledger, in the transaction that
//	    makes it. A hold's rows are numbered 1, 2, 3, ... without a gap. Fold the ledger, and you
//	    have the holds.
//	I11 Every row of the ledger and every movement is published at least once, under one id for
//	    ever, in order within its subject, with the same bytes each time. None is published for a
//	    transition that a crash can undo. Package events has the argument; the data can't show it.
//	I12 Live and confirmed units of one owner of a limited product, less what was returned, never
//	    exceed the product's limit. A limit that is lowered takes nothing away.
//
// # The movements
//
// Each verb that changes a total raises the stock row's seq by one and writes the movement of that
// number, in one transaction. Two triggers keep I8 (0014_refusals.sql). One looks at each movement
// as it is written: it is what the stock row says then. The other looks at each change of a total
// before the commit: it has its movement. So neither a change alone nor a movement alone can be
// committed, whoever writes it. A verb that leaves its movement out fails at its COMMIT, with an
// error that names I8, and its transaction is undone.
//
// # The ledger
//
// Each verb writes the row of a transition behind the guarded statement that makes it. The
// statement changes the hold's state and adds one to its version together, or it does nothing. The
// ledger's primary key admits one row for each version. So there is one row for a transition (I10),
// and a rollback undoes both. restart_hold is no transition: it moves the times of the hold and of
// its row in the transaction that made them. A reclaim of a cart's line is none either, because the
// cart expires once. The successor of a late payment has one row: it was CONFIRMED from the start.
//
// The triggers of reservations and ledger keep the rest in SQL: a version rises by one with each
// change but that of restart_hold, updated_at never falls, and a row of the ledger stays as it is.
// They write nothing, and can't see that a row wasn't written. The audits fold the ledger and
// compare it with the holds for that.
//
// A hold of version 0 is from before the ledger and has none. Its next transition is number 1.
//
// [Service.Stats] counts the transitions of each minute by what the ticks have counted of the
// ledger, and by the rows since the last tick.
//
// # Locks
//
// Every procedure takes its locks in one order: idempotency key, document of movements, catalog,
// owner, hold, cart lines, stock rows. The owner's locks are those of lock_owner.sql: a caller
// takes them for limited products only, and then the owner's dead holds by their ids. A hold that
// is replaced is locked before the new one is inserted. Several lines or stock rows are locked in
// the order of (product, warehouse). The reclaim and the sweep take many holds at once. They skip
// locked holds instead of waiting for them. So does a payment that takes units anew, when it
// reclaims, and it locks its own hold's lines before that. A reserve or a movement that is short
// because other callers have locked dead holds undoes its work, and then waits without holding a
// lock. So no circle of waits can form, and a deadlock means that another program takes locks in
// another order. The transaction is then run again, and counted ([Service.Retries]).
//
// Stock rows come last because they are the most wanted: a hot row is locked for one update and a
// commit record, and by a confirm for one insert more, of its movement. For the same reason a hold
// and a movement have no foreign key to their stock row: the check of the key would lock the row
// once more. The key isn't needed. The update that takes the units finds out whether the row
// exists, and a trigger keeps the row from being deleted.
//
// # The clock
//
// Decisions use Postgres's clock_timestamp(), read after the locks that they depend on. now() is
// frozen at the start of the transaction, so a verb that waited for a lock would confirm a hold
// that died during the wait. The service's own clock decides nothing. It only goes into the ids,
// where a small error does no harm.
//
//   - A hold begins when its try begins: each try of a reserve reads the clock anew. The try may
//     then wait for locks. If that takes longer than lost_time (250 ms, or a quarter of a TTL below
//     a second), restart_hold lets the hold begin when the try has all its locks.
//   - Confirm and release read the clock just before their update, which changes only a hold that
//     is alive at that time. When they have all their locks, they read the clock again. If the hold
//     died during a wait, they roll back and find it dead.
//   - A dead cart's lines may be reclaimed one stock row at a time. So a procedure that resolves or
//     extends a cart locks its lines and checks that all of them are still counted. If one isn't,
//     the hold died first.
//   - A start or a failure of a payment, and an extend, lock the hold and then read the clock. A
//     payment that finds the hold gone does so, too: one that came in time finds it alive.
//   - A procedure that finds a hold dead but still PENDING locks it and looks again, because a
//     confirm or an extend that came in time may be about to commit. So no caller gets EXPIRED
//     first and CONFIRMED later. The operator's list and stats are the exception: they lock
//     nothing, and until such a confirm commits they show the hold as EXPIRED.
//   - A reserve first checks on one snapshot, without a lock, whether there are enough units. It
//     counts the units of dead holds as free, by a clock that it reads after taking the snapshot.
//     Death only frees units, so a row that is short by the later clock was short at the snapshot.
//     So a dead hold never causes a refusal (I4), and a refusal costs no lock, no log record and no
//     flush. This check only refuses. The guard in the stock row's own update decides a success.
//
// # A jump of the clock
//
// Postgres's clock can jump: at a fail-over to a host whose clock is ahead or behind, or when
// somebody sets it. d is the size of the jump.
//
//   - I1, I2, I3, I7, I8, I9 and I10 hold through any jump. The guards that keep them compare
//     statuses, versions, units and the counted marks of lines, and no two readings of the clock.
//   - I12 may break by a jump back: a hold that was dead, and so wasn't counted, is alive again,
//     beside one that its owner has got since.
//   - The outcome of a payment is final through any jump. The death of its hold was written down
//     with it. A jump forward makes payments late that weren't, and REACQUIRE is for those.
//   - I4 holds by the clock as it reads now. After a jump forward each hold dies d too early. After
//     a jump back it dies d too late, and a hold that was dead is alive again until its end comes
//     again, unless its death was written down. So one caller may be told that a hold has expired,
//     and a later caller may confirm it.
//   - What is written down stays: a hold whose status is EXPIRED, and a line that was reclaimed. A
//     cart that lost a line is dead for every verb and reader, even before its end. Its other lines
//     stay counted until its end comes again, for at most d: no index finds such a cart among the
//     living, and an index on uncounted lines would grow with every resolved cart. So the
//     operator's list of a product misses such a cart among the expired ones, for as long, while
//     more than a thousand live holds end before it.
//   - I5 doesn't depend on the clock, and neither does the wait of a read for the disk.
//   - I6 holds, for keys that live 24 hours by the clock. A jump forward shortens a key's life by
//     d, so a jump of a day forgets every key. A jump back makes it longer by d.
//   - updated_at never falls: a transition after a jump back gets the time of the one before it,
//     and the end of an extension is counted from there. The stats show the transition in that
//     minute.
//   - Every verb still returns one of its documented errors. But Postgres measures lock_timeout,
//     statement_timeout and pg_sleep by the same clock. A jump forward may end a wait at once:
//     the verb returns [ErrBusy] or [ErrUnavailable]. A jump back may lengthen a wait, up to the
//     request's own limit of 7 s, which the service measures by a monotonic clock.
//
// # Early lock release, and why an answer is still durable
//
// Postgres keeps a transaction's row locks until its commit record is on disk, so a hot row changes
// hands no more often than the disk flushes. A verb here is one CALL of a procedure that commits
// twice:
//
//  1. The first transaction, which did the verb's work, commits with synchronous_commit off. This
//     is set for that transaction only. Its commit record is in the log's buffers, its locks are
//     free, and the next caller goes on.
//  2. The second transaction writes one tiny record to the log and commits normally, so it waits
//     for the flush.
//
// The log is written and flushed in order, and the second commit record comes after the first. So
// when the second commit returns, the first is on disk too, and on the synchronous standby if there
// is one. Only then does the CALL return, and only then does the service answer 2xx (I5). A crash
// between the commits loses work that was reported to no caller. It also loses all work that builds
// on the lost work: a transaction that saw the first one's rows has a later commit record in the
// same log.
//
// The second transaction must have a transaction id and write a record, or its commit would flush
// nothing. It sets a sequence (write_log_record), or locks the row of the new hold (reserve_line,
// which sets the sequence when it finds no row to lock). An engine that keeps its pages only by the
// log, such as Aurora, must log both: a page that leaves its memory is made from the log again, and
// would have lost the sequence's value, or a lock that a transaction still holds. Postgres logs
// each lock of a row. Nobody has looked at Aurora's log.
//
// A pooler in transaction mode, such as PgBouncer or RDS Proxy, keeps one statement on one server
// connection, so both transactions run on the same connection. No session state outlives the CALL:
// synchronous_commit is set for the transaction only, inside a procedure. A proxy can't see it
// there, and so doesn't pin the session. (Package postgres handles prepared statements behind a
// pooler.) The argument doesn't depend on one connection: there is one log, so any flush that
// begins after the first commit covers it. It does depend on one server. If a fail-over falls
// between the two commits, the connection breaks, the CALL fails, and the service doesn't answer
// 2xx.
//
// An answer that reports the effect of another call must wait for the disk too. A replay and a
// repeated confirm or release end in the same two commits. Get, and a refusal because of the hold's
// status or end, wait for the same kind of flush when the hold's last change isn't known to be on
// disk (hold_is_flushed). The refusal of a payment always waits, because it may tell of another
// payment, whose row hold_is_flushed doesn't read. The others know it by transaction ids, not by a
// clock: each sweep first flushes the log, and then stores a mark, the id below which every
// transaction had ended before that flush. The catalog, the operator's list, the stats and a
// refusal for lack of stock don't wait, because they are snapshots that promise nothing.
//
// All of this depends on fsync and synchronous_commit, which package postgres checks on each new
// connection. It also needs COMMIT inside a procedure. Postgres has it from version 11 on, Aurora
// has it, and RDS Proxy and PgBouncer carry it. No supported server lacks it, so there is no other
// way to commit.
//
// # Old snapshots
//
// Postgres keeps every row version that the oldest open snapshot may read, and an index keeps an
// entry for each. A dump, a report or a replica's feedback may hold a snapshot for an hour. A
// search for dead holds, and a search for the present version of a hot stock row, must then not
// walk through all the versions since. Two columns of inventory prevent that:
//
//   - first_end is a lower bound of the ends of the holds and lines that the row counts. Every
//     search for dead holds of a stock row starts there. While it is above the clock, none is dead,
//     and a reserve of a sold-out row is refused without a search. raise_first_end.sql says who
//     moves it, and why it is never too high. Audit compares it with the holds (I4).
//   - epoch grows with the row's versions. An index by epoch leads to the newest version first.
//
// The statements that read several stock rows at once, such as the catalog's, still walk through
// the versions of a hot row. So the audit reads large tables in slices, each with a short snapshot
// of its own.
//
// # Audits
//
// [Service.Audit] reads everything. The history grows for as long as the shop sells, so the sweeper
// makes two other audits, which find the same between them:
//
//   - [Service.AuditNew], every hour. A stock row's closing names a movement: all of the row's
//     movements up to it were verified. The audit verifies the movements behind the closings, with
//     the holds of the sales among them, and closes the rows there. It reads the rows of the ledger
//     that the last audit's snapshot doesn't see and its own does (begin_audit.sql), and their
//     holds: it folds the ledger of each, and finds the sales of each confirmed one by the
//     transaction of its last row. It counts the rows of the holds with new ids, so that it also
//     finds a transition that wrote no row. It also reads what is live, and compares all stock rows
//     with it.
//   - [Service.AuditFull], when an operator asks for it. It relies on no closing, and compares each
//     with the movement that it names. It reads all movements and holds. It takes as many calls as
//     it needs: each goes on where the last one ended.
//
// Each kind has a result of its own in last_audit (keep_audit.sql), and the larger one is shown. So
// what only a full audit sees stays until one is complete and finds nothing.
//
// An audit never closes a row that it hasn't verified, and a closing never moves back, whatever a
// lagging reader shows and however many audits run at once (close_stock.sql). What was wrong when
// it was written is found by the next hour's audit, and by each one after it, until it is repaired.
// A change that somebody makes by SQL to old rows, behind the closings, is found by a full audit.
// I3 leaves no trace in the data: its trigger keeps it. Each hour's audit checks that the triggers
// are there, and looks at a thousand old holds from a random id on.
//
// The snapshots are the writer's. A reader that shows the audit's number in audit_state has
// everything that they see. The audit reads what is new there only then, and otherwise on the
// writer.
//
// # The archive
//
// With Options.Retention, a sweep that is done early moves rows of long ago to tables with
// partitions by month (migrations/0008_archive.sql): holds that were resolved before then, with
// their lines and their rows of the ledger, and movements behind their stock row's closing. Each
// batch is one transaction, so a row lies in one place in every snapshot. A routine that doesn't
// find a row looks into the archive in its next statement, by a younger snapshot. So it can't miss
// a row that moves in between, and a row that is there costs no look.
//
//   - The archive locks no stock row. It skips holds that are locked, and it needs none of the
//     locks above. One sweep archives at a time, by an advisory lock that the others don't wait
//     for.
//   - The service's role may not delete holds or movements. archive_holds and archive_movements
//     have their owner's rights. Triggers refuse to delete a row unless the same row lies in the
//     archive.
//   - A confirmed hold moves before its sales, so a hold that is there has its sales there.
//   - A row of the ledger or a movement stays until every sink has published it. stream.archived is
//     the newest transaction of which a row was archived: events up to it can't be read any more.
//   - Three kinds of movements stay: a stock row's first one, its newest one, which I8 compares
//     with the row, and those that name a document, whose lines are applied once, for ever.
//     archived_stock says up to which movement the others are archived.
//   - What lies in a month that was detached isn't missed, and nothing else is excused:
//     archived_stock.detached names the last movement of a stock row that went, and a hold's id
//     tells in which months it may have ended.
//   - Returns stay, and goods of an archived hold still come back. So do payments, replacements,
//     and who a hold is for: a payment of an archived hold gets the answer that it would have got
//     before. An advisory lock of the hold takes the place of its row's lock.
//   - An operator may detach a month. Its holds are then unknown to the service, and the audits
//     don't miss them. What the archive hadn't taken of the month by then stays where it is.
//
// # Waits
//
// Each limit is shorter than the one around it: 2 s for one lock, 5 s for a statement with all its
// waits (package migrate sets both on the role), 7 s for a request (package httpapi), 10 s for a
// function, 30 s for the gateway. When a lock doesn't come in time, the verb returns [ErrBusy] and
// has changed nothing. When the statement doesn't end in time, the verb returns [ErrUnavailable]
// and may have taken effect. So it does when another session locks the whole table of holds after a
// reserve's first commit. A retry under the same Idempotency-Key finds out.
//
// Releasing locks before the log is on disk is an old idea: DeWitt et al., "Implementation
// Techniques for Main Memory Database Systems" (1984), calls it pre-commit. The form of this text
// is from riverqueue/river's internal/leadership.
package reservation
