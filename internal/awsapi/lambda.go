package awsapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/allo/reservations/internal/config"
)

// lambdaService takes the invocations of functions. A function behind the gateway has 10 s, and its
// first start takes a few more.
var lambdaService = Service{
	Title: "Lambda", Host: "lambda", ContentType: "application/json",
	Timeout: 20 * time.Second, MaxAnswer: 1 << 20,
}

// FunctionError means that a function failed, and not Lambda.
type FunctionError struct {
	// Function is the name of the function, Type is Lambda's name for the failure.
	Function, Type string
	Message        string
}

func (e *FunctionError) Error() string {
	return fmt.Sprintf("the function %s failed, %s: %.*s", e.Function, e.Type, maxReason, e.Message)
}

// Invoke invokes one version of a function, or its alias, and returns its answer. The ARN ends with
// the version or the alias. The endpoint is a URL, or empty for the region's own.
//
// The error is a *FunctionError when the function failed, and a *RefusedError when Lambda didn't
// invoke it. Invoke doesn't invoke again by itself.
func Invoke(
	ctx context.Context, account config.AWS, endpoint, arn string, payload []byte,
) ([]byte, error) {
	_, name, _ := strings.Cut(arn, ":function:")
	name, qualifier, found := strings.Cut(name, ":")
	if !found {
		return nil, fmt.Errorf("the ARN %q has no version", arn)
	}
	client := NewClient(lambdaService, account, endpoint)
	// API reference of Lambda, "Invoke": POST /2015-03-31/functions/NAME/invocations?Qualifier=...
	client.endpoint += "2015-03-31/functions/" + name + "/invocations?Qualifier=" +
		url.QueryEscape(qualifier)
	answer, header, err := client.post(ctx, "Invoke", payload,
		map[string]string{"Content-Type": lambdaService.ContentType})
	if err != nil {
		return nil, err
	}
	if kind := header.Get("X-Amz-Function-Error"); kind != "" {
		return nil, functionError(name, kind, answer)
	}
	return answer, nil
}

// functionError reads what Lambda answers for a function that failed.
func functionError(name, kind string, answer []byte) error {
	var failure struct {
		Type    string `json:"errorType"`
		Message string `json:"errorMessage"`
	}
	_ = json.Unmarshal(answer, &failure) // an answer that isn't JSON leaves the kind only
	if failure.Type != "" {
		kind += " " + failure.Type
	}
	return &FunctionError{Function: name, Type: kind, Message: failure.Message}
}

// MayPass reports whether a call that failed may succeed when it is made again: the service is
// busy, a permission of a new role isn't known everywhere yet, or the network failed. The failure
// of a function doesn't pass.
func MayPass(err error) bool {
	if refused := (*RefusedError)(nil); errors.As(err, &refused) {
		return refused.Status >= http.StatusInternalServerError ||
			refused.Status == http.StatusForbidden || refused.Status == http.StatusConflict ||
			refused.Status == http.StatusTooManyRequests
	}
	failed := (*FunctionError)(nil)
	return !errors.As(err, &failed)
}
