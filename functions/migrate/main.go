// Command migrate is the Lambda that applies the migrations, before a new version gets traffic.
package main

import (
	"github.com/aws/aws-lambda-go/lambda"

	"github.com/allo/reservations/internal/app/migration"
)

func main() { lambda.Start(migration.Lambda()) }
