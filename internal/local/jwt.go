package local

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	// go-jose checks the signatures and reads the key sets. It is widely used, is audited, needs no
	// other module, and takes only the algorithms that the caller lists.
	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// jwtAuthorizer stands in for the JWT authorizer of an HTTP API, whose identity source is the
// Authorization header. It is stricter in one thing: AWS documents "RSA-based algorithms", and this
// takes RS256 alone, which every issuer offers. So a token that passes here passes there.
type jwtAuthorizer struct {
	issuer, audience string
	keys             *keySet
	log              *slog.Logger
	now              func() time.Time
}

func newJWTAuthorizer(issuer, audience string, log *slog.Logger) *jwtAuthorizer {
	return &jwtAuthorizer{issuer, audience, newKeySet(issuer), log, time.Now}
}

func (a *jwtAuthorizer) authorize(
	r *http.Request, _ []byte, scope string,
) (authorizerContext, *refusal) {
	text := bearerToken(r.Header)
	if text == "" {
		return authorizerContext{}, &refusal{http.StatusUnauthorized, "Bearer", "there is no token"}
	}
	token, err := a.verify(r.Context(), text)
	if err != nil {
		a.logIssuer(r.Context(), err)
		challenge := fmt.Sprintf(`Bearer scope="" error="invalid_token" error_description=%q`,
			shownError(err))
		return authorizerContext{}, &refusal{http.StatusUnauthorized, challenge, shownError(err)}
	}
	scopes := token.scopes()
	if !slices.Contains(scopes, scope) {
		challenge := fmt.Sprintf(`Bearer scope=%q error="insufficient_scope"`, scope)
		reason := "the token lacks the scope " + scope
		return authorizerContext{}, &refusal{http.StatusForbidden, challenge, reason}
	}
	return authorizerContext{JWT: &jwtContext{token.texts(), scopes}}, nil
}

// bearerToken returns the token, which may be there with or without the word Bearer. Several
// headers are joined, as in the event, and so are no token.
func bearerToken(h http.Header) string {
	value := strings.TrimSpace(strings.Join(h.Values("Authorization"), ","))
	if scheme, token, ok := strings.Cut(value, " "); ok && strings.EqualFold(scheme, "Bearer") {
		return strings.TrimSpace(token)
	}
	return value
}

// tokenError is an error whose text the caller may see.
type tokenError string

func (e tokenError) Error() string { return string(e) }

// These texts are those of AWS: it documents the one of the audience, and was seen to send the
// others. The authorizer's other texts are its own.
const (
	errMalformed = tokenError("token contains an invalid number of segments")
	errIssuer    = tokenError("issuer does not match")
	errAudience  = tokenError("the token does not have a valid audience")
	errDiscovery = tokenError("OIDC discovery endpoint communication error")
	errJWKS      = tokenError("JWKS communication error")
)

// shownError returns the text of the error that the caller may see.
func shownError(err error) string {
	var shown tokenError
	if errors.As(err, &shown) {
		return shown.Error()
	}
	return "the token is invalid"
}

// logIssuer tells the developer why the issuer's keys can't be had. Callers get no details.
func (a *jwtAuthorizer) logIssuer(ctx context.Context, err error) {
	if errors.Is(err, errDiscovery) || errors.Is(err, errJWKS) {
		a.log.WarnContext(ctx, "can't get the keys of JWT_ISSUER", "issuer", a.issuer, "error", err)
	}
}

// token is what a verified token says.
type token struct {
	jwt.Claims
	ClientID string                     `json:"client_id"`
	all      map[string]json.RawMessage // every claim
}

// verify checks the token's signature, then its claims in the order that AWS documents.
func (a *jwtAuthorizer) verify(ctx context.Context, text string) (token, error) {
	if strings.Count(text, ".") != 2 {
		return token{}, errMalformed
	}
	signed, err := jwt.ParseSigned(text, []jose.SignatureAlgorithm{jose.RS256})
	if err != nil {
		return token{}, fmt.Errorf("%w: %w", tokenError("the token can't be read, or its algorithm "+
			"isn't RS256"), err)
	}
	id := signed.Headers[0].KeyID
	if id == "" {
		return token{}, tokenError("the token has no kid")
	}
	key, err := a.keys.find(ctx, id)
	if err != nil {
		return token{}, err
	}
	var t token
	if err := signed.Claims(key, &t, &t.all); err != nil {
		return token{}, fmt.Errorf("%w: %w",
			tokenError("the token's signature or one of its claims is invalid"), err)
	}
	return t, a.check(t)
}

func (a *jwtAuthorizer) check(t token) error {
	audiences := t.Audience
	if _, ok := t.all["aud"]; !ok {
		audiences = jwt.Audience{t.ClientID}
	}
	now := a.now()
	switch {
	case t.Issuer != a.issuer:
		return errIssuer
	case !audiences.Contains(a.audience):
		return errAudience
	case t.Expiry == nil:
		return tokenError("the token has no exp")
	case !now.Before(t.Expiry.Time()):
		return tokenError("the token has expired")
	case t.NotBefore != nil && now.Before(t.NotBefore.Time()):
		return tokenError("the token isn't valid yet: its nbf is in the future")
	case t.IssuedAt != nil && now.Before(t.IssuedAt.Time()):
		return tokenError("the token's iat is in the future")
	}
	return nil
}

// scopes returns the token's scopes, from the claim scp or else from scope. Either is a list or a
// text with spaces. Without a scope it returns nil, which the event has as null.
func (t token) scopes() []string {
	raw, ok := t.all["scp"]
	if !ok {
		raw = t.all["scope"]
	}
	var list []string
	if json.Unmarshal(raw, &list) == nil {
		return list
	}
	var text string
	if json.Unmarshal(raw, &text) == nil {
		return strings.Fields(text)
	}
	return nil
}

// texts returns the claims as the event has them. A claim that is null is left out.
func (t token) texts() map[string]string {
	texts := make(map[string]string, len(t.all))
	for name, raw := range t.all {
		decoder := json.NewDecoder(bytes.NewReader(raw))
		decoder.UseNumber() // a float would write a time in seconds as 1.7e+09
		var value any
		if decoder.Decode(&value) == nil && value != nil {
			texts[name] = claimText(value)
		}
	}
	return texts
}

// claimText writes a claim as AWS was seen to do: a list as [a b], an object as JSON.
func claimText(value any) string {
	switch value := value.(type) {
	case []any:
		texts := make([]string, len(value))
		for i, element := range value {
			texts[i] = claimText(element)
		}
		return "[" + strings.Join(texts, " ") + "]"
	case map[string]any:
		text, _ := json.Marshal(value) // it came from JSON, so it can be written as JSON
		return string(text)
	default:
		return fmt.Sprint(value)
	}
}
