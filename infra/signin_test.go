package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/allo/reservations/internal/app/grant"
)

func TestTheUserPoolLetsInvitedUsersIn(t *testing.T) {
	const mode = "aurora-console"
	for _, problem := range synth(t, mode).signInProblems(t, mode) {
		t.Error(problem)
	}
}

// These are the controls of the test above.
func TestAFaultOfTheUserPoolIsFound(t *testing.T) {
	const mode = "aurora-console"
	for name, change := range map[string]struct{ old, replacement string }{
		"anybody signs up": {
			`"AllowAdminCreateUserOnly":true`,
			`"AllowAdminCreateUserOnly":false`,
		},
		"the plan without scopes": {`"UserPoolTier":"ESSENTIALS"`, `"UserPoolTier":"LITE"`},
		"short passwords":         {`"MinimumLength":12`, `"MinimumLength":6`},
		"codes by text message":   {`"SOFTWARE_TOKEN_MFA"`, `"SMS_MFA"`},
		"no scopes for machines":  {`"LambdaVersion":"V3_0"`, `"LambdaVersion":"V2_0"`},
		"the first hosted pages":  {`"ManagedLoginVersion":2`, `"ManagedLoginVersion":1`},
		"pages without a style": {
			`"UseCognitoProvidedValues":true`,
			`"UseCognitoProvidedValues":false`,
		},
		"a group less":         {`"GroupName":"support"`, `"GroupName":"supporters"`},
		"a scope less":         {`"ScopeName":"events:read"`, `"ScopeName":"events"`},
		"a secret in the page": {`"GenerateSecret":false`, `"GenerateSecret":true`},
		"tokens in the address": {
			`"AllowedOAuthFlows":["code"]`,
			`"AllowedOAuthFlows":["implicit"]`,
		},
		"the console picks scopes": {
			`"AllowedOAuthScopes":["openid","email"]`,
			`"AllowedOAuthScopes":["allo/x"]`,
		},
		"a stranger's address": {`"/ops/signed-in"`, `"/elsewhere"`},
		"tokens for a day":     {`"AccessTokenValidity":15`, `"AccessTokenValidity":1440`},
		"no rotation":          {`"Feature":"ENABLED"`, `"Feature":"DISABLED"`},
		"old tokens":           {`["ALLOW_USER_SRP_AUTH"]`, `["ALLOW_REFRESH_TOKEN_AUTH"]`},
		"payments do more":     {`/reservations:confirm"]]`, `/catalog:write"]]`},
		"another's tokens": {
			`"Audience":[{"Ref":"SignInPoolConsole`,
			`"Audience":[{"Ref":"Other`,
		},
		"another issuer": {
			`"Issuer":{"Fn::GetAtt":["SignInPool`,
			`"Issuer":{"Fn::GetAtt":["Other`,
		},
		"the pool may not ask": {`"Principal":"cognito-idp.amazonaws.com"`, `"Principal":"x"`},
	} {
		t.Run(name, func(t *testing.T) {
			tpl := changed(t, synth(t, mode), change.old, change.replacement)
			if len(tpl.signInProblems(t, mode)) == 0 {
				t.Errorf("the test accepts %s", change.replacement)
			}
		})
	}
}

