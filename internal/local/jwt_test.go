package local

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/go-cmp/cmp"

	"github.com/allo/reservations/internal/config"
	"github.com/allo/reservations/internal/local/issuer"
	"github.com/allo/reservations/internal/route"
)

const audience = "shop"

// testIssuer is an issuer of tokens on this machine. It counts the requests for its documents.
type testIssuer struct {
	*issuer.Issuer
	url      string
	requests atomic.Int64
	// answer takes the place of the issuer's own answers, unless it is nil.
	answer atomic.Pointer[http.HandlerFunc]
}

func newTestIssuer(t testing.TB) *testIssuer {
	t.Helper()
	i := &testIssuer{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		i.requests.Add(1)
		if answer := i.answer.Load(); answer != nil {
			(*answer)(w, r)
			return
		}
		i.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	i.url = server.URL
	var err error
	if i.Issuer, err = issuer.New(server.URL); err != nil {
		t.Fatal(err)
	}
	return i
}

// claims returns those of a good token, changed. A nil value removes a claim.
func (i *testIssuer) claims(changes map[string]any) map[string]any {
	now := time.Now().Unix()
	claims := map[string]any{
		"iss": i.url, "aud": audience, "sub": "ann", "scope": "other " + route.ScopeConfirm,
		"iat": now - 60, "exp": now + 600,
	}
	maps.Copy(claims, changes)
	maps.DeleteFunc(claims, func(_ string, value any) bool { return value == nil })
	return claims
}

func (i *testIssuer) token(t testing.TB, changes map[string]any) string {
	t.Helper()
	token, err := i.Sign(i.claims(changes))
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// signWith returns a token of the good claims that another key or algorithm signs.
func (i *testIssuer) signWith(
	t *testing.T, algorithm jose.SignatureAlgorithm, key any, header map[jose.HeaderKey]any,
) string {
	t.Helper()
	options := &jose.SignerOptions{ExtraHeaders: header}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: algorithm, Key: key}, options)
	if err != nil {
		t.Fatal(err)
	}
	payload, err := json.Marshal(i.claims(nil))
	if err != nil {
		t.Fatal(err)
	}
	signed, err := signer.Sign(payload)
	if err != nil {
		t.Fatal(err)
	}
	token, err := signed.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// guarded returns a gateway that asks for tokens of the issuer, and the events that its functions
// get.
func guarded(t testing.TB, i *testIssuer) (*Gateway, *[]event) {
	t.Helper()
	return guardedBy(t, NewAuthorizer(
		config.Auth{Kind: config.AuthJWT, JWTIssuer: i.url, JWTAudience: audience}, quiet))
}

func guardedBy(t testing.TB, a Authorizer) (*Gateway, *[]event) {
	t.Helper()
	var mu sync.Mutex
	var events []event
	g := newGateway(t, function(func(_ context.Context, payload []byte) ([]byte, error) {
		mu.Lock()
		defer mu.Unlock()
		var e event
		err := json.Unmarshal(payload, &e)
		events = append(events, e)
		return []byte(`{"statusCode":204}`), err
	}))
	g.Guard(a)
	return g, &events
}

const confirmPath = "/api/reservations/7/confirm"

// confirm calls a route that needs reservations:confirm, with these Authorization headers.
func confirm(g *Gateway, authorization ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest("POST", confirmPath, nil)
	r.Header["Authorization"] = authorization
	w := httptest.NewRecorder()
	g.ServeHTTP(w, r)
	return w
}

// check fails the test unless the answer is the gateway's own, or 204 of the function.
func checkAuthorized(t *testing.T, w *httptest.ResponseRecorder, status int, challenge string) {
	t.Helper()
	switch status {
	case http.StatusUnauthorized:
		checkRefusal(t, w, status, `{"message":"Unauthorized"}`)
	case http.StatusForbidden:
		checkRefusal(t, w, status, `{"message":"Forbidden"}`)
	default:
		if w.Code != http.StatusNoContent {
			t.Errorf("answer = %d %s, want the function's 204", w.Code, w.Body)
		}
	}
	if got := w.Header().Get("Www-Authenticate"); got != challenge {
		t.Errorf("WWW-Authenticate = %q, want %q", got, challenge)
	}
}

// invalid is the challenge for a token that the gateway doesn't take.
func invalid(description string) string {
	return `Bearer scope="" error="invalid_token" error_description="` + description + `"`
}

func TestClaimsDecideWhoMayCall(t *testing.T) {
	t.Parallel()

	i := newTestIssuer(t)
	g, _ := guarded(t, i)
	now := time.Now().Unix()
	const bad = "the token's signature or one of its claims is invalid"
	const lacking = `Bearer scope="reservations:confirm" error="insufficient_scope"`
	for name, c := range map[string]struct {
		changes   map[string]any
		status    int
		challenge string
	}{
		"good":                      {nil, 204, ""},
		"one of several audiences":  {map[string]any{"aud": []string{"x", audience}}, 204, ""},
		"client_id without aud":     {map[string]any{"aud": nil, "client_id": audience}, 204, ""},
		"scope as a list":           {map[string]any{"scope": []string{route.ScopeConfirm}}, 204, ""},
		"scp as a list":             {map[string]any{"scope": nil, "scp": []string{"x", route.ScopeConfirm}}, 204, ""},
		"scp as text":               {map[string]any{"scope": nil, "scp": "x " + route.ScopeConfirm}, 204, ""},
		"no iat, no nbf, no sub":    {map[string]any{"iat": nil, "nbf": nil, "sub": nil}, 204, ""},
		"valid since now":           {map[string]any{"nbf": now, "iat": now}, 204, ""},
		"expired":                   {map[string]any{"exp": now - 1}, 401, invalid("the token has expired")},
		"no exp":                    {map[string]any{"exp": nil}, 401, invalid("the token has no exp")},
		"exp of null":               {map[string]any{"exp": json.RawMessage("null")}, 401, invalid("the token has no exp")},
		"exp as text":               {map[string]any{"exp": "tomorrow"}, 401, invalid(bad)},
		"not valid yet":             {map[string]any{"nbf": now + 300}, 401, invalid("the token isn't valid yet: its nbf is in the future")},
		"issued in the future":      {map[string]any{"iat": now + 300}, 401, invalid("the token's iat is in the future")},
		"another issuer":            {map[string]any{"iss": "https://id.example"}, 401, invalid("issuer does not match")},
		"another issuer's path":     {map[string]any{"iss": i.url + "/"}, 401, invalid("issuer does not match")},
		"no issuer":                 {map[string]any{"iss": nil}, 401, invalid("issuer does not match")},
		"another audience":          {map[string]any{"aud": "x"}, 401, invalid("the token does not have a valid audience")},
		"aud wins over client_id":   {map[string]any{"aud": "x", "client_id": audience}, 401, invalid("the token does not have a valid audience")},
		"no audience":               {map[string]any{"aud": nil}, 401, invalid("the token does not have a valid audience")},
		"empty list of audiences":   {map[string]any{"aud": []string{}, "client_id": audience}, 401, invalid("the token does not have a valid audience")},
		"audience of numbers":       {map[string]any{"aud": []int{1}}, 401, invalid(bad)},
		"no scope":                  {map[string]any{"scope": nil}, 403, lacking},
		"another scope":             {map[string]any{"scope": route.ScopeRead}, 403, lacking},
		"a longer scope":            {map[string]any{"scope": route.ScopeConfirm + "x"}, 403, lacking},
		"a scope in another case":   {map[string]any{"scope": strings.ToUpper(route.ScopeConfirm)}, 403, lacking},
		"scope of numbers":          {map[string]any{"scope": []int{1}}, 403, lacking},
		"expired and without scope": {map[string]any{"exp": now - 1, "scope": nil}, 401, invalid("the token has expired")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			w := confirm(g, "Bearer "+i.token(t, c.changes))

			checkAuthorized(t, w, c.status, c.challenge)
		})
	}
}

