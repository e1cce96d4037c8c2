package postgres_test

import (
	"context"
	"crypto/x509"
	"errors"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/allo/reservations/internal/postgres"
)

// changing is a Source with a sequence of URLs. An empty URL is an error.
type changing struct {
	urls  []string
	asked []bool
}

func (c *changing) Target(_ context.Context, again bool) (postgres.Target, error) {
	c.asked = append(c.asked, again)
	url := c.urls[min(len(c.asked), len(c.urls))-1]
	if url == "" {
		return postgres.Target{}, errors.New("no secret")
	}
	return postgres.Target{URL: url}, nil
}

func TestTheSourceIsAskedAgainOnceWhenAPasswordIsRefused(t *testing.T) {
	t.Parallel()

	refused, other := &pgconn.PgError{Code: "28P01"}, errors.New("no route to host")
	for name, c := range map[string]struct {
		urls         []string
		answers      map[string]error
		dials, asked int
		want         error
		source       bool
	}{
		"right at once":                    {[]string{"a"}, nil, 1, 1, nil, false},
		"changed":                          {[]string{"a", "b"}, map[string]error{"a": refused}, 2, 2, nil, false},
		"changed, and wrong again":         {[]string{"a", "b"}, map[string]error{"a": refused, "b": refused}, 2, 2, refused, false},
		"not changed":                      {[]string{"a", "a"}, map[string]error{"a": refused}, 1, 2, refused, false},
		"another error":                    {[]string{"a", "b"}, map[string]error{"a": other}, 1, 1, other, false},
		"a source that fails":              {[]string{""}, nil, 0, 1, nil, true},
		"a source that fails at the retry": {[]string{"a", ""}, map[string]error{"a": refused}, 1, 2, refused, true},
	} {
		source, dials := &changing{urls: c.urls}, 0
		_, err := postgres.Connect(
			t.Context(),
			source,
			func(_ context.Context, target postgres.Target) (struct{}, error) {
				dials++
				return struct{}{}, c.answers[target.URL]
			},
		)
		var fromSource *postgres.SourceError
		if dials != c.dials || len(source.asked) != c.asked ||
			(c.want != nil && !errors.Is(err, c.want)) ||
			(err != nil) != (c.want != nil || c.source) ||
			errors.As(err, &fromSource) != c.source {
			t.Errorf(
				"%s: Connect() = %v after %d dials and %d questions, want %v (the source's: %t) after %d and %d",
				name,
				err,
				dials,
				len(source.asked),
				c.want,
				c.source,
				c.dials,
				c.asked,
			)
		}
		if source.asked[0] || len(source.asked) > 1 && !source.asked[1] {
			t.Errorf("%s: the source was asked again: %v", name, source.asked)
		}
	}
}

func TestEveryAddressIsVerifiedWithTheTargetsRoots(t *testing.T) {
	t.Parallel()

	roots := x509.NewCertPool()
	config, err := postgres.Target{
		URL:   "postgres://u:p@a:1,b:2/d?sslmode=verify-full",
		Roots: roots,
	}.Config()
	if err != nil || len(config.Fallbacks) == 0 {
		t.Fatalf("Config() = %+v, %v, want two addresses", config, err)
	}
	if config.TLSConfig.RootCAs != roots || config.TLSConfig.ServerName != "a" {
		t.Errorf("the first address is verified as %s", config.TLSConfig.ServerName)
	}
	for _, fallback := range config.Fallbacks {
		if fallback.TLSConfig.RootCAs != roots || fallback.TLSConfig.ServerName != fallback.Host {
			t.Errorf("%s is verified as %s", fallback.Host, fallback.TLSConfig.ServerName)
		}
	}
	for _, mode := range []string{"disable", "allow", "prefer", "require", "verify-ca"} {
		_, err := postgres.Target{URL: "postgres://u:p@a/d?sslmode=" + mode, Roots: roots}.Config()
		if err == nil || !strings.Contains(err.Error(), "wouldn't be verified") {
			t.Errorf("Config() of sslmode=%s = %v, want it refused", mode, err)
		}
	}
	if _, err := (postgres.Target{URL: "postgres://u:p@a/d?sslmode=disable"}).Config(); err != nil {
		t.Errorf("Config() without roots = %v, want the URL's own way", err)
	}
}

func TestAURLsOwnAuthorityIsRespected(t *testing.T) {
	t.Parallel()

	config, err := postgres.Target{
		URL:   "postgres://u:p@a/d?sslmode=verify-full&sslrootcert=system",
		Roots: x509.NewCertPool(),
	}.Config()
	if err != nil || config.TLSConfig.RootCAs == nil ||
		config.TLSConfig.RootCAs.Equal(x509.NewCertPool()) {
		t.Errorf("Config() with sslrootcert=system = %v, want the machine's roots", err)
	}
}

func TestAnErrorDoesNotRepeatTheURL(t *testing.T) {
	t.Parallel()

	for _, url := range []string{"postgres://u:pass/word@h/d", "postgres://u:pass%zz@h/d", "postgres://u:password@h/d?connect_timeout=soon", "host=h user=u password=pass/ sslmode=soon"} {
		_, err := postgres.Target{URL: url}.Config()
		if err == nil || strings.Contains(err.Error(), "pass:") ||
			strings.Contains(err.Error(), "pass/") ||
			strings.Contains(err.Error(), "pass%") ||
			strings.Contains(err.Error(), "soon") {
			t.Errorf("Config() of %s = %v, want an error without it", url, err)
		}
	}
}
