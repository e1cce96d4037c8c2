package httpapi_test

import (
	"encoding/base64"
	"encoding/binary"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
)

// listed is a reservation in a list.
type listed struct {
	held
	RemainingSeconds *int64
	Expired          *bool
}

func TestAListShowsEachHoldAsAReadDoes(t *testing.T) {
	t.Parallel()

	s := newStockedClient(t)
	s.reserve(t, reserveBody(s.mug, s.east, 2))
	s.reserve(t, cartBody(reserveBody(s.mug, s.east, 1), reserveBody(s.lamp, s.east, 1)))
	dead, sold := s.reserve(
		t,
		reserveBody(s.lamp, s.east, 1),
	), s.reserve(
		t,
		reserveBody(s.lamp, s.east, 1),
	)
	s.kill(dead)
	s.post(sold+"/confirm", "").want(t, http.StatusOK, "")

	all := decode[[]listed](t, s.get("/api/reservations").want(t, http.StatusOK, ""))

	if len(all) != 4 {
		t.Fatalf("the list has %d holds, want 4", len(all))
	}
	for _, got := range all {
		want := decode[view](t, s.get("/api/reservations/"+got.ID).want(t, http.StatusOK, ""))
		if diff := cmp.Diff(want.Reservation, got.held); diff != "" {
			t.Errorf("a read (-) and a list (+) tell of one hold differently:\n%s", diff)
		}
		if *got.Expired != want.Expired || *got.RemainingSeconds-want.RemainingSeconds > 5 ||
			*got.RemainingSeconds < want.RemainingSeconds {
			t.Errorf("listed expired, remainingSeconds = %t, %d, read a moment later %t, %d",
				*got.Expired, *got.RemainingSeconds, want.Expired, want.RemainingSeconds)
		}
	}
}

func TestAnEmptyListIsAnArray(t *testing.T) {
	t.Parallel()

	a := newStockedClient(t).get("/api/reservations?status=CONFIRMED").want(t, http.StatusOK, "")

	if string(a.body) != "[]" || a.header.Get("Link") != "" ||
		a.header.Get("Cache-Control") != "no-store" {
		t.Errorf("the empty list = %s with %v, want an empty array and no link", a.body, a.header)
	}
}

func TestTheLinkOfAListKeepsItsFilter(t *testing.T) {
	t.Parallel()

	s := newStockedClient(t)
	for range 3 {
		s.reserve(t, reserveBody(s.mug, s.east, 1))
	}
	query := url.Values{
		"status":      {"PENDING"},
		"productId":   {s.mug.String()},
		"warehouseId": {s.east.String()},
		"limit":       {"1"},
	}
	seen := map[string]bool{}
	path := "/api/reservations?" + query.Encode()
	for range 3 {
		a := s.get(path).want(t, http.StatusOK, "")
		for _, h := range decode[[]listed](t, a) {
			seen[h.ID] = true
		}
		m := regexp.MustCompile(`^<(/api/reservations\?[^>]+)>; rel="next"$`).
			FindStringSubmatch(a.header.Get("Link"))
		if len(seen) == 3 {
			if m != nil {
				t.Errorf("the last page leads on to %s", m[1])
			}
			break
		}
		if m == nil {
			t.Fatalf("Link = %q after %d of 3 holds", a.header.Get("Link"), len(seen))
		}
		path = m[1]
		next, err := url.Parse(path)
		if err != nil {
			t.Fatal(err)
		}
		got := next.Query()
		got.Del("cursor")
		if diff := cmp.Diff(query, got); diff != "" {
			t.Errorf("the next page's query (+) isn't this one's (-):\n%s", diff)
		}
	}
	if len(seen) != 3 {
		t.Errorf("the pages have %d different holds, want 3", len(seen))
	}
}

// holdCursor encodes a cursor of a list of holds, as the package does.
func holdCursor(order string, micros int64) string {
	key := binary.BigEndian.AppendUint64(
		nil,
		uint64(micros),
	) // #nosec G115 -- some are wrong on purpose
	return cursorOf(order, string(key))
}

// changeCursor encodes a cursor of a list of what was updated since a time.
func changeCursor(micros int64, place ...int64) string {
	var key []byte
	for _, n := range append([]int64{micros}, place...) {
		key = binary.BigEndian.AppendUint64(key, uint64(n)) // #nosec G115 -- some are wrong on purpose
	}
	return cursorOf("change", string(key))
}

