// Command live is the Lambda that answers GET /api/live.
package main

import (
	"github.com/aws/aws-lambda-go/lambda"

	"github.com/allo/reservations/internal/app/live"
)

func main() { lambda.Start(live.Lambda()) }
