package awsdb

import (
	"context"
	"errors"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/allo/reservations/internal/config"
)

var account = config.AWS{
	Region:          "eu-central-1",
	AccessKeyID:     "AKIAEXAMPLE",
	SecretAccessKey: "a key",
	SessionToken:    "a session",
}

func TestATokenIsForOneUserAndHostAndValidFor15Minutes(t *testing.T) {
	t.Parallel()

	source, err := NewIAM("postgres://allo_app@db.example:5432/allo?default_query_exec_mode=exec",
		account)
	if err != nil {
		t.Fatal(err)
	}
	read := func() (target *url.URL, token string) {
		t.Helper()
		got, err := source.Target(t.Context(), false)
		if err != nil || got.Roots == nil {
			t.Fatalf("Target() = %v, %v, want a target with roots", got.Roots, err)
		}
		if target, err = url.Parse(got.URL); err != nil {
			t.Fatal(err)
		}
		token, _ = target.User.Password()
		return target, token
	}
	target, token := read()
	if target.User.Username() != "allo_app" || target.Host != "db.example:5432" ||
		target.Query().Get("sslmode") != "verify-full" ||
		target.Query().Get("default_query_exec_mode") != "exec" {
		t.Errorf("the target is %s, want the given URL with sslmode=verify-full", target.Redacted())
	}
	signed, err := url.Parse("https://" + token)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"Action": "connect", "DBUser": "allo_app", "X-Amz-Expires": "900",
		"X-Amz-Security-Token": "a session", "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
	} {
		if got := signed.Query().Get(name); got != want {
			t.Errorf("the token's %s is %q, want %q", name, got, want)
		}
	}
	scope := signed.Query().Get("X-Amz-Credential")
	if signed.Host != "db.example:5432" || !strings.HasPrefix(scope, "AKIAEXAMPLE/") ||
		!strings.HasSuffix(scope, "/eu-central-1/rds-db/aws4_request") {
		t.Errorf("the token is for %s at %s, want this account at the host", scope, signed.Host)
	}
}

// RDS counts log-ins by their tokens, so a connection that is renewed must not cost a new one.
func TestATokenIsUsedAgainUntilItIsOldOrRefused(t *testing.T) {
	t.Parallel()

	source, err := NewIAM("postgres://allo_app@db.example:5432/allo", account)
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	token := func(age time.Duration, again bool) string {
		t.Helper()
		source.now = func() time.Time { return start.Add(age) }
		got, err := source.Target(t.Context(), again)
		if err != nil {
			t.Fatal(err)
		}
		return got.URL
	}
	// A token has its time in seconds, so a fresh one differs a second later.
	fresh := func(what, old string, read func() string) (token string) {
		t.Helper()
		for deadline := time.Now().Add(10 * time.Second); ; {
			if token = read(); token != old {
				return token
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s: the token stays the same", what)
			}
		}
	}
	first := token(0, false)
	if token(tokenReuse-time.Second, false) != first {
		t.Error("a token of nearly ten minutes isn't used again")
	}
	var age time.Duration
	second := fresh("an old token", first, func() string {
		age += tokenReuse
		return token(age, false)
	})
	if token(age+time.Minute, false) != second {
		t.Error("the token in the place of an old one isn't used again")
	}
	refused := time.Now()
	third := token(age, true)
	if third == second {
		t.Error("a refused token is used again")
	}
	if waited := time.Since(refused); waited < refusedPause {
		t.Errorf("a log-in was tried again %s after a refusal, want %s", waited, refusedPause)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := source.Target(ended, true); !errors.Is(err, context.Canceled) {
		t.Errorf("Target() = %v after its caller gave up, want its error", err)
	}
	fresh("a token of the future, after the clock was set back", third, func() string {
		age -= time.Second
		return token(age, false)
	})
}

// The token is sent as the password. RDS checks it with AWS. Here the server accepts any password
// for the user "trusted" over TLS.
func TestAPoolLogsInByTokenOverAVerifiedConnection(t *testing.T) {
	t.Parallel()

	d := newDatabase(t)
	d.exec("CREATE ROLE trusted LOGIN")
	d.exec("CREATE ROLE unknown LOGIN PASSWORD 'another'")
	var hba string
	if err := d.admin.QueryRow(t.Context(), "SHOW hba_file").Scan(&hba); err != nil {
		t.Fatal(err)
	}
	rules, err := os.ReadFile(hba)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(hba,
		append([]byte("hostssl all trusted 127.0.0.1/32 trust\n"), rules...), 0o600); err != nil {
		t.Fatal(err)
	}
	d.exec("SELECT pg_reload_conf()")
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, []byte(d.ca), 0o600); err != nil {
		t.Fatal(err)
	}
	source := func(user, host, query string) *IAM {
		t.Helper()
		s, err := NewIAM("postgres://"+user+"@"+host+":"+d.url.Port()+d.url.Path+query, account)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	withCA := "?sslrootcert=" + url.QueryEscape(ca)

	got, err := session(t, open(t, source("trusted", "localhost", withCA)))
	if err != nil || got != "trusted t" {
		t.Errorf("the session is %q, %v, want the user trusted, over TLS", got, err)
	}
	_, err = session(t, open(t, source("unknown", "localhost", withCA)))
	wantUnavailable(t, "a wrong password", err, "refuses the password")
	_, err = session(t, open(t, source("trusted", "localhost", "")))
	wantUnavailable(t, "an unknown authority", err, "certificate signed by unknown authority")
	_, err = session(t, open(t, source("trusted", "127.0.0.1", withCA)))
	wantUnavailable(t, "another host's certificate", err, "certificate for 127.0.0.1")
}

func TestNewIAMRefusesAnInvalidURL(t *testing.T) {
	t.Parallel()

	for _, bad := range []string{
		"postgres://u@h:5432/d?sslmode=disable", "https://u@h:5432/d", "postgres://%zz",
	} {
		if _, err := NewIAM(bad, account); err == nil ||
			!strings.Contains(err.Error(), "DATABASE_IAM_URL") {
			t.Errorf("NewIAM(%q) = %v, want an error that names the variable", bad, err)
		}
	}
}
