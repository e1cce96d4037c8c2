package awsdb

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"github.com/allo/reservations/internal/config"
	"github.com/allo/reservations/internal/postgres"
)

// manager stands in for Secrets Manager, and looks at how it is asked.
type manager struct {
	t   *testing.T
	url string

	mu     sync.Mutex
	answer func(w http.ResponseWriter, r *http.Request)
	reads  int
}

func newManager(t *testing.T) *manager {
	t.Helper()
	m := &manager{t: t}
	server := httptest.NewServer(http.HandlerFunc(m.serve))
	t.Cleanup(server.Close)
	m.url = server.URL
	return m
}

func (m *manager) serve(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		m.t.Error(err)
	}
	if string(body) != `{"SecretId":"allo/database"}` || r.Method != http.MethodPost ||
		r.Header.Get("X-Amz-Target") != "secretsmanager.GetSecretValue" ||
		r.Header.Get("Content-Type") != "application/x-amz-json-1.1" ||
		r.Header.Get("X-Amz-Security-Token") != account.SessionToken {
		m.t.Errorf("Secrets Manager is asked %s %v %s", r.Method, r.Header, body)
	}
	if got, want := r.Header.Get("Authorization"), m.sign(r, body); got != want {
		m.t.Errorf("the request's signature is %s, want %s", got, want)
	}
	m.mu.Lock()
	m.reads++
	answer := m.answer
	m.mu.Unlock()
	answer(w, r)
}

// sign makes the signature anew, from what has arrived.
func (m *manager) sign(r *http.Request, body []byte) string {
	at, err := time.Parse("20060102T150405Z", r.Header.Get("X-Amz-Date"))
	if err != nil {
		m.t.Error(err)
	}
	again, err := http.NewRequestWithContext(r.Context(), r.Method, m.url+r.URL.Path,
		bytes.NewReader(body))
	if err != nil {
		m.t.Error(err)
	}
	for _, name := range []string{"Content-Type", "X-Amz-Target"} {
		again.Header.Set(name, r.Header.Get(name))
	}
	if err := v4.NewSigner().SignHTTP(r.Context(), credentials(account), again, sum(body),
		"secretsmanager", account.Region, at); err != nil {
		m.t.Error(err)
	}
	return again.Header.Get("Authorization")
}

func (m *manager) says(status int, body string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.answer = func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		fmt.Fprint(w, body)
	}
}

// holds makes the manager give a secret of this text.
func (m *manager) holds(text string) {
	m.t.Helper()
	body, err := json.Marshal(map[string]string{"Name": "allo/database", "SecretString": text})
	if err != nil {
		m.t.Fatal(err)
	}
	m.says(http.StatusOK, string(body))
}

func (m *manager) secret() *Secret {
	a := account
	a.SecretsEndpoint = m.url
	return NewSecret("allo/database", a)
}

func (m *manager) wantReads(what string, want int) {
	m.t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.reads != want {
		m.t.Errorf("%s: the secret was read %d times, want %d", what, m.reads, want)
	}
}

