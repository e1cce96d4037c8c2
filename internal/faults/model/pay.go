package model

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strings"
)

// payment is what became of a payment of a hold.
type payment byte

// The outcomes of a payment. Of one that is lostUntold, no caller was told what was missing.
const (
	paymentUnknown payment = iota
	paymentStarted
	paymentFailed
	paymentConfirmed
	paymentReacquired
	paymentLost
	paymentLostUntold
)

func (p payment) String() string {
	return [...]string{
		"unknown", "started", "failed", "confirmed", "reacquired", "lost", "lost, untold",
	}[p]
}

func (p payment) isLost() bool { return p == paymentLost || p == paymentLostUntold }

// The places in the part of a hold. What became of its payments comes behind them.
const (
	payingAt     = 10
	replacedByAt = 11
	replacesAt   = 13
)

// unnamed is in the place of a number that an answer doesn't have.
const unnamed = math.MaxUint8

// lossSize is the size of what was missing for a payment, apart from the stock rows: the limit, and
// what the owner had.
const lossSize = 3

// paymentSize is the size of what became of a payment: the outcome, and what was missing.
func (m *Model) paymentSize() int { return 1 + lossSize + len(m.totals) }

func (t *step) paymentPart(n int) []byte {
	size := t.model.paymentSize()
	return t.part(t.call.Hold)[holdSize+(n-1)*size:][:size]
}

func (t *step) payment(n int) payment { return payment(t.paymentPart(n)[0]) }

func (t *step) setPayment(n int, outcome payment) { t.paymentPart(n)[0] = byte(outcome) }

// paying is the payment under way, or 0.
func (t *step) paying() int { return int(t.part(t.call.Hold)[payingAt]) }

func (t *step) setPaying(n int) { t.part(t.call.Hold)[payingAt] = byte(n) }

// first is the payment that paid for the hold or for its successor, or 0.
func (t *step) first() int {
	for n := 1; n <= Payments; n++ {
		if p := t.payment(n); p == paymentConfirmed || p == paymentReacquired {
			return n
		}
	}
	return 0
}

func (t *step) ref(hold, at int) Ref { return Ref(binary.BigEndian.Uint16(t.part(hold)[at:])) }

// follower is the hold that took the place of this one.
func (t *step) follower(hold int) Ref { return t.ref(hold, replacedByAt) }

// follows is the hold whose place this one took.
func (t *step) follows(hold int) Ref { return t.ref(hold, replacesAt) }

// link notes that one hold took the place of another.
func (t *step) link(old, made int) {
	binary.BigEndian.PutUint16(t.part(old)[replacedByAt:], uint16(To(made)))
	binary.BigEndian.PutUint16(t.part(made)[replacesAt:], uint16(To(old)))
}

// refused is the call for the hold that a refusal tells of: of a reserve, the one that it would
// replace.
func (t *step) refused() *step {
	if t.call.Verb == Reserve {
		return t.of(t.call.Replaces.hold())
	}
	return t
}

// isShown reports whether the hold of the answer looks as it does after the call. An answer of an
// earlier call has no version.
func (t *step) isShown() bool {
	if t.answer.Version == 0 {
		return true
	}
	shown := t
	if t.answer.Outcome == Reacquired {
		shown = t.of(t.call.Successor)
	}
	hold := shown.call.Hold
	follower := Ref(0)
	if status, _ := shown.hold(hold); status == Released || status == Expired {
		follower = t.follower(hold)
	}
	return t.answer.Version == t.version(hold) && t.answer.Payment == shown.paying() &&
		t.answer.Replaces == t.follows(hold) && t.answer.ReplacedBy == follower
}

// replaces releases the hold whose place the new one takes. With no hold replaced, it explains that
// the one which the call names was ignored, because it was gone.
func (t *step) replaces(replaced Ref) bool {
	asked := t.call.Replaces
	if asked == 0 || replaced != asked {
		return replaced == 0 && (asked == 0 || t.of(asked.hold()).isGone())
	}
	old := t.of(asked.hold())
	if !old.mayBeAlive() || old.paying() != 0 {
		return false
	}
	old.settle(Released)
	t.link(old.call.Hold, t.call.Hold)
	return true
}

// isGone reports whether the hold may have been found released or dead. If it was dead, it is from
// then on.
func (t *step) isGone() bool {
	status, _ := t.hold(t.call.Hold)
	return status == Released || t.expires()
}

// refusesLines reports whether a reserve could come to look at its lines: nothing is wrong with the
// hold that it replaces.
func (t *step) refusesLines() bool {
	if t.call.Verb != Reserve || t.call.Replaces == 0 {
		return t.call.Verb == Reserve
	}
	old := t.refused()
	status, _ := old.hold(old.call.Hold)
	return status == Released || old.mayBeDead() || old.mayBeAlive() && old.paying() == 0
}

