// Command redeliver-webhook is the Lambda that answers POST /api/webhooks/{name}/redeliver.
package main

import (
	"github.com/aws/aws-lambda-go/lambda"

	"github.com/allo/reservations/internal/app/webhooks"
)

func main() { lambda.Start(webhooks.Lambda("redeliver-webhook")) }
