package awsdb

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
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

	"github.com/allo/reservations/internal/awsapi"
	"github.com/allo/reservations/internal/postgres"
)

// manager stands in for Secrets Manager. It checks each request and its signature.
type manager struct {
	t   *testing.T
	url string

	mu      sync.Mutex
	respond http.HandlerFunc
	reads   int
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
		m.t.Errorf("the request to Secrets Manager is %s %v %s", r.Method, r.Header, body)
	}
	if got, want := r.Header.Get("Authorization"), m.sign(r, body); got != want {
		m.t.Errorf("the request's signature is %s, want %s", got, want)
	}
	m.mu.Lock()
	m.reads++
	respond := m.respond
	m.mu.Unlock()
	respond(w, r)
}

// sign computes the signature of a received request.
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
	digest := sha256.Sum256(body)
	if err := v4.NewSigner().SignHTTP(r.Context(), awsapi.Credentials(account), again,
		hex.EncodeToString(digest[:]), "secretsmanager", account.Region, at); err != nil {
		m.t.Error(err)
	}
	return again.Header.Get("Authorization")
}

// respondWith makes the manager answer with this status and body.
func (m *manager) respondWith(status int, body string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.respond = func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		fmt.Fprint(w, body)
	}
}

// store makes the manager answer with a secret of this text.
func (m *manager) store(text string) {
	m.t.Helper()
	body, err := json.Marshal(map[string]string{"Name": "allo/database", "SecretString": text})
	if err != nil {
		m.t.Fatal(err)
	}
	m.respondWith(http.StatusOK, string(body))
}

func (m *manager) secret() *Secret {
	a := account
	a.SecretsEndpoint = m.url
	return NewSecret("allo/database", a)
}

func (m *manager) wantReads(name string, want int) {
	m.t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.reads != want {
		m.t.Errorf("after %s the secret was read %d times, want %d", name, m.reads, want)
	}
}

// withCA returns the text of a secret with the database's URL and its authority.
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
	m.store(withCA(t, d.url.String(), d.ca))
	pool := open(t, m.secret())
	for range 3 {
		if got, err := session(t, pool); err != nil || got != "allo t" {
			t.Fatalf("the session is %q, %v, want the user allo, over TLS", got, err)
		}
		pool.Reset() // the next caller needs a new connection
	}
	m.wantReads("three connections", 1)

	d.exec("ALTER ROLE allo PASSWORD 'rotated'")
	rotated := d.with(func(u *url.URL) { u.User = url.UserPassword("allo", "rotated") })
	m.store(withCA(t, rotated, d.ca))
	if _, err := session(t, pool); err != nil {
		t.Errorf("the first caller after the change gets %v", err)
	}
	m.wantReads("a change of the password", 2)

	// When the secret still has the old password, it is read once more, and the caller gets the error.
	d.exec("ALTER ROLE allo PASSWORD 'rotated twice'")
	pool.Reset()
	_, err := session(t, pool)
	wantUnavailable(t, "a password that isn't in the secret", err, "refuses the password")
	m.wantReads("a change without the secret", 3)
}

func TestTheErrorOfAnUnusableSecretHasTheReason(t *testing.T) {
	t.Parallel()

	d := newDatabase(t)
	secretsURL := d.url.String()
	byAddress := d.with(func(u *url.URL) { u.Host = "127.0.0.1:" + u.Port() })
	for name, c := range map[string]struct{ secret, reason string }{
		"no authority":        {secretsURL, "certificate signed by unknown authority"},
		"another host's name": {withCA(t, byAddress, d.ca), "certificate for 127.0.0.1"},
		"no TLS": {
			withCA(t, secretsURL+"?sslmode=disable", d.ca), "set it to verify-full",
		},
		"an empty secret":       {"", "has no text"},
		"blanks":                {" \n", "holds no URL"},
		"truncated JSON":        {`{"url": "` + secretsURL, "begins like JSON but isn't"},
		"JSON without a URL":    {`{"username": "allo"}`, "holds no URL"},
		"an invalid authority":  {withCA(t, secretsURL, "none"), "holds no certificate"},
		"an unencoded password": {"postgres://allo:" + password + "@localhost/d", "percent-encoded"},
		"an unsupported mode": {
			withCA(t, secretsURL+"?default_query_exec_mode=simple_protocol", d.ca),
			"must be one of cache_statement, exec",
		},
		"an invalid parameter": {
			withCA(t, secretsURL+"?connect_timeout=soon", d.ca), "the database's URL can't be read",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			m := newManager(t)
			m.store(c.secret)
			_, err := session(t, open(t, m.secret()))
			wantUnavailable(t, name, err, c.reason)
		})
	}
}

func TestTheErrorOfAnUnusableResponseHasTheReason(t *testing.T) {
	t.Parallel()

	for name, c := range map[string]struct {
		status       int
		body, reason string
	}{
		"no permission": {
			http.StatusBadRequest,
			`{"__type":"AccessDeniedException","Message":"User x is not authorized"}`,
			"400 AccessDeniedException: User x is not authorized",
		},
		"a type with a namespace": {
			http.StatusBadRequest,
			`{"__type":"com.amazonaws#ResourceNotFoundException","message":"no such secret"}`,
			"400 ResourceNotFoundException: no such secret",
		},
		"a proxy's error":   {http.StatusBadGateway, "<html>", "the answer of Secrets Manager is 502"},
		"not JSON":          {http.StatusOK, "postgres://allo:100%@h/d", "isn't JSON"},
		"a binary secret":   {http.StatusOK, `{"SecretBinary":"AAAA"}`, "has no text"},
		"a too long answer": {http.StatusOK, strings.Repeat(" ", 1<<20), "has more than 397312 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			m := newManager(t)
			m.respondWith(c.status, c.body)
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
	m.respond = func(http.ResponseWriter, *http.Request) { <-over }
	start := time.Now()
	_, err := session(t, open(t, m.secret()))
	wantUnavailable(t, "no answer", err, "context deadline exceeded")
	const connect = 5 * time.Second // without its own limit the read would take as long
	if took := time.Since(start); took < awsapi.SecretTimeout || took >= connect {
		t.Errorf("it took %s, want about %s", took, awsapi.SecretTimeout)
	}
}

var _ postgres.Source = (*Secret)(nil)
