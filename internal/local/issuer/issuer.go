// Package issuer is a small issuer of tokens for one machine, in the place of Cognito, Auth0 or
// Keycloak. It publishes the two documents that a JWT authorizer reads, and signs whatever it is
// asked to sign: it is for development and tests only. The key is in memory, so a restart is a
// rotation of keys.
package issuer

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

const (
	keyBits = 2048
	// tokenLasts is how long a token of POST /token is valid.
	tokenLasts = time.Hour
	// maxForm is the most bytes of a form.
	maxForm = 64 << 10
)

// Issuer is an http.Handler that serves its documents, and POST /token. It is safe for concurrent
// use.
type Issuer struct {
	url string
	mux *http.ServeMux

	mu  sync.Mutex // guards the fields below
	key jose.JSONWebKey
	ids int
}

// New returns an issuer with a new key. url is where it is served and the iss of its tokens.
func New(url string) (*Issuer, error) {
	i := &Issuer{url: url, mux: http.NewServeMux()}
	i.mux.HandleFunc("GET /.well-known/openid-configuration", i.serveDiscovery)
	i.mux.HandleFunc("GET /keys", i.serveKeys)
	i.mux.HandleFunc("POST /token", i.serveToken)
	return i, i.Rotate()
}

// ServeHTTP answers the requests of the authorizer and of the developer.
func (i *Issuer) ServeHTTP(w http.ResponseWriter, r *http.Request) { i.mux.ServeHTTP(w, r) }

// Rotate withdraws the key and makes one with another id.
func (i *Issuer) Rotate() error {
	private, err := rsa.GenerateKey(rand.Reader, keyBits)
	if err != nil {
		return err
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.ids++
	id := fmt.Sprintf("%d-%d", time.Now().Unix(), i.ids)
	i.key = jose.JSONWebKey{Key: private, KeyID: id, Algorithm: string(jose.RS256), Use: "sig"}
	return nil
}

// Key returns the key that signs, with its private part.
func (i *Issuer) Key() jose.JSONWebKey {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.key
}

// Sign returns a token with the claims, as they are.
func (i *Issuer) Sign(claims map[string]any) (string, error) {
	signer, err := jose.NewSigner(
		jose.SigningKey{Algorithm: jose.RS256, Key: i.Key()},
		(&jose.SignerOptions{}).WithType("JWT"))
	if err != nil {
		return "", err
	}
	return jwt.Signed(signer).Claims(claims).Serialize()
}

func (i *Issuer) serveDiscovery(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, map[string]string{"issuer": i.url, "jwks_uri": i.url + "/keys"})
}

func (i *Issuer) serveKeys(w http.ResponseWriter, _ *http.Request) {
	key := i.Key()
	writeJSON(w, jose.JSONWebKeySet{Keys: []jose.JSONWebKey{key.Public()}})
}

// serveToken makes a token of a form's fields, which become its claims. iss, iat and exp are the
// issuer's.
func (i *Issuer) serveToken(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	if err := r.ParseForm(); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	now := time.Now()
	claims := map[string]any{}
	for name, values := range r.PostForm {
		claims[name] = strings.Join(values, " ")
	}
	claims["iss"], claims["iat"], claims["exp"] = i.url, now.Unix(), now.Add(tokenLasts).Unix()
	token, err := i.Sign(claims)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	_, _ = fmt.Fprintln(w, token) // it fails when the caller has hung up
}

func writeJSON(w http.ResponseWriter, document any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(document) // it fails when the caller has hung up
}
