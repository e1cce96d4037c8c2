package httpapi_test

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/allo/reservations/internal/reservation"
)

// follow reads the pages of a list from an address on, and returns one field of each entry and the
// header Total-Count of each page.
func (s stockedClient) follow(t *testing.T, path, field string) (entries, totals []string) {
	t.Helper()
	for pages := 0; path != "" && pages < 20; pages++ {
		a := s.get(path).want(t, http.StatusOK, "")
		for _, entry := range decode[[]map[string]any](t, a) {
			entries = append(entries, fmt.Sprint(entry[field]))
		}
		totals = append(totals, a.header.Get("Total-Count"))
		path = ""
		if link := nextLink.FindStringSubmatch(a.header.Get("Link")); link != nil {
			path = link[1]
		}
	}
	return entries, totals
}

func TestSearchesFollowTheirLinks(t *testing.T) {
	t.Parallel()

	s := newStockedClient(t)
	s.db.NamedProduct("Small 50% Mug", "CM_1")
	for path, want := range map[string][]string{
		"/api/products?q=mug":                       {"CM-300", "CM_1"},
		"/api/products?q=MUG%20small":               {"CM_1"},
		"/api/products?q=50%25":                     {"CM_1"},
		"/api/products?q=_":                         {"CM_1"},
		"/api/products?q=cm":                        {"CM-300", "CM_1"},
		"/api/products?q=chair":                     nil,
		"/api/stock?q=mug":                          {"CM-300", "CM-300"},
		"/api/stock?q=lamp&warehouse=East":          {"LA-400"},
		"/api/stock?productId=" + s.mug.String():    {"CM-300", "CM-300"},
		"/api/stock?warehouseId=" + s.west.String(): {"CM-300", "LA-400"},
		"/api/stock?productId=" + s.lamp.String() + "&warehouseId=" + s.west.String(): {"LA-400"},
		"/api/stock?productId=" + uuid.NewString():                                    nil,
		"/api/stock?availableBelow=5&q=lamp":                                          {"LA-400"},
	} {
		if strings.Contains(path, "warehouse=East") {
			s.db.Exec("UPDATE warehouses SET code = name")
		}
		for _, limit := range []int{1, 2, 100} {
			got, totals := s.follow(t, fmt.Sprint(path, "&total=true&limit=", limit), "sku")
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s by %d differs (-want +got):\n%s", path, limit, diff)
			}
			for n, total := range totals {
				expected := ""
				if n == 0 {
					expected = fmt.Sprint(len(want))
				}
				if total != expected {
					t.Errorf("page %d of %s by %d has the total %q, want %q", n, path, limit, total, expected)
				}
			}
		}
	}
}

func TestListsTellTheirTotalOnRequest(t *testing.T) {
	t.Parallel()

	s := newStockedClient(t)
	for range 3 {
		s.reserve(t, reserveBody(s.mug, s.east, 1))
	}
	for path, want := range map[string]string{
		"/api/products?total=true":                                        "2",
		"/api/products?total=false":                                       "",
		"/api/products":                                                   "",
		"/api/stock?total=true":                                           "4",
		"/api/stock?total=true&availableBelow=2":                          "2",
		"/api/stock":                                                      "",
		"/api/reservations?total=true":                                    "3",
		"/api/reservations?total=true&status=CONFIRMED":                   "0",
		"/api/reservations?total=true&productId=" + s.mug.String():        "3",
		"/api/reservations?total=true&status=PENDING&reference=none":      "0",
		"/api/reservations?total=false&updatedSince=2026-01-01T00:00:00Z": "",
		"/api/reservations":                                               "",
	} {
		for _, suffix := range []string{"", "limit=1"} {
			at := path
			if suffix != "" {
				at += map[bool]string{true: "&", false: "?"}[strings.Contains(path, "?")] + suffix
			}
			if got := s.get(at).want(t, http.StatusOK, "").header.Get("Total-Count"); got != want {
				t.Errorf("%s has the total %q, want %q", at, got, want)
			}
		}
	}
	// A copy of the catalog that is current is told the total too.
	first := s.get("/api/products?total=true")
	again := s.send("GET", "/api/products?total=true", "", "If-None-Match", first.header.Get("ETag"))
	if again.status != http.StatusNotModified || again.header.Get("Total-Count") != "2" {
		t.Errorf("the answer to a current copy is %d with the total %q", again.status,
			again.header.Get("Total-Count"))
	}
}

func TestAHoldIsFoundByItsCode(t *testing.T) {
	t.Parallel()

	s := newStockedClient(t)
	path := s.reserve(t, reserveBody(s.mug, s.east, 1))
	id := uuid.MustParse(strings.TrimPrefix(path, "/api/reservations/"))
	code := reservation.CodeOf(id).String()
	for _, text := range []string{
		code, strings.ToLower(code), strings.ReplaceAll(code, "-", ""),
		strings.ReplaceAll(code, "-", "%20"),
	} {
		found, totals := s.follow(t, "/api/reservations?total=true&limit=1&code="+text, "id")
		if diff := cmp.Diff([]string{id.String()}, found); diff != "" || totals[0] != "1" {
			t.Errorf("%s finds %v with the totals %v", text, found, totals)
		}
	}
	none := reservation.CodeOf(uuid.Must(uuid.NewV7())) ^ 1<<39
	if found, _ := s.follow(t, "/api/reservations?code="+none.String(), "id"); len(found) > 0 {
		t.Errorf("the code of no hold finds %v", found)
	}
}

