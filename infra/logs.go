package main

import (
	"strings"

	"github.com/aws/aws-cdk-go/awscdk/v2"
	"github.com/aws/aws-cdk-go/awscdk/v2/awslogs"
	"github.com/aws/constructs-go/constructs/v10"
	"github.com/aws/jsii-runtime-go"
)

// newLogGroup creates a log group with the stage's retention period. A name that doesn't begin with
// a slash is put under the stack's name. In prod the group stays when the stack is deleted, except
// after a first deploy that failed: there it would block the next attempt.
func newLogGroup(scope constructs.Construct, id string, s Settings, name string) awslogs.LogGroup {
	if !strings.HasPrefix(name, "/") {
		name = "/" + s.StackName() + "/" + name
	}
	removal := awscdk.RemovalPolicy_DESTROY
	if s.Stage.Protected {
		removal = awscdk.RemovalPolicy_RETAIN_ON_UPDATE_OR_DELETE
	}
	return awslogs.NewLogGroup(scope, jsii.String(id), &awslogs.LogGroupProps{
		LogGroupName: jsii.String(name), Retention: s.Stage.LogRetention, RemovalPolicy: removal,
	})
}

// keepLogs creates the log group of a function that the settings leave out, in prod, where the
// group stays when the function goes. Out of the stack it would be in the way of a later deploy
// that has the function again: CloudFormation doesn't create a log group whose name is in use. The
// scope and the id are those of the function's own group, so it is the same resource.
func keepLogs(scope constructs.Construct, id string, s Settings, name string) {
	if s.Stage.Protected {
		newLogGroup(scope, id, s, name)
	}
}

// keepFunctionLogs does the same for a function of newFunction.
func keepFunctionLogs(scope constructs.Construct, s Settings, name string) {
	keepLogs(constructs.NewConstruct(scope, jsii.String(name)), "Logs", s, name)
}

// vendedName returns the name of a log group that a service of AWS writes to by a policy of
// CloudWatch Logs. That policy is one for the account and the region and has at most 5,120
// characters. Groups under this prefix need no entry of their own in it (Step Functions' developer
// guide, "Avoiding Amazon CloudWatch Logs resource policy size restrictions"; "Configuring logging
// for an HTTP API" names the permission).
func vendedName(s Settings, name string) string {
	return "/aws/vendedlogs/" + s.StackName() + "/" + name
}

// redirectProviderLogs sends the logs of the functions that the CDK adds for its own deploy steps
// to a log group with a retention period. By default each would write to a group that is kept for
// ever.
func redirectProviderLogs(stack awscdk.Stack, s Settings) {
	logs := newLogGroup(stack, "DeployLogs", s, "deploy")
	for _, node := range *stack.Node().FindAll(constructs.ConstructOrder_PREORDER) {
		resource, ok := node.(awscdk.CfnResource)
		if !ok || *resource.CfnResourceType() != "AWS::Lambda::Function" {
			continue
		}
		if strings.Contains(*resource.Node().Path(), "CustomResourceProvider") {
			resource.AddPropertyOverride(jsii.String("LoggingConfig"),
				map[string]any{"LogGroup": logs.LogGroupName()})
		}
	}
}
