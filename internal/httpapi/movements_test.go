package httpapi_test

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// lineResult is a result of a line in the contract's form.
type lineResult struct {
	Line          int
	ProductID     *string
	Outcome       string
	Delta         int
	TotalQuantity *int
	Seq           *int
	Shortfall     *int
	Problem       *struct {
		Code   string
		Status int
		Held   *int
	}
}

// texts writes results for a comparison.
func (a answer) texts(t *testing.T) (lines []string) {
	t.Helper()
	for _, r := range decode[struct{ Results []lineResult }](t, a).Results {
		text := fmt.Sprint(r.Line, " ", r.Outcome, " ", r.Delta)
		if r.TotalQuantity != nil {
			text += fmt.Sprint(" to ", *r.TotalQuantity, " by ", *r.Seq)
		}
		if r.Shortfall != nil {
			text += fmt.Sprint(" short of ", *r.Shortfall)
		}
		if p := r.Problem; p != nil {
			text += fmt.Sprint(" ", p.Code, " ", p.Status)
			if p.Held != nil {
				text += fmt.Sprint(" ", *p.Held)
			}
		}
		lines = append(lines, text)
	}
	return lines
}

const movementsPath = "/api/stock/movements"

func TestMovementsInJSON(t *testing.T) {
	t.Parallel()

	s := newStockedClient(t)
	s.reserve(t, reserveBody(s.mug, s.west, 1))
	body := fmt.Sprintf(`{"source":"erp","reference":"r","together":false,"onHeld":"FAIL","lines":[
{"sku":"CM-300","warehouseId":%q,"delta":5,"note":"pallet"},
{"productId":%q,"warehouseId":%q,"counted":0},
{"sku":"none","warehouseId":%q,"delta":1}]}`, s.east, s.mug, s.west, s.west)
	first := s.post(movementsPath, body, "Idempotency-Key", "key").want(t, http.StatusOK, "")
	if diff := cmp.Diff([]string{
		"1 APPLIED 5 to 15 by 2", "2 REFUSED 0 STOCK_HELD 409 1", "3 REFUSED 0 PRODUCT_NOT_FOUND 404",
	}, first.texts(t)); diff != "" {
		t.Errorf("the results differ (-want +got):\n%s", diff)
	}
	again := s.post(movementsPath, body, "Idempotency-Key", "key").want(t, http.StatusOK, "")
	if string(again.body) != string(first.body) || again.header.Get("Idempotency-Replayed") != "true" {
		t.Errorf("the replay is %s, want %s", again.body, first.body)
	}
	s.post(movementsPath, strings.Replace(body, `"r"`, `"s"`, 1), "Idempotency-Key", "key").
		want(t, http.StatusUnprocessableEntity, "IDEMPOTENCY_KEY_REUSED")

	together := strings.NewReplacer(`"together":false`, `"together":true`, `"r"`, `"t"`).Replace(body)
	refused := s.post(movementsPath, together).want(t, http.StatusConflict, "MOVEMENTS_REFUSED")
	if diff := cmp.Diff([]string{
		"1 UNCHANGED 0", "2 REFUSED 0 STOCK_HELD 409 1", "3 REFUSED 0 PRODUCT_NOT_FOUND 404",
	}, refused.texts(t)); diff != "" {
		t.Errorf("the refused results differ (-want +got):\n%s", diff)
	}
	clamped := strings.NewReplacer("FAIL", "CLAMP", `"r"`, `"u"`).Replace(body)
	if diff := cmp.Diff([]string{
		"1 APPLIED 5 to 20 by 3", "2 UNCHANGED 0 to 1 by 2 short of 1",
		"3 REFUSED 0 PRODUCT_NOT_FOUND 404",
	}, s.post(movementsPath, clamped).want(t, http.StatusOK, "").texts(t)); diff != "" {
		t.Errorf("the clamped results differ (-want +got):\n%s", diff)
	}
}

