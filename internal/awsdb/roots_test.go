package awsdb

import (
	"crypto/x509"
	"encoding/pem"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/x509roots/fallback/bundle"

	"github.com/allo/reservations/internal/awsapi"
)

func TestEveryRegionsRootHasItsNameAndSignature(t *testing.T) {
	t.Parallel()

	const least = 27 // the file has had roots of 27 regions
	found := 0
	for rest := []byte(regionalRoots); ; found++ {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		name := certificate.Subject.CommonName
		region, isRoot := strings.CutSuffix(strings.TrimPrefix(name, "Amazon RDS "),
			" Root CA RSA2048 G1")
		if !isRoot || !certificate.IsCA ||
			certificate.Subject.String() != certificate.Issuer.String() {
			t.Errorf("%s isn't a region's root", certificate.Subject)
		}
		if err := certificate.CheckSignatureFrom(certificate); err != nil {
			t.Errorf("%s hasn't signed itself: %v", name, err)
		}
		if now := time.Now(); now.Before(certificate.NotBefore) ||
			now.After(certificate.NotAfter.AddDate(-1, 0, 0)) {
			t.Errorf("%s is valid from %s to %s: make cloud-roots", name, certificate.NotBefore,
				certificate.NotAfter)
		}
		if got := regionalRoot(region); got == nil || !got.Equal(certificate) {
			t.Errorf("regionalRoot(%s) = %v, want %s", region, got, name)
		}
	}
	if found < least {
		t.Errorf("the file holds %d roots, want at least %d", found, least)
	}
	if got := regionalRoot("nowhere-1"); got != nil {
		t.Errorf("regionalRoot(nowhere-1) = %s, want none", got.Subject)
	}
}

func TestARegionTrustsItsOwnRootAndNoOthers(t *testing.T) {
	t.Parallel()

	verify := func(region, trusting string) error {
		_, err := regionalRoot(region).Verify(x509.VerifyOptions{
			Roots: regionRoots(trusting), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
		})
		return err
	}
	if err := verify("eu-central-1", "eu-central-1"); err != nil {
		t.Errorf("a region's own root isn't trusted: %v", err)
	}
	if err := verify("eu-west-1", "eu-central-1"); err == nil {
		t.Error("another region's root is trusted")
	}
}

func TestThePublicRootsAreTrustedOnAMachineWithoutRoots(t *testing.T) {
	t.Parallel()

	for root := range bundle.Roots() {
		certificate, err := x509.ParseCertificate(root.Certificate)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(certificate.Subject.CommonName, "Amazon Root CA ") {
			continue
		}
		if _, err := certificate.Verify(
			x509.VerifyOptions{
				Roots: awsapi.Roots(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
			},
		); err != nil {
			t.Errorf("%s, which signs a proxy's certificate: %v", certificate.Subject.CommonName,
				err)
		}
	}
}

// BenchmarkRoots measures the parsing of the roots, which delays an environment's first connection.
func BenchmarkRoots(b *testing.B) {
	for b.Loop() {
		pool, err := x509.SystemCertPool()
		if err != nil {
			b.Fatal(err)
		}
		for root := range bundle.Roots() {
			certificate, err := x509.ParseCertificate(root.Certificate)
			if err != nil {
				b.Fatal(err)
			}
			pool.AddCert(certificate)
		}
	}
}
