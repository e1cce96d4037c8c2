// Package model states the promises as a program that serves one call at a time, on a few stock
// rows. A history of concurrent calls is linearizable (Herlihy and Wing, "Linearizability: A
// Correctness Condition for Concurrent Objects", 1990) if its calls can be put into one order, each
// between its sending and its answer, in which this program answers as the service did.
//
// Only the passing of time is not a call. A call does not tell when the database read its clock, so
// the model asks whether some instant between the sending and the answer explains the answer. Once
// a caller is told that a hold has expired, the hold is dead in the model for good: if it came back
// to life, that would contradict the answer.
//
// A catalog shows holds past their end as gone. It reads the clock for each row anew, and it binds
// no later answer.
package model

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strings"
)

// Instant is a time in microseconds since 1970, the resolution of Postgres.
type Instant = int64

// Never is the time of an answer that never came.
const Never Instant = math.MaxInt64

// Verb is the kind of a call.
type Verb string

// The verbs. Confirm may name a payment. Start says that a payment is under way, and Fail that it
// failed. Cancel is an operator's Release. Return brings all units of one line of a hold back, to
// some shelf or to none. Move is a document of deliveries, corrections and counts, and Newest reads
// the newest movement of a stock row. Archive and Activate change the product of all stock rows,
// Limit its limits, Close and Open the warehouse of one row.
const (
	Reserve  Verb = "reserve"
	Confirm  Verb = "confirm"
	Start    Verb = "start"
	Fail     Verb = "fail"
	Release  Verb = "release"
	Cancel   Verb = "cancel"
	Return   Verb = "return"
	Extend   Verb = "extend"
	Get      Verb = "get"
	Catalog  Verb = "catalog"
	Move     Verb = "move"
	Newest   Verb = "newest"
	Archive  Verb = "archive"
	Activate Verb = "activate"
	Limit    Verb = "limit"
	Close    Verb = "close"
	Open     Verb = "open"
)

// Line is some units of a stock row, which is named by its number.
type Line struct{ Row, Quantity int }

// Call is a request.
type Call struct {
	Verb Verb
	// Hold is the number of the hold that the call makes or names.
	Hold int
	// Lines are the lines of a Reserve. A Newest, a Close, an Open or a Return names its stock row
	// there.
	Lines []Line
	// Owner is the customer of a Reserve, or 0. Replaces is the hold that it takes the place of.
	Owner    int
	Replaces Ref
	// Payment is the number of the payment that a Confirm, a Start or a Fail names, from 1 to
	// Payments. A Confirm may name none: 0.
	Payment int
	// Reacquire lets a Confirm take the units anew when the hold is gone, as the hold Successor. All
	// calls for a hold have the same Successor.
	Reacquire bool
	Successor int
	// PerHold and PerOwner are the limits that a Limit sets. 0 means no limit.
	PerHold, PerOwner int
	// Shelf is where a Return brings the units.
	Shelf Shelf
	// Document is what a Move asks for.
	Document Document
	// TTL is how long the hold of a Reserve, an Extend, a Start or a Fail is to last, in microseconds.
	TTL Instant
	// Repeats is set if the Idempotency-Key of the Reserve was sent more than once.
	Repeats bool
	// From is when the call was sent, To when it was answered.
	From, To Instant
}

// Ref names a hold by its number plus one. The zero Ref names none.
type Ref int

// To returns the Ref of a hold.
func To(hold int) Ref { return Ref(hold + 1) }

func (r Ref) hold() int { return int(r) - 1 }

// Shelf is where returned units go: to a stock row, which is named by its number plus one, or to
// none.
type Shelf byte

// NoShelf is where units go that aren't sold again.
const NoShelf Shelf = 0

// ShelfOf returns the Shelf of a stock row.
func ShelfOf(row int) Shelf { return Shelf(row + 1) }

func (s Shelf) row() int { return int(s) - 1 }

