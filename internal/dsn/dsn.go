// Package dsn says where the database is and how it is logged in to, for the service's pool and for the migrations.
package dsn

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// Target is a database that can be connected to. It holds a password, so it is never told to anybody.
type Target struct {
	// URL is a postgres:// URL.
	URL string
	// Roots are the authorities that the server's certificate is verified with, its host name too, unless the URL has an sslrootcert
	// of its own. When it is nil the URL alone says how the way there is secured.
	Roots *x509.CertPool
}

// Source says where the database is. It is asked for every new connection, as a password may change meanwhile; again is true when the
// server has just refused the one that it gave. It is safe for concurrent use.
type Source interface {
	Target(ctx context.Context, again bool) (Target, error)
}

// URL is a Source that always says the same.
type URL string

// Target returns the URL.
func (u URL) Target(context.Context, bool) (Target, error) { return Target{URL: string(u)}, nil }

// Error is that it couldn't be found out where the database is, or how to log in to it. Nothing was sent.
type Error struct{ Err error }

func (e *Error) Error() string { return "find out how to reach the database: " + e.Err.Error() }

func (e *Error) Unwrap() error { return e.Err }

// Connect connects by dial to where the source says. When the server refuses the password, the source is asked again, once: a password
// that was changed costs nobody an error.
func Connect[C any](ctx context.Context, source Source, dial func(context.Context, Target) (C, error)) (C, error) {
	target, err := source.Target(ctx, false)
	if err != nil {
		var none C
		return none, &Error{err}
	}
	c, err := dial(ctx, target)
	if !Refused(err) {
		return c, err
	}
	fresh, sourceErr := source.Target(ctx, true)
	if sourceErr != nil {
		return c, errors.Join(err, &Error{sourceErr})
	}
	if fresh.URL == target.URL {
		return c, err
	}
	return dial(ctx, fresh)
}

// errMalformed stands for what the driver says about a URL that it can't read, as that may quote a part of the password.
var errMalformed = errors.New("it isn't a URL that the driver takes: percent-encode what is special in the user and the password, " +
	"and look at the parameters behind the question mark")

// Config is the driver's configuration for the target. Its errors don't repeat the URL.
func (t Target) Config() (*pgconn.Config, error) {
	config, err := pgconn.ParseConfig(t.URL)
	if err != nil {
		return nil, errMalformed
	}
	return config, t.Verify(config)
}

// Verify lets a configuration that was made of the target's URL trust the target's Roots. It returns an error when a way to the server
// would stay unverified: the caller has made the URL ask for verify-full.
func (t Target) Verify(config *pgconn.Config) error {
	if t.Roots == nil {
		return nil
	}
	if config.TLSConfig == nil || config.TLSConfig.InsecureSkipVerify {
		return fmt.Errorf("the server's certificate at %s wouldn't be verified", config.Host)
	}
	trust := func(roots **x509.CertPool) {
		if *roots == nil {
			*roots = t.Roots
		}
	}
	trust(&config.TLSConfig.RootCAs)
	for _, fallback := range config.Fallbacks { // the other addresses, when the URL names more
		if fallback.TLSConfig == nil || fallback.TLSConfig.InsecureSkipVerify {
			return fmt.Errorf("the server's certificate at %s wouldn't be verified", fallback.Host)
		}
		trust(&fallback.TLSConfig.RootCAs)
	}
	return nil
}

// Refused reports whether the server refused the user or the password.
func Refused(err error) bool {
	const invalidAuthorization = "28" // the class
	var pg *pgconn.PgError
	return errors.As(err, &pg) && strings.HasPrefix(pg.Code, invalidAuthorization)
}
