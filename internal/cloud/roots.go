package cloud

import (
	"crypto/x509"
	_ "embed"
	"encoding/pem"
	"strings"
	"sync"

	"golang.org/x/crypto/x509roots/fallback/bundle"
)

// regionalRoots are the roots that RDS has in each region for its certificates rds-ca-rsa2048-g1, each behind a line with its name. roots.sh
// makes the file.
//
//go:embed rds-ca-rsa2048-g1.pem
var regionalRoots string

// roots are the machine's roots and Mozilla's, which a Lambda's image may lack. They are put together when they are first needed: parsing them
// takes milliseconds, which package fallback would spend in every function's start.
var roots = sync.OnceValue(func() *x509.CertPool {
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool() // a machine without any
	}
	for root := range bundle.Roots() {
		certificate, err := x509.ParseCertificate(root.Certificate)
		switch {
		case err != nil:
			continue // the others may do, and a test holds that there is none
		case root.Constraint != nil:
			pool.AddCertWithConstraint(certificate, root.Constraint)
		default:
			pool.AddCert(certificate)
		}
	}
	return pool
})

// regionRoots are those and the region's own of RDS, which signs the certificates of a cluster. A proxy's are signed by a public root.
func regionRoots(region string) *x509.CertPool {
	pool := roots().Clone()
	if certificate := regionalRoot(region); certificate != nil {
		pool.AddCert(certificate)
	}
	return pool
}

// regionalRoot finds a region's root, or nil when it is newer than the file: then the certificate isn't trusted, and the connect's error says
// so.
func regionalRoot(region string) *x509.Certificate {
	_, rest, found := strings.Cut(regionalRoots, "# "+rootName(region)+"\n")
	if !found {
		return nil
	}
	block, _ := pem.Decode([]byte(rest))
	if block == nil {
		return nil
	}
	certificate, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil
	}
	return certificate
}

func rootName(region string) string { return "Amazon RDS " + region + " Root CA RSA2048 G1" }
