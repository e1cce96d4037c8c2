package main

import (
	"slices"
	"strings"

	"github.com/aws/aws-cdk-go/awscdk/v2"
	"github.com/aws/aws-cdk-go/awscdk/v2/awscloudwatch"
	"github.com/aws/constructs-go/constructs/v10"
	"github.com/aws/jsii-runtime-go"

	"github.com/allo/reservations/internal/route"
)

// newStack is the whole service. Assets is the folder with the built functions, a directory each.
func newStack(scope constructs.Construct, s Settings, assets string) {
	stack := awscdk.NewStack(scope, jsii.String(s.StackName()), stackProps(s))

	db := newDatabase(stack, s)
	functions := newRouted(stack, s, assets, db)
	sweeper := newSweeper(stack, s, assets, db)
	migrate := newMigration(stack, s, assets, db, append(slices.Clone(functions), sweeper.function))
	api := newAPI(stack, s, byName(functions))

	watch := newWatch(stack, s)
	api5xx := watch.watchAPI(api)
	errors := watch.watchFunctions(functions)
	watch.watchSweeper(sweeper)
	db.watch(watch)
	board := watch.dashboard()
	if s.Stage.Canary {
		newRollout(stack, functions, errors, api5xx)
	}

	nameProviderLogs(stack, s)
	tag(stack, s)
	newOutputs(stack, s, outputs{
		api: api, board: board, sweeper: sweeper, db: db, functions: append(functions, sweeper.function, migrate),
	})
}

func stackProps(s Settings) *awscdk.StackProps {
	props := &awscdk.StackProps{
		Description:           jsii.String("Allo Reservations, " + s.Env + ": stock that is held while the customer pays"),
		TerminationProtection: jsii.Bool(s.Stage.Protected),
	}
	if s.PermissionsBoundary != "" {
		props.PermissionsBoundary = awscdk.PermissionsBoundary_FromName(jsii.String(s.PermissionsBoundary))
	}
	return props
}

// newRouted makes each function that the route table names. Of them web alone needs no database.
func newRouted(scope constructs.Construct, s Settings, assets string, db database) []function {
	scope = constructs.NewConstruct(scope, jsii.String("Functions"))
	routes := map[string][]string{}
	var names []string
	for _, r := range append(route.API(), route.Web()...) {
		if routes[r.Function] == nil {
			names = append(names, r.Function)
		}
		routes[r.Function] = append(routes[r.Function], r.Key())
	}
	var functions []function
	for _, name := range names {
		p := functionProps{name: name, description: "Answers " + strings.Join(routes[name], ", "), timeout: apiTimeout}
		if !slices.ContainsFunc(route.Web(), func(r route.Route) bool { return r.Function == name }) {
			p.db, p.as = db, app
		}
		functions = append(functions, newFunction(scope, s, assets, p))
	}
	return functions
}

func byName(functions []function) map[string]function {
	named := map[string]function{}
	for _, f := range functions {
		named[f.name] = f
	}
	return named
}

func tag(stack awscdk.Stack, s Settings) {
	tags := awscdk.Tags_Of(stack)
	// A dashboard has been taggable for too short a time for every tool that checks templates to know it.
	props := &awscdk.TagProps{ExcludeResourceTypes: jsii.Strings("AWS::CloudWatch::Dashboard")}
	for key, value := range map[string]string{"service": "allo-reservations", "env": s.Env, "owner": s.Owner, "cost-centre": s.CostCentre} {
		if value != "" {
			tags.Add(jsii.String(key), jsii.String(value), props)
		}
	}
}

// outputs is what a person needs next.
type outputs struct {
	api       api
	board     awscloudwatch.Dashboard
	sweeper   sweeper
	db        database
	functions []function
}

func newOutputs(stack awscdk.Stack, s Settings, o outputs) {
	output := func(id, description string, value *string) {
		awscdk.NewCfnOutput(stack, jsii.String(id), &awscdk.CfnOutputProps{Value: value, Description: jsii.String(description)})
	}
	var names []*string
	for _, f := range o.functions {
		names = append(names, f.function.FunctionName())
	}
	output("ApiUrl", "The API and the storefront's page", o.api.url)
	output("DashboardUrl", "What to look at", awscdk.Fn_Sub(jsii.String(
		"https://${AWS::Region}.console.aws.amazon.com/cloudwatch/home?region=${AWS::Region}#dashboards/dashboard/"+s.StackName()), nil))
	output("FunctionNames", "The functions; the alias live has the traffic", awscdk.Fn_Join(jsii.String(" "), &names))
	output("LostSweepsQueueUrl", "Where the events of sweeps that were lost are", o.sweeper.lost.QueueUrl())
	output("DatabaseAt", "Where the data is", o.db.describe())
	output("Auth", "Who may confirm a hold", jsii.String(authMeans(s)))
	if s.Auth == AuthIAM {
		for _, r := range route.API() {
			if r.Scope != "" {
				id := "Arn" + strings.ReplaceAll(r.Function, "-", "")
				output(id, "What a role needs execute-api:Invoke on for "+r.Key(), o.api.arn(r))
			}
		}
	}
}

// authMeans says who may confirm a hold. With none it is a warning, which the deploy prints last of all.
func authMeans(s Settings) string {
	switch s.Auth {
	case AuthJWT:
		return "jwt: confirming a hold needs a token of " + s.JWTIssuer + " with the scope " + route.ScopeConfirm
	case AuthIAM:
		return "iam: confirming a hold needs a call that is signed by a role with execute-api:Invoke on it"
	default:
		return "none: THIS IS A DEMONSTRATION. Anyone who knows a hold's id can confirm it without paying. Deploy with auth=jwt or auth=iam before real stock is sold."
	}
}