// olderHoldCursor encodes a cursor in the format before this one.
func olderHoldCursor(order byte, micros int64) string {
	id := uuid.MustParse(hold)
	b := binary.BigEndian.AppendUint64([]byte{order}, uint64(micros)) // #nosec G115 -- after 1970
	return base64.RawURLEncoding.EncodeToString(append(b, id[:]...))
}

func TestAListAcceptsTheParametersOfTheDocument(t *testing.T) {
	t.Parallel()

	c := newClient(t, unreachable)
	now := time.Now().UnixMicro()
	for _, query := range []string{
		"", "status=PENDING", "status=CONFIRMED", "status=RELEASED", "status=EXPIRED", "limit=1",
		"limit=200", "unknown=1",
		"productId=" + product, "warehouseId=" + strings.ToUpper(warehouse),
		"productId=" + uuid.Nil.String(),
		"cursor=" + holdCursor("created", now), "cursor=" + holdCursor("created", 0),
		"status=EXPIRED&cursor=" + holdCursor("created", now),
		"status=PENDING&cursor=" + holdCursor("end", now),
		"reference=order%201", "owner=" + strings.Repeat("%C3%A9", 100), "owner=a&reference=b",
		"owner=a&cursor=" + holdCursor("party", now), "status=PENDING&owner=a",
		"reference=a&status=PENDING&cursor=" + holdCursor("party", now),
		"updatedSince=2026-03-01T10:00:00Z", "updatedSince=2026-03-01T10:00:00.123456789%2B05:30",
		"updatedSince=1970-01-01T00:00:00Z", "updatedSince=9999-12-31T23:59:59Z",
		"updatedSince=2026-03-01t10:00:00z", "updatedSince=2026-03-01t10:00:00.5-05:30",
		"updatedSince=2026-03-01T10:00:00Z&status=PENDING&cursor=" + holdCursor("created", now),
		"updatedSince=2026-03-01T10:00:00Z&cursor=" + changeCursor(now, 1, 0, 0, 0),
		"updatedSince=2026-03-01T10:00:00Z&cursor=" + changeCursor(now, 1<<63-1, 1<<63-1, 1<<63-1, 1<<63-1),
	} {
		c.get("/api/reservations?" + query).wantAccepted(t)
	}
	c.get("/api/stats?unknown=1").wantAccepted(t)
	year10000 := time.Date(10_000, 1, 1, 0, 0, 0, 0, time.UTC).UnixMicro()
	for field, values := range map[string][]string{
		"status": {
			"", "pending", "PENDING ", "DEAD", "PENDING,CONFIRMED", "\x00", "PENDING&status=PENDING",
		},
		"productId": {
			"", "1", "null", "{" + product + "}", product + "0",
			strings.ReplaceAll(product, "-", ""), product + "&productId=" + product,
		},
		"warehouseId": {"", "%FF", "urn:uuid:" + warehouse, "'; DROP TABLE reservations --"},
		"reference":   {"", "\x00", "a\nb", "\xff", strings.Repeat("r", 101), "a&reference=a"},
		"owner":       {"", "a\x7fb", "\u0085", strings.Repeat("é", 256), "a&owner=b"},
		"updatedSince": {
			"", "x", "0", "2026-03-01", "2026-03-01T10:00:00", "2026-03-01 10:00:00Z", "1969-12-31T23:59:59Z",
			"10000-01-01T00:00:00Z", "9999-12-31T23:59:59-01:00", "0000-01-01T00:00:00Z", "infinity",
			"2026-02-30T00:00:00Z", "2026-03-01T10:00:00Z&updatedSince=2026-03-01T10:00:00Z",
		},
		"limit": {"", "0", "-1", "201", "1.0", "1e1", "x", "99999999999999999999", "1&limit=1"},
		"cursor": {
			"", "x", "%00", holdCursor("created", now)[1:], holdCursor("created", now) + "A",
			holdCursor("created", now) + "=", holdCursor("x", now), holdCursor("end", now),
			holdCursor("created", -1), holdCursor("created", year10000),
			holdCursor("created", 1<<63-1), holdCursor("created", -1<<63), hold,
			holdCursor("created", now) + "&cursor=" + holdCursor("created", now),
			cursorOf("name", "Mug"), olderHoldCursor('c', now), holdCursor("party", now),
			changeCursor(now, 1, 0, 0, 0),
		},
	} {
		for _, value := range values {
			first, twice, isTwice := strings.Cut(value, "&")
			query := field + "=" + url.QueryEscape(first)
			if isTwice {
				query += "&" + twice
			}
			c.get("/api/reservations?"+query).wantInvalid(t, field)
		}
	}
	c.get("/api/reservations?status=PENDING&cursor="+holdCursor("created", now)).
		wantInvalid(t, "cursor")
	const since = "/api/reservations?updatedSince=2026-03-01T10:00:00Z"
	for _, bad := range []string{
		changeCursor(now, 0, 0, 0, 0), changeCursor(now, -1, 0, 0, 0), changeCursor(now, 1, 0, 0, -1),
		changeCursor(-1, 1, 0, 0, 0), changeCursor(now, 1, 0, 0), changeCursor(now, 1, 0, 0, 0, 0),
		holdCursor("change", now), holdCursor("end", now), holdCursor("party", now),
	} {
		c.get(since+"&cursor="+bad).wantInvalid(t, "cursor")
	}
	c.get(since+"&owner=a&cursor="+changeCursor(now, 1, 0, 0, 0)).wantInvalid(t, "cursor")
	a := c.get("/api/reservations?status=x&productId=x&warehouseId=x&limit=x&cursor=x").
		want(t, http.StatusBadRequest, "VALIDATION_FAILED")
	if details := decode[problemBody](t, a).Details; len(details) != 5 {
		t.Errorf("%s = details %v, want those of all five", a.sent, details)
	}
}

