// Package signin is an OpenID Connect issuer for one machine, in the place of Cognito: the users of
// the console sign in there. It has one account for each group, and asks for no password: whoever
// reaches it may be anybody, so it must listen on the loopback only. Its keys, sessions and tokens
// are in memory, so a restart signs everybody out.
//
// github.com/zitadel/oidc speaks the protocol: authorization code with PKCE, refresh tokens that
// are good for one renewal, client credentials, and the end of a session. It is certified by the
// OpenID Foundation, and needs no database.
package signin

import (
	"context"
	"crypto/rand"
	"embed"
	"html/template"
	"net/http"
	"time"

	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
)

const (
	// Audience is in the aud of every access token: the API.
	Audience = "allo"
	// ConsoleID is the client of the console. It has no secret, and must prove its codes.
	ConsoleID = "console"
	// PaymentsID is the client of the payment side, which signs in with a secret and as itself.
	PaymentsID = "payments"
	// DemoID is the client of the demo's back end, which pays, sells and fills the shelves. It signs
	// in as PaymentsID does.
	DemoID = "demo"

	// usualLife is how long an access token is valid. It is short, so that a developer sees renewals.
	usualLife = 5 * time.Minute
	// cookie keeps a browser signed in at the issuer.
	cookie = "allo_signin"
	// maxForm is the most bytes of a form of the sign-in page.
	maxForm = 4 << 10
)

//go:embed page.html page.css
var assets embed.FS

var page = template.Must(template.ParseFS(assets, "page.html"))

// Options are how the issuer differs from the usual.
type Options struct {
	// TokenLasts is how long an access token is valid. Zero is five minutes.
	TokenLasts time.Duration
	// OnlyAsked makes an account's token as Auth0 does: it has the audience and the scopes that the
	// sign-in asks for. Without OnlyAsked it has the API's audience and all scopes of the account, as
	// a token of the stack's user pool.
	OnlyAsked bool
}

// Issuer is an http.Handler that serves the protocol and the sign-in page. It is safe for
// concurrent use.
type Issuer struct {
	http.Handler
	url      string
	storage  *storage
	callback func(context.Context, string) string
}

// New returns an issuer with new keys. url is where it is served, without a path, and the iss of
// its tokens.
func New(url string, options Options) (*Issuer, error) {
	if options.TokenLasts == 0 {
		options.TokenLasts = usualLife
	}
	s, err := newStorage(options)
	if err != nil {
		return nil, err
	}
	c := &op.Config{
		CodeMethodS256: true, AuthMethodPost: true, GrantTypeRefreshToken: true,
		SupportedScopes: []string{oidc.ScopeOpenID, oidc.ScopeOfflineAccess},
	}
	_, _ = rand.Read(c.CryptoKey[:]) // it never fails
	provider, err := op.NewProvider(c, s, op.StaticIssuer(url), op.WithAllowInsecure())
	if err != nil {
		return nil, err
	}
	i := &Issuer{url: url, storage: s, callback: op.AuthCallbackURL(provider)}
	mux := http.NewServeMux()
	onIssuer := op.NewIssuerInterceptor(provider.IssuerFromRequest)
	mux.Handle("GET /sign-in", onIssuer.HandlerFunc(i.showPage))
	mux.Handle("POST /sign-in",
		http.NewCrossOriginProtection().Handler(onIssuer.HandlerFunc(i.signIn)))
	mux.HandleFunc("GET /page.css", serveStyle)
	mux.Handle("/", provider)
	i.Handler = withQuestion(mux)
	return i, nil
}

// PaymentsSecret returns the secret of the client PaymentsID.
func (i *Issuer) PaymentsSecret() string { return i.storage.secrets[PaymentsID] }

// DemoSecret returns the secret of the client DemoID.
func (i *Issuer) DemoSecret() string { return i.storage.secrets[DemoID] }

// sessionKey is the key of the browser's session in a context, and audienceKey that of the audience
// for which the sign-in asks.
type (
	sessionKey  struct{}
	audienceKey struct{}
)

// withQuestion puts what the library doesn't read into the context, where the storage finds it: the
// session of the cookie, and the audience.
func withQuestion(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx := context.WithValue(r.Context(), audienceKey{}, r.URL.Query().Get("audience"))
		if c, err := r.Cookie(cookie); err == nil {
			ctx = context.WithValue(ctx, sessionKey{}, c.Value)
		}
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

func sessionOf(ctx context.Context) string {
	id, _ := ctx.Value(sessionKey{}).(string)
	return id
}

// audienceIn returns the audience for which a request asks, or nothing.
func audienceIn(ctx context.Context) string {
	audience, _ := ctx.Value(audienceKey{}).(string)
	return audience
}

// showPage asks who one is. A browser that is signed in goes on at once.
func (i *Issuer) showPage(w http.ResponseWriter, r *http.Request) {
	id := r.URL.Query().Get("id")
	account, known := i.storage.accountOf(sessionOf(r.Context()))
	if known && i.storage.complete(id, account, sessionOf(r.Context())) {
		http.Redirect(w, r, i.callback(r.Context(), id), http.StatusFound)
		return
	}
	i.writePage(w, id)
}

// writePage writes the page, or says that the sign-in is unknown or too old.
func (i *Issuer) writePage(w http.ResponseWriter, id string) {
	header := w.Header()
	header.Set("Content-Type", "text/html; charset=utf-8")
	header.Set("Cache-Control", "no-store")
	header.Set("Content-Security-Policy",
		"default-src 'none'; style-src 'self'; frame-ancestors 'none'; base-uri 'none'")
	_, isOpen := i.storage.request(id)
	if !isOpen {
		w.WriteHeader(http.StatusBadRequest)
	}
	_ = page.Execute(w, map[string]any{ // it fails when the caller has hung up
		"ID": id, "IsOpen": isOpen, "Accounts": accounts(),
	})
}

// signIn begins a session for the chosen account, and goes back to the console.
func (i *Issuer) signIn(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	id := r.PostFormValue("id")
	account, known := findAccount(r.PostFormValue("account"))
	if !known {
		http.Error(w, "There is no such account. Go back and choose one.", http.StatusBadRequest)
		return
	}
	session := i.storage.begin(account)
	if !i.storage.complete(id, account, session) {
		i.writePage(w, id)
		return
	}
	http.SetCookie(w, &http.Cookie{ // #nosec G124 -- it is served over http to this machine
		Name: cookie, Value: session, Path: "/", HttpOnly: true, SameSite: http.SameSiteLaxMode,
	})
	http.Redirect(w, r, i.callback(r.Context(), id), http.StatusSeeOther)
}

func serveStyle(w http.ResponseWriter, r *http.Request) {
	http.ServeFileFS(w, r, assets, "page.css")
}

// Token returns an access token of a group's account, or of PaymentsID, as a sign-in would.
func (i *Issuer) Token(ctx context.Context, subject string) (string, error) {
	asked := &oidc.JWTTokenRequest{Subject: subject, Audience: oidc.Audience{Audience}}
	id, ends, err := i.storage.CreateAccessToken(ctx, asked)
	if err != nil {
		return "", err
	}
	return op.CreateJWT(ctx, i.url, asked, ends, id, client(ConsoleID), i.storage)
}
