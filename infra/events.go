package main

import (
	"slices"
	"strconv"

	"github.com/aws/aws-cdk-go/awscdk/v2"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsevents"
	"github.com/aws/aws-cdk-go/awscdk/v2/awseventstargets"
	"github.com/aws/aws-cdk-go/awscdk/v2/awslambda"
	"github.com/aws/aws-cdk-go/awscdk/v2/awslambdadestinations"
	"github.com/aws/aws-cdk-go/awscdk/v2/awssns"
	"github.com/aws/constructs-go/constructs/v10"
	"github.com/aws/jsii-runtime-go"
)

const (
	// relaySeconds is how long a run of the relay polls the outbox with events=on. The next minute's
	// run begins then. When it begins sooner, it waits for the leases of this one.
	relaySeconds = 59
	// relayTimeout lets a run finish the calls that it began before its end: one of the outbox, which
	// may take fifteen seconds, and the five of the one that gives the leases back.
	relayTimeout = 80
	// busDays is how long the bus keeps events for a replay.
	busDays = 30
)

// feed is the ledger's way out: what publishes events, and the queues that take them.
//
// Two functions publish. outbox reads the database, from within its network, and may call nothing.
// relay asks outbox for pages and publishes them; it is in no network and knows no database. So the
// network needs no way out.
type feed struct {
	topic    awssns.Topic
	bus      awsevents.EventBus // nil without bus=on
	outbox   function
	relay    *function // nil with events=off
	queues   []queue
	webhooks []queue
	deliver  *function // nil without webhooks
}

func newFeed(
	scope constructs.Construct, s Settings, assets string, db database, sweep sweeper,
) feed {
	scope = constructs.NewConstruct(scope, jsii.String("Events"))
	f := feed{topic: newEventTopic(scope, s)}
	if s.Bus {
		f.bus = newBus(scope, s)
	}
	f.outbox = newFunction(scope, s, assets, functionProps{
		name:        "outbox",
		description: "Reads the events of the ledger in pages, for the relay",
		timeout:     apiTimeout,
		db:          db,
		as:          roleApp,
	})
	if s.Events != EventsOff {
		relay := newRelay(scope, s, assets, f, sweep)
		f.relay = &relay
	} else {
		keepFunctionLogs(scope, s, "relay")
	}
	f.addQueues(scope, s)
	f.addWebhooks(scope, s, assets)
	return f
}

// newEventTopic creates the topic. It keeps the order of each subject's events, and drops an event
// that is published again within five minutes.
func newEventTopic(scope constructs.Construct, s Settings) awssns.Topic {
	props := &awssns.TopicProps{
		TopicName: jsii.String(s.StackName() + "-events.fifo"),
		Fifo:      jsii.Bool(true),
		// An event's id tells it apart, and not its content.
		ContentBasedDeduplication: jsii.Bool(false),
		FifoThroughputScope:       awssns.FifoThroughputScope_MESSAGE_GROUP,
		EnforceSSL:                jsii.Bool(true),
	}
	if s.Stage.ArchiveDays > 0 {
		props.MessageRetentionPeriodInDays = jsii.Number(s.Stage.ArchiveDays)
	}
	topic := awssns.NewTopic(scope, jsii.String("Topic"), props)
	resource, _ := topic.Node().DefaultChild().(awssns.CfnTopic)
	// AWS's own key of the account. It lets every role of the account use it that may publish.
	resource.SetKmsMasterKeyId(jsii.String("alias/aws/sns"))
	if s.Stage.Protected {
		// The subscriptions of other stacks would be lost with the topic.
		topic.ApplyRemovalPolicy(awscdk.RemovalPolicy_RETAIN_ON_UPDATE_OR_DELETE)
	}
	return topic
}

// newBus creates the bus for consumers that need no order, and its archive.
func newBus(scope constructs.Construct, s Settings) awsevents.EventBus {
	name := jsii.String(s.StackName() + "-events")
	bus := awsevents.NewEventBus(scope, jsii.String("Bus"), &awsevents.EventBusProps{
		EventBusName: name,
		Description:  jsii.String("The events of " + s.StackName() + ", without an order"),
	})
	awsevents.NewArchive(scope, jsii.String("Archive"), &awsevents.ArchiveProps{
		ArchiveName:    name,
		SourceEventBus: bus,
		EventPattern:   &awsevents.EventPattern{Account: &[]*string{awscdk.Aws_ACCOUNT_ID()}},
		Retention:      awscdk.Duration_Days(jsii.Number(busDays)),
	})
	return bus
}

// newRelay creates the relay, which the minute rule runs. A run that failed isn't repeated: the
// next minute's run does its work. An event of the rule that got lost goes to the sweeper's queue.
func newRelay(
	scope constructs.Construct, s Settings, assets string, f feed, sweep sweeper,
) function {
	seconds := 0 // until nothing is left
	if s.Events == EventsOn {
		seconds = relaySeconds
	}
	variables := map[string]*string{
		"TOPIC_ARN":       f.topic.TopicArn(),
		"OUTBOX_FUNCTION": f.outbox.alias.FunctionArn(),
		"RELAY_SECONDS":   jsii.String(strconv.Itoa(seconds)),
	}
	if f.bus != nil {
		variables["BUS_NAME"] = f.bus.EventBusName()
	}
	maxAge := awscdk.Duration_Seconds(jsii.Number(sweepMaxAge))
	relay := newFunction(scope, s, assets, functionProps{
		name:        "relay",
		description: "Publishes the events of the ledger, started every minute",
		timeout:     relayTimeout,
		variables:   variables,
		async: &awslambda.EventInvokeConfigOptions{
			RetryAttempts: jsii.Number(sweepRetries),
			MaxEventAge:   maxAge,
			OnFailure:     awslambdadestinations.NewSqsDestination(sweep.deadLetters),
		},
	})
	relay.function.AddToRolePolicy(allow("lambda:InvokeFunction", f.outbox.alias.FunctionArn()))
	relay.function.AddToRolePolicy(allow("sns:Publish", f.topic.TopicArn()))
	if f.bus != nil {
		relay.function.AddToRolePolicy(allow("events:PutEvents", f.bus.EventBusArn()))
	}
	sweep.rule.AddTarget(awseventstargets.NewLambdaFunction(relay.alias,
		&awseventstargets.LambdaFunctionProps{
			DeadLetterQueue: sweep.deadLetters,
			RetryAttempts:   jsii.Number(sweepRetries),
			MaxEventAge:     maxAge,
		}))
	return relay
}

// functions returns the feed's own functions.
func (f feed) functions() []function {
	all := []function{f.outbox}
	for _, more := range []*function{f.relay, f.deliver} {
		if more != nil {
			all = append(all, *more)
		}
	}
	return all
}

// writers are the functions that write events: each needs the stack's name, which is a part of an
// event.
var writers = []string{"outbox", "list-events"}

// nameSource tells the functions that write events the stack's name.
func (f feed) nameSource(s Settings, routed []function) {
	setVariables(slices.Concat(f.functions(), routed), writers,
		map[string]*string{"EVENT_SOURCE": jsii.String(s.StackName())})
}
