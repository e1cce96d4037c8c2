// Command bare is a Lambda that connects to the URL in its argument with plain pgx, and runs one
// query, when it is first invoked. Cold starts to the first answer are measured against it.
package main

import (
	"context"
	"os"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-lambda-go/lambda"
	"github.com/jackc/pgx/v5"
)

func main() {
	var conn *pgx.Conn
	lambda.Start(func(ctx context.Context, _ events.APIGatewayV2HTTPRequest) (
		events.APIGatewayV2HTTPResponse, error,
	) {
		var err error
		if conn == nil {
			if conn, err = pgx.Connect(ctx, os.Args[1]); err != nil {
				return events.APIGatewayV2HTTPResponse{}, err
			}
		}
		var sum int64
		const sql = "SELECT coalesce(sum(total), 0) FROM inventory WHERE total < 0"
		if err := conn.QueryRow(ctx, sql).Scan(&sum); err != nil {
			return events.APIGatewayV2HTTPResponse{}, err
		}
		return events.APIGatewayV2HTTPResponse{StatusCode: 200, Body: "asked"}, nil
	})
}
