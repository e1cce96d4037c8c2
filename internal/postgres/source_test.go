package postgres_test

import (
	"context"
	"crypto/x509"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/allo/reservations/internal/postgres"
)

// limit is the limit of a connect in these tests.
const limit = 5 * time.Second

// changing is a Source that returns one URL after another. For an empty URL it returns an error.
type changing struct {
	urls  []string
	calls []bool // the argument again of each call
}

func (c *changing) Target(_ context.Context, again bool) (postgres.Target, error) {
	c.calls = append(c.calls, again)
	url := c.urls[min(len(c.calls), len(c.urls))-1]
	if url == "" {
		return postgres.Target{}, errors.New("no secret")
	}
	return postgres.Target{URL: url}, nil
}

func TestTheSourceIsAskedAgainOnceWhenAPasswordIsRefused(t *testing.T) {
	t.Parallel()

	refused, other := &pgconn.PgError{Code: "28P01"}, errors.New("no route to host")
	type answers map[string]error // the result of a dial, by its URL
	for name, c := range map[string]struct {
		urls         []string
		answers      answers
		dials, calls int
		want         error // of the last dial
		sourceFails  bool
	}{
		"a right password":   {[]string{"a"}, nil, 1, 1, nil, false},
		"a changed password": {[]string{"a", "b"}, answers{"a": refused}, 2, 2, nil, false},
		"two wrong passwords": {
			[]string{"a", "b"}, answers{"a": refused, "b": refused}, 2, 2, refused, false,
		},
		"an unchanged password": {[]string{"a", "a"}, answers{"a": refused}, 1, 2, refused, false},
		"another error":         {[]string{"a", "b"}, answers{"a": other}, 1, 1, other, false},
		"a failing source":      {[]string{""}, nil, 0, 1, nil, true},
		"a source that fails at the retry": {
			[]string{"a", ""}, answers{"a": refused}, 1, 2, refused, true,
		},
	} {
		source, dials := &changing{urls: c.urls}, 0
		dial := func(_ context.Context, target postgres.Target) (struct{}, error) {
			dials++
			return struct{}{}, c.answers[target.URL]
		}
		_, err := postgres.Connect(t.Context(), source, dial)
		if dials != c.dials || len(source.calls) != c.calls {
			t.Errorf("%s: Connect() made %d dials and asked the source %d times, want %d and %d",
				name, dials, len(source.calls), c.dials, c.calls)
		}
		var fromSource *postgres.SourceError
		if (c.want != nil && !errors.Is(err, c.want)) ||
			(err != nil) != (c.want != nil || c.sourceFails) ||
			errors.As(err, &fromSource) != c.sourceFails {
			t.Errorf("%s: Connect() = %v, want %v, and a SourceError: %t", name, err, c.want,
				c.sourceFails)
		}
		if source.calls[0] || len(source.calls) > 1 && !source.calls[1] {
			t.Errorf("%s: the source was called with again = %v, want false, then true", name,
				source.calls)
		}
	}
}

func TestEveryAddressIsVerifiedWithTheTargetsRoots(t *testing.T) {
	t.Parallel()

	roots := x509.NewCertPool()
	const twoHosts = "postgres://u:p@a:1,b:2/d?sslmode=verify-full"
	config, err := postgres.Target{URL: twoHosts, Roots: roots}.Config(limit)
	if err != nil || len(config.Fallbacks) == 0 {
		t.Fatalf("Config() = %+v, %v, want two addresses", config, err)
	}
	if config.TLSConfig.RootCAs != roots || config.TLSConfig.ServerName != "a" {
		t.Errorf("the first address is verified as %s, want a", config.TLSConfig.ServerName)
	}
	for _, fallback := range config.Fallbacks {
		if fallback.TLSConfig.RootCAs != roots || fallback.TLSConfig.ServerName != fallback.Host {
			t.Errorf("%s is verified as %s", fallback.Host, fallback.TLSConfig.ServerName)
		}
	}
	for _, mode := range []string{"disable", "allow", "prefer", "require", "verify-ca"} {
		_, err := postgres.Target{URL: "postgres://u:p@a/d?sslmode=" + mode, Roots: roots}.Config(limit)
		if err == nil || !strings.Contains(err.Error(), "wouldn't be verified") {
			t.Errorf("Config() of sslmode=%s = %v, want it refused", mode, err)
		}
	}
	target := postgres.Target{URL: "postgres://u:p@a/d?sslmode=disable"}
	if _, err := target.Config(limit); err != nil {
		t.Errorf("Config() without roots = %v, want the URL to decide", err)
	}
}

func TestAURLsOwnAuthorityIsRespected(t *testing.T) {
	t.Parallel()

	const system = "postgres://u:p@a/d?sslmode=verify-full&sslrootcert=system"
	config, err := postgres.Target{URL: system, Roots: x509.NewCertPool()}.Config(limit)
	if err != nil || config.TLSConfig.RootCAs == nil ||
		config.TLSConfig.RootCAs.Equal(x509.NewCertPool()) {
		t.Errorf("Config() with sslrootcert=system = %v, want the machine's roots", err)
	}
}

func TestAnErrorDoesNotRepeatTheURL(t *testing.T) {
	t.Parallel()

	for _, url := range []string{
		"postgres://u:pass/word@h/d", "postgres://u:pass%zz@h/d",
		"postgres://u:password@h/d?connect_timeout=soon",
		"host=h user=u password=pass/ sslmode=soon",
	} {
		_, err := postgres.Target{URL: url}.Config(limit)
		if err == nil {
			t.Errorf("Config() of %s succeeded, want an error", url)
			continue
		}
		for _, part := range []string{"pass:", "pass/", "pass%", "soon"} {
			if strings.Contains(err.Error(), part) {
				t.Errorf("Config() of %s = %v, want an error without a part of the URL", url, err)
			}
		}
	}
}
