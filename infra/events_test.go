package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/allo/reservations/internal/events/webhook"
)

// webhooks returns a mode's webhooks, from the variable of deliver.
func (tpl template) webhooks(mode string) (all []Webhook) {
	variable, _ := tpl.functions(mode)["deliver"].
		get("Environment", "Variables", "WEBHOOKS").(string)
	if variable != "" {
		if err := json.Unmarshal([]byte(variable), &all); err != nil {
			panic(err)
		}
	}
	return all
}

// wantFeedVariables returns the variables of the feed's functions. A value of nil is a reference.
func wantFeedVariables(mode, name string) map[string]any {
	want := map[string]any{}
	switch name {
	case "outbox", "list-events":
		want["EVENT_SOURCE"] = stackName(mode)
	case "relay":
		want["TOPIC_ARN"], want["OUTBOX_FUNCTION"] = nil, nil
		want["RELAY_SECONDS"] = map[Events]string{EventsOn: "59", EventsMinute: "0"}[eventsOf(mode)]
		if modes[mode]["bus"] == "on" {
			want["BUS_NAME"] = nil
		}
	case "deliver":
		want["WEBHOOKS"] = nil
	case "list-webhooks", "redeliver-webhook":
		want["WEBHOOK_QUEUES"] = "[]"
		if modes[mode]["webhooks"] != "" {
			want["WEBHOOK_QUEUES"], want["DELIVER_LOG_GROUP"] = nil, nil
		}
	}
	return want
}

// eventTopic returns the topic of a mode's events.
func (tpl template) eventTopic(t *testing.T, mode string) resource {
	t.Helper()
	return tpl.named(t, "AWS::SNS::Topic", "TopicName", stackName(mode)+"-events.fifo")
}

func TestTheTopicKeepsOrderIsEncryptedAndArchivedInProd(t *testing.T) {
	eachMode(t, func(t *testing.T, mode string, tpl template) {
		topic := tpl.eventTopic(t, mode)
		want := map[string]any{
			"FifoTopic": true, "FifoThroughputScope": "MessageGroup",
			"ContentBasedDeduplication": false, "KmsMasterKeyId": "alias/aws/sns",
			"ArchivePolicy": nil,
		}
		policy := any(nil)
		if isProd(mode) {
			want["ArchivePolicy"] = map[string]any{"MessageRetentionPeriod": 90.0}
			policy = "RetainExceptOnCreate"
		}
		for property, value := range want {
			if diff := gocmp.Diff(value, topic.get(property)); diff != "" {
				t.Errorf("the topic's %s (-want +got):\n%s", property, diff)
			}
		}
		if got := topic.attributes["DeletionPolicy"]; got != policy {
			t.Errorf("the topic's deletion policy is %v, want %v", got, policy)
		}
	})
}

// The names of the variables are those that package config reads.
func TestTheFeedsVariablesLeadToItsResources(t *testing.T) {
	eachMode(t, func(t *testing.T, mode string, tpl template) {
		relay := tpl.functions(mode)["relay"]
		for variable, part := range map[string]string{
			"TOPIC_ARN": `"Ref":"EventsTopic`, "OUTBOX_FUNCTION": `"Ref":"EventsoutboxAlias`,
			"BUS_NAME": `"Ref":"EventsBus`,
		} {
			value := relay.get("Environment", "Variables", variable)
			if value == nil {
				continue // wantVariables has it
			}
			if got := asJSON(value); !strings.Contains(got, part) {
				t.Errorf("%s of the relay is %s, want %s in it", variable, got, part)
			}
		}
	})
}

func TestWithoutARelayTheRestOfTheFeedStays(t *testing.T) {
	const mode = "external-dev"
	tpl := synth(t, mode)
	if _, there := tpl.functions(mode)["relay"]; there {
		t.Error("events=off has a relay")
	}
	tpl.eventTopic(t, mode)
	tpl.named(t, "AWS::SQS::Queue", "QueueName", "allo-dev-queue-crm.fifo")
	if _, there := tpl.functions(mode)["outbox"]; !there {
		t.Error("events=off has no outbox")
	}
}

