package httpapi_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/google/uuid"

	"github.com/allo/reservations/internal/httpapi/openapi"
)

const (
	product   = "5f0c0de2-6b0f-4c4b-9f5e-0d6f3d1a7c01"
	warehouse = "9b2f1d7e-3a50-4a0f-8c3e-71f5c2b0aa01"
	hold      = "019aa6d2-7f3e-7cc4-a3a5-6f2b8f1f9e10"
)

// lineBody is the body of a reserve of one line, with the quantity and more fields as JSON text.
func lineBody(quantity, more string) string {
	const format = `{"productId":%q,"warehouseId":%q,"quantity":%s%s}`
	return fmt.Sprintf(format, product, warehouse, quantity, more)
}

// withProduct is a valid body with another text as the product's id.
func withProduct(id string) string {
	return strings.Replace(lineBody("1", ""), product, id, 1)
}

// renameField is a valid body with another name for the field productId.
func renameField(name string) string {
	return strings.Replace(lineBody("1", ""), "productId", name, 1)
}

// cartBody is the body of a reserve of several lines.
func cartBody(items ...string) string { return `{"items":[` + strings.Join(items, ",") + `]}` }

// differentLines returns n lines of n products.
func differentLines(n int) []string {
	items := make([]string, n)
	for i := range items {
		items[i] = strings.Replace(
			lineBody("1", ""),
			product,
			fmt.Sprintf("5f0c0de2-6b0f-4c4b-9f5e-%012d", i),
			1,
		)
	}
	return items
}

// The reasons why JSON Schema, and so the document, decides otherwise than the service.
const (
	merged     = "lines are merged before they are counted"
	decoded    = "a decoded object has no duplicates"
	setting    = "the longest hold is a setting"
	wholeFloat = "to JSON Schema 1.0 and 1e3 are whole numbers"
)

// named is a field with a name of so many characters, as JSON text after a comma.
func named(field string, length int) string {
	return fmt.Sprintf(`,%q:%q`, field, strings.Repeat("é", length))
}