// signInProblems says what is wrong with the user pool of a mode.
func (tpl template) signInProblems(t *testing.T, mode string) (found []string) {
	t.Helper()
	pool, trigger := tpl.only(t, "AWS::Cognito::UserPool"), tpl.functions(mode)["grant-scopes"]
	wrong := func(format string, args ...any) { found = append(found, fmt.Sprintf(format, args...)) }
	want := map[string]any{
		"UserPoolTier":          "ESSENTIALS",
		"MfaConfiguration":      "OPTIONAL",
		"EnabledMfas":           []any{"SOFTWARE_TOKEN_MFA"},
		"UsernameAttributes":    []any{"email"},
		"UsernameConfiguration": map[string]any{"CaseSensitive": false},
		"DeletionProtection":    "INACTIVE",
		"Policies": map[string]any{"PasswordPolicy": map[string]any{
			"MinimumLength": 12.0, "RequireLowercase": true, "RequireUppercase": true,
			"RequireNumbers": true, "RequireSymbols": true, "TemporaryPasswordValidityDays": 3.0,
		}},
	}
	for key, value := range want {
		if diff := gocmp.Diff(value, pool.get(key)); diff != "" {
			wrong("the pool's %s (-want +got):\n%s", key, diff)
		}
	}
	invitation := asJSON(pool.get("AdminCreateUserConfig"))
	for _, part := range []string{
		`"AllowAdminCreateUserOnly":true`, "CdnDistribution", "/ops as {username}", "{####}",
	} {
		if !strings.Contains(invitation, part) {
			wrong("the pool invites by %s, want %s in it", invitation, part)
		}
	}
	config := asJSON(pool.get("LambdaConfig"))
	if !strings.Contains(config, `"LambdaVersion":"V3_0"`) ||
		!strings.Contains(config, `{"Ref":"SignIngrantscopesAlias`) {
		wrong("the pool asks %s for scopes", config)
	}
	if !tpl.isAskedBy(trigger, "cognito-idp.amazonaws.com", pool.id) {
		wrong("the pool may not ask grant-scopes")
	}
	domain := tpl.only(t, "AWS::Cognito::UserPoolDomain")
	if prefix := asJSON(domain.get("Domain")); domain.get("ManagedLoginVersion") != 2.0 ||
		!strings.Contains(prefix, `"allo-dev-"`) && !strings.Contains(prefix, `["allo-dev",`) ||
		!strings.Contains(prefix, "AWS::StackId") {
		wrong("the sign-in's domain is %s", asJSON(domain.properties))
	}
	found = append(found, tpl.groupProblems()...)
	found = append(found, tpl.clientProblems(t)...)
	return append(found, tpl.authorizerProblems(t)...)
}

// groupProblems says which groups and scopes of the table the pool lacks, or has beyond it.
func (tpl template) groupProblems() (found []string) {
	var groups, scopes []string
	for _, g := range tpl.resources("AWS::Cognito::UserPoolGroup") {
		groups = append(groups, fmt.Sprint(g.get("GroupName")))
	}
	for _, server := range tpl.resources("AWS::Cognito::UserPoolResourceServer") {
		if server.get("Identifier") != grant.Resource {
			found = append(found, fmt.Sprintf("the resource server is %v", server.get("Identifier")))
		}
		for _, scope := range asList(server.get("Scopes")) {
			scopes = append(scopes, fmt.Sprint(dig(scope, "ScopeName")))
		}
	}
	slices.Sort(groups)
	slices.Sort(scopes)
	want := slices.Sorted(slices.Values(grant.Groups()))
	if diff := gocmp.Diff(want, groups) + gocmp.Diff(grant.All(), scopes); diff != "" {
		found = append(found, "the groups and the scopes (-want +got):\n"+diff)
	}
	return found
}

// clientProblems says what is wrong with the clients of the console and of the payment side.
func (tpl template) clientProblems(t *testing.T) (found []string) {
	t.Helper()
	console := tpl.named(t, "AWS::Cognito::UserPoolClient", "ClientName", "console")
	payments := tpl.named(t, "AWS::Cognito::UserPoolClient", "ClientName", "payments")
	rotation := map[string]any{"Feature": "ENABLED", "RetryGracePeriodSeconds": 30.0}
	for _, c := range []struct {
		client resource
		want   map[string]any
	}{
		{console, map[string]any{
			"GenerateSecret": false, "AllowedOAuthFlows": []any{"code"},
			"AllowedOAuthScopes": []any{"openid", "email"}, "RefreshTokenRotation": rotation,
			"ExplicitAuthFlows": []any{"ALLOW_USER_SRP_AUTH"}, "AccessTokenValidity": 15.0,
			"RefreshTokenValidity": 720.0, "PreventUserExistenceErrors": "ENABLED",
		}},
		{payments, map[string]any{
			"GenerateSecret": true, "AllowedOAuthFlows": []any{"client_credentials"},
			"AccessTokenValidity": 60.0, "CallbackURLs": nil,
		}},
	} {
		for key, value := range c.want {
			if diff := gocmp.Diff(value, c.client.get(key)); diff != "" {
				found = append(found, fmt.Sprintf("%s: %s (-want +got):\n%s", c.client.id, key, diff))
			}
		}
	}
	for key, path := range map[string]string{"CallbackURLs": "/ops/signed-in", "LogoutURLs": "/ops"} {
		urls := asList(console.get(key))
		text := asJSON(urls)
		if len(urls) != 2 || strings.Count(text, `,"`+path+`"]]`) != 2 ||
			!strings.Contains(text, "ApiEndpoint") || !strings.Contains(text, "CdnDistribution") {
			found = append(found, fmt.Sprintf("the console's %s are %s", key, text))
		}
	}
	scopes := asJSON(payments.get("AllowedOAuthScopes"))
	if len(asList(payments.get("AllowedOAuthScopes"))) != 1 ||
		!strings.HasSuffix(scopes, `"/reservations:confirm"]]}]`) {
		found = append(found, "the payment side may have "+scopes)
	}
	branding := tpl.only(t, "AWS::Cognito::ManagedLoginBranding")
	if branding.get("ClientId", "Ref") != console.id ||
		branding.get("UseCognitoProvidedValues") != true {
		found = append(found, "the style of the sign-in is "+asJSON(branding.properties))
	}
	return found
}

