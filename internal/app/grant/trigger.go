package grant

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"github.com/allo/reservations/internal/config"
)

const (
	// Resource is the identifier of the user pool's resource server. The pool writes a machine's
	// scope as Resource, a slash and the scope.
	Resource = "allo"
	// machines is the trigger of a token for a client that has a secret and no user.
	machines = "TokenGeneration_ClientCredentials"
)

// request is the part of the event that decides.
type request struct {
	TriggerSource string
	Request       struct {
		GroupConfiguration struct{ GroupsToOverride []string }
		// Scopes are those that the client asked for and is allowed.
		Scopes []string
	}
}

// response is the part of the answer that adds scopes to the access token.
type response struct {
	Details details `json:"claimsAndScopeOverrideDetails"`
}

type details struct {
	AccessToken accessToken `json:"accessTokenGeneration"`
}

type accessToken struct {
	ScopesToAdd []string `json:"scopesToAdd"`
}

// Answer answers a user pool that is about to make a token (its trigger before the generation of
// tokens, version V3_0: earlier versions leave the tokens of machines as they are). It returns the
// event with the scopes to add: a user's by the user's groups, a machine's by the scopes that the
// pool allows its client. So a route asks for the same scope from both.
//
// Cognito's developer guide describes the event and the answer ("Pre token generation Lambda
// trigger").
func Answer(event json.RawMessage) (json.RawMessage, error) {
	var asked request
	var whole map[string]json.RawMessage
	if err := errors.Join(json.Unmarshal(event, &asked), json.Unmarshal(event, &whole)); err != nil {
		return nil, fmt.Errorf("decode the user pool's event: %w", err)
	}
	if whole == nil {
		return nil, errors.New("the user pool's event is null")
	}
	scopes := Of(asked.Request.GroupConfiguration.GroupsToOverride)
	if asked.TriggerSource == machines {
		scopes = ofMachine(asked.Request.Scopes)
	}
	// A list that is null might not be taken for an empty one.
	answer, err := json.Marshal(response{details{accessToken{append([]string{}, scopes...)}}})
	if err != nil {
		return nil, fmt.Errorf("encode the answer: %w", err)
	}
	whole["response"] = answer
	return json.Marshal(whole)
}

// ofMachine returns the API's scopes among those of the resource server, sorted.
func ofMachine(allowed []string) []string {
	var scopes []string
	for _, one := range allowed {
		scope, ours := strings.CutPrefix(one, Resource+"/")
		if ours && slices.Contains(All(), scope) {
			scopes = append(scopes, scope)
		}
	}
	return sorted(scopes)
}

// Handler is the handler of the function grant-scopes.
type Handler = func(context.Context, json.RawMessage) (json.RawMessage, error)

// Lambda returns the function's handler for lambda.Start. Its log has no name and no address: an
// erasure can't reach a log.
func Lambda() Handler {
	_, log := config.Start(false)
	return logged(log)
}

func logged(log *slog.Logger) Handler {
	return func(ctx context.Context, event json.RawMessage) (json.RawMessage, error) {
		answer, err := Answer(event)
		if err != nil {
			log.ErrorContext(ctx, "no token", "error", err.Error())
		}
		return answer, err
	}
}
