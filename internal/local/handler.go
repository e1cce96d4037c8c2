package local

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"

	"github.com/aws/aws-lambda-go/lambdacontext"
	"github.com/google/uuid"
)

// Handler makes an Invoker of what is given to lambda.Start: fn runs in this process, as many times at once as it is
// invoked, with a request id in its context as in a Lambda. Its deadline is the caller's.
//
// It is here because the handler that lambda.NewHandler makes must not be invoked twice at once: what its Invoke returns is a
// pooled buffer that it has already given back, so one caller would get another's answer.
func Handler[In, Out any](fn func(context.Context, In) (Out, error)) Invoker {
	return handler[In, Out](fn)
}

type handler[In, Out any] func(context.Context, In) (Out, error)

func (fn handler[In, Out]) Invoke(ctx context.Context, payload []byte) ([]byte, error) {
	var in In
	if err := json.Unmarshal(payload, &in); err != nil {
		return nil, fmt.Errorf("decode payload: %w", err)
	}
	out, err := fn(lambdacontext.NewContext(ctx, &lambdacontext.LambdaContext{AwsRequestID: uuid.NewString()}), in)
	if err != nil {
		return nil, err
	}
	return json.Marshal(out)
}

// sharesBuffer recognizes the handlers of lambda.NewHandler.
func sharesBuffer(fn Invoker) bool {
	t := reflect.TypeOf(fn)
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return t.PkgPath() == "github.com/aws/aws-lambda-go/lambda"
}
