// Command put-products is the Lambda that answers POST /api/catalog/products.
package main

import (
	"github.com/aws/aws-lambda-go/lambda"

	"github.com/allo/reservations/internal/app"
)

func main() { lambda.Start(app.Lambda().HTTP("put-products")) }
