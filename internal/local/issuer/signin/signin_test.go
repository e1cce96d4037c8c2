package signin_test

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/allo/reservations/internal/app/grant"
	"github.com/allo/reservations/internal/local/issuer/signin"
)

const (
	redirect = "http://localhost:3000/ops/signed-in"
	verifier = "a-verifier-that-has-at-least-forty-three-characters"
)

// browser is a browser at an issuer. It follows no redirect by itself.
type browser struct {
	t      *testing.T
	url    string
	issuer *signin.Issuer
	client *http.Client
}

func newBrowser(t *testing.T) *browser {
	t.Helper()
	return newBrowserAt(t, signin.Options{TokenLasts: time.Minute})
}

// newBrowserAt is newBrowser with an issuer that differs from the usual.
func newBrowserAt(t *testing.T, options signin.Options) *browser {
	t.Helper()
	server := httptest.NewUnstartedServer(nil)
	b := &browser{t: t, url: "http://" + server.Listener.Addr().String()}
	var err error
	if b.issuer, err = signin.New(b.url, options); err != nil {
		t.Fatal(err)
	}
	server.Config.Handler = b.issuer
	server.Start()
	t.Cleanup(server.Close)
	return b.another()
}

// another returns a browser without cookies at the same issuer.
func (b *browser) another() *browser {
	b.t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		b.t.Fatal(err)
	}
	other := *b
	other.client = &http.Client{Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse
	}}
	return &other
}