// Payments is how many payments of one hold the model tells apart.
const Payments = 2

// Outcome is the kind of an answer.
type Outcome string

// The outcomes.
const (
	Done    Outcome = "done"    // a success
	Short   Outcome = "short"   // too few units in stock
	Gone    Outcome = "gone"    // the hold has expired
	Settled Outcome = "settled" // the hold was resolved in another way
	Nothing Outcome = "nothing" // refused for now, without an effect
	Unknown Outcome = "unknown" // it may have an effect, now or later
	Closed  Outcome = "closed"  // something isn't for sale
	Refused Outcome = "refused" // a line of a document that is applied together was refused

	Reacquired  Outcome = "reacquired"   // the payment got the units as the successor
	Lost        Outcome = "lost"         // the payment is lost
	AlreadyPaid Outcome = "already paid" // another payment was first
	Paying      Outcome = "paying"       // a payment is under way
	Limited     Outcome = "limited"      // a limit would be exceeded
	NeedsOwner  Outcome = "needs owner"  // a limit for each owner, and no owner
	TooMany     Outcome = "too many"     // more units than a hold may have
	Unsold      Outcome = "unsold"       // a return of a hold that isn't confirmed
	Elsewhere   Outcome = "elsewhere"    // a return of units that went to another shelf
)

// Status is the status of a hold.
type Status byte

// The statuses. Absent is a hold before its reserve. EndUnknown is a pending hold whose end no
// caller was told.
const (
	Absent Status = iota
	Pending
	EndUnknown
	Confirmed
	Released
	Expired
)

func (s Status) String() string {
	return [...]string{
		"absent", "pending", "pending, end unknown", "confirmed", "released",
		"expired",
	}[s]
}

// Answer is the answer of the service.
type Answer struct {
	Outcome Outcome
	// Status and End are the hold's, where the answer shows it. With Settled, Status is the status
	// because of which the call was refused.
	Status Status
	End    Instant
	// Version is the number of the hold's transitions, or 0 when the answer is an older one, or
	// doesn't show it.
	Version int
	// Rows are the stock rows that a catalog or a shortage shows, or those that aren't for sale.
	Rows []Row
	// Limits are those that would be exceeded.
	Limits []Excess
	// Payment is the payment that the hold shows as under way, or the one that was first when it was
	// AlreadyPaid; 0 means none.
	Payment int
	// Replaces and ReplacedBy are the hold's.
	Replaces, ReplacedBy Ref
	// Moved are the results of a Move's lines, in their order, or the newest movement.
	Moved []Moved
}

// Row is a stock row in an answer. A shortage shows only Available.
type Row struct{ Number, Total, Reserved, Available int }

// Excess is a limit that a call would exceed, as an answer shows it.
type Excess struct{ Max, Used, Requested int }

// State is the state between two calls: the limits of the product, the stock rows, what became of
// each hold and of its payments, and the movement of each line of a document. It is a string, so
// that states can be compared.
type State string

// untold is the end of a hold that was resolved before any caller was told its end.
const untold Instant = 0

// The sizes of the parts of a state. The part of a hold has those of its payments behind it, and
// then a byte for each stock row.
const (
	limitsSize = 2
	rowSize    = 9
	holdSize   = 15
)

// The bits of a stock row that say why it isn't for sale.
const (
	closedBit   = 1
	archivedBit = 2
)

// Model is the program: the first totals of its stock rows, the lines and the owner of each hold
// that may be made, and how many lines of documents there may be.
type Model struct {
	totals []int
	holds  [][]Line
	owners []int
	shares [][]share // by row
	moves  int
	// MaxUnits is the most units of a hold.
	MaxUnits int
	// PerHold and PerOwner are the first limits of the product. 0 means no limit.
	PerHold, PerOwner int
}

// share is the part of a row that a hold takes.
type share struct{ hold, quantity int }

