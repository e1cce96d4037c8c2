// Package stock is the shop's back office: the catalog, and what lies on the shelves. It works on
// the same database as package reservation, by the same rules: a use case is one routine of
// migrations/procedures/, its locks are taken in the one order, and a success is on disk.
//
// # The catalog
//
// [Service.PutProducts] and [Service.PutWarehouses] make and change up to [MaxItems] products or
// warehouses, all or none. Products are named by their SKU, and warehouses by their code. Neither
// is ever deleted: an ARCHIVED product and a CLOSED warehouse leave the catalog and get no new
// hold, and their live holds go on as ever.
//
// A reserve reads one table, the stock row. So each stock row repeats whether its product is ACTIVE
// and its warehouse is OPEN, and the product's limits. A change takes these steps:
//
//  1. One transaction writes the products or the warehouses, and the answer under the
//     Idempotency-Key. From now on the catalog shows the change.
//  2. The stock rows follow, a thousand at a time, each step a short transaction
//     (procedures/follow_catalog.sql). A warehouse may have 40,000 of them. From the moment a stock
//     row has followed, its reserves are refused by the guard of their update.
//  3. A change of products waits for the reserves that have summed up what an owner has of a
//     limited one (procedures/lock_owner.sql). One of them may have missed a hold of a stock row
//     that didn't know the limit yet.
//  4. One flush of the log makes all of this durable. Then the caller gets the answer. So after the
//     answer no hold is made that the change forbids.
//
// A call that dies after step 1 leaves stock rows behind. The repeat finishes it, with the same
// Idempotency-Key or without one: step 2 looks at all stock rows of the request, also of those
// items that are UNCHANGED. The audit finds the stock rows of a call that isn't repeated.
//
// # Movements
//
// [Service.Move] applies the lines of a document. Each line is one movement of one stock row (I8),
// and each is applied once, for ever. The movement itself remembers the line: its source, its
// reference and its number are unique. So the line needs no other record, and a document that was
// sent half-way is sent again.
//
//   - A document's calls follow one another, by an advisory lock that each line's transaction takes
//     anew (move_line in procedures/move_stock.sql). Without the lock the unique index would refuse
//     the second of two equal lines, instead of replaying it.
//   - All lines go in one CALL, which takes one round trip and one flush of the log, however many
//     lines there are. Each line's transaction commits without waiting for the disk, so a hot row
//     is locked for one movement (doc.go of package reservation has the argument).
//   - A document that is applied together is one transaction, which takes its stock rows in the
//     lock order.
//   - An Idempotency-Key binds the whole call. As its lines are several transactions, the answer is
//     stored with the last one. The first one stores that it is pending, so that no other request
//     can use the key meanwhile.
//
// # Returns
//
// [Service.Return] takes goods of a confirmed hold back. The hold never changes again (I3), so the
// units that are back stand in rows of their own, the table returns. The lock of the hold makes its
// returns follow one another. Under it, the sum of these rows says how many units may still come
// back, and the rows of a reference are the answer to a repeat. Each line that is restocked is a
// movement, whose source is the address of the hold's returns. No document may have such a source.
//
// # Locks
//
// A write of the catalog locks its Idempotency-Key, then the catalog, and then the products or the
// warehouses. The catalog's lock is an advisory one (procedures/claim_key.sql). It makes the writes
// follow one another, and it is held for a few milliseconds: no stock row is waited for meanwhile.
// A transaction that copies the catalog into a stock row shares this lock before it locks a hold or
// a stock row. A line that makes a stock row does so after the document's lock (move_lines), and a
// return before the hold's lock (take_back). follow_busy_row alone has a row locked first, and then
// doesn't wait for the catalog's lock. A change of products takes the lock of each limited one
// last, one at a time, and holds no other then. Reserves share it after their owner's locks, and
// before they lock a hold.
package stock
