package awsdb

import (
	"context"
	"fmt"
	"net/url"

	"github.com/allo/reservations/internal/config"
	"github.com/allo/reservations/internal/postgres"
)

// ReaderSource returns the source of the server that DATABASE_READER names, or nil when it is
// unset. All but the address is as in [Source].
func ReaderSource(c config.Config) (postgres.Source, error) {
	if c.DatabaseReader == "" {
		return nil, nil
	}
	switch {
	case c.DatabaseURL != "":
		moved, err := moveTo(c.DatabaseURL, c.DatabaseReader)
		return postgres.URL(moved), err
	case c.DatabaseIAMURL != "":
		moved, err := moveTo(c.DatabaseIAMURL, c.DatabaseReader)
		if err != nil {
			return nil, fmt.Errorf("DATABASE_IAM_URL: %w", err)
		}
		return NewIAM(moved, c.AWS) // its token is for the reader's address
	default:
		source, err := Source(c)
		return reader{source, c.DatabaseReader}, err
	}
}

// reader is a source whose database is at another address.
type reader struct {
	source  postgres.Source
	address string
}

// Target returns the source's target at the reader's address.
func (r reader) Target(ctx context.Context, again bool) (postgres.Target, error) {
	target, err := r.source.Target(ctx, again)
	if err == nil {
		target.URL, err = moveTo(target.URL, r.address)
	}
	return target, err
}

// moveTo returns the URL with another host and port.
func moveTo(raw, address string) (string, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return "", errMalformed
	}
	u.Host = address
	query := u.Query()
	query.Del("host") // a URL may name the host and the port as parameters instead
	query.Del("port")
	query.Del("target_session_attrs") // a reader refuses what asks for a writer
	u.RawQuery = query.Encode()
	return u.String(), nil
}