// New returns a model of stock rows with these totals, for at most so many holds and lines of
// documents.
func New(totals []int, holds, moves int) *Model {
	return &Model{
		totals: totals, holds: make([][]Line, holds), owners: make([]int, holds),
		shares: make([][]share, len(totals)), moves: moves, MaxUnits: math.MaxInt,
	}
}

// SetHold sets the lines and the owner that a hold has once it is made. A repeated call changes
// nothing.
func (m *Model) SetHold(hold, owner int, lines []Line) {
	if m.holds[hold] != nil {
		return // a reserve sent twice
	}
	m.holds[hold], m.owners[hold] = lines, owner
	for _, line := range lines {
		m.shares[line.Row] = append(m.shares[line.Row], share{hold, line.Quantity})
	}
}

// Init returns the state before the first call. Each stock row has its opening movement.
func (m *Model) Init() State {
	t := step{
		model: m,
		state: make([]byte, m.holdAt(len(m.holds))+m.moves*lineSize),
	}
	t.setLimits(m.PerHold, m.PerOwner)
	for row, total := range m.totals {
		t.setStock(row, total, 1)
	}
	return State(t.state)
}

// holdAt is where the part of a hold begins in a state.
func (m *Model) holdAt(hold int) int {
	return limitsSize + len(m.totals)*rowSize +
		hold*(holdSize+Payments*m.paymentSize()+len(m.totals))
}

// Stock returns the total of a stock row, and the number of its newest movement.
func (m *Model) Stock(s State, row int) (total, seq int) {
	t := step{model: m, state: []byte(s)}
	return t.total(row), t.seq(row)
}

// Step returns the states that may follow s after the call, given the answer a. It returns none if
// the model cannot answer so.
func (m *Model) Step(s State, c Call, a Answer) []State {
	t := step{model: m, state: []byte(s), call: c, answer: a}
	switch {
	case a.Outcome == Nothing:
		return []State{s}
	case a.Outcome == Unknown:
		return append([]State{s}, t.effects()...)
	case t.explains() && t.isShown():
		return []State{State(t.state)}
	}
	return nil
}

// SetEnd returns the state in which the hold has another end: a test has moved the hold's clock.
func (m *Model) SetEnd(s State, hold int, end Instant) State {
	t := step{model: m, state: []byte(s), call: Call{Hold: hold}}
	status, _ := t.hold(hold)
	t.set(status, end)
	return State(t.state)
}

// step is one call on a copy of the state, which it changes as the call does.
type step struct {
	model  *Model
	state  []byte
	call   Call
	answer Answer
	// leftOut is a hold whose units don't count as held.
	leftOut Ref
}

func (t *step) leaveOut(hold Ref) { t.leftOut = hold }

// of is the same call for another hold, on the same state.
func (t *step) of(hold int) *step {
	u := *t
	u.call.Hold = hold
	return &u
}

func (t *step) row(n int) []byte { return t.state[limitsSize+n*rowSize:][:rowSize] }

func (t *step) total(row int) int { return int(int32(binary.BigEndian.Uint32(t.row(row)))) }

// seq is the number of the row's newest movement.
func (t *step) seq(row int) int { return int(binary.BigEndian.Uint32(t.row(row)[4:])) }

func (t *step) setStock(row, total, seq int) {
	binary.BigEndian.PutUint32(t.row(row), uint32(total))
	binary.BigEndian.PutUint32(t.row(row)[4:], uint32(seq))
}

// add changes the total by a movement.
func (t *step) add(row, units int) { t.setStock(row, t.total(row)+units, t.seq(row)+1) }

// forSale reports whether a reserve may take units of the row.
func (t *step) forSale(row int) bool { return t.row(row)[8] == 0 }

// turn sets or clears a bit of some rows that says why they aren't for sale.
func (t *step) turn(bit byte, set bool, rows ...int) {
	for _, row := range rows {
		t.row(row)[8] &^= bit
		if set {
			t.row(row)[8] |= bit
		}
	}
}