// withCA is the secret of a provider that has an authority of its own.
func withCA(t *testing.T, databaseURL, ca string) string {
	t.Helper()
	text, err := json.Marshal(map[string]string{"url": databaseURL, "ca": ca})
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestAChangedPasswordCausesNoError(t *testing.T) {
	t.Parallel()

	d, m := newDatabase(t), newManager(t)
	m.holds(withCA(t, d.url.String(), d.ca))
	pool := open(t, m.secret())
	for range 3 {
		if who, err := session(t, pool); err != nil || who != "allo t" {
			t.Fatalf("the session is %q, %v, want allo's over TLS", who, err)
		}
		pool.Reset() // the next one connects anew
	}
	m.wantReads("three connections", 1)

	d.exec("ALTER ROLE allo PASSWORD 'rotated'")
	m.holds(
		withCA(t, d.with(func(u *url.URL) { u.User = url.UserPassword("allo", "rotated") }), d.ca))
	if _, err := session(t, pool); err != nil {
		t.Errorf("the first caller after the change gets %v", err)
	}
	m.wantReads("a change", 2)

	// Where the secret didn't change as well the caller is told, after one more look.
	d.exec("ALTER ROLE allo PASSWORD 'rotated twice'")
	pool.Reset()
	_, err := session(t, pool)
	wantUnavailable(t, "a password that the secret doesn't know", err, "refuses the password")
	m.wantReads("a change that the secret missed", 3)
}

func TestASecretThatCannotBeUsedSaysWhy(t *testing.T) {
	t.Parallel()

	d := newDatabase(t)
	ok := func(text string) func(*manager) { return func(m *manager) { m.holds(text) } }
	for name, c := range map[string]struct {
		answer func(m *manager)
		reason string
	}{
		"no authority of that name": {ok(d.url.String()), "certificate signed by unknown authority"},
		"another host's certificate": {
			ok(withCA(t, d.with(func(u *url.URL) { u.Host = "127.0.0.1:" + u.Port() }), d.ca)), "certificate for 127.0.0.1",
		},
		"an address without TLS's verification": {ok(withCA(t, d.url.String()+"?sslmode=disable", d.ca)), "set it to verify-full"},
		"no permission": {func(m *manager) {
			m.says(http.StatusBadRequest, `{"__type":"AccessDeniedException","Message":"User x is not authorized to perform secretsmanager:GetSecretValue"}`)
		}, "400 AccessDeniedException: User x is not authorized"},
		"a type with its namespace": {func(m *manager) {
			m.says(http.StatusBadRequest, `{"__type":"com.amazonaws#ResourceNotFoundException","message":"no such secret"}`)
		}, "400 ResourceNotFoundException: no such secret"},
		"a proxy's error":                    {func(m *manager) { m.says(http.StatusBadGateway, "<html>") }, "answer of Secrets Manager: status 502"},
		"an answer that isn't JSON":          {func(m *manager) { m.says(http.StatusOK, d.url.String()) }, "isn't JSON"},
		"a secret of bytes":                  {func(m *manager) { m.says(http.StatusOK, `{"SecretBinary":"AAAA"}`) }, "has no text"},
		"an empty secret":                    {ok(""), "has no text"},
		"a secret of blanks":                 {ok(" \n"), "holds no URL"},
		"half a JSON":                        {ok(`{"url": "` + d.url.String()), "begins like JSON but isn't"},
		"a JSON without a URL":               {ok(`{"username": "allo"}`), "holds no URL"},
		"an authority that is none":          {ok(withCA(t, d.url.String(), "none")), "holds no certificate"},
		"a password that isn't encoded":      {ok("postgres://allo:" + password + "@localhost/d"), "percent-encoded"},
		"a mode that isn't there":            {ok(withCA(t, d.url.String()+"?default_query_exec_mode=simple_protocol", d.ca)), "must be cache_statement or exec"},
		"a parameter the driver can't parse": {ok(withCA(t, d.url.String()+"?connect_timeout=soon", d.ca)), "the database's URL can't be read"},
		"an answer without an end": {func(m *manager) {
			m.says(http.StatusOK, strings.Repeat(" ", maxSecret+1))
		}, "too many for a secret"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			m := newManager(t)
			c.answer(m)
			_, err := session(t, open(t, m.secret()))
			wantUnavailable(t, name, err, c.reason)
		})
	}
}

func TestTheWaitForSecretsManagerIsBounded(t *testing.T) {
	t.Parallel()

	m := newManager(t)
	over := make(chan struct{})
	t.Cleanup(func() { close(over) })
	m.answer = func(_ http.ResponseWriter, _ *http.Request) { <-over }
	start := time.Now()
	_, err := session(t, open(t, m.secret()))
	wantUnavailable(t, "no answer", err, "context deadline exceeded")
	if took := time.Since(start); took < secretTimeout || took > 3*secretTimeout {
		t.Errorf("it took %s, want about %s", took, secretTimeout)
	}
}

func TestASecretIsReadAgainAfterItsLifetime(t *testing.T) {
	t.Parallel()

	m := newManager(t)
	m.holds("postgres://allo:one@h/d")
	s := m.secret()
	now := time.Now()
	s.now = func() time.Time { return now }
	target := func() string {
		t.Helper()
		got, err := s.Target(t.Context(), false)
		if err != nil {
			t.Fatal(err)
		}
		return got.URL
	}
	first := target()
	m.holds("postgres://allo:two@h/d")
	now = now.Add(secretLife - time.Second)
	if got := target(); got != first {
		t.Error("the secret was read again before it was old")
	}
	now = now.Add(2 * time.Second)
	if got := target(); got == first {
		t.Error("the secret wasn't read again when it was old")
	}
	m.wantReads("two that are old", 2)
}

func TestTheEndpointIsTheRegionsOwn(t *testing.T) {
	t.Parallel()

	for _, c := range []struct{ region, endpoint, want string }{
		{"eu-central-1", "", "https://secretsmanager.eu-central-1.amazonaws.com/"},
		{"cn-north-1", "", "https://secretsmanager.cn-north-1.amazonaws.com.cn/"},
		{"eu-central-1", "http://localhost:5000", "http://localhost:5000/"},
		{"eu-central-1", "http://localhost:5000/", "http://localhost:5000/"},
	} {
		if got := NewSecret("s",
			config.AWS{Region: c.region, SecretsEndpoint: c.endpoint}).endpoint(); got != c.want {
			t.Errorf("the endpoint of %s and %q is %s, want %s", c.region, c.endpoint, got, c.want)
		}
	}
}

var _ postgres.Source = (*Secret)(nil)
