package awssink

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/lambda"

	"github.com/allo/reservations/internal/events"
)

// invoker asks the outbox function.
type invoker struct {
	name   string
	client interface {
		Invoke(context.Context, *lambda.InvokeInput, ...func(*lambda.Options)) (
			*lambda.InvokeOutput, error)
	}
}

// next is an events.Outbox. A function that fails answers 200 with a FunctionError.
func (v invoker) next(ctx context.Context, request events.Request) (page events.Page, err error) {
	ctx, cancel := context.WithTimeout(ctx, invokeLimit)
	defer cancel()
	payload, err := json.Marshal(request)
	if err != nil {
		return page, fmt.Errorf("encode the request: %w", err)
	}
	out, err := v.client.Invoke(ctx, &lambda.InvokeInput{FunctionName: &v.name, Payload: payload})
	if err != nil {
		return page, fmt.Errorf("invoke %s: %w", v.name, err)
	}
	if out.FunctionError != nil {
		var failure struct {
			Type    string `json:"errorType"`
			Message string `json:"errorMessage"`
		}
		_ = json.Unmarshal(out.Payload, &failure) // an answer that isn't JSON leaves the kind only
		return page, fmt.Errorf("the function %s failed, %s: %s %s", v.name,
			aws.ToString(out.FunctionError), failure.Type, failure.Message)
	}
	if err := json.Unmarshal(out.Payload, &page); err != nil {
		return page, fmt.Errorf("read the answer of %s: %w", v.name, err)
	}
	return page, nil
}