// authorizerProblems says what is wrong with the tokens that the API takes, and with what the pages
// are told of the pool.
func (tpl template) authorizerProblems(t *testing.T) (found []string) {
	t.Helper()
	pool := tpl.only(t, "AWS::Cognito::UserPool")
	console := tpl.named(t, "AWS::Cognito::UserPoolClient", "ClientName", "console")
	payments := tpl.named(t, "AWS::Cognito::UserPoolClient", "ClientName", "payments")
	issuer := map[string]any{"Fn::GetAtt": []any{pool.id, "ProviderURL"}}
	want := map[string]any{
		"Audience": []any{
			map[string]any{"Ref": console.id}, map[string]any{"Ref": payments.id}, "erp1", "erp2",
		},
		"Issuer": issuer,
	}
	authorizer := tpl.only(t, "AWS::ApiGatewayV2::Authorizer")
	if diff := gocmp.Diff(want, authorizer.get("JwtConfiguration")); diff != "" {
		found = append(found, "the tokens of the API (-want +got):\n"+diff)
	}
	web := tpl.functions("aurora-console")["web"]
	for variable, want := range map[string]string{
		"OIDC_ISSUER": asJSON(issuer), "OIDC_CLIENT_ID": `{"Ref":"` + console.id + `"}`,
		"OIDC_TOKEN_ORIGIN": `,".auth.",{"Ref":"AWS::Region"},".amazoncognito.com"]]}`,
	} {
		if got := asJSON(web.get("Environment", "Variables", variable)); !strings.HasSuffix(got, want) {
			found = append(found, fmt.Sprintf("%s of web is %s, want %s", variable, got, want))
		}
	}
	return found
}

func TestTheOutputsNameTheSignIn(t *testing.T) {
	outputs := synth(t, "aurora-console").body["Outputs"]
	for id, part := range map[string]string{
		"SignInUrl": ".amazoncognito.com", "UserPoolId": "SignInPool",
		"ConsoleClientId": "SignInPoolConsole", "PaymentsClientId": "SignInPoolPayments",
		"Auth": "cognito: confirming a hold needs a token from the stack's user pool",
	} {
		if got := asJSON(dig(outputs, id, "Value")); !strings.Contains(got, part) {
			t.Errorf("the output %s is %s, want %s", id, got, part)
		}
	}
	if strings.Contains(asJSON(outputs), "ClientSecret") {
		t.Error("the outputs have the secret of a client")
	}
	for _, mode := range []string{"aurora-prod", "external-prod", "external-dev"} {
		if found := synth(t, mode).resources("AWS::Cognito::UserPool"); len(found) > 0 {
			t.Errorf("%s has a user pool without auth=cognito", mode)
		}
	}
}

// Prod keeps its users, and asks for a second factor.
func TestProdKeepsItsUserPool(t *testing.T) {
	settings := with(modes["external-prod"], "auth", "cognito")
	pool := draftOf(t, settings).only(t, "AWS::Cognito::UserPool")
	if pool.get("DeletionProtection") != "ACTIVE" || pool.get("MfaConfiguration") != "ON" ||
		pool.attributes["DeletionPolicy"] != "RetainExceptOnCreate" {
		t.Errorf("the pool of prod is %s %v", asJSON(pool.properties), pool.attributes["DeletionPolicy"])
	}
	tpl := synthesizeWith(t, with(settings, "mfa", "optional"))
	if got := tpl.only(t, "AWS::Cognito::UserPool").get("MfaConfiguration"); got != "OPTIONAL" {
		t.Errorf("with mfa=optional the second factor is %v", got)
	}
	for _, warning := range tpl.warnings {
		t.Error(warning)
	}
}
