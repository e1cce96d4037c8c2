package signin

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/subtle"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/uuid"
	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
)

// How long things last, and how many there are at most: a browser that never comes back leaves its
// own behind.
const (
	requestLasts, maxRequests = 10 * time.Minute, 1000
	sessionLasts, maxSessions = 12 * time.Hour, 1000
	refreshLasts, maxRefresh  = 12 * time.Hour, 1000
	keyBits                   = 2048
)

// storage is the state of the issuer, and what the protocol's library asks for.
type storage struct {
	Options

	secrets map[string]string // of the clients that sign in as themselves
	key     signingKey

	mu       sync.Mutex // guards the fields below
	requests *shelf[request]
	codes    *shelf[string] // ids of requests
	sessions *shelf[account]
	refresh  *shelf[grantOf]
}

// The library asks for these beyond op.Storage when they are there.
var (
	_ op.Storage                        = (*storage)(nil)
	_ op.ClientCredentialsStorage       = (*storage)(nil)
	_ op.CanTerminateSessionFromRequest = (*storage)(nil)
	_ op.CanGetPrivateClaimsFromRequest = (*storage)(nil)
)

func newStorage(options Options) (*storage, error) {
	private, err := rsa.GenerateKey(rand.Reader, keyBits)
	if err != nil {
		return nil, err
	}
	return &storage{
		Options:  options,
		secrets:  map[string]string{PaymentsID: rand.Text(), DemoID: rand.Text()},
		key:      signingKey{id: uuid.NewString(), private: private},
		requests: newShelf[request](requestLasts, maxRequests),
		codes:    newShelf[string](requestLasts, maxRequests),
		sessions: newShelf[account](sessionLasts, maxSessions),
		refresh:  newShelf[grantOf](refreshLasts, maxRefresh),
	}, nil
}

// begin begins a session of an account.
func (s *storage) begin(a account) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sessions.add(a)
}

// accountOf returns the account of a session.
func (s *storage) accountOf(session string) (account, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sessions.get(session)
}

// request returns an open request as it is now.
func (s *storage) request(id string) (request, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.requests.get(id)
}

// complete says who has signed in by a request. It is false for a request that isn't open.
func (s *storage) complete(id string, a account, session string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.requests.get(id)
	if ok {
		r.account, r.session, r.authTime = a, session, time.Now()
		s.requests.put(id, r)
	}
	return ok
}

// CreateAuthRequest keeps a request. Where nothing may be asked, the session must know who it is.
func (s *storage) CreateAuthRequest(
	ctx context.Context, asked *oidc.AuthRequest, _ string,
) (op.AuthRequest, error) {
	if _, known := s.accountOf(sessionOf(ctx)); !known &&
		slices.Contains(asked.Prompt, oidc.PromptNone) {
		return nil, oidc.ErrLoginRequired()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	r := request{id: rand.Text(), asked: asked, audience: s.audienceOf(ctx, asked.ClientID)}
	s.requests.put(r.id, r)
	return &r, nil
}

// AuthRequestByID returns an open request.
func (s *storage) AuthRequestByID(_ context.Context, id string) (op.AuthRequest, error) {
	if r, ok := s.request(id); ok {
		return &r, nil
	}
	return nil, errors.New("the sign-in has ended")
}

// AuthRequestByCode returns the request of a code, which is good for once.
func (s *storage) AuthRequestByCode(_ context.Context, code string) (op.AuthRequest, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if id, ok := s.codes.take(code); ok {
		if r, ok := s.requests.get(id); ok {
			return &r, nil
		}
	}
	return nil, errors.New("the code is invalid, or was used")
}

// SaveAuthCode keeps the code of a request.
func (s *storage) SaveAuthCode(_ context.Context, id, code string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.codes.put(code, id)
	return nil
}

// DeleteAuthRequest ends a request.
func (s *storage) DeleteAuthRequest(_ context.Context, id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests.take(id)
	return nil
}

// CreateAccessToken returns the id and the end of an access token. The token itself is a JWT, and
// isn't kept.
func (s *storage) CreateAccessToken(
	context.Context, op.TokenRequest,
) (id string, ends time.Time, err error) {
	return uuid.NewString(), time.Now().Add(s.TokenLasts), nil
}

// CreateAccessAndRefreshTokens is CreateAccessToken with a refresh token. The current one, which is
// good for one renewal, ends.
func (s *storage) CreateAccessAndRefreshTokens(
	ctx context.Context, asked op.TokenRequest, current string,
) (id, refresh string, ends time.Time, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var granted grantOf
	switch r := asked.(type) {
	case *request:
		granted = grantOf{
			account: r.account, session: r.session, client: r.GetClientID(), scopes: r.GetScopes(),
			audience: r.audience, authTime: r.authTime,
		}
	default:
		var ok bool
		if granted, ok = s.refresh.take(current); !ok {
			return "", "", time.Time{}, oidc.ErrInvalidGrant()
		}
	}
	id, ends, err = s.CreateAccessToken(ctx, asked)
	return id, s.refresh.add(granted), ends, err
}

// TokenRequestByRefreshToken returns what a refresh token renews.
func (s *storage) TokenRequestByRefreshToken(
	_ context.Context, token string,
) (op.RefreshTokenRequest, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if granted, ok := s.refresh.get(token); ok {
		return &granted, nil
	}
	return nil, op.ErrInvalidRefreshToken
}

// TerminateSession ends the sessions of an account.
func (s *storage) TerminateSession(_ context.Context, user, _ string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sessions.drop(func(a account) bool { return a.Group == user })
	s.refresh.drop(func(g grantOf) bool { return g.account.Group == user })
	return nil
}

// TerminateSessionFromRequest ends the session of the browser that asks, and no other.
func (s *storage) TerminateSessionFromRequest(
	ctx context.Context, asked *op.EndSessionRequest,
) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	session := sessionOf(ctx)
	s.sessions.take(session)
	s.refresh.drop(func(g grantOf) bool { return g.session == session })
	return asked.RedirectURI, nil
}

