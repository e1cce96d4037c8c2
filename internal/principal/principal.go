// Package principal names the caller of a request, as the gateway's authorizer found it. What a
// caller says about itself, in a header or a body, never makes a principal.
package principal

import "context"

// Kind is how the gateway authorized the caller.
type Kind string

const (
	// Anonymous means that the route has no authorizer. All anonymous callers are one principal.
	Anonymous Kind = ""
	// JWT means that the caller has a token, whose issuer and subject name it.
	JWT Kind = "jwt"
	// IAM means that the caller signed the request with AWS credentials.
	IAM Kind = "iam"
	// Unnamed means that the gateway authorized the caller, but by nothing that names it. Two
	// unnamed callers may be different ones, so they can't share what belongs to a principal.
	Unnamed Kind = "unnamed"
)

// String returns the kind's name for a log.
func (k Kind) String() string {
	if k == Anonymous {
		return "anonymous"
	}
	return string(k)
}

// Principal is a caller. The zero value is the anonymous one.
type Principal struct {
	Kind Kind
	// ID names the caller among those of its kind. It is empty for the kinds that name nobody.
	ID string
	// Subject is the sub of the caller's token, or empty when the caller has none.
	Subject string
	// ActsForAny says that the caller's token has ScopeActForAny.
	ActsForAny bool
}

// ScopeActForAny is the scope of a shop's back end, which may name any customer as the owner of a
// hold. No route needs it.
const ScopeActForAny = "reservations:act-for-any"

type contextKey struct{}

// With returns a context for the requests of p.
func With(ctx context.Context, p Principal) context.Context {
	return context.WithValue(ctx, contextKey{}, p)
}

// From returns the principal of the context's request. Without one it is anonymous.
func From(ctx context.Context) Principal {
	p, _ := ctx.Value(contextKey{}).(Principal)
	return p
}

// Actor names the caller in what is kept of its deeds: nil for an anonymous or unnamed one.
func Actor(ctx context.Context) *string {
	if id := From(ctx).ID; id != "" {
		return &id
	}
	return nil
}
