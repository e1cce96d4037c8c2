// Command smoke is the Lambda that checks the new versions in a deploy, and the public address each
// five minutes.
package main

import (
	"github.com/aws/aws-lambda-go/lambda"

	"github.com/allo/reservations/internal/app/smoke"
)

func main() { lambda.Start(smoke.Lambda()) }