// isUnpaid reports whether the call may be answered by the hold's status alone: no payment decides.
func (t *step) isUnpaid() bool {
	switch {
	case t.call.Verb == Fail || t.call.Reacquire || t.call.Verb == Reserve && t.call.Replaces == 0:
		return false
	case t.call.Payment == 0:
		return true
	}
	status, _ := t.hold(t.call.Hold)
	return status != Confirmed && t.first() == 0 &&
		(t.call.Verb == Start || !t.payment(t.call.Payment).isLost())
}

// isSettled explains a refusal because of the hold's status.
func (t *step) isSettled() bool {
	refused := t.refused()
	status, _ := refused.hold(refused.call.Hold)
	return status == t.answer.Status
}

// isAlreadyPaid explains that another payment was first, or a confirm that named none.
func (t *step) isAlreadyPaid() bool {
	status, _ := t.hold(t.call.Hold)
	mine, first := t.call.Payment, t.first()
	return mine != 0 && mine != first && (status == Confirmed || first != 0) &&
		t.answer.Payment == first && (t.call.Verb == Start || !t.payment(mine).isLost())
}

// isPaying explains a refusal because of the payment under way.
func (t *step) isPaying() bool {
	switch t.call.Verb {
	case Release, Extend, Reserve:
		if t.call.Verb == Reserve && t.call.Replaces == 0 {
			return false
		}
		held := t.refused()
		return held.mayBeAlive() && held.paying() != 0
	default:
		return false
	}
}

// confirms confirms a hold that may be alive, by the payment that the call names, or else by the
// one under way.
func (t *step) confirms() bool {
	mine, started := t.call.Payment, t.paying()
	if !t.mayBeAlive() {
		return false
	}
	if mine == 0 {
		mine = started
	}
	if started != 0 && started != mine {
		t.setPayment(started, paymentFailed)
	}
	if mine != 0 {
		t.setPayment(mine, paymentConfirmed)
	}
	return t.resolve(Confirmed)
}

// started explains that a payment is under way, now or before, or that it has paid already.
func (t *step) started() bool {
	if t.answer.Status != Pending {
		status, _ := t.hold(t.call.Hold)
		return t.first() == t.call.Payment && status == t.answer.Status && t.learn()
	}
	status, end := t.hold(t.call.Hold)
	asked := t.answer.End - t.call.TTL
	isNew := t.call.From <= asked && asked <= t.call.To && t.answer.End >= end
	isKept := t.call.From <= asked && (t.answer.End == end || status == EndUnknown &&
		t.answer.End >= end)
	return (isNew || isKept) && t.starts(Pending, t.answer.End) && t.fits()
}

// mayStart starts a payment. Nobody was told the hold's end.
func (t *step) mayStart() bool {
	_, end := t.hold(t.call.Hold)
	return t.starts(EndUnknown, max(end, t.call.From+t.call.TTL))
}

// starts starts a payment of a hold that may be alive, in the place of another one.
func (t *step) starts(status Status, end Instant) bool {
	if !t.mayBeAlive() {
		return false
	}
	if other := t.paying(); other != 0 {
		t.setPayment(other, paymentFailed)
	}
	t.setPayment(t.call.Payment, paymentStarted)
	t.setPaying(t.call.Payment)
	t.set(status, end)
	t.transition()
	return true
}

// failed explains the answer to a payment that failed. It has an effect when it was under way.
func (t *step) failed() bool {
	if t.answer.Status != Pending || t.paying() != t.call.Payment {
		return t.wasRead()
	}
	from := t.answer.End - t.call.TTL
	return t.call.From <= from && from <= t.call.To && t.fails(Pending, t.answer.End)
}

func (t *step) mayFail() bool {
	return t.paying() == t.call.Payment && t.fails(EndUnknown, t.call.From+t.call.TTL)
}

func (t *step) fails(status Status, end Instant) bool {
	if !t.mayBeAlive() {
		return false
	}
	t.setPayment(t.call.Payment, paymentFailed)
	t.setPaying(0)
	t.set(status, end)
	t.transition()
	return true
}

// comesLate reports whether a payment may have found the hold gone and nothing decided, so that it
// takes the units anew or is lost.
func (t *step) comesLate() bool {
	return t.call.Reacquire && !t.payment(t.call.Payment).isLost() && t.first() == 0 && t.isGone()
}

// reacquired explains that a payment got the units, now or before.
func (t *step) reacquired() bool {
	if t.answer.Status != Confirmed {
		return false
	}
	if t.payment(t.call.Payment) == paymentReacquired {
		return t.of(t.call.Successor).learn()
	}
	return t.reacquires(t.answer.End)
}

