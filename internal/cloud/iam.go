package cloud

import (
	"context"
	"fmt"
	"net/url"

	"github.com/aws/aws-sdk-go-v2/feature/rds/auth"

	"github.com/allo/reservations/internal/dsn"
)

// IAM is a database of RDS, or a proxy of it, whose user AWS vouches for: the password is a token, good for a quarter of an hour, and made anew
// for every connection. Making one is a signature, and asks nobody.
type IAM struct {
	url     *url.URL
	account Account
}

// NewIAM makes an IAM of a URL that names the user, the host and the port, and no password.
func NewIAM(raw string, account Account) (*IAM, error) {
	u, err := verified(raw)
	if err != nil {
		return nil, fmt.Errorf("DATABASE_IAM_URL: %w", err)
	}
	return &IAM{url: u, account: account}, nil
}

// Target returns the URL with a fresh token in it.
func (i *IAM) Target(ctx context.Context, _ bool) (dsn.Target, error) {
	user := i.url.User.Username()
	token, err := auth.BuildAuthToken(ctx, i.url.Host, i.account.Region, user, i.account)
	if err != nil {
		return dsn.Target{}, fmt.Errorf("make a token for the database: %w", err)
	}
	u := *i.url
	u.User = url.UserPassword(user, token)
	return dsn.Target{URL: u.String(), Roots: regionRoots(i.account.Region)}, nil
}