// switches applies a change of the catalog.
func (t *step) switches() {
	switch t.call.Verb {
	case Archive, Activate:
		for row := range t.model.totals {
			t.turn(archivedBit, t.call.Verb == Archive, row)
		}
	case Limit:
		t.setLimits(t.call.PerHold, t.call.PerOwner)
	default:
		t.turn(closedBit, t.call.Verb == Close, t.call.Lines[0].Row)
	}
}

// part is the part of the state that tells of a hold.
func (t *step) part(hold int) []byte { return t.state[t.model.holdAt(hold):t.model.holdAt(hold+1)] }

func (t *step) hold(n int) (Status, Instant) {
	b := t.part(n)
	return Status(b[0]), Instant(binary.BigEndian.Uint64(b[1:]))
}

func (t *step) set(status Status, end Instant) {
	b := t.part(t.call.Hold)
	b[0] = byte(status)
	binary.BigEndian.PutUint64(b[1:], uint64(end))
}

// version is the number of a hold's transitions, as far as a byte counts.
func (t *step) version(hold int) int { return int(t.part(hold)[9]) }

// transition counts a transition of the hold.
func (t *step) transition() { t.part(t.call.Hold)[9]++ }

// mayBeAlive reports whether the call may have found the hold alive, mayBeDead whether it may have
// found it dead. Both may be true.
func (t *step) mayBeAlive() bool {
	status, end := t.hold(t.call.Hold)
	return status == EndUnknown || status == Pending && t.call.From < end
}

func (t *step) mayBeDead() bool {
	status, end := t.hold(t.call.Hold)
	return status == Expired || (status == Pending || status == EndUnknown) && end <= t.call.To
}

// held counts the row's units in holds that are alive at the instant: at least, and at most.
func (t *step) held(row int, at Instant) (least, most int) {
	for _, part := range t.model.shares[row] {
		surely, perhaps := t.lives(part.hold, at)
		if surely {
			least += part.quantity
		}
		if perhaps {
			most += part.quantity
		}
	}
	return least, most
}

// lives reports whether a hold is surely, and perhaps, alive at the instant. The hold that is left
// out isn't.
func (t *step) lives(hold int, at Instant) (surely, perhaps bool) {
	status, end := t.hold(hold)
	if t.leftOut == To(hold) {
		return false, false
	}
	surely = (status == Pending || status == EndUnknown) && end > at
	return surely, surely || status == EndUnknown
}

// instants returns the instants of the call between which the row's held units may differ.
func (t *step) instants(row int) []Instant {
	at := []Instant{t.call.From}
	for _, part := range t.model.shares[row] {
		if status, end := t.hold(part.hold); (status == Pending || status == EndUnknown) &&
			t.call.From < end && end <= t.call.To {
			at = append(at, end)
		}
	}
	return at
}

// effects returns the states to which a call may have led whose answer nobody received.
func (t *step) effects() []State {
	var states []State
	for _, happens := range t.possible() {
		u := *t
		u.state = slices.Clone(t.state)
		if happens(&u) {
			states = append(states, State(u.state))
		}
	}
	return states
}

// possible returns what a call may have done whose answer nobody received. Each is false if it
// can't have been. A read has no effect, and a change of the catalog is always answered.
func (t *step) possible() []func(*step) bool {
	switch t.call.Verb {
	case Reserve:
		reserve := func(replaced Ref) func(*step) bool {
			return func(u *step) bool { return u.reserve(EndUnknown, u.call.From+u.call.TTL, replaced) }
		}
		return []func(*step) bool{reserve(0), reserve(t.call.Replaces)}
	case Confirm:
		return []func(*step) bool{(*step).confirms, (*step).mayReacquire, (*step).mayLose}
	case Start:
		return []func(*step) bool{(*step).mayStart}
	case Fail:
		return []func(*step) bool{(*step).mayFail}
	case Release, Cancel:
		return []func(*step) bool{(*step).releases}
	case Extend:
		return []func(*step) bool{func(u *step) bool {
			return u.extends(EndUnknown, u.call.From+u.call.TTL)
		}}
	case Return:
		return []func(*step) bool{(*step).returns}
	case Move:
		return []func(*step) bool{(*step).mayMove}
	default:
		return nil
	}
}

