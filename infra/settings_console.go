package main

import (
	"cmp"
	"slices"
	"strings"

	"github.com/allo/reservations/internal/config"
	"github.com/allo/reservations/internal/route"
)

// Console is how the console signs in at an issuer that isn't the stack's own.
type Console struct {
	// ClientID is the console's client. Empty leaves the console without a sign-in.
	ClientID string
	// TokenOrigin is the origin of the issuer's token endpoint. Empty means the issuer's own.
	TokenOrigin string
	// Scopes are what the console asks the issuer for, separated by commas.
	Scopes string
}

// readConsole reads the console's client. It comes after the issuer and the audience.
func (s *Settings) readConsole(r *reader) {
	s.Console = Console{
		ClientID:    r.text("oidcClientId", ""),
		TokenOrigin: r.text("oidcTokenOrigin", ""),
		Scopes:      r.text("oidcScopes", ""),
	}
	if s.Auth != AuthJWT && r.given("oidcClientId") {
		r.fail("oidcClientId is for auth=jwt: auth=cognito makes the console's client, and with the " +
			"others the console has no tokens")
	}
	for _, key := range []string{"oidcTokenOrigin", "oidcScopes"} {
		if s.Console.ClientID == "" && r.given(key) {
			r.fail("%s is for oidcClientId, the console's client", key)
		}
	}
	if s.Console.ClientID == "" || s.JWTIssuer == "" {
		return
	}
	s.Console.Scopes = cmp.Or(s.Console.Scopes, strings.Join(consoleScopes(), ","))
	if err := config.Check(s.consoleVariables()); err != nil {
		r.fail("oidcClientId, oidcTokenOrigin and oidcScopes: %w", err)
	}
}

// consoleVariables returns the variables that tell the pages of the console's client.
func (s *Settings) consoleVariables() map[string]string {
	return map[string]string{
		"OIDC_ISSUER": s.JWTIssuer, "OIDC_CLIENT_ID": s.Console.ClientID,
		"OIDC_TOKEN_ORIGIN": s.Console.TokenOrigin, "OIDC_AUDIENCE": s.JWTAudience,
		"OIDC_SCOPES": s.Console.Scopes,
	}
}

// consoleScopes returns openid, profile for the account's name, and the scopes that the console's
// calls need. The issuer must grant an account only its own.
func consoleScopes() []string {
	var scopes []string
	for _, r := range route.All() {
		if r.Scope != "" && !slices.Contains(scopes, r.Scope) {
			scopes = append(scopes, r.Scope)
		}
	}
	slices.Sort(scopes)
	return append([]string{"openid", "profile"}, scopes...)
}
