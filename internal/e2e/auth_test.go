package e2e

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"github.com/allo/reservations/internal/config"
	"github.com/allo/reservations/internal/local"
	"github.com/allo/reservations/internal/local/issuer"
	"github.com/allo/reservations/internal/route"
)

// testIssuer is an issuer of tokens on this machine.
type testIssuer struct {
	*issuer.Issuer
	url string
}

// guardByJWT lets the deployment's gateway ask for tokens, and returns their issuer.
func guardByJWT(t *testing.T, d *deployment) testIssuer {
	t.Helper()
	server := httptest.NewUnstartedServer(nil)
	address := "http://" + server.Listener.Addr().String()
	i, err := issuer.New(address)
	if err != nil {
		t.Fatal(err)
	}
	server.Config.Handler = i
	server.Start()
	t.Cleanup(server.Close)
	d.gateway.Guard(local.NewAuthorizer(
		config.Auth{Kind: config.AuthJWT, JWTIssuer: address, JWTAudience: "shop"},
		slog.New(slog.DiscardHandler)))
	return testIssuer{i, address}
}

// bearer returns the header of a caller whom the issuer names.
func (i testIssuer) bearer(subject, scopes string) map[string]string {
	form := url.Values{"sub": {subject}, "aud": {"shop"}, "scope": {scopes}}.Encode()
	r := httptest.NewRequest("POST", "/token", strings.NewReader(form))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	w := httptest.NewRecorder()
	i.ServeHTTP(w, r)
	return map[string]string{"Authorization": "Bearer " + strings.TrimSpace(w.Body.String())}
}

// delivery is a request that changes the stock of the mug, with everybody's guess as its key.
func delivery(header map[string]string, reference string) request {
	all := map[string]string{"Idempotency-Key": "delivery-1"}
	maps.Copy(all, header)
	return request{
		method: http.MethodPost, path: "/api/stock/movements", header: all,
		body: fmt.Sprintf(`{"source":"erp","reference":%q,"lines":[`+
			`{"productId":%q,"warehouseId":%q,"delta":1}]}`, reference, mug, newYork),
	}
}

// actors returns who made the newest movements of the mug, oldest first.
func (d *deployment) actors(header map[string]string, newest int) []string {
	d.t.Helper()
	a := d.send(request{
		method: http.MethodGet, header: header,
		path: "/api/stock/movements?productId=" + mug.String() + "&warehouseId=" + newYork.String(),
	}).want(d.t, http.StatusOK, "")
	var actors []string
	for _, m := range decode[[]struct{ Actor *string }](d.t, a)[:newest] {
		name := "nobody"
		if m.Actor != nil {
			name = *m.Actor
		}
		actors = append([]string{name}, actors...)
	}
	return actors
}

// The token's subject reaches the service: its keys are its own, and it is the actor.
func TestATokenNamesItsCaller(t *testing.T) {
	eachTransport(t, func(t *testing.T, d *deployment) {
		i := guardByJWT(t, d)
		const scopes = "inventory:write inventory:read"
		ann, bob := i.bearer("ann", scopes), i.bearer("bob", scopes)

		first := d.send(delivery(ann, "a")).want(t, http.StatusOK, "")
		again := d.send(delivery(ann, "a")).want(t, http.StatusOK, "")
		if string(first.body) != string(again.body) ||
			again.header.Get("Idempotency-Replayed") != "true" {
			t.Errorf("ann's request again = %s, want a replay of %s", again.body, first.body)
		}
		d.send(delivery(bob, "b")).want(t, http.StatusOK, "")
		d.send(delivery(ann, "c")).want(t, 422, "IDEMPOTENCY_KEY_REUSED")

		want := fmt.Sprintf(`[sub "ann" of %[1]q sub "bob" of %[1]q]`, i.url)
		if got := fmt.Sprint(d.actors(ann, 2)); got != want {
			t.Errorf("the actors are %s, want %s", got, want)
		}
	})
}

// The control: on open routes a token names nobody, so that two callers share a key.
func TestOnAnOpenGatewayATokenNamesNobody(t *testing.T) {
	eachTransport(t, func(t *testing.T, d *deployment) {
		i := guardByJWT(t, d)
		d.gateway.Guard(nil)
		ann, bob := i.bearer("ann", "inventory:write"), i.bearer("bob", "")

		d.send(delivery(ann, "a")).want(t, http.StatusOK, "")
		d.send(delivery(bob, "b")).want(t, 422, "IDEMPOTENCY_KEY_REUSED")

		if got := fmt.Sprint(d.actors(nil, 1)); got != "[nobody]" {
			t.Errorf("the actors are %s, want nobody", got)
		}
	})
}

