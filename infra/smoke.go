package main

import (
	"maps"
	"slices"
	"strings"

	"github.com/aws/aws-cdk-go/awscdk/v2"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsiam"
	"github.com/aws/aws-cdk-go/awscdk/v2/triggers"
	"github.com/aws/constructs-go/constructs/v10"
	"github.com/aws/jsii-runtime-go"
)

const (
	// smokeTimeout outlasts the check's own limits (internal/app/smoke).
	smokeTimeout = 120
	// smokeTriggerTimeout is how long a deploy waits for the check.
	smokeTriggerTimeout = 150
)

// smoked are the functions whose new versions a deploy checks: those that take and sell stock, and
// those of the back office that the check needs to make a product.
var smoked = []string{
	"health", "put-products", "put-warehouses", "move-stock", "list-stock", "list-products", "reserve",
	"get-reservation", "extend", "release", "start-payment", "confirm",
}

// smoke is the function that checks the new versions in a deploy, and the public address each five
// minutes. It is in no network: it calls the functions through Lambda, and the address from outside
// as shoppers do.
type smoke struct{ function }

// newSmoke returns nil with smoke=off and synthetic=off.
func newSmoke(
	scope constructs.Construct, s Settings, assets string, routed []function, public *string,
) *smoke {
	scope = constructs.NewConstruct(scope, jsii.String("Smoke"))
	if !s.Smoke && !s.Synthetic {
		keepFunctionLogs(scope, s, "smoke")
		return nil
	}
	variables, called := map[string]*string{}, versionsOf(routed)
	if s.Smoke {
		var pairs []*string
		for _, name := range slices.Sorted(maps.Keys(called)) {
			pairs = append(pairs, awscdk.Fn_Join(jsii.String("="),
				&[]*string{jsii.String(name), called[name]}))
		}
		variables["SMOKE_FUNCTIONS"] = awscdk.Fn_Join(jsii.String(","), &pairs)
		variables["STACK_ID"] = awscdk.Aws_STACK_ID()
	}
	if s.Synthetic {
		variables["PUBLIC_URL"] = public
	}
	for name, value := range smokeVariables(s) {
		variables[name] = jsii.String(value)
	}
	k := &smoke{newFunction(scope, s, assets, functionProps{
		name:        "smoke",
		description: "Checks the new versions in a deploy, and the public address",
		timeout:     smokeTimeout,
		variables:   variables,
	})}
	if s.Smoke {
		k.allowCalls(s)
	}
	return k
}

// smokeVariables returns the variables that aren't references.
func smokeVariables(s Settings) map[string]string {
	variables := map[string]string{}
	switch {
	case s.UsesTokens():
		variables["SMOKE_AUTH"] = "jwt"
	case s.Auth == AuthIAM:
		variables["SMOKE_AUTH"] = "iam"
	}
	if s.ReserveAuth {
		variables["SMOKE_RESERVE_AUTH"] = "on"
	}
	if s.SyntheticSKU != "" {
		variables["SYNTHETIC_SKU"] = s.SyntheticSKU
	}
	return variables
}

// versionsOf returns the ARNs of the new versions that the check calls, by the functions' names. It
// changes with each of them, so the function smoke gets a new version too, and its trigger runs.
func versionsOf(routed []function) map[string]*string {
	versions := map[string]*string{}
	for _, f := range routed {
		if slices.Contains(smoked, f.name) {
			versions[f.name] = f.function.CurrentVersion().FunctionArn()
		}
	}
	return versions
}

// allowCalls lets the function call each version of the functions that it checks, and ask whether
// the stack is going back. The permission names no version: a permission that changed in each
// deploy would take some seconds to be known everywhere.
func (k *smoke) allowCalls(s Settings) {
	var versions []*string
	for _, name := range smoked {
		versions = append(versions, functionARN(k.function.function, s.StackName()+"-"+name+":*"))
	}
	k.function.function.AddToRolePolicy(awsiam.NewPolicyStatement(&awsiam.PolicyStatementProps{
		Actions: jsii.Strings("lambda:InvokeFunction"), Resources: &versions,
	}))
	k.function.function.AddToRolePolicy(allow("cloudformation:DescribeStacks", awscdk.Aws_STACK_ID()))
	suppressEachVersion(k.function.function, s)
}

// guard runs the check in each deploy that changes a version, after the new versions are there and
// before any alias moves to one, so also before CodeDeploy begins a canary: an alias begins its
// canary when CloudFormation updates it.
//
// A check that fails ends the deploy. CloudFormation then runs the previous release's check, whose
// versions are still there; the function lets a failure pass while the stack goes back, because it
// would only leave the stack in the state UPDATE_ROLLBACK_FAILED.
func (k *smoke) guard(s Settings, functions []function) {
	if k == nil || !s.Smoke {
		return
	}
	trigger := triggers.NewTrigger(k.function.function, jsii.String("Trigger"), &triggers.TriggerProps{
		Handler:        k.function.function,
		InvocationType: triggers.InvocationType_REQUEST_RESPONSE,
		// The trigger's connection times out after this, and the trigger would then call again.
		Timeout: awscdk.Duration_Seconds(jsii.Number(smokeTriggerTimeout)),
	})
	for _, f := range append(functions, k.function) {
		trigger.ExecuteBefore(f.alias)
	}
	nameHandlers(awscdk.Stack_Of(trigger), s)
}

// nameHandlers lets the CDK's function behind the triggers invoke their handlers by their names. By
// default its role refers to the functions, and so to smoke, which refers to the new versions. They
// wait for the migration's trigger, which needs that role. CloudFormation refuses such a circle.
func nameHandlers(stack awscdk.Stack, s Settings) {
	var handlers []*string
	for _, name := range []string{"migrate", "smoke"} {
		handlers = append(handlers, functionARN(stack, s.StackName()+"-"+name+":*"))
	}
	role, _ := stack.Node().FindChild(jsii.String(triggerProvider)).Node().
		FindChild(jsii.String("Role")).(awscdk.CfnResource)
	role.AddPropertyOverride(jsii.String("Policies"), []any{map[string]any{
		"PolicyName": "Inline",
		"PolicyDocument": map[string]any{
			"Version": "2012-10-17",
			"Statement": []any{map[string]any{
				"Effect": "Allow", "Action": "lambda:InvokeFunction", "Resource": handlers,
			}},
		},
	}})
}

// triggerProvider is the id of the CDK's function behind all triggers of a stack.
const triggerProvider = "AWSCDK.TriggerCustomResourceProviderCustomResourceProvider"

// functions returns the function, if there is one.
func (k *smoke) functions() []function {
	if k == nil {
		return nil
	}
	return []function{k.function}
}

// eachVersion matches cdk-nag's findings about a permission on each version of a function.
func eachVersion(s Settings) string {
	return `/^Resource::.*:function:` + s.StackName() + `-(` + strings.Join(smoked, "|") + `):\*$/`
}
