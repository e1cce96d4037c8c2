package awsdb

import (
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

func TestATokenIsForItsUserHostAndAQuarterOfAnHour(t *testing.T) {
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
			t.Fatalf("Target() = %v, want the roots that it is verified with", err)
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
		t.Errorf("the target is %s, want the URL's own, verified in full", target.Redacted())
	}
	signed, err := url.Parse("https://" + token)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"Action": "connect", "DBUser": "allo_app", "X-Amz-Expires": "900", "X-Amz-Security-Token": "a session", "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
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

	// Its time has seconds, so a second later it is another.
	for deadline := time.Now().Add(10 * time.Second); ; {
		if _, again := read(); again != token {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the token stays the same")
		}
	}
}

// The token is sent as any password is: here to a server that takes any for one of its users, as
// RDS does for those of rds_iam that AWS vouches for.
func TestAPoolLogsInByTokenOverAVerifiedConnection(t *testing.T) {
	t.Parallel()

	d := newDatabase(t)
	d.exec("CREATE ROLE vouched LOGIN")
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
		append([]byte("hostssl all vouched 127.0.0.1/32 trust\n"), rules...), 0o600); err != nil {
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
	trusting := "?sslrootcert=" + url.QueryEscape(ca)

	if who, err := session(t, open(t, source("vouched", "localhost", trusting))); err != nil ||
		who != "vouched t" {
		t.Errorf("the session is %q, %v, want vouched's over TLS", who, err)
	}
	_, err = session(t, open(t, source("unknown", "localhost", trusting)))
	wantUnavailable(t, "a user whom nobody vouches for", err, "refuses the password")
	_, err = session(t, open(t, source("vouched", "localhost", "")))
	wantUnavailable(t, "an authority that nobody knows", err,
		"certificate signed by unknown authority")
	_, err = session(t, open(t, source("vouched", "127.0.0.1", trusting)))
	wantUnavailable(t, "another host's certificate", err, "certificate for 127.0.0.1")
}

func TestNewIAMRefusesAnInvalidURL(t *testing.T) {
	t.Parallel()

	for _, bad := range []string{"postgres://u@h:5432/d?sslmode=disable", "https://u@h:5432/d", "postgres://%zz"} {
		if _, err := NewIAM(bad, account); err == nil ||
			!strings.Contains(err.Error(), "DATABASE_IAM_URL") {
			t.Errorf("NewIAM(%q) = %v, want an error that names the variable", bad, err)
		}
	}
}
