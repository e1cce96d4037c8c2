// Command return-goods is the Lambda that answers POST /api/reservations/{id}/returns.
package main

import (
	"github.com/aws/aws-lambda-go/lambda"

	"github.com/allo/reservations/internal/app"
)

func main() { lambda.Start(app.Lambda().HTTP("return-goods")) }