// bodies are bodies of a reserve, with the field that the service refuses. An empty field means
// that the request reaches the database.
var bodies = []struct {
	name, body, field string
	// differs is the reason why JSON Schema, and so the document, decides otherwise.
	differs string
}{
	{"quantity 0", lineBody("0", ""), "quantity", ""},
	{"quantity 1", lineBody("1", ""), "", ""},
	{"quantity 1000000", lineBody("1000000", ""), "", ""},
	{"quantity 1000001", lineBody("1000001", ""), "quantity", ""},
	{"quantity -1", lineBody("-1", ""), "quantity", ""},
	{"quantity -0", lineBody("-0", ""), "quantity", ""},
	{"quantity 1.0", lineBody("1.0", ""), "quantity", wholeFloat},
	{"quantity 1e3", lineBody("1e3", ""), "quantity", wholeFloat},
	{"quantity 1.5", lineBody("1.5", ""), "quantity", ""},
	{"quantity of text", lineBody(`"1"`, ""), "quantity", ""},
	{"quantity null", lineBody("null", ""), "quantity", ""},
	{"quantity true", lineBody("true", ""), "quantity", ""},
	{"quantity array", lineBody("[1]", ""), "quantity", ""},
	{"quantity beyond 64 bits", lineBody("18446744073709551617", ""), "quantity", ""},
	{"quantity beyond floating point", lineBody("1e400", ""), "quantity", ""},
	{"quantity of many digits", lineBody("1"+strings.Repeat("0", 1000), ""), "quantity", ""},
	{"quantity with a leading zero", lineBody("01", ""), "body", ""},
	{"quantity with a plus", lineBody("+1", ""), "body", ""},
	{"quantity in hexadecimal", lineBody("0x1", ""), "body", ""},
	{"quantity NaN", lineBody("NaN", ""), "body", ""},

	{
		"no quantity",
		`{"productId":"` + product + `","warehouseId":"` + warehouse + `"}`,
		"quantity",
		"",
	},
	{"no product", `{"quantity":1,"warehouseId":"` + warehouse + `"}`, "productId", ""},
	{"no warehouse", `{"quantity":1,"productId":"` + product + `"}`, "warehouseId", ""},
	{
		"product null",
		strings.Replace(lineBody("1", ""), `"`+product+`"`, "null", 1),
		"productId",
		"",
	},
	{
		"product number",
		strings.Replace(lineBody("1", ""), `"`+product+`"`, "1", 1),
		"productId",
		"",
	},
	{"product empty", withProduct(""), "productId", ""},
	{"product without hyphens", withProduct(strings.ReplaceAll(product, "-", "")), "productId", ""},
	{"product in braces", withProduct("{" + product + "}"), "productId", ""},
	{"product as a URN", withProduct("urn:uuid:" + product), "productId", ""},
	{"product with a digit less", withProduct(product[1:]), "productId", ""},
	{"product with a digit more", withProduct(product + "0"), "productId", ""},
	{"product that isn't hexadecimal", withProduct("g" + product[1:]), "productId", ""},
	{"product in upper case", withProduct(strings.ToUpper(product)), "", ""},
	{"product with an escaped NUL", withProduct(product[1:] + `\u0000`), "productId", ""},
	{"product with a bare NUL", withProduct(product[1:] + "\x00"), "body", ""},
	{"product with invalid UTF-8", withProduct(product[1:] + "\xff"), "body", ""},
	{"product with half a surrogate", withProduct(product[1:] + `\ud800`), "body", ""},

	{"no items", cartBody(), "items", ""},
	{"1 item", cartBody(differentLines(1)...), "", ""},
	{"100 items", cartBody(differentLines(100)...), "", ""},
	{"101 items", cartBody(differentLines(101)...), "items", ""},
	{
		"101 items of 100 rows",
		cartBody(append(differentLines(100), differentLines(1)...)...),
		"",
		merged,
	},
	{
		"items that add up to 1000000",
		cartBody(lineBody("500000", ""), lineBody("500000", "")),
		"",
		"",
	},
	{
		"items that add up to 1000001",
		cartBody(lineBody("500000", ""), lineBody("500001", "")),
		"items",
		"JSON Schema doesn't add",
	},
	{
		"an item of quantity 0 beside one of 5",
		cartBody(lineBody("0", ""), lineBody("5", "")),
		"items[0].quantity",
		"",
	},
	{
		"an item of a negative quantity",
		cartBody(lineBody("2", ""), lineBody("-1", "")),
		"items[1].quantity",
		"",
	},
	{"an item of 1.0", cartBody(lineBody("1.0", "")), "items[0].quantity", wholeFloat},
	{"an item with an unknown field", cartBody(lineBody("1", `,"price":1`)), "items[0].price", ""},
	{
		"an item with ttlSeconds",
		cartBody(lineBody("1", `,"ttlSeconds":60`)),
		"items[0].ttlSeconds",
		"",
	},
	{
		"an item with a field twice",
		cartBody(lineBody("1", `,"quantity":1`)),
		"items[0].quantity",
		decoded,
	},
	{"an item that is a number", cartBody("1"), "items[0]", ""},
	{"an item that is an array", cartBody("[]"), "items[0]", ""},
	{"items that aren't an array", `{"items":{}}`, "items", ""},
	{"items of text", `{"items":"x"}`, "items", ""},
	{"both forms", lineBody("1", `,"items":[`+lineBody("1", "")+`]`), "items", ""},
	{"both forms, one in part", `{"quantity":1,"items":[` + lineBody("1", "") + `]}`, "items", ""},
	{"both forms, one empty", lineBody("1", `,"items":[]`), "items", ""},
	{"one form beside a null", lineBody("1", `,"items":null`), "", "a null counts as absent"},

	{"ttlSeconds 0", lineBody("1", `,"ttlSeconds":0`), "ttlSeconds", ""},
	{"ttlSeconds 1", lineBody("1", `,"ttlSeconds":1`), "", ""},
	{"ttlSeconds 3600", lineBody("1", `,"ttlSeconds":3600`), "", ""},
	{"ttlSeconds 3601", lineBody("1", `,"ttlSeconds":3601`), "ttlSeconds", setting},
	{"ttlSeconds -1", lineBody("1", `,"ttlSeconds":-1`), "ttlSeconds", ""},
	{"ttlSeconds 1.5", lineBody("1", `,"ttlSeconds":1.5`), "ttlSeconds", ""},
	{"ttlSeconds of text", lineBody("1", `,"ttlSeconds":"60"`), "ttlSeconds", ""},
	{"ttlSeconds null", lineBody("1", `,"ttlSeconds":null`), "", ""},
	{
		"ttlSeconds that overflow nanoseconds",
		lineBody("1", `,"ttlSeconds":18446744074`),
		"ttlSeconds",
		setting,
	},
	{
		"ttlSeconds of 63 bits",
		lineBody("1", `,"ttlSeconds":9223372036854775807`),
		"ttlSeconds",
		setting,
	},
	{
		"ttlSeconds beyond 64 bits",
		lineBody("1", `,"ttlSeconds":9223372036854775808`),
		"ttlSeconds",
		setting,
	},

	{"a reference", lineBody("1", `,"reference":"order 1"`), "", ""},
	{"a reference of 100 characters", lineBody("1", named("reference", 100)), "", ""},
	{"a reference of 101 characters", lineBody("1", named("reference", 101)), "reference", ""},
	{"an empty reference", lineBody("1", `,"reference":""`), "reference", ""},
	{"a reference null", lineBody("1", `,"reference":null`), "", ""},
	{"a reference that is a number", lineBody("1", `,"reference":1`), "reference", ""},
	{"a reference with a line break", lineBody("1", `,"reference":"a\nb"`), "reference", ""},
	{"a reference with a NUL", lineBody("1", `,"reference":"\u0000"`), "reference", ""},
	{"a reference with a C1 control", lineBody("1", `,"reference":"\u0085"`), "reference", ""},
	{"a reference of spaces", lineBody("1", `,"reference":" "`), "", ""},
	{"an owner of 255 characters", lineBody("1", named("owner", 255)), "", ""},
	{"an owner of 256 characters", lineBody("1", named("owner", 256)), "owner", ""},
	{"an empty owner", lineBody("1", `,"owner":""`), "owner", ""},
	{"an owner with a DEL", lineBody("1", `,"owner":"a\u007f"`), "owner", ""},
	{"a hold to replace", lineBody("1", `,"replaces":"`+hold+`"`), "", ""},
	{"a hold to replace null", lineBody("1", `,"replaces":null`), "", ""},
	{"a hold to replace without an id", lineBody("1", `,"replaces":""`), "replaces", ""},
	{"a hold to replace by its URL", lineBody("1", `,"replaces":"/api/reservations/`+hold+`"`), "replaces", ""},
	{"a cart for an owner", ordered(cartBody(lineBody("1", "")), `"owner":"ann","reference":"1"`), "", ""},
	{"an item with an owner", cartBody(lineBody("1", `,"owner":"ann"`)), "items[0].owner", ""},

	{"unknown field", lineBody("1", `,"price":1`), "price", ""},
	{"unknown field null", lineBody("1", `,"price":null`), "price", ""},
	{"unknown field without a name", lineBody("1", `,"":1`), "body", ""},
	{"unknown field with a NUL", lineBody("1", `,"\u0000":1`), "\x00", ""},
	{"a field in other case", renameField("productID"), "productID", ""},
	{"a field in snake case", renameField("product_id"), "product_id", ""},
	{"a field twice", lineBody("1", `,"quantity":1`), "quantity", decoded},
	{"a field twice, once escaped", lineBody("1", `,"\u0071uantity":2`), "quantity", decoded},

	{"nothing", "", "body", ""},
	{"white space", " \n", "body", ""},
	{"an array", "[" + lineBody("1", "") + "]", "body", ""},
	{"text", `"x"`, "body", ""},
	{"a number", "1", "body", ""},
	{"cut off", strings.TrimSuffix(lineBody("1", ""), "}"), "body", ""},
	{"two values", lineBody("1", "") + lineBody("1", ""), "body", ""},
	{"trailing text", lineBody("1", "") + "x", "body", ""},
	{"trailing NUL", lineBody("1", "") + "\x00", "body", ""},
	{"trailing comma", strings.Replace(lineBody("1", ""), "}", ",}", 1), "body", ""},
	{"white space around", " \t\r\n" + lineBody("1", "") + " \t\r\n", "", ""},
	{"a byte order mark", "\ufeff" + lineBody("1", ""), "body", ""},
	{"a comment", "/**/" + lineBody("1", ""), "body", ""},
	{"single quotes", strings.ReplaceAll(lineBody("1", ""), `"`, "'"), "body", ""},
	{"a form", "productId=1&quantity=1", "body", ""},
	{"invalid UTF-8 in a name", "{\"\xff\":1}", "body", ""},
	{"UTF-16", "\xff\xfe{\x00}\x00", "body", ""},
	{"nesting of 4", `{"items":[{"productId":[]}]}`, "body", ""},
	{"nesting of 4 in an unknown field", `{"x":[[[]]]}`, "body", ""},
	{"nesting of 20000", strings.Repeat("[", 20000) + strings.Repeat("]", 20000), "body", ""},
	{"nesting that never ends", strings.Repeat(`{"a":`, 10000), "body", ""},
}

