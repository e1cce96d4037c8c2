package local

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"unicode/utf8"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-lambda-go/lambdacontext"
	"github.com/google/uuid"
)

// Handler makes an Invoker of a function that lambda.Start would take. The function runs in this
// process, once for each invocation under way, with a request id in its context as in a Lambda. Its
// deadline is the caller's.
//
// Don't use lambda.NewHandler instead: its handler must not be invoked twice at once. Its Invoke
// returns a pooled buffer that it has already given back, so one caller would get another's answer.
func Handler[In, Out any](fn func(context.Context, In) (Out, error)) Invoker {
	return handler[In, Out](fn)
}

type handler[In, Out any] func(context.Context, In) (Out, error)

// Invoke decodes the payload, runs the function and encodes its answer.
func (fn handler[In, Out]) Invoke(ctx context.Context, payload []byte) ([]byte, error) {
	var in In
	if err := json.Unmarshal(payload, &in); err != nil {
		return nil, fmt.Errorf("decode payload: %w", err)
	}
	out, err := fn.call(ctx, in)
	if err != nil {
		return nil, err
	}
	return json.Marshal(out)
}

func (fn handler[In, Out]) call(ctx context.Context, in In) (Out, error) {
	lc := &lambdacontext.LambdaContext{AwsRequestID: uuid.NewString()}
	return fn(lambdacontext.NewContext(ctx, lc), in)
}

// httpHandler is a function behind the gateway that runs in this process. The gateway hands it the
// event and takes its answer as Go values, because JSON would take a fifth of a request's processor
// time. The values are those that JSON would carry; a fuzz test compares the two.
type httpHandler = handler[events.APIGatewayV2HTTPRequest, events.APIGatewayV2HTTPResponse]

// respond invokes the function with the event. JSON carries only UTF-8, so an event or an answer
// with other bytes goes through it after all, which replaces them.
func respond(ctx context.Context, fn httpHandler, e event) (response, error) {
	if !e.isUTF8() {
		return respondJSON(ctx, fn, e)
	}
	out, err := fn.call(ctx, e.decoded())
	if err != nil {
		return response{}, err
	}
	return newResponse(out)
}

// respondJSON invokes a function that takes and returns JSON.
func respondJSON(ctx context.Context, fn Invoker, e event) (response, error) {
	payload, err := json.Marshal(e)
	if err != nil {
		return response{}, fmt.Errorf("encode the event: %w", err)
	}
	out, err := fn.Invoke(ctx, payload)
	if err != nil {
		return response{}, err
	}
	return decodeResponse(out)
}

// decoded returns the event as aws-lambda-go decodes it from JSON. The maps are shared.
func (e event) decoded() events.APIGatewayV2HTTPRequest {
	c := e.RequestContext
	return events.APIGatewayV2HTTPRequest{
		Version:               e.Version,
		RouteKey:              e.RouteKey,
		RawPath:               e.RawPath,
		RawQueryString:        e.RawQueryString,
		Cookies:               e.Cookies,
		Headers:               e.Headers,
		QueryStringParameters: e.QueryStringParameters,
		PathParameters:        e.PathParameters,
		RequestContext: events.APIGatewayV2HTTPRequestContext{
			RouteKey:     c.RouteKey,
			AccountID:    c.AccountID,
			Stage:        c.Stage,
			RequestID:    c.RequestID,
			Authorizer:   c.Authorizer.decoded(),
			APIID:        c.APIID,
			DomainName:   c.DomainName,
			DomainPrefix: c.DomainPrefix,
			Time:         c.Time,
			TimeEpoch:    c.TimeEpoch,
			HTTP:         events.APIGatewayV2HTTPRequestContextHTTPDescription(c.HTTP),
		},
		Body:            e.Body,
		IsBase64Encoded: e.IsBase64Encoded,
	}
}

// decoded returns the caller as aws-lambda-go decodes it from JSON.
func (a *authorizerContext) decoded() *events.APIGatewayV2HTTPRequestContextAuthorizerDescription {
	switch {
	case a == nil:
		return nil
	case a.JWT != nil:
		return &events.APIGatewayV2HTTPRequestContextAuthorizerDescription{
			JWT: &events.APIGatewayV2HTTPRequestContextAuthorizerJWTDescription{
				Claims: a.JWT.Claims, Scopes: a.JWT.Scopes,
			},
		}
	default:
		return &events.APIGatewayV2HTTPRequestContextAuthorizerDescription{
			IAM: &events.APIGatewayV2HTTPRequestContextAuthorizerIAMDescription{
				AccessKey: a.IAM.AccessKey, AccountID: a.IAM.AccountID, CallerID: a.IAM.CallerID,
				UserARN: a.IAM.UserARN, UserID: a.IAM.UserID,
			},
		}
	}
}

// isUTF8 reports whether all strings from the caller are UTF-8. The body is UTF-8 or base64
// already, and the claims of a token were JSON.
func (e event) isUTF8() bool {
	c := e.RequestContext
	for _, s := range append([]string{
		e.RawPath, e.RawQueryString, c.DomainName, c.HTTP.Method, c.HTTP.Path, c.HTTP.Protocol,
		c.HTTP.SourceIP, c.HTTP.UserAgent,
	}, e.Cookies...) {
		if !utf8.ValidString(s) {
			return false
		}
	}
	return areUTF8(e.Headers) && areUTF8(e.QueryStringParameters) && areUTF8(e.PathParameters)
}

func areUTF8(fields map[string]string) bool {
	for name, value := range fields {
		if !utf8.ValidString(name) || !utf8.ValidString(value) {
			return false
		}
	}
	return true
}

// sharesBuffer recognizes the handlers of lambda.NewHandler.
func sharesBuffer(fn Invoker) bool {
	t := reflect.TypeOf(fn)
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return t.PkgPath() == "github.com/aws/aws-lambda-go/lambda"
}
