// Package events tells everybody what happened: it publishes each row of the ledger, and each
// movement of stock, as an event. This package has the events, the relay that publishes them and
// the interface of a sink. Package outbox reads them from the database, package awssink publishes
// to AWS, and package webhook posts to endpoints. Package channel has the contract of the live
// channel.
//
// # What holds
//
// I11: every ledger row and every movement is published at least once, under one id for ever, in
// order within its subject, with the same bytes each time. None is published for a transition that
// a crash can undo.
//
// A subject is a hold or a stock row. Events of different subjects have no order among them. An
// event may come again, also after newer ones, when a relay was frozen or killed. So a consumer
// keeps the sequence of each subject's last event, and ignores one that isn't above it.
//
// # The feed
//
// A verb writes its ledger row and its movements in its own transaction, and does nothing else for
// the events. It takes no number from a counter and no lock, and it waits for nobody.
//
// The outbox reads between two snapshots. A tick is a row of the table ticks, with a snapshot: what
// was committed when the tick was taken (take_tick.sql). Batch n is all rows that tick n sees and
// the tick before it doesn't. In a batch the holds' rows come first, by (at, version, hold), and
// then the movements, by (product, warehouse, seq). A page is a part of a batch, of up to 500
// events and 3 MB.
//
// A sink has two places in the feed: one for the holds' events and one for the movements. The relay
// goes on from both side by side. It asks the outbox for a place's next page, publishes it, and
// acknowledges it with its next request. In the cloud it is a Lambda outside the network of the
// database, and the outbox is a Lambda inside, without a right in AWS. So neither needs an endpoint
// or a gateway. A rule starts the relay each minute, and it polls for 59 s. A sweep takes a tick
// too, so that batches stay small when no relay runs. An idle shop writes no tick.
//
// GET /api/events reads the same rows tick by tick, up to the last tick.
//
// # The pace
//
// In a quiet shop the relay asks for each place once a second. In a busy one each page has events,
// and more of them come while it is published. Then it asks each half second, or at once when
// another page is ready: twice a second and place, and once for each 500 events. An event is out
// within about a second.
//
// A request takes no tick while the last one is younger than a quarter of a second (take_due_tick).
// The relay is told that something is new, and comes back. Without the pauses and the age, each of
// the places would take a tick for each of its requests, some hundred a second. A place's page
// would have a few events, and the calls of the outbox and of the sink would take longer than the
// shop needs to make as many events again.
//
// A place's batch may span several ticks (next_batch): those up to which its part has a thousand
// rows. So a place that is behind catches up in full pages, however many ticks others took
// meanwhile: the place of another sink, the live channel or the sweeps. A place for whose part
// nothing is new passes up to five hundred ticks with one request. The row of the place keeps the
// batch from the first request on, so that a page has the same events each time.
//
// # Why nothing is lost
//
// S(n) is the snapshot of tick n, and T(n) is the transaction that wrote it.
//
//   - A committed transaction is seen by each snapshot that is taken after its commit, and by none
//     before. Ticks follow one another by a lock, and S(n) is taken under it, so S(n) sees all that
//     S(n-1) sees. So for each row there is exactly one n with S(n) seeing its transaction and
//     S(n-1) not: the row is in batch n and in no other.
//   - A place's batch that spans the ticks n to m is what S(m) sees and S(n-1) doesn't: the rows of
//     these batches, each once. It is a batch between two snapshots as any other.
//   - The index of the transactions' ids leads to all rows of the batch. A transaction that S(n-1)
//     doesn't see either ran when S(n-1) was taken, and S(n-1) names it, or it got its id later,
//     from pg_snapshot_xmax(S(n-1)) on. The range from pg_snapshot_xmin(S(n-1)) would have these
//     rows too, but a transaction that stays open for an hour, in any database of the server, would
//     make that range an hour long.
//   - After a pause a batch would be too large to read. Then a tick gets a snapshot that
//     end_of_batch computes: it sees the transactions of S(n) up to an id, but none that follows,
//     on a hold or a stock row, one that it doesn't see. So it lies between S(n-1) and S(n), as a
//     snapshot that was taken between the two, and the rest is new to the next tick.
//   - A place moves on only when the relay says that each event of the page was accepted or
//     parked. The place is a row of this database, because a crash can also undo transactions that
//     the relay has seen: a place that is kept elsewhere could be ahead of the server.
//   - After a crash the server gives no id twice that a tick counts as given out. S(n) is read
//     before T(n) gets its id, so the id of T(n) is not below pg_snapshot_xmax(S(n)), and T(n) is
//     on disk. Recovery goes on above the highest id on disk.
//
// The usual cursors don't have this. A number from a sequence is taken before the commit, so a
// slower transaction commits a lower number after a higher one was read: its row is lost. A cursor
// below the oldest running transaction loses nothing, but it waits for a transaction of another
// database, and it breaks the order: a transaction gets its id before it waits for the hold's lock,
// so a later transition may have the lower id. The tests of package outbox show both.
//
// # Why nothing is published that a crash can undo
//
// A verb commits before its record is on disk (early lock release, see internal/reservation), so a
// reader may see what a crash undoes. The tick is the barrier. What S(n) sees had its commit record
// in the log before S(n) was taken, hence before the record of T(n). The commit of T(n) waits until
// the log is on disk up to its own record, and on the synchronous standby if there is one. Others
// see the tick, and the relay gets its page, only after that. When the wait for the standby is cut
// short, others see the tick too soon, so each request for a page commits a record of its own, by
// claiming the batch after the tick was taken.
//
// # Why the order within a subject holds
//
// A later transition of a hold updated the row version that the earlier one wrote, so the earlier
// transaction had finished first. Whatever snapshot sees the later one sees the earlier one, and
// end_of_batch takes care that its snapshots do too. So the batch of the earlier one is the same or
// an earlier one. Within a batch, of one tick or of several, at never falls along a hold (a trigger
// checks that), and version decides among equal times. The same holds for a stock row and seq. GET
// /api/events goes tick by tick, so events of different subjects may come in another order there
// than from a sink. Within a subject the order is the same.
//
// Pages are published one after another. Within a page the relay goes in waves: the first event of
// each subject, then the second of each, and so on, because a call of a sink may fail for a part of
// its entries. An event that failed holds back the later ones of its subject.
//
// So a subject's events take a call each, and a page of a hot stock row takes hundreds of calls,
// one after another. After ten seconds of a page, and at the end of a run, the relay begins no more
// calls. It acknowledges the page up to the first event that was neither accepted nor parked. So
// every run gets on, and no page outlasts the lease.
//
// # Two places
//
// A stock row that sells faster than its calls follow one another makes the movements late: its
// own, and those of all other stock rows, because the place goes on to the next page when this one
// is done. A cold row's movement waits for the hot row's ones of its page and of the pages before.
// The holds' events have a place of their own, so they are out by then, and the other way round. A
// hold and a stock row are different subjects, so the order within each stays. The two places share
// the calls that a sink takes at once, and take turns when both wait.
//
// A row of the table sinks has the name of the sink itself. It stands at the last tick that both
// places have passed. The archive and the pruning of ticks go by it, and so does a relay of the
// release that had one place for both parts. Such a relay and one of a place exclude each other by
// their leases. A place that is behind that row has the row's place from then on (claim_sink.sql).
// So a deploy, and one that goes back, loses nothing.
//
// Several events of one subject in one call would be faster. SNS publishes the entries of a call in
// their order, but it doesn't say that it takes none behind one that failed. A consumer would
// ignore the failed one when it comes later. So each event waits for the answer to the one before.
//
// # One relay at a time
//
// A relay has a lease of each place for a minute, renews it with its requests, and gives it back at
// the end of its run. The ack counts only while the lease is the relay's own, and moves the place
// only forward (claim_sink.sql). So a relay that was frozen past its lease may publish once more
// the page that it had, and then stops. The next minute's run begins when this one is about to end.
// When it begins sooner, it waits for the leases.
//
// # What is refused
//
// When a page isn't accepted whole, the relay publishes the rest again after 1, 2, 4 ... 30 s. An
// event that the sink refuses for good five times is parked: it goes to the table parked with the
// later events of its subject, and the other subjects go on. None of the subject's rows is archived
// meanwhile. EventsParked says how many events are parked, for an alarm. When the cause is
// repaired, an operator publishes them by redrive_parked.
//
// # Live stock
//
// The relay also tells the open pages, on the live channel, what a stock row has now, and which
// hold has changed. These messages are state and no events, so they have other rules:
//
//   - The relay asks for news twice a second, and each second it gets a batch if there is any
//     (claim_live.sql): the stock rows that moved, and those of which holds were made, resolved or
//     have died. The batch names each row once, and the
//     row is read when its page is. So a row has at most one message a second, however often it
//     changed.
//   - A hold that dies by itself is news, although nobody has written anything: its units are
//     available again (I4). The outbox looks in the index of the holds' ends, between the time of
//     the last look and now.
//   - asOf is the number of the tick that ends the batch. It rises with each message of a row, and
//     a reader keeps the message with the highest. A page is read after its tick was committed, so
//     it has all that the tick sees. A later change is in a later batch. For the same reason an
//     answer of the catalog can be compared with a message, by the newest tick that its snapshot
//     sees.
//   - A death takes a tick of its own. Another sink's newest tick won't do: a reader of the catalog
//     may have seen that tick before the hold died.
//   - A batch that wasn't sent whole is a part of the next one, which has a higher number.
//   - A backlog is skipped. Nothing older than a minute is told. A batch is cut off after five
//     pages of a thousand rows, because a delivery may move every row of the shop. Each reader
//     reads the catalog every minute, and gets there what was left out.
//   - The channel has a lease, as the place of a sink has one, but in a table of its own: the
//     archive and the pruning of ticks don't wait for it.
//
// The state may have transitions that a crash can undo, as the catalog's may.
//
// # Pruning
//
// Ticks older than a week that all sinks have passed are pruned to one a minute. The sweep does
// that in short steps (prune_old_ticks), and never a tick: a backlog of millions, after a sink's
// long outage, delays no event. A cursor of GET /api/events names the tick behind it and the one
// that ends its batch. When one of them is gone, the place within the batch says nothing any more,
// and the reader begins again at the tick behind: events may come again, and none is missed.
//
// # Restores
//
// The events' source names the deployment, which on AWS is the stack's name, and the database's
// epoch. A stack with another name on the same database begins a new source: to consumers, each
// subject begins anew.
//
// The epoch is for restores. After a restore to an earlier moment, ids come again that were
// published for transitions that are lost, so an operator calls begin_epoch(). SNS and the
// receivers of webhooks drop repeats by one text, which has a part of the epoch (Event.DedupID).
// The previous release sends the id alone. So during a deploy an event may come under both texts,
// and consumers go by source, id and sequence. When a database moves to another server by a dump or
// by logical replication, its ticks name transactions of the old server. The outbox refuses to go
// on when this server has given out fewer ids than the last tick saw. An operator drains the old
// server's feed, moves the database, and calls rebase_stream() before the first verb
// (rebase_stream.sql).
//
// The batch between two snapshots is that of PgQ, the queue that Skype built on Postgres in 2007.
package events
