// Command sweep is the Lambda that an EventBridge rule runs every minute: it expires dead holds.
package main

import (
	"github.com/aws/aws-lambda-go/lambda"

	"github.com/allo/reservations/internal/app"
)

func main() { lambda.Start(app.Lambda().Sweep) }
