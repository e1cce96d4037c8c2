package e2e

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"
)

// movementResults writes the results of a document for a comparison.
func movementResults(t *testing.T, a answer) (lines []string) {
	t.Helper()
	for _, r := range decode[struct {
		Results []struct {
			Line, Delta   int
			Outcome       string
			TotalQuantity *int
			Problem       struct{ Code string }
		}
	}](t, a).Results {
		total := -1
		if r.TotalQuantity != nil {
			total = *r.TotalQuantity
		}
		lines = append(lines,
			fmt.Sprintf("%d %s %d %d %s", r.Line, r.Outcome, r.Delta, total, r.Problem.Code))
	}
	return lines
}

func TestTheERPMovesStock(t *testing.T) {
	eachTransport(t, func(t *testing.T, d *deployment) {
		const path = "/api/stock/movements"
		want := func(a answer, status int, code string, results ...string) {
			t.Helper()
			a.want(t, status, code)
			if got := movementResults(t, a); fmt.Sprint(got) != fmt.Sprint(results) {
				t.Errorf("results = %q, want %q", got, results)
			}
		}
		d.reserve(line(mug, newYork, 4))
		sold := d.reserve(line(mug, newYork, 2))
		d.post("/api/reservations/"+sold.ID+"/confirm", "").want(t, http.StatusOK, "")

		delivery := fmt.Sprintf(`{"source":"erp","reference":"d1","lines":[
{"sku":"CM-300","warehouseId":%q,"delta":40},
{"sku":"CM-300","warehouseId":%q,"counted":29,"asOfSeq":1},
{"sku":"CM-300","warehouseId":%q,"counted":3}]}`, newYork, newYork, newYork)
		want(d.post(path, delivery), http.StatusOK, "",
			"1 APPLIED 40 68 ", "2 APPLIED -1 67 ", "3 REFUSED 0 -1 STOCK_HELD")
		want(d.post(path, delivery), http.StatusOK, "",
			"1 REPLAYED 40 68 ", "2 REPLAYED -1 67 ", "3 REFUSED 0 -1 STOCK_HELD")
		csv := fmt.Sprintf("\ufeffsku;warehouseId;counted\r\n\"CM-300\";%s;3\r\n", newYork)
		want(d.send(request{
			method: "POST", path: path + "?source=erp&reference=d2&onHeld=CLAMP", body: csv,
			header: map[string]string{"Content-Type": "text/csv"},
		}), http.StatusOK, "", "1 APPLIED -63 4 ")
		want(d.post(path, fmt.Sprintf(`{"source":"erp","reference":"d3","together":true,"lines":[
{"sku":"CM-300","warehouseId":%q,"delta":1},{"sku":"none","warehouseId":%q,"delta":1}]}`,
			newYork, newYork)), http.StatusConflict, "MOVEMENTS_REFUSED",
			"1 UNCHANGED 0 -1 ", "2 REFUSED 0 -1 PRODUCT_NOT_FOUND")
		d.wantStock(mug, newYork, 4, 4)

		var kinds []string
		for _, m := range decode[[]struct{ Kind string }](t, d.get(path+"?productId="+mug.String()+
			"&warehouseId="+newYork.String()).want(t, http.StatusOK, "")) {
			kinds = append(kinds, m.Kind)
		}
		if got := fmt.Sprint(kinds); got != "[COUNT COUNT ADJUSTMENT SALE OPENING]" {
			t.Errorf("the movements are %s", got)
		}
	})
}

// movedLine is the result of a line, with the fields of the contract.
type movedLine struct {
	Line                   int
	ProductID, WarehouseID *string
	Outcome                string
	Delta                  int
	TotalQuantity, Seq     *int
	Shortfall              *int
	Problem                *struct {
		Code   string
		Status int
		Held   *int
	}
}

