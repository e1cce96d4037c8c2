// Package cloud finds the database of a Lambda: by a URL, by a user that AWS vouches for, or by a secret of Secrets Manager. It links two
// small parts of AWS's SDK, the signer and what makes a token for RDS, and neither its configuration nor any service's client: those cost a
// Lambda 0.85 MB and more, which a cold start has to load, where one signed POST does.
//
// Over the last two ways the server's certificate is always verified in full, its host name too.
package cloud

import (
	"context"
	"errors"
	"fmt"
	"net/url"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/allo/reservations/internal/dsn"
)

// Account is where the service runs and as whom, as Lambda's environment says.
type Account struct {
	Region, AccessKeyID, SecretAccessKey, SessionToken string
	// SecretsEndpoint is where Secrets Manager is asked, when it isn't the region's own.
	SecretsEndpoint string
}

// credentials are the account's. Lambda replaces an environment before they expire.
func (a Account) credentials() aws.Credentials {
	return aws.Credentials{
		AccessKeyID: a.AccessKeyID, SecretAccessKey: a.SecretAccessKey, SessionToken: a.SessionToken, Source: "the environment",
	}
}

// Retrieve makes an Account what a token is signed with.
func (a Account) Retrieve(context.Context) (aws.Credentials, error) { return a.credentials(), nil }

// Database is where the first of its arguments that isn't empty says: the database's URL, a URL without a password for IAM, or the secret
// that holds the URL.
func Database(databaseURL, iamURL, secret string, account Account) (dsn.Source, error) {
	switch {
	case databaseURL != "":
		return dsn.URL(databaseURL), nil
	case iamURL != "":
		return NewIAM(iamURL, account)
	case secret != "":
		return NewSecret(secret, account), nil
	default:
		return nil, errors.New("no database is named: set DATABASE_URL, DATABASE_IAM_URL or DATABASE_SECRET")
	}
}

// errMalformed doesn't say what is wrong: the parser's words may quote a part of a password.
var errMalformed = errors.New("the database's URL must be one such as postgres://user:password@host:5432/database, " +
	"with what is special in the user and the password percent-encoded")

// verified reads a URL and makes it ask for a certificate that is verified in full. What asks for none at all is refused instead of mended:
// its author thinks that the server has none.
func verified(raw string) (*url.URL, error) {
	u, err := url.Parse(raw)
	if err != nil || (u.Scheme != "postgres" && u.Scheme != "postgresql") || u.Hostname() == "" {
		return nil, errMalformed
	}
	query := u.Query()
	switch mode := query.Get("sslmode"); mode {
	case "", "prefer", "require", "verify-ca", "verify-full":
		query.Set("sslmode", "verify-full")
	default:
		return nil, fmt.Errorf("the database's URL asks for sslmode=%.16s, and over a network its certificate has to be verified; "+
			"remove the parameter, or set it to verify-full", mode)
	}
	u.RawQuery = query.Encode()
	return u, nil
}
