package main

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/allo/reservations/internal/config"
	"github.com/allo/reservations/internal/local/issuer"
)

// newIssuer returns an issuer on this machine and its URL.
func newIssuer(t *testing.T) (*issuer.Issuer, string) {
	t.Helper()
	server := httptest.NewUnstartedServer(nil)
	url := "http://" + server.Listener.Addr().String()
	i, err := issuer.New(url)
	if err != nil {
		t.Fatal(err)
	}
	server.Config.Handler = i
	server.Start()
	t.Cleanup(server.Close)
	return i, url
}

// statusOf sends a request with this Authorization header.
func statusOf(t *testing.T, method, url, authorization, body string) int {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Authorization", authorization)
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	return response.StatusCode
}

func TestTheServiceRunsWithAuth(t *testing.T) {
	t.Parallel()

	i, url := newIssuer(t)
	opts, c := testOptions(t), testConfig()
	c.Auth = config.Auth{
		Kind: config.AuthJWT, JWTIssuer: url, JWTAudience: "shop", Reserve: true,
	}
	p := start(t, opts, c)
	token := func(scope string) string {
		signed, err := i.Sign(map[string]any{
			"iss": url, "aud": "shop", "sub": "ann", "scope": scope,
			"exp": time.Now().Add(time.Hour).Unix(),
		})
		if err != nil {
			t.Fatal(err)
		}
		return "Bearer " + signed
	}

	waitUntil(t, func() bool { return strings.Contains(p.output.String(), "Guarded routes need") })
	if got := p.output.String(); !strings.Contains(got, "a token of "+url+" for shop") {
		t.Errorf("the program printed %q, want it to name the issuer and the audience", got)
	}
	for _, call := range []struct {
		method, path, authorization, body string
		status                            int
	}{
		{"GET", "/api/products", "", "", 200},
		{"GET", "/api/stats", "", "", 401},
		{"GET", "/api/stats", token("reservations:write"), "", 403},
		{"GET", "/api/stats", token("inventory:read"), "", 200},
		{"POST", "/api/reservations", "", lastMug, 401},
		{"POST", "/api/reservations", token("inventory:read"), lastMug, 403},
		{"POST", "/api/reservations", token("reservations:write"), lastMug, 201},
	} {
		got := statusOf(t, call.method, p.url+call.path, call.authorization, call.body)
		if got != call.status {
			t.Errorf("%s %s = %d, want %d", call.method, call.path, got, call.status)
		}
	}
}

// With -auth the program's own issuer makes the tokens, and the pages know of it.
func TestTheServiceRunsWithItsOwnIssuer(t *testing.T) {
	t.Parallel()

	opts := testOptions(t)
	opts.auth = true
	p := start(t, opts, testConfig())
	waitUntil(t, func() bool { return strings.Contains(p.output.String(), "with the secret") })
	_, rest, _ := strings.Cut(p.output.String(), "The console signs in at ")
	issuer, rest, _ := strings.Cut(rest, ",")
	_, rest, _ = strings.Cut(rest, "with the secret ")
	secret, _, _ := strings.Cut(rest, "\n")

	settings := get(t, p.url+"/settings.json")
	if !strings.Contains(settings, `"auth":true`) ||
		!strings.Contains(settings, `{"issuer":"`+issuer+`","clientId":"console"`) {
		t.Errorf("the settings of the pages are %s, want the issuer %s", settings, issuer)
	}
	paid := "Bearer " + machineToken(t, issuer, secret)
	hold := "/api/reservations/" + uuid.NewString()
	for _, call := range []struct {
		method, path, authorization string
		status                      int
	}{
		{"GET", "/api/stats", "", 401},
		{"GET", "/api/stats", paid, 403},
		{"POST", hold + "/cancel", paid, 403},
		{"POST", hold + "/confirm", paid, 404}, // it may, and there is no such hold
	} {
		got := statusOf(t, call.method, p.url+call.path, call.authorization, "")
		if got != call.status {
			t.Errorf("%s %s = %d, want %d", call.method, call.path, got, call.status)
		}
	}
}

// machineToken signs in as the payment side.
func machineToken(t *testing.T, issuer, secret string) string {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, issuer+"/oauth/token",
		strings.NewReader("grant_type=client_credentials"))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.SetBasicAuth("payments", secret)
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	var answer struct {
		Token string `json:"access_token"`
	}
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil || answer.Token == "" {
		t.Fatalf("the issuer answers %d %+v, %v, want a token", response.StatusCode, answer, err)
	}
	return answer.Token
}

func TestTheIssuerIsntStartedBesideAnother(t *testing.T) {
	t.Parallel()

	opts := testOptions(t)
	opts.auth = true
	for name, c := range map[string]config.Config{
		"AUTH": {Auth: config.Auth{Kind: config.AuthJWT, JWTIssuer: "https://id.example"}},
		"OIDC": {Pages: config.Pages{OIDCIssuer: "https://id.example", OIDCClientID: "c"}},
	} {
		issuer, err := startIssuer(t.Context(), opts, &c)
		if err == nil || !strings.Contains(err.Error(), "unset AUTH and OIDC_ISSUER") {
			t.Errorf("with %s: startIssuer() = %v, want an error that says what to unset", name, err)
			_ = issuer.close()
		}
	}
	taken, err := startIssuer(t.Context(), opts, &config.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer taken.close()
	_, port, _ := strings.Cut(strings.TrimPrefix(taken.url, "http://"), ":")
	opts.issuerPort, _ = strconv.Atoi(port)
	if other, err := startIssuer(t.Context(), opts, &config.Config{}); err == nil ||
		!strings.Contains(err.Error(), "-issuer-port "+strconv.Itoa(opts.issuerPort+1)) {
		t.Errorf("on a taken port startIssuer() = %v, want another port named", err)
		_ = other.close()
	}
}

func TestTheProgramSaysHowToCallGuardedRoutes(t *testing.T) {
	t.Parallel()

	for want, c := range map[string]config.Auth{
		"a token of https://id.example for shop": {
			Kind: config.AuthJWT, JWTIssuer: "https://id.example", JWTAudience: "shop",
		},
		"curl --aws-sigv4 aws:amz:us-east-1:execute-api": {
			Kind: config.AuthIAM, AccessKeyID: "AKIATEST", SecretAccessKey: "hidden",
		},
	} {
		got := callers(c)
		if !strings.Contains(got, want) || strings.Contains(got, "hidden") ||
			strings.Contains(got, "\n") {
			t.Errorf("callers() = %q, want one line with %q and no secret", got, want)
		}
	}
}

// A developer exports the credential for AUTH=iam. The verbs without a gateway work in that
// terminal.
func TestOnlyRunReadsTheSettingsOfTheAuthorizer(t *testing.T) {
	t.Setenv("IAM_ACCESS_KEY_ID", "AKIATEST")
	t.Setenv("DATABASE_URL", "")
	for verb, refused := range map[string]bool{"run": true, "reset": false} {
		var out bytes.Buffer
		err := run(t.Context(), []string{verb, "-data", t.TempDir()}, &out, &out)
		if refused && (err == nil || !strings.Contains(err.Error(), "IAM_ACCESS_KEY_ID is set")) ||
			!refused && err != nil {
			t.Errorf("%s = %v, want refused %t", verb, err, refused)
		}
	}
}
