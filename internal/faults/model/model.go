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

// The verbs. Move is a document of deliveries, corrections and counts, and Newest reads the newest
// movement of a stock row. Archive and Activate change the product of all stock rows, Close and
// Open the warehouse of one.
const (
	Reserve  Verb = "reserve"
	Confirm  Verb = "confirm"
	Release  Verb = "release"
	Extend   Verb = "extend"
	Get      Verb = "get"
	Catalog  Verb = "catalog"
	Move     Verb = "move"
	Newest   Verb = "newest"
	Archive  Verb = "archive"
	Activate Verb = "activate"
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
	// Lines are the lines of a Reserve. A Newest, a Close or an Open names its stock row there.
	Lines []Line
	// Document is what a Move asks for.
	Document Document
	// TTL is how long the hold of a Reserve or an Extend is to last, in microseconds.
	TTL Instant
	// Repeats is set if the Idempotency-Key of the Reserve was sent more than once.
	Repeats bool
	// From is when the call was sent, To when it was answered.
	From, To Instant
}

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
	// Moved are the results of a Move's lines, in their order, or the newest movement.
	Moved []Moved
}

// Row is a stock row in an answer. A shortage shows only Available.
type Row struct{ Number, Total, Reserved, Available int }

// State is the state between two calls: the stock rows, the status, the end and the version of each
// hold, and the movement of each line of a document. It is a string so that states can be compared.
type State string

// untold is the end of a hold that was resolved before any caller was told its end.
const untold Instant = 0

const (
	rowSize  = 9
	holdSize = 10
)

// The bits of a stock row that say why it isn't for sale.
const (
	closedBit   = 1
	archivedBit = 2
)

// Model is the program: the first totals of its stock rows, the lines of each hold that may be
// made, and how many lines of documents there may be.
type Model struct {
	totals []int
	holds  [][]Line
	shares [][]share // by row
	moves  int
}

// share is the part of a row that a hold takes.
type share struct{ hold, quantity int }

// New returns a model of stock rows with these totals, for at most so many holds and lines of
// documents.
func New(totals []int, holds, moves int) *Model {
	return &Model{
		totals: totals, holds: make([][]Line, holds),
		shares: make([][]share, len(totals)), moves: moves,
	}
}

// SetLines sets the lines that a hold has once it is made. A repeated call changes nothing.
func (m *Model) SetLines(hold int, lines []Line) {
	if m.holds[hold] != nil {
		return // a reserve sent twice
	}
	m.holds[hold] = lines
	for _, line := range lines {
		m.shares[line.Row] = append(m.shares[line.Row], share{hold, line.Quantity})
	}
}

// Init returns the state before the first call. Each stock row has its opening movement.
func (m *Model) Init() State {
	t := step{
		model: m,
		state: make([]byte, len(m.totals)*rowSize+len(m.holds)*holdSize+m.moves*lineSize),
	}
	for row, total := range m.totals {
		t.setStock(row, total, 1)
	}
	return State(t.state)
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
		if t.happens() {
			return []State{s, State(t.state)}
		}
		return []State{s}
	case t.explains() && (a.Version == 0 || a.Version == t.version(c.Hold)):
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
}

func (t *step) total(row int) int {
	return int(int32(binary.BigEndian.Uint32(t.state[row*rowSize:])))
}

// seq is the number of the row's newest movement.
func (t *step) seq(row int) int {
	return int(binary.BigEndian.Uint32(t.state[row*rowSize+4:]))
}

func (t *step) setStock(row, total, seq int) {
	binary.BigEndian.PutUint32(t.state[row*rowSize:], uint32(total))
	binary.BigEndian.PutUint32(t.state[row*rowSize+4:], uint32(seq))
}

// add changes the total by a movement.
func (t *step) add(row, units int) { t.setStock(row, t.total(row)+units, t.seq(row)+1) }

// forSale reports whether a reserve may take units of the row.
func (t *step) forSale(row int) bool { return t.state[row*rowSize+8] == 0 }

// turn sets or clears a bit of some rows that says why they aren't for sale.
func (t *step) turn(bit byte, set bool, rows ...int) {
	for _, row := range rows {
		t.state[row*rowSize+8] &^= bit
		if set {
			t.state[row*rowSize+8] |= bit
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
	default:
		t.turn(closedBit, t.call.Verb == Close, t.call.Lines[0].Row)
	}
}

func (t *step) hold(n int) (Status, Instant) {
	b := t.state[len(t.model.totals)*rowSize+n*holdSize:]
	return Status(b[0]), Instant(binary.BigEndian.Uint64(b[1:]))
}

func (t *step) set(status Status, end Instant) {
	b := t.state[len(t.model.totals)*rowSize+t.call.Hold*holdSize:]
	b[0] = byte(status)
	binary.BigEndian.PutUint64(b[1:], uint64(end))
}

// version is the number of a hold's transitions, as far as a byte counts.
func (t *step) version(hold int) int {
	return int(t.state[len(t.model.totals)*rowSize+hold*holdSize+holdSize-1])
}

// transition counts a transition of the hold.
func (t *step) transition() {
	t.state[len(t.model.totals)*rowSize+t.call.Hold*holdSize+holdSize-1]++
}

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
		status, end := t.hold(part.hold)
		if status == Pending && end > at || status == EndUnknown && end > at {
			least += part.quantity
			most += part.quantity
		} else if status == EndUnknown {
			most += part.quantity
		}
	}
	return least, most
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

