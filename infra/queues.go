package main

import (
	"strings"

	"github.com/aws/aws-cdk-go/awscdk/v2"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsiam"
	"github.com/aws/aws-cdk-go/awscdk/v2/awssns"
	"github.com/aws/aws-cdk-go/awscdk/v2/awssqs"
	"github.com/aws/constructs-go/constructs/v10"
	"github.com/aws/jsii-runtime-go"
)

const (
	// queueVisibility is how many seconds a consumer has for a message. A Lambda that consumes a
	// queue must have a shorter timeout.
	queueVisibility = 300
	// queueReceives is how often a consumer may fail on a message before it is a dead letter.
	queueReceives = 5
)

// queue is a queue on the topic with its dead letters.
type queue struct {
	name              string
	main, deadLetters awssqs.Queue
}

// queueProps are the properties in which the queues differ.
type queueProps struct {
	// prefix tells a consumer's queue from a webhook's.
	prefix, name string
	// types are the types of the events that the queue gets, none for all.
	types []string
	// visibility is in seconds.
	visibility float64
	// receives is how often a message is received before it is a dead letter.
	receives float64
}

// newQueue creates a queue, its dead letters, and its subscription to the topic. The subscription
// is raw: a message's body is the event. The queue's policy is its caller's (letTopicSend).
func newQueue(scope constructs.Construct, s Settings, topic awssns.Topic, p queueProps) queue {
	scope = constructs.NewConstruct(scope, jsii.String(p.name))
	name := p.prefix + "-" + p.name
	q := queue{name: p.name}
	q.deadLetters = awssqs.NewQueue(scope, jsii.String("Dead"),
		fifoProps(s, "dead-"+name, p.visibility, nil))
	suppressMissingDeadLetterQueue(q.deadLetters)
	q.main = awssqs.NewQueue(scope, jsii.String("Queue"),
		fifoProps(s, name, p.visibility, &awssqs.DeadLetterQueue{
			Queue: q.deadLetters, MaxReceiveCount: jsii.Number(p.receives),
		}))
	subscription := &awssns.SubscriptionProps{
		Topic:              topic,
		Protocol:           awssns.SubscriptionProtocol_SQS,
		Endpoint:           q.main.QueueArn(),
		RawMessageDelivery: jsii.Bool(true),
	}
	if len(p.types) > 0 {
		subscription.FilterPolicyWithMessageBody = &map[string]awssns.FilterOrPolicy{
			"type": awssns.FilterOrPolicy_Filter(awssns.SubscriptionFilter_StringFilter(
				&awssns.StringConditions{Allowlist: jsii.Strings(p.types...)})),
		}
	}
	added := awssns.NewSubscription(scope, jsii.String("Subscription"), subscription)
	// What the topic can't give to the queue is a dead letter too. The construct's own property would
	// give the dead letters a second policy, of which SQS keeps only one.
	resource, _ := added.Node().DefaultChild().(awssns.CfnSubscription)
	resource.SetRedrivePolicy(map[string]any{"deadLetterTargetArn": q.deadLetters.QueueArn()})
	return q
}

// fifoProps returns the properties of a queue that keeps the order of each subject's events.
func fifoProps(
	s Settings, name string, visibility float64, dead *awssqs.DeadLetterQueue,
) *awssqs.QueueProps {
	return &awssqs.QueueProps{
		QueueName:           jsii.String(s.StackName() + "-" + name + ".fifo"),
		Fifo:                jsii.Bool(true),
		FifoThroughputLimit: awssqs.FifoThroughputLimit_PER_MESSAGE_GROUP_ID,
		DeduplicationScope:  awssqs.DeduplicationScope_MESSAGE_GROUP,
		Encryption:          awssqs.QueueEncryption_SQS_MANAGED,
		RetentionPeriod:     awscdk.Duration_Days(jsii.Number(deadLetterDays)),
		VisibilityTimeout:   awscdk.Duration_Seconds(jsii.Number(visibility)),
		DeadLetterQueue:     dead,
	}
}

// addQueues creates the consumers' queues.
func (f *feed) addQueues(scope constructs.Construct, s Settings) {
	if len(s.Queues) == 0 {
		return
	}
	scope = constructs.NewConstruct(scope, jsii.String("Queues"))
	for _, q := range s.Queues {
		f.queues = append(f.queues, newQueue(scope, s, f.topic, queueProps{
			prefix: "queue", name: q.Name, types: q.Types,
			visibility: queueVisibility, receives: queueReceives,
		}))
	}
	letTopicSend(scope, f.topic, f.queues)
}

// letTopicSend gives the queues a policy, and their dead letters another one.
func letTopicSend(scope constructs.Construct, topic awssns.Topic, queues []queue) {
	var mains, dead []awssqs.IQueue
	for _, q := range queues {
		mains, dead = append(mains, q.main), append(dead, q.deadLetters)
	}
	newQueuePolicy(scope, "Policy", topic, mains)
	newQueuePolicy(scope, "DeadPolicy", topic, dead)
}

// newQueuePolicy creates a policy of queues that lets the topic send and refuses plain HTTP. One
// policy of many queues is one resource of the stack, and in it "*" stands for the queue whose
// policy it is.
func newQueuePolicy(
	scope constructs.Construct, id string, topic awssns.Topic, queues []awssqs.IQueue,
) {
	policy := awssqs.NewQueuePolicy(scope, jsii.String(id),
		&awssqs.QueuePolicyProps{Queues: &queues})
	policy.Document().AddStatements(awsiam.NewPolicyStatement(&awsiam.PolicyStatementProps{
		Sid:        jsii.String("TheTopicSends"),
		Actions:    jsii.Strings("sqs:SendMessage"),
		Resources:  jsii.Strings("*"),
		Principals: &[]awsiam.IPrincipal{servicePrincipal("sns.amazonaws.com")},
		Conditions: &map[string]any{
			"ArnEquals": map[string]any{"aws:SourceArn": topic.TopicArn()},
		},
	}), awsiam.NewPolicyStatement(&awsiam.PolicyStatementProps{
		Sid:        jsii.String("OnlyTLS"),
		Effect:     awsiam.Effect_DENY,
		Actions:    jsii.Strings("sqs:*"),
		Resources:  jsii.Strings("*"),
		Principals: &[]awsiam.IPrincipal{awsiam.NewAnyPrincipal()},
		Conditions: &map[string]any{"Bool": map[string]any{"aws:SecureTransport": "false"}},
	}))
}

func servicePrincipal(service string) awsiam.IPrincipal {
	return awsiam.NewServicePrincipal(jsii.String(service), nil)
}

// outputID returns the id of an output for a name: ids have no hyphens.
func outputID(prefix, name string) string { return prefix + strings.ReplaceAll(name, "-", "") }
