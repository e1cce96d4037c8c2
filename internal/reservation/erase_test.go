package reservation_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/allo/reservations/internal/principal"
	"github.com/allo/reservations/internal/reservation"
)

// places lists the tables of the database that have a word in any row.
func (f *fixture) places(word string) (found []string) {
	f.t.Helper()
	rows, err := f.Admin.Query(f.Context(), `
SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND n.nspname = 'public'`)
	if err != nil {
		f.t.Fatal(err)
	}
	tables, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		f.t.Fatal(err)
	}
	for _, table := range tables {
		n := queryOne[int](f, fmt.Sprintf("SELECT count(*) FROM %s t WHERE strpos(t::text, $1) > 0",
			pgx.Identifier{table}.Sanitize()), word)
		if n > 0 {
			found = append(found, table)
		}
	}
	slices.Sort(found)
	return found
}

// traceOwner leaves an owner's traces wherever one can: answers under keys, a hold that was
// replaced, payments in time and too late, returns, an archived hold, ticks, events and audits.
func traceOwner(f *fixture, owner, reference string) {
	f.t.Helper()
	ctx := f.Context()
	s := archiver(f.own)
	rows := f.stocks(100, 100)
	must := func(answer reservation.Answer, err error) uuid.UUID {
		f.t.Helper()
		if err != nil {
			f.t.Fatal(err)
		}
		return answer.Hold.ID
	}
	reserve := func(key string, replaces *uuid.UUID, lines ...reservation.Line) uuid.UUID {
		f.t.Helper()
		return must(s.Reserve(ctx, reservation.Request{
			Lines: lines, Owner: owner, Reference: reference, Replaces: replaces, Key: key,
		}))
	}
	archived := reserve("", nil, rows...)
	must(s.Confirm(ctx, archived, "key a"))
	f.age(old)
	if result, err := s.Sweep(ctx); err != nil || result.Archived == 0 {
		f.t.Fatalf("Sweep() = %+v, %v, want a hold archived", result, err)
	}
	replaced := reserve("key b", nil, rows[0])
	renewed := reserve("key c", &replaced, rows...)
	must(s.StartPayment(ctx, renewed, "p", time.Minute, "key d"))
	must(s.FailPayment(ctx, renewed, "p", nil, "key e"))
	must(s.ConfirmPayment(ctx, renewed, "q", true, "key f"))
	late := reserve("key g", nil, rows[1])
	f.Kill(late)
	must(s.ConfirmPayment(ctx, late, "q", true, "key h"))
	must(s.Release(ctx, reserve("key i", nil, rows[0]), "key j"))
	reserve("", nil, rows[0])
	f.Exec(tickSQL)
	f.mustAuditNew()
	f.mustAuditFull()
}

