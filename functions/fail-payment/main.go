// Command fail-payment is the Lambda that answers POST /api/reservations/{id}/payment/failed.
package main

import (
	"github.com/aws/aws-lambda-go/lambda"

	"github.com/allo/reservations/internal/app"
)

func main() { lambda.Start(app.Lambda().HTTP("fail-payment")) }