// outcomes writes the results of a document: outcome, delta, total, number, shortfall, problem.
func (d *deployment) outcomes(a answer) (lines []string) {
	d.t.Helper()
	for i, r := range decode[struct{ Results []movedLine }](d.t, a).Results {
		if r.Line != i+1 {
			d.t.Errorf("result %d is of line %d", i, r.Line)
		}
		text := fmt.Sprintf("%s %d", r.Outcome, r.Delta)
		if r.TotalQuantity != nil && r.Seq != nil {
			text += fmt.Sprintf(" to %d by %d", *r.TotalQuantity, *r.Seq)
			if r.ProductID == nil || r.WarehouseID == nil {
				d.t.Errorf("the result %+v has a movement and no stock row", r)
			}
		}
		if r.Shortfall != nil {
			text += fmt.Sprintf(" short of %d", *r.Shortfall)
		}
		if p := r.Problem; p != nil {
			text += fmt.Sprintf(" %s %d", p.Code, p.Status)
			if p.Held != nil {
				text += fmt.Sprintf(" %d", *p.Held)
			}
		}
		lines = append(lines, text)
	}
	return lines
}

func (d *deployment) wantOutcomes(a answer, status int, code string, want ...string) {
	d.t.Helper()
	a.want(d.t, status, code)
	if got := d.outcomes(a); !slices.Equal(got, want) {
		d.t.Errorf("the results are %q, want %q", got, want)
	}
}

const movements = "/api/stock/movements"

func TestEachLineOfADocumentHasItsOutcome(t *testing.T) {
	eachTransport(t, func(t *testing.T, d *deployment) {
		d.put("/api/catalog/products", `{"items":[{"sku":"TP-400","name":"Teapot"}]}`)
		d.reserve(line(mug, newYork, 4))
		document := fmt.Sprintf(`{"source":"erp","reference":"d1","lines":[
{"productId":%q,"warehouse":"NY","delta":5},
{"sku":"CM-300","warehouseId":%q,"counted":1,"asOfSeq":99},
{"sku":"CM-300","warehouse":"NY","delta":1000000000},
{"sku":"CM-300","warehouse":"NY","counted":35,"note":"after the fair"},
{"sku":"TP-400","warehouse":"NY","delta":7},
{"sku":"CM-300","warehouse":"NY","delta":0},
{"sku":"CM-300","warehouse":"ny","delta":1},
{"sku":"CM-300","warehouse":"NY","counted":3}]}`, mug, newYork)
		refused := func(done, unchanged string) []string {
			return []string{
				done + " 5 to 35 by 2", "REFUSED 0 SEQ_UNKNOWN 422",
				done + " 1000000000 to 1000000035 by 3",
				done + " -1000000000 to 35 by 4", done + " 7 to 7 by 1",
				unchanged + " 0 to 35 by 5", "REFUSED 0 WAREHOUSE_NOT_FOUND 404",
				"REFUSED 0 STOCK_HELD 409 4",
			}
		}
		d.wantOutcomes(d.post(movements, document), http.StatusOK, "",
			refused("APPLIED", "UNCHANGED")...)
		d.wantOutcomes(d.post(movements, document), http.StatusOK, "",
			refused("REPLAYED", "REPLAYED")...)
		d.wantStock(mug, newYork, 35, 4)
		const most = `{"sku":"CM-300","warehouse":"SF","delta":1000000000},`
		d.wantOutcomes(d.post(movements, `{"source":"erp","reference":"d3","lines":[`+most+most+
			`{"sku":"CM-300","warehouse":"SF","counted":50}]}`), http.StatusOK, "",
			"APPLIED 1000000000 to 1000000050 by 2", "REFUSED 0 TOO_MANY_UNITS 422",
			"APPLIED -1000000000 to 50 by 3")
		d.reserve(`{"productId":"` + d.productOf("TP-400") + `","warehouseId":"` + newYork.String() +
			`","quantity":7}`) // its stock row was made by its first movement

		other := func(more, lines string) answer {
			t.Helper()
			return d.post(movements, `{"source":"erp","reference":"d1"`+more+`,"lines":[`+lines+`]}`)
		}
		const six = `{"sku":"CM-300","warehouse":"NY","delta":6}`
		d.wantOutcomes(other("", six), http.StatusOK, "", "REFUSED 0 REFERENCE_REUSED 409")
		d.wantOutcomes(other(`,"together":true`, six), http.StatusConflict, "MOVEMENTS_REFUSED",
			"REFUSED 0 REFERENCE_REUSED 409")
		d.wantOutcomes(d.post(movements, `{"source":"erp","reference":"d2","onHeld":"CLAMP","lines":[
{"sku":"CM-300","warehouse":"NY","counted":1},{"sku":"CM-300","warehouse":"NY","delta":-2}]}`),
			http.StatusOK, "", "APPLIED -31 to 4 by 6 short of 3", "UNCHANGED 0 to 4 by 7 short of 2")
		d.wantStock(mug, newYork, 4, 4)
	})
}

