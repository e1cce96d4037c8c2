package main

import (
	"strings"

	"github.com/aws/aws-cdk-go/awscdk/v2"
	"github.com/aws/aws-cdk-go/awscdk/v2/awscognito"
	"github.com/aws/constructs-go/constructs/v10"
	"github.com/aws/jsii-runtime-go"

	"github.com/allo/reservations/internal/app/grant"
	"github.com/allo/reservations/internal/route"
)

// How long a sign-in lasts.
const (
	// tokenMinutes is how long a token lasts, so how long a user whose group was taken away may go on.
	tokenMinutes = 15
	// machineMinutes is how long a token of the payment side lasts. Each token has a price.
	machineMinutes = 60
	// refreshHours is how long the console may renew its token without its user: a long shift.
	refreshHours = 12
	// rotationSeconds is how long a renewal may be repeated, if its answer was lost.
	rotationSeconds = 30
	// invitationDays is how long the password of an invitation works.
	invitationDays = 3
	// passwordLength is the least length of a password.
	passwordLength = 12
)

// signIn is a user pool for the people who run the shop and for the payment side, with
// auth=cognito. The pool's groups decide what a user may do: grant-scopes adds their scopes to each
// token.
type signIn struct {
	pool   awscognito.UserPool
	domain awscognito.UserPoolDomain
	// trigger adds the scopes.
	trigger function
	// console is the client of the pages. It has no secret, as a page can't keep one.
	console awscognito.UserPoolClient
	// payments is the client of the payment side, which has a secret and no user.
	payments awscognito.UserPoolClient
}

// newSignIn returns nil without auth=cognito. The pages are the URLs at which the console is.
func newSignIn(
	scope constructs.Construct, s Settings, assets string, o *office, pages []*string,
) *signIn {
	if s.Auth != AuthCognito {
		return nil
	}
	scope = constructs.NewConstruct(scope, jsii.String("SignIn"))
	in := &signIn{trigger: newFunction(scope, s, assets, functionProps{
		name:        "grant-scopes",
		description: "Adds the scopes of a user's groups to each token of the user pool",
		timeout:     poolTimeout,
		office:      o,
		rights:      noRights,
	})}
	in.pool = newUserPool(scope, s, pages[len(pages)-1])
	// Version 3 is asked for the tokens of clients without a user too.
	in.pool.AddTrigger(awscognito.UserPoolOperation_PRE_TOKEN_GENERATION_CONFIG(), in.trigger.alias,
		awscognito.LambdaVersion_V3_0)
	in.domain = in.pool.AddDomain(jsii.String("Domain"), &awscognito.UserPoolDomainOptions{
		CognitoDomain: &awscognito.CognitoDomainOptions{
			DomainPrefix: domainPrefix(scope, s),
		},
		ManagedLoginVersion: awscognito.ManagedLoginVersion_NEWER_MANAGED_LOGIN,
	})
	for i, name := range grant.Groups() {
		in.pool.AddGroup(jsii.String(name), &awscognito.UserPoolGroupOptions{
			GroupName:   jsii.String(name),
			Description: jsii.String("Has " + strings.Join(grant.Scopes(name), " ")),
			Precedence:  jsii.Number(len(grant.Groups()) - 1 - i), // the lowest is the first
		})
	}
	in.console = newConsoleClient(in.pool, pages)
	in.payments = newPaymentsClient(in.pool)
	awscognito.NewCfnManagedLoginBranding(scope, jsii.String("Branding"),
		&awscognito.CfnManagedLoginBrandingProps{
			UserPoolId: in.pool.UserPoolId(),
			ClientId:   in.console.UserPoolClientId(),
			// Without a style, managed login shows an error in the place of its pages.
			UseCognitoProvidedValues: jsii.Bool(true),
		})
	return in
}

