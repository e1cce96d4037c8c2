// Command list-products is the Lambda that answers GET /api/products and
// GET /api/products/{id}.
package main

import (
	"github.com/aws/aws-lambda-go/lambda"

	"github.com/allo/reservations/internal/app"
)

func main() { lambda.Start(app.Lambda().HTTP("list-products")) }