// productOf finds the id of a product.
func (d *deployment) productOf(sku string) string {
	d.t.Helper()
	found := decode[[]product](d.t, d.get("/api/products?sku="+sku).want(d.t, http.StatusOK, ""))
	if len(found) != 1 {
		d.t.Fatalf("there are %d products %s", len(found), sku)
	}
	return found[0].ID
}

func TestADocumentHasItsLimitsAndItsKey(t *testing.T) {
	eachTransport(t, func(t *testing.T, d *deployment) {
		const one = `{"sku":"CM-300","warehouse":"NY","delta":1}`
		document := func(reference, lines string) string {
			return fmt.Sprintf(`{"source":"erp","reference":%q,"lines":[%s]}`, reference, lines)
		}
		for lines, refused := range map[int]bool{0: true, 501: true, 500: false} {
			a := d.post(movements, document("many", repeated(one, lines)))
			if refused {
				a.want(t, http.StatusBadRequest, "VALIDATION_FAILED")
			} else if got := d.outcomes(a.want(t, http.StatusOK, "")); len(got) != lines {
				t.Errorf("%d lines have %d results", lines, len(got))
			}
		}
		d.wantStock(mug, newYork, 530, 0)

		large := document("large", one)
		large += strings.Repeat(" ", 1<<20-len(large))
		d.wantOutcomes(d.post(movements, large), http.StatusOK, "", "APPLIED 1 to 531 by 502")
		d.post(movements, large+" ").want(t, http.StatusRequestEntityTooLarge, "BODY_TOO_LARGE")
		d.send(request{
			method: "POST", path: movements, body: large,
			header: map[string]string{"Content-Type": "text/plain"},
		}).want(t, http.StatusUnsupportedMediaType, "UNSUPPORTED_MEDIA_TYPE")

		first := d.postWithKey(movements, "delivery 7", document("keyed", one)).
			want(t, http.StatusOK, "")
		again := d.postWithKey(movements, "delivery 7", document("keyed", one)).
			want(t, http.StatusOK, "")
		if string(first.body) != string(again.body) ||
			again.header.Get("Idempotency-Replayed") != "true" ||
			first.header.Get("Idempotency-Replayed") != "" {
			t.Errorf("the replay is %s %v, want %s, marked as replayed", again.body, again.header,
				first.body)
		}
		d.postWithKey(movements, "delivery 7", document("another", one)).
			want(t, http.StatusUnprocessableEntity, "IDEMPOTENCY_KEY_REUSED")
		d.postWithKey(movements, "a,b", document("another", one)).
			want(t, http.StatusBadRequest, "VALIDATION_FAILED")
		d.wantStock(mug, newYork, 532, 0)
	})
}

// A result's line is the number of the record, whatever the layout of the file is. An error names
// the line of the file.
func TestALineOfCSVIsItsRecord(t *testing.T) {
	eachTransport(t, func(t *testing.T, d *deployment) {
		const document = movements + "?source=erp&reference=r"
		const records = "sku;warehouse;delta\n\nCM-300;NY;0\n\n\nCM-300;NY;2\n"
		d.wantOutcomes(d.send(csv(document, records)), http.StatusOK, "",
			"UNCHANGED 0 to 30 by 2", "APPLIED 2 to 32 by 3")
		d.wantOutcomes(d.send(csv(document, strings.ReplaceAll(records, "\n\n", "\n"))),
			http.StatusOK, "", "REPLAYED 0 to 30 by 2", "REPLAYED 2 to 32 by 3")
		a := d.send(csv(document, "sku;warehouse;delta\n\nCM-300;NY;x\n")).
			want(t, http.StatusBadRequest, "VALIDATION_FAILED")
		if !strings.Contains(string(a.body), "line 3, column 3 (delta)") {
			t.Errorf("the error is %s, want line 3", a.body)
		}
	})
}

