package main

import (
	"github.com/aws/aws-cdk-go/awscdk/v2"
	"github.com/aws/aws-cdk-go/awscdk/v2/awscloudwatch"
	"github.com/aws/aws-cdk-go/awscdk/v2/awscloudwatchactions"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsiam"
	"github.com/aws/aws-cdk-go/awscdk/v2/awssns"
	"github.com/aws/aws-cdk-go/awscdk/v2/awssnssubscriptions"
	"github.com/aws/constructs-go/constructs/v10"
	"github.com/aws/jsii-runtime-go"
)

// newTopic creates the topic that every alarm notifies.
func newTopic(scope constructs.Construct, s Settings) awssns.Topic {
	topic := awssns.NewTopic(scope, jsii.String("Alarms"), &awssns.TopicProps{
		TopicName: jsii.String(s.StackName() + "-alarms"), EnforceSSL: jsii.Bool(true),
	})
	// The policy that enforces TLS replaces the default one, which lets the account's alarms
	// publish. So the permission to publish must be granted again.
	topic.AddToResourcePolicy(awsiam.NewPolicyStatement(&awsiam.PolicyStatementProps{
		Sid:       jsii.String("AlarmsOfThisStack"),
		Actions:   jsii.Strings("sns:Publish"),
		Resources: &[]*string{topic.TopicArn()},
		Principals: &[]awsiam.IPrincipal{
			awsiam.NewServicePrincipal(jsii.String("cloudwatch.amazonaws.com"), nil),
		},
		Conditions: &map[string]any{
			"StringEquals": map[string]any{"aws:SourceAccount": awscdk.Aws_ACCOUNT_ID()},
			"ArnLike":      map[string]any{"aws:SourceArn": alarmARNs(scope, s)},
		},
	}))
	if s.AlarmEmail != "" {
		topic.AddSubscription(
			awssnssubscriptions.NewEmailSubscription(jsii.String(s.AlarmEmail), nil))
	}
	return topic
}

// topics returns the topics that each alarm notifies: the stack's own, and the operator's. The
// policy of the latter must let CloudWatch publish.
func topics(scope constructs.Construct, s Settings) []awssns.ITopic {
	all := []awssns.ITopic{newTopic(scope, s)}
	if s.AlarmTopicARN != "" {
		all = append(all, awssns.Topic_FromTopicArn(scope, jsii.String("Pager"),
			jsii.String(s.AlarmTopicARN)))
	}
	return all
}

// ownTopic returns the topic that the stack itself makes.
func (m *monitoring) ownTopic() awssns.ITopic { return m.topics[0] }

// alarmDescription is what an operator reads first of an alarm.
func alarmDescription(meaning, id string) string {
	return meaning + ". What to do: infra/RUNBOOK.md, " + id
}

// alarmARNs returns a pattern that matches the ARNs of the stack's alarms.
func alarmARNs(scope constructs.Construct, s Settings) *string {
	return awscdk.Stack_Of(scope).FormatArn(&awscdk.ArnComponents{
		Service:      jsii.String("cloudwatch"),
		Resource:     jsii.String("alarm"),
		ResourceName: jsii.String(s.StackName() + "-*"),
		ArnFormat:    awscdk.ArnFormat_COLON_RESOURCE_NAME,
	})
}

// alarm says when an alarm rings: when the metric is above one bound, or below the other, in
// `breaching` of the last `outOf` periods.
type alarm struct {
	above, below     float64
	breaching, outOf float64
	// missingBreaches makes a period without data count as breaching, for metrics whose absence
	// means that the reporter is dead.
	missingBreaches bool
	// meaning is a sentence without its full stop, for the operator.
	meaning string
}

// addAlarm creates an alarm that notifies the topic when it rings and when it ends. The alarm's id
// is the heading of its section in RUNBOOK.md.
func (m *monitoring) addAlarm(
	id string, metric awscloudwatch.IMetric, a alarm,
) awscloudwatch.Alarm {
	props := &awscloudwatch.AlarmProps{
		Metric:             metric,
		AlarmName:          jsii.String(m.settings.StackName() + "-" + id),
		AlarmDescription:   jsii.String(alarmDescription(a.meaning, id)),
		Threshold:          jsii.Number(a.above),
		ComparisonOperator: awscloudwatch.ComparisonOperator_GREATER_THAN_THRESHOLD,
		EvaluationPeriods:  jsii.Number(a.outOf),
		DatapointsToAlarm:  jsii.Number(a.breaching),
		TreatMissingData:   awscloudwatch.TreatMissingData_NOT_BREACHING,
	}
	if a.below > 0 {
		props.Threshold = jsii.Number(a.below)
		props.ComparisonOperator = awscloudwatch.ComparisonOperator_LESS_THAN_THRESHOLD
	}
	if a.missingBreaches {
		props.TreatMissingData = awscloudwatch.TreatMissingData_BREACHING
	}
	added := awscloudwatch.NewAlarm(m.scope, jsii.String(id), props)
	if a.missingBreaches {
		m.warmUp(added)
	}
	for _, topic := range m.topics {
		notify := awscloudwatchactions.NewSnsAction(topic)
		added.AddAlarmAction(notify)
		added.AddOkAction(notify)
	}
	m.alarms = append(m.alarms, added)
	return added
}
