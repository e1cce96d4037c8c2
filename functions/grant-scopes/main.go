// Command grant-scopes is the Lambda that the user pool asks for the scopes of each token.
package main

import (
	"github.com/aws/aws-lambda-go/lambda"

	"github.com/allo/reservations/internal/app/grant"
)

func main() { lambda.Start(grant.Lambda()) }
