package lambdahttp

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"testing"

	"github.com/aws/aws-lambda-go/events"

	"github.com/allo/reservations/internal/principal"
)

// principalFor sends an event with the authorizer's JSON through New. It returns the principal that
// the handler sees.
func principalFor(t *testing.T, authorizer string) (got principal.Principal) {
	t.Helper()
	text := fmt.Sprintf(`{
		"version": "2.0", "routeKey": "$default", "rawPath": "/",
		"headers": {"host": "shop.example", "authorization": "Bearer forged", "x-principal": "root",
			"x-scope": "reservations:act-for-any"},
		"requestContext": {"http": {"method": "POST", "path": "/"}, "authorizer": %s}}`, authorizer)
	var event events.APIGatewayV2HTTPRequest
	if err := json.Unmarshal([]byte(text), &event); err != nil {
		t.Fatalf("%s: %v", authorizer, err)
	}
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = principal.From(r.Context())
		w.WriteHeader(http.StatusNoContent)
	})
	if _, err := New(h, slog.New(slog.DiscardHandler))(t.Context(), event); err != nil {
		t.Fatal(err)
	}
	return got
}

func jwt(claims string) string { return `{"jwt": {"claims": ` + claims + `, "scopes": ["a"]}}` }

func iam(arn string) string {
	return `{"iam": {"accessKey": "ASIA", "accountId": "123456789012", "callerId": "AIDA:x",
		"cognitoIdentity": null, "principalOrgId": "o-1", "userArn": "` + arn + `", "userId": "AIDA:x"}}`
}

func cognito(identity string) string {
	const role = "arn:aws:sts::123456789012:assumed-role/shoppers/CognitoIdentityCredentials"
	return `{"iam": {"userArn": "` + role + `", "cognitoIdentity": {"amr": ["authenticated"],
		"identityPoolId": "eu-west-1:pool", "identityId": "` + identity + `"}}}`
}

func TestThePrincipalIsWhomTheAuthorizerFound(t *testing.T) {
	t.Parallel()

	const (
		user = "arn:aws:iam::123456789012:user/"
		sts  = "arn:aws:sts::123456789012:"
	)
	named := func(kind principal.Kind, id string) principal.Principal {
		return principal.Principal{Kind: kind, ID: id}
	}
	for _, test := range []struct {
		authorizer string
		want       principal.Principal
	}{
		{"null", principal.Principal{}},

		{jwt(`{"iss": "https://id.example", "sub": "7", "client_id": "web", "azp": "web", "jti": "1"}`), named("jwt", `sub "7" of "https://id.example"`)},
		{jwt(`{"sub": "7"}`), named("jwt", `sub "7" of ""`)},
		{jwt(`{"sub": "7\" of \"x"}`), named("jwt", `sub "7\" of \"x" of ""`)},
		{jwt(`{"iss": "i", "client_id": "payments", "azp": "web"}`), named("jwt", `client_id "payments" of "i"`)},
		{jwt(`{"iss": "i", "sub": "", "client_id": "", "azp": "mobile"}`), named("jwt", `azp "mobile" of "i"`)},
		{jwt(`{"iss": "i", "aud": "allo", "scope": "a", "jti": "1"}`), named("unnamed", "")},
		{jwt(`{}`), named("unnamed", "")},
		{jwt(`null`), named("unnamed", "")},
		{`{"jwt":{}}`, named("unnamed", "")},

		{iam(user + "ann"), named("iam", user+"ann")},
		{iam(user + "a/long/path/ann"), named("iam", user+"a/long/path/ann")},
		{iam(user + "assumed-role/ann/x"), named("iam", user+"assumed-role/ann/x")},
		{iam("arn:aws:iam::123456789012:root"), named("iam", "arn:aws:iam::123456789012:root")},
		{iam(sts + "federated-user/ann"), named("iam", sts+"federated-user/ann")},
		{iam(sts + "assumed-role/payments/task-1"), named("iam", sts+"assumed-role/payments")},
		{iam(sts + "assumed-role/payments/task-2"), named("iam", sts+"assumed-role/payments")},
		{iam(sts + "assumed-role/payments/payments"), named("iam", sts+"assumed-role/payments")},
		{iam(sts + "assumed-role/refunds/task-1"), named("iam", sts+"assumed-role/refunds")},
		{iam(sts + "assumed-role/payments"), named("iam", sts+"assumed-role/payments")},
		{iam("arn:aws-cn:sts::1:assumed-role/r/s@x.cn"), named("iam", "arn:aws-cn:sts::1:assumed-role/r")},
		{iam("not an ARN/a/b"), named("iam", "not an ARN/a/b")},
		{iam(""), named("unnamed", "")},
		{`{"iam": {}}`, named("unnamed", "")},
		{cognito("eu-west-1:ann"), named("iam", "cognito:eu-west-1:ann")},
		{cognito("eu-west-1:bob"), named("iam", "cognito:eu-west-1:bob")},

		{`{"lambda": {"sub": "7", "principalId": "7"}}`, named("unnamed", "")},
		{`{"lambda": null}`, named("unnamed", "")},
		{`{}`, named("unnamed", "")},
	} {
		got := principalFor(t, test.authorizer)
		if got = named(got.Kind, got.ID); got != test.want {
			t.Errorf("the principal of %s is %+v, want %+v", test.authorizer, got, test.want)
		}
	}
}

