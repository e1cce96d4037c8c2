package reservation

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
)

// The kinds of audits that keep their state in the database.
const (
	newAudit  = "NEW"
	fullAudit = "FULL"
)

// auditRounds bounds the audits of one call of AuditNew: the end of the last one, and its own.
const auditRounds = 2

// endOfParts is the place of an audit that has read all parts.
const endOfParts = "end"

// auditRun is an audit that is under way, as begin_audit answers it: its number, the part and the
// key to go on after, since when keys and returns count as new, and the snapshots between which a
// row of the ledger is new. NextSeen is nil when a routine of the previous release began it.
type auditRun struct {
	Run         int64
	Part, After string
	Since       pgtype.Timestamptz
	Seen        string
	NextSeen    *string
}

// next is the snapshot up to which rows of the ledger are new. Without one, none is.
func (r auditRun) next() string {
	if r.NextSeen == nil {
		return r.Seen
	}
	return *r.NextSeen
}

// FullAudit is what a call of AuditFull did.
type FullAudit struct {
	// Found are the violations in the slices that this call read.
	Found []Violation
	// Complete is true when this call read the last slice.
	Complete bool
	// All counts the violations of the complete audit, the earlier calls' included, and First has
	// up to twenty of them. Both are empty until it is complete.
	All   int
	First []Violation
}

// AuditNew checks what is new since the last audit: the movements behind the closings, the keys,
// the holds that were made or have new rows in the ledger, and a sample of the older ones. It also
// checks all that is live, and each stock row's numbers. So it costs what the time since then did,
// however much history there is. It reads where Audit reads, and closes the stock rows that it
// verified.
//
// An error means that it is unfinished. It then returns what it found, and the next call goes on
// where this one was cut off. Any number of calls may run at once: each finds what is new.
// Every call reports a violation again until the row is repaired.
//
// New is what this service did since. AuditFull finds rows that somebody changes by SQL long after
// they were written, and the holds that were resolved before there was a ledger. A jump of the
// clock hides no hold, as the ledger is read by the ids of transactions. After a jump back of d,
// the keys and the returns of the next d count as old.
func (s *Service) AuditNew(ctx context.Context) (found []Violation, err error) {
	for range auditRounds {
		violations, resumed, err := s.auditNew(ctx)
		found = append(found, violations...)
		if err != nil {
			return found, fmt.Errorf("audit: %w", err)
		}
		if !resumed {
			break
		}
	}
	return found, nil
}

// auditNew goes on with the audit that is under way, or makes one.
func (s *Service) auditNew(ctx context.Context) (found []Violation, resumed bool, err error) {
	sample, err := s.startOfSample(ctx)
	if err != nil {
		return nil, false, err
	}
	run, err := s.beginAudit(ctx, newAudit)
	if err != nil {
		return nil, false, err
	}
	newerThan := firstID(run.Since.Time.Add(-max(s.opts.MaxHold, s.opts.MaxPaymentHold)))
	w := walk{
		service: s, kind: newAudit, run: run, parts: newParts(run, newerThan, sample),
	}
	whole := w.all(ctx)
	if whole || len(w.errs) > 0 && !cutOff(ctx) {
		_, err := s.endAudit(ctx, w)
		w.fail(err)
	}
	return w.found, run.Part != "", errors.Join(w.errs...)
}

// AuditFull goes on with the full audit, or begins one when none is under way. A full audit reads
// all that Audit reads but the sums of whole tables, and looks at each sale and each confirmed hold
// instead. It stops at the context's deadline, and the next call goes on there. When two calls run
// at once, one of them stops, so that each slice is read once.
//
// An error means that a slice couldn't be read. The next call tries it again.
func (s *Service) AuditFull(ctx context.Context) (FullAudit, error) {
	run, err := s.beginAudit(ctx, fullAudit)
	if err != nil {
		return FullAudit{}, fmt.Errorf("full audit: %w", err)
	}
	w := walk{service: s, kind: fullAudit, run: run, parts: fullParts(), strict: true}
	whole := w.all(ctx)
	audit := FullAudit{Found: w.found}
	if whole {
		end, err := s.endAudit(ctx, w)
		w.fail(err)
		if end != nil {
			audit.Complete, audit.All, audit.First = true, end.Violations, end.First
		}
	}
	if cutOff(ctx) {
		return audit, nil
	}
	if err := errors.Join(w.errs...); err != nil {
		return audit, fmt.Errorf("full audit: %w", err)
	}
	return audit, nil
}

const fullAuditSQL = `SELECT began IS NOT NULL FROM audit_state WHERE kind = 'FULL'`

// FullAuditUnderWay reports whether AuditFull has begun an audit that isn't complete. It returns
// ErrBusy or ErrUnavailable.
func (s *Service) FullAuditUnderWay(ctx context.Context) (bool, error) {
	underWay, err := queryRow(ctx, s, pgx.RowTo[bool], fullAuditSQL)
	if err != nil {
		return false, fmt.Errorf("look for a full audit: %w", err)
	}
	return underWay, nil
}

// walk goes through the parts of an audit, slice by slice, and stores how far it is.
type walk struct {
	service *Service
	kind    string
	run     auditRun
	parts   []part
	// strict makes it stop at the first slice that can't be read, or that another call has passed.
	strict bool
	found  []Violation
	// missed counts the violations of slices that another call passed.
	missed int
	errs   []error
	// lost is true when the place isn't stored any more: a slice failed, or another call is further.
	lost bool
}

func (w *walk) fail(err error) {
	if err != nil {
		w.errs = append(w.errs, err)
		w.lost = true
	}
}