func TestHowATokenIsSent(t *testing.T) {
	t.Parallel()

	i := newTestIssuer(t)
	g, _ := guarded(t, i)
	good := i.token(t, nil)
	segments := invalid("token contains an invalid number of segments")
	unreadable := invalid("the token can't be read, or its algorithm isn't RS256")
	for name, c := range map[string]struct {
		headers   []string
		status    int
		challenge string
	}{
		"with Bearer":       {[]string{"Bearer " + good}, 204, ""},
		"with bearer":       {[]string{"bearer  " + good}, 204, ""},
		"alone":             {[]string{good}, 204, ""},
		"not at all":        {nil, 401, "Bearer"},
		"empty":             {[]string{""}, 401, "Bearer"},
		"Bearer alone":      {[]string{"Bearer "}, 401, invalid("token contains an invalid number of segments")},
		"no token":          {[]string{"Bearer x"}, 401, segments},
		"another scheme":    {[]string{"Basic " + good}, 401, unreadable},
		"in two headers":    {[]string{"Bearer " + good, "Bearer " + good}, 401, segments},
		"in JSON":           {[]string{`{"a":".."}`}, 401, unreadable},
		"with a space":      {[]string{"Bearer " + good[:20] + " " + good[20:]}, 401, unreadable},
		"without signature": {[]string{good[:strings.LastIndex(good, ".")+1]}, 401, invalid("the token's signature or one of its claims is invalid")},
		"very long":         {[]string{"Bearer " + strings.Repeat("a", 1<<20) + ".b.c"}, 401, unreadable},
		"of many segments":  {[]string{"Bearer " + strings.Repeat("a.", 1<<16)}, 401, segments},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			checkAuthorized(t, confirm(g, c.headers...), c.status, c.challenge)
		})
	}
	// A header isn't the identity source, whatever it says.
	r := httptest.NewRequest("POST", confirmPath+"?access_token="+good, nil)
	r.Header.Set("X-Authorization", good)
	r.Header.Set("Cookie", "Authorization="+good)
	w := httptest.NewRecorder()
	g.ServeHTTP(w, r)
	checkAuthorized(t, w, 401, "Bearer")
}