// newUserPool creates the pool. Its invitations lead to the console of a page.
func newUserPool(scope constructs.Construct, s Settings, page *string) awscognito.UserPool {
	removal, mfa := awscdk.RemovalPolicy_DESTROY, awscognito.Mfa_OPTIONAL
	if s.Stage.Protected {
		removal = awscdk.RemovalPolicy_RETAIN_ON_UPDATE_OR_DELETE
	}
	if s.MFA == MFARequired {
		mfa = awscognito.Mfa_REQUIRED
	}
	pool := awscognito.NewUserPool(scope, jsii.String("Pool"), &awscognito.UserPoolProps{
		UserPoolName: jsii.String(s.StackName()),
		// The plan whose triggers can change an access token.
		FeaturePlan: awscognito.FeaturePlan_ESSENTIALS,
		// An operator invites each user.
		SelfSignUpEnabled: jsii.Bool(false),
		UserInvitation: &awscognito.UserInvitationConfig{
			EmailSubject: jsii.String("Your account for the stock console"),
			EmailBody: awscdk.Fn_Join(jsii.String(""), &[]*string{
				jsii.String("<p>Sign in at "), under(page, "/ops"), jsii.String(" as {username}. Your " +
					"password for the first time is {####}. It works for three days.</p>"),
			}),
		},
		SignInAliases:       &awscognito.SignInAliases{Email: jsii.Bool(true)},
		SignInCaseSensitive: jsii.Bool(false),
		AccountRecovery:     awscognito.AccountRecovery_EMAIL_ONLY,
		Mfa:                 mfa,
		MfaSecondFactor: &awscognito.MfaSecondFactor{
			Otp: jsii.Bool(true), Sms: jsii.Bool(false),
		},
		PasswordPolicy: &awscognito.PasswordPolicy{
			MinLength:            jsii.Number(passwordLength),
			RequireLowercase:     jsii.Bool(true),
			RequireUppercase:     jsii.Bool(true),
			RequireDigits:        jsii.Bool(true),
			RequireSymbols:       jsii.Bool(true),
			TempPasswordValidity: awscdk.Duration_Days(jsii.Number(invitationDays)),
		},
		DeletionProtection: jsii.Bool(s.Stage.Protected),
		RemovalPolicy:      removal,
	})
	suppressThreatProtection(pool)
	if s.MFA == MFAOptional {
		suppressOptionalMFA(pool)
	}
	return pool
}

// domainPrefix returns the first label of the sign-in's domain. It must be unique among all
// accounts of a region, so it ends with eight digits of the stack's own id.
func domainPrefix(scope constructs.Construct, s Settings) *string {
	id := awscdk.Fn_Select(jsii.Number(2), awscdk.Fn_Split(jsii.String("/"),
		awscdk.Stack_Of(scope).StackId(), nil))
	digits := awscdk.Fn_Select(jsii.Number(0), awscdk.Fn_Split(jsii.String("-"), id, nil))
	return awscdk.Fn_Join(jsii.String("-"), &[]*string{jsii.String(s.StackName()), digits})
}

// newConsoleClient creates the console's client: authorization code with PKCE, and no secret. It
// may ask for no scope of the API: these come with the user's groups.
func newConsoleClient(pool awscognito.UserPool, pages []*string) awscognito.UserPoolClient {
	var callbacks, logouts []*string
	for _, page := range pages {
		callbacks = append(callbacks, under(page, "/ops/signed-in"))
		logouts = append(logouts, under(page, "/ops"))
	}
	return pool.AddClient(jsii.String("Console"), &awscognito.UserPoolClientOptions{
		UserPoolClientName: jsii.String("console"),
		GenerateSecret:     jsii.Bool(false),
		// Not the default, which would let a refresh token be used for ever beside its successor.
		AuthFlows: &awscognito.AuthFlow{UserSrp: jsii.Bool(true)},
		OAuth: &awscognito.OAuthSettings{
			Flows: &awscognito.OAuthFlows{AuthorizationCodeGrant: jsii.Bool(true)},
			Scopes: &[]awscognito.OAuthScope{
				awscognito.OAuthScope_OPENID(), awscognito.OAuthScope_EMAIL(),
			},
			CallbackUrls: &callbacks,
			LogoutUrls:   &logouts,
		},
		PreventUserExistenceErrors:      jsii.Bool(true),
		EnableTokenRevocation:           jsii.Bool(true),
		AccessTokenValidity:             awscdk.Duration_Minutes(jsii.Number(tokenMinutes)),
		IdTokenValidity:                 awscdk.Duration_Minutes(jsii.Number(tokenMinutes)),
		RefreshTokenValidity:            awscdk.Duration_Hours(jsii.Number(refreshHours)),
		RefreshTokenRotationGracePeriod: awscdk.Duration_Seconds(jsii.Number(rotationSeconds)),
	})
}