func TestInvalidSearchesNameTheParameter(t *testing.T) {
	t.Parallel()

	s := newStockedClient(t)
	cursor := func(path string) string {
		t.Helper()
		a := s.get(path).want(t, http.StatusOK, "")
		link, err := url.Parse(nextLink.FindStringSubmatch(a.header.Get("Link"))[1])
		if err != nil {
			t.Fatal(err)
		}
		if link.Query().Has("total") {
			t.Errorf("the next page of %s counts again: %s", path, link)
		}
		return url.QueryEscape(link.Query().Get("cursor"))
	}
	s.db.NamedProduct("Other mug", "CM-301")
	products := cursor("/api/products?limit=1&total=true")
	found := cursor("/api/products?limit=1&q=mug&total=true")
	stock := cursor("/api/stock?limit=1&q=mug&total=true")
	for path, field := range map[string]string{
		"/api/products?q=":                                               "q",
		"/api/products?q=%20":                                            "q",
		"/api/products?q=%00":                                            "q",
		"/api/products?q=%ff":                                            "q",
		"/api/products?q=a&q=b":                                          "q",
		"/api/products?q=" + strings.Repeat("é", 101):                    "q",
		"/api/products?q=mug&limit=0":                                    "limit",
		"/api/products?q=mug&sku=CM-300":                                 "q",
		"/api/products?sku=CM-300&total=true":                            "total",
		"/api/products?total=1":                                          "total",
		"/api/products?total=":                                           "total",
		"/api/products?total=true&total=true":                            "total",
		"/api/products?q=mug&cursor=" + products:                         "cursor",
		"/api/products?q=lamp&cursor=" + found:                           "cursor",
		"/api/products?cursor=" + found:                                  "cursor",
		"/api/products?q=mug&cursor=" + stock:                            "cursor",
		"/api/products?q=mug&cursor=x":                                   "cursor",
		"/api/stock?q=":                                                  "q",
		"/api/stock?q=lamp&cursor=" + stock:                              "cursor",
		"/api/stock?cursor=" + stock:                                     "cursor",
		"/api/stock?productId=x":                                         "productId",
		"/api/stock?warehouseId=":                                        "warehouseId",
		"/api/stock?total=yes":                                           "total",
		"/api/reservations?total=yes":                                    "total",
		"/api/reservations?total=true&updatedSince=2026-01-01T00:00:00Z": "total",
		"/api/reservations?code=":                                        "code",
		"/api/reservations?code=7K2M-9QX":                                "code",
		"/api/reservations?code=7K2M-9QXU":                               "code",
		"/api/reservations?code=7K2M-9QXD&status=PENDING":                "status",
		"/api/reservations?code=7K2M-9QXD&owner=a":                       "owner",
		"/api/reservations?code=7K2M-9QXD&cursor=x":                      "cursor",
		"/api/reservations?code=7K2M-9QXD&limit=0":                       "limit",
		"/api/reservations?code=7K2M-9QXD&code=7K2M-9QXD":                "code",
		"/api/events?since=yesterday":                                    "since",
		"/api/events?since=":                                             "since",
		"/api/events?since=2026-01-01T00:00:00Z&after=x":                 "since",
	} {
		s.get(path).wantInvalid(t, field)
	}
	// The cursors are those of these lists. The limit and the total may change.
	s.get("/api/products?q=mug&limit=5&total=true&cursor="+found).want(t, http.StatusOK, "")
	s.get("/api/stock?q=mug&limit=5&cursor="+stock).want(t, http.StatusOK, "")
}

func TestEventsBeginAtATime(t *testing.T) {
	t.Parallel()

	s := newStockedClient(t)
	s.reserve(t, reserveBody(s.mug, s.east, 1))
	s.db.Exec("SET synchronous_commit = on; SELECT take_tick()")
	type feed struct {
		Events []struct{ Type string }
		Next   string
	}
	old := decode[feed](t, s.get("/api/events?since=2026-01-01T00:00:00Z").want(t, 200, ""))
	if len(old.Events) == 0 {
		t.Error("since a time before all events there are none")
	}
	later := url.QueryEscape(time.Now().Add(time.Hour).Format(time.RFC3339))
	now := decode[feed](t, s.get("/api/events?since="+later).want(t, 200, ""))
	if len(now.Events) != 0 || now.Next == "" {
		t.Errorf("since a time to come there are %d events, next is %q", len(now.Events), now.Next)
	}
	s.get("/api/events?after="+now.Next).want(t, 200, "")
}
