// Package stock is the shop's back office: what lies on the shelves. It works on the same database
// as package reservation, by the same rules: a use case is one routine of migrations/procedures/,
// its locks are taken in the one order, and a success is on disk.
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
package stock
