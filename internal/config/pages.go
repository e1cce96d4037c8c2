package config

import (
	"errors"
	"net/url"
	"slices"
	"strings"
	"unicode"
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
	// OIDCAudience is what the console names to the issuer as the API that its token is for. Empty
	// leaves that to the issuer.
	OIDCAudience string
	// OIDCScopes are what the console asks the issuer for. None means openid alone.
	OIDCScopes []string
}

const (
	// scopeOpenID is the scope without which an issuer doesn't say who has signed in.
	scopeOpenID = "openid"
	// maxAudience is the most bytes of an audience.
	maxAudience = 256
)

// clientID is the shape of the names of an issuer's clients.
var clientID = shape{length: 255, upper: true, others: "_.:@/-"}

// scopeList is the shape of an issuer's scopes, separated by commas. Some are URLs.
var scopeList = shape{length: 1000, upper: true, others: ",_.:/*+~-"}

// pages reads the settings.
func (r *reader) pages() Pages {
	p := Pages{
		Demo:       r.oneOf("DEMO", "off", "on") == "on",
		Guarded:    r.oneOf("GUARDED", "off", "on") == "on",
		OIDCIssuer: r.issuer("OIDC_ISSUER"),
		OIDCClientID: r.matching("OIDC_CLIENT_ID", clientID,
			"the id of a client, of letters, digits and _.:@/-"),
		OIDCTokenOrigin: r.origin("OIDC_TOKEN_ORIGIN"),
		OIDCAudience:    r.audience("OIDC_AUDIENCE"),
		OIDCScopes:      r.scopes("OIDC_SCOPES"),
	}
	if (p.OIDCIssuer == "") != (p.OIDCClientID == "") {
		r.errs = append(r.errs, errors.New("only one of OIDC_ISSUER and OIDC_CLIENT_ID is set; "+
			"the console needs both to sign in"))
	}
	for _, name := range []string{"OIDC_TOKEN_ORIGIN", "OIDC_AUDIENCE", "OIDC_SCOPES"} {
		if r.getenv(name) != "" && p.OIDCIssuer == "" {
			r.errs = append(r.errs, errors.New(name+" is set; it is for OIDC_ISSUER"))
		}
	}
	return p
}

// audience reads an optional audience.
func (r *reader) audience(name string) string {
	value := r.getenv(name)
	if len(value) > maxAudience || strings.ContainsFunc(value, unicode.IsSpace) {
		r.bad(name, value, "the audience of the tokens, of at most 256 bytes and without a space")
	}
	return value
}

// scopes reads a list of scopes, openid among them.
func (r *reader) scopes(name string) []string {
	value := r.getenv(name)
	if value == "" {
		return nil
	}
	scopes := strings.Split(value, ",")
	if !scopeList.fits(value) || slices.Contains(scopes, "") ||
		!slices.Contains(scopes, scopeOpenID) {
		r.bad(name, value, "scopes such as openid,inventory:read, separated by commas and openid "+
			"among them")
	}
	return scopes
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
		"OIDC_AUDIENCE=" + p.OIDCAudience,
		"OIDC_SCOPES=" + strings.Join(p.OIDCScopes, ","),
	}
}

func onOrOff(is bool) string {
	if is {
		return "on"
	}
	return "off"
}
