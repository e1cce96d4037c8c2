package local

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// clock is a time that a test moves.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) time() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// guardedAt returns a gateway whose keys age by the clock.
func guardedAt(t *testing.T, i *testIssuer, log *slog.Logger) (*Gateway, *clock) {
	t.Helper()
	c := &clock{now: time.Now()}
	a := newJWTAuthorizer(i.url, audience, log)
	a.keys.now = c.time
	g, _ := guardedBy(t, a)
	return g, c
}

// documents is the number of requests of one fetch.
const documents = 2

func TestOneFetchServesAllWhoWait(t *testing.T) {
	t.Parallel()

	const callers = 40
	i := newTestIssuer(t)
	g, _ := guardedAt(t, i, quiet)
	token := i.token(t, nil)
	release := make(chan struct{})
	slow := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		<-release
		i.ServeHTTP(w, r)
	})
	i.answer.Store(&slow)
	var wait sync.WaitGroup
	codes := make(chan int, callers)
	for range callers {
		wait.Go(func() { codes <- confirm(g, token).Code })
	}
	close(release)
	wait.Wait()
	for range callers {
		if code := <-codes; code != http.StatusNoContent {
			t.Errorf("a caller got %d, want 204", code)
		}
	}
	if got := i.requests.Load(); got != documents {
		t.Errorf("%d callers sent %d requests to the issuer, want %d", callers, got, documents)
	}
}

func TestANewKeyIsFetchedAtOnceAndTheOldOneForgotten(t *testing.T) {
	t.Parallel()

	i := newTestIssuer(t)
	g, c := guardedAt(t, i, quiet)
	old := i.token(t, nil)
	checkAuthorized(t, confirm(g, old), 204, "")
	c.advance(refetchAfter)
	if err := i.Rotate(); err != nil {
		t.Fatal(err)
	}
	checkAuthorized(t, confirm(g, old), 204, "") // nothing tells the gateway yet
	checkAuthorized(t, confirm(g, i.token(t, nil)), 204, "")
	c.advance(refetchAfter)

	checkAuthorized(t, confirm(g, old), 401, invalid("the issuer has no RSA key with the token's kid"))
}

// Without a new kid, a withdrawn key is forgotten after keysLast.
func TestKeysAreFetchedAgainAfterATime(t *testing.T) {
	t.Parallel()

	i := newTestIssuer(t)
	g, c := guardedAt(t, i, quiet)
	old := i.token(t, nil)
	checkAuthorized(t, confirm(g, old), 204, "")
	if err := i.Rotate(); err != nil {
		t.Fatal(err)
	}
	c.advance(keysLast - time.Second)
	checkAuthorized(t, confirm(g, old), 204, "")
	c.advance(time.Second)

	checkAuthorized(t, confirm(g, old), 401, invalid("the issuer has no RSA key with the token's kid"))
}

// Tokens with made-up ids don't send a request each to the issuer.
func TestUnknownKeysAreFetchedAtABoundedRate(t *testing.T) {
	t.Parallel()

	const rounds, each = 3, 20
	i := newTestIssuer(t)
	g, c := guardedAt(t, i, quiet)
	key := i.Key()
	token := i.signWith(t, jose.RS256, key.Key, map[jose.HeaderKey]any{"kid": "made-up"})
	for range rounds {
		for range each {
			confirm(g, token)
		}
		checkAuthorized(t, confirm(g, i.token(t, nil)), 204, "") // the known key works on
		c.advance(refetchAfter)
	}
	if got := i.requests.Load(); got != rounds*documents {
		t.Errorf("%d tokens sent %d requests, want %d", rounds*each, got, rounds*documents)
	}
}

