package apitest

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/allo/reservations/internal/negotiate"
)

const goodProblem = `{"type":"urn:x","title":"t","status":404,"detail":"d",` +
	`"code":"RESERVATION_NOT_FOUND","error":"d","requestId":"r"}`

// Validate must refuse wrong answers, or the tests that use it prove nothing.
func TestValidateTellsGoodAnswersFromBad(t *testing.T) {
	t.Parallel()

	const (
		hold    = "/api/reservations/019aa6d2-7f3e-7cc4-a3a5-6f2b8f1f9e10"
		product = `[{"id":"5f0c0de2-6b0f-4c4b-9f5e-0d6f3d1a7c01","name":"Mug",` +
			`"sku":"CM-300","maxPerHold":null,"maxPerOwner":3,"inventories":[]}]`
		confirm  = hold + "/confirm"
		conflict = `{"type":"urn:x","title":"t","status":409,"detail":"d","error":"d","requestId":"r",`
		lost     = conflict + `"code":"PAYMENT_LOST","shortages":[]}`
		paid     = conflict + `"code":"ALREADY_PAID","paymentReference":null}`
	)
	tests := []struct {
		name, method, path string
		status             int
		header             http.Header
		body               string
		want               string // a part of the error; none when empty
	}{
		{"a problem", "GET", hold, 404, answer("application/problem+json"), goodProblem, ""},
		{"a list", "GET", "/api/products", 200, catalog(), product, ""},
		{
			"a compressed list", "GET", "/api/products", 200,
			with(catalog(), "Content-Encoding", "gzip"),
			string(negotiate.GzipBest([]byte(product))), "",
		},
		{
			"a list that isn't compressed", "GET", "/api/products", 200,
			with(catalog(), "Content-Encoding", "gzip"), product, "isn't gzip",
		},
		{
			"a list without an ETag", "GET", "/api/products", 200, with(catalog(), "ETag", ""), product,
			"ETag",
		},
		{
			"a 304",
			"GET",
			"/api/openapi.json",
			304,
			with(catalog(), "Cache-Control", "public"),
			"",
			"",
		},
		{
			"no such path",
			"GET",
			"/api/nowhere",
			404,
			answer("application/problem+json"),
			goodProblem,
			"no matching operation",
		},
		{
			"no such method",
			"PUT",
			hold,
			404,
			answer("application/problem+json"),
			goodProblem,
			"method not allowed",
		},
		{
			"undocumented status",
			"GET",
			hold,
			410,
			answer("application/problem+json"),
			goodProblem,
			"not documented",
		},
		{"undocumented 304", "GET", hold, 304, answer(""), "", "not documented"},
		{
			"other media type",
			"GET",
			hold,
			404,
			answer("application/json"),
			goodProblem,
			"Content-Type",
		},
		{
			"no request id",
			"GET",
			hold,
			404,
			http.Header{"Content-Type": {"application/problem+json"}},
			goodProblem,
			"X-Request-Id",
		},
		{
			"a code of another status",
			"GET",
			hold,
			404,
			answer("application/problem+json"),
			strings.Replace(goodProblem, "RESERVATION", "INVENTORY", 1),
			"schema",
		},
		{
			"a field is missing",
			"GET",
			hold,
			404,
			answer("application/problem+json"),
			strings.Replace(goodProblem, `"title":"t",`, "", 1),
			"title",
		},
		{
			"another status inside",
			"GET",
			hold,
			404,
			answer("application/problem+json"),
			strings.Replace(goodProblem, "404", "400", 1),
			"schema",
		},
		{
			"another request id inside",
			"GET",
			hold,
			404,
			answer("application/problem+json"),
			strings.Replace(goodProblem, `"r"`, `"s"`, 1),
			"requestId",
		},
		{
			"an error that isn't the detail",
			"GET",
			hold,
			404,
			answer("application/problem+json"),
			strings.Replace(goodProblem, `"detail":"d"`, `"detail":"e"`, 1),
			"detail",
		},
		{
			"details where none belong",
			"GET",
			hold,
			404,
			answer("application/problem+json"),
			strings.Replace(goodProblem, "{", `{"details":{"a":["b"]},`, 1),
			"details",
		},
		{"a payment that is lost", "POST", confirm, 409, answer("application/problem+json"), lost, ""},
		{
			"a payment that is lost for nothing", "POST", confirm, 409, answer("application/problem+json"),
			strings.Replace(lost, `,"shortages":[]`, "", 1), "shortages",
		},
		{
			"a limit where none belongs", "POST", confirm, 409, answer("application/problem+json"),
			strings.Replace(paid, "}", `,"limits":[{"productId":"5f0c0de2-6b0f-4c4b-9f5e-0d6f3d1a7c01",`+
				`"max":1,"used":0,"requested":2}]}`, 1), "limits",
		},
		{"a payment after another", "POST", confirm, 409, answer("application/problem+json"), paid, ""},
		{
			"a payment after which", "POST", confirm, 409, answer("application/problem+json"),
			strings.Replace(paid, `,"paymentReference":null`, "", 1), "paymentReference",
		},
		{
			"a payment where none belongs", "POST", confirm, 409, answer("application/problem+json"),
			strings.Replace(lost, "}", `,"paymentReference":"p"}`, 1), "the payment",
		},
		{
			"an id that isn't one",
			"GET",
			"/api/products",
			200,
			catalog(),
			strings.Replace(product, "5f0c", "zzzz", 1),
			"UUID",
		},
		{
			"a link that isn't one",
			"GET",
			"/api/products",
			200,
			with(catalog(), "Link", "</x>"),
			product,
			"Link",
		},
		{
			"no Retry-After",
			"GET",
			"/api/health",
			503,
			answer("application/problem+json"),
			goodProblem,
			"Retry-After",
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()

			req := httptest.NewRequest(test.method, test.path, nil)

			err := validate(req, nil, test.status, test.header, []byte(test.body))

			if test.want == "" && err != nil {
				t.Errorf("validate = %v, want no error", err)
			}
			if test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("validate = %v, want an error about %q", err, test.want)
			}
		})
	}
}

func TestTimesAreInUTC(t *testing.T) {
	t.Parallel()

	for value, ok := range map[string]bool{
		"2026-03-01T10:00:00Z":        true,
		"2026-03-01T10:00:00.123456Z": true,
		"2026-03-01T10:00:00+00:00":   false,
		"2026-03-01 10:00:00Z":        false,
	} {
		if err := checkTime(value); (err == nil) != ok {
			t.Errorf("checkTime(%q) = %v, want none: %t", value, err, ok)
		}
	}
}

func answer(contentType string) http.Header {
	return http.Header{"Content-Type": {contentType}, "X-Request-Id": {"r"}}
}

// catalog has the headers of an answer that caches may keep.
func catalog() http.Header {
	header := answer("application/json")
	header.Set("ETag", `"0c6dbb1f2b1fbd4a2a3c4d5e6f708192"`)
	header.Set("Cache-Control", "public, max-age=1, stale-while-revalidate=2")
	header.Set("Vary", "Accept-Encoding")
	return header
}

func with(header http.Header, name, value string) http.Header {
	header.Set(name, value)
	return header
}
