package lambdahttp

import (
	"fmt"
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
		return jwtPrincipal(authorizer.JWT.Claims)
	case authorizer.IAM != nil:
		return iamPrincipal(*authorizer.IAM)
	default:
		return principal.Principal{Kind: principal.Unnamed}
	}
}

// jwtPrincipal names the caller by the token's issuer and its subject. A token without a subject
// stands for the client that it was issued to: client_id (RFC 9068), or else azp (OpenID Connect).
// The claim's name is a part of the ID, because a client may have the same name as a subject.
func jwtPrincipal(claims map[string]string) principal.Principal {
	for _, claim := range []string{"sub", "client_id", "azp"} {
		if value := claims[claim]; value != "" {
			id := fmt.Sprintf("%s %q of %q", claim, value, claims["iss"])
			return principal.Principal{Kind: principal.JWT, ID: id}
		}
	}
	return principal.Principal{Kind: principal.Unnamed}
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
