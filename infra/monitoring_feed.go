package main

import (
	"strconv"

	"github.com/aws/aws-cdk-go/awscdk/v2"
	"github.com/aws/aws-cdk-go/awscdk/v2/awscloudwatch"
	"github.com/aws/aws-cdk-go/awscdk/v2/awssqs"
	"github.com/aws/jsii-runtime-go"

	"github.com/allo/reservations/internal/emf"
	"github.com/allo/reservations/internal/events"
)

// How late events may be, in seconds.
const (
	// relayLag is for events=on. relayLagByMinute is for events=minute, where an event waits for the
	// next run.
	relayLag         = 60
	relayLagByMinute = 180
	// queueLag is for a consumer, which should be fast. webhookLag is for events that nobody tried to
	// deliver.
	queueLag   = 900
	webhookLag = 3600
)

// addFeed adds what no caller notices: events that come late or not at all.
func (m *monitoring) addFeed(f feed) {
	undelivered := f.topic.MetricNumberOfNotificationsFailed(every(1, "Sum"))
	m.addAlarm("TopicFailed", undelivered, alarm{
		above: 0, breaching: 1, outOf: 1,
		meaning: "The topic couldn't give an event to a queue; a queue of the stack has it among its " +
			"dead letters",
	})
	graphs := []graph{newGraph("Topic: deliveries that failed", undelivered)}
	if f.relay != nil {
		graphs = append(m.addSinks(), graphs...)
	}
	m.addRow(graphs...)
	if m.settings.Relays() {
		m.addRelayAlarms(*f.relay)
	}
	m.addQueues(f.queues)
	m.addWebhooks(f.webhooks)
}

// addSinks adds how far the relay is behind, and what a sink refused for good.
func (m *monitoring) addSinks() []graph {
	late := alarm{above: relayLag, breaching: 3, outOf: 3, missingBreaches: true}
	if m.settings.Events == EventsMinute {
		late.above = relayLagByMinute
	}
	var lags, published, parked []awscloudwatch.IMetric
	for _, sink := range m.settings.Sinks() {
		for _, place := range events.Places(sink) {
			lag := m.serviceMetric(emf.RelayLagSeconds, place, "Maximum", 1)
			if m.settings.Relays() {
				late.meaning = "Events are late, or nobody publishes from the place " + place
				m.addAlarm("RelayBehind-"+place, lag, late)
			}
			lags = append(lags, lag)
		}
		refused := m.serviceMetric(emf.EventsParked, sink, "Maximum", 1)
		if m.settings.Relays() {
			m.addAlarm("EventsParked-"+sink, refused, alarm{
				above: 0, breaching: 1, outOf: 1,
				meaning: "Events that the sink " + sink + " refused for good are parked with their subjects",
			})
		}
		parked = append(parked, refused)
		published = append(published, m.serviceMetric(emf.EventsPublished, sink, "Sum", 1))
	}
	return []graph{
		newGraph("Relay: lag (s)", lags...),
		newGraph("Relay: events published", published...),
		newGraph("Relay: events parked", parked...),
	}
}

// addRelayAlarms adds the alarms of a relay that the minute rule runs.
func (m *monitoring) addRelayAlarms(relay function) {
	m.addAlarm("RelayDead", relay.alias.MetricInvocations(every(5, "Sum")), alarm{
		below: 3, breaching: 1, outOf: 1, missingBreaches: true,
		meaning: "The relay ran fewer than three times in five minutes",
	})
	m.addAlarm("RelayErrors", relay.alias.MetricErrors(every(5, "Sum")), alarm{
		above: 2, breaching: 1, outOf: 1,
		meaning: "Three runs of the relay failed in the last five minutes",
	})
}

// addQueues adds the consumers' queues.
func (m *monitoring) addQueues(queues []queue) {
	var ages, dead []awscloudwatch.IMetric
	for _, q := range queues {
		age, letters := oldest(q.main), depth(q.deadLetters)
		m.addAlarm("QueueBehind-"+q.name, age, alarm{
			above: queueLag, breaching: 3, outOf: 3,
			meaning: "The consumer " + q.name + " hasn't taken an event for a quarter of an hour",
		})
		m.addAlarm("QueueDead-"+q.name, letters, alarm{
			above: 0, breaching: 1, outOf: 1,
			meaning: "The consumer " + q.name + " failed on events",
		})
		ages, dead = append(ages, age), append(dead, letters)
	}
	if len(queues) > 0 {
		m.addRow(newGraph("Consumers: age of the oldest event (s)", ages...),
			newGraph("Consumers: dead letters", dead...))
	}
}

// addWebhooks adds the webhooks and their queues.
func (m *monitoring) addWebhooks(webhooks []queue) {
	var ages, dead, delivered, failed []awscloudwatch.IMetric
	for _, q := range webhooks {
		age, letters := oldest(q.main), depth(q.deadLetters)
		m.addAlarm("WebhookBehind-"+q.name, m.webhookBehind(q), alarm{
			above: 0, breaching: 1, outOf: 1,
			meaning: "The webhook " + q.name + " hasn't taken an event for an hour",
		})
		ages, dead = append(ages, age), append(dead, letters)
		delivered = append(delivered, m.serviceMetric(emf.WebhookDelivered, q.name, "Sum", 1))
		failed = append(failed, m.serviceMetric(emf.WebhookFailed, q.name, "Sum", 1),
			m.serviceMetric(emf.WebhookDead, q.name, "Sum", 1))
	}
	if len(webhooks) > 0 {
		// One alarm for all, because a stack can have only so many resources. The graph tells which.
		m.addAlarm("WebhookDead", sum(dead), once("Events for a webhook were given up"))
		m.addRow(
			newGraph("Webhooks: events delivered", delivered...),
			newGraph("Webhooks: attempts that failed, events given up", failed...),
			newGraph("Webhooks: age of the oldest event (s)", ages...),
			newGraph("Webhooks: dead letters", dead...),
		)
	}
}

// webhookBehind is 1 in an hour in which each attempt to deliver failed, or whose events waited for
// longer. The age of the oldest message isn't enough: SQS leaves out those that were received more
// than three times, which those of a dead endpoint are.
func (m *monitoring) webhookBehind(q queue) awscloudwatch.IMetric {
	return awscloudwatch.NewMathExpression(&awscloudwatch.MathExpressionProps{
		Expression: jsii.String("IF((FILL(failed, 0) > 0 AND FILL(delivered, 0) == 0) " +
			"OR FILL(age, 0) > " + strconv.Itoa(webhookLag) + ", 1, 0)"),
		UsingMetrics: &map[string]awscloudwatch.IMetric{
			"failed":    m.serviceMetric(emf.WebhookFailed, q.name, "Sum", 60),
			"delivered": m.serviceMetric(emf.WebhookDelivered, q.name, "Sum", 60),
			"age":       q.main.MetricApproximateAgeOfOldestMessage(every(60, "Maximum")),
		},
		Period: awscdk.Duration_Hours(jsii.Number(1)),
	})
}

// oldest returns the age of a queue's oldest message.
func oldest(q awssqs.Queue) awscloudwatch.Metric {
	return q.MetricApproximateAgeOfOldestMessage(every(1, "Maximum"))
}

// depth returns the number of a queue's messages that wait.
func depth(q awssqs.Queue) awscloudwatch.Metric {
	return q.MetricApproximateNumberOfMessagesVisible(every(1, "Maximum"))
}
