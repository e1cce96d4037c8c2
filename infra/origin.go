package main

import (
	"fmt"
	"slices"

	"github.com/aws/aws-cdk-go/awscdk/v2"
	"github.com/aws/aws-cdk-go/awscdk/v2/awssecretsmanager"
	"github.com/aws/constructs-go/constructs/v10"
	"github.com/aws/jsii-runtime-go"

	"github.com/allo/reservations/internal/route"
)

// originHeader is the header in which the CDN shows its secret: internal/lambdahttp's OriginHeader.
//
// AWS has no better way for this kind of API without a domain of its own: an HTTP API can't be
// private, and AWS WAF can't guard it (AWS's networking blog, "Restricting access on HTTP API
// Gateway Endpoint with Lambda Authorizer"). Mutual TLS from CloudFront needs a custom domain. A
// Lambda authorizer would take the place of the route's own, and cost an invocation.
const originHeader = "X-Origin-Verify"

// originSecretLength is in characters. It is what package config takes, and more than can be
// guessed.
const originSecretLength = 64

// newOriginSecrets creates the secrets of the settings' numbers, in their order. CloudFormation
// reads them when it changes the CDN and the functions, so their texts are in no template. They
// have no name: a deleted secret's name can't be used again for a month.
func newOriginSecrets(scope constructs.Construct, s Settings) (secrets []awssecretsmanager.Secret) {
	for _, n := range s.CDNSecrets {
		secret := awssecretsmanager.NewSecret(scope, jsii.String(fmt.Sprintf("Secret%d", n)),
			&awssecretsmanager.SecretProps{
				Description: jsii.String(fmt.Sprintf(
					"What the CDN of %s shows to the functions, number %d", s.StackName(), n)),
				GenerateSecretString: &awssecretsmanager.SecretStringGenerator{
					ExcludePunctuation: jsii.Bool(true),
					PasswordLength:     jsii.Number(originSecretLength),
				},
				RemovalPolicy: awscdk.RemovalPolicy_DESTROY,
			})
		suppressRotation(secret)
		secrets = append(secrets, secret)
	}
	return secrets
}

// closeAPI makes the functions of open routes refuse who goes around the CDN, with cdnOnly=on. A
// template may have sixty references to secrets, so the functions of guarded routes alone get none:
// the gateway knows their callers.
func (c *cdn) closeAPI(s Settings, functions []function) {
	if c == nil || !s.CDNOnly {
		return
	}
	var texts []*string
	for _, secret := range c.secrets {
		texts = append(texts, secret.SecretValue().UnsafeUnwrap())
	}
	setVariables(functions, openFunctions(s), map[string]*string{
		"ORIGIN_SECRETS": awscdk.Fn_Join(jsii.String(","), &texts),
	})
}

// openFunctions returns the names of the functions that have a route without an authorizer.
func openFunctions(s Settings) (names []string) {
	for _, r := range route.All() {
		isOpen := s.Auth == AuthNone || r.Guarded(s.ReserveAuth).Scope == ""
		if isOpen && !slices.Contains(names, r.Function) {
			names = append(names, r.Function)
		}
	}
	return names
}
