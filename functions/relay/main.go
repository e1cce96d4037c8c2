// Command relay is the Lambda that the minute rule runs to publish the events.
package main

import (
	"github.com/aws/aws-lambda-go/lambda"

	"github.com/allo/reservations/internal/app/relay"
)

func main() { lambda.Start(relay.Lambda()) }