func TestReserveTakesWhatTheContractAllows(t *testing.T) {
	t.Parallel()

	c := newClient(t, unreachable)
	for _, test := range bodies {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()

			a := c.in(t).post("/api/reservations", test.body)

			if test.field == "" {
				a.wantAccepted(t)
			} else {
				a.wantInvalid(t, test.field)
			}
		})
	}
}

// A client may check its requests against the document. It must get the service's result, except
// where JSON Schema can't express the rule.
func TestTheDocumentTakesWhatTheServiceTakes(t *testing.T) {
	t.Parallel()

	document, err := openapi.JSON()
	if err != nil {
		t.Fatal(err)
	}
	doc, err := openapi3.NewLoader().LoadFromData(document)
	if err != nil {
		t.Fatal(err)
	}
	schema := doc.Components.Schemas["ReserveRequest"].Value
	for _, test := range bodies {
		var value any
		if err := json.Unmarshal([]byte(test.body), &value); err != nil {
			continue // no JSON, so not the document's to judge
		}
		err := schema.VisitJSON(value, openapi3.EnableJSONSchema2020(), openapi3.VisitAsRequest(),
			openapi3.WithStringFormatValidator("uuid", openapi3.NewCallbackValidator(checkUUID)))
		if agrees := (err == nil) == (test.field == ""); agrees != (test.differs == "") {
			t.Errorf("%s: the service refuses the field %q, the document says %v; known reason: %q",
				test.name, test.field, err, test.differs)
		}
	}
}

