package awsdb

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/url"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/feature/rds/auth"

	"github.com/allo/reservations/internal/awsapi"
	"github.com/allo/reservations/internal/config"
	"github.com/allo/reservations/internal/postgres"
)

// tokenReuse is how long a token is used for new connections. RDS takes a token for 15 minutes. It
// throttles log-ins beyond 200 a second, and advises to use a token again, because those that it
// knows aren't counted ("IAM database authentication" in the Aurora user guide, its limitations:
// https://docs.aws.amazon.com/AmazonRDS/latest/AuroraUserGuide/UsingWithRDS.IAMDBAuth.html).
const tokenReuse = 10 * time.Minute

// refusedPause and refusedJitter are how long a log-in waits after the server refused the token:
// the first, and up to the second more. When more environments start than RDS lets log in, those
// that were refused come again over two seconds. A token has its time in seconds, so after the
// pause it is another one. The rest of a connect's five seconds is enough for the second try.
const (
	refusedPause  = time.Second
	refusedJitter = 2 * time.Second
)

// IAM is a database of RDS, or a proxy of it, whose user authenticates with an IAM token as the
// password. A token is a signature, made without a call, and used again for tokenReuse. It is safe
// for concurrent use.
type IAM struct {
	url     *url.URL
	account config.AWS
	now     func() time.Time

	mu    sync.Mutex
	token string
	// made is when the token was made, by the wall clock: a frozen Lambda's other clock may stand.
	made time.Time
}

// NewIAM makes an IAM from a URL that has the user, the host and the port, and no password.
func NewIAM(raw string, account config.AWS) (*IAM, error) {
	u, err := verified(raw)
	if err != nil {
		return nil, fmt.Errorf("DATABASE_IAM_URL: %w", err)
	}
	return &IAM{url: u, account: account, now: time.Now}, nil
}

// Target returns the URL with a token as its password. The token is a fresh one when the last one
// is too old or was refused. After a refusal, Target waits for refusedPause and more.
func (i *IAM) Target(ctx context.Context, again bool) (postgres.Target, error) {
	if again {
		pause := refusedPause + rand.N(refusedJitter) // #nosec G404 -- no secret
		if err := wait(ctx, pause); err != nil {
			return postgres.Target{}, fmt.Errorf("wait after a refused token: %w", err)
		}
	}
	token, err := i.currentToken(ctx, again)
	if err != nil {
		return postgres.Target{}, fmt.Errorf("make a token for the database: %w", err)
	}
	u := *i.url
	u.User = url.UserPassword(u.User.Username(), token)
	return postgres.Target{URL: u.String(), Roots: regionRoots(i.account.Region)}, nil
}

// wait returns after the time, or with the context's error when that ends first.
func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// currentToken returns the last token, or a fresh one.
func (i *IAM) currentToken(ctx context.Context, fresh bool) (string, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	now := i.now().Round(0) // without the monotonic clock
	if age := now.Sub(i.made); !fresh && age >= 0 && age < tokenReuse {
		return i.token, nil
	}
	provider := aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
		return awsapi.Credentials(i.account), nil
	})
	token, err := auth.BuildAuthToken(
		ctx, i.url.Host, i.account.Region, i.url.User.Username(), provider)
	if err != nil {
		return "", err
	}
	i.token, i.made = token, now
	return token, nil
}
