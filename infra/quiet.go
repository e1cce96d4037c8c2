package main

import (
	"github.com/aws/aws-cdk-go/awscdk/v2"
	"github.com/aws/aws-cdk-go/awscdk/v2/awscloudwatch"
	"github.com/aws/constructs-go/constructs/v10"
	"github.com/aws/jsii-runtime-go"
)

// warmUpMinutes is how long a new alarm waits for its first data. The minute rule starts the
// reporters within a minute of its creation, and their metrics arrive some minutes later.
const warmUpMinutes = 15

// warmUp keeps an alarm for which missing data breaches quiet while there can't be data yet. On
// creation CloudWatch looks at the periods before it, which have none, so the alarm would ring at
// each first deploy. It waits for the whole time, because the first period has only a part of its
// runs (CloudWatch's user guide, "Alarm warm-up periods"). The time begins when the rule is there:
// an alarm that refers to nothing is created first, and a cluster takes longer than the time.
func (m *monitoring) warmUp(a awscloudwatch.Alarm) {
	if m.starter != nil {
		a.Node().AddDependency(m.starter)
	}
	resource, _ := a.Node().DefaultChild().(awscloudwatch.CfnAlarm)
	resource.SetWarmUpConfiguration(&awscloudwatch.CfnAlarm_WarmUpConfigurationProperty{
		WarmUpPeriodDurationInMinutes:            jsii.Number(warmUpMinutes),
		OnlyStartEvaluatingAfterWarmUpPeriodEnds: jsii.Bool(true),
	})
	// The property is younger than the cfn-lint that SAM 1.164 brings. cfn-lint 1.58 knows it.
	resource.AddMetadata(jsii.String("cfn-lint"), map[string]any{
		"config": map[string]any{"ignore_checks": []string{"E3002"}},
	})
}

// unheard is the id of the note that nobody hears the alarms, and unheardText its text.
const (
	unheard     = "allo:alarms-without-a-subscriber"
	unheardText = "WARNING: nobody hears the alarms. Set alarmEmail or alarmTopicArn, or subscribe " +
		"to the topic of the stack"
)

// warnOfUnheardAlarms warns at each synth of a stack whose alarms notify nobody. To the CDK it is a
// note: `cdk deploy --strict` refuses a stack with a warning, and somebody may have subscribed to
// the topic by hand.
func warnOfUnheardAlarms(stack constructs.Construct, s Settings) {
	if s.AlarmEmail == "" && s.AlarmTopicARN == "" {
		awscdk.Annotations_Of(stack).AddInfoV2(jsii.String(unheard), jsii.String(unheardText))
	}
}