func TestAnErasedOwnerIsNowhere(t *testing.T) {
	t.Parallel()
	f := newFixture(t, 0)
	s := newService(f.own)
	const owner, reference = "Ann Oldcastle", "order 4711 of Ann"
	traceOwner(f, owner, reference)
	other, err := s.Reserve(f.Context(), reservation.Request{
		Lines: []reservation.Line{f.stock(1)}, Owner: "Bob", Reference: "order of Bob",
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, word := range []string{owner, reference} {
		if got := f.places(word); !slices.Equal(got, []string{"hold_parties"}) {
			t.Errorf("%q stands in %v, want it in hold_parties alone", word, got)
		}
	}
	const allHolds = "SELECT md5(string_agg(r::text, ',' ORDER BY r.id)) FROM reservations r"
	holds := queryOne[string](f, allHolds)

	erased, err := s.EraseOwner(f.Context(), owner, "key k")

	if err != nil || erased != (reservation.Erased{Holds: 7}) {
		t.Errorf("EraseOwner() = %+v, %v, want all 7 holds", erased, err)
	}
	for _, word := range []string{owner, reference} {
		if got := f.places(word); len(got) != 0 {
			t.Errorf("after the erasure %q stands in %v", word, got)
		}
	}
	if queryOne[string](f, allHolds) != holds {
		t.Error("the erasure has changed a hold")
	}
	again, err := s.EraseOwner(f.Context(), owner, "")
	if err != nil || again != (reservation.Erased{}) {
		t.Errorf("EraseOwner() again = %+v, %v, want nothing", again, err)
	}
	if view, err := s.Get(f.Context(), other.Hold.ID); err != nil || view.Hold.Owner != "Bob" {
		t.Errorf("the hold of another owner is %+v, %v", view.Hold, err)
	}
	f.mustAudit(t)
}

// A search that finds nothing proves nothing: it must find an answer that names the owner.
func TestAnAnswerWithAnOwnerIsFound(t *testing.T) {
	t.Parallel()
	f := newFixture(t, 0)
	f.mutate("hold_json", "_answer := to_jsonb(_hold);", "_answer := with_party(to_jsonb(_hold));")
	traceOwner(f, "Ann", "order 1")
	if got := f.places("Ann"); !slices.Equal(got, []string{"hold_parties", "idempotency_keys"}) {
		t.Errorf("Ann stands in %v, want it in the stored answers too", got)
	}
}

func TestAnErasureIsBoundedAndGoesOn(t *testing.T) {
	t.Parallel()
	const holds = 20_000 + 1500
	f := newFixture(t, 0)
	s := newService(f.own)
	f.Exec(`
INSERT INTO hold_parties (hold_id, owner, reference)
SELECT gen_random_uuid(), 'ann', n::text FROM generate_series(1, $1::integer) n`, holds)
	for _, want := range []reservation.Erased{
		{Holds: 20_000, More: true},
		{Holds: 1500},
		{},
	} {
		got, err := s.EraseOwner(f.Context(), "ann", "")
		if err != nil || got != want {
			t.Errorf("EraseOwner() = %+v, %v, want %+v", got, err, want)
		}
	}
	for _, owner := range []string{"", "a\x00b", strings.Repeat("a", 256), "\xff"} {
		var invalid *reservation.InvalidError
		if _, err := s.EraseOwner(f.Context(), owner, ""); !errors.As(err, &invalid) {
			t.Errorf("EraseOwner(%q) = %v, want it invalid", owner, err)
		}
	}
}

// An erasure that is killed leaves whole batches, and the next call goes on.
func TestAnErasureThatIsKilledGoesOn(t *testing.T) {
	t.Parallel()
	f := newFixture(t, 1)
	f.Exec(`
INSERT INTO hold_parties (hold_id, owner)
SELECT gen_random_uuid(), 'ann' FROM generate_series(1, 3500)`)
	last := "SELECT FROM hold_parties WHERE hold_id = " +
		"(SELECT max(hold_id::text)::uuid FROM hold_parties) FOR UPDATE"
	unlock := f.Lock(last)
	var first reservation.Erased
	var err error
	together(2, func(i int) {
		if i == 0 {
			first, err = f.services()[0].EraseOwner(f.Context(), "ann", "")
			return
		}
		f.WaitUntil(waitingSQL, 1)
		f.WaitUntil(terminateSQL)
	})
	unlock()
	left := queryOne[int](f, "SELECT count(*) FROM hold_parties")
	if err == nil || first.Holds != 3000 || !first.More || left != 500 {
		t.Errorf("EraseOwner() = %+v, %v, and %d are left, want 3000 erased", first, err, left)
	}
	second, err := newService(f.own).EraseOwner(f.Context(), "ann", "")
	if err != nil || second != (reservation.Erased{Holds: 500}) {
		t.Errorf("EraseOwner() = %+v, %v, want the rest", second, err)
	}
}

// erasedBesideALatePayment erases an owner while a late payment copies the owner to a successor.
// It returns how many rows name the owner when both are done.
func erasedBesideALatePayment(f *fixture) int {
	f.t.Helper()
	ctx, s := f.Context(), newService(f.own)
	row := f.stock(10)
	answer, err := s.Reserve(ctx, reservation.Request{Lines: []reservation.Line{row}, Owner: "ann"})
	if err != nil {
		f.t.Fatal(err)
	}
	f.Kill(answer.Hold.ID)
	unlock := f.Lock("SELECT FROM inventory FOR UPDATE")
	services := f.services()
	together(3, func(i int) {
		switch i {
		case 0:
			_, err := services[0].ConfirmPayment(ctx, answer.Hold.ID, "p", true, "")
			if err != nil {
				f.t.Errorf("ConfirmPayment() = %v", err)
			}
		case 1:
			f.WaitUntil(waitingSQL, 1)
			if _, err := services[1].EraseOwner(ctx, "ann", ""); err != nil {
				f.t.Errorf("EraseOwner() = %v", err)
			}
		default:
			f.WaitUntil(waitingSQL+" OR (SELECT count(*) = 0 FROM hold_parties)", 2)
			unlock()
		}
	})
	return queryOne[int](f, "SELECT count(*) FROM hold_parties")
}

func TestAnErasureAndALatePaymentLeaveNoOwner(t *testing.T) {
	t.Parallel()
	f := newFixture(t, 2)
	if left := erasedBesideALatePayment(f); left != 0 {
		t.Errorf("%d rows name the owner after the erasure, want 0", left)
	}
	f.mustAudit(t)
}

func TestAnErasureThatWaitsForNoPaymentLeavesTheOwner(t *testing.T) {
	t.Parallel()
	f := newFixture(t, 2)
	f.mutate("lock_owner_of_hold", "PERFORM pg_advisory_xact_lock_shared", "PERFORM hashint8")
	if left := erasedBesideALatePayment(f); left == 0 {
		t.Error("no row names the owner, want the successor's")
	}
}

func TestOneKeyMakesOneErasure(t *testing.T) {
	t.Parallel()
	mustHold(t, someCallers, raceOfOneKeyToErase)
}

func TestOneKeyMakesManyErasuresWithoutItsAnswer(t *testing.T) {
	t.Parallel()
	for name, mutation := range map[string][2]string{
		"the claim": {
			"FROM claim_key(_key, _hash) c",
			"FROM (SELECT NULL::text, NULL::jsonb) c (outcome, answer)",
		},
		"the keep": {"PERFORM keep_answer(_key, _hash, answer);", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			mustBreak(t, someCallers, "I6", func(f *fixture) {
				f.mutate("erase_owner", mutation[0], mutation[1])
			}, raceOfOneKeyToErase)
		})
	}
}

// raceOfOneKeyToErase lets every caller erase one owner under one key, in several transactions
// each. All must get the answer of the one that ended first. A later repeat erases nothing,
// whatever the owner has by then. A call under the key for another owner is refused, and another
// principal's key of the same name is another key.
func raceOfOneKeyToErase(ctx context.Context, f *fixture, r *report) {
	const add = `
INSERT INTO hold_parties (hold_id, owner, reference)
SELECT gen_random_uuid(), $1, 'order of ' || $1 FROM generate_series(1, $2::integer)`
	const left = "SELECT count(*) FROM hold_parties WHERE owner = $1"
	owner, key := "owner "+uuid.NewString(), uuid.NewString()
	f.Exec(add, owner, 3500)
	services := f.services()
	answers, errs := make([]reservation.Erased, len(services)), make([]error, len(services))

	together(len(services), func(i int) {
		answers[i], errs[i] = services[i].EraseOwner(ctx, owner, key)
	})

	first, holds := 0, answers[0].Holds
	for i, answer := range answers {
		r.check(errs[i] == nil && answer.Holds == holds && !answer.More, "I6",
			"EraseOwner() under one key = %+v, %v, want %d holds", answer, errs[i], holds)
		if !answer.Replayed {
			first++
		}
	}
	r.check(first == 1, "I6", "%d answers of one key aren't replays, want 1", first)
	n := queryOne[int](f, left, owner)
	r.check(n == 0, "I6", "%d holds still have the owner", n)

	f.Exec(add, owner, 1)
	again, err := services[0].EraseOwner(ctx, owner, key)
	want := reservation.Erased{Holds: holds, Replayed: true}
	n = queryOne[int](f, left, owner)
	r.check(err == nil && again == want && n == 1, "I6",
		"EraseOwner() again = %+v, %v, want %+v, and the new hold's owner kept: %d", again, err, want, n)
	_, err = services[0].EraseOwner(ctx, owner+"'s", key)
	r.check(errors.Is(err, reservation.ErrKeyReused), "I6", "the key for another owner = %v", err)
	other := principal.With(ctx, principal.Principal{Kind: principal.JWT, ID: "another"})
	again, err = services[0].EraseOwner(other, owner, key)
	r.check(err == nil && again == reservation.Erased{Holds: 1}, "I6",
		"EraseOwner() of another principal = %+v, %v, want the new hold", again, err)
	n = len(f.places(owner))
	r.check(n == 0, "I6", "%d tables still have the owner", n)
}