// happens applies a call whose answer nobody received. It is false if the call cannot have had an
// effect.
func (t *step) happens() bool {
	switch t.call.Verb {
	case Reserve:
		return t.reserve(EndUnknown, t.call.From+t.call.TTL)
	case Confirm:
		return t.mayBeAlive() && t.resolve(Confirmed)
	case Release:
		return t.mayBeAlive() && t.resolve(Released)
	case Extend:
		if t.mayBeAlive() {
			t.set(EndUnknown, t.call.From+t.call.TTL)
			t.transition()
			return true
		}
	case Move:
		return t.mayMove()
	default: // a read has no effect, and a change of the catalog is always answered
	}
	return false
}

// explains applies the call. It is false if the model answers otherwise.
func (t *step) explains() bool {
	switch t.answer.Outcome {
	case Gone:
		return t.expires()
	case Settled:
		status, _ := t.hold(t.call.Hold)
		return status == t.answer.Status
	case Short:
		return t.short()
	case Closed:
		return t.closed()
	default:
	}
	switch t.call.Verb {
	case Reserve:
		return t.reserved()
	case Confirm, Release:
		return t.resolved()
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
}

// expires explains the answer that the hold is dead. From then on it is.
func (t *step) expires() bool {
	if !t.mayBeDead() {
		return false
	}
	t.settle(Expired)
	return true
}

// reserve makes the hold. It is false if there were surely too few units (I1), or if something
// isn't for sale.
func (t *step) reserve(status Status, end Instant) bool {
	if was, _ := t.hold(t.call.Hold); was != Absent {
		return false
	}
	for _, line := range t.call.Lines {
		least, _ := t.held(line.Row, t.call.To)
		if t.total(line.Row)-least < line.Quantity || !t.forSale(line.Row) {
			return false
		}
	}
	t.set(status, end)
	t.transition()
	return true
}

// reserved explains the success of a reserve: a new hold that begins during the call, or the hold
// that its key had already made.
func (t *step) reserved() bool {
	begins := t.answer.End - t.call.TTL
	status, end := t.hold(t.call.Hold)
	switch {
	case status == Absent:
		return t.call.From <= begins && begins <= t.call.To && t.reserve(Pending, t.answer.End)
	case !t.call.Repeats:
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

// resolved explains the success of a confirm or a release, the first or a repeated one.
func (t *step) resolved() bool {
	if !t.learn() {
		return false
	}
	status, _ := t.hold(t.call.Hold)
	switch {
	case t.answer.Status == Expired:
		return t.call.Verb == Release && t.expires()
	case status == t.answer.Status:
		return true
	}
	return t.mayBeAlive() && t.resolve(t.answer.Status)
}

func (t *step) extended() bool {
	from := t.answer.End - t.call.TTL
	if !t.mayBeAlive() || from < t.call.From || from > t.call.To {
		return false
	}
	t.set(Pending, t.answer.End)
	t.transition()
	return t.fits()
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
func (t *step) closed() bool {
	for _, line := range t.call.Lines {
		named := slices.ContainsFunc(t.answer.Rows, func(r Row) bool { return r.Number == line.Row })
		if named == t.forSale(line.Row) {
			return false
		}
	}
	return len(t.answer.Rows) > 0
}

// short explains a refusal: everything is for sale, each line that it names had exactly the stated
// units, fewer than requested, and each other line had enough.
func (t *step) short() bool {
	named := 0
	for _, line := range t.call.Lines {
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
	return named > 0 && named == len(t.answer.Rows)
}

// Describe writes a call and its answer for people.
func Describe(c Call, a Answer) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s", c.Verb)
	switch c.Verb {
	case Reserve, Confirm, Release, Extend, Get:
		fmt.Fprintf(&b, " hold %d", c.Hold)
	case Move:
		fmt.Fprintf(&b, " %+v", c.Document)
	default:
	}
	if len(c.Lines) > 0 {
		fmt.Fprintf(&b, " of %v", c.Lines)
	}
	fmt.Fprintf(&b, ": %s", a.Outcome)
	if a.Status != Absent {
		fmt.Fprintf(&b, ", %s until %d of version %d", a.Status, a.End, a.Version)
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
			fmt.Fprintf(&b, "hold %d %s until %d of version %d; ", n, status, end, t.version(n))
		}
	}
	return b.String()
}
