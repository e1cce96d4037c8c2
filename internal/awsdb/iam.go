package awsdb

import (
	"context"
	"fmt"
	"net/url"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/feature/rds/auth"

	"github.com/allo/reservations/internal/awsapi"
	"github.com/allo/reservations/internal/config"
	"github.com/allo/reservations/internal/postgres"
)

// IAM is a database of RDS, or a proxy of it, whose user authenticates with an IAM token as the
// password. A token is valid for 15 minutes and made for each connection. It is a signature, made
// without a call.
type IAM struct {
	url     *url.URL
	account config.AWS
}

// NewIAM makes an IAM from a URL that has the user, the host and the port, and no password.
func NewIAM(raw string, account config.AWS) (*IAM, error) {
	u, err := verified(raw)
	if err != nil {
		return nil, fmt.Errorf("DATABASE_IAM_URL: %w", err)
	}
	return &IAM{url: u, account: account}, nil
}

// Target returns the URL with a fresh token as its password.
func (i *IAM) Target(ctx context.Context, _ bool) (postgres.Target, error) {
	user := i.url.User.Username()
	provider := aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
		return awsapi.Credentials(i.account), nil
	})
	token, err := auth.BuildAuthToken(ctx, i.url.Host, i.account.Region, user, provider)
	if err != nil {
		return postgres.Target{}, fmt.Errorf("make a token for the database: %w", err)
	}
	u := *i.url
	u.User = url.UserPassword(user, token)
	return postgres.Target{URL: u.String(), Roots: regionRoots(i.account.Region)}, nil
}
