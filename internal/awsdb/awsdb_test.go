package awsdb

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/allo/reservations/internal/config"
	"github.com/allo/reservations/internal/pgtest"
	"github.com/allo/reservations/internal/postgres"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// database is a Postgres server with TLS. A certificate authority of its own has signed its
// certificate, which is for the host name localhost.
type database struct {
	t     *testing.T
	admin *pgx.Conn
	url   *url.URL // for the role allo, with the certified host name
	ca    string   // the authority's certificate
}

const password = "a secret: 100%/@"

func newDatabase(t *testing.T) *database {
	t.Helper()
	_, db := pgtest.NewServer(t, nil)
	admin, err := pgx.Connect(t.Context(), db.DirectURL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = admin.Close(context.Background()) })
	u, err := url.Parse(db.DirectURL)
	if err != nil {
		t.Fatal(err)
	}
	d := &database{t: t, admin: admin, url: u}
	u.Host = "localhost:" + u.Port()
	u.User = url.UserPassword("allo", password)
	u.RawQuery = ""
	d.exec("CREATE ROLE allo LOGIN PASSWORD '" + password + "'")
	d.certify()
	return d
}

func (d *database) exec(sql string) {
	d.t.Helper()
	if _, err := d.admin.Exec(d.t.Context(), sql); err != nil {
		d.t.Fatalf("%s: %v", sql, err)
	}
}

// certify gives the server a certificate and waits until TLS is on.
func (d *database) certify() {
	d.t.Helper()
	var dir string
	if err := d.admin.QueryRow(d.t.Context(), "SHOW data_directory").Scan(&dir); err != nil {
		d.t.Fatal(err)
	}
	certificate, key, ca := certificates(d.t)
	d.ca = ca
	info, err := os.Stat(dir)
	if err != nil {
		d.t.Fatal(err)
	}
	owner := info.Sys().(*syscall.Stat_t)
	for name, content := range map[string]string{"server.crt": certificate, "server.key": key} {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.WriteFile(path, []byte(content), 0o600),
			os.Chown(path, int(owner.Uid), int(owner.Gid))); err != nil {
			d.t.Fatal(err)
		}
	}
	d.exec("ALTER SYSTEM SET ssl = on")
	d.exec("SELECT pg_reload_conf()")
	for on := ""; on != "on"; { // the query paces the loop, and the test's deadline ends it
		if err := d.admin.QueryRow(d.t.Context(), "SHOW ssl").Scan(&on); err != nil {
			d.t.Fatal(err)
		}
	}
}

// with returns the URL with a change.
func (d *database) with(change func(u *url.URL)) string {
	u := *d.url
	change(&u)
	return u.String()
}

// certificates makes a certificate authority and a certificate that it has signed. The certificate
// is for the name localhost, and not for 127.0.0.1.
func certificates(t *testing.T) (certificate, key, ca string) {
	t.Helper()
	sign := func(
		template, parent *x509.Certificate, parentKey *ecdsa.PrivateKey,
	) (*ecdsa.PrivateKey, []byte) {
		own, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		if parentKey == nil {
			parentKey = own
		}
		der, err := x509.CreateCertificate(rand.Reader, template, parent, &own.PublicKey, parentKey)
		if err != nil {
			t.Fatal(err)
		}
		return own, der
	}
	root := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "a provider's authority"},
		NotAfter: time.Now().Add(time.Hour),
		IsCA:     true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	rootKey, rootDER := sign(root, root, nil)
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), DNSNames: []string{"localhost"},
		NotAfter: time.Now().Add(time.Hour),
	}
	leafKey, leafDER := sign(leaf, root, rootKey)
	keyDER, err := x509.MarshalPKCS8PrivateKey(leafKey)
	if err != nil {
		t.Fatal(err)
	}
	text := func(kind string, der []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
	return text("CERTIFICATE", leafDER), text("PRIVATE KEY", keyDER), text("CERTIFICATE", rootDER)
}

func open(t *testing.T, source postgres.Source) *postgres.Pool {
	t.Helper()
	pool, err := postgres.Open(source, 1, postgres.Unchecked) // its server is new
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}

// session returns the session's user and whether it uses TLS, as "allo t" or "allo f".
func session(t *testing.T, pool *postgres.Pool) (string, error) {
	t.Helper()
	const sql = `
SELECT concat_ws(' ', current_user, ssl) FROM pg_stat_ssl WHERE pid = pg_backend_pid()`
	return postgres.QueryRow(t.Context(), pool, pgx.RowTo[string], sql)
}

// wantUnavailable checks that an error lets the caller try again later, names the reason, and
// doesn't contain a password or a signature.
func wantUnavailable(t *testing.T, name string, err error, reason string) {
	t.Helper()
	if !postgres.Unavailable(err) || !postgres.NoConnection(err) ||
		!strings.Contains(fmt.Sprint(err), reason) {
		t.Errorf("%s: the error is %v, want it unavailable and to contain %q", name, err, reason)
	}
	for _, secret := range []string{
		password, url.QueryEscape(password), url.UserPassword("", password).String(), "100%",
		"X-Amz-Signature",
	} {
		if strings.Contains(fmt.Sprint(err), secret) {
			t.Errorf("%s: the error contains the password: %v", name, err)
		}
	}
}

func TestTheFirstVariableThatIsSetNamesTheDatabase(t *testing.T) {
	t.Parallel()

	for _, c := range []struct {
		url, iam, secret string
		want             any
	}{
		{"postgres://a@b/c", "postgres://u@h:5432/d", "s", postgres.URL("")},
		{"", "postgres://u@h:5432/d", "s", &IAM{}},
		{"", "", "s", &Secret{}},
	} {
		got, err := Source(
			config.Config{DatabaseURL: c.url, DatabaseIAMURL: c.iam, DatabaseSecret: c.secret})
		if err != nil || fmt.Sprintf("%T", got) != fmt.Sprintf("%T", c.want) {
			t.Errorf("Source(%q, %q, %q) = %T, %v, want %T", c.url, c.iam, c.secret, got, err,
				c.want)
		}
	}
	if got, err := Source(config.Config{}); err == nil ||
		!strings.Contains(err.Error(), "DATABASE_SECRET") {
		t.Errorf("Source() without a variable = %v, %v, want an error that names the variables", got,
			err)
	}
}

func TestTheURLAlwaysAsksForAFullVerification(t *testing.T) {
	t.Parallel()

	for _, mode := range []string{"", "prefer", "require", "verify-ca", "verify-full"} {
		u, err := verified("postgres://u:p@h/d?sslrootcert=system&sslmode=" + mode)
		if err != nil || u.Query().Get("sslmode") != "verify-full" ||
			u.Query().Get("sslrootcert") != "system" {
			t.Errorf("verified() of sslmode=%s = %v, %v, want sslmode=verify-full", mode, u, err)
		}
	}
	for _, bad := range []string{"disable", "allow", "DISABLE", "verify"} {
		if _, err := verified("postgres://u:p@h/d?sslmode=" + bad); err == nil ||
			!strings.Contains(err.Error(), "set it to verify-full") {
			t.Errorf("verified() of sslmode=%s = %v, want an error with the remedy", bad, err)
		}
	}
	for _, bad := range []string{
		"", "h/d", "mysql://u:p@h/d", "postgres:///d?host=/tmp", "postgres://u:100%@h/d",
		"postgres://u:pa/ss@h/d",
	} {
		if _, err := verified(bad); !errors.Is(err, errMalformed) {
			t.Errorf("verified(%q) = %v, want %v", bad, err, errMalformed)
		}
	}
}