func TestOnlyTheIssuersKeySigns(t *testing.T) {
	t.Parallel()

	i := newTestIssuer(t)
	g, _ := guarded(t, i)
	issuers := i.Key()
	other, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	id := map[jose.HeaderKey]any{"kid": issuers.KeyID}
	der, err := x509.MarshalPKIXPublicKey(issuers.Public().Key)
	if err != nil {
		t.Fatal(err)
	}
	good := strings.Split(i.token(t, nil), ".")
	none := base64.RawURLEncoding.EncodeToString(
		[]byte(`{"alg":"none","kid":"` + issuers.KeyID + `"}`))
	rich, err := json.Marshal(i.claims(map[string]any{"sub": "bob"}))
	if err != nil {
		t.Fatal(err)
	}
	richer := base64.RawURLEncoding.EncodeToString(rich)
	const badSignature = "the token's signature or one of its claims is invalid"
	const badAlgorithm = "the token can't be read, or its algorithm isn't RS256"
	const unknown = "the issuer has no RSA key with the token's kid"
	embedded := jose.JSONWebKey{Key: other.Public(), KeyID: issuers.KeyID}
	for name, c := range map[string]struct{ token, description string }{
		"the control":              {i.signWith(t, jose.RS256, issuers.Key, id), ""},
		"no kid":                   {i.signWith(t, jose.RS256, issuers.Key, nil), "the token has no kid"},
		"an unknown kid":           {i.signWith(t, jose.RS256, other, map[jose.HeaderKey]any{"kid": "x"}), unknown},
		"another key, its kid":     {i.signWith(t, jose.RS256, other, id), badSignature},
		"another key, embedded":    {i.signWith(t, jose.RS256, other, map[jose.HeaderKey]any{"kid": issuers.KeyID, "jwk": embedded}), badSignature},
		"a critical header":        {i.signWith(t, jose.RS256, issuers.Key, map[jose.HeaderKey]any{"kid": issuers.KeyID, "crit": []string{"x"}}), badSignature},
		"the public key as secret": {i.signWith(t, jose.HS256, der, id), badAlgorithm},
		"RS512":                    {i.signWith(t, jose.RS512, issuers.Key, id), badAlgorithm},
		"PS256":                    {i.signWith(t, jose.PS256, issuers.Key, id), badAlgorithm},
		"none":                     {none + "." + good[1] + ".", badAlgorithm},
		"none, with a signature":   {none + "." + good[1] + "." + good[2], badAlgorithm},
		"changed claims":           {good[0] + "." + richer + "." + good[2], badSignature},
		"a changed signature":      {good[0] + "." + good[1] + "." + flip(good[2]), badSignature},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			status, challenge := 401, invalid(c.description)
			if c.description == "" {
				status, challenge = 204, ""
			}
			checkAuthorized(t, confirm(g, c.token), status, challenge)
		})
	}
}

// flip changes a character in the middle of a text.
func flip(text string) string {
	middle := len(text) / 2
	other := "A"
	if text[middle] == 'A' {
		other = "B"
	}
	return text[:middle] + other + text[middle+1:]
}

// A claim of a name that differs only in its case must not take the place of the real one, and a
// claim that is there twice means two things.
func TestAmbiguousClaimsAreRefused(t *testing.T) {
	t.Parallel()

	i := newTestIssuer(t)
	g, _ := guarded(t, i)
	key := i.Key()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256, Key: key}, nil)
	if err != nil {
		t.Fatal(err)
	}
	payload, err := json.Marshal(i.claims(nil))
	if err != nil {
		t.Fatal(err)
	}
	good := string(payload)
	for name, c := range map[string]struct {
		payload string
		status  int
	}{
		"the control":      {good, 204},
		"iss twice":        {strings.Replace(good, "{", `{"iss":"x",`, 1), 401},
		"aud in capitals":  {strings.Replace(good, `"aud"`, `"AUD"`, 1), 401},
		"exp in capitals":  {strings.Replace(good, `"exp"`, `"Exp"`, 1), 401},
		"claims in a list": {"[" + good + "]", 401},
		"no claims":        {"null", 401},
	} {
		signed, err := signer.Sign([]byte(c.payload))
		if err != nil {
			t.Fatal(err)
		}
		token, err := signed.CompactSerialize()
		if err != nil {
			t.Fatal(err)
		}
		if got := confirm(g, token).Code; got != c.status {
			t.Errorf("%s: %d, want %d", name, got, c.status)
		}
	}
}