// send returns an answer's status, its body and where it leads.
func (b *browser) send(r *http.Request) (status int, body, location string) {
	b.t.Helper()
	response, err := b.client.Do(r)
	if err != nil {
		b.t.Fatal(err)
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	return response.StatusCode, string(content), response.Header.Get("Location")
}

func (b *browser) get(address string) (status int, body, location string) {
	b.t.Helper()
	if strings.HasPrefix(address, "/") {
		address = b.url + address
	}
	r, err := http.NewRequestWithContext(b.t.Context(), http.MethodGet, address, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	return b.send(r)
}

func (b *browser) post(path string, form url.Values, headers ...string) (int, string, string) {
	b.t.Helper()
	r, err := http.NewRequestWithContext(b.t.Context(), http.MethodPost, b.url+path,
		strings.NewReader(form.Encode()))
	if err != nil {
		b.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	for n := 0; n < len(headers); n += 2 {
		r.Header.Set(headers[n], headers[n+1])
	}
	return b.send(r)
}

// question is the address of an authorization request, with changes.
func (b *browser) question(changes ...string) string {
	sum := sha256.Sum256([]byte(verifier))
	query := url.Values{
		"client_id": {signin.ConsoleID}, "redirect_uri": {redirect}, "response_type": {"code"},
		"scope": {"openid offline_access"}, "state": {"state-1"}, "nonce": {"nonce-1"},
		"code_challenge":        {base64.RawURLEncoding.EncodeToString(sum[:])},
		"code_challenge_method": {"S256"},
	}
	for n := 0; n < len(changes); n += 2 {
		query.Set(changes[n], changes[n+1])
	}
	return "/authorize?" + query.Encode()
}

// signIn signs in as a group's account, by a question with changes, and returns the answer to the
// console.
func (b *browser) signIn(group string, changes ...string) url.Values {
	b.t.Helper()
	_, _, page := b.get(b.question(changes...))
	status, body, _ := b.get(page)
	if status != http.StatusOK || !strings.Contains(body, "No password needed") {
		b.t.Fatalf("GET %s = %d %s, want the page", page, status, body)
	}
	id := regexp.MustCompile(`name="id" value="([^"]+)"`).FindStringSubmatch(body)
	status, body, location := b.post("/sign-in", url.Values{"id": {id[1]}, "account": {group}})
	if status != http.StatusSeeOther {
		b.t.Fatalf("POST /sign-in = %d %s, want 303", status, body)
	}
	_, _, location = b.get(location)
	return b.answer(location)
}

// answer returns the query of an address of the console.
func (b *browser) answer(location string) url.Values {
	b.t.Helper()
	query, ok := strings.CutPrefix(location, redirect+"?")
	values, err := url.ParseQuery(query)
	if !ok || err != nil || values.Get("state") != "state-1" {
		b.t.Fatalf("the issuer leads to %q, want the console with its state", location)
	}
	return values
}

// tokens is an answer of the token endpoint.
type tokens struct {
	AccessToken  string `json:"access_token"`
	RefreshToken string `json:"refresh_token"`
	IDToken      string `json:"id_token"`
	ExpiresIn    int    `json:"expires_in"`
	Error        string `json:"error"`
}

// exchange sends a form to the token endpoint.
func (b *browser) exchange(form ...string) tokens {
	b.t.Helper()
	values := url.Values{"client_id": {signin.ConsoleID}}
	for n := 0; n < len(form); n += 2 {
		values.Set(form[n], form[n+1])
	}
	_, body, _ := b.post("/oauth/token", values)
	var got tokens
	if err := json.Unmarshal([]byte(body), &got); err != nil {
		b.t.Fatalf("the token endpoint answers %q: %v", body, err)
	}
	return got
}

func (b *browser) redeem(code, proof string) tokens {
	b.t.Helper()
	return b.exchange("grant_type", "authorization_code", "code", code, "redirect_uri", redirect,
		"code_verifier", proof)
}

func (b *browser) renew(refresh string) tokens {
	b.t.Helper()
	return b.exchange("grant_type", "refresh_token", "refresh_token", refresh)
}

// claims returns the claims of a token. Its signature is checked by the gateway's own tests.
func claims(t *testing.T, token string) map[string]any {
	t.Helper()
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		t.Fatalf("%q is no JWT", token)
	}
	body, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(body, &got); err != nil {
		t.Fatal(err)
	}
	return got
}

func TestEachAccountGetsTheScopesOfItsGroup(t *testing.T) {
	t.Parallel()

	first := newBrowser(t)
	for _, group := range grant.Groups() {
		b := first.another()
		got := b.redeem(b.signIn(group).Get("code"), verifier)
		access, id := claims(t, got.AccessToken), claims(t, got.IDToken)
		if want := strings.Join(grant.Scopes(group), " "); access["scope"] != want ||
			access["sub"] != group || access["iss"] != b.url {
			t.Errorf("%s has %v, want its scopes %q", group, access, want)
		}
		if audience, _ := access["aud"].([]any); !slices.Contains(audience, any(signin.Audience)) {
			t.Errorf("%s: the token is for %v, want %s", group, access["aud"], signin.Audience)
		}
		if id["nonce"] != "nonce-1" || id["name"] == nil || id["azp"] != signin.ConsoleID {
			t.Errorf("%s: the id token has %v, want the nonce, a name and the console", group, id)
		}
		if got.ExpiresIn < 50 || got.ExpiresIn > 60 {
			t.Errorf("the token lasts %d s, want a minute", got.ExpiresIn)
		}
	}
}

// An issuer that gives only what is asked for gives no other audience and no other scope, and none
// that the account lacks. A renewal gives the same. The usual issuer doesn't look at the question.
func TestAnIssuerMayGiveOnlyWhatIsAskedFor(t *testing.T) {
	t.Parallel()

	const asked = "openid offline_access inventory:read inventory:write catalog:write"
	all := strings.Join(grant.Scopes(grant.GroupViewer), " ")
	for _, test := range []struct {
		onlyAsked       bool
		scope, audience string
		wantScope       string
		wantAudience    []any
	}{
		{true, asked, "shop", "inventory:read", []any{"shop", signin.ConsoleID}},
		{true, "openid offline_access", "", "", []any{signin.ConsoleID}},
		{false, asked, "shop", all, []any{signin.Audience, signin.ConsoleID}},
	} {
		b := newBrowserAt(t, signin.Options{OnlyAsked: test.onlyAsked})
		answer := b.signIn(grant.GroupViewer, "scope", test.scope, "audience", test.audience)
		first := b.redeem(answer.Get("code"), verifier)
		for _, token := range []string{first.AccessToken, b.renew(first.RefreshToken).AccessToken} {
			got := claims(t, token)
			if audience, _ := got["aud"].([]any); got["scope"] != test.wantScope ||
				!slices.Equal(audience, test.wantAudience) {
				t.Errorf("%+v: the token is for %v with %q", test, got["aud"], got["scope"])
			}
		}
	}
}

func TestACodeIsGoodForOnceAndForWhoAsked(t *testing.T) {
	t.Parallel()

	b := newBrowser(t)
	code := b.signIn(grant.GroupViewer).Get("code")
	if got := b.redeem(code, verifier); got.AccessToken == "" {
		t.Fatalf("the code gives %+v, want a token", got)
	}
	if got := b.redeem(code, verifier); got.AccessToken != "" || got.Error == "" {
		t.Errorf("the code gives %+v a second time, want an error", got)
	}
	b = b.another()
	code = b.signIn(grant.GroupViewer).Get("code")
	if got := b.redeem(code, strings.Repeat("x", 43)); got.AccessToken != "" || got.Error == "" {
		t.Errorf("with another verifier the code gives %+v, want an error", got)
	}
}

func TestARefreshTokenIsGoodForOnce(t *testing.T) {
	t.Parallel()

	b := newBrowser(t)
	first := b.redeem(b.signIn(grant.GroupStock).Get("code"), verifier)
	second := b.renew(first.RefreshToken)
	if claims(t, second.AccessToken)["scope"] != strings.Join(grant.Scopes(grant.GroupStock), " ") {
		t.Errorf("the renewal gives %+v, want the scopes of the group", second)
	}
	if got := b.renew(first.RefreshToken); got.AccessToken != "" || got.Error != "invalid_grant" {
		t.Errorf("the first refresh token gives %+v again, want invalid_grant", got)
	}
	if got := b.renew(second.RefreshToken); got.AccessToken == "" {
		t.Errorf("the second refresh token gives %+v, want a token", got)
	}
}

// Without a question only a browser that is signed in gets a code. After the end of its session it
// isn't signed in, and its refresh token is no good any more.
func TestTheSessionOfABrowserBeginsAndEnds(t *testing.T) {
	t.Parallel()

	b := newBrowser(t)
	silently := func(who *browser) url.Values {
		_, _, location := who.get(who.question("prompt", "none"))
		for range 2 { // the page that asks, and the way back from it
			if strings.HasPrefix(location, redirect) {
				break
			}
			_, _, location = who.get(location)
		}
		return who.answer(location)
	}
	if got := silently(b); got.Get("error") != "login_required" {
		t.Errorf("a stranger gets %v, want login_required", got)
	}
	granted := b.redeem(b.signIn(grant.GroupAdmin).Get("code"), verifier)
	if got := silently(b); got.Get("code") == "" {
		t.Errorf("a browser that is signed in gets %v, want a code", got)
	}
	if got := silently(b.another()); got.Get("error") != "login_required" {
		t.Errorf("another browser gets %v, want login_required", got)
	}
	end := url.Values{
		"client_id": {signin.ConsoleID}, "id_token_hint": {granted.IDToken},
		"post_logout_redirect_uri": {"http://localhost:3000/ops"},
	}
	if _, _, location := b.get("/end_session?" + end.Encode()); location !=
		"http://localhost:3000/ops" {
		t.Errorf("the end of the session leads to %q, want the console", location)
	}
	if got := silently(b); got.Get("error") != "login_required" {
		t.Errorf("after the end the browser gets %v, want login_required", got)
	}
	if got := b.renew(granted.RefreshToken); got.AccessToken != "" {
		t.Errorf("after the end the refresh token gives %+v, want an error", got)
	}
}

func TestARevokedRefreshTokenIsNoGood(t *testing.T) {
	t.Parallel()

	b := newBrowser(t)
	granted := b.redeem(b.signIn(grant.GroupViewer).Get("code"), verifier)
	status, body, _ := b.post("/revoke", url.Values{
		"client_id": {signin.ConsoleID}, "token": {granted.RefreshToken},
		"token_type_hint": {"refresh_token"},
	})
	if status != http.StatusOK {
		t.Errorf("the revocation answers %d %s, want 200", status, body)
	}
	if got := b.renew(granted.RefreshToken); got.AccessToken != "" {
		t.Errorf("the revoked token gives %+v, want an error", got)
	}
}

func TestThePaymentSideSignsInWithItsSecret(t *testing.T) {
	t.Parallel()

	b := newBrowser(t)
	ask := func(id, secret string) tokens {
		return b.exchange("grant_type", "client_credentials", "client_id", id, "client_secret", secret,
			"scope", "inventory:write")
	}
	got := ask(signin.PaymentsID, b.issuer.PaymentsSecret())
	c := claims(t, got.AccessToken)
	if c["scope"] != "reservations:confirm" || c["sub"] != signin.PaymentsID {
		t.Errorf("the payment side gets %v, want the scope to confirm alone", c)
	}
	for id, secret := range map[string]string{
		signin.PaymentsID: "guessed", signin.ConsoleID: b.issuer.PaymentsSecret(), "x": "",
	} {
		if got := ask(id, secret); got.AccessToken != "" || got.Error == "" {
			t.Errorf("%s with a wrong secret gets %+v, want an error", id, got)
		}
	}
}

func TestTheIssuerLeadsOnlyToTheConsoleOfThisMachine(t *testing.T) {
	t.Parallel()

	b := newBrowser(t)
	for _, bad := range []string{
		"https://evil.example/ops/signed-in", "http://evil.example/ops/signed-in",
		"http://localhost:3000/elsewhere", "http://localhost.evil.example/ops/signed-in",
	} {
		status, _, location := b.get(b.question("redirect_uri", bad))
		if status != http.StatusBadRequest || location != "" {
			t.Errorf("a sign-in for %s = %d to %q, want 400", bad, status, location)
		}
	}
	for _, good := range []string{"http://127.0.0.1:4000", "http://localhost:1", "http://[::1]:5"} {
		status, _, location := b.get(b.question("redirect_uri", good+"/ops/signed-in"))
		if status != http.StatusFound || !strings.HasPrefix(location, "/sign-in?id=") {
			t.Errorf("a sign-in for %s = %d to %q, want the page", good, status, location)
		}
	}
}

func TestTheSignInPageRefusesWhatItDidntAsk(t *testing.T) {
	t.Parallel()

	b := newBrowser(t)
	if status, body, _ := b.get("/sign-in?id=unknown"); status != http.StatusBadRequest ||
		!strings.Contains(body, "This sign-in has ended") {
		t.Errorf("an unknown sign-in = %d %s, want 400 that says so", status, body)
	}
	_, _, page := b.get(b.question())
	id := strings.TrimPrefix(page, "/sign-in?id=")
	form := url.Values{"id": {id}, "account": {grant.GroupAdmin}}
	for want, headers := range map[int][]string{
		http.StatusForbidden: {"Sec-Fetch-Site", "cross-site"},
		http.StatusSeeOther:  {"Sec-Fetch-Site", "same-origin"},
	} {
		if status, body, _ := b.another().post("/sign-in", form, headers...); status != want {
			t.Errorf("a form with %q = %d %s, want %d", headers, status, body, want)
		}
	}
	form.Set("account", "root")
	if status, _, _ := b.post("/sign-in", form); status != http.StatusBadRequest {
		t.Errorf("an account that doesn't exist = %d, want 400", status)
	}
}

func TestTokenIsThatOfASignIn(t *testing.T) {
	t.Parallel()

	b := newBrowser(t)
	for subject, want := range map[string]string{
		grant.GroupSupport: strings.Join(grant.Scopes(grant.GroupSupport), " "),
		signin.PaymentsID:  "reservations:confirm",
	} {
		token, err := b.issuer.Token(t.Context(), subject)
		if err != nil {
			t.Fatal(err)
		}
		if got := claims(t, token); got["scope"] != want || got["sub"] != subject {
			t.Errorf("Token(%s) has %v, want the scopes %q", subject, got, want)
		}
	}
}
