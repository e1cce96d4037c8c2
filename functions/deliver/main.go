// Command deliver is the Lambda that posts the events of the webhooks' queues to their endpoints.
package main

import (
	"github.com/aws/aws-lambda-go/lambda"

	"github.com/allo/reservations/internal/app/deliver"
)

func main() { lambda.Start(deliver.Lambda().Handle) }
