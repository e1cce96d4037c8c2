package signin

import (
	"crypto/rsa"
	"net/url"
	"slices"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"

	"github.com/allo/reservations/internal/app/grant"
)

// request is a sign-in under way.
type request struct {
	id      string
	asked   *oidc.AuthRequest
	account account
	session string
	// audience is the aud of its tokens.
	audience []string
	// authTime is when the account was chosen. It is zero until then.
	authTime time.Time
}

func (r *request) GetID() string                      { return r.id }
func (r *request) GetACR() string                     { return "" }
func (r *request) GetAMR() []string                   { return nil }
func (r *request) GetAudience() []string              { return r.audience }
func (r *request) GetAuthTime() time.Time             { return r.authTime }
func (r *request) GetClientID() string                { return r.asked.ClientID }
func (r *request) GetNonce() string                   { return r.asked.Nonce }
func (r *request) GetRedirectURI() string             { return r.asked.RedirectURI }
func (r *request) GetResponseType() oidc.ResponseType { return r.asked.ResponseType }
func (r *request) GetResponseMode() oidc.ResponseMode { return r.asked.ResponseMode }
func (r *request) GetScopes() []string                { return r.asked.Scopes }
func (r *request) GetState() string                   { return r.asked.State }
func (r *request) GetSubject() string                 { return r.account.Group }
func (r *request) Done() bool                         { return !r.authTime.IsZero() }

func (r *request) GetCodeChallenge() *oidc.CodeChallenge {
	if r.asked.CodeChallenge == "" {
		return nil
	}
	return &oidc.CodeChallenge{
		Challenge: r.asked.CodeChallenge, Method: r.asked.CodeChallengeMethod,
	}
}

// grantOf is what a refresh token renews.
type grantOf struct {
	account  account
	session  string
	client   string
	scopes   []string
	audience []string
	authTime time.Time
}

func (g *grantOf) GetAMR() []string                 { return nil }
func (g *grantOf) GetAudience() []string            { return g.audience }
func (g *grantOf) GetAuthTime() time.Time           { return g.authTime }
func (g *grantOf) GetClientID() string              { return g.client }
func (g *grantOf) GetScopes() []string              { return g.scopes }
func (g *grantOf) GetSubject() string               { return g.account.Group }
func (g *grantOf) SetCurrentScopes(scopes []string) { g.scopes = scopes }

// client is ConsoleID, PaymentsID or DemoID.
type client string

// isProgram is true for a client that signs in as itself, with a secret.
func (c client) isProgram() bool { return c == PaymentsID || c == DemoID }

// idTokenLasts is how long an id token is valid. The console reads it once.
const idTokenLasts = time.Hour

func (c client) GetID() string { return string(c) }

// RedirectURIs are on this machine. The library allows any port for a native client.
func (c client) RedirectURIs() []string { return onThisMachine("/ops/signed-in") }

// PostLogoutRedirectURIs are as RedirectURIs.
func (c client) PostLogoutRedirectURIs() []string { return onThisMachine("/ops") }

func onThisMachine(path string) []string {
	return []string{"http://localhost" + path, "http://127.0.0.1" + path, "http://[::1]" + path}
}

func (c client) ApplicationType() op.ApplicationType { return op.ApplicationTypeNative }

func (c client) AuthMethod() oidc.AuthMethod {
	if c.isProgram() {
		return oidc.AuthMethodBasic
	}
	return oidc.AuthMethodNone
}

func (c client) ResponseTypes() []oidc.ResponseType {
	if c.isProgram() {
		return nil
	}
	return []oidc.ResponseType{oidc.ResponseTypeCode}
}

func (c client) GrantTypes() []oidc.GrantType {
	if c.isProgram() {
		return []oidc.GrantType{oidc.GrantTypeClientCredentials}
	}
	return []oidc.GrantType{oidc.GrantTypeCode, oidc.GrantTypeRefreshToken}
}

// LoginURL is the page that asks who one is.
func (c client) LoginURL(id string) string { return "/sign-in?id=" + url.QueryEscape(id) }

func (c client) AccessTokenType() op.AccessTokenType  { return op.AccessTokenTypeJWT }
func (c client) IDTokenLifetime() time.Duration       { return idTokenLasts }
func (c client) DevMode() bool                        { return false }
func (c client) IsScopeAllowed(scope string) bool     { return slices.Contains(grant.All(), scope) }
func (c client) IDTokenUserinfoClaimsAssertion() bool { return false }
func (c client) ClockSkew() time.Duration             { return 0 }

//nolint:staticcheck // the library names the method so
func (c client) RestrictAdditionalIdTokenScopes() func([]string) []string { return all }

func (c client) RestrictAdditionalAccessTokenScopes() func([]string) []string { return all }

func all(scopes []string) []string { return scopes }

// signingKey signs the tokens.
type signingKey struct {
	id      string
	private *rsa.PrivateKey
}

func (k signingKey) SignatureAlgorithm() jose.SignatureAlgorithm { return jose.RS256 }
func (k signingKey) Key() any                                    { return k.private }
func (k signingKey) ID() string                                  { return k.id }

// publicKey is the part of a signingKey that everybody may read.
type publicKey struct{ key signingKey }

func (k publicKey) ID() string                         { return k.key.id }
func (k publicKey) Algorithm() jose.SignatureAlgorithm { return jose.RS256 }
func (k publicKey) Use() string                        { return "sig" }
func (k publicKey) Key() any                           { return &k.key.private.PublicKey }