func checkUUID(s string) error {
	if len(s) != len(product) {
		return fmt.Errorf("%q isn't of a UUID's length", s)
	}
	_, err := uuid.Parse(s)
	return err
}

// A number's message must name the contract's bounds, however far outside them the number is.
func TestANumberOutOfRangeIsToldItsRange(t *testing.T) {
	t.Parallel()

	const (
		seconds      = "must be a whole number from 1 to 3600"
		secondsAhead = "must be a whole number from 1"
		units        = "must be a whole number from 1 to 1000000"
		entries      = "must be a whole number from 1 to 200"
	)
	c := newClient(t, unreachable)
	check := func(a answer, field, want string) {
		t.Helper()
		a.wantInvalid(t, field)
		got := decode[problemBody](t, a).Details[field]
		if !slices.Equal(got, []string{want}) {
			t.Errorf("%s is told %q, want %q", a.sent, got, want)
		}
	}
	const reservations = "/api/reservations"
	tooSmall := []string{"0", "-0", "-1", "-9223372036854775808", "-99999999999999999999"}
	tooLarge := []string{
		"1000001", "2147483648", "4294967297", "9223372036", "9223372037", "18446744074",
		"9223372036854775807", "9223372036854775808", "18446744073709551617",
		"1" + strings.Repeat("0", 1000),
	}
	for _, number := range slices.Concat(tooSmall, tooLarge) {
		ttl := `,"ttlSeconds":` + number
		check(c.post(reservations, lineBody("1", ttl)), "ttlSeconds", seconds)
		check(c.post(reservations, lineBody(number, "")), "quantity", units)
		check(c.post(reservations, cartBody(lineBody(number, ""))), "items[0].quantity", units)
		check(c.get(reservations+"?limit="+number), "limit", entries)
		check(c.get("/api/products?limit="+number), "limit", entries)
	}
	for _, number := range tooSmall {
		check(c.post(reservations+"/"+hold+"/extend", `{"ttlSeconds":`+number+`}`), "ttlSeconds",
			secondsAhead)
	}
}

func TestAllInvalidFieldsAreListedAtOnce(t *testing.T) {
	t.Parallel()

	a := newClient(
		t,
		unreachable,
	).post("/api/reservations", cartBody(`{}`, `{"productId":"x","quantity":0}`))

	details := decode[problemBody](t, a.want(t, 400, "VALIDATION_FAILED")).Details
	for _, field := range []string{
		"items[0].productId", "items[0].warehouseId", "items[0].quantity",
		"items[1].productId", "items[1].warehouseId", "items[1].quantity",
	} {
		if len(details[field]) != 1 {
			t.Errorf("details of %s = %q, want one", field, details[field])
		}
	}
	if len(details) != 6 {
		t.Errorf("details = %v, want those of 6 fields", details)
	}
}

