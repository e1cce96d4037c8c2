package httpapi_test

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/allo/reservations/internal/events/outbox"
	"github.com/allo/reservations/internal/reservation"
)

// eventPage is a page of events in the contract's form.
type eventPage struct {
	Events []event
	Next   string
}

type event struct {
	ID, Type, Subject, Sequence string
	Data                        struct {
		Reservation json.RawMessage
		Cause       string
		Seq, Delta  int
		Kind        string
	}
}

// tick makes what is committed visible to GET /api/events.
func (s stockedClient) tick() { s.db.Exec("SELECT take_tick()") }

func (s stockedClient) events(t *testing.T, query string) eventPage {
	t.Helper()
	return decode[eventPage](t, s.get("/api/events?"+query).want(t, http.StatusOK, ""))
}

// An event has the hold as a read showed it when the event happened.
func TestAnEventShowsTheHoldAsAReadDid(t *testing.T) {
	t.Parallel()
	s := newStockedClient(t)
	read := func(path string) string {
		t.Helper()
		shown := string(decode[struct{ Reservation json.RawMessage }](t,
			s.get(path).want(t, http.StatusOK, "")).Reservation)
		state, ok := strings.CutSuffix(shown,
			`,"payment":null,"reference":null,"replaces":null,"replacedBy":null}`)
		if !ok {
			t.Errorf("the hold reads as %s, want it without a name or a relation", shown)
		}
		return state + "}" // an event has neither
	}
	var want []string
	single := s.reserve(t, reserveBody(s.mug, s.east, 2))
	cart := s.reserve(t, cartBody(reserveBody(s.mug, s.east, 1), reserveBody(s.lamp, s.east, 1)))
	want = append(want, read(single), read(cart))
	s.post(single+"/extend", `{"ttlSeconds":600}`).want(t, http.StatusOK, "")
	want = append(want, read(single))
	s.post(single+"/confirm", "").want(t, http.StatusOK, "")
	s.post(cart+"/release", "").want(t, http.StatusOK, "")
	want = append(want, read(single), read(cart))
	s.tick()

	page := s.events(t, "types=allo.reservation.held,allo.reservation.extended,"+
		"allo.reservation.confirmed,allo.reservation.released")
	var got []string
	for _, e := range page.Events {
		got = append(got, string(e.Data.Reservation))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("reads (-) and events (+) tell of the holds differently:\n%s", diff)
	}
}

// A reader who follows next sees each event once, in order, also by types, and asks again at the
// end.
func TestEventsAreReadPageAfterPage(t *testing.T) {
	t.Parallel()
	s := newStockedClient(t)
	none := s.events(t, "")
	if len(none.Events) != 0 || none.Next == "" {
		t.Errorf("before the first tick the page is %+v, want an empty one with a cursor", none)
	}
	hold := s.reserve(t, reserveBody(s.mug, s.east, 2))
	s.tick()
	s.post(hold+"/confirm", "").want(t, http.StatusOK, "")
	s.tick()
	all := s.events(t, "limit=500")
	follow := func(query string) (ids []string) {
		t.Helper()
		for after := none.Next; ; {
			page := s.events(t, query+"&after="+url.QueryEscape(after))
			if len(page.Events) == 0 && page.Next == after {
				return ids
			}
			for _, e := range page.Events {
				ids = append(ids, e.ID)
			}
			after = page.Next
		}
	}
	var want, moves []string
	for _, e := range all.Events {
		want = append(want, e.ID)
		if e.Type == "allo.stock.moved" {
			moves = append(moves, e.ID)
		}
	}
	for _, limit := range []string{"1", "2", "3", "500"} {
		if diff := cmp.Diff(want, follow("limit="+limit)); diff != "" {
			t.Errorf("the events by %s differ (-want +got):\n%s", limit, diff)
		}
		if diff := cmp.Diff(moves, follow("types=allo.stock.moved&limit="+limit)); diff != "" {
			t.Errorf("the movements by %s differ (-want +got):\n%s", limit, diff)
		}
	}
	if again := s.events(t, "after="+all.Next); len(again.Events) != 0 || again.Next != all.Next {
		t.Errorf("the page after the end is %+v, want an empty one with the same cursor", again)
	}
	s.reserve(t, reserveBody(s.mug, s.east, 1))
	if early := s.events(t, "after="+all.Next); len(early.Events) != 0 {
		t.Errorf("an event is shown before its tick: %+v", early.Events)
	}
}

