package webui

import (
	"encoding/json"
	"net/url"
	"strings"
)

// Settings are a deployment's settings for its pages.
type Settings struct {
	// Demo is true for the demo shop.
	Demo bool
	// Guarded is true if the API asks its callers for permission.
	Guarded bool
	// SignIn is where the people who run the shop sign in, or nil where they can't.
	SignIn *SignIn
	// TokenOrigin is the origin of the issuer's token endpoint, or empty where it is the issuer's.
	TokenOrigin string
	// LiveURL is the WebSocket of the live channel. It is empty where there is none, and where it is
	// on the pages' own origin.
	LiveURL string
}

// SignIn is the OpenID Connect issuer of the console's accounts.
type SignIn struct {
	Issuer   string `json:"issuer"`
	ClientID string `json:"clientId"`
	// Scopes are what the console asks the issuer for.
	Scopes []string `json:"scopes"`
	// Audience is what the console names as the API that the token is for. It may be empty.
	Audience string `json:"audience,omitempty"`
}

// document returns the body of /settings.json.
func (s Settings) document() (string, error) {
	body, err := json.Marshal(struct {
		Demo   bool    `json:"demo"`
		Auth   bool    `json:"auth"`
		SignIn *SignIn `json:"signIn"`
	}{s.Demo, s.Guarded || s.SignIn != nil, s.SignIn})
	return string(body), err
}

// policy returns the Content-Security-Policy. It lets a page load files from its own origin only,
// and allows nothing inline: markup in a product's name stays text, even if a script forgot to
// treat it so. Scripts may send requests to the origin, the issuer and the live channel alone.
func (s Settings) policy() string {
	targets := []string{"'self'"}
	addresses := []string{s.TokenOrigin, s.LiveURL}
	if s.SignIn != nil {
		addresses = append(addresses, s.SignIn.Issuer)
	}
	for _, address := range addresses {
		if u, err := url.Parse(address); err == nil && u.Host != "" {
			targets = append(targets, u.Scheme+"://"+u.Host)
		}
	}
	return "default-src 'self'; connect-src " + strings.Join(targets, " ") +
		"; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
}
