package local

import (
	"log/slog"
	"net/http"

	"github.com/allo/reservations/internal/config"
	"github.com/allo/reservations/internal/route"
)

// Authorizer decides who may call the routes that have a scope. NewAuthorizer makes one.
type Authorizer interface {
	// authorize names the caller of a route with this scope, or refuses the request. body is the
	// request's body, which authorize must not read from the request.
	authorize(r *http.Request, body []byte, scope string) (authorizerContext, *refusal)
}

// NewAuthorizer returns the authorizer that the settings ask for, or nil when all routes are open.
func NewAuthorizer(c config.Auth, log *slog.Logger) Authorizer {
	switch c.Kind {
	case config.AuthJWT:
		return newJWTAuthorizer(c.JWTIssuer, c.JWTAudience, log)
	case config.AuthIAM:
		return newIAMAuthorizer(c.AccessKeyID, c.SecretAccessKey)
	default:
		return nil
	}
}

// Guard lets the authorizer decide on the requests of the routes that have a scope. With a nil
// authorizer all routes are open. Call it before the gateway serves.
func (g *Gateway) Guard(a Authorizer) { g.authorizer = a }

// authorize returns what the event says of the caller. It is nil for a route that is open: an
// Authorization header there is the function's business and names nobody.
func (g *Gateway) authorize(
	r *http.Request, body []byte, matched route.Route,
) (*authorizerContext, *refusal) {
	if g.authorizer == nil || matched.Scope == "" {
		return nil, nil
	}
	caller, refused := g.authorizer.authorize(r, body, matched.Scope)
	if refused != nil {
		return nil, refused
	}
	return &caller, nil
}

// authorizerContext is the part of an event that names the caller. It has one of the two fields.
type authorizerContext struct {
	JWT *jwtContext `json:"jwt,omitempty"`
	IAM *iamContext `json:"iam,omitempty"`
}

// jwtContext has the claims as text, and the token's scopes.
type jwtContext struct {
	Claims map[string]string `json:"claims"`
	Scopes []string          `json:"scopes"`
}

// iamContext names an IAM user. The last two fields are always null: the caller is no user of a
// Cognito identity pool, and its account is in no organization.
type iamContext struct {
	AccessKey       string  `json:"accessKey"`
	AccountID       string  `json:"accountId"`
	CallerID        string  `json:"callerId"`
	UserARN         string  `json:"userArn"`
	UserID          string  `json:"userId"`
	CognitoIdentity *string `json:"cognitoIdentity"`
	PrincipalOrgID  *string `json:"principalOrgId"`
}

// refusal is why a request isn't authorized.
type refusal struct {
	status int
	// challenge is the WWW-Authenticate header, or empty.
	challenge string
	// reason is for the log. It has no part of the credentials.
	reason string
}

// send writes the gateway's own answer and logs the reason, which a developer needs in order to
// mend the request.
func (f refusal) send(
	w http.ResponseWriter, r *http.Request, matched route.Route, log *slog.Logger,
) {
	log.InfoContext(r.Context(), "the authorizer refused a request", "route", matched.Key(),
		"status", f.status, "reason", f.reason, "requestId", w.Header().Get("Apigw-Requestid"))
	if f.challenge != "" {
		w.Header().Set("Www-Authenticate", f.challenge)
	}
	refuse(w, f.status)
}