// guardReserving puts the optional scopes on the gateway's routes, as RESERVE_AUTH does.
func guardReserving(t *testing.T, d *deployment) testIssuer {
	t.Helper()
	routes := route.All()
	for n, r := range routes {
		routes[n] = r.Guarded(true)
	}
	var err error
	d.gateway, err = local.NewGateway(routes, d.functions.HTTP, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if d.url != "" {
		server := httptest.NewServer(d.gateway)
		t.Cleanup(server.Close)
		d.url = server.URL
	}
	return guardByJWT(t, d)
}

// A shopper with a token owns the holds that it makes, and can't hold in another's name. A back end
// with the scope for it can.
func TestATokensSubjectOwnsItsHolds(t *testing.T) {
	eachTransport(t, func(t *testing.T, d *deployment) {
		i := guardReserving(t, d)
		const acts = "reservations:write reservations:act-for-any"
		ann, shop := i.bearer("ann", "reservations:write"), i.bearer("shop", acts)
		operator := i.bearer("operator", "inventory:read")
		reserve := func(header map[string]string, owner string) answer {
			body := line(mug, newYork, 1)
			if owner != "" {
				body = fmt.Sprintf(`{"owner":%q,%s`, owner, body[1:])
			}
			return d.send(request{
				method: http.MethodPost, path: "/api/reservations", header: header, body: body,
			})
		}

		hers := reserve(ann, "").want(t, http.StatusCreated, "").hold(t)
		reserve(ann, "ann").want(t, http.StatusCreated, "")
		reserve(ann, "bob").want(t, http.StatusForbidden, "OWNER_MISMATCH")
		bobs := reserve(shop, "bob").want(t, http.StatusCreated, "").hold(t)
		nobodys := reserve(shop, "").want(t, http.StatusCreated, "").hold(t)
		if a := d.sendRaw(request{
			method: http.MethodPost, path: "/api/reservations", body: line(mug, newYork, 1),
		}); a.status != http.StatusUnauthorized {
			t.Errorf("without a token: %d %s, want 401", a.status, a.body)
		}

		listed := d.send(request{method: http.MethodGet, path: "/api/reservations", header: operator})
		owners := map[string]string{}
		for _, h := range decode[[]struct{ ID, Owner string }](t, listed.want(t, 200, "")) {
			owners[h.ID] = h.Owner
		}
		if len(owners) != 4 || owners[hers.ID] != "ann" || owners[bobs.ID] != "bob" ||
			owners[nobodys.ID] != "" {
			t.Errorf("the owners are %v, want ann twice, bob and nobody", owners)
		}
	})
}

// A refusal is the gateway's own, and nothing happened.
func TestWithoutTheScopeNothingHappens(t *testing.T) {
	eachTransport(t, func(t *testing.T, d *deployment) {
		i := guardByJWT(t, d)
		forged := map[string]string{
			"Authorization":    "Bearer a.b.c",
			"X-Amzn-Principal": "ann", "X-Forwarded-User": "ann",
		}
		for _, c := range []struct {
			header map[string]string
			status int
			body   string
		}{
			{nil, http.StatusUnauthorized, `{"message":"Unauthorized"}`},
			{forged, http.StatusUnauthorized, `{"message":"Unauthorized"}`},
			{i.bearer("ann", "inventory:read"), http.StatusForbidden, `{"message":"Forbidden"}`},
		} {
			a := d.sendRaw(delivery(c.header, "a"))
			if a.status != c.status || string(a.body) != c.body ||
				a.header.Get("Www-Authenticate") == "" {
				t.Errorf("%v: %d %v %s, want %d %s and a challenge",
					c.header, a.status, a.header, a.body, c.status, c.body)
			}
		}
		d.wantStock(mug, newYork, 30, 0)
		d.reserve(line(mug, newYork, 1)) // an open route needs no token
	})
}

// A signature names its caller, over every transport and as the network carries it.
func TestASignatureNamesItsCaller(t *testing.T) {
	eachTransport(t, func(t *testing.T, d *deployment) {
		credential := aws.Credentials{AccessKeyID: "AKIATEST", SecretAccessKey: t.Name()}
		d.gateway.Guard(local.NewAuthorizer(config.Auth{
			Kind: config.AuthIAM, AccessKeyID: credential.AccessKeyID,
			SecretAccessKey: credential.SecretAccessKey,
		}, slog.New(slog.DiscardHandler)))
		sign := func(q request) request {
			r := d.newRequest(q)
			digest := sha256.Sum256([]byte(q.body))
			if err := v4.NewSigner().SignHTTP(t.Context(), credential, r,
				hex.EncodeToString(digest[:]), "execute-api", "us-east-1", time.Now()); err != nil {
				t.Fatal(err)
			}
			for _, name := range []string{"Authorization", "X-Amz-Date"} {
				q.header[name] = r.Header.Get(name)
			}
			return q
		}

		d.send(sign(delivery(nil, "a"))).want(t, http.StatusOK, "")
		changed := sign(delivery(nil, "b"))
		changed.body = strings.Replace(changed.body, `"delta":1`, `"delta":9`, 1)
		for _, q := range []request{delivery(nil, "c"), changed} {
			if a := d.sendRaw(q); a.status != 403 || string(a.body) != `{"message":"Forbidden"}` {
				t.Errorf("%s = %d %s, want the gateway's 403", q.body, a.status, a.body)
			}
		}

		list := sign(request{
			method: http.MethodGet, header: map[string]string{},
			path: "/api/stock/movements?productId=" + mug.String() + "&warehouseId=" + newYork.String(),
		})
		if got := fmt.Sprint(d.actors(list.header, 1)); got !=
			"[arn:aws:iam::123456789012:user/local]" {
			t.Errorf("the actors are %s, want the IAM user", got)
		}
		d.wantStock(mug, newYork, 31, 0)
	})
}
