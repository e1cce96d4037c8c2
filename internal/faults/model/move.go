package model

import (
	"encoding/binary"
	"slices"
)

// Document is a document of movements. Its lines are of different stock rows.
type Document struct {
	Moves []MoveLine
	// Clamp says what becomes of a line that would leave less than is held: down to what is held,
	// or refused.
	Clamp bool
	// Together makes one transaction of the lines.
	Together bool
}

// MoveLine is a line of a document.
type MoveLine struct {
	// Number numbers the lines of all documents. A document that is sent again has the same numbers.
	Number int
	Row    int
	// Units are by how much the total changes. For a Count they are what was found on the shelf.
	Units int
	Count bool
	// AsOf is the newest movement at the time of the count, or 0 for a count of now. Base is the
	// total after that movement, which an earlier answer told.
	AsOf, Base int
}

// MoveOutcome is what became of a line.
type MoveOutcome string

// The outcomes of a line, and of a line that was refused: why.
const (
	Applied    MoveOutcome = "applied"
	Unchanged  MoveOutcome = "unchanged"
	Replayed   MoveOutcome = "replayed"
	Held       MoveOutcome = "held"        // less would be left than is held
	SeqUnknown MoveOutcome = "seq unknown" // there is no movement AsOf
	Reused     MoveOutcome = "reused"      // the line was applied with other numbers
)

func (o MoveOutcome) refused() bool { return o == Held || o == SeqUnknown || o == Reused }

// Moved is the result of a line: the movement, or the units that are Held.
type Moved struct {
	Outcome           MoveOutcome
	Delta, Total, Seq int
	Shortfall         int
	Held              int
}

// lineSize is the size of a line in the state: whether it was applied and is a count, the line's
// numbers, and its movement.
const lineSize = 1 + 6*4

// appliedLine is a line that was applied, with its movement.
type appliedLine struct {
	Line  MoveLine
	Moved Moved
}

func (t *step) lineBytes(number int) []byte {
	return t.state[t.model.holdAt(len(t.model.holds))+number*lineSize:][:lineSize]
}

// wasApplied returns a line as it was applied.
func (t *step) wasApplied(line MoveLine) (was appliedLine, applied bool) {
	b := t.lineBytes(line.Number)
	number := func(n int) int { return int(int32(binary.BigEndian.Uint32(b[1+4*n:]))) }
	was.Line = MoveLine{
		Number: line.Number, Row: line.Row, Units: number(0), AsOf: number(1), Count: b[0] == 2,
	}
	was.Moved = Moved{Delta: number(2), Total: number(3), Seq: number(4), Shortfall: number(5)}
	return was, b[0] != 0
}

// apply writes the movement of a line.
func (t *step) apply(line MoveLine, moved Moved) {
	b := t.lineBytes(line.Number)
	b[0] = 1
	if line.Count {
		b[0] = 2
	}
	for n, value := range []int{
		line.Units, line.AsOf, moved.Delta, moved.Total, moved.Seq, moved.Shortfall,
	} {
		binary.BigEndian.PutUint32(b[1+4*n:], uint32(value))
	}
	t.setStock(line.Row, moved.Total, moved.Seq)
}

// target is the total that a line asks for.
func (t *step) target(line MoveLine) int {
	switch {
	case !line.Count:
		return t.total(line.Row) + line.Units
	case line.AsOf > 0:
		return t.total(line.Row) + line.Units - line.Base
	default:
		return line.Units
	}
}

// mayMove applies a document whose answer nobody received. Its lines are one transaction, and none
// is clamped.
func (t *step) mayMove() bool {
	for _, line := range t.call.Document.Moves {
		if _, applied := t.wasApplied(line); applied || !t.leaves(line, t.target(line)) {
			return false
		}
		t.apply(line, t.movement(line, t.target(line)))
	}
	return true
}

// leaves reports whether the row may have the total at some instant of the call: not less than is
// held, I1.
func (t *step) leaves(line MoveLine, total int) bool {
	least, _ := t.held(line.Row, t.call.To)
	return total >= least && line.AsOf <= t.seq(line.Row)
}

// movement is the movement of a line that leads to the total.
func (t *step) movement(line MoveLine, total int) Moved {
	m := Moved{
		Outcome: Applied, Delta: total - t.total(line.Row), Total: total, Seq: t.seq(line.Row) + 1,
		Shortfall: total - t.target(line),
	}
	if m.Delta == 0 {
		m.Outcome = Unchanged
	}
	return m
}

// moved explains the answer to a document.
func (t *step) moved() bool {
	lines, results := t.call.Document.Moves, t.answer.Moved
	if len(lines) != len(results) {
		return false
	}
	refused := slices.ContainsFunc(results, func(r Moved) bool { return r.Outcome.refused() })
	undone := t.answer.Outcome == Refused
	if undone != (refused && t.call.Document.Together) {
		return false
	}
	for n, line := range lines {
		switch r := results[n]; {
		case r.Outcome.refused():
			if !t.refuses(line, r) {
				return false
			}
		case r.Outcome == Replayed:
			if !t.replays(line, r) {
				return false
			}
		case undone:
			if _, applied := t.wasApplied(line); applied || !t.mayApply(line) {
				return false
			}
		case !t.applies(line, r):
			return false
		}
	}
	return true
}

// sameNumbers reports whether a line asks for the same as the one that was applied.
func (was appliedLine) sameNumbers(line MoveLine) bool {
	line.Base = 0
	return was.Line == line
}

func (t *step) replays(line MoveLine, r Moved) bool {
	was, applied := t.wasApplied(line)
	r.Outcome = ""
	return applied && was.sameNumbers(line) && r == was.Moved
}

// mayApply reports whether a line could have been applied.
func (t *step) mayApply(line MoveLine) bool {
	return line.AsOf <= t.seq(line.Row) &&
		(t.call.Document.Clamp || t.leaves(line, t.target(line)))
}

// refuses explains why a line was refused.
func (t *step) refuses(line MoveLine, r Moved) bool {
	was, applied := t.wasApplied(line)
	switch r.Outcome {
	case Reused:
		return applied && !was.sameNumbers(line)
	case SeqUnknown:
		return !applied && line.AsOf > t.seq(line.Row)
	default:
		return !applied && line.AsOf <= t.seq(line.Row) && !t.call.Document.Clamp &&
			t.target(line) < r.Held && t.wasHeld(line.Row, r.Held)
	}
}

// applies explains a movement: it leads to what the line asks for or, clamped, to what was held at
// some instant of the call.
func (t *step) applies(line MoveLine, r Moved) bool {
	target := t.target(line)
	if _, applied := t.wasApplied(line); applied || !t.leaves(line, r.Total) ||
		r != t.movement(line, r.Total) {
		return false
	}
	if r.Total != target &&
		(!t.call.Document.Clamp || r.Total < target || !t.wasHeld(line.Row, r.Total)) {
		return false
	}
	t.apply(line, r)
	return true
}

// wasHeld reports whether so many units of the row were held at some instant of the call.
func (t *step) wasHeld(row, units int) bool { return t.wasAvailable(row, t.total(row)-units) }
