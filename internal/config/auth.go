package config

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
)

// AuthKind is how the local gateway authorizes the callers of the routes that have a scope.
type AuthKind string

const (
	// AuthNone leaves every route open.
	AuthNone AuthKind = ""
	// AuthJWT asks for a token with the route's scope.
	AuthJWT AuthKind = "jwt"
	// AuthIAM asks for a signature by the test credential.
	AuthIAM AuthKind = "iam"
)

// Auth has the settings of the local gateway's authorizer. In the cloud the stack's settings of the
// same names decide.
type Auth struct {
	Kind AuthKind
	// Reserve puts the scope of reserving on the route that reserves, which is open otherwise.
	Reserve bool
	// JWTIssuer is the URL of the tokens' issuer, exactly as in their claim iss. JWTAudience is in
	// their claim aud, or client_id. Both are set for AuthJWT, and for no other.
	JWTIssuer, JWTAudience string
	// AccessKeyID and SecretAccessKey are the test credential. Both are set for AuthIAM, and for no
	// other. Nothing is called with them.
	AccessKeyID, SecretAccessKey string
}

// accessKeyID is the shape of the names of IAM's keys.
var accessKeyID = shape{length: 128, upper: true}

// auth reads the settings. A setting that AUTH doesn't use is an error, because whoever set it may
// believe that it guards the routes.
func (r *reader) auth() Auth {
	a := Auth{
		Kind:        AuthKind(r.oneOf("AUTH", "none", string(AuthJWT), string(AuthIAM))),
		Reserve:     r.oneOf("RESERVE_AUTH", "off", "on") == "on",
		JWTIssuer:   r.issuer("JWT_ISSUER"),
		JWTAudience: r.getenv("JWT_AUDIENCE"),
		AccessKeyID: r.matching("IAM_ACCESS_KEY_ID", accessKeyID,
			"a name of letters and digits, such as AKIATEST"),
		SecretAccessKey: r.getenv("IAM_SECRET_ACCESS_KEY"),
	}
	for _, s := range []struct {
		name, value string
		kind        AuthKind
	}{
		{"JWT_ISSUER", a.JWTIssuer, AuthJWT},
		{"JWT_AUDIENCE", a.JWTAudience, AuthJWT},
		{"IAM_ACCESS_KEY_ID", a.AccessKeyID, AuthIAM},
		{"IAM_SECRET_ACCESS_KEY", a.SecretAccessKey, AuthIAM},
	} {
		if a.Kind == s.kind && s.value == "" {
			r.errs = append(r.errs, fmt.Errorf("%s is not set; AUTH=%s needs it", s.name, s.kind))
		}
		if a.Kind != s.kind && s.value != "" {
			r.errs = append(r.errs, fmt.Errorf("%s is set; it is for AUTH=%s", s.name, s.kind))
		}
	}
	if a.Reserve && a.Kind == AuthNone {
		r.errs = append(r.errs, errors.New("RESERVE_AUTH is on; it needs AUTH=jwt or AUTH=iam"))
	}
	return a
}

// oneOf returns the variable's value, or empty for the fallback.
func (r *reader) oneOf(name, fallback string, others ...string) string {
	value := r.getenv(name)
	if value == "" || value == fallback {
		return ""
	}
	for _, other := range others {
		if value == other {
			return value
		}
	}
	r.bad(name, value, strings.Join(append(others, fallback), " or "))
	return ""
}

// issuer reads the URL of an issuer. Its keys decide whom the gateway lets in, so they must not
// cross a network unencrypted.
func (r *reader) issuer(name string) string {
	value := r.getenv(name)
	if value == "" {
		return ""
	}
	u, err := url.Parse(value)
	if err != nil || u.User != nil || u.RawQuery != "" || u.Fragment != "" || !isPort(u.Port()) ||
		u.Hostname() == "" || !IsPrivate(u) {
		r.bad(name, value, "a URL with https, or with http to this machine")
	}
	return value
}

// IsPrivate reports whether nobody on the way can read or change what comes from the URL: it has
// https, or http to this machine.
func IsPrivate(u *url.URL) bool {
	host := u.Hostname()
	return u.Scheme == "https" ||
		u.Scheme == "http" && (host == "localhost" || net.ParseIP(host).IsLoopback())
}
