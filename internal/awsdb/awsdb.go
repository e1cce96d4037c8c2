// Package awsdb finds a Lambda's database: by a URL, by a user that authenticates with an IAM
// token, or by a secret of Secrets Manager. Of AWS's SDK it links the token for RDS, and the signer
// of package awsapi.
//
// With a token or a secret, the server's certificate and its host name are always verified.
package awsdb

import (
	"errors"
	"fmt"
	"net/url"

	"github.com/allo/reservations/internal/config"
	"github.com/allo/reservations/internal/postgres"
)

// Source returns the source of the first of DATABASE_URL, DATABASE_IAM_URL and DATABASE_SECRET that
// is set. It returns an error when none is set or the IAM URL is malformed.
func Source(c config.Config) (postgres.Source, error) {
	switch {
	case c.DatabaseURL != "":
		return postgres.URL(c.DatabaseURL), nil
	case c.DatabaseIAMURL != "":
		return NewIAM(c.DatabaseIAMURL, c.AWS)
	case c.DatabaseSecret != "":
		return NewSecret(c.DatabaseSecret, c.AWS), nil
	default:
		return nil, errors.New(
			"no database is named: set DATABASE_URL, DATABASE_IAM_URL or DATABASE_SECRET")
	}
}

// errMalformed doesn't say where the URL is wrong: the parser's error may quote a part of a
// password.
var errMalformed = errors.New(
	"the database's URL must look like postgres://user:password@host:5432/database, " +
		"with special characters in the user and the password percent-encoded",
)

// verified parses a URL and sets sslmode=verify-full. It refuses an sslmode that asks for no TLS:
// the URL's author believes that the server has none.
func verified(raw string) (*url.URL, error) {
	u, err := url.Parse(raw)
	if err != nil || (u.Scheme != "postgres" && u.Scheme != "postgresql") || u.Hostname() == "" {
		return nil, errMalformed
	}
	if err := postgres.CheckParameters(raw); err != nil {
		return nil, err
	}
	query := u.Query()
	switch mode := query.Get("sslmode"); mode {
	case "", "prefer", "require", "verify-ca", "verify-full":
		query.Set("sslmode", "verify-full")
	default:
		return nil, fmt.Errorf(
			"the database's URL has sslmode=%.16s, but the server's certificate must be "+
				"verified: remove the parameter, or set it to verify-full",
			mode,
		)
	}
	u.RawQuery = query.Encode()
	return u, nil
}