const maxBody = 64 << 10

func TestABodyMayHave64KiB(t *testing.T) {
	t.Parallel()

	c := newClient(t, unreachable)
	padded := func(body string, size int) string { return body + strings.Repeat(" ", size-len(body)) }
	for path, body := range map[string]string{
		"/api/reservations":                             lineBody("1", ""),
		"/api/reservations/" + hold + "/confirm":        "{}",
		"/api/reservations/" + hold + "/release":        "{}",
		"/api/reservations/" + hold + "/cancel":         "{}",
		"/api/reservations/" + hold + "/payment":        startBody("p"),
		"/api/reservations/" + hold + "/payment/failed": failBody("p"),
		"/api/reservations/" + hold + "/extend":         `{"ttlSeconds":60}`,
		"/api/reservations/" + hold + "/returns":        returnBody("r", lineBody("1", "")),
	} {
		c.post(path, padded(body, maxBody-1)).wantAccepted(t)
		c.post(path, padded(body, maxBody)).wantAccepted(t)
		c.post(path, padded(body, maxBody+1)).
			want(t, http.StatusRequestEntityTooLarge, "BODY_TOO_LARGE")
		c.post(path, strings.Repeat("x", 2*maxBody), "Content-Type", "text/plain").
			want(t, http.StatusRequestEntityTooLarge, "BODY_TOO_LARGE")
	}
}

func TestABodyIsJSONInUTF8(t *testing.T) {
	t.Parallel()

	c := newClient(t, unreachable)
	for contentType, ok := range map[string]bool{
		"application/json":                           true,
		"Application/JSON":                           true,
		"application/json; charset=utf-8":            true,
		`application/json;charset="UTF-8"`:           true,
		"application/json; charset=us-ascii":         true,
		"application/json; profile=x":                true,
		"application/json; charset=iso-8859-1":       false,
		"application/json; charset=utf-16":           false,
		"application/json, application/json":         false,
		"application/json/json":                      false,
		"application/problem+json":                   false,
		"application/merge-patch+json":               false,
		"application/x-www-form-urlencoded":          false,
		"multipart/form-data; boundary=x":            false,
		"text/json":                                  false,
		"text/plain":                                 false,
		"json":                                       false,
		";":                                          false,
		"application/json; charset=utf-8; charset=x": false,
	} {
		a := c.post("/api/reservations", lineBody("1", ""), "Content-Type", contentType)
		if ok {
			a.wantAccepted(t)
		} else {
			a.want(t, http.StatusUnsupportedMediaType, "UNSUPPORTED_MEDIA_TYPE")
		}
	}
	c.post("/api/reservations/"+hold+"/confirm", "", "Content-Type", "text/plain").wantAccepted(t)
	c.post("/api/reservations/"+hold+"/confirm", "{}", "Content-Type", "text/plain").
		want(t, 415, "UNSUPPORTED_MEDIA_TYPE")
}

func TestConfirmReleaseAndCancelNeedNoBody(t *testing.T) {
	t.Parallel()

	c := newClient(t, unreachable)
	for _, verb := range []string{"confirm", "release", "cancel"} {
		path := "/api/reservations/" + hold + "/" + verb
		for _, body := range []string{"", "{}", " { } "} {
			c.post(path, body).wantAccepted(t)
		}
		for body, field := range map[string]string{
			`{"a":1}`: "a", "[]": "body", "1": "body", " ": "body", "{": "body", "{}{}": "body",
			`{"a":{"b":{"c":{}}}}`: "body",
		} {
			c.post(path, body).wantInvalid(t, field)
		}
	}
}