func TestTheBusHasAnArchive(t *testing.T) {
	tpl := synth(t, "aurora-prod")
	bus, archive := tpl.only(t, "AWS::Events::EventBus"), tpl.only(t, "AWS::Events::Archive")
	if bus.get("Name") != "allo-prod-events" ||
		!strings.Contains(asJSON(archive.get("SourceArn")), bus.id) ||
		archive.get("RetentionDays") != float64(busDays) {
		t.Errorf("the bus is %s, its archive %s", asJSON(bus.properties), asJSON(archive.properties))
	}
	for _, mode := range []string{"aurora-dev", "external-prod"} {
		if found := synth(t, mode).resources("AWS::Events::EventBus"); len(found) > 0 {
			t.Errorf("%s has a bus without bus=on", mode)
		}
	}
}

// consumer is a queue as the settings ask for it, and the resources that it must have.
type consumer struct {
	prefix, name string
	types        []any
	visibility   float64
	receives     float64
}

func wantConsumers() []consumer {
	return []consumer{
		{
			"queue", "fulfilment",
			[]any{"allo.reservation.confirmed", "allo.reservation.released"},
			300, 5,
		},
		{"queue", "crm", nil, 300, 5},
		{"webhook", "erp", []any{"allo.stock.moved"}, 180, 1000},
		{"webhook", "mail", nil, 180, 1000},
	}
}

func TestEachConsumerHasItsQueueDeadLettersAndFilter(t *testing.T) {
	const mode = "aurora-prod"
	for _, problem := range synth(t, mode).consumerProblems(t, mode) {
		t.Error(problem)
	}
}

// These are the controls of the test above.
func TestAConsumersFaultIsFound(t *testing.T) {
	const mode = "aurora-prod"
	body := asJSON(synth(t, mode).body)
	for name, change := range map[string]struct{ old, replacement string }{
		"plain HTTP":         {`"aws:SecureTransport":"false"`, `"aws:SecureTransport":"true"`},
		"anybody's topic":    {`"ArnEquals":{"aws:SourceArn":{"Ref"`, `"ArnEquals":{"aws:Sourc":{"Ref"`},
		"an envelope":        {`"RawMessageDelivery":true`, `"RawMessageDelivery":false`},
		"another filter":     {`"FilterPolicyScope":"MessageBody"`, `"FilterPolicyScope":"None"`},
		"every event":        {`"FilterPolicy":`, `"FilterPolicies":`},
		"no order":           {`"DeduplicationScope":"messageGroup"`, `"DeduplicationScope":"queue"`},
		"endless tries":      {`"maxReceiveCount":5`, `"maxReceiveCount":500`},
		"no encryption":      {`"SqsManagedSseEnabled":true`, `"SqsManagedSseEnabled":false`},
		"lost after a day":   {`"MessageRetentionPeriod":1209600`, `"MessageRetentionPeriod":86400`},
		"an unknown queue":   {`"Protocol":"sqs"`, `"Protocol":"lambda"`},
		"no dead letters":    {`"RedrivePolicy":`, `"Redrive":`},
		"another visibility": {`"VisibilityTimeout":180`, `"VisibilityTimeout":18`},
		"lost by the topic": {
			`"RawMessageDelivery":true,"RedrivePolicy":`, `"RawMessageDelivery":true,"Redrive":`,
		},
		"few receives": {`"maxReceiveCount":1000`, `"maxReceiveCount":20`},
	} {
		t.Run(name, func(t *testing.T) {
			changed := strings.ReplaceAll(body, change.old, change.replacement)
			if changed == body {
				t.Fatalf("the template has no %s", change.old)
			}
			var tpl template
			if err := json.Unmarshal([]byte(changed), &tpl.body); err != nil {
				t.Fatal(err)
			}
			if len(tpl.consumerProblems(t, mode)) == 0 {
				t.Errorf("the test accepts %s", change.replacement)
			}
		})
	}
}