// explains applies the call. It is false if the model answers otherwise.
func (t *step) explains() bool {
	switch t.answer.Outcome {
	case Gone:
		return t.isUnpaid() && t.expires()
	case Settled:
		return t.isUnpaid() && t.isSettled()
	case Short:
		return t.refusesLines() && t.isWithinLimits() && t.short(t.call.Lines, t.call.Replaces)
	case Closed:
		return t.refusesLines() && t.closed(t.call.Lines)
	case Reacquired:
		return t.reacquired()
	case Lost:
		return t.lost()
	case AlreadyPaid:
		return t.isAlreadyPaid()
	case Paying:
		return t.isPaying()
	case Limited, NeedsOwner, TooMany:
		return t.limited()
	case Unsold:
		status, _ := t.hold(t.call.Hold)
		return t.call.Verb == Return && status != Confirmed
	case Elsewhere:
		row := t.call.Lines[0].Row
		return t.call.Verb == Return && t.isBack(row) && *t.back(row) != wentTo(t.call.Shelf)
	default:
	}
	switch t.call.Verb {
	case Reserve:
		return t.reserved()
	case Confirm, Release, Cancel:
		return t.resolved()
	case Start:
		return t.started()
	case Fail:
		return t.failed()
	case Return:
		return t.learn() && t.returned()
	case Extend:
		return t.extended()
	case Get:
		return t.wasRead()
	case Catalog:
		return t.shows()
	case Move:
		return t.moved()
	case Newest:
		row := t.call.Lines[0].Row
		newest := t.answer.Moved[0]
		return newest.Seq == t.seq(row) && newest.Total == t.total(row)
	default:
		t.switches()
		return true
	}
}

// learn takes the end of a hold from an answer, if no answer showed it before. It is false if the
// known end differs.
func (t *step) learn() bool {
	status, end := t.hold(t.call.Hold)
	switch {
	case t.answer.End == 0:
		return true
	case status == EndUnknown && t.answer.End >= end:
		t.set(Pending, t.answer.End)
		return true
	case end == untold:
		t.set(status, t.answer.End)
		return true
	}
	return end == t.answer.End
}

// settle sets the final status of the hold, unless it has one. If the end is unknown, the model
// leaves it unknown.
func (t *step) settle(to Status) {
	status, end := t.hold(t.call.Hold)
	if status == to {
		return
	}
	t.transition()
	if status == EndUnknown {
		end = untold
	}
	t.set(to, end)
	t.setPaying(0)
}

// expires explains the answer that the hold is dead. From then on it is.
func (t *step) expires() bool {
	if !t.mayBeDead() {
		return false
	}
	t.settle(Expired)
	return true
}

// reserve makes the hold in the place of another one, if any. It is false if there were surely too
// few units (I1), if something isn't for sale, or if a limit was surely exceeded (I12).
func (t *step) reserve(status Status, end Instant, replaced Ref) bool {
	if was, _ := t.hold(t.call.Hold); was != Absent || !t.replaces(replaced) ||
		!t.isWithinLimits() || !t.hasUnits(t.call.Lines) {
		return false
	}
	t.set(status, end)
	t.transition()
	return true
}

// hasUnits reports whether the lines may be taken: everything is for sale, and there may be enough
// units.
func (t *step) hasUnits(lines []Line) bool {
	for _, line := range lines {
		least, _ := t.held(line.Row, t.call.To)
		if t.total(line.Row)-least < line.Quantity || !t.forSale(line.Row) {
			return false
		}
	}
	return true
}

