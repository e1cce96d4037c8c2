package main

import (
	"slices"
	"time"

	"github.com/aws/aws-cdk-go/awscdk/v2"
	"github.com/aws/constructs-go/constructs/v10"
	"github.com/aws/jsii-runtime-go"
)

// newStack creates the whole service. The folder assets has one directory for each function, with
// the function's built binary in it.
func newStack(scope constructs.Construct, s Settings, assets string) awscdk.Stack {
	stack := awscdk.NewStack(scope, jsii.String(s.StackName()), stackProps(s))
	s.pinZones(stack)
	edge := newEdge(scope, s)

	db := newDatabase(stack, s)
	office := newOffice(stack, s)
	functions := newRouteFunctions(stack, s, assets, db, office)
	sweeper := newSweeper(stack, s, assets, db)
	feed := newFeed(stack, s, assets, db, sweeper)
	live := newLive(stack, s, assets, office)
	api := newAPI(stack, s)
	cdn := newCDN(stack, s, api, edge)
	signIn := newSignIn(stack, s, assets, office, cdn.pages(api))
	api.addRoutes(s, functions, signIn)

	cdn.closeAPI(s, functions)
	live.connect(feed.relay, functions)
	feed.nameSource(s, functions)
	feed.showWebhooks(s, functions)
	signIn.describePages(s, functions)
	asked := slices.Concat(live.functions(), signIn.functions())
	smoke := newSmoke(stack, s, assets, functions, cdn.publicURL(api))
	started := slices.Concat(feed.functions(), []function{sweeper.function}, asked)
	migrate := newMigration(stack, s, assets, db,
		slices.Concat(functions, started, smoke.functions()))
	smoke.guard(s, slices.Concat(functions, started))
	smoke.schedule(s)

	monitoring := newMonitoring(stack, s)
	api5xx := monitoring.addAPI(api)
	monitoring.addThrottledCalls(api)
	functionAlarms := monitoring.addFunctions(functions, asked)
	monitoring.addSweeper(sweeper)
	monitoring.addFeed(feed)
	monitoring.addLive(live)
	monitoring.addSignIn(signIn)
	monitoring.addSynthetic(smoke, sweeper)
	monitoring.addObjectives(functions)
	db.monitor(monitoring)
	db.addBackups(stack, s, monitoring.ownTopic())
	monitoring.newDashboard()

	if s.Canary {
		newRollout(stack, functions, functionAlarms, api5xx)
	}
	redirectProviderLogs(stack, s)
	warnOfUnheardAlarms(stack, s)
	warnOfLateSale(stack, s, time.Now())
	tag(stack, s)
	newOutputs(stack, s, outputs{
		api: api, cdn: cdn, signIn: signIn, live: live, sweeper: sweeper, feed: feed, db: db,
		functions: slices.Concat(functions, started, smoke.functions(), []function{migrate}),
	})
	foldPolicies(stack)
	encryptWithOwnKey(stack, s)
	return stack
}

func stackProps(s Settings) *awscdk.StackProps {
	props := &awscdk.StackProps{
		Description: jsii.String(
			"Allo Reservations, " + s.Env + ": stock that is held while the customer pays"),
		TerminationProtection: jsii.Bool(s.Stage.Protected),
	}
	if s.Account != "" || s.Region != "" {
		props.Env = &awscdk.Environment{Account: optional(s.Account), Region: optional(s.Region)}
	}
	if s.PermissionsBoundary != "" {
		props.PermissionsBoundary = awscdk.PermissionsBoundary_FromName(
			jsii.String(s.PermissionsBoundary))
	}
	return props
}

// optional returns nil for an empty text.
func optional(text string) *string {
	if text == "" {
		return nil
	}
	return &text
}

func tag(stack awscdk.Stack, s Settings) {
	// Dashboards became taggable so recently that some template checkers refuse their tags.
	props := &awscdk.TagProps{ExcludeResourceTypes: jsii.Strings("AWS::CloudWatch::Dashboard")}
	for key, value := range map[string]string{
		"service":     "allo-reservations",
		"env":         s.Env,
		"owner":       s.Owner,
		"cost-centre": s.CostCentre,
	} {
		if value != "" {
			awscdk.Tags_Of(stack).Add(jsii.String(key), jsii.String(value), props)
		}
	}
}
