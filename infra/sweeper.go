package main

import (
	"github.com/aws/aws-cdk-go/awscdk/v2"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsevents"
	"github.com/aws/aws-cdk-go/awscdk/v2/awseventstargets"
	"github.com/aws/aws-cdk-go/awscdk/v2/awslambda"
	"github.com/aws/aws-cdk-go/awscdk/v2/awslambdadestinations"
	"github.com/aws/aws-cdk-go/awscdk/v2/awssqs"
	"github.com/aws/constructs-go/constructs/v10"
	"github.com/aws/jsii-runtime-go"
)

// What becomes of a sweep that didn't take place: the next minute's does its work, so it isn't tried again, and is no longer of use after a
// minute. Lambda's own defaults would try it twice more, and for six hours.
const (
	sweepRetries = 0
	sweepMaxAge  = 60 // seconds
	lostDays     = 14 // how long the queue keeps what was lost, the most that SQS does
)

// sweeper is the function that writes down the dead holds, the rule that runs it every minute, and the queue of the events that were lost:
// those which the rule couldn't hand over, and those on which the function failed.
type sweeper struct {
	function
	rule awsevents.Rule
	lost awssqs.Queue
}

func newSweeper(scope constructs.Construct, s Settings, assets string, db database) sweeper {
	scope = constructs.NewConstruct(scope, jsii.String("Sweeper"))
	lost := awssqs.NewQueue(scope, jsii.String("Lost"), &awssqs.QueueProps{
		QueueName: jsii.String(s.StackName() + "-lost-sweeps"), EnforceSSL: jsii.Bool(true),
		RetentionPeriod: awscdk.Duration_Days(jsii.Number(lostDays)),
	})
	explainQueue(lost)
	sweep := sweeper{lost: lost, function: newFunction(scope, s, assets, functionProps{
		name: "sweep", description: "Writes down the holds that have died, every minute", timeout: sweepTimeout, db: db, as: app,
		concurrency: s.SweeperConcurrency,
		async: &awslambda.EventInvokeConfigOptions{
			RetryAttempts: jsii.Number(sweepRetries), MaxEventAge: awscdk.Duration_Seconds(jsii.Number(sweepMaxAge)),
			OnFailure: awslambdadestinations.NewSqsDestination(lost),
		},
	})}
	sweep.rule = awsevents.NewRule(scope, jsii.String("EveryMinute"), &awsevents.RuleProps{
		RuleName: jsii.String(s.StackName() + "-every-minute"), Description: jsii.String("Runs the sweeper"),
		Schedule: awsevents.Schedule_Rate(awscdk.Duration_Minutes(jsii.Number(1))),
		Enabled:  jsii.Bool(s.Sweeper),
		Targets: &[]awsevents.IRuleTarget{awseventstargets.NewLambdaFunction(sweep.alias, &awseventstargets.LambdaFunctionProps{
			DeadLetterQueue: lost, RetryAttempts: jsii.Number(sweepRetries), MaxEventAge: awscdk.Duration_Seconds(jsii.Number(sweepMaxAge)),
		})},
	})
	return sweep
}
