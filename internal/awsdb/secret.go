package awsdb

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"strings"

	"github.com/allo/reservations/internal/awsapi"
	"github.com/allo/reservations/internal/config"
	"github.com/allo/reservations/internal/postgres"
)

// Secret is a database whose URL is in Secrets Manager: as plain text, or as JSON together with the
// certificate of the provider's own authority:
//
//	{"url": "postgres://...", "ca": "-----BEGIN CERTIFICATE-----..."}
//
// A new connection reads the secret again when awsapi.SecretLife has passed, which bounds how long
// a moved database goes unnoticed, or when the database has refused the password.
type Secret struct {
	*awsapi.Secret[postgres.Target]
}

// NewSecret makes a Secret from its name or its ARN. It reads nothing yet.
func NewSecret(id string, account config.AWS) *Secret {
	parse := func(text string) (postgres.Target, error) { return parseSecret(text, account.Region) }
	return &Secret{awsapi.NewSecret(id, account, parse)}
}

// Target returns the secret's database. Concurrent callers wait for one read.
func (s *Secret) Target(ctx context.Context, again bool) (postgres.Target, error) {
	return s.Get(ctx, again)
}

// parseSecret parses a secret's text. Its errors don't repeat the text.
func parseSecret(text, region string) (postgres.Target, error) {
	content := struct{ URL, CA string }{URL: strings.TrimSpace(text)}
	if strings.HasPrefix(content.URL, "{") {
		content.URL = ""
		if err := json.Unmarshal([]byte(text), &content); err != nil {
			return postgres.Target{}, errors.New(
				`it begins like JSON but isn't valid JSON; it must be a URL, or ` +
					`{"url": "postgres://...", "ca": "..."}`)
		}
	}
	if content.URL == "" {
		return postgres.Target{}, errors.New(
			`it holds no URL; it must be a URL, or {"url": "postgres://...", "ca": "..."}`)
	}
	u, err := verified(content.URL)
	if err != nil {
		return postgres.Target{}, err
	}
	trusted := regionRoots(region) // the database may be RDS's
	if content.CA != "" {
		trusted = x509.NewCertPool() // a provider's own authority is the only one trusted
		if !trusted.AppendCertsFromPEM([]byte(content.CA)) {
			return postgres.Target{}, errors.New(
				`its "ca" holds no certificate; it must be the PEM file of the provider's authority`)
		}
	}
	return postgres.Target{URL: u.String(), Roots: trusted}, nil
}