func TestInvalidEventQueriesNameTheParameter(t *testing.T) {
	t.Parallel()
	s := newStockedClient(t)
	s.reserve(t, reserveBody(s.mug, s.east, 2))
	s.tick()
	cursor := s.events(t, "limit=1").Next
	for query, field := range map[string]string{
		"limit=0":                 "limit",
		"limit=501":               "limit",
		"after=":                  "after",
		"after=x":                 "after",
		"after=" + cursor + "A":   "after",
		"after=" + cursor[:10]:    "after",
		"after=a&after=b":         "after",
		"types=":                  "types",
		"types=allo.stock.moved,": "types",
		"types=allo.stock":        "types",
		"types=" + strings.Repeat("allo.stock.moved,", 8) + "allo.stock.moved": "types",
	} {
		s.get("/api/events?"+query).wantInvalid(t, field)
	}
	hold := " 0000000001 " + uuid.NewString()
	row := uuid.NewString() + " " + uuid.NewString()
	for _, place := range []string{
		"h 0000-01-01T00:00:00.000000" + hold,
		"h 2026-02-30T00:00:00.000000" + hold,
		"h 2026-01-01T24:00:00.000000" + hold,
		"h infinity" + hold,
		"h 2026-01-01T00:00:00.000000 2147483648 " + uuid.NewString(),
		"h 2026-01-01T00:00:00.000000 -000000001 " + uuid.NewString(),
		"m " + row + " 9223372036854775808",
		"m " + row + " -000000000000000001",
		"m x " + row,
	} {
		s.get("/api/events?after="+cursorAt(t, cursor, "0:1:"+place)).wantInvalid(t, "after")
	}
	for _, place := range []string{
		"9223372036854775807", "9223372036854775808", "-1", "0:9223372036854775808:m " + row,
		"0:9223372036854775807:m " + row + " 0000000000000000001",
	} {
		s.get("/api/events?after="+cursorAt(t, cursor, place)).wantInvalid(t, "after")
	}
	for _, place := range []string{
		"h 0001-01-01T00:00:00.000000" + hold, "h 9999-12-31T23:59:59.999999" + hold,
		"h 2026-01-01T00:00:00.000000 2147483647 " + uuid.NewString(),
		"m " + row + " 9223372036854775807",
	} {
		s.get("/api/events?after="+cursorAt(t, cursor, "0:1:"+place)).want(t, http.StatusOK, "")
	}
	s.db.Exec("DELETE FROM ticks") // as if the database were an older one
	s.get("/api/events?after="+cursor).wantInvalid(t, "after")
	s.db.Exec("UPDATE stream SET epoch = gen_random_uuid()")
	s.get("/api/events?after="+cursor).want(t, http.StatusGone, "CURSOR_TOO_OLD")
}

// cursorAt returns a cursor of the same epoch with another place.
func cursorAt(t *testing.T, cursor, place string) string {
	t.Helper()
	b, err := base64.RawURLEncoding.DecodeString(cursor)
	if err != nil {
		t.Fatal(err)
	}
	return base64.RawURLEncoding.EncodeToString(append(b[:16:16], place...))
}

func TestAHoldsHistoryIsItsLedger(t *testing.T) {
	t.Parallel()
	s := newStockedClient(t)
	hold := s.reserve(t, reserveBody(s.mug, s.east, 2))
	s.post(hold+"/extend", `{"ttlSeconds":600}`).want(t, http.StatusOK, "")
	s.post(hold+"/confirm", "").want(t, http.StatusOK, "")
	type transition struct {
		Version     int
		Kind, Cause string
		Actor       *string
	}
	got := decode[[]transition](t, s.get(hold+"/history").
		want(t, http.StatusOK, ""))
	want := []transition{
		{1, "held", "verb", nil}, {2, "extended", "verb", nil}, {3, "confirmed", "verb", nil},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the history differs (-want +got):\n%s", diff)
	}
	for _, id := range []string{"x", "0192d000-0000-7000-8000-000000000999"} {
		s.get("/api/reservations/"+id+"/history").
			want(t, http.StatusNotFound, "RESERVATION_NOT_FOUND")
	}
}

// An answer has the events' own bytes, whatever characters are in them.
func TestAnAnswerKeepsTheBytesOfAnEvent(t *testing.T) {
	t.Parallel()
	s := newStockedClient(t)
	s.reserve(t, reserveBody(s.mug, s.east, 2))
	s.db.Exec("ALTER TABLE ledger DISABLE TRIGGER USER")
	s.db.Exec("UPDATE ledger SET actor = $1", "a <b> & \"c\" \u2028 / \u00e9 \\")
	s.tick()
	feed := outbox.New(reservation.New(newPool(t, s.db.URL), reservation.Options{}), outbox.Options{})
	page, _, err := feed.List(t.Context(), "", nil, 500)
	if err != nil || len(page) < 2 {
		t.Fatalf("List() = %v, %v, want the hold and the movements", page, err)
	}
	body := string(s.get("/api/events").want(t, http.StatusOK, "").body)
	for _, e := range page {
		if !strings.Contains(body, string(e.Body)) {
			t.Errorf("the answer %s lacks %s", body, e.Body)
		}
	}
}
