package main

import (
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// reader reads keys of the context. It collects all errors, so that one synth reports every
// invalid key.
type reader struct {
	context map[string]any
	// defaults has the default of every key that was read.
	defaults map[string]string
	errs     []error
}

func newReader(context map[string]any) *reader {
	return &reader{context: context, defaults: map[string]string{}}
}

func (r *reader) fail(format string, args ...any) {
	r.errs = append(r.errs, fmt.Errorf(format, args...))
}

// given reports whether the context has a value for the key.
func (r *reader) given(key string) bool { return r.raw(key) != "" }

// raw returns a key's value. On the command line it is a string, in cdk.json maybe a number or a
// bool.
func (r *reader) raw(key string) string {
	if value, ok := r.context[key]; ok && value != nil {
		return fmt.Sprint(value)
	}
	return ""
}

func (r *reader) text(key, fallback string) string {
	r.defaults[key] = fallback
	if value := r.raw(key); value != "" {
		return value
	}
	return fallback
}

func (r *reader) match(key, fallback string, pattern *regexp.Regexp, want string) string {
	value := r.text(key, fallback)
	if r.given(key) && !pattern.MatchString(value) {
		r.fail("%s is %q; it must be %s", key, value, want)
	}
	return value
}

// isName reports whether a text may be the stack's name or a consumer's.
func isName(text string) bool { return len(text) <= mostName && namePattern.MatchString(text) }

// name reads the stack's name.
func (r *reader) name(key, fallback string) string {
	value := r.text(key, fallback)
	if !isName(value) {
		r.fail("%s is %q; it must be %s", key, value, wantName)
	}
	return value
}

func (r *reader) oneOf(key, fallback string, values ...string) string {
	value := r.text(key, fallback)
	if !slices.Contains(values, value) {
		r.fail("%s is %q; it must be one of %s", key, value, strings.Join(values, ", "))
		return fallback
	}
	return value
}

func (r *reader) onOff(key string, fallback bool) bool {
	words := map[bool]string{true: "on", false: "off"}
	return r.oneOf(key, words[fallback], "on", "off") == "on"
}

// rollout reports whether new versions get their traffic by a canary.
func (r *reader) rollout(canary bool) bool {
	words := map[bool]string{true: "canary", false: "now"}
	return r.oneOf("rollout", words[canary], "canary", "now") == "canary"
}

func (r *reader) integer(key string, fallback, least, most int) int {
	value := r.text(key, strconv.Itoa(fallback))
	n, err := strconv.Atoi(value)
	if err != nil || n < least || n > most {
		r.fail("%s is %q; it must be a whole number from %d to %d", key, value, least, most)
		return fallback
	}
	return n
}

func (r *reader) httpsURL(key string) string {
	value := r.text(key, "")
	if value == "" {
		return ""
	}
	u, err := url.Parse(value)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.Fragment != "" ||
		u.User != nil {
		r.fail("%s is %q; it must be a URL that begins with https:// and has no query", key, value)
	}
	return value
}

// origins reads a list of origins, separated by commas. A star isn't allowed: an operator knows
// the storefronts' origins.
func (r *reader) origins(key string) []string {
	value := r.text(key, "")
	if value == "" {
		return nil
	}
	origins := strings.Split(value, ",")
	if len(origins) > maxOrigins {
		r.fail("%s has %d origins; it may have at most %d", key, len(origins), maxOrigins)
	}
	for _, origin := range origins {
		if !originPattern.MatchString(origin) || strings.HasSuffix(origin, ":443") {
			r.fail("%s has %q; it must be origins such as https://shop.example.com, "+
				"separated by commas", key, origin)
		}
	}
	return origins
}

// lookup matches the keys under which the CDK keeps what it looked up in an account.
var lookup = regexp.MustCompile(`^[a-z-]+:account=`)

// refuseUnknown reports the keys that nothing reads: a typing error would otherwise deploy the
// default. The CDK's own keys are allowed.
func (r *reader) refuseUnknown() {
	for _, key := range slices.Sorted(maps.Keys(r.context)) {
		isCDKs := strings.HasPrefix(key, "@") || strings.HasPrefix(key, "aws:") ||
			lookup.MatchString(key)
		if _, known := r.defaults[key]; !known && !isCDKs {
			r.fail("the context key %q is unknown; the keys are %s",
				key, strings.Join(slices.Sorted(maps.Keys(r.defaults)), ", "))
		}
	}
}