// consumerProblems says what is wrong with the queues that the settings ask for.
func (tpl template) consumerProblems(t *testing.T, mode string) (found []string) {
	t.Helper()
	wrong := func(format string, args ...any) { found = append(found, fmt.Sprintf(format, args...)) }
	for _, c := range wantConsumers() {
		name := c.prefix + "-" + c.name + ".fifo"
		queue := tpl.named(t, "AWS::SQS::Queue", "QueueName", stackName(mode)+"-"+name)
		dead := tpl.named(t, "AWS::SQS::Queue", "QueueName", stackName(mode)+"-dead-"+name)
		for _, q := range []resource{queue, dead} {
			want := map[string]any{
				"FifoQueue": true, "FifoThroughputLimit": "perMessageGroupId",
				"DeduplicationScope": "messageGroup", "SqsManagedSseEnabled": true,
				"MessageRetentionPeriod": 14.0 * 24 * 60 * 60, "VisibilityTimeout": c.visibility,
			}
			for property, value := range want {
				if diff := gocmp.Diff(value, q.get(property)); diff != "" {
					wrong("%s: %s (-want +got):\n%s", q.id, property, diff)
				}
			}
			if !tpl.refusesPlainHTTP(q) {
				wrong("%s allows plain HTTP", q.id)
			}
		}
		redrive := queue.get("RedrivePolicy")
		if dig(redrive, "maxReceiveCount") != c.receives ||
			!strings.Contains(asJSON(redrive), dead.id) {
			wrong("%s: dead letters by %s, want %s after %v", queue.id, asJSON(redrive), dead.id,
				c.receives)
		}
		topic := tpl.eventTopic(t, mode)
		if !tpl.subscribes(topic, queue, c.types) {
			wrong("%s isn't subscribed to the events of %v", queue.id, c.types)
		}
		if !tpl.maySend(topic, queue) || !tpl.maySend(topic, dead) {
			wrong("the topic may not send to %s or its dead letters", queue.id)
		}
		if !tpl.keepsUndelivered(queue, dead) {
			wrong("what the topic can't give to %s is lost", queue.id)
		}
	}
	return found
}

// subscribes reports whether the topic sends a queue the events of these types, as they are.
func (tpl template) subscribes(topic, queue resource, types []any) bool {
	filter, scope := any(nil), any(nil)
	if types != nil {
		filter, scope = map[string]any{"type": types}, "MessageBody"
	}
	return slices.ContainsFunc(tpl.resources("AWS::SNS::Subscription"), func(s resource) bool {
		return strings.Contains(asJSON(s.get("Endpoint")), queue.id) &&
			s.get("TopicArn", "Ref") == topic.id && s.get("Protocol") == "sqs" &&
			s.get("RawMessageDelivery") == true && s.get("FilterPolicyScope") == scope &&
			gocmp.Equal(filter, s.get("FilterPolicy"))
	})
}

// keepsUndelivered reports whether a queue's subscription has the dead letters.
func (tpl template) keepsUndelivered(queue, dead resource) bool {
	return slices.ContainsFunc(tpl.resources("AWS::SNS::Subscription"), func(s resource) bool {
		to, _ := s.get("RedrivePolicy", "deadLetterTargetArn", "Fn::GetAtt").([]any)
		return strings.Contains(asJSON(s.get("Endpoint")), queue.id) && len(to) == 2 &&
			to[0] == dead.id && to[1] == "Arn"
	})
}

// maySend reports whether a queue's policy lets the topic send.
func (tpl template) maySend(topic, queue resource) bool {
	return tpl.inPolicy(queue, func(s map[string]any) bool {
		return s["Effect"] == "Allow" && s["Action"] == "sqs:SendMessage" &&
			asJSON(s["Principal"]) == `{"Service":"sns.amazonaws.com"}` &&
			dig(s["Condition"], "ArnEquals", "aws:SourceArn", "Ref") == topic.id
	})
}

// refusesPlainHTTP reports whether a queue's policy denies every call without TLS.
func (tpl template) refusesPlainHTTP(queue resource) bool {
	return tpl.inPolicy(queue, func(s map[string]any) bool {
		return s["Effect"] == "Deny" && s["Action"] == "sqs:*" &&
			dig(s["Condition"], "Bool", "aws:SecureTransport") == "false"
	})
}

// inPolicy reports whether a queue's policy has a statement.
func (tpl template) inPolicy(queue resource, is func(statement map[string]any) bool) bool {
	return slices.ContainsFunc(tpl.resources("AWS::SQS::QueuePolicy"), func(p resource) bool {
		return strings.Contains(asJSON(p.get("Queues")), queue.id) &&
			slices.ContainsFunc(statements(p), is)
	})
}

