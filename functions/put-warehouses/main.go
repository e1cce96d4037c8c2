// Command put-warehouses is the Lambda that answers POST /api/catalog/warehouses.
package main

import (
	"github.com/aws/aws-lambda-go/lambda"

	"github.com/allo/reservations/internal/app"
)

func main() { lambda.Start(app.Lambda().HTTP("put-warehouses")) }
