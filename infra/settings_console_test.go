package main

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
)

// auth0 has the settings of a shop with an issuer of its own.
func auth0(changes ...string) map[string]any {
	settings := map[string]any{
		"auth": "jwt", "jwtIssuer": "https://shop.eu.auth0.com/",
		"jwtAudience": "https://shop.example/api", "oidcClientId": "aB3dEf",
	}
	for n := 0; n < len(changes); n += 2 {
		settings[changes[n]] = changes[n+1]
	}
	return settings
}

func TestTheConsolesClientIsRead(t *testing.T) {
	t.Parallel()

	s, err := ReadSettings(auth0())
	want := Console{
		ClientID: "aB3dEf", Scopes: "openid,profile,catalog:write,events:read,events:write," +
			"inventory:read,inventory:write,reservations:confirm,reservations:support",
	}
	if err != nil || s.Console != want {
		t.Errorf("the console is %+v, %v, want %+v", s.Console, err, want)
	}
	if s, err = ReadSettings(auth0("oidcClientId", "")); err != nil || s.Console != (Console{}) {
		t.Errorf("without a client the console is %+v, %v", s.Console, err)
	}
	s, err = ReadSettings(auth0("oidcTokenOrigin", "https://token.example", "oidcScopes", "openid"))
	want = Console{ClientID: "aB3dEf", TokenOrigin: "https://token.example", Scopes: "openid"}
	if err != nil || s.Console != want {
		t.Errorf("the console is %+v, %v, want %+v", s.Console, err, want)
	}
}

func TestAnInvalidClientOfTheConsoleIsRefused(t *testing.T) {
	t.Parallel()

	const onlyJWT = "oidcClientId is for auth=jwt"
	for name, test := range map[string]struct {
		context map[string]any
		want    string
	}{
		"none":    {map[string]any{"oidcClientId": "c"}, onlyJWT},
		"iam":     {map[string]any{"auth": "iam", "oidcClientId": "c"}, onlyJWT},
		"cognito": {map[string]any{"auth": "cognito", "oidcClientId": "c"}, onlyJWT},
		"scopes without a client": {
			auth0("oidcClientId", "", "oidcScopes", "openid"), "oidcScopes is for oidcClientId",
		},
		"a token origin without a client": {
			auth0("oidcClientId", "", "oidcTokenOrigin", "https://token.example"),
			"oidcTokenOrigin is for oidcClientId",
		},
		"a client with a space": {auth0("oidcClientId", "a b"), "OIDC_CLIENT_ID"},
		"a path":                {auth0("oidcTokenOrigin", "https://a.example/t"), "OIDC_TOKEN_ORIGIN"},
		"scopes with spaces":    {auth0("oidcScopes", "openid inventory:read"), "OIDC_SCOPES"},
		"scopes without openid": {auth0("oidcScopes", "inventory:read"), "OIDC_SCOPES"},
	} {
		_, err := ReadSettings(test.context)
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: ReadSettings = %v, want %q in the error", name, err, test.want)
		}
	}
}

// A view whose scope the console doesn't ask for would be missing at an issuer such as Auth0. A
// scope that it asks for without need could be used by whoever steals a token.
func TestTheConsoleAsksForTheScopesOfItsScripts(t *testing.T) {
	t.Parallel()

	scripts, err := filepath.Glob("../internal/webui/static/assets/*.js")
	if err != nil || len(scripts) == 0 {
		t.Fatalf("there are no scripts: %v", err)
	}
	scope := regexp.MustCompile(`"((?:reservations|inventory|catalog|events):[a-z-]+)"`)
	found := map[string]bool{"openid": true, "profile": true} // who signs in, and the name
	for _, name := range scripts {
		script, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, match := range scope.FindAllStringSubmatch(string(script), -1) {
			found[match[1]] = true
		}
	}
	got := slices.Sorted(slices.Values(consoleScopes()))
	if diff := gocmp.Diff(slices.Sorted(maps.Keys(found)), got); diff != "" {
		t.Errorf("the scopes of the scripts, and those that are asked for (-want +got):\n%s", diff)
	}
}

// Without oidcClientId the pages are told of no issuer: wantPagesVariables sees to that.
func TestTheConsoleSignsInAtTheShopsOwnIssuer(t *testing.T) {
	const mode = "aurora-prod"
	settings := maps.Clone(modes[mode])
	settings["oidcClientId"], settings["oidcTokenOrigin"] = "console", "https://token.example"
	tpl := synthesizeWith(t, settings)
	for _, problem := range tpl.consoleProblems(t, mode) {
		t.Error(problem)
	}
	if err := tpl.checkVariables(t, mode); err != nil {
		t.Error(err)
	}
	// These are the controls.
	for name, change := range map[string]struct{ old, replacement string }{
		"another issuer": {
			`"OIDC_ISSUER":"https://issuer.example.com"`, `"OIDC_ISSUER":"https://issuer.example.com/"`,
		},
		"no audience":     {`"OIDC_AUDIENCE":`, `"AUDIENCE":`},
		"another client":  {`"OIDC_CLIENT_ID":"console"`, `"OIDC_CLIENT_ID":"shop"`},
		"a scope less":    {`,inventory:read,`, `,`},
		"no token origin": {`"OIDC_TOKEN_ORIGIN":`, `"TOKEN_ORIGIN":`},
		"no permission":   {`"GUARDED":"on"`, `"GUARDED":"off"`},
	} {
		broken := changed(t, tpl, change.old, change.replacement)
		if len(broken.consoleProblems(t, mode)) == 0 {
			t.Errorf("%s: the test accepts %s", name, change.replacement)
		}
	}
}

// consoleProblems says what is wrong with what the pages are told of the shop's own issuer. It must
// be the issuer that the gateway trusts, and the token must be for the gateway's audience.
func (tpl template) consoleProblems(t *testing.T, mode string) (found []string) {
	t.Helper()
	trusted := tpl.only(t, "AWS::ApiGatewayV2::Authorizer").get("JwtConfiguration")
	want := map[string]any{
		"GUARDED": "on", "OIDC_ISSUER": dig(trusted, "Issuer"), "OIDC_CLIENT_ID": "console",
		"OIDC_TOKEN_ORIGIN": "https://token.example",
		"OIDC_AUDIENCE":     asList(dig(trusted, "Audience"))[0],
		"OIDC_SCOPES":       strings.Join(consoleScopes(), ","),
	}
	for name, f := range tpl.functions(mode) {
		for variable, value := range want {
			got := f.get("Environment", "Variables", variable)
			if name != "web" {
				value = nil
			}
			if got != value {
				found = append(found, fmt.Sprintf("%s of %s is %v, want %v", variable, name, got, value))
			}
		}
	}
	return found
}
