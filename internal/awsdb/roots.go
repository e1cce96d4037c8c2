package awsdb

import (
	"crypto/x509"
	_ "embed"
	"encoding/pem"
	"strings"

	"github.com/allo/reservations/internal/awsapi"
)

// regionalRoots has RDS's root for the certificates rds-ca-rsa2048-g1 of each region. A line with
// the root's name comes before each. roots.sh makes the file.
//
//go:embed rds-ca-rsa2048-g1.pem
var regionalRoots string

// regionRoots are awsapi.Roots and RDS's own root of the region, which signs a cluster's
// certificate. A proxy's certificate is signed by a public root.
func regionRoots(region string) *x509.CertPool {
	pool := awsapi.Roots().Clone()
	if certificate := regionalRoot(region); certificate != nil {
		pool.AddCert(certificate)
	}
	return pool
}

// regionalRoot finds a region's root. It returns nil for a region newer than the file, whose
// certificates are then refused by the connect.
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