func TestADocumentsMovementsAreListed(t *testing.T) {
	eachTransport(t, func(t *testing.T, d *deployment) {
		d.post(movements, `{"source":"erp","reference":"a&b","lines":[
{"sku":"CM-300","warehouse":"NY","delta":5,"note":"pallet 3"},
{"sku":"CM-300","warehouse":"NY","counted":34},
{"sku":"MK-200","warehouse":"LA","delta":1}]}`).want(t, http.StatusOK, "")
		sold := d.reserve(line(mug, newYork, 2))
		d.post("/api/reservations/"+sold.ID+"/confirm", "").want(t, http.StatusOK, "")

		list := func(query string) (all []string, cursor string) {
			t.Helper()
			for path := movements + "?" + query; path != ""; {
				a := d.get(path).want(t, http.StatusOK, "")
				page := decode[[]map[string]any](t, a)
				for _, m := range page {
					at, err := time.Parse(time.RFC3339, fmt.Sprint(m["at"]))
					if err != nil || time.Since(at).Abs() > time.Hour {
						t.Errorf("the movement %v is of no time of this hour: %v", m, err)
					}
					delete(m, "at")
					all = append(all, marshal(t, m))
				}
				path = ""
				if m := nextLink.FindStringSubmatch(a.header.Get("Link")); m != nil {
					path = m[1]
					u, err := url.Parse(path)
					if err != nil || len(page) != 1 {
						t.Fatalf("the page of %s has %d movements and the link %s", query, len(page), path)
					}
					cursor = u.Query().Get("cursor")
				}
			}
			return all, cursor
		}
		movement := func(seq, delta, after int, kind, document, rest string) string {
			return fmt.Sprintf(`{"actor":null,"delta":%d,"kind":%q,%s,"seq":%d,%s,"totalAfter":%d,`+
				`"warehouseId":%q}`, delta, kind, document, seq, rest, after, newYork)
		}
		of := func(line int, note string) string {
			return fmt.Sprintf(`"line":%d,"note":%s,"productId":%q,"reference":"a\u0026b",`+
				`"reservationId":null`, line, note, mug)
		}
		const erp, nobody = `"source":"erp"`, `"source":null`
		count := movement(3, -1, 34, "COUNT", of(2, "null"), erp)
		delivery := movement(2, 5, 35, "ADJUSTMENT", of(1, `"pallet 3"`), erp)
		sale := movement(4, -2, 32, "SALE", fmt.Sprintf(`"line":null,"note":null,"productId":%q,`+
			`"reference":null,"reservationId":%q`, mug, sold.ID), nobody)

		row := "limit=1&productId=" + mug.String() + "&warehouseId=" + newYork.String()
		got, rowCursor := list(row)
		if want := []string{sale, count, delivery}; len(got) != 4 || !slices.Equal(got[:3], want) {
			t.Errorf("the row's movements are %q, want %q and an OPENING", got, want)
		}
		const document = "limit=1&source=erp&reference=a%26b"
		got, cursor := list(document)
		if want := []string{count, delivery}; len(got) != 3 || !slices.Equal(got[1:], want) ||
			!strings.Contains(got[0], keyboard.String()) {
			t.Errorf("the document's movements are %q, want the keyboard's and %q", got, want)
		}
		for _, query := range []string{
			row + "&cursor=" + cursor, document + "&cursor=" + rowCursor,
			"limit=1&source=erp&reference=c&cursor=" + cursor, "source=erp", "limit=1",
			"limit=501&source=erp&reference=c", "limit=0&source=erp&reference=c",
		} {
			d.get(movements+"?"+query).want(t, http.StatusBadRequest, "VALIDATION_FAILED")
		}
		d.get(movements+"?limit=500&source=erp&reference=c").want(t, http.StatusOK, "")
	})
}
