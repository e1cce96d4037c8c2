// Package model is the promises as a program that serves one call at a time, on a few stock rows. A history of concurrent calls is
// linearizable (Herlihy and Wing, "Linearizability: A Correctness Condition for Concurrent Objects", 1990) when its calls can be put into one
// order, each somewhere between being sent and being answered, in which this program answers as the service did.
//
// The one thing that isn't a call is the passing of time. A call doesn't tell when, between being sent and being answered, the database wasAvailable
// at its clock, so the model asks whether some instant in between explains the answer. Whoever is told that a hold has expired makes it dead in
// the model for good: whatever came back to life would contradict that.
//
// A catalog shows holds that are past their end as gone, each row by a look at the clock of its own, and binds nobody.
package model

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strings"
)

// Instant is a time in microseconds since 1970, which is how exactly Postgres tells it.
type Instant = int64

// Never is when a call was answered that wasn't.
const Never Instant = math.MaxInt64

// Verb is what a call asks for.
type Verb string

// The verbs. Restock is the operator's, who adds to stock rows by hand.
const (
	Reserve Verb = "reserve"
	Confirm Verb = "confirm"
	Release Verb = "release"
	Extend  Verb = "extend"
	Get     Verb = "get"
	Catalog Verb = "catalog"
	Restock Verb = "restock"
)

// Line is some units of a stock row, by the row's number.
type Line struct{ Row, Quantity int }

// Call is what was asked.
type Call struct {
	Verb Verb
	// Hold is the number of the hold that is asked for or about.
	Hold int
	// Lines are what a Reserve or a Restock names.
	Lines []Line
	// TTL is how long a Reserve or an Extend wants the hold to last.
	TTL Instant
	// Repeats says that a Reserve's Idempotency-Key was sent more than once.
	Repeats bool
	// From is when the call was sent, To when it was answered.
	From, To Instant
}

// Outcome is the kind of an answer.
type Outcome string

// The outcomes.
const (
	Done    Outcome = "done"    // a success
	Short   Outcome = "short"   // not enough in stock
	Gone    Outcome = "gone"    // the hold has expired
	Settled Outcome = "settled" // the hold was resolved otherwise
	Nothing Outcome = "nothing" // refused for now, with the promise that nothing happened
	Unknown Outcome = "unknown" // it may or may not have happened, now or later
)

// Status is a hold's.
type Status byte

// The statuses. Absent is before the reserve; EndUnknown is pending with an end that nobody was told.
const (
	Absent Status = iota
	Pending
	EndUnknown
	Confirmed
	Released
	Expired
)

func (s Status) String() string {
	return [...]string{"absent", "pending", "pending, end unknown", "confirmed", "released", "expired"}[s]
}

// Answer is what the service said.
type Answer struct {
	Outcome Outcome
	// Status and End are the hold's, where the answer shows one; of a Settled it is the status that stood in the way.
	Status Status
	End    Instant
	// Rows are what a catalog or a shortage shows of stock rows.
	Rows []Row
}

// Row is a stock row as an answer shows it. A shortage shows what is Available alone.
type Row struct{ Number, Total, Reserved, Available int }

// State is the model between two calls: the rows' totals, then each hold's status and end. It is a string so that it can be compared.
type State string

// untold is the end of a hold that was resolved before anybody was told it.
const untold Instant = 0

const (
	rowSize  = 4
	holdSize = 9
)

// Model is the program: its stock rows' first totals, and what lines each hold has, should it come about.
type Model struct {
	totals []int
	holds  [][]Line
	shares [][]share // by row
}

// share is a hold's part of a row.
type share struct{ hold, quantity int }

// New makes a model of stock rows with these totals, and with room for so many holds.
func New(totals []int, holds int) *Model {
	return &Model{totals: totals, holds: make([][]Line, holds), shares: make([][]share, len(totals))}
}

// Name says which lines a hold has, should it come about.
func (m *Model) SetLines(hold int, lines []Line) {
	if m.holds[hold] != nil {
		return // a reserve that was sent twice
	}
	m.holds[hold] = lines
	for _, line := range lines {
		m.shares[line.Row] = append(m.shares[line.Row], share{hold, line.Quantity})
	}
}

// Init is the state before the first call.
func (m *Model) Init() State {
	b := make([]byte, len(m.totals)*rowSize+len(m.holds)*holdSize)
	for row, total := range m.totals {
		binary.BigEndian.PutUint32(b[row*rowSize:], uint32(total))
	}
	return State(b)
}

// Step answers which states the model may be in after the call, when it is in s before and the service answered a: none when the
// model would not have answered so.
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
	case t.explains():
		return []State{State(t.state)}
	}
	return nil
}

// SetEnd is the state in which the hold has another end: a test has turned its clock.
func (m *Model) SetEnd(s State, hold int, end Instant) State {
	t := step{model: m, state: []byte(s), call: Call{Hold: hold}}
	status, _ := t.hold(hold)
	t.set(status, end)
	return State(t.state)
}

// step is one step: the state is a copy, changed as the call changes it.
type step struct {
	model  *Model
	state  []byte
	call   Call
	answer Answer
}

func (t *step) total(row int) int { return int(int32(binary.BigEndian.Uint32(t.state[row*rowSize:]))) }

