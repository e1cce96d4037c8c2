package lambdahttp

import (
	"fmt"
	"slices"
	"strings"

	"github.com/aws/aws-lambda-go/events"

	"github.com/allo/reservations/internal/principal"
)

// principalOf returns the caller that the route's authorizer found. The form of an ID must stay the
// same across releases: a retry after a deploy must find the answer that its caller got before.
//
// A route without an authorizer has anonymous callers. An authorizer of another type than JWT and
// IAM names nobody: what its context means is known only to the deployment that added it.
func principalOf(event events.APIGatewayV2HTTPRequest) principal.Principal {
	authorizer := event.RequestContext.Authorizer
	switch {
	case authorizer == nil:
		return principal.Principal{}
	case authorizer.JWT != nil:
		return jwtPrincipal(*authorizer.JWT)
	case authorizer.IAM != nil:
		return iamPrincipal(*authorizer.IAM)
	default:
		return principal.Principal{Kind: principal.Unnamed}
	}
}

// jwtPrincipal names the caller by the token's issuer and its subject. A token without a subject
// stands for the client that it was issued to: client_id (RFC 9068), or else azp (OpenID Connect).
// The claim's name is a part of the ID, because a client may have the same name as a subject.
func jwtPrincipal(
	token events.APIGatewayV2HTTPRequestContextAuthorizerJWTDescription,
) principal.Principal {
	p := principal.Principal{
		Kind: principal.Unnamed, Subject: token.Claims["sub"],
		ActsForAny: slices.Contains(scopesOf(token), principal.ScopeActForAny),
	}
	for _, claim := range []string{"sub", "client_id", "azp"} {
		if value := token.Claims[claim]; value != "" {
			p.Kind, p.ID = principal.JWT, fmt.Sprintf("%s %q of %q", claim, value, token.Claims["iss"])
			break
		}
	}
	return p
}

// scopesOf lists the scopes of a token. The gateway passes a list on for a route that needs a
// scope, and null for the others, so the claims are read too: scope has names between spaces
// (RFC 8693), and scp, of other issuers, is often an array, which the gateway writes as "[a b]".
func scopesOf(token events.APIGatewayV2HTTPRequestContextAuthorizerJWTDescription) []string {
	scopes := slices.Clone(token.Scopes)
	for _, claim := range []string{"scope", "scp"} {
		list := token.Claims[claim]
		if inside, isArray := strings.CutPrefix(list, "["); isArray {
			list = strings.TrimSuffix(inside, "]")
		}
		scopes = append(scopes, strings.Fields(list)...)
	}
	return scopes
}

// iamPrincipal names the caller by its ARN. An assumed role is named without its session: every
// instance of a service has a session of its own, and a retry may come from another instance. So
// all who act under one role are one principal. The users of a Cognito identity pool share a role
// too, but they are strangers, so each is named by its identity.
func iamPrincipal(caller events.APIGatewayV2HTTPRequestContextAuthorizerIAMDescription,
) principal.Principal {
	id := withoutSession(caller.UserARN)
	if identity := caller.CognitoIdentity.IdentityID; identity != "" {
		id = "cognito:" + identity
	}
	if id == "" {
		return principal.Principal{Kind: principal.Unnamed}
	}
	return principal.Principal{Kind: principal.IAM, ID: id}
}

// withoutSession cuts the session's name off the ARN of an assumed role, which has the form
// arn:aws:sts::123456789012:assumed-role/role/session. Neither name can have a slash. It returns
// every other ARN as it is.
func withoutSession(arn string) string {
	parts := strings.SplitN(arn, ":", 6)
	if len(parts) < 6 || parts[2] != "sts" {
		return arn
	}
	resource := strings.Split(parts[5], "/")
	if len(resource) != 3 || resource[0] != "assumed-role" {
		return arn
	}
	return strings.TrimSuffix(arn, "/"+resource[2])
}