func TestAnIssuerThatIsDownRefusesTokensUntilItIsBack(t *testing.T) {
	t.Parallel()

	i := newTestIssuer(t)
	var log bytes.Buffer
	g, c := guardedAt(t, i, slog.New(slog.NewTextHandler(&log, nil)))
	token := i.token(t, nil)
	discovery := invalid("OIDC discovery endpoint communication error")
	jwks := invalid("JWKS communication error")
	only := func(path string, broken http.HandlerFunc) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, path) {
				broken(w, r)
				return
			}
			i.ServeHTTP(w, r)
		}
	}
	text := func(body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(body)) }
	}
	keysAt := func(address string) http.HandlerFunc {
		return only("configuration", text(`{"issuer":"`+i.url+`","jwks_uri":"`+address+`"}`))
	}
	down := func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusBadGateway)
		i.ServeHTTP(w, r) // a good document, which doesn't count
	}
	for name, broken := range map[string]struct {
		answer    http.HandlerFunc
		challenge string
	}{
		"down":                {down, discovery},
		"not JSON":            {text("<html>"), discovery},
		"very large":          {text(`{"jwks_uri":"` + strings.Repeat("x", maxDocument) + `"}`), discovery},
		"keys down":           {only("/keys", down), jwks},
		"keys not JSON":       {only("/keys", text("keys")), jwks},
		"keys at no URL":      {keysAt("/keys"), jwks},
		"keys in a file":      {keysAt("file:///etc/passwd"), jwks},
		"keys on the way":     {keysAt("http://keys.example/keys"), jwks},
		"no issuer":           {only("configuration", text(`{"jwks_uri":"`+i.url+`/keys"}`)), discovery},
		"no keys in the list": {only("/keys", text(`{}`)), invalid("the issuer has no RSA key with the token's kid")},
	} {
		i.answer.Store(&broken.answer)
		before := i.requests.Load()
		for range 5 {
			checkAuthorized(t, confirm(g, token), 401, broken.challenge)
		}
		if sent := i.requests.Load() - before; sent > documents {
			t.Errorf("%s: %d requests, want those of one try", name, sent)
		}
		c.advance(refetchAfter)
	}
	if !strings.Contains(log.String(), "can't get the keys of JWT_ISSUER") ||
		strings.Contains(log.String(), token) {
		t.Errorf("the log is %s, want the issuer's failure and no token", &log)
	}
	i.answer.Store(nil)

	checkAuthorized(t, confirm(g, token), 204, "")
}

// A known key works on while the issuer is down, until keysLast.
func TestAnIssuerThatIsDownDoesNotSpoilItsKeys(t *testing.T) {
	t.Parallel()

	i := newTestIssuer(t)
	g, c := guardedAt(t, i, quiet)
	token := i.token(t, nil)
	checkAuthorized(t, confirm(g, token), 204, "")
	down := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) })
	i.answer.Store(&down)
	c.advance(keysLast - time.Second)
	checkAuthorized(t, confirm(g, token), 204, "")
	c.advance(time.Second)

	checkAuthorized(t, confirm(g, token), 401, invalid("OIDC discovery endpoint communication error"))
}

// A key set may have keys of other kinds and for other uses. They sign nothing, and the good one
// works beside them.
func TestOtherKeysOfTheSetAreLeftOut(t *testing.T) {
	t.Parallel()

	i := newTestIssuer(t)
	g, _ := guardedAt(t, i, quiet)
	key := i.Key()
	secret := []byte("a secret of thirty-two characters!")
	encrypting := jose.JSONWebKey{Key: key.Public().Key, KeyID: "encrypting", Use: "enc"}
	set, err := json.Marshal(map[string]any{"keys": []any{
		map[string]string{"kty": "unknown", "kid": "a"},
		map[string]string{"kty": "RSA", "kid": "b"},
		jose.JSONWebKey{Key: secret, KeyID: "secret"},
		encrypting, key.Public(),
	}})
	if err != nil {
		t.Fatal(err)
	}
	answer := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/keys" {
			_, _ = w.Write(set)
			return
		}
		i.ServeHTTP(w, r)
	})
	i.answer.Store(&answer)
	kid := func(id string) map[jose.HeaderKey]any { return map[jose.HeaderKey]any{"kid": id} }

	checkAuthorized(t, confirm(g, i.token(t, nil)), 204, "")
	for _, token := range []string{
		i.signWith(t, jose.HS256, secret, kid("secret")),
		i.signWith(t, jose.RS256, key.Key, kid("encrypting")),
		i.signWith(t, jose.RS256, key.Key, kid("b")),
	} {
		if got := confirm(g, token).Code; got != 401 {
			t.Errorf("a token of another key: %d, want 401", got)
		}
	}
}

