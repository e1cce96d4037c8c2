package smoke

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/aws/aws-lambda-go/events"
	"github.com/google/uuid"

	"github.com/allo/reservations/internal/awsapi"
	"github.com/allo/reservations/internal/config"
	"github.com/allo/reservations/internal/route"
)

// principalName is the check as the functions know it: the subject of its token, or its ARN. No
// other caller has it, so nobody shares its idempotency keys on the routes that have a scope.
const principalName = "smoke"

// host is the host of the events. It is reserved for names that don't exist (RFC 6761).
const host = "smoke.invalid"

// gateway calls versions of the functions with the events that the gateway would send.
type gateway struct {
	settings config.Smoke
	aws      config.AWS
}

func (g *gateway) send(ctx context.Context, c call) (answer, error) {
	r, err := g.find(c.route)
	if err != nil {
		return answer{}, err
	}
	event, err := g.event(c, r)
	if err != nil {
		return answer{}, err
	}
	arn := g.settings.Functions[r.Function]
	out, err := awsapi.Invoke(ctx, g.aws, g.aws.Endpoint, arn, event)
	if err != nil {
		return answer{}, err
	}
	var response events.APIGatewayV2HTTPResponse
	if err := json.Unmarshal(out, &response); err != nil || response.StatusCode == 0 {
		return answer{}, &awsapi.FunctionError{
			Function: r.Function, Type: "no response of HTTP", Message: string(out),
		}
	}
	body := []byte(response.Body)
	if response.IsBase64Encoded {
		if body, err = base64.StdEncoding.DecodeString(response.Body); err != nil {
			return answer{}, &awsapi.FunctionError{
				Function: r.Function, Type: "no base64 in its response", Message: err.Error(),
			}
		}
	}
	return answer{status: response.StatusCode, body: body}, nil
}

// find returns the route with a key, as the deployment has it. The error of a function that isn't
// among the settings' is final.
func (g *gateway) find(key string) (route.Route, error) {
	for _, r := range route.All() {
		if r.Key() != key {
			continue
		}
		if g.settings.Functions[r.Function] == "" {
			return r, &awsapi.FunctionError{
				Function: r.Function, Type: "unknown", Message: "SMOKE_FUNCTIONS doesn't have it",
			}
		}
		return r.Guarded(g.settings.ReserveAuth), nil
	}
	return route.Route{}, fmt.Errorf("there is no route %s", key)
}

// event returns the event of a call, in payload format 2.0. It has no API's id, so that functions
// which want the CDN's secret take it without (lambdahttp.OnlyThroughCDN).
func (g *gateway) event(c call, r route.Route) ([]byte, error) {
	event := events.APIGatewayV2HTTPRequest{
		Version: "2.0", RouteKey: c.route, RawPath: c.path(), RawQueryString: c.query.Encode(),
		Headers: map[string]string{"host": host, "user-agent": "allo-smoke"},
		RequestContext: events.APIGatewayV2HTTPRequestContext{
			RouteKey: c.route, Stage: "$default", RequestID: "smoke-" + uuid.NewString(),
			DomainName: host, Authorizer: g.authorizer(r),
			HTTP: events.APIGatewayV2HTTPRequestContextHTTPDescription{
				Method: c.method(), Path: c.path(), Protocol: "HTTP/1.1", SourceIP: "127.0.0.1",
				UserAgent: "allo-smoke",
			},
		},
	}
	if strings.Contains(r.Path, "{id}") {
		event.PathParameters = map[string]string{"id": c.id}
	}
	if c.key != "" {
		event.Headers["idempotency-key"] = c.key
	}
	if c.fresh {
		event.Headers["cache-control"] = "no-cache"
	}
	if c.body != nil {
		body, err := json.Marshal(c.body)
		if err != nil {
			return nil, fmt.Errorf("encode the body of %s: %w", c, err)
		}
		event.Body, event.Headers["content-type"] = string(body), "application/json"
	}
	return json.Marshal(event)
}

// authorizer returns what the gateway's authorizer would tell of a caller with the route's scope,
// nil for an open route.
func (g *gateway) authorizer(
	r route.Route,
) *events.APIGatewayV2HTTPRequestContextAuthorizerDescription {
	if r.Scope == "" {
		return nil
	}
	switch g.settings.Auth {
	case "jwt":
		return &events.APIGatewayV2HTTPRequestContextAuthorizerDescription{
			JWT: &events.APIGatewayV2HTTPRequestContextAuthorizerJWTDescription{
				Claims: map[string]string{"sub": principalName, "iss": host, "scope": r.Scope},
				Scopes: []string{r.Scope},
			},
		}
	case "iam":
		return &events.APIGatewayV2HTTPRequestContextAuthorizerDescription{
			IAM: &events.APIGatewayV2HTTPRequestContextAuthorizerIAMDescription{UserARN: principalName},
		}
	default:
		return nil
	}
}
