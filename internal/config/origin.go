package config

import (
	"fmt"
	"strings"
)

// The bounds of ORIGIN_SECRETS. Two secrets are valid while the CDN changes from one to the other.
const (
	maxOriginSecrets                    = 2
	leastOriginSecret, mostOriginSecret = 32, 128
)

// originSecret is the shape of a secret. A header can carry each of its characters.
var originSecret = shape{length: mostOriginSecret, upper: true}

// originSecrets reads the optional secrets of the CDN. Its error doesn't repeat them.
func (r *reader) originSecrets(name string) []string {
	value := r.getenv(name)
	if value == "" {
		return nil
	}
	secrets := strings.Split(value, ",")
	bad := len(secrets) > maxOriginSecrets
	for _, secret := range secrets {
		bad = bad || len(secret) < leastOriginSecret || !originSecret.fits(secret)
	}
	if bad {
		r.errs = append(r.errs, fmt.Errorf("%s must be at most %d secrets, separated by a comma, "+
			"each of %d to %d letters and digits", name, maxOriginSecrets, leastOriginSecret,
			mostOriginSecret))
		return nil
	}
	return secrets
}
