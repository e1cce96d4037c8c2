// Command live-authorizer is the Lambda that AppSync asks who may follow the live channel.
package main

import (
	"github.com/aws/aws-lambda-go/lambda"

	"github.com/allo/reservations/internal/app/liveauth"
)

func main() { lambda.Start(liveauth.Lambda()) }
