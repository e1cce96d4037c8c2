package postgres

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Target is a database to connect to. It may hold a password: never log it.
type Target struct {
	// URL is a postgres:// URL.
	URL string
	// Roots are the authorities that may sign the server's certificate. The certificate's host name
	// is verified too. An sslrootcert in the URL takes their place. When Roots is nil, the URL
	// alone decides about TLS.
	Roots *x509.CertPool
}

// Source says where the database is. It is safe for concurrent use.
type Source interface {
	// Target is called for every new connection, because a password may change at any time. again
	// is true when the server has just refused the password of the target returned before.
	Target(ctx context.Context, again bool) (Target, error)
}

// URL is a Source that always returns itself.
type URL string

// Target returns the URL.
func (u URL) Target(context.Context, bool) (Target, error) { return Target{URL: string(u)}, nil }

// SourceError means that a Source failed or returned an unusable URL. Nothing was sent to the
// database.
type SourceError struct{ Err error }

func (e *SourceError) Error() string {
	return "find the database: " + e.Err.Error()
}

func (e *SourceError) Unwrap() error { return e.Err }

// Connect calls dial with the source's target. When the server refuses the password, it asks the
// source once more and dials again if the target has changed, so a rotated password causes no
// error. Errors of the connect name their remedy.
func Connect[C any](
	ctx context.Context, source Source, dial func(context.Context, Target) (C, error),
) (C, error) {
	target, err := source.Target(ctx, false)
	if err != nil {
		var none C
		return none, &SourceError{err}
	}
	c, err := dial(ctx, target)
	if !Refused(err) {
		return c, explain(err)
	}
	fresh, sourceErr := source.Target(ctx, true)
	if sourceErr != nil {
		return c, errors.Join(explain(err), &SourceError{sourceErr})
	}
	if fresh.URL == target.URL {
		return c, explain(err)
	}
	c, err = dial(ctx, fresh)
	return c, explain(err)
}

// errMalformed replaces the driver's error about a URL, which may quote a part of the password.
var errMalformed = errors.New(
	"the database's URL can't be read: percent-encode special characters " +
		"in the user and the password, and check the parameters behind the question mark",
)

// Config returns the driver's configuration for the target. Every program of ours gets it here, so
// that all of them treat the URL's parameters alike. limit bounds the connect to one address, and
// the URL's connect_timeout may shorten it. The error is a *ParameterError for a parameter that is
// refused. No error repeats the URL.
func (t Target) Config(limit time.Duration) (*pgx.ConnConfig, error) {
	if err := CheckParameters(t.URL); err != nil {
		return nil, err
	}
	var options pgx.ParseConfigOptions
	for _, p := range honoured {
		options.ConnStringAllowedKeys = append(options.ConnStringAllowedKeys, p.name)
	}
	config, err := pgx.ParseConfigWithOptions(t.URL, options)
	if err != nil {
		return nil, errMalformed
	}
	if config.ConnectTimeout == 0 || config.ConnectTimeout > limit {
		config.ConnectTimeout = limit
	}
	if err := startParameters(config.RuntimeParams); err != nil {
		return nil, err
	}
	return config, t.trustRoots(&config.Config)
}

// startParameters leaves application_name alone in the run-time parameters that a connection starts
// with. Any other comes from the environment, where the driver looks for PGOPTIONS and PGTZ.
func startParameters(parameters map[string]string) error {
	if parameters[applicationNameParameter] == "" {
		parameters[applicationNameParameter] = applicationName
	}
	for name := range parameters {
		if name != applicationNameParameter {
			return &ParameterError{name, "is set by a PG variable of the environment: unset it"}
		}
	}
	return nil
}

// trustRoots makes every address of the configuration verify the server's certificate with the
// target's Roots. It returns an error when an address would stay unverified: the Source must ask
// for sslmode=verify-full.
func (t Target) trustRoots(config *pgconn.Config) error {
	if t.Roots == nil {
		return nil
	}
	if config.TLSConfig == nil || config.TLSConfig.InsecureSkipVerify {
		return fmt.Errorf("the certificate of the server at %s wouldn't be verified", config.Host)
	}
	trust := func(roots **x509.CertPool) {
		if *roots == nil {
			*roots = t.Roots
		}
	}
	trust(&config.TLSConfig.RootCAs)
	for _, fallback := range config.Fallbacks { // the URL's other addresses
		if fallback.TLSConfig == nil || fallback.TLSConfig.InsecureSkipVerify {
			return fmt.Errorf("the certificate of the server at %s wouldn't be verified",
				fallback.Host)
		}
		trust(&fallback.TLSConfig.RootCAs)
	}
	return nil
}