// A key set is taken only from where nobody on the way can change it, and only from the issuer that
// the tokens name. Each control removes the guard, and the token then passes.
func TestKeysAreTakenOnlyFromTheIssuer(t *testing.T) {
	t.Parallel()

	const elsewhere = "keys.example" // the gateway reaches the test's issuer by this name, too
	discovery := invalid("OIDC discovery endpoint communication error")
	anywhere := func(k *keySet) { k.allowed = func(*url.URL) bool { return true } }
	for name, c := range map[string]struct {
		issuer, keys, redirect string // "" is as it should be
		challenge              string
		remove                 func(*keySet)
	}{
		"keys by http": {
			keys: "http://" + elsewhere + "/keys", remove: anywhere,
			challenge: invalid("JWKS communication error"),
		},
		"a redirect to http": {
			redirect: "http://" + elsewhere, challenge: discovery, remove: anywhere,
		},
		"another issuer": {
			issuer: "https://id.example", challenge: discovery,
			remove: func(k *keySet) { k.issuer = "https://id.example" },
		},
	} {
		i := newTestIssuer(t)
		answer := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch {
			case r.URL.Path == "/keys":
				i.ServeHTTP(w, r)
			case c.redirect != "" && r.Host != elsewhere:
				http.Redirect(w, r, c.redirect+r.URL.Path, http.StatusFound)
			default:
				_ = json.NewEncoder(w).Encode(map[string]string{
					"issuer":   cmp.Or(c.issuer, i.url),
					"jwks_uri": cmp.Or(c.keys, i.url+"/keys"),
				})
			}
		})
		i.answer.Store(&answer)
		for _, guarded := range []bool{true, false} {
			a := newJWTAuthorizer(i.url, audience, quiet)
			a.keys.client.Transport = &http.Transport{
				DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
					return new(net.Dialer).DialContext(ctx, network, strings.TrimPrefix(i.url, "http://"))
				},
			}
			if !guarded {
				c.remove(a.keys)
			}
			g, _ := guardedBy(t, a)
			got := confirm(g, i.token(t, nil))
			if guarded {
				checkAuthorized(t, got, 401, c.challenge)
			} else if got.Code != 204 {
				t.Errorf("%s: without the guard %d, want 204", name, got.Code)
			}
		}
	}
}

// The controls: each removes one guard of the authorizer and shows that a token, which the cases
// above refuse, then passes.
func TestWithoutItsGuardATokenPasses(t *testing.T) {
	t.Parallel()

	i := newTestIssuer(t)
	for name, c := range map[string]struct {
		changes map[string]any
		remove  func(*jwtAuthorizer)
	}{
		"clock": {
			map[string]any{"exp": time.Now().Unix() - 1},
			func(a *jwtAuthorizer) { a.now = func() time.Time { return time.Now().Add(-time.Minute) } },
		},
		"audience": {map[string]any{"aud": "x"}, func(a *jwtAuthorizer) { a.audience = "x" }},
		"issuer":   {map[string]any{"iss": i.url + "/"}, func(a *jwtAuthorizer) { a.issuer += "/" }},
	} {
		token := i.token(t, c.changes)
		a := newJWTAuthorizer(i.url, audience, quiet)
		g, _ := guardedBy(t, a)
		if got := confirm(g, token).Code; got != 401 {
			t.Errorf("%s: with the guard %d, want 401", name, got)
		}
		c.remove(a)
		if got := confirm(g, token).Code; got != 204 {
			t.Errorf("%s: without the guard %d, want 204", name, got)
		}
	}
}