func TestExtendTakesSeconds(t *testing.T) {
	t.Parallel()

	c := newClient(t, unreachable)
	path := "/api/reservations/" + hold + "/extend"
	for body, field := range map[string]string{
		`{"ttlSeconds":1}`:                    "",
		`{"ttlSeconds":3600}`:                 "",
		`{"ttlSeconds":3601}`:                 "", // the hold's age decides: 422
		`{"ttlSeconds":0}`:                    "ttlSeconds",
		`{"ttlSeconds":-1}`:                   "ttlSeconds",
		`{"ttlSeconds":1.0}`:                  "ttlSeconds",
		`{"ttlSeconds":"1"}`:                  "ttlSeconds",
		`{"ttlSeconds":null}`:                 "ttlSeconds",
		`{"ttlSeconds":9223372036}`:           "", // as is any longer time
		`{"ttlSeconds":9223372037}`:           "",
		`{"ttlSeconds":9223372036854775807}`:  "",
		`{"ttlSeconds":99999999999999999999}`: "",
		`{"ttlSeconds":1,"ttlSeconds":1}`:     "ttlSeconds",
		`{"ttlseconds":1}`:                    "ttlseconds",
		`{"ttlSeconds":1,"quantity":1}`:       "quantity",
		`{}`:                                  "ttlSeconds",
		`null`:                                "ttlSeconds",
		``:                                    "body",
		`60`:                                  "body",
	} {
		a := c.post(path, body)
		if field == "" {
			a.wantAccepted(t)
		} else {
			a.wantInvalid(t, field)
		}
	}
}

// printable has every character that a key may have.
func printable() string {
	var b strings.Builder
	for c := '!'; c <= '~'; c++ {
		if c != ',' {
			b.WriteRune(c)
		}
	}
	return b.String() + " ~"
}

func TestIdempotencyKeysArePrintableASCIIWithoutAComma(t *testing.T) {
	t.Parallel()

	c := newClient(t, unreachable)
	bodies := map[string]string{
		"/api/reservations":                             lineBody("1", ""),
		"/api/reservations/" + hold + "/confirm":        "",
		"/api/reservations/" + hold + "/release":        "",
		"/api/reservations/" + hold + "/cancel":         "",
		"/api/reservations/" + hold + "/payment":        startBody("p"),
		"/api/reservations/" + hold + "/payment/failed": failBody("p"),
		"/api/reservations/" + hold + "/extend":         `{"ttlSeconds":60}`,
		"/api/reservations/" + hold + "/returns":        returnBody("r", lineBody("1", "")),
	}
	for path, body := range bodies {
		long := strings.Repeat("k", 255)
		for _, key := range []string{"k", printable(), long[1:], long} {
			c.post(path, body, "Idempotency-Key", key).wantAccepted(t)
			c.post(path, body, "idempotency-key", key).wantAccepted(t)
		}
		for _, key := range []string{
			"", strings.Repeat("k", 256), "a,b", ",", "a\tb", "a\nb", "a\x00b", "\x1f", "\x7f",
			"ключ", "é", "a\xffb", "a\u00a0b",
		} {
			c.post(path, body, "Idempotency-Key", key).wantInvalid(t, "Idempotency-Key")
		}
		c.post(path, body, "Idempotency-Key", "a", "Idempotency-Key", "a").
			wantInvalid(t, "Idempotency-Key")
		c.post(path, body, "Idempotency-Key", "", "Idempotency-Key", "").
			wantInvalid(t, "Idempotency-Key")
	}
}

func TestReadsTakeNoIdempotencyKey(t *testing.T) {
	t.Parallel()

	newClient(
		t,
		unreachable,
	).send("GET", "/api/products", "", "Idempotency-Key", "a,b").
		wantAccepted(t)
}

// verbs are the routes with an id.
var verbs = []struct{ method, suffix, body string }{
	{
		"GET",
		"",
		"",
	},
	{"POST", "/confirm", ""},
	{"POST", "/release", ""},
	{"POST", "/cancel", ""},
	{"POST", "/payment", `{"paymentReference":"p","ttlSeconds":60}`},
	{"POST", "/payment/failed", `{"paymentReference":"p"}`},
	{"POST", "/extend", `{"ttlSeconds":60}`},
	{"POST", "/returns", `{"reference":"r","lines":[` + lineBody("1", "") + `]}`},
}