// A policy with a star is one for its queue, so nobody but the topic may be in it.
func TestOnlyTheTopicMaySendToAConsumersQueue(t *testing.T) {
	eachMode(t, func(t *testing.T, mode string, tpl template) {
		for _, p := range tpl.resources("AWS::SQS::QueuePolicy") {
			for _, s := range statements(p) {
				star := slices.Contains(asList(s["Resource"]), any("*"))
				if s["Effect"] == "Allow" && star && (s["Action"] != "sqs:SendMessage" ||
					dig(s["Condition"], "ArnEquals", "aws:SourceArn", "Ref") !=
						tpl.eventTopic(t, mode).id) {
					t.Errorf("%s allows %s", p.id, asJSON(s))
				}
			}
		}
	})
}

func TestDeliverTakesOneEventOfAWebhooksQueue(t *testing.T) {
	const mode = "aurora-prod"
	tpl := synth(t, mode)
	sources := tpl.resources("AWS::Lambda::EventSourceMapping")
	if len(sources) != 2 {
		t.Fatalf("deliver has %d sources, want one for each webhook", len(sources))
	}
	for i, name := range []string{"erp", "mail"} {
		concurrency := []float64{10, leastConcurrency}[i]
		queue := tpl.named(t, "AWS::SQS::Queue", "QueueName", "allo-prod-webhook-"+name+".fifo")
		at := slices.IndexFunc(sources, func(s resource) bool {
			return strings.Contains(asJSON(s.get("EventSourceArn")), queue.id)
		})
		if at < 0 {
			t.Fatalf("deliver doesn't take the events of webhook %d, %s", i, name)
		}
		s := sources[at]
		if s.get("BatchSize") != 1.0 ||
			asJSON(s.get("FunctionResponseTypes")) != `["ReportBatchItemFailures"]` ||
			s.get("ScalingConfig", "MaximumConcurrency") != concurrency ||
			!strings.Contains(asJSON(s.get("FunctionName")), "EventsWebhooksdeliverAlias") {
			t.Errorf("the source of %s is %s", name, asJSON(s.properties))
		}
		if queue.get("VisibilityTimeout") != float64(webhookVisibility) ||
			webhookVisibility < deliverTimeout {
			t.Errorf("an event of %s comes again while it is being delivered", name)
		}
	}
	if deliverTimeout*time.Second <= webhook.Timeout || webhookReceives < 50*webhook.Receives() {
		t.Error("the function or the queue gives up before the schedule of retries does")
	}
}

// grants are the actions that a function of the feed may call, each with parts of its resources.
type grants map[string][]string

// every function may log, and one with a database may log in.
var common = []string{"logs:CreateLogStream", "logs:PutLogEvents"}

func wantGrants() map[string]grants {
	const outbox, lost = `"Ref":"EventsoutboxAlias`, `SweeperLost`
	queues := []string{"EventsWebhookserpQueue", "EventsWebhooksmailQueue"}
	dead := []string{"EventsWebhookserpDead", "EventsWebhooksmailDead"}
	return map[string]grants{
		"outbox": {"rds-db:connect": {"DBProxyArn"}},
		"relay": {
			"lambda:InvokeFunction": {outbox}, "sns:Publish": {`"Ref":"EventsTopic`},
			"events:PutEvents":     {"EventsBus"},
			"appsync:EventPublish": {"/channelNamespace/stock", "/channelNamespace/holds"},
			"sqs:SendMessage":      {lost}, "sqs:GetQueueAttributes": {lost}, "sqs:GetQueueUrl": {lost},
		},
		"list-webhooks": {
			"sqs:GetQueueAttributes": slices.Concat(queues, dead), "sqs:ListQueueTags": queues,
			"logs:FilterLogEvents": {"EventsWebhooksdeliverLogs"}, "cloudwatch:GetMetricData": {`"*"`},
		},
		"redeliver-webhook": {
			"sqs:UntagQueue": queues, "sqs:SendMessage": queues, "sqs:GetQueueAttributes": dead,
			"sqs:StartMessageMoveTask": dead, "sqs:ListMessageMoveTasks": dead,
			"sqs:ReceiveMessage": dead, "sqs:DeleteMessage": dead,
		},
		"deliver": {
			"sqs:ReceiveMessage": queues, "sqs:DeleteMessage": queues,
			"sqs:ChangeMessageVisibility": queues,
			"sqs:GetQueueAttributes":      queues, "sqs:GetQueueUrl": queues,
			"sqs:TagQueue": queues, "sqs:ListQueueTags": queues, "sqs:SendMessage": dead,
			"secretsmanager:GetSecretValue": {
				":secret:allo-prod/webhook-erp-??????", ":secret:shop/mail-??????",
			},
		},
	}
}