func (t *step) mayReacquire() bool { return t.reacquires(untold) }

// reacquires makes the successor, if it may have been found that the units were free and within the
// owner's limit.
func (t *step) reacquires(end Instant) bool {
	lines, owner := t.model.holds[t.call.Hold], t.model.owners[t.call.Hold]
	if !t.comesLate() || t.follower(t.call.Hold) != 0 || !t.hasUnits(lines) ||
		!t.ownerMayHave(owner, lines) {
		return false
	}
	made := t.of(t.call.Successor)
	made.set(Confirmed, end)
	made.transition()
	t.link(t.call.Hold, t.call.Successor)
	t.setPayment(t.call.Payment, paymentReacquired)
	made.setPayment(t.call.Payment, paymentConfirmed)
	for _, line := range lines {
		t.add(line.Row, -line.Quantity)
	}
	return t.fits()
}

// lost explains that a payment is lost. The answer is the same for ever.
func (t *step) lost() bool {
	switch t.payment(t.call.Payment) {
	case paymentLost:
		return bytes.Equal(t.paymentPart(t.call.Payment)[1:], t.loss())
	case paymentLostUntold:
	default:
		if !t.comesLate() || !t.explainsLoss() {
			return false
		}
	}
	t.setPayment(t.call.Payment, paymentLost)
	copy(t.paymentPart(t.call.Payment)[1:], t.loss())
	return true
}

// loss is what the answer says was missing, as the state has it.
func (t *step) loss() []byte {
	b := bytes.Repeat([]byte{unnamed}, t.model.paymentSize()-1)
	if len(t.answer.Limits) > 0 {
		b[0] = byte(t.answer.Limits[0].Max)
		binary.BigEndian.PutUint16(b[1:], uint16(t.answer.Limits[0].Used))
	}
	for _, r := range t.answer.Rows {
		b[lossSize+r.Number] = byte(r.Available)
	}
	return b
}

// explainsLoss reports whether the answer names what was missing. Of several reasons it gives the
// first.
func (t *step) explainsLoss() bool {
	lines, owner := t.model.holds[t.call.Hold], t.model.owners[t.call.Hold]
	switch {
	case t.follower(t.call.Hold) != 0:
		return len(t.answer.Rows) == 0 && len(t.answer.Limits) == 0
	case !t.areForSale(lines):
		return t.closed(lines) && len(t.answer.Limits) == 0 &&
			!slices.ContainsFunc(t.answer.Rows, func(r Row) bool { return r.Available != 0 })
	case len(t.answer.Rows) == 0:
		return t.exceedsOwners(owner, lines)
	default:
		return t.ownerMayHave(owner, lines) && t.short(lines, 0)
	}
}

// mayLose loses a payment of which nobody was told, if something may have been missing.
func (t *step) mayLose() bool {
	if !t.comesLate() {
		return false
	}
	lines, owner := t.model.holds[t.call.Hold], t.model.owners[t.call.Hold]
	_, most := t.ownerUnits(owner, t.call.From)
	_, perOwner := t.limits()
	missing := t.follower(t.call.Hold) != 0 || !t.areForSale(lines) ||
		owner != 0 && perOwner != 0 && most+units(lines) > perOwner ||
		slices.ContainsFunc(lines, func(l Line) bool {
			_, most := t.held(l.Row, t.call.From)
			return t.total(l.Row)-most < l.Quantity
		})
	t.setPayment(t.call.Payment, paymentLostUntold)
	return missing
}

// back is what became of the units of a row's line: 0 while they aren't back, and then wentTo.
func (t *step) back(row int) *byte {
	return &t.part(t.call.Hold)[holdSize+Payments*t.model.paymentSize()+row]
}

// wentTo is the mark of units that went to a shelf.
func wentTo(shelf Shelf) byte { return byte(shelf) + 1 }

// returns brings back the units of one line of a confirmed hold.
func (t *step) returns() bool {
	row := t.call.Lines[0].Row
	status, _ := t.hold(t.call.Hold)
	if status != Confirmed || t.isBack(row) {
		return false
	}
	*t.back(row) = wentTo(t.call.Shelf)
	if t.call.Shelf != NoShelf {
		t.add(t.call.Shelf.row(), t.call.Lines[0].Quantity)
	}
	return true
}

func (t *step) isBack(row int) bool { return *t.back(row) != 0 }

// returned explains the success of a return, the first or a repeated one.
func (t *step) returned() bool {
	went := *t.back(t.call.Lines[0].Row)
	return t.answer.Status == Confirmed && (went == wentTo(t.call.Shelf) || t.returns())
}

func (t *step) limits() (perHold, perOwner int) { return int(t.state[0]), int(t.state[1]) }