// reserved explains the success of a reserve: a new hold that begins during the call, or the hold
// that its key had already made.
func (t *step) reserved() bool {
	begins := t.answer.End - t.call.TTL
	status, end := t.hold(t.call.Hold)
	switch {
	case status == Absent:
		return t.call.From <= begins && begins <= t.call.To &&
			t.reserve(Pending, t.answer.End, t.answer.Replaces)
	case !t.call.Repeats || t.follows(t.call.Hold) != t.answer.Replaces:
		return false
	case status == EndUnknown:
		if t.answer.End < end {
			return false
		}
		t.set(Pending, t.answer.End)
	}
	return true
}

// resolve confirms or releases the hold. It is false if a confirm sells units promised to others:
// I1.
func (t *step) resolve(to Status) bool {
	t.settle(to)
	if to != Confirmed {
		return true
	}
	for _, line := range t.model.holds[t.call.Hold] {
		t.add(line.Row, -line.Quantity)
	}
	return t.fits()
}

// releases releases a hold that may be alive. A payment under way keeps a shopper from it.
func (t *step) releases() bool {
	return t.mayBeAlive() && (t.call.Verb == Cancel || t.paying() == 0) && t.resolve(Released)
}

// resolved explains the success of a confirm or a release, the first or a repeated one.
func (t *step) resolved() bool {
	if !t.learn() {
		return false
	}
	status, _ := t.hold(t.call.Hold)
	switch {
	case t.answer.Status == Expired:
		return t.call.Verb != Confirm && t.expires()
	case status == t.answer.Status:
		return t.call.Payment == 0 || t.payment(t.call.Payment) == paymentConfirmed
	case t.call.Verb == Confirm:
		return t.answer.Status == Confirmed && t.confirms()
	}
	return t.answer.Status == Released && t.releases()
}

func (t *step) extended() bool {
	from := t.answer.End - t.call.TTL
	return t.call.From <= from && from <= t.call.To && t.extends(Pending, t.answer.End) && t.fits()
}

// extends gives a hold that may be alive another end, unless a payment is under way.
func (t *step) extends(status Status, end Instant) bool {
	if !t.mayBeAlive() || t.paying() != 0 {
		return false
	}
	t.set(status, end)
	t.transition()
	return true
}

// fits reports whether the stock rows have room for this hold and for all others that surely live:
// I1.
func (t *step) fits() bool {
	for _, line := range t.model.holds[t.call.Hold] {
		if least, _ := t.held(line.Row, t.call.To); least > t.total(line.Row) {
			return false
		}
	}
	return true
}

// wasRead explains the read of a hold.
func (t *step) wasRead() bool {
	if !t.learn() {
		return false
	}
	status, _ := t.hold(t.call.Hold)
	switch {
	case status == Absent:
		return false
	case t.answer.Status == Expired:
		return t.expires()
	case t.answer.Status == Pending:
		return t.mayBeAlive() && t.fits()
	}
	return status == t.answer.Status
}

// shows explains a catalog: it has the rows that are for sale.
func (t *step) shows() bool {
	for row := range t.model.totals {
		n := slices.IndexFunc(t.answer.Rows, func(r Row) bool { return r.Number == row })
		if n >= 0 != t.forSale(row) || n >= 0 && !t.showsRow(t.answer.Rows[n]) {
			return false
		}
	}
	return true
}

// showsRow reports whether the row looked so at some instant of the call.
func (t *step) showsRow(r Row) bool {
	return t.total(r.Number) == r.Total && t.total(r.Number)-r.Reserved == r.Available &&
		t.wasAvailable(r.Number, r.Available)
}

// wasAvailable reports whether so many units of the row were available at some instant of the call.
func (t *step) wasAvailable(row, available int) bool {
	return slices.ContainsFunc(t.instants(row), func(at Instant) bool {
		least, most := t.held(row, at)
		return t.total(row)-most <= available && available <= t.total(row)-least
	})
}

