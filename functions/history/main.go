// Command history is the Lambda that answers GET /api/reservations/{id}/history.
package main

import (
	"github.com/aws/aws-lambda-go/lambda"

	"github.com/allo/reservations/internal/app"
)

func main() { lambda.Start(app.Lambda().HTTP("history")) }
