package deploy

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/jackc/pgx/v5"

	"github.com/allo/reservations/internal/pgtest"
)

// database is an empty database on a server such as a provider runs: it requires TLS, with a
// certificate of the provider's own authority.
type database struct {
	url       string // the secret's
	direct    string // the URL without TLS
	password  string
	authority string
	stranger  string // an authority that didn't sign the server's certificate
}

func newDatabase(t *testing.T) *database {
	t.Helper()
	_, server := pgtest.NewServer(t, nil)
	ctx := within(t, callLimit)
	conn, err := pgx.Connect(ctx, server.DirectURL)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	d := &database{}
	_, _, d.stranger = certify(t)
	certificate, key, authority := certify(t)
	d.authority = authority
	var data string
	if err := conn.QueryRow(ctx, "SHOW data_directory").Scan(&data); err != nil {
		t.Fatal(err)
	}
	install(t, data, "server.crt", certificate)
	install(t, data, "server.key", key)
	for _, statement := range []string{
		"CREATE DATABASE shop", "ALTER SYSTEM SET ssl = on", "SELECT pg_reload_conf()",
	} {
		if _, err := conn.Exec(ctx, statement); err != nil {
			t.Fatal(err)
		}
	}
	u := must(url.Parse(server.DirectURL))
	u.Path = "/shop"
	d.direct = u.String()
	d.password, _ = u.User.Password()
	u.RawQuery = "sslmode=verify-full"
	d.url = u.String()
	return d
}

// install writes a file into the server's data directory, owned by the server's user. Postgres
// refuses a key that others can read.
func install(t *testing.T, dir, name, content string) {
	t.Helper()
	info, err := os.Stat(dir)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	if owner, ok := info.Sys().(*syscall.Stat_t); ok {
		if err := os.Chown(path, int(owner.Uid), int(owner.Gid)); err != nil {
			t.Fatal(err)
		}
	}
}

// certify creates an authority, and a certificate signed by it for 127.0.0.1.
func certify(t *testing.T) (certificate, key, authority string) {
	t.Helper()
	template := func(serial int64, name string) *x509.Certificate {
		return &x509.Certificate{
			SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name},
			NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		}
	}
	ca := template(1, "The provider's authority")
	ca.IsCA, ca.BasicConstraintsValid, ca.KeyUsage = true, true, x509.KeyUsageCertSign
	leaf := template(2, "Postgres")
	leaf.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
	leaf.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	caKey := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	leafKey := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	text := func(kind string, der []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
	authority = text(
		"CERTIFICATE", must(x509.CreateCertificate(rand.Reader, ca, ca, &caKey.PublicKey, caKey)),
	)
	certificate = text(
		"CERTIFICATE", must(x509.CreateCertificate(rand.Reader, leaf, ca, &leafKey.PublicKey, caKey)),
	)
	return certificate, text("EC PRIVATE KEY", must(x509.MarshalECPrivateKey(leafKey))), authority
}

// keep stores the URL and an authority as a secret in the double's Secrets Manager.
func (d *database) keep(t *testing.T, cloud *double, name, authority string) {
	t.Helper()
	value := string(must(json.Marshal(map[string]string{"url": d.url, "ca": authority})))
	_, err := secretsmanager.NewFromConfig(cloud.config()).CreateSecret(within(t, callLimit),
		&secretsmanager.CreateSecretInput{Name: aws.String(name), SecretString: aws.String(value)})
	if err != nil {
		t.Fatal(err)
	}
}

// exec runs a statement.
func (d *database) exec(t *testing.T, statement string) {
	t.Helper()
	ctx := within(t, callLimit)
	conn, err := pgx.Connect(ctx, d.direct)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if _, err := conn.Exec(ctx, statement); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

// queryNumber runs a query that returns a number.
func (d *database) queryNumber(ctx context.Context, query string) (n int, err error) {
	conn, err := pgx.Connect(ctx, d.direct)
	if err != nil {
		return 0, err
	}
	defer conn.Close(context.Background())
	err = conn.QueryRow(ctx, query).Scan(&n)
	return n, err
}

// count runs a query that returns a number, and fails the test on an error.
func (d *database) count(t *testing.T, query string) int {
	t.Helper()
	n, err := d.queryNumber(within(t, callLimit), query)
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return n
}

const countTables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"

// tables counts the tables.
func (d *database) tables(t *testing.T) int {
	t.Helper()
	return d.count(t, countTables)
}