// The gateway passes the token's scopes on as a list or in a claim. Nothing else makes one.
func TestTheSubjectAndTheScopeAreTheTokens(t *testing.T) {
	t.Parallel()

	const scope = "reservations:act-for-any"
	token := func(claims, scopes string) string {
		return `{"jwt": {"claims": ` + claims + `, "scopes": ` + scopes + `}}`
	}
	for _, test := range []struct {
		authorizer, subject string
		actsForAny          bool
	}{
		{token(`{"sub": "7"}`, `null`), "7", false},
		{token(`{"sub": "7"}`, `["`+scope+`"]`), "7", true},
		{token(`{"sub": "7"}`, `["reservations:write", "`+scope+`"]`), "7", true},
		{token(`{"sub": "7", "scope": "`+scope+`"}`, `null`), "7", true},
		{token(`{"sub": "7", "scope": "a `+scope+` b"}`, `["a"]`), "7", true},
		{token(`{"sub": "7", "scp": "[`+scope+`]"}`, `null`), "7", true},
		{token(`{"sub": "7", "scp": "[a `+scope+`]"}`, `null`), "7", true},
		{token(`{"sub": "7", "scp": "`+scope+`"}`, `[]`), "7", true},
		{token(`{"client_id": "shop", "scope": "`+scope+`"}`, `null`), "", true},
		{token(`{"iss": "i", "scope": "`+scope+`"}`, `null`), "", true},
		{token(`{"sub": "7", "scope": "`+scope+`ody"}`, `["x`+scope+`"]`), "7", false},
		{token(`{"sub": "`+scope+`", "scopes": "`+scope+`", "aud": "`+scope+`"}`, `null`), scope, false},
		{token(`{"sub": "7", "scope": "Reservations:Act-For-Any"}`, `null`), "7", false},
		{iam("arn:aws:iam::123456789012:user/" + scope), "", false},
		{`{"lambda": {"sub": "7", "scope": "` + scope + `", "scopes": ["` + scope + `"]}}`, "", false},
		{"null", "", false},
	} {
		got := principalFor(t, test.authorizer)
		if got.Subject != test.subject || got.ActsForAny != test.actsForAny {
			t.Errorf("%s is %+v, want the subject %q and acts for any: %t", test.authorizer, got,
				test.subject, test.actsForAny)
		}
	}
}

// Each two of these are different callers.
func TestDifferentCallersAreDifferentPrincipals(t *testing.T) {
	t.Parallel()

	const arn = "arn:aws:sts::123456789012:assumed-role/payments"
	seen := map[principal.Principal]string{}
	for _, authorizer := range []string{
		"null",
		jwt(`{"iss": "a", "sub": "x"}`), jwt(`{"iss": "b", "sub": "x"}`), jwt(`{"iss": "a", "sub": "y"}`),
		jwt(`{"iss": "a", "client_id": "x"}`), jwt(`{"iss": "a", "azp": "x"}`),
		jwt(`{"iss": "a", "client_id": "y"}`), jwt(`{"iss": "a", "azp": "y"}`),
		jwt(`{"iss": "a\" of \"b", "sub": "x"}`), jwt(`{"iss": "b", "sub": "x\" of \"a"}`),
		jwt(`{"iss": "a", "sub": "` + arn + `"}`),
		iam(arn + "/task-1"), iam("arn:aws:sts::123456789013:assumed-role/payments/task-1"),
		iam("arn:aws:iam::123456789012:user/payments"), iam("cognito-eu-west-1:ann"),
		cognito("eu-west-1:ann"), cognito("eu-west-1:bob"),
	} {
		got := principalFor(t, authorizer)
		got.Subject = "" // the key's namespace is made of the others
		if other, twice := seen[got]; twice {
			t.Errorf("%s and %s are both %+v", authorizer, other, got)
		}
		seen[got] = authorizer
	}
}
