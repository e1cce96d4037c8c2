// Command erase-owner is the Lambda that answers POST /api/owners/erase.
package main

import (
	"github.com/aws/aws-lambda-go/lambda"

	"github.com/allo/reservations/internal/app"
)

func main() { lambda.Start(app.Lambda().HTTP("erase-owner")) }
