package local

import (
	"context"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"golang.org/x/sync/singleflight"

	"github.com/allo/reservations/internal/config"
)

const (
	// keysLast is how long fetched keys are used. AWS documents two hours; a developer who withdraws a
	// key shouldn't wait as long.
	keysLast = 10 * time.Minute
	// refetchAfter is the least time between two tries to fetch the keys. Without it, tokens with
	// made-up key ids would send a request each to the issuer.
	refetchAfter = 5 * time.Second
	// fetchLimit bounds a fetch: both documents.
	fetchLimit = 5 * time.Second
	// maxDocument is the most bytes of a document of the issuer.
	maxDocument = 1 << 20
)

// keySet has the public keys of an issuer. It is safe for concurrent use.
type keySet struct {
	// address is that of the discovery document, which must name issuer.
	address, issuer string
	// allowed says which URLs may be fetched. Whoever can change a key set decides whom the gateway
	// lets in.
	allowed func(*url.URL) bool
	client  *http.Client
	now     func() time.Time
	flight  singleflight.Group // many callers share one fetch

	mu      sync.Mutex // guards the fields below
	keys    map[string]*rsa.PublicKey
	fetched time.Time
	tried   time.Time
	failed  error // the result of the last try
}

func newKeySet(issuer string) *keySet {
	k := &keySet{
		address: strings.TrimSuffix(issuer, "/") + "/.well-known/openid-configuration",
		issuer:  issuer, allowed: config.IsPrivate, now: time.Now,
	}
	k.client = &http.Client{CheckRedirect: k.checkRedirect}
	return k
}

// checkRedirect follows a redirect to a URL that may be fetched, up to ten times.
func (k *keySet) checkRedirect(r *http.Request, before []*http.Request) error {
	if len(before) >= 10 {
		return errors.New("the issuer redirected ten times")
	}
	return k.check(r.URL)
}

// check refuses a URL that may not be fetched.
func (k *keySet) check(u *url.URL) error {
	if !k.allowed(u) {
		return fmt.Errorf("%s has neither https nor http to this machine", u.Redacted())
	}
	return nil
}

// find returns the key with this id. It fetches the keys when it has none with the id, as an issuer
// that rotates its keys signs with a new one at once.
func (k *keySet) find(ctx context.Context, id string) (*rsa.PublicKey, error) {
	if key := k.cached(id); key != nil {
		return key, nil
	}
	// A fetch is for all who wait, so it doesn't end with the request of one.
	result := k.flight.DoChan("", func() (any, error) {
		return nil, k.refresh(context.WithoutCancel(ctx))
	})
	select {
	case r := <-result:
		if r.Err != nil {
			return nil, r.Err
		}
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if key := k.cached(id); key != nil {
		return key, nil
	}
	return nil, tokenError("the issuer has no RSA key with the token's kid")
}

func (k *keySet) cached(id string) *rsa.PublicKey {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.now().Sub(k.fetched) >= keysLast {
		return nil
	}
	return k.keys[id]
}

// refresh fetches the keys, unless the last try is too recent. It returns the last try's result.
func (k *keySet) refresh(ctx context.Context) error {
	k.mu.Lock()
	now := k.now()
	if !k.tried.IsZero() && now.Sub(k.tried) < refetchAfter {
		defer k.mu.Unlock()
		return k.failed
	}
	k.tried = now
	k.mu.Unlock()

	keys, err := k.fetch(ctx)

	k.mu.Lock()
	defer k.mu.Unlock()
	k.failed = err
	if err == nil {
		k.keys, k.fetched = keys, now
	}
	return err
}

// fetch reads the discovery document and the key set that it names. It keeps the RSA keys for
// signatures, by their ids. A key that can't be read doesn't spoil the others.
func (k *keySet) fetch(ctx context.Context) (map[string]*rsa.PublicKey, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchLimit)
	defer cancel()
	var discovery struct {
		Issuer string `json:"issuer"`
		URI    string `json:"jwks_uri"`
	}
	if err := k.get(ctx, k.address, &discovery); err != nil {
		return nil, fmt.Errorf("%w: %w", errDiscovery, err)
	}
	if discovery.Issuer != k.issuer {
		return nil, fmt.Errorf("%w: %s names the issuer %q", errDiscovery, k.address, discovery.Issuer)
	}
	var set struct{ Keys []json.RawMessage }
	if err := k.get(ctx, discovery.URI, &set); err != nil {
		return nil, fmt.Errorf("%w: %w", errJWKS, err)
	}
	keys := map[string]*rsa.PublicKey{}
	for _, raw := range set.Keys {
		var key jose.JSONWebKey
		if json.Unmarshal(raw, &key) != nil {
			continue
		}
		public, ok := key.Key.(*rsa.PublicKey)
		if ok && (key.Use == "" || key.Use == "sig") {
			keys[key.KeyID] = public
		}
	}
	return keys, nil
}

// get reads a JSON document of the issuer, whom the settings name. So #nosec G704 stands below: no
// caller chooses the address.
func (k *keySet) get(ctx context.Context, address string, document any) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil) // #nosec G704
	if err != nil {
		return err
	}
	if err := k.check(request.URL); err != nil {
		return err
	}
	response, err := k.client.Do(request) // #nosec G704
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answered %s", address, response.Status)
	}
	body, err := io.ReadAll(http.MaxBytesReader(nil, response.Body, maxDocument))
	if err != nil {
		return fmt.Errorf("read %s: %w", address, err)
	}
	if err := json.Unmarshal(body, document); err != nil {
		return fmt.Errorf("decode %s: %w", address, err)
	}
	return nil
}
