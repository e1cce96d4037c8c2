package local

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/google/go-cmp/cmp"

	"github.com/allo/reservations/internal/config"
)

var testCredential = aws.Credentials{
	AccessKeyID: "AKIATEST", SecretAccessKey: "a secret of the test",
}

// guardedByIAM returns a gateway that asks for signatures of the test credential.
func guardedByIAM(t testing.TB) (*Gateway, *[]event) {
	t.Helper()
	return guardedBy(t, NewAuthorizer(config.Auth{
		Kind: config.AuthIAM, AccessKeyID: testCredential.AccessKeyID,
		SecretAccessKey: testCredential.SecretAccessKey,
	}, quiet))
}

// signing is how a request is signed. Its zero value is the right way.
type signing struct {
	credential      aws.Credentials
	service, region string
	at              time.Duration // from now
	body            string        // what is signed instead of the body
}

const returnsPath = "/api/reservations/7/returns?b=2&a=1&a=x%20y&c=%2F"

// signedRequest returns a request of a guarded route, as a client of AWS's SDK signs it.
func signedRequest(t *testing.T, s signing) *http.Request {
	t.Helper()
	const body = `{"reference":"r"}`
	r := httptest.NewRequest("POST", returnsPath, strings.NewReader(body))
	r.Host = "localhost:3000"
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Idempotency-Key", "key  with   spaces")
	r.Header.Add("X-Twice", "1")
	r.Header.Add("X-Twice", "2")
	r.Header.Set("User-Agent", "sdk")
	if s.credential.AccessKeyID == "" {
		s.credential = testCredential
	}
	if s.service == "" {
		s.service = signedService
	}
	if s.region == "" {
		s.region = region
	}
	if s.body == "" {
		s.body = body
	}
	digest := sha256.Sum256([]byte(s.body))
	err := v4.NewSigner().SignHTTP(t.Context(), s.credential, r, hex.EncodeToString(digest[:]),
		s.service, s.region, time.Now().Add(s.at))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func serve(g *Gateway, r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	g.ServeHTTP(w, r)
	return w
}

func TestASignedRequestNamesItsCaller(t *testing.T) {
	t.Parallel()

	g, events := guardedByIAM(t)
	r := signedRequest(t, signing{})
	r.Header.Set("User-Agent", "a proxy may change it") // the SDK doesn't sign it
	r.Header.Set("X-Forwarded-For", "192.0.2.1")        // nor what comes later

	checkAuthorized(t, serve(g, r), 204, "")

	encoded, err := json.Marshal((*events)[0].RequestContext.Authorizer)
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"iam":{"accessKey":"AKIATEST","accountId":"123456789012",` +
		`"callerId":"AIDALOCALCALLER00000","userArn":"arn:aws:iam::123456789012:user/local",` +
		`"userId":"AIDALOCALCALLER00000","cognitoIdentity":null,"principalOrgId":null}}`
	if diff := cmp.Diff(want, string(encoded)); diff != "" {
		t.Errorf("authorizer (-want +got):\n%s", diff)
	}
}

// Each case is a request that is signed wrongly, or was changed after it was signed. Without the
// change it passes, as the first case shows.
func TestOnlyASignedRequestPasses(t *testing.T) {
	t.Parallel()

	g, events := guardedByIAM(t)
	stranger := testCredential
	stranger.AccessKeyID = "AKIAOTHER"
	guess := testCredential
	guess.SecretAccessKey = "a guess"
	session := testCredential
	session.SessionToken = "a session"
	inAMinute := time.Now().Add(time.Minute).UTC().Format(signedDate)
	edit := func(old, replacement string) func(*http.Request) {
		return func(r *http.Request) {
			before := r.Header.Get("Authorization")
			after := strings.Replace(before, old, replacement, 1)
			if before == after {
				t.Errorf("the header %s has no %q", before, old)
			}
			r.Header.Set("Authorization", after)
		}
	}
	set := func(name, value string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set(name, value) }
	}
	query := func(old, replacement string) func(*http.Request) {
		return func(r *http.Request) {
			r.URL.RawQuery = strings.Replace(r.URL.RawQuery, old, replacement, 1)
		}
	}
	body := func(text string) func(*http.Request) {
		return func(r *http.Request) { r.Body = http.NoBody; *r = *withBody(r, text) }
	}
	for name, c := range map[string]struct {
		signing signing
		change  func(*http.Request)
		status  int
	}{
		"the control":                   {signing{}, nil, 204},
		"a clock 4 minutes slow":        {signing{at: -4 * time.Minute}, nil, 204},
		"a clock 4 minutes fast":        {signing{at: 4 * time.Minute}, nil, 204},
		"the query in another order":    {signing{}, query("a=1&a=x%20y&b=2", "b=2&a=x+y&a=1"), 204},
		"no space in the header":        {signing{}, edit(", SignedHeaders", ",SignedHeaders"), 204},
		"a header that isn't signed":    {signing{}, set("Accept", "x"), 204},
		"a clock 6 minutes slow":        {signing{at: -6 * time.Minute}, nil, 403},
		"a clock 6 minutes fast":        {signing{at: 6 * time.Minute}, nil, 403},
		"not signed":                    {signing{}, func(r *http.Request) { r.Header.Del("Authorization") }, 403},
		"signed twice":                  {signing{}, func(r *http.Request) { r.Header.Add("Authorization", r.Header.Get("Authorization")) }, 403},
		"a token":                       {signing{}, set("Authorization", "Bearer a.b.c"), 403},
		"another access key":            {signing{credential: stranger}, nil, 403},
		"another secret":                {signing{credential: guess}, nil, 403},
		"a session token":               {signing{credential: session}, nil, 403},
		"another service":               {signing{service: "s3"}, nil, 403},
		"another region":                {signing{region: "eu-central-1"}, nil, 403},
		"another body signed":           {signing{body: "UNSIGNED-PAYLOAD"}, nil, 403},
		"another body sent":             {signing{}, body(`{"reference":"s"}`), 403},
		"no body sent":                  {signing{}, body(``), 403},
		"another path":                  {signing{}, func(r *http.Request) { r.URL.Path = "/api/reservations/8/returns" }, 403},
		"another query":                 {signing{}, query("b=2", "b=3"), 403},
		"a part of the query more":      {signing{}, query("b=2", "b=2&d=4"), 403},
		"a part that can't be signed":   {signing{}, query("b=2", "b=2&d;e=4"), 403},
		"a malformed part":              {signing{}, query("b=2", "b=2&d=%zz"), 403},
		"another host":                  {signing{}, func(r *http.Request) { r.Host = "localhost:3001" }, 403},
		"another key":                   {signing{}, set("Idempotency-Key", "x"), 403},
		"another type":                  {signing{}, set("Content-Type", "text/csv"), 403},
		"another date":                  {signing{}, set("X-Amz-Date", inAMinute), 403},
		"no date":                       {signing{}, func(r *http.Request) { r.Header.Del("X-Amz-Date") }, 403},
		"a date in another form":        {signing{}, set("X-Amz-Date", time.Now().UTC().Format(time.RFC3339)), 403},
		"a header of AWS, unsigned":     {signing{}, set("X-Amz-Content-Sha256", "UNSIGNED-PAYLOAD"), 403},
		"a signed header less":          {signing{}, edit("host;", ""), 403},
		"a signed header that is unset": {signing{}, func(r *http.Request) { r.Header.Del("X-Twice") }, 403},
		"signed headers out of order":   {signing{}, edit("content-length;content-type", "content-type;content-length"), 403},
		"another algorithm":             {signing{}, edit("AWS4-HMAC-SHA256", "AWS4-HMAC-SHA1"), 403},
		"no signature":                  {signing{}, edit("Signature=", "X="), 403},
		"a signature of the wrong size": {signing{}, edit("Signature=", "Signature=0"), 403},
		"two signatures":                {signing{}, edit("Signature=", "Signature=0, Signature="), 403},
		"a field more":                  {signing{}, edit(", Signature", ", X=1, Signature"), 403},
		"another day in the scope":      {signing{}, edit("AKIATEST/20", "AKIATEST/19"), 403},
		"an empty header":               {signing{}, set("Authorization", ""), 403},
	} {
		r := signedRequest(t, c.signing)
		if c.change != nil {
			c.change(r)
		}
		before := len(*events)
		w := serve(g, r)
		if w.Code != c.status {
			t.Errorf("%s: %d %s, want %d", name, w.Code, w.Body, c.status)
		}
		if c.status == 403 {
			checkAuthorized(t, w, 403, "")
			if len(*events) != before {
				t.Errorf("%s: a refused request reached the function", name)
			}
		}
	}
}

// withBody returns the request with another body.
func withBody(r *http.Request, text string) *http.Request {
	other := httptest.NewRequest(r.Method, r.URL.String(), strings.NewReader(text))
	other.Host, other.Header, other.URL = r.Host, r.Header, r.URL
	return other
}

// A caller may leave a header unsigned, as AWS allows, and then it may be changed.
func TestCurlsSignatureCoversFewHeaders(t *testing.T) {
	t.Parallel()

	g, _ := guardedByIAM(t)
	r := httptest.NewRequest("GET", "/api/stats", nil)
	digest := sha256.Sum256(nil)
	err := v4.NewSigner().SignHTTP(t.Context(), testCredential, r, hex.EncodeToString(digest[:]),
		signedService, region, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if got := r.Header.Get("Authorization"); !strings.Contains(got, "SignedHeaders=host;x-amz-date,") {
		t.Fatalf("the request has %s, want the host and the date signed", got)
	}
	r.Header.Set("Accept", "application/json")

	checkAuthorized(t, serve(g, r), 204, "")
	checkAuthorized(t, serve(g, httptest.NewRequest("GET", "/api/products", nil)), 204, "")
}

// A function in this process gets the caller that JSON would bring it.
func TestADirectCallCarriesTheCaller(t *testing.T) {
	t.Parallel()

	for name, caller := range map[string]*authorizerContext{
		"nobody": nil,
		"jwt": {JWT: &jwtContext{
			Claims: map[string]string{"sub": "ann <&>"}, Scopes: []string{"a", "b"},
		}},
		"jwt without scopes": {JWT: &jwtContext{Claims: map[string]string{}}},
		"iam": {IAM: &iamContext{
			AccessKey: "a", AccountID: "b", CallerID: "c", UserARN: "d", UserID: "e",
		}},
	} {
		sent := event{RequestContext: requestContext{Authorizer: caller}}
		payload, err := json.Marshal(sent)
		if err != nil {
			t.Fatal(err)
		}
		var want events.APIGatewayV2HTTPRequest
		if err := json.Unmarshal(payload, &want); err != nil {
			t.Fatal(err)
		}
		got := sent.decoded()
		if diff := cmp.Diff(want.RequestContext, got.RequestContext); diff != "" {
			t.Errorf("%s: the event's context (-by JSON +direct):\n%s", name, diff)
		}
	}
}
