package httpapi_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
)

// returnBody is the body of a return with these lines.
func returnBody(reference string, lines ...string) string {
	return fmt.Sprintf(`{"reference":%q,"lines":[%s]}`, reference, strings.Join(lines, ","))
}

// returnLine is a line of a return with more fields as JSON text.
func returnLine(product, warehouse uuid.UUID, quantity int, more string) string {
	return strings.TrimSuffix(reserveBody(product, warehouse, quantity), "}") + more + "}"
}

// returnedLines writes the lines that were taken back for a comparison.
func (s stockedClient) returnedLines(a answer) (lines []string) {
	s.t.Helper()
	names := map[uuid.UUID]string{s.mug: "mug", s.lamp: "lamp", s.east: "east", s.west: "west"}
	for _, line := range decode[struct {
		Returned []struct {
			ProductID, WarehouseID uuid.UUID
			Quantity               int
			Restock                bool
			ToWarehouseID          *uuid.UUID
			Seq                    *int
		}
	}](s.t, a).Returned {
		text := fmt.Sprint(line.Quantity, " ", names[line.ProductID], " of ", names[line.WarehouseID])
		if line.Restock != (line.ToWarehouseID != nil) || line.Restock != (line.Seq != nil) {
			s.t.Errorf("line %+v contradicts itself", line)
		}
		if line.Restock {
			text += fmt.Sprint(" to ", names[*line.ToWarehouseID], " by ", *line.Seq)
		}
		lines = append(lines, text)
	}
	slices.Sort(lines)
	return lines
}