// newPaymentsClient creates the payment side's client, and the resource server with every scope of
// the API. Cognito keeps the client's secret.
func newPaymentsClient(pool awscognito.UserPool) awscognito.UserPoolClient {
	scopes := map[string]awscognito.ResourceServerScope{}
	var all []awscognito.ResourceServerScope
	for _, name := range grant.All() {
		scopes[name] = awscognito.NewResourceServerScope(&awscognito.ResourceServerScopeProps{
			ScopeName: jsii.String(name), ScopeDescription: jsii.String("The API's scope " + name),
		})
		all = append(all, scopes[name])
	}
	server := pool.AddResourceServer(jsii.String("Api"),
		&awscognito.UserPoolResourceServerOptions{
			Identifier:                 jsii.String(grant.Resource),
			UserPoolResourceServerName: jsii.String("The reservation API"),
			Scopes:                     &all,
		})
	return pool.AddClient(jsii.String("Payments"), &awscognito.UserPoolClientOptions{
		UserPoolClientName: jsii.String("payments"),
		GenerateSecret:     jsii.Bool(true),
		OAuth: &awscognito.OAuthSettings{
			Flows: &awscognito.OAuthFlows{ClientCredentials: jsii.Bool(true)},
			Scopes: &[]awscognito.OAuthScope{
				awscognito.OAuthScope_ResourceServer(server, scopes[route.ScopeConfirm]),
			},
		},
		EnableTokenRevocation: jsii.Bool(true),
		AccessTokenValidity:   awscdk.Duration_Minutes(jsii.Number(machineMinutes)),
	})
}

// under returns the URL of a path of a site.
func under(site *string, path string) *string {
	return awscdk.Fn_Join(jsii.String(""), &[]*string{site, jsii.String(path)})
}

// functions returns the sign-in's own functions.
func (in *signIn) functions() []function {
	if in == nil {
		return nil
	}
	return []function{in.trigger}
}

// clients returns the ids of the clients whose tokens the API takes.
func (in *signIn) clients() []*string {
	return []*string{in.console.UserPoolClientId(), in.payments.UserPoolClientId()}
}

// describePages tells the function web what its pages must know.
func (in *signIn) describePages(s Settings, routed []function) {
	variables := map[string]*string{"DEMO": jsii.String("off"), "GUARDED": jsii.String("on")}
	if s.Auth == AuthNone {
		variables["GUARDED"] = jsii.String("off")
	}
	if in != nil {
		variables["OIDC_ISSUER"] = in.pool.UserPoolProviderUrl()
		variables["OIDC_CLIENT_ID"] = in.console.UserPoolClientId()
		variables["OIDC_TOKEN_ORIGIN"] = in.domain.BaseUrl(nil)
	}
	if s.Console.ClientID != "" {
		for key, value := range s.consoleVariables() {
			if value != "" {
				variables[key] = jsii.String(value)
			}
		}
	}
	setVariables(routed, []string{"web"}, variables)
}

// describe declares the outputs of the sign-in.
func (in *signIn) describe(output func(id, description string, value *string)) {
	if in == nil {
		return
	}
	output("SignInUrl", "Where users sign in; a token is at its path /oauth2/token",
		in.domain.BaseUrl(nil))
	output("UserPoolId", "The user pool; invite users to it and put them into groups",
		in.pool.UserPoolId())
	output("ConsoleClientId", "The console's client", in.console.UserPoolClientId())
	output("PaymentsClientId", "The payment side's client; Cognito has its secret",
		in.payments.UserPoolClientId())
}
