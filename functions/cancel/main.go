// Command cancel is the Lambda that answers POST /api/reservations/{id}/cancel.
package main

import (
	"github.com/aws/aws-lambda-go/lambda"

	"github.com/allo/reservations/internal/app"
)

func main() { lambda.Start(app.Lambda().HTTP("cancel")) }