// closed explains a refusal of what isn't for sale. It names all such lines and no other.
func (t *step) closed(lines []Line) bool {
	for _, line := range lines {
		named := slices.ContainsFunc(t.answer.Rows, func(r Row) bool { return r.Number == line.Row })
		if named == t.forSale(line.Row) {
			return false
		}
	}
	return len(t.answer.Rows) > 0
}

// short explains a refusal: everything is for sale, each line that it names had exactly the stated
// units, fewer than requested, and each other line had enough. The units of the hold that is to be
// replaced count as free.
func (t *step) short(lines []Line, replaces Ref) bool {
	t.leaveOut(replaces)
	named := 0
	for _, line := range lines {
		if !t.forSale(line.Row) {
			return false
		}
		n := slices.IndexFunc(t.answer.Rows, func(r Row) bool { return r.Number == line.Row })
		if n < 0 {
			if least, _ := t.held(line.Row, t.call.To); t.total(line.Row)-least < line.Quantity {
				return false
			}
			continue
		}
		named++
		if left := t.answer.Rows[n].Available; left >= line.Quantity ||
			!t.wasAvailable(line.Row, left) {
			return false
		}
	}
	t.leaveOut(0)
	return named > 0 && named == len(t.answer.Rows)
}

// Describe writes a call and its answer for people.
func Describe(c Call, a Answer) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s", c.Verb)
	switch c.Verb {
	case Reserve, Confirm, Start, Fail, Release, Cancel, Return, Extend, Get:
		fmt.Fprintf(&b, " hold %d", c.Hold)
	case Move:
		fmt.Fprintf(&b, " %+v", c.Document)
	case Limit:
		fmt.Fprintf(&b, " %d for a hold and %d for an owner", c.PerHold, c.PerOwner)
	default:
	}
	if c.Payment > 0 {
		fmt.Fprintf(&b, " by payment %d, reacquire %t", c.Payment, c.Reacquire)
	}
	if c.Verb == Return {
		fmt.Fprintf(&b, " to shelf %d", c.Shelf)
	}
	if c.Owner > 0 {
		fmt.Fprintf(&b, " for owner %d", c.Owner)
	}
	if c.Replaces != 0 {
		fmt.Fprintf(&b, " in the place of hold %d", c.Replaces.hold())
	}
	if len(c.Lines) > 0 {
		fmt.Fprintf(&b, " of %v", c.Lines)
	}
	fmt.Fprintf(&b, ": %s", a.Outcome)
	if a.Status != Absent {
		fmt.Fprintf(&b, ", %s until %d of version %d", a.Status, a.End, a.Version)
	}
	if a.Payment > 0 {
		fmt.Fprintf(&b, ", payment %d", a.Payment)
	}
	if a.Replaces != 0 || a.ReplacedBy != 0 {
		fmt.Fprintf(&b, ", replaces %d, replaced by %d", a.Replaces.hold(), a.ReplacedBy.hold())
	}
	if len(a.Limits) > 0 {
		fmt.Fprintf(&b, " %+v", a.Limits)
	}
	if len(a.Rows) > 0 {
		fmt.Fprintf(&b, " %+v", a.Rows)
	}
	if len(a.Moved) > 0 {
		fmt.Fprintf(&b, " %+v", a.Moved)
	}
	return b.String()
}

// Describe writes a state for people.
func (m *Model) Describe(s State) string {
	t := step{model: m, state: []byte(s)}
	var b strings.Builder
	for row := range m.totals {
		fmt.Fprintf(&b, "row %d: %d by movement %d, for sale: %t; ", row, t.total(row), t.seq(row),
			t.forSale(row))
	}
	for n := range m.holds {
		if status, end := t.hold(n); status != Absent {
			fmt.Fprintf(&b, "hold %d %s until %d of version %d", n, status, end, t.version(n))
			t.of(n).describePayments(&b)
		}
	}
	return b.String()
}
