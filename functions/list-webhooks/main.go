// Command list-webhooks is the Lambda that answers GET /api/webhooks.
package main

import (
	"github.com/aws/aws-lambda-go/lambda"

	"github.com/allo/reservations/internal/app/webhooks"
)

func main() { lambda.Start(webhooks.Lambda("list-webhooks")) }