func TestTheEventHasTheClaimsAsText(t *testing.T) {
	t.Parallel()

	i := newTestIssuer(t)
	g, events := guarded(t, i)
	token := i.token(t, map[string]any{
		"iat": 1_700_000_000, "exp": 4_000_000_000, "groups": []any{"a", "b c", 1}, "admin": true,
		"ratio": 1.5, "nothing": json.RawMessage("null"), "address": map[string]any{"city": "Rome"},
		"empty": []string{}, "scope": "x " + route.ScopeConfirm,
	})

	checkAuthorized(t, confirm(g, "Bearer "+token), 204, "")

	want := &authorizerContext{JWT: &jwtContext{
		Claims: map[string]string{
			"iss": i.url, "aud": audience, "sub": "ann", "scope": "x " + route.ScopeConfirm,
			"iat": "1700000000", "exp": "4000000000", "groups": "[a b c 1]", "admin": "true",
			"ratio": "1.5", "address": `{"city":"Rome"}`, "empty": "[]",
		},
		Scopes: []string{"x", route.ScopeConfirm},
	}}
	if diff := cmp.Diff(want, (*events)[0].RequestContext.Authorizer); diff != "" {
		t.Errorf("authorizer (-want +got):\n%s", diff)
	}
	if got := (*events)[0].Headers["authorization"]; got != "Bearer "+token {
		t.Errorf("the event has the Authorization header %q, want the caller's", got)
	}
}

// An open route passes the header on, and so does a gateway without an authorizer. Neither names a
// caller, even by a header that looks like the event's own.
func TestAnOpenRouteNamesNobody(t *testing.T) {
	t.Parallel()

	i := newTestIssuer(t)
	g, events := guarded(t, i)
	open, openEvents := guardedBy(t, NewAuthorizer(config.Auth{}, quiet))
	good := "Bearer " + i.token(t, nil)
	for _, authorization := range []string{good, "Bearer nonsense", ""} {
		for path, through := range map[string]*Gateway{
			"/api/reservations": g, "/api/reservations/7/release": g, confirmPath: open,
		} {
			r := httptest.NewRequest("POST", path, nil)
			r.Header.Set("Authorization", authorization)
			r.Header.Set("X-Amzn-Authorizer", `{"jwt":{"claims":{"sub":"ann"}}}`)
			r.Header.Set("Authorizer", "ann")
			w := httptest.NewRecorder()
			through.ServeHTTP(w, r)
			checkAuthorized(t, w, 204, "")
		}
	}
	for _, e := range append(*events, *openEvents...) {
		if e.RequestContext.Authorizer != nil {
			t.Errorf("%s names the caller %+v, want nobody", e.RouteKey, e.RequestContext.Authorizer)
		}
	}
	if sent := i.requests.Load(); sent != 0 {
		t.Errorf("the open routes sent %d requests to the issuer, want none", sent)
	}
}

func TestEveryRouteWithAScopeNeedsIt(t *testing.T) {
	t.Parallel()

	i := newTestIssuer(t)
	g, _ := guarded(t, i)
	for _, r := range route.All() {
		path := strings.NewReplacer("{id}", "7", "{proxy+}", "x").Replace(r.Path)
		call := func(authorization string) int {
			request := httptest.NewRequest(r.Method, path, nil)
			request.Header.Set("Authorization", authorization)
			w := httptest.NewRecorder()
			g.ServeHTTP(w, request)
			return w.Code
		}
		own := i.token(t, map[string]any{"scope": r.Scope})
		other := i.token(t, map[string]any{"scope": "x:" + r.Scope})
		got := []int{call(""), call(own), call(other)}
		want := []int{401, 204, 403}
		if r.Scope == "" {
			want = []int{204, 204, 204}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s without a token, with its scope and with another (-want +got):\n%s",
				r.Key(), diff)
		}
	}
}

// A preflight request has no credentials. No route takes it, so it gets the gateway's 404 and no
// authorizer sees it.
func TestAPreflightIsNotAuthorized(t *testing.T) {
	t.Parallel()

	g, _ := guarded(t, newTestIssuer(t))
	r := httptest.NewRequest(http.MethodOptions, confirmPath, nil)
	r.Header.Set("Origin", "https://shop.example")
	r.Header.Set("Access-Control-Request-Method", "POST")
	w := httptest.NewRecorder()
	g.ServeHTTP(w, r)

	checkRefusal(t, w, http.StatusNotFound, `{"message":"Not Found"}`)
}