func TestAMalformedIDIsNotFound(t *testing.T) {
	t.Parallel()

	c := newClient(t, unreachable)
	for _, verb := range verbs {
		for _, id := range []string{
			"1", "null", "x", hold[1:], hold + "0", "g" + hold[1:],
			strings.ReplaceAll(hold, "-", ""), strings.ReplaceAll(hold, "-", "_"),
			"%7B" + hold + "%7D", "urn:uuid:" + hold, "%20" + hold, hold + "%20", hold + "%0A",
			hold + "%00", "%00", "..%2F" + hold,
			"%2e%2e", "%2e", "%25", "%FF", "é", "'%20OR%201=1--", strings.Repeat("a", 5000),
		} {
			c.send(verb.method, "/api/reservations/"+id+verb.suffix, verb.body).
				want(t, http.StatusNotFound, "RESERVATION_NOT_FOUND")
		}
		for _, id := range []string{hold, strings.ToUpper(hold), uuid.Nil.String()} {
			c.send(verb.method, "/api/reservations/"+id+verb.suffix, verb.body).wantAccepted(t)
		}
	}
}

// The gateway answers a request that no route matches. If it passes such a request on, like one
// with ".." in the place of an id, the function answers.
func TestARequestWithoutARouteIsNotFound(t *testing.T) {
	t.Parallel()

	c := newClient(t, unreachable)
	for _, test := range []struct{ function, method, path string }{
		{"confirm", "POST", "/api/reservations/../confirm"},
		{"confirm", "POST", "/api/reservations/./confirm"},
		{"confirm", "POST", "/api/reservations//confirm"},
		{"confirm", "POST", "//"},
		{"confirm", "POST", "//api/reservations/" + hold + "/confirm"},
		{"confirm", "POST", "/api/reservations/" + hold + "/confirm/"},
		{"confirm", "GET", "/api/reservations/" + hold + "/confirm"},
		{"confirm", "POST", "/api/reservations/" + hold + "/release"},
		{"get-reservation", "GET", "/api/reservations/"},
		{"get-reservation", "GET", "/api/reservations/.."},
		{"get-reservation", "GET", "/api/reservations/" + hold + "/"},
		{"list-products", "GET", "/api/Products"},
		{"list-products", "GET", "/api/products/"},
		{"list-products", "DELETE", "/api/products"},
		{"list-products", "OPTIONS", "/api/products"},
		{"health", "GET", "/"},
		{"health", "GET", ""},
		{"health", "GET", "*"},
	} {
		r := httptest.NewRequest(test.method, "/", nil)
		r.URL = &url.URL{Path: test.path}
		w := httptest.NewRecorder()
		c.api.Function(test.function).ServeHTTP(w, r)
		a := answer{w.Code, w.Header(), w.Body.Bytes(), test.method + " " + test.path}
		a.want(t, http.StatusNotFound, "NOT_FOUND")
		if a.header.Get("Content-Type") != "application/problem+json" ||
			a.header.Get("X-Request-Id") == "" {
			t.Errorf("%s has the headers %v, want a problem's and an id", a.sent, a.header)
		}
	}
}

func TestPagesHaveALimit(t *testing.T) {
	t.Parallel()

	c := newClient(t, unreachable)
	for path, most := range map[string]int{"/api/products": 200, "/api/warehouses": 1000} {
		for _, limit := range []string{"1", "50", fmt.Sprint(most - 1), fmt.Sprint(most)} {
			c.get(path + "?limit=" + limit).wantAccepted(t)
		}
		for _, limit := range []string{
			"0", "-1", fmt.Sprint(most + 1), "", "x", "1.0", "1e1", "0x1", "1_0", "%201", "1%20",
			"%00", "99999999999999999999", "%D9%A1",
		} {
			c.get(path+"?limit="+limit).wantInvalid(t, "limit")
		}
		c.get(path).wantAccepted(t)
	}
}

// cursorOf encodes a cursor as the package does: the order, a dot, and the id and the key.
func cursorOf(order, key string) string {
	id := uuid.MustParse(hold)
	return order + "." + base64.RawURLEncoding.EncodeToString(append(id[:], key...))
}