// Each list goes on where its Link leads, until all holds are there.
func TestAListByOwnerReferenceAndChangeIsReadPageByPage(t *testing.T) {
	t.Parallel()

	s := newStockedClient(t)
	s.tick()
	var since string
	all := map[string]bool{}
	for n := range 4 {
		body := ordered(reserveBody(s.mug, s.east, 1), `"owner":"ann & co","reference":"order 1"`)
		h := s.post("/api/reservations", body).want(t, http.StatusCreated, "").reservation(t)
		all[h.ID] = true
		if n == 0 {
			since = url.QueryEscape(h.CreatedAt.Format(time.RFC3339Nano))
		}
	}
	s.post("/api/reservations/"+slices.Sorted(maps.Keys(all))[0]+"/confirm", "").
		want(t, http.StatusOK, "")
	s.tick()
	other := s.reserve(t, ordered(reserveBody(s.mug, s.east, 1), `"owner":"bob"`))
	more := maps.Clone(all)
	more[strings.TrimPrefix(other, "/api/reservations/")] = true
	for query, want := range map[string]map[string]bool{
		"owner=ann+%26+co": all, "reference=order+1": all, "owner=ann+%26+co&reference=order+1": all,
		"updatedSince=" + since: more, "updatedSince=" + since + "&owner=ann+%26+co": all,
		"owner=ann+%26+co&status=PENDING&reference=order+2": {},
		"owner=ann":                         {},
		"updatedSince=9999-01-01T00:00:00Z": {},
	} {
		got := map[string]bool{}
		path := "/api/reservations?limit=1&" + query
		for range 2*len(want) + 2 {
			a := s.get(path).want(t, http.StatusOK, "")
			for _, h := range decode[[]listed](t, a) {
				if got[h.ID] {
					t.Errorf("%s lists %s twice", query, h.ID)
				}
				got[h.ID] = true
			}
			link := nextLink.FindStringSubmatch(a.header.Get("Link"))
			if link == nil {
				break
			}
			path = link[1]
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s lists others (-want +got):\n%s", query, diff)
		}
	}
}