func TestMovementsInCSV(t *testing.T) {
	t.Parallel()

	s := newStockedClient(t)
	const query = movementsPath + "?source=erp&reference=r"
	csv := func(path, body string) answer {
		t.Helper()
		return s.post(path, body, "Content-Type", "text/csv; charset=utf-8")
	}
	body := fmt.Sprintf("\ufeffsku;warehouseId;delta;counted;asOfSeq;note\r\n"+
		"CM-300;%s;5;;;\"=1+1; \"\"x\"\"\"\r\nCM-300;%s;;3;1;\r\n", s.east, s.west)
	if diff := cmp.Diff([]string{"1 APPLIED 5 to 15 by 2", "2 APPLIED 2 to 3 by 2"},
		csv(query, body).want(t, http.StatusOK, "").texts(t)); diff != "" {
		t.Errorf("the results differ (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"1 REPLAYED 5 to 15 by 2", "2 REPLAYED 2 to 3 by 2"},
		csv(query+"&together=true&onHeld=CLAMP", body).want(t, http.StatusOK, "").texts(t)); diff != "" {
		t.Errorf("the results of the repeat differ (-want +got):\n%s", diff)
	}
	for path, field := range map[string]string{
		movementsPath + "?reference=r":        "source",
		movementsPath + "?source=erp":         "reference",
		query + "&together=yes":               "together",
		query + "&onHeld=fail":                "onHeld",
		query + "&source=erp":                 "source",
		movementsPath + "?source=&reference=": "",
	} {
		a := csv(path, body).want(t, http.StatusBadRequest, "VALIDATION_FAILED")
		if field != "" {
			if details := decode[problemBody](t, a).Details; len(details[field]) != 1 {
				t.Errorf("details of %s = %v, want %s", path, details, field)
			}
		}
	}
	many := strings.Repeat("A,"+s.east.String()+",1\n", 501)
	for body, field := range map[string]string{
		"sku,warehouseId,delta\nCM-300,,5\n":                       "line 2, column warehouse",
		"sku,warehouseId,delta\nCM-300,x,5\n":                      "line 2, column 2 (warehouseId)",
		fmt.Sprintf("sku,warehouseId,delta\n\nA,%s,0.5\n", s.east): "line 3, column 3 (delta)",
		fmt.Sprintf("sku,warehouseId,delta\nA,%s,\n", s.east):      "line 2, column 3 (delta)",
		fmt.Sprintf("sku,warehouseId,counted\nA,%s,-1\n", s.east):  "line 2, column 3 (counted)",
		fmt.Sprintf("sku,warehouseId,delta\nA,%s,1,2\n", s.east):   "line 2, column 4",
		fmt.Sprintf("sku,warehouseId,delta\nA,%s\n", s.east):       "line 2, column 3 (delta)",
		fmt.Sprintf("sku,warehouseId,price\nA,%s,1\n", s.east):     "line 1, column 3",
		fmt.Sprintf("sku,warehouseId,delta\nA\x00,%s,1\n", s.east): "line 2, column 1 (sku)",
		"":                               "body",
		"sku,warehouseId,delta\n" + many: "body",
		"sku,warehouseId,delta\nA,,-2000000001\n": "line 2, column warehouse",
		fmt.Sprintf("sku,warehouseId,delta,note\n\"A\",%s,1,\"%s\"\n", s.east,
			strings.Repeat("n", 501)): "line 2, column 4 (note)",
	} {
		a := csv(movementsPath+"?source=erp&reference=s", body)
		a.want(t, http.StatusBadRequest, "VALIDATION_FAILED")
		if details := decode[problemBody](t, a).Details; len(details[field]) == 0 {
			t.Errorf("details of %.60q = %v, want %s", body, details, field)
		}
	}
}

func TestInvalidMovementsNameTheField(t *testing.T) {
	t.Parallel()

	c := newClient(t, unreachable)
	const id = `"productId":"5f0c0de2-6b0f-4c4b-9f5e-0d6f3d1a7c01",` +
		`"warehouseId":"9b2f1d7e-3a50-4a0f-8c3e-71f5c2b0aa01"`
	line := func(fields string) string {
		return `{"source":"s","reference":"r","lines":[{` + id + fields + `}]}`
	}
	for body, field := range map[string]string{
		`{"reference":"r","lines":[{` + id + `,"delta":1}]}`:                     "source",
		`{"source":"s","lines":[{` + id + `,"delta":1}]}`:                        "reference",
		`{"source":"s","reference":"r"}`:                                         "lines",
		`{"source":"s","reference":"r","lines":[]}`:                              "lines",
		`{"source":"s","reference":"r","lines":[{}],"onHeld":"x"}`:               "onHeld",
		`{"source":"s","reference":"r","lines":[{}],"together":1}`:               "together",
		`{"source":"a\u0000b","reference":"r","lines":[{` + id + `,"delta":1}]}`: "source",
		line(``):                                                  "lines[0].delta",
		line(`,"delta":1,"counted":1`):                            "lines[0].delta",
		line(`,"delta":1.5`):                                      "lines[0].delta",
		line(`,"delta":99999999999999999999`):                     "lines[0].delta",
		line(`,"delta":1,"sku":"A"`):                              "lines[0].sku",
		line(`,"delta":1,"warehouse":"A"`):                        "lines[0].warehouse",
		line(`,"counted":-1`):                                     "lines[0].counted",
		line(`,"delta":1,"asOfSeq":1`):                            "lines[0].asOfSeq",
		line(`,"counted":1,"asOfSeq":0`):                          "lines[0].asOfSeq",
		line(`,"delta":1,"note":""`):                              "lines[0].note",
		line(`,"delta":1,"price":1`):                              "lines[0].price",
		strings.Replace(line(`,"delta":1`), `"9b2f1d7e`, `"x`, 1): "lines[0].warehouseId",
	} {
		c.post(movementsPath, body).wantInvalid(t, field)
	}
	body := `{"source":"s","reference":"r","together":"yes","lines":[{}]}`
	details := decode[problemBody](t, c.post(movementsPath, body)).Details
	if diff := cmp.Diff([]string{"must be true or false"}, details["together"]); diff != "" {
		t.Errorf("the messages of together differ (-want +got):\n%s", diff)
	}
	c.post(movementsPath, line(`,"delta":1`)).wantAccepted(t)
	c.post(movementsPath, line(`,"delta":0`)).wantAccepted(t)
	c.post(movementsPath, line(`,"counted":0,"asOfSeq":1,"note":"n"`)).wantAccepted(t)

	many := strings.TrimSuffix(strings.Repeat(`{`+id+`,"delta":1,"note":"`+strings.Repeat("n", 500)+
		`"},`, 500), ",")
	c.post(movementsPath, `{"source":"s","reference":"r","lines":[`+many+`]}`).wantAccepted(t)
	c.post(movementsPath, strings.Repeat(" ", 1<<20)+line(`,"delta":1`)).
		want(t, http.StatusRequestEntityTooLarge, "BODY_TOO_LARGE")
	c.post(movementsPath, line(`,"delta":1`), "Content-Type", "text/xml").
		want(t, http.StatusUnsupportedMediaType, "UNSUPPORTED_MEDIA_TYPE")
	c.post(movementsPath, "sku", "Content-Type", "text/csv; charset=latin1").
		want(t, http.StatusUnsupportedMediaType, "UNSUPPORTED_MEDIA_TYPE")
}

func TestMovementsAreListed(t *testing.T) {
	t.Parallel()

	s := newStockedClient(t)
	s.post(movementsPath, fmt.Sprintf(`{"source":"erp","reference":"a&b","lines":[
{"sku":"CM-300","warehouseId":%q,"delta":5},{"sku":"CM-300","warehouseId":%q,"counted":14}]}`,
		s.east, s.east)).want(t, http.StatusOK, "")
	hold := s.reserve(t, reserveBody(s.mug, s.east, 2))
	s.post(hold+"/confirm", "").want(t, http.StatusOK, "")

	type movement struct {
		Seq, Delta, TotalAfter int
		Kind                   string
		Source, Reference      *string
		Line                   *int
		ReservationID          *string
	}
	next := regexp.MustCompile(`^<([^>]+)>; rel="next"$`)
	for query, want := range map[string][]string{
		"productId=" + s.mug.String() + "&warehouseId=" + s.east.String(): {
			"4 SALE -2 12", "3 COUNT -1 14", "2 ADJUSTMENT 5 15", "1 OPENING 10 10",
		},
		"source=erp&reference=" + url.QueryEscape("a&b"): {"3 COUNT -1 14", "2 ADJUSTMENT 5 15"},
		"source=erp&reference=none":                      nil,
	} {
		var got []string
		for path := movementsPath + "?" + query + "&limit=1"; path != ""; {
			a := s.get(path).want(t, http.StatusOK, "")
			for _, m := range decode[[]movement](t, a) {
				got = append(got, fmt.Sprint(m.Seq, " ", m.Kind, " ", m.Delta, " ", m.TotalAfter))
				if m.ReservationID != nil && !strings.HasSuffix(hold, *m.ReservationID) {
					t.Errorf("the sale's reservationId is %s, want that of %s", *m.ReservationID, hold)
				}
			}
			path = ""
			if link := next.FindStringSubmatch(a.header.Get("Link")); link != nil {
				path = link[1]
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("the movements of %s differ (-want +got):\n%s", query, diff)
		}
	}
	cursorOf := func(query string) string {
		t.Helper()
		a := s.get(movementsPath + "?" + query + "&limit=1")
		link, err := url.Parse(next.FindStringSubmatch(a.header.Get("Link"))[1])
		if err != nil {
			t.Fatal(err)
		}
		return link.Query().Get("cursor")
	}
	row := "productId=" + s.mug.String() + "&warehouseId=" + s.east.String()
	other := "productId=" + s.lamp.String() + "&warehouseId=" + s.east.String()
	document, another := "source=erp&reference=a%26b", "source=erp&reference=c"
	cursor, place := cursorOf(row), cursorOf(document)
	for query, field := range map[string]string{
		"":                              "productId",
		"productId=" + s.mug.String():   "productId",
		row + "&source=erp":             "productId",
		row + "&source=erp&reference=r": "productId",
		row + "&limit=501":              "limit",
		row + "&cursor=x":               "cursor",
		row + "&cursor=" + place:        "cursor",
		document + "&cursor=" + cursor:  "cursor",
		// The cursors of another list in the same order.
		other + "&cursor=" + cursor:  "cursor",
		another + "&cursor=" + place: "cursor",
	} {
		s.get(movementsPath+"?"+query).wantInvalid(t, field)
	}
	// The previous release's cursors name no list.
	for query, cursor := range map[string]string{row: cursor, document: place} {
		order, encoded, _ := strings.Cut(cursor, ".")
		key, err := base64.RawURLEncoding.DecodeString(encoded)
		if err != nil {
			t.Fatal(err)
		}
		old := order + "." + base64.RawURLEncoding.EncodeToString(append(make([]byte, 16), key[16:]...))
		now := s.get(movementsPath+"?"+query+"&cursor="+cursor).want(t, http.StatusOK, "")
		before := s.get(movementsPath+"?"+query+"&cursor="+old).want(t, http.StatusOK, "")
		if string(now.body) != string(before.body) {
			t.Errorf("%s = %s, want %s as by the newer cursor", before.sent, before.body, now.body)
		}
	}
}