// RevokeToken ends a refresh token. An access token lasts to its end.
func (s *storage) RevokeToken(_ context.Context, token, _, client string) *oidc.Error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if granted, ok := s.refresh.get(token); ok && granted.client == client {
		s.refresh.take(token)
	}
	return nil
}

// GetRefreshTokenInfo returns whose refresh token it is.
func (s *storage) GetRefreshTokenInfo(
	_ context.Context, _, token string,
) (user, id string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	granted, ok := s.refresh.get(token)
	if !ok {
		return "", "", op.ErrInvalidRefreshToken
	}
	return granted.account.Group, token, nil
}

// SigningKey returns the key that signs the tokens.
func (s *storage) SigningKey(context.Context) (op.SigningKey, error) { return s.key, nil }

// SignatureAlgorithms returns the algorithm of the key.
func (s *storage) SignatureAlgorithms(context.Context) ([]jose.SignatureAlgorithm, error) {
	return []jose.SignatureAlgorithm{jose.RS256}, nil
}

// KeySet returns the key by which the tokens are checked.
func (s *storage) KeySet(context.Context) ([]op.Key, error) {
	return []op.Key{publicKey{s.key}}, nil
}

// GetClientByClientID returns one of the clients.
func (s *storage) GetClientByClientID(_ context.Context, id string) (op.Client, error) {
	if id == ConsoleID || client(id).isProgram() {
		return client(id), nil
	}
	return nil, errors.New("there is no such client")
}

// AuthorizeClientIDSecret checks the secret of a program. The console has none.
func (s *storage) AuthorizeClientIDSecret(_ context.Context, id, secret string) error {
	right, known := s.secrets[id]
	if !known || subtle.ConstantTimeCompare([]byte(secret), []byte(right)) != 1 {
		return errors.New("the client or its secret is wrong")
	}
	return nil
}

// ClientCredentials returns a program's client to whoever has its secret.
func (s *storage) ClientCredentials(ctx context.Context, id, secret string) (op.Client, error) {
	if err := s.AuthorizeClientIDSecret(ctx, id, secret); err != nil {
		return nil, err
	}
	return client(id), nil
}

// ClientCredentialsTokenRequest returns what a token of a program has.
func (s *storage) ClientCredentialsTokenRequest(
	_ context.Context, id string, _ []string,
) (op.TokenRequest, error) {
	return &oidc.JWTTokenRequest{Subject: id, Audience: oidc.Audience{Audience, id}}, nil
}

// GetPrivateClaimsFromRequest gives every access token the scopes of its subject, whatever was
// asked for, unless an account gets only what was.
func (s *storage) GetPrivateClaimsFromRequest(
	_ context.Context, asked op.TokenRequest, _ []string,
) (map[string]any, error) {
	scopes := scopesOf(asked.GetSubject())
	if _, isOwn := asked.(*oidc.JWTTokenRequest); s.OnlyAsked && !isOwn {
		scopes = slices.DeleteFunc(scopes, func(scope string) bool {
			return !slices.Contains(asked.GetScopes(), scope)
		})
	}
	return map[string]any{"scope": strings.Join(scopes, " ")}, nil
}

// GetPrivateClaimsFromScopes isn't called: GetPrivateClaimsFromRequest takes its place.
func (s *storage) GetPrivateClaimsFromScopes(
	context.Context, string, string, []string,
) (map[string]any, error) {
	return nil, errors.New("the claims come from the request")
}

// audienceOf returns the aud of a client's tokens. An id token must name its client.
func (s *storage) audienceOf(ctx context.Context, client string) []string {
	api := Audience
	if s.OnlyAsked {
		api = audienceIn(ctx)
	}
	if api == "" {
		return []string{client}
	}
	return []string{api, client}
}

// SetUserinfoFromScopes fills an id token with the account's name and group.
func (s *storage) SetUserinfoFromScopes(
	_ context.Context, info *oidc.UserInfo, user, _ string, _ []string,
) error {
	a, ok := findAccount(user)
	if !ok {
		return errors.New("there is no such account")
	}
	info.Subject, info.Name = a.Group, a.Name
	info.AppendClaims("groups", []string{a.Group})
	return nil
}

// SetUserinfoFromToken answers the userinfo endpoint.
func (s *storage) SetUserinfoFromToken(
	ctx context.Context, info *oidc.UserInfo, _, subject, _ string,
) error {
	return s.SetUserinfoFromScopes(ctx, info, subject, "", nil)
}

// SetIntrospectionFromToken answers no introspection: the API checks the tokens itself.
func (s *storage) SetIntrospectionFromToken(
	context.Context, *oidc.IntrospectionResponse, string, string, string,
) error {
	return errors.New("introspection isn't served")
}

// GetKeyByIDAndClientID has no key: no client signs.
func (s *storage) GetKeyByIDAndClientID(
	context.Context, string, string,
) (*jose.JSONWebKey, error) {
	return nil, errors.New("no client has a key")
}

// ValidateJWTProfileScopes allows nothing: no client signs.
func (s *storage) ValidateJWTProfileScopes(context.Context, string, []string) ([]string, error) {
	return nil, nil
}

// Health is always good: all is in memory.
func (s *storage) Health(context.Context) error { return nil }
