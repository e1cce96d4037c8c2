// Command outbox is the Lambda that the relay asks for the events to publish.
package main

import (
	"github.com/aws/aws-lambda-go/lambda"

	"github.com/allo/reservations/internal/app"
)

func main() { lambda.Start(app.Lambda().Outbox()) }