func (t *step) add(row, units int) {
	binary.BigEndian.PutUint32(t.state[row*rowSize:], uint32(t.total(row)+units))
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

// mayBeAlive says whether the call may have found the hold alive, mayBeDead whether it may have found it dead. Both may be.
func (t *step) mayBeAlive() bool {
	status, end := t.hold(t.call.Hold)
	return status == EndUnknown || status == Pending && t.call.From < end
}

func (t *step) mayBeDead() bool {
	status, end := t.hold(t.call.Hold)
	return status == Expired || (status == Pending || status == EndUnknown) && end <= t.call.To
}

// held counts a row's units in holds that are alive at the instant: at least, and at most.
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

// instants are those between the call and its answer at which what is held of the row may differ.
func (t *step) instants(row int) []Instant {
	at := []Instant{t.call.From}
	for _, part := range t.model.shares[row] {
		if status, end := t.hold(part.hold); (status == Pending || status == EndUnknown) && t.call.From < end && end <= t.call.To {
			at = append(at, end)
		}
	}
	return at
}

// happens changes the state as an unanswered call does that gets through. It is false when it couldn't, or wouldn't change anything.
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
			return true
		}
	default: // a reading has no effect, and a delivery is always answered
	}
	return false
}

// explains changes the state as the call did, and is false when the model would have answered otherwise.
func (t *step) explains() bool {
	switch t.answer.Outcome {
	case Gone:
		return t.expires()
	case Settled:
		status, _ := t.hold(t.call.Hold)
		return status == t.answer.Status
	case Short:
		return t.short()
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
		return !slices.ContainsFunc(t.answer.Rows, func(r Row) bool { return !t.showsRow(r) })
	case Restock:
		for _, line := range t.call.Lines {
			t.add(line.Row, line.Quantity)
		}
		return true
	}
	return false
}

// learn takes the end of a hold from an answer that shows it, where nobody was told before. It is false when the end is another.
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

// settle gives the hold its last status. Its end stays untold where it was vague.
func (t *step) settle(to Status) {
	status, end := t.hold(t.call.Hold)
	if status == EndUnknown {
		end = untold
	}
	t.set(to, end)
}

// expires is the answer that the hold is dead, which it stays.
func (t *step) expires() bool {
	if !t.mayBeDead() {
		return false
	}
	t.settle(Expired)
	return true
}

// reserve holds the units, unless there surely weren't enough: I1.
func (t *step) reserve(status Status, end Instant) bool {
	if was, _ := t.hold(t.call.Hold); was != Absent {
		return false
	}
	for _, line := range t.call.Lines {
		if least, _ := t.held(line.Row, t.call.To); t.total(line.Row)-least < line.Quantity {
			return false
		}
	}
	t.set(status, end)
	return true
}

// reserved is a reserve's success: a new hold that begins while the call is under way, or the one that its key has made already.
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

// resolve confirms or releases, and is false when what is sold was promised to others: I1 again.
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

// resolved is the success of a confirm or a release, be it the first.
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
	return t.fits()
}

// fits says whether the hold, which surely lives, and the others that surely do have room in its stock rows: I1.
func (t *step) fits() bool {
	for _, line := range t.model.holds[t.call.Hold] {
		if least, _ := t.held(line.Row, t.call.To); least > t.total(line.Row) {
			return false
		}
	}
	return true
}

// wasRead is a hold as it was read.
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

// showsRow says whether the row wasAvailable so at some instant of the call.
func (t *step) showsRow(r Row) bool {
	return t.total(r.Number) == r.Total && t.total(r.Number)-r.Reserved == r.Available && t.wasAvailable(r.Number, r.Available)
}

// wasAvailable says whether so many units of the row could be had at some instant of the call.
func (t *step) wasAvailable(row, available int) bool {
	return slices.ContainsFunc(t.instants(row), func(at Instant) bool {
		least, most := t.held(row, at)
		return t.total(row)-most <= available && available <= t.total(row)-least
	})
}

// short is a refusal: each line that it names had just that much, and less than was asked for; each other one had enough.
func (t *step) short() bool {
	named := 0
	for _, line := range t.call.Lines {
		n := slices.IndexFunc(t.answer.Rows, func(r Row) bool { return r.Number == line.Row })
		if n < 0 {
			if least, _ := t.held(line.Row, t.call.To); t.total(line.Row)-least < line.Quantity {
				return false
			}
			continue
		}
		named++
		if left := t.answer.Rows[n].Available; left >= line.Quantity || !t.wasAvailable(line.Row, left) {
			return false
		}
	}
	return named > 0 && named == len(t.answer.Rows)
}

// Describe tells a call and its answer, for people.
func Describe(c Call, a Answer) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s", c.Verb)
	if c.Verb != Catalog && c.Verb != Restock {
		fmt.Fprintf(&b, " hold %d", c.Hold)
	}
	if len(c.Lines) > 0 {
		fmt.Fprintf(&b, " of %v", c.Lines)
	}
	fmt.Fprintf(&b, ": %s", a.Outcome)
	if a.Status != Absent {
		fmt.Fprintf(&b, ", %s until %d", a.Status, a.End)
	}
	if len(a.Rows) > 0 {
		fmt.Fprintf(&b, " %+v", a.Rows)
	}
	return b.String()
}

// Describe tells a state, for people.
func (m *Model) Describe(s State) string {
	t := step{model: m, state: []byte(s)}
	var b strings.Builder
	for row := range m.totals {
		fmt.Fprintf(&b, "row %d: %d; ", row, t.total(row))
	}
	for n := range m.holds {
		if status, end := t.hold(n); status != Absent {
			fmt.Fprintf(&b, "hold %d %s until %d; ", n, status, end)
		}
	}
	return b.String()
}
