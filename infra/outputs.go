package main

import (
	"net/http"
	"path"
	"strings"

	"github.com/aws/aws-cdk-go/awscdk/v2"
	"github.com/aws/jsii-runtime-go"

	"github.com/allo/reservations/internal/route"
)

// outputs has the constructs that the stack's outputs describe.
type outputs struct {
	api       api
	cdn       *cdn
	signIn    *signIn
	live      *live
	sweeper   sweeper
	feed      feed
	db        database
	functions []function
}

// newOutputs declares the stack's outputs: what an operator needs after a deploy.
func newOutputs(stack awscdk.Stack, s Settings, o outputs) {
	output := func(id, description string, value *string) {
		awscdk.NewCfnOutput(stack, jsii.String(id), &awscdk.CfnOutputProps{
			Value: value, Description: jsii.String(description),
		})
	}
	var names []*string
	for _, f := range o.functions {
		names = append(names, f.function.FunctionName())
	}
	output("ApiUrl", "The URL of the API and of the demo storefront", o.api.url)
	output("DashboardUrl", "The CloudWatch dashboard", dashboardURL(s))
	output("FunctionNames", "The functions; traffic goes to each one's alias live",
		awscdk.Fn_Join(jsii.String(" "), &names))
	output("LostSweepsQueueUrl", "The queue of sweep events that failed or weren't delivered",
		o.sweeper.deadLetters.QueueUrl())
	o.cdn.describe(output)
	o.signIn.describe(output)
	if o.live != nil {
		output("LiveUrl", "The WebSocket of the live stock", o.live.url())
	}
	o.feed.describe(output)
	output("DatabaseAt", "The location of the database", o.db.location())
	output("Auth", "Who may confirm a hold", jsii.String(authDescription(s)))
	if s.Auth == AuthIAM {
		named := map[string]bool{}
		for _, r := range route.All() {
			if r = r.Guarded(s.ReserveAuth); r.Scope != "" && r.Method != http.MethodHead {
				name := r.Function
				if named[name] { // A function's further routes are named by the end of their paths.
					name += "-" + path.Base(r.Path)
				}
				named[name] = true
				output("Arn"+strings.ReplaceAll(name, "-", ""),
					"Grant execute-api:Invoke on this ARN to the callers of "+r.Key(), o.api.arn(r))
			}
		}
	}
}

// describe declares the outputs of the feed: what a consumer needs.
func (f feed) describe(output func(id, description string, value *string)) {
	output("TopicArn", "The topic of the events; subscribe FIFO queues to it", f.topic.TopicArn())
	if f.bus != nil {
		output("BusName", "The EventBridge bus of the events", f.bus.EventBusName())
	}
	for _, q := range f.queues {
		output(outputID("QueueArn", q.name), "The queue of the consumer "+q.name, q.main.QueueArn())
	}
}

func dashboardURL(s Settings) *string {
	return awscdk.Fn_Sub(jsii.String("https://${AWS::Region}.console.aws.amazon.com/cloudwatch/home"+
		"?region=${AWS::Region}#dashboards/dashboard/"+s.StackName()), nil)
}

// authDescription says who may confirm a hold. For auth=none it is a warning, which the deploy
// prints at its end.
func authDescription(s Settings) string {
	switch s.Auth {
	case AuthJWT, AuthCognito:
		issuer, reserve := s.JWTIssuer, "anyone may reserve"
		if s.Auth == AuthCognito {
			issuer = "the stack's user pool"
		}
		if s.ReserveAuth {
			reserve = "reserving needs one with " + route.ScopeReserve
		}
		return string(s.Auth) + ": confirming a hold needs a token from " + issuer +
			" with the scope " + route.ScopeConfirm + "; " + reserve
	case AuthIAM:
		reserve := "anyone may reserve"
		if s.ReserveAuth {
			reserve = "so does reserving"
		}
		return "iam: confirming a hold needs a call signed by a role that has execute-api:Invoke " +
			"on the route's ARN; " + reserve
	default:
		return "none: THIS IS A DEMONSTRATION. Anyone who knows a hold's id can confirm it " +
			"without paying. Deploy with auth=cognito, auth=jwt or auth=iam before you sell real stock."
	}
}