func TestAReturn(t *testing.T) {
	t.Parallel()

	s := newStockedClient(t)
	path := s.reserve(t, cartBody(reserveBody(s.mug, s.east, 4), reserveBody(s.lamp, s.east, 1)))
	sold := s.post(path+"/confirm", "").want(t, http.StatusOK, "").reservation(t)
	body := returnBody("r", returnLine(s.mug, s.east, 1, ""),
		returnLine(s.mug, s.east, 1, `,"restock":false,"toWarehouseId":null`),
		returnLine(s.lamp, s.east, 1, fmt.Sprintf(`,"restock":null,"toWarehouseId":%q`, s.west)))

	first := s.post(path+"/returns", body, "Idempotency-Key", "a").want(t, http.StatusOK, "")

	if diff := cmp.Diff([]string{
		"1 lamp of east to west by 2", "1 mug of east", "1 mug of east to east by 3",
	}, s.returnedLines(first)); diff != "" {
		t.Errorf("the lines differ (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(sold, first.reservation(t)); diff != "" {
		t.Errorf("the return changed the reservation (-sold +returned):\n%s", diff)
	}
	for key, replayed := range map[string]string{"a": "true", "b": "", "": ""} {
		var header []string
		if key != "" {
			header = []string{"Idempotency-Key", key}
		}
		again := s.post(path+"/returns", body, header...).want(t, http.StatusOK, "")
		if string(again.body) != string(first.body) ||
			again.header.Get("Idempotency-Replayed") != replayed {
			t.Errorf("the return again under %q = %s, replayed %q, want %s", key, again.body,
				again.header.Get("Idempotency-Replayed"), first.body)
		}
	}
	other := returnBody("r", returnLine(s.mug, s.east, 1, ""))
	s.post(path+"/returns", other).want(t, http.StatusConflict, "REFERENCE_REUSED")
	s.post(path+"/returns", other, "Idempotency-Key", "a").
		want(t, http.StatusUnprocessableEntity, "IDEMPOTENCY_KEY_REUSED")
	tooMany := s.post(path+"/returns", returnBody("s", returnLine(s.mug, s.east, 2, ""),
		returnLine(s.mug, s.east, 1, `,"restock":false`))).
		want(t, http.StatusConflict, "RETURN_EXCEEDS_SOLD")
	excess := decode[struct{ Excess []map[string]any }](t, tooMany).Excess
	if diff := cmp.Diff([]map[string]any{{
		"productId": s.mug.String(), "warehouseId": s.east.String(), "sold": 4.0, "returned": 2.0,
		"requested": 3.0,
	}}, excess); diff != "" {
		t.Errorf("the excess differs (-want +got):\n%s", diff)
	}
	s.post(path+"/returns", returnBody("s", returnLine(s.mug, s.east, 1,
		fmt.Sprintf(`,"toWarehouseId":%q`, uuid.New())))).
		want(t, http.StatusNotFound, "WAREHOUSE_NOT_FOUND")
	s.db.Exec(`
SELECT adjust_stock(product_id, warehouse_id, 2000000000 - total, 'test') FROM inventory
WHERE warehouse_id = $1`, s.east.String())
	s.post(path+"/returns", returnBody("s", returnLine(s.mug, s.east, 1, ""))).
		want(t, http.StatusUnprocessableEntity, "TOO_MANY_UNITS")
}

func TestOnlyAConfirmedReservationTakesReturns(t *testing.T) {
	t.Parallel()

	s := newStockedClient(t)
	live, dead, released := s.reserve(t, reserveBody(s.mug, s.east, 1)),
		s.reserve(t, reserveBody(s.mug, s.east, 1)), s.reserve(t, reserveBody(s.mug, s.east, 1))
	s.kill(dead)
	s.post(released+"/release", "").want(t, http.StatusOK, "")
	for _, path := range []string{live, dead, released} {
		s.post(path+"/returns", returnBody("r", returnLine(s.mug, s.east, 1, ""))).
			want(t, http.StatusConflict, "RESERVATION_NOT_CONFIRMED")
	}
}

func TestAnInvalidReturnNamesTheField(t *testing.T) {
	t.Parallel()

	c := newClient(t, unreachable)
	const path = "/api/reservations/" + hold + "/returns"
	line := func(quantity, more string) string { return returnBody("r", lineBody(quantity, more)) }
	changed := func(old, replacement string) string {
		return strings.Replace(line("1", ""), old, replacement, 1)
	}
	for body, field := range map[string]string{
		`{"lines":[` + lineBody("1", "") + `]}`:                     "reference",
		`{"reference":"","lines":[` + lineBody("1", "") + `]}`:      "reference",
		returnBody(strings.Repeat("r", 101), lineBody("1", "")):     "reference",
		returnBody("a\tb", lineBody("1", "")):                       "reference",
		`{"reference":"r"}`:                                         "lines",
		returnBody("r"):                                             "lines",
		returnBody("r", differentLines(101)...):                     "lines",
		returnBody("r", lineBody("1", ""), lineBody("1000000", "")): "lines",
		line("0", ""):                     "lines[0].quantity",
		line("-1", ""):                    "lines[0].quantity",
		line("1.5", ""):                   "lines[0].quantity",
		line("1000001", ""):               "lines[0].quantity",
		line("99999999999999999999", ""):  "lines[0].quantity",
		line("1", `,"restock":"no"`):      "lines[0].restock",
		line("1", `,"toWarehouseId":"x"`): "lines[0].toWarehouseId",
		line("1", `,"restock":false,"toWarehouseId":"`+warehouse+`"`): "lines[0].toWarehouseId",
		line("1", `,"note":"x"`):                           "lines[0].note",
		changed(product, "x"):                              "lines[0].productId",
		changed(warehouse, "x"):                            "lines[0].warehouseId",
		changed(`"quantity":1`, `"quantity":null`):         "lines[0].quantity",
		changed(`"reference"`, `"source":"s","reference"`): "source",
	} {
		c.post(path, body).wantInvalid(t, field)
	}
	c.post(path, line("1", "")).wantAccepted(t)
	c.post(path, line("1", `,"restock":true,"toWarehouseId":"`+warehouse+`"`)).wantAccepted(t)
	c.post(path, returnBody(strings.Repeat("é", 100), differentLines(100)...)).wantAccepted(t)
	c.post(path, returnBody("r", append(differentLines(100), differentLines(1)...)...)).wantAccepted(t)
}