func TestACursorIsTakenUnchangedOrNotAtAll(t *testing.T) {
	t.Parallel()

	c := newClient(t, unreachable)
	id := uuid.MustParse(product)
	cursor := func(name string) string { return cursorOf("name", name) }
	older := base64.RawURLEncoding.EncodeToString(append(id[:], "Mug"...))
	for _, path := range []string{"/api/products", "/api/warehouses"} {
		for _, good := range []string{
			cursor("Mug"), cursor("é"), cursor("a b"), cursor(strings.Repeat("n", 1000)),
		} {
			c.get(path + "?cursor=" + good).wantAccepted(t)
		}
		for _, bad := range []string{
			"", "x", "0", "%00", "!!!!", "Mug", ".", "name", "name.", "name.Mug", product,
			cursor(""), cursor("\x00"), cursor("a\x00b"), cursor("\xff"), cursor("Mug") + "=",
			cursor("Mug")[1:], cursor("Mug")[:len(cursor("Mug"))-1], cursorOf("end", "Mug"),
			older, "name." + base64.StdEncoding.EncodeToString(append(id[:], "\xff\xff?"...)),
			"' OR 1=1--",
		} {
			c.get(path+"?cursor="+url.QueryEscape(bad)).wantInvalid(t, "cursor")
		}
		a := c.get(path+"?cursor=x&limit=0").want(t, 400, "VALIDATION_FAILED")
		if details := decode[problemBody](t, a).Details; len(details) != 2 {
			t.Errorf("%s = details %v, want those of cursor and limit", a.sent, details)
		}
	}
}

func TestEveryListReadsItsParametersByOneRule(t *testing.T) {
	t.Parallel()

	c := newClient(t, unreachable)
	for path, cursor := range map[string]string{
		"/api/products":     cursorOf("name", "Mug"),
		"/api/warehouses":   cursorOf("name", "East"),
		"/api/reservations": holdCursor("created", 0),
	} {
		c.get(path + "?limit=1&unknown=1&unknown=2&cursor=" + cursor).wantAccepted(t)
		c.get(path+"?limit=1&limit=1").wantInvalid(t, "limit")
		c.get(path+"?cursor="+cursor+"&cursor="+cursor).wantInvalid(t, "cursor")
	}
}

func TestProductsAreChosenByUpToFiftySKUs(t *testing.T) {
	t.Parallel()

	c := newClient(t, unreachable)
	skus := func(n int) string { return strings.TrimPrefix(strings.Repeat("&sku=A", n), "&") }
	inside := cursorOf("chosen", "0123456789abcdef")
	for _, good := range []string{
		"sku=A", "sku=A&sku=B", skus(50), "sku=%20", "sku=%E2%98%95", "sku=a%2Cb", "sku=A&unknown=1",
		"sku=A&cursor=" + cursorOf("chosen", ""), "sku=A&cursor=" + inside,
		"sku=" + strings.Repeat("A", 5996),
	} {
		c.get("/api/products?" + good).wantAccepted(t)
	}
	for bad, field := range map[string]string{
		skus(51):                                       "sku",
		"sku=":                                         "sku",
		"sku=A&sku=":                                   "sku",
		"sku=%00":                                      "sku",
		"sku=a%FFb":                                    "sku",
		"sku=" + strings.Repeat("A", 5997):             "sku",
		"sku=" + strings.Repeat("~", 5997):             "sku",
		"sku=" + strings.Repeat("!", 2000):             "sku",
		"sku=A&limit=1":                                "limit",
		"sku=A&limit=":                                 "limit",
		"sku=A&cursor=":                                "cursor",
		"sku=A&cursor=" + cursorOf("name", "M"):        "cursor",
		"sku=A&cursor=" + cursorOf("id", ""):           "cursor",
		"sku=A&cursor=" + cursorOf("chosen", "x"):      "cursor",
		"cursor=" + cursorOf("chosen", ""):             "cursor",
		"sku=A&cursor=" + inside + "&cursor=" + inside: "cursor",
	} {
		c.get("/api/products?"+bad).wantInvalid(t, field)
	}
}

func TestAProductIsReadByItsIDAlone(t *testing.T) {
	t.Parallel()

	c := newClient(t, unreachable)
	for _, id := range []string{"x", hold[1:], hold + "0", "%00", "a%2Fb", "%2e%2e", "%FF"} {
		c.get("/api/products/"+id).want(t, http.StatusNotFound, "PRODUCT_NOT_FOUND")
	}
	inside := cursorOf("chosen", "0123456789abcdef")
	c.get("/api/products/" + hold).wantAccepted(t)
	c.get("/api/products/" + strings.ToUpper(hold) + "?limit=1").wantAccepted(t)
	c.get("/api/products/" + hold + "?cursor=" + inside).wantAccepted(t)
	c.get("/api/products/"+product+"?cursor="+inside).wantInvalid(t, "cursor")
	for _, bad := range []string{
		"", "x", cursorOf("chosen", ""), cursorOf("name", "Mug"), cursorOf("chosen", "0123"),
	} {
		c.get("/api/products/"+hold+"?cursor="+bad).wantInvalid(t, "cursor")
	}
}
