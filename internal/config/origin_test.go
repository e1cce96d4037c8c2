package config

import (
	"strings"
	"testing"
)

const (
	firstSecret  = "first0123456789abcdefABCDEF012345"
	secondSecret = "second0123456789abcdefABCDEF01234"
)

func TestAnInvalidSecretOfTheCDNIsRefusedWithoutIt(t *testing.T) {
	t.Parallel()

	const hidden = "hidden0123456789abcdefABCDEF0123"
	for name, value := range map[string]string{
		"three":             hidden + "," + hidden + "," + hidden,
		"an empty one":      hidden + ",",
		"a short one":       hidden[:31],
		"a long one":        strings.Repeat("a", 97) + hidden,
		"a space":           hidden + ", " + hidden,
		"a hyphen":          hidden + "-",
		"a dynamic one":     "{{resolve:secretsmanager:" + hidden + "}}",
		"not only ASCII":    hidden + "\u00e9",
		"a line break":      hidden + "\n",
		"another separator": hidden + ";" + hidden,
	} {
		_, err := load(env("ORIGIN_SECRETS", value))
		if err == nil || !strings.Contains(err.Error(), "ORIGIN_SECRETS must be at most 2 secrets") ||
			strings.Contains(err.Error(), hidden[:31]) {
			t.Errorf("%s: the error is %v, want one without the secret", name, err)
		}
	}
	// The controls: the shortest and the longest.
	for _, value := range []string{hidden, hidden + "," + strings.Repeat("a", 128)} {
		if c, err := load(env("ORIGIN_SECRETS", value)); err != nil || len(c.OriginSecrets) == 0 {
			t.Errorf("ORIGIN_SECRETS=%s is refused: %v", value, err)
		}
	}
}
