package grant_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/allo/reservations/internal/app/grant"
	"github.com/allo/reservations/internal/route"
)

// The table is written out here a second time, so that a scope that slips into a group is found.
func TestEachGroupHasItsScopes(t *testing.T) {
	t.Parallel()

	want := map[string][]string{
		"viewer": {"events:read", "inventory:read"},
		"stock":  {"catalog:write", "events:read", "inventory:read", "inventory:write"},
		"support": {
			"events:read", "inventory:read", "reservations:support",
		},
		"admin": grant.All(),
	}
	got := map[string][]string{}
	for _, group := range grant.Groups() {
		got[group] = grant.Scopes(group)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the groups' scopes (-want +got):\n%s", diff)
	}
	for _, stranger := range []string{"", "Admin", "admins", "viewer "} {
		if scopes := grant.Scopes(stranger); len(scopes) != 0 {
			t.Errorf("the group %q, which doesn't exist, has %v", stranger, scopes)
		}
	}
	for name, groups := range map[string][]string{
		"none": nil, "unknown": {"x"}, "two": {"support", "stock"}, "twice": {"viewer", "viewer"},
	} {
		var want []string
		for _, group := range groups {
			want = append(want, grant.Scopes(group)...)
		}
		slices.Sort(want)
		if diff := cmp.Diff(slices.Compact(want), grant.Of(groups)); diff != "" {
			t.Errorf("a user in %s (-want +got):\n%s", name, diff)
		}
	}
}

func TestAllHasEveryScopeOfTheRoutes(t *testing.T) {
	t.Parallel()

	all := grant.All()
	for _, r := range route.API() {
		for _, scope := range []string{r.Scope, r.OptionalScope} {
			if scope != "" && !slices.Contains(all, scope) {
				t.Errorf("%s wants %s, which isn't among %v", r.Key(), scope, all)
			}
		}
	}
	for _, scope := range all {
		// Cognito writes a resource's scope behind a slash.
		if strings.ContainsAny(scope, "/ ") {
			t.Errorf("a resource server can't have the scope %q", scope)
		}
	}
	if !slices.Contains(all, "reservations:act-for-any") || !slices.IsSorted(all) {
		t.Errorf("the scopes are %v, want the one to act for any owner among them, sorted", all)
	}
}

// userEvent is the event of Cognito's documentation, shortened.
const userEvent = `{
	"version": "3", "triggerSource": "TokenGeneration_HostedAuth", "region": "us-east-1",
	"userPoolId": "us-east-1_EXAMPLE", "userName": "ann",
	"callerContext": {"awsSdkVersion": "aws-sdk-unknown-unknown", "clientId": "1example"},
	"request": {
		"userAttributes": {"sub": "a", "email": "ann@example.com"},
		"groupConfiguration": {
			"groupsToOverride": ["stock", "others"], "iamRolesToOverride": [], "preferredRole": null
		},
		"scopes": ["openid", "allo/reservations:confirm"]
	},
	"response": {"claimsAndScopeOverrideDetails": null}
}`

func TestTheTriggerAddsTheScopesOfAUsersGroups(t *testing.T) {
	t.Parallel()

	for name, c := range map[string]struct {
		old, replacement string
		want             []string
	}{
		"a user": {"", "", grant.Scopes("stock")},
		"a user in two groups": {
			`"others"`, `"support"`, grant.Of([]string{"stock", "support"}),
		},
		"a user in no group":      {`["stock", "others"]`, `[]`, []string{}},
		"a user without groups":   {`["stock", "others"]`, `null`, []string{}},
		"a renewal of the token":  {"HostedAuth", "RefreshTokens", grant.Scopes("stock")},
		"a trigger of the future": {"HostedAuth", "Else", grant.Scopes("stock")},
		"a machine": {
			"HostedAuth", "ClientCredentials", []string{"reservations:confirm"},
		},
	} {
		event := strings.Replace(userEvent, c.old, c.replacement, 1)
		answer, err := grant.Answer(json.RawMessage(event))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if diff := cmp.Diff(c.want, added(t, answer)); diff != "" {
			t.Errorf("%s: the scopes (-want +got):\n%s", name, diff)
		}
	}
}

// added returns the scopes that an answer adds.
func added(t *testing.T, answer json.RawMessage) []string {
	t.Helper()
	var got struct {
		Response struct {
			ClaimsAndScopeOverrideDetails struct {
				AccessTokenGeneration struct{ ScopesToAdd []string }
			}
		}
	}
	if err := json.Unmarshal(answer, &got); err != nil {
		t.Fatal(err)
	}
	return got.Response.ClaimsAndScopeOverrideDetails.AccessTokenGeneration.ScopesToAdd
}

// A machine's client gets what the pool allows it, and nothing that only looks like a scope.
func TestTheTriggerAddsOnlyTheScopesThatAMachineHas(t *testing.T) {
	t.Parallel()

	event := strings.NewReplacer(
		"HostedAuth", "ClientCredentials",
		`"openid", "allo/reservations:confirm"`,
		`"allo/inventory:read", "other/catalog:write", "allo/everything", "inventory:write", "allo"`,
	).Replace(userEvent)
	answer, err := grant.Answer(json.RawMessage(event))
	if err != nil {
		t.Fatal(err)
	}
	if got := added(t, answer); !slices.Equal(got, []string{"inventory:read"}) {
		t.Errorf("a machine with inventory:read gets %v", got)
	}
}

// Cognito wants its own event back, with the response in it. Everything else of the token stays.
func TestTheAnswerIsTheEventWithTheScopes(t *testing.T) {
	t.Parallel()

	answer, err := grant.Answer(json.RawMessage(userEvent))
	if err != nil {
		t.Fatal(err)
	}
	var want, got map[string]any
	for text, into := range map[string]*map[string]any{userEvent: &want, string(answer): &got} {
		if err := json.Unmarshal([]byte(text), into); err != nil {
			t.Fatal(err)
		}
	}
	want["response"] = map[string]any{
		"claimsAndScopeOverrideDetails": map[string]any{
			"accessTokenGeneration": map[string]any{
				"scopesToAdd": []any{"catalog:write", "events:read", "inventory:read", "inventory:write"},
			},
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the answer (-want +got):\n%s", diff)
	}
	for _, bad := range []string{"", "null", "{} 1", "[]", `{"request": {"scopes": 1}}`} {
		if answer, err := grant.Answer(json.RawMessage(bad)); err == nil {
			t.Errorf("Answer(%s) = %s, want an error", bad, answer)
		}
	}
}
