package main

import (
	"github.com/aws/aws-cdk-go/awscdk/v2/awsiam"
	"github.com/aws/aws-cdk-go/awscdk/v2/awslambdaeventsources"
	"github.com/aws/aws-cdk-go/awscdk/v2/awssecretsmanager"
	"github.com/aws/constructs-go/constructs/v10"
	"github.com/aws/jsii-runtime-go"
)

const (
	// deliverTimeout allows for a post, which takes at most 15 s, and for telling the queue.
	deliverTimeout = 30
	// deliverBatch is one, because the time since a message's first receive chooses its delay: one
	// behind a failed message of its subject isn't received meanwhile (internal/app/deliver).
	deliverBatch = 1
	// webhookVisibility is six times the timeout, as AWS advises. It counts for a message whose
	// delivery was cut off; the function sets the time of every other failed message.
	webhookVisibility = 6 * deliverTimeout
	// webhookReceives is for a message at which the function crashes: SQS's maximum, because a message
	// that Lambda throttles is received again each three minutes without an attempt. The function
	// itself moves the others to the dead letters after their last attempt.
	webhookReceives = 1000
)

// showWebhooks lets the operator's functions see the webhooks, and move dead letters back.
func (f feed) showWebhooks(s Settings, routed []function) {
	queues := map[string]queue{}
	for _, q := range f.webhooks {
		queues[q.name] = q
	}
	shown := webhookQueuesVariable(s.Webhooks,
		func(name string) string { return *queues[name].main.QueueArn() })
	variables := map[string]*string{"WEBHOOK_QUEUES": jsii.String(shown)}
	if f.deliver != nil {
		variables["DELIVER_LOG_GROUP"] = f.deliver.logs.LogGroupName()
	}
	setVariables(routed, []string{"list-webhooks", "redeliver-webhook"}, variables)
	for _, operators := range routed {
		switch operators.name {
		case "list-webhooks":
			f.letShow(operators)
		case "redeliver-webhook":
			f.letRedeliver(operators)
		}
	}
}

// letShow lets a function read how the webhooks stand.
func (f feed) letShow(shows function) {
	for _, q := range f.webhooks {
		allowEach(shows, q.main.QueueArn(), "sqs:GetQueueAttributes", "sqs:ListQueueTags")
		allowEach(shows, q.deadLetters.QueueArn(), "sqs:GetQueueAttributes")
	}
	if f.deliver != nil {
		allowEach(shows, f.deliver.logs.LogGroupArn(), "logs:FilterLogEvents")
		// The ages of the queues' oldest messages. A metric has no ARN.
		allowEach(shows, jsii.String("*"), "cloudwatch:GetMetricData")
	}
}

// letRedeliver lets a function move the dead letters of the webhooks back. SQS moves them with the
// rights of its caller.
func (f feed) letRedeliver(moves function) {
	for _, q := range f.webhooks {
		allowEach(moves, q.main.QueueArn(), "sqs:UntagQueue", "sqs:SendMessage")
		allowEach(moves, q.deadLetters.QueueArn(), "sqs:GetQueueAttributes",
			"sqs:StartMessageMoveTask", "sqs:ListMessageMoveTasks", "sqs:ReceiveMessage",
			"sqs:DeleteMessage")
	}
}

// allowEach allows a function some actions on one resource.
func allowEach(f function, resource *string, actions ...string) {
	f.function.AddToRolePolicy(awsiam.NewPolicyStatement(&awsiam.PolicyStatementProps{
		Actions: jsii.Strings(actions...), Resources: &[]*string{resource},
	}))
}

// addWebhooks creates a queue for each webhook, so that a dead endpoint costs only its own events,
// and the function that posts them.
func (f *feed) addWebhooks(scope constructs.Construct, s Settings, assets string) {
	scope = constructs.NewConstruct(scope, jsii.String("Webhooks"))
	if len(s.Webhooks) == 0 {
		keepFunctionLogs(scope, s, "deliver")
		return
	}
	deliver := newFunction(scope, s, assets, functionProps{
		name:        "deliver",
		description: "Posts events to the webhooks",
		timeout:     deliverTimeout,
		variables: map[string]*string{
			"WEBHOOKS": jsii.String(webhooksVariable(s.Webhooks)),
		},
	})
	f.deliver = &deliver
	secrets := map[string]bool{}
	for _, w := range s.Webhooks {
		q := newQueue(scope, s, f.topic, queueProps{
			prefix: "webhook", name: w.Name, types: w.Types,
			visibility: webhookVisibility, receives: webhookReceives,
		})
		deliver.alias.AddEventSource(awslambdaeventsources.NewSqsEventSource(q.main,
			&awslambdaeventsources.SqsEventSourceProps{
				BatchSize:               jsii.Number(deliverBatch),
				ReportBatchItemFailures: jsii.Bool(true),
				MaxConcurrency:          jsii.Number(w.Concurrency),
			}))
		// The function marks the queue of an endpoint that answered 410 with a tag.
		for _, action := range []string{"sqs:TagQueue", "sqs:ListQueueTags"} {
			deliver.function.AddToRolePolicy(allow(action, q.main.QueueArn()))
		}
		deliver.function.AddToRolePolicy(allow("sqs:SendMessage", q.deadLetters.QueueArn()))
		f.webhooks = append(f.webhooks, q)
		if !secrets[w.Secret] {
			secrets[w.Secret] = true
			secret := awssecretsmanager.Secret_FromSecretNameV2(
				scope, jsii.String("Secret-"+w.Name), jsii.String(w.Secret))
			// An ARN ends with a hyphen and six characters, which the name doesn't tell.
			deliver.function.AddToRolePolicy(allow("secretsmanager:GetSecretValue",
				jsii.String(*secret.SecretArn()+"-??????")))
		}
	}
	letTopicSend(scope, f.topic, f.webhooks)
}
