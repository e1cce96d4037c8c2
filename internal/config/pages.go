package config

import (
	"errors"
	"net/url"
)

// Pages has the settings of the pages that the web function serves.
type Pages struct {
	// Demo is true for the demo shop: its pages have demo prices, demo payments and the flash sale.
	Demo bool
	// Guarded is true if the gateway asks the callers of the routes with a scope for permission. The
	// pages only tell people so: the gateway decides.
	Guarded bool
	// OIDCIssuer is the URL of the OpenID Connect issuer of the console's accounts, and OIDCClientID
	// the console's client there. Both are set, or neither.
	OIDCIssuer, OIDCClientID string
	// OIDCTokenOrigin is the origin of the issuer's token endpoint, where that isn't the issuer's own.
	OIDCTokenOrigin string
}

// clientID is the shape of the names of an issuer's clients.
var clientID = shape{length: 255, upper: true, others: "_.:@/-"}

// pages reads the settings.
func (r *reader) pages() Pages {
	p := Pages{
		Demo:       r.oneOf("DEMO", "off", "on") == "on",
		Guarded:    r.oneOf("GUARDED", "off", "on") == "on",
		OIDCIssuer: r.issuer("OIDC_ISSUER"),
		OIDCClientID: r.matching("OIDC_CLIENT_ID", clientID,
			"the id of a client, of letters, digits and _.:@/-"),
		OIDCTokenOrigin: r.origin("OIDC_TOKEN_ORIGIN"),
	}
	if (p.OIDCIssuer == "") != (p.OIDCClientID == "") {
		r.errs = append(r.errs, errors.New("only one of OIDC_ISSUER and OIDC_CLIENT_ID is set; "+
			"the console needs both to sign in"))
	}
	if p.OIDCTokenOrigin != "" && p.OIDCIssuer == "" {
		r.errs = append(r.errs, errors.New("OIDC_TOKEN_ORIGIN is set; it is for OIDC_ISSUER"))
	}
	return p
}

// origin reads an optional origin: a scheme, a host and perhaps a port. Tokens come from there, so
// they must not cross a network unencrypted.
func (r *reader) origin(name string) string {
	value := r.getenv(name)
	if value == "" {
		return ""
	}
	u, err := url.Parse(value)
	if err != nil || u.Host == "" || !isPort(u.Port()) || !IsPrivate(u) ||
		value != u.Scheme+"://"+u.Host {
		r.bad(name, value, "an origin with https, or with http to this machine, such as "+
			"https://shop.auth.eu-central-1.amazoncognito.com")
	}
	return value
}

// environ returns the settings as environment variables.
func (p Pages) environ() []string {
	return []string{
		"DEMO=" + onOrOff(p.Demo),
		"GUARDED=" + onOrOff(p.Guarded),
		"OIDC_ISSUER=" + p.OIDCIssuer,
		"OIDC_CLIENT_ID=" + p.OIDCClientID,
		"OIDC_TOKEN_ORIGIN=" + p.OIDCTokenOrigin,
	}
}

func onOrOff(is bool) string {
	if is {
		return "on"
	}
	return "off"
}