func (t *step) setLimits(perHold, perOwner int) {
	t.state[0], t.state[1] = byte(perHold), byte(perOwner)
}

func units(lines []Line) (sum int) {
	for _, line := range lines {
		sum += line.Quantity
	}
	return sum
}

func (t *step) areForSale(lines []Line) bool {
	return !slices.ContainsFunc(lines, func(l Line) bool { return !t.forSale(l.Row) })
}

// ownerUnits counts what an owner has at the instant, at least and at most: the units of live and
// confirmed holds, less those that are back (I12).
func (t *step) ownerUnits(owner int, at Instant) (least, most int) {
	for hold, lines := range t.model.holds {
		if t.model.owners[hold] != owner {
			continue
		}
		if status, _ := t.hold(hold); status == Confirmed {
			for _, line := range lines {
				if !t.of(hold).isBack(line.Row) {
					least += line.Quantity
					most += line.Quantity
				}
			}
			continue
		}
		surely, perhaps := t.lives(hold, at)
		if surely {
			least += units(lines)
		}
		if perhaps {
			most += units(lines)
		}
	}
	return least, most
}

// ownerMayHave reports whether the lines may have been found to be within the owner's limit.
func (t *step) ownerMayHave(owner int, lines []Line) bool {
	_, perOwner := t.limits()
	if owner == 0 || perOwner == 0 {
		return true
	}
	least, _ := t.ownerUnits(owner, t.call.To)
	return least+units(lines) <= perOwner
}

// isWithinLimits reports whether a reserve may have been found to be within all limits.
func (t *step) isWithinLimits() bool {
	perHold, perOwner := t.limits()
	t.leaveOut(t.call.Replaces)
	fits := units(t.call.Lines) <= t.model.MaxUnits && len(tooLarge(t.call.Lines, perHold)) == 0 &&
		(perOwner == 0 || t.call.Owner != 0) && t.ownerMayHave(t.call.Owner, t.call.Lines)
	t.leaveOut(0)
	return fits
}

// tooLarge are the lines with more units than a hold of the product may have.
func tooLarge(lines []Line, perHold int) (excess []Excess) {
	for _, line := range lines {
		if perHold > 0 && line.Quantity > perHold {
			excess = append(excess, Excess{Max: perHold, Requested: line.Quantity})
		}
	}
	return excess
}

// limited explains a refusal because of a limit.
func (t *step) limited() bool {
	perHold, perOwner := t.limits()
	large := tooLarge(t.call.Lines, perHold)
	isMany := units(t.call.Lines) > t.model.MaxUnits
	if t.call.Verb != Reserve || t.answer.Outcome == TooMany || isMany {
		return t.call.Verb == Reserve && t.answer.Outcome == TooMany && isMany
	}
	if !t.refusesLines() || !t.areForSale(t.call.Lines) {
		return false
	}
	switch {
	case t.answer.Outcome == NeedsOwner:
		return len(large) == 0 && perOwner > 0 && t.call.Owner == 0
	case len(large) > 0:
		byUnits := func(a, b Excess) int { return cmp.Compare(a.Requested, b.Requested) }
		return slices.Equal(slices.SortedFunc(slices.Values(large), byUnits),
			slices.SortedFunc(slices.Values(t.answer.Limits), byUnits))
	}
	t.leaveOut(t.call.Replaces)
	defer t.leaveOut(0)
	return t.exceedsOwners(t.call.Owner, t.call.Lines)
}

// exceedsOwners reports whether the answer names the owner's limit, and what the owner had at some
// instant of the call.
func (t *step) exceedsOwners(owner int, lines []Line) bool {
	_, perOwner := t.limits()
	if owner == 0 || perOwner == 0 || len(t.answer.Limits) != 1 {
		return false
	}
	excess := t.answer.Limits[0]
	used := excess.Used
	at := []Instant{t.call.From}
	for hold := range t.model.holds {
		if _, end := t.hold(hold); t.call.From < end && end <= t.call.To {
			at = append(at, end)
		}
	}
	return excess == Excess{perOwner, used, units(lines)} && used+units(lines) > perOwner &&
		slices.ContainsFunc(at, func(at Instant) bool {
			least, most := t.ownerUnits(owner, at)
			return least <= used && used <= most
		})
}

func (t *step) describePayments(b *strings.Builder) {
	for n := 1; n <= Payments; n++ {
		if p := t.payment(n); p != paymentUnknown {
			fmt.Fprintf(b, ", payment %d %s", n, p)
		}
	}
	if follower := t.follower(t.call.Hold); follower != 0 {
		fmt.Fprintf(b, ", followed by %d", follower.hold())
	}
	if owner := t.model.owners[t.call.Hold]; owner != 0 {
		fmt.Fprintf(b, ", of owner %d", owner)
	}
	b.WriteString("; ")
}
