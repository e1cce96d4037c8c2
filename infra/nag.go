package main

import (
	"fmt"

	"github.com/aws/aws-cdk-go/awscdk/v2/awsapigatewayv2"
	"github.com/aws/aws-cdk-go/awscdk/v2/awscodedeploy"
	"github.com/aws/aws-cdk-go/awscdk/v2/awslambda"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsrds"
	"github.com/aws/aws-cdk-go/awscdk/v2/awssqs"
	"github.com/aws/constructs-go/constructs/v10"
	"github.com/aws/jsii-runtime-go"
	"github.com/cdklabs/cdk-nag-go/cdknag/v2"

	"github.com/allo/reservations/internal/route"
)

// The findings of cdk-nag that are as they should be, each on the resource that it is about and with the reason.

// explain says why a rule's finding on a construct and what is below it stands. A finding about a permission is named by what it is about.
func explain(c constructs.IConstruct, rule, reason string, appliesTo ...any) {
	suppression := &cdknag.NagPackSuppression{Id: jsii.String(rule), Reason: jsii.String(reason)}
	if len(appliesTo) > 0 {
		suppression.AppliesTo = &appliesTo
	}
	cdknag.NagSuppressions_AddResourceSuppressions(c, &[]*cdknag.NagPackSuppression{suppression}, jsii.Bool(true))
}

// explainWildcards is for the role of a function: X-Ray and EC2's network interfaces know no narrower resource.
func explainWildcards(f awslambda.Function) {
	explain(f.Role(), "AwsSolutions-IAM5",
		"xray:PutTraceSegments and the ec2:*NetworkInterface* that Lambda needs in a VPC can't be granted on a narrower resource; the function's own code is denied the latter",
		"Resource::*")
}

// explainOpenRoute is for a route that anyone may call.
func explainOpenRoute(made awsapigatewayv2.HttpRoute, s Settings, r route.Route) {
	reason := "The storefront's: a shopper has no account, and may look, hold, extend and release; the stage's throttle bounds it"
	if r.Scope != "" {
		reason = fmt.Sprintf("auth=%s is for demonstrations, and the deploy's output says so; auth=jwt and auth=iam guard this route", s.Auth)
	}
	explain(made, "AwsSolutions-APIG4", reason)
}

// explainDevelopment is for a database that may go with its stack.
func explainDevelopment(cluster awsrds.DatabaseCluster) {
	explain(cluster, "AwsSolutions-RDS10", "env=dev is there to be destroyed again; env=prod protects its cluster")
}

func explainQueue(q awssqs.Queue) {
	explain(q, "AwsSolutions-SQS3", "This queue is itself where lost events go; an alarm watches its depth")
}

func explainDeployRole(g awscodedeploy.LambdaDeploymentGroup) {
	explain(g, "AwsSolutions-IAM4", "AWS's own policy for CodeDeploy on Lambda, in its limited form; it follows what CodeDeploy needs",
		"Policy::arn:<AWS::Partition>:iam::aws:policy/service-role/AWSCodeDeployRoleForLambdaLimited")
}
