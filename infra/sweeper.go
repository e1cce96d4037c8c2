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

// A failed sweep isn't retried: the next minute's sweep does its work. By default Lambda would
// retry it twice and keep its event for six hours.
const (
	sweepRetries = 0
	sweepMaxAge  = 60 // seconds
	// deadLetterDays is how long the queue keeps an event: SQS's maximum.
	deadLetterDays = 14
)

// sweeper is the function that marks dead holds as expired, the rule that runs it every minute, and
// a queue of dead letters: events that the rule couldn't deliver or that the function failed on.
type sweeper struct {
	function
	rule        awsevents.Rule
	deadLetters awssqs.Queue
}

func newSweeper(scope constructs.Construct, s Settings, assets string, db database) sweeper {
	scope = constructs.NewConstruct(scope, jsii.String("Sweeper"))
	deadLetters := awssqs.NewQueue(scope, jsii.String("Lost"), &awssqs.QueueProps{
		QueueName:       jsii.String(s.StackName() + "-lost-sweeps"),
		EnforceSSL:      jsii.Bool(true),
		RetentionPeriod: awscdk.Duration_Days(jsii.Number(deadLetterDays)),
	})
	suppressMissingDeadLetterQueue(deadLetters)
	maxAge := awscdk.Duration_Seconds(jsii.Number(sweepMaxAge))
	sweep := newFunction(scope, s, assets, functionProps{
		name:        "sweep",
		description: "Marks dead holds as expired, every minute",
		timeout:     sweepTimeout,
		db:          db,
		as:          roleApp,
		reads:       ownReader, // the audit
		concurrency: s.SweeperConcurrency,
		async: &awslambda.EventInvokeConfigOptions{
			RetryAttempts: jsii.Number(sweepRetries),
			MaxEventAge:   maxAge,
			OnFailure:     awslambdadestinations.NewSqsDestination(deadLetters),
		},
	})
	target := awseventstargets.NewLambdaFunction(sweep.alias,
		&awseventstargets.LambdaFunctionProps{
			DeadLetterQueue: deadLetters,
			RetryAttempts:   jsii.Number(sweepRetries),
			MaxEventAge:     maxAge,
		})
	rule := awsevents.NewRule(scope, jsii.String("EveryMinute"), &awsevents.RuleProps{
		RuleName:    jsii.String(s.StackName() + "-every-minute"),
		Description: jsii.String("Runs the sweeper every minute"),
		Schedule:    awsevents.Schedule_Rate(awscdk.Duration_Minutes(jsii.Number(1))),
		Enabled:     jsii.Bool(s.Sweeper),
		Targets:     &[]awsevents.IRuleTarget{target},
	})
	return sweeper{function: sweep, rule: rule, deadLetters: deadLetters}
}
