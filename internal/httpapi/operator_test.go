package httpapi_test

import (
	"encoding/base64"
	"encoding/binary"
	"net/http"
	"net/url"
	"regexp"
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
		"limit":       {"", "0", "-1", "201", "1.0", "1e1", "x", "99999999999999999999", "1&limit=1"},
		"cursor": {
			"", "x", "%00", holdCursor("created", now)[1:], holdCursor("created", now) + "A",
			holdCursor("created", now) + "=", holdCursor("x", now), holdCursor("end", now),
			holdCursor("created", -1), holdCursor("created", year10000),
			holdCursor("created", 1<<63-1), holdCursor("created", -1<<63), hold,
			holdCursor("created", now) + "&cursor=" + holdCursor("created", now),
			cursorOf("name", "Mug"), olderHoldCursor('c', now),
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
	a := c.get("/api/reservations?status=x&productId=x&warehouseId=x&limit=x&cursor=x").
		want(t, http.StatusBadRequest, "VALIDATION_FAILED")
	if details := decode[problemBody](t, a).Details; len(details) != 5 {
		t.Errorf("%s = details %v, want those of all five", a.sent, details)
	}
}

func TestStats(t *testing.T) {
	t.Parallel()

	s := newStockedClient(t)
	s.reserve(t, reserveBody(s.mug, s.east, 2))
	s.db.Exec("SELECT keep_audit(2, true)")

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
