// Command web is the Lambda that serves the storefront's pages and the API's document.
package main

import (
	"github.com/aws/aws-lambda-go/lambda"

	"github.com/allo/reservations/internal/app/web"
)

func main() { lambda.Start(web.Lambda()) }