func TestEachFunctionOfTheFeedMayDoItsWorkAndNoMore(t *testing.T) {
	const mode = "aurora-prod"
	for _, problem := range synth(t, mode).grantProblems(mode) {
		t.Error(problem)
	}
}

// These are the controls of the test above.
func TestAWiderOrNarrowerRightIsFound(t *testing.T) {
	const mode = "aurora-prod"
	body := asJSON(synth(t, mode).body)
	for name, change := range map[string]struct{ old, replacement string }{
		"every topic's action": {`"sns:Publish","Effect":"Allow","Res`, `"sns:*","Effect":"Allow","Res`},
		"another bus's action": {`"Action":"events:PutEvents"`, `"Action":"events:PutRule"`},
		"another function":     {`{"Ref":"EventsoutboxAlias`, `{"Ref":"EventsotherAlias`},
		"every secret":         {`:secret:shop/mail-??????`, `:secret:*`},
		"no deletion":          {`"sqs:DeleteMessage",`, ``},
		"no redrive":           {`"sqs:StartMessageMoveTask"`, `"sqs:PurgeQueue"`},
		"every log":            {`"Action":"logs:FilterLogEvents"`, `"Action":"logs:GetLogEvents"`},
		"the queues too": {
			`"Action":"sqs:SendMessage","Effect":"Allow","Resource":[`,
			`"Action":"sqs:SendMessage","Effect":"Allow","Resource":["Queue",`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			changed := strings.ReplaceAll(body, change.old, change.replacement)
			if changed == body {
				t.Fatalf("the template has no %s", change.old)
			}
			var tpl template
			if err := json.Unmarshal([]byte(changed), &tpl.body); err != nil {
				t.Fatal(err)
			}
			if len(tpl.grantProblems(mode)) == 0 {
				t.Errorf("the test accepts %s", change.replacement)
			}
		})
	}
}

// grantProblems says which rights the feed's functions have beyond those that they need, or lack.
func (tpl template) grantProblems(mode string) (found []string) {
	wrong := func(format string, args ...any) { found = append(found, fmt.Sprintf(format, args...)) }
	for name, want := range wantGrants() {
		got := map[string][]string{}
		for _, s := range tpl.roleStatements(roleOf(tpl.functions(mode)[name], "Role")) {
			if s["Effect"] == "Allow" {
				for _, action := range asList(s["Action"]) {
					for _, on := range asList(s["Resource"]) {
						got[fmt.Sprint(action)] = append(got[fmt.Sprint(action)], asJSON(on))
					}
				}
			}
		}
		for _, action := range common {
			if got[action] == nil {
				wrong("%s may not %s", name, action)
			}
			delete(got, action)
		}
		if name == "outbox" {
			for _, action := range networkInterfaceActions {
				delete(got, action)
			}
		}
		if diff := gocmp.Diff(slices.Sorted(maps.Keys(want)), slices.Sorted(maps.Keys(got))); diff != "" {
			wrong("what %s may do (-want +got):\n%s", name, diff)
		}
		for action, parts := range want {
			has := func(part string) bool {
				return slices.ContainsFunc(got[action],
					func(on string) bool { return strings.Contains(on, part) })
			}
			lacks := slices.ContainsFunc(parts, func(part string) bool { return !has(part) })
			if lacks || len(got[action]) != len(parts) {
				wrong("%s may %s on %s, want %s", name, action, got[action], parts)
			}
		}
	}
	return found
}

func TestTheOutputsNameTheTopicTheBusAndTheQueues(t *testing.T) {
	outputs := synth(t, "aurora-prod").body["Outputs"]
	for id, part := range map[string]string{
		"TopicArn": "EventsTopic", "BusName": "EventsBus",
		"QueueArnfulfilment": "EventsQueuesfulfilmentQueue", "QueueArncrm": "EventsQueuescrmQueue",
	} {
		if got := asJSON(dig(outputs, id, "Value")); !strings.Contains(got, part) {
			t.Errorf("the output %s is %s, want %s", id, got, part)
		}
	}
}
