// Command move-stock is the Lambda that answers POST /api/stock/movements.
package main

import (
	"github.com/aws/aws-lambda-go/lambda"

	"github.com/allo/reservations/internal/app"
)

func main() { lambda.Start(app.Lambda().HTTP("move-stock")) }
