// Package liveauth builds the handler of the live-authorizer function. AppSync asks it before a
// client connects to the live channel, subscribes or publishes.
//
// No answer is cached. AppSync doesn't say whether it keeps an answer for the token alone or for
// the token with the operation and its channel. All clients have one token. So if it is for the
// token alone, the answer to a connect would open every channel, the holds of all shoppers among
// them. The function takes about a millisecond and has no network to wait for.
package liveauth

import (
	"context"

	"github.com/allo/reservations/internal/events/channel"
)

// Request is AppSync's question.
type Request struct {
	AuthorizationToken string  `json:"authorizationToken"`
	RequestContext     Context `json:"requestContext"`
}

// Context says what the client wants.
type Context struct {
	// Operation is one of those of package channel.
	Operation string `json:"operation"`
	// Channel is the channel's whole name. It is empty when the client connects.
	Channel string `json:"channel"`
}

// Answer is the answer to AppSync.
type Answer struct {
	IsAuthorized bool `json:"isAuthorized"`
	// TTLOverride is for how many seconds AppSync may give the same answer by itself. Zero must be
	// written: without it the setting of the API holds.
	TTLOverride int `json:"ttlOverride"`
}

// Handle answers AppSync. Everybody may do what channel.Allows allows, whatever the token is.
func Handle(_ context.Context, r Request) (Answer, error) {
	return Answer{IsAuthorized: channel.Allows(r.RequestContext.Operation, r.RequestContext.Channel)},
		nil
}

// Lambda returns the handler for lambda.Start. It reads no settings.
func Lambda() func(context.Context, Request) (Answer, error) { return Handle }
