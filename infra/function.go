package main

import (
	"path/filepath"
	"strings"

	"github.com/aws/aws-cdk-go/awscdk/v2"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsiam"
	"github.com/aws/aws-cdk-go/awscdk/v2/awslambda"
	"github.com/aws/aws-cdk-go/awscdk/v2/awslogs"
	"github.com/aws/constructs-go/constructs/v10"
	"github.com/aws/jsii-runtime-go"
)

// The timeouts, in seconds. Each limit is answered for by the one inside it: the gateway gives up after 29, an API function after 10, a
// request after 7 (internal/httpapi), a statement after 5 and a lock after 2 (internal/migrate).
const (
	gatewayTimeout = 29
	apiTimeout     = 10
	// sweepTimeout ends a sweep before the next minute's begins.
	sweepTimeout = 50
	// migrateTimeout is for a migration that rewrites a large table; the trigger around it waits for longer.
	migrateTimeout = 300
	triggerTimeout = 360
)

// memory is what a function gets, in MiB. A start is as fast from 128 to 1024, measured by others; the service itself needs 30.
const memory = 256

// live is the alias that the traffic, the rule and the permissions go to, so that a new version is nothing until the alias moves.
const live = "live"

// function is a Lambda with a role and a log of its own, and its alias.
type function struct {
	name     string
	function awslambda.Function
	alias    awslambda.Alias
}

// functionProps are what the functions differ in.
type functionProps struct {
	// name is its directory's under functions/, and under the assets.
	name, description string
	timeout           float64
	// db and as are where it finds the database, and who it is there. A function without db has neither.
	db database
	as role
	// concurrency is reserved for it, when it isn't 0.
	concurrency int
	// async is what becomes of an event that it didn't take.
	async *awslambda.EventInvokeConfigOptions
}

// newFunction makes a function from the directory of its name in assets, which holds a bootstrap that was built for the settings'
// architecture.
func newFunction(scope constructs.Construct, s Settings, assets string, p functionProps) function {
	scope = constructs.NewConstruct(scope, jsii.String(p.name))
	name := s.StackName() + "-" + p.name
	logs := newLogGroup(scope, "Logs", s, p.name)
	props := &awslambda.FunctionProps{
		FunctionName: jsii.String(name),
		Description:  jsii.String(p.description),
		Runtime:      awslambda.Runtime_PROVIDED_AL2023(),
		Architecture: architecture(s),
		Handler:      jsii.String("bootstrap"),
		Code:         awslambda.Code_FromAsset(jsii.String(filepath.Join(assets, p.name)), nil),
		MemorySize:   jsii.Number(memory),
		Timeout:      awscdk.Duration_Seconds(jsii.Number(p.timeout)),
		Role:         newRole(scope, logs),
		Environment:  variables(s),
		Tracing:      awslambda.Tracing_ACTIVE,
		// Lambda's own lines are JSON then, as ours are.
		LoggingFormat: awslambda.LoggingFormat_JSON, LogGroup: logs,
		RecursiveLoop: awslambda.RecursiveLoop_TERMINATE,
		// An alias that is moved back by hand finds the version that it had. One that a deploy made which was then rolled back goes, or the next
		// deploy of the same code would find it there and fail.
		CurrentVersionOptions: &awslambda.VersionOptions{RemovalPolicy: awscdk.RemovalPolicy_RETAIN_ON_UPDATE_OR_DELETE},
	}
	if p.concurrency > 0 {
		props.ReservedConcurrentExecutions = jsii.Number(p.concurrency)
	}
	if p.db != nil {
		p.db.attach(props, p.as)
	} else {
		setVariables(props, nil, nil)
	}
	f := function{name: p.name, function: awslambda.NewFunction(scope, jsii.String("Function"), props)}
	if p.db != nil {
		p.db.grant(f.function, p.as)
	}
	explainWildcards(f.function)
	alias := &awslambda.AliasProps{AliasName: jsii.String(live), Version: f.function.CurrentVersion()}
	if p.async != nil {
		alias.RetryAttempts, alias.MaxEventAge, alias.OnFailure = p.async.RetryAttempts, p.async.MaxEventAge, p.async.OnFailure
	}
	f.alias = awslambda.NewAlias(scope, jsii.String("Alias"), alias)
	return f
}

// variables are every function's; what says where the database is comes from it.
func variables(s Settings) *map[string]*string {
	env := map[string]*string{"METRIC_NAMESPACE": jsii.String(metricNamespace(s))}
	if s.HoldTTL != "" {
		env["HOLD_TTL"] = jsii.String(s.HoldTTL)
	}
	if s.MaxHold != "" {
		env["MAX_HOLD"] = jsii.String(s.MaxHold)
	}
	return &env
}

func architecture(s Settings) awslambda.Architecture {
	if s.Arch == "x86_64" {
		return awslambda.Architecture_X86_64()
	}
	return awslambda.Architecture_ARM_64()
}

// newRole may write its own log, and nothing else until it is granted more. AWS's managed policy may write every log of the account.
func newRole(scope constructs.Construct, logs awslogs.LogGroup) awsiam.Role {
	role := awsiam.NewRole(scope, jsii.String("Role"), &awsiam.RoleProps{AssumedBy: awsiam.NewServicePrincipal(jsii.String("lambda.amazonaws.com"), nil)})
	logs.GrantWrite(role)
	return role
}

// functionARN is a function's by its name, for what has to be known before the function is made.
func functionARN(scope constructs.Construct, name string) *string {
	return awscdk.Stack_Of(scope).FormatArn(&awscdk.ArnComponents{
		Service: jsii.String("lambda"), Resource: jsii.String("function"), ResourceName: jsii.String(name), ArnFormat: awscdk.ArnFormat_COLON_RESOURCE_NAME,
	})
}

// newLogGroup makes a log that ends: none is kept for ever. A name that doesn't begin with a slash is put under the stack's. In prod logs
// outlive the stack, but not a first deploy that failed, whose next try would find them in its way.
func newLogGroup(scope constructs.Construct, id string, s Settings, name string) awslogs.LogGroup {
	if !strings.HasPrefix(name, "/") {
		name = "/" + s.StackName() + "/" + name
	}
	removal := awscdk.RemovalPolicy_DESTROY
	if s.Stage.Protected {
		removal = awscdk.RemovalPolicy_RETAIN_ON_UPDATE_OR_DELETE
	}
	return awslogs.NewLogGroup(scope, jsii.String(id), &awslogs.LogGroupProps{
		LogGroupName: jsii.String(name), Retention: s.Stage.Logs, RemovalPolicy: removal,
	})
}

// nameProviderLogs gives a log that ends to the functions that the CDK brings to run a deploy's own steps: left alone, each would write to
// one that is kept for ever.
func nameProviderLogs(stack awscdk.Stack, s Settings) {
	logs := newLogGroup(stack, "DeployLogs", s, "deploy")
	for _, node := range *stack.Node().FindAll(constructs.ConstructOrder_PREORDER) {
		if resource, ok := node.(awscdk.CfnResource); ok && *resource.CfnResourceType() == "AWS::Lambda::Function" {
			if strings.Contains(*resource.Node().Path(), "CustomResourceProvider") {
				resource.AddPropertyOverride(jsii.String("LoggingConfig"), map[string]any{"LogGroup": logs.LogGroupName()})
			}
		}
	}
}