// all reads the slices that are left. It reports whether it came to the end and read all of them.
func (w *walk) all(ctx context.Context) (whole bool) {
	first := 0
	switch i := slices.IndexFunc(w.parts, func(p part) bool { return p.name == w.run.Part }); {
	case w.run.Part == endOfParts:
		first = len(w.parts)
	case i >= 0:
		first = i
		w.parts[i].after = w.run.After
	}
	for i := first; i < len(w.parts); i++ {
		next := part{name: endOfParts}
		if i+1 < len(w.parts) {
			next = w.parts[i+1]
		}
		if !w.one(ctx, w.parts[i], next) {
			return false
		}
	}
	return len(w.errs) == 0
}

// one reads the slices of a part. It reports whether to go on with the next one.
func (w *walk) one(ctx context.Context, p, next part) bool {
	left := slices.Repeat([]int{maxViolations}, len(p.checks))
	leftToClose := maxViolations
	for after := p.after; ; {
		found, last, err := w.service.readSlice(ctx, p, after, left)
		if err == nil && p.closes {
			var violations []Violation
			violations, err = w.service.closeSlice(ctx, p, after, last, leftToClose)
			found = append(found, violations...)
			leftToClose -= len(violations)
		}
		if err != nil {
			w.fail(err)
			if w.strict {
				return false // the next call reads the slice again
			}
			w.found = append(w.found, found...)
			return !cutOff(ctx)
		}
		isLast := last == p.last || p.once
		place := part{name: p.name, after: last}
		if isLast {
			place = next
		}
		if !w.pass(ctx, place, found) {
			return false
		}
		if isLast {
			return true
		}
		after = last
	}
}

const endSliceSQL = `SELECT pass_slice($1, $2, $3, $4, $5, $6, $7, $8::text::jsonb)`

// pass stores that the audit goes on at a place, and counts what the slice before it has. It
// reports whether to go on.
func (w *walk) pass(ctx context.Context, place part, found []Violation) bool {
	passed := false
	if !w.lost {
		first, err := json.Marshal(append([]Violation{}, found...))
		if err == nil {
			passed, err = queryRow(ctx, w.service, pgx.RowTo[bool], endSliceSQL, w.kind, w.run.Run,
				w.run.Part, w.run.After, place.name, place.after, len(found), string(first))
		}
		w.fail(err)
		w.lost = !passed
		w.run.Part, w.run.After = place.name, place.after
	}
	if w.strict && !passed {
		return false
	}
	if !passed {
		w.missed += len(found)
	}
	w.found = append(w.found, found...)
	return true
}

// cutOff reports whether a call has come to its deadline.
func cutOff(ctx context.Context) bool {
	const soon = 50 * time.Millisecond // the server may end a statement before this clock says so
	deadline, ok := ctx.Deadline()
	return ctx.Err() != nil || ok && time.Until(deadline) < soon
}

// sampleSQL picks a random id between the oldest and the newest hold. A UUIDv7 begins with the
// milliseconds since 1970, so it is a random moment of the history.
const sampleSQL = `
SELECT coalesce((lpad(to_hex(h.oldest + floor(random() * (h.newest - h.oldest))::bigint), 12, '0')
                 || repeat('0', 20))::uuid,
                '00000000-0000-0000-0000-000000000000')::text
FROM (SELECT (SELECT ('x' || left(replace(r.id::text, '-', ''), 12))::bit(48)::bigint
              FROM reservations r ORDER BY r.id LIMIT 1) AS oldest,
             (SELECT ('x' || left(replace(r.id::text, '-', ''), 12))::bit(48)::bigint
              FROM reservations r ORDER BY r.id DESC LIMIT 1) AS newest) h`

func (s *Service) startOfSample(ctx context.Context) (id string, err error) {
	err = s.read(ctx, part{}, func(tx pgx.Tx) error {
		return tx.QueryRow(ctx, sampleSQL).Scan(&id)
	})
	if err != nil {
		return "", fmt.Errorf("pick a sample: %w", err)
	}
	return id, nil
}

const beginAuditSQL = `SELECT run, part, after, since, seen, next_seen FROM begin_audit($1)`

func (s *Service) beginAudit(ctx context.Context, kind string) (auditRun, error) {
	run, err := queryRow(ctx, s, pgx.RowToStructByPos[auditRun], beginAuditSQL, kind)
	if err != nil {
		return run, fmt.Errorf("begin: %w", err)
	}
	return run, nil
}

const endAuditSQL = `SELECT violations, found FROM end_audit($1, $2, $3, $4, $5)`

// auditEnd is the answer of endAuditSQL: how many violations an audit has, and the first of them.
type auditEnd struct {
	Violations int
	First      []Violation
}

// endAudit ends the audit of a walk. It returns nil when another call has done so.
func (s *Service) endAudit(ctx context.Context, w walk) (*auditEnd, error) {
	ends, err := query(ctx, s, pgx.RowToStructByPos[auditEnd], endAuditSQL, w.kind, w.run.Run,
		len(w.errs) == 0, w.missed, w.run.NextSeen)
	if err != nil || len(ends) == 0 {
		return nil, err
	}
	return &ends[0], nil
}

// firstID is the least id of a hold that is made at a time, or after it: a UUIDv7 begins with the
// milliseconds since 1970.
func firstID(at time.Time) (id uuid.UUID) {
	const idleBits = 16
	binary.BigEndian.PutUint64(id[:], uint64(max(0, at.UnixMilli()))<<idleBits)
	return id
}
