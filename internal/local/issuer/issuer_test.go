package issuer_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/allo/reservations/internal/local/issuer"
)

func serve(i *issuer.Issuer, r *http.Request) (status int, body string) {
	w := httptest.NewRecorder()
	i.ServeHTTP(w, r)
	return w.Code, strings.TrimSpace(w.Body.String())
}

// The authorizer's tests read the two documents. This test holds that a form can't claim to come
// from another issuer or to last longer, and that a private key isn't published.
func TestAFormBecomesAToken(t *testing.T) {
	t.Parallel()

	i, err := issuer.New("http://issuer.example")
	if err != nil {
		t.Fatal(err)
	}
	form := strings.NewReader("sub=ann&scope=a&scope=b&iss=x&exp=9999999999")
	r := httptest.NewRequest("POST", "/token", form)
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	status, text := serve(i, r)
	if status != http.StatusOK {
		t.Fatalf("POST /token = %d %s, want 200", status, text)
	}

	token, err := jwt.ParseSigned(text, []jose.SignatureAlgorithm{jose.RS256})
	if err != nil {
		t.Fatal(err)
	}
	var claims struct {
		jwt.Claims
		Scope string `json:"scope"`
	}
	key := i.Key()
	if err := token.Claims(key.Public().Key, &claims); err != nil {
		t.Fatal(err)
	}
	lasts := claims.Expiry.Time().Sub(claims.IssuedAt.Time())
	if claims.Issuer != "http://issuer.example" || claims.Subject != "ann" ||
		claims.Scope != "a b" || lasts.Hours() != 1 {
		t.Errorf("the token has %+v and lasts %s", claims, lasts)
	}

	_, keys := serve(i, httptest.NewRequest("GET", "/keys", nil))
	if strings.Contains(keys, `"d":`) || !strings.Contains(keys, key.KeyID) {
		t.Errorf("the key set is %s, want the public key alone", keys)
	}
	large := httptest.NewRequest("POST", "/token", strings.NewReader("a="+strings.Repeat("x", 1<<20)))
	large.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if status, _ := serve(i, large); status != http.StatusBadRequest {
		t.Errorf("a large form = %d, want 400", status)
	}
}

func TestEachKeyHasAnIDOfItsOwn(t *testing.T) {
	t.Parallel()

	i, err := issuer.New("http://issuer.example")
	if err != nil {
		t.Fatal(err)
	}
	before := i.Key().KeyID
	if err := i.Rotate(); err != nil {
		t.Fatal(err)
	}
	if after := i.Key().KeyID; after == before {
		t.Errorf("both keys have the id %s", after)
	}
}