func TestAnOwnerIsErased(t *testing.T) {
	t.Parallel()

	s := newStockedClient(t)
	path := s.reserve(t, ordered(reserveBody(s.mug, s.east, 1), `"owner":"ann","reference":"order 1"`))
	s.reserve(t, ordered(reserveBody(s.mug, s.east, 1), `"owner":"bob","reference":"order 2"`))
	s.post(path+"/confirm", "", "Idempotency-Key", "a").want(t, http.StatusOK, "")

	for _, test := range []struct {
		key, want string
		replayed  bool
	}{
		{"e", `{"erased":1,"more":false}`, false},
		{"e", `{"erased":1,"more":false}`, true},
		{"f", `{"erased":0,"more":false}`, false},
	} {
		a := s.post("/api/owners/erase", `{"owner":"ann"}`, "Idempotency-Key", test.key).
			want(t, http.StatusOK, "")
		if string(a.body) != test.want || replayed(a) != test.replayed {
			t.Errorf("the erasure = %s, replayed: %t, want %+v", a.body, replayed(a), test)
		}
	}
	s.post("/api/owners/erase", `{"owner":"bob"}`, "Idempotency-Key", "e").
		want(t, http.StatusUnprocessableEntity, "IDEMPOTENCY_KEY_REUSED")
	again := s.post(path+"/confirm", "", "Idempotency-Key", "a").want(t, http.StatusOK, "")
	for _, shown := range []answer{again, s.get(path), s.get("/api/reservations?owner=ann")} {
		for _, erased := range []string{"ann", "order 1"} {
			if strings.Contains(string(shown.body), erased) {
				t.Errorf("%s still shows %s: %s", shown.sent, erased, shown.body)
			}
		}
	}
	if got := s.owners(t); len(got) != 1 {
		t.Errorf("the owners are %v, want bob alone", got)
	}
}

func TestAnInvalidErasureNamesTheField(t *testing.T) {
	t.Parallel()

	c := newClient(t, unreachable)
	const path = "/api/owners/erase"
	for body, field := range map[string]string{
		"": "body", "{}": "owner", `{"owner":null}`: "owner", `{"owner":""}`: "owner",
		`{"owner":"a\u0000"}`: "owner", `{"owner":["ann"]}`: "owner", `{"owner":"ann","all":true}`: "all",
		`{"owner":"` + strings.Repeat("é", 256) + `"}`: "owner",
	} {
		c.post(path, body).wantInvalid(t, field)
	}
	const body = `{"owner":"ann"}`
	c.post(path, body).wantAccepted(t)
	c.post(path, body, "Idempotency-Key", "k").wantAccepted(t)
	for _, key := range []string{"", "a,b", "é", strings.Repeat("k", 256)} {
		c.post(path, body, "Idempotency-Key", key).wantInvalid(t, "Idempotency-Key")
	}
	c.post(path, strings.Repeat(" ", maxBody)+body).want(t, 413, "BODY_TOO_LARGE")
	c.post(path, body, "Content-Type", "text/csv").want(t, 415, "UNSUPPORTED_MEDIA_TYPE")
}

func TestStats(t *testing.T) {
	t.Parallel()

	s := newStockedClient(t)
	s.reserve(t, reserveBody(s.mug, s.east, 2))
	s.db.Exec("SELECT keep_audit(false, 2, true)")

	a := s.get("/api/stats").want(t, http.StatusOK, "")

	got := decode[struct {
		Holds, Stock map[string]int64
		Hour         map[string]int64
		Sweep        map[string]float64
		Audit        map[string]any
	}](t, a)
	delete(got.Audit, "at")
	if diff := cmp.Diff(
		map[string]any{"violations": 2.0, "unfinished": true},
		got.Audit,
	); diff != "" {
		t.Errorf("audit, want (-) and got (+):\n%s", diff)
	}
	if diff := cmp.Diff([]map[string]int64{
		{
			"live":      1,
			"liveUnits": 2,
			"dead":      0,
		},
		{"total": 22, "held": 2},
		{"held": 1, "confirmed": 0, "released": 0, "expired": 0},
	}, []map[string]int64{got.Holds, got.Stock, got.Hour}); diff != "" {
		t.Errorf("holds, stock and hour, want (-) and got (+):\n%s", diff)
	}
	if lag, there := got.Sweep["lagSeconds"]; !there || lag != 0 ||
		a.header.Get("Cache-Control") != "no-store" {
		t.Errorf(
			"sweep = %v, Cache-Control = %q, want no lag and no-store",
			got.Sweep,
			a.header.Get("Cache-Control"),
		)
	}
}
