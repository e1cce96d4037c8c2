package main

import (
	"strconv"

	"github.com/aws/aws-cdk-go/awscdk/v2"
	"github.com/aws/aws-cdk-go/awscdk/v2/awscloudwatch"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsevents"
	"github.com/aws/aws-cdk-go/awscdk/v2/awseventstargets"
	"github.com/aws/jsii-runtime-go"

	"github.com/allo/reservations/internal/emf"
)

const (
	// syntheticMinutes is how often the public address is checked.
	syntheticMinutes = 5
	// syntheticWindow is over how many minutes the alarm looks: three checks.
	syntheticWindow = 3 * syntheticMinutes
	// aliveMinutes is how many runs of the sweeper in that window say that the stack was there all the
	// while. So a first deploy, in which the first check is yet to come, rings no alarm.
	aliveMinutes = 12
)

// schedule runs the check of the public address each five minutes. A run that failed isn't
// repeated: the next one comes soon.
func (k *smoke) schedule(s Settings) {
	if k == nil || !s.Synthetic {
		return
	}
	target := awseventstargets.NewLambdaFunction(k.alias,
		&awseventstargets.LambdaFunctionProps{
			Event:         awsevents.RuleTargetInput_FromObject(map[string]any{"check": "public"}),
			RetryAttempts: jsii.Number(0),
			MaxEventAge:   awscdk.Duration_Minutes(jsii.Number(syntheticMinutes)),
		})
	awsevents.NewRule(k.function.function, jsii.String("Schedule"), &awsevents.RuleProps{
		RuleName:    jsii.String(s.StackName() + "-synthetic"),
		Description: jsii.String("Checks the public address each five minutes"),
		Schedule: awsevents.Schedule_Rate(
			awscdk.Duration_Minutes(jsii.Number(syntheticMinutes))),
		Targets: &[]awsevents.IRuleTarget{target},
	})
}

// addSynthetic adds the alarm of the public address: two of three checks failed, or none came while
// the sweeper ran. When neither runs, the alarm SweeperDead rings.
func (m *monitoring) addSynthetic(k *smoke, sweep sweeper) {
	if k == nil || !m.settings.Synthetic {
		return
	}
	failed := m.serviceMetric(emf.PublicCheckFailed, "", "Sum", syntheticWindow)
	m.addAlarm("PublicCheck", awscloudwatch.NewMathExpression(&awscloudwatch.MathExpressionProps{
		Expression: jsii.String("IF(FILL(failed, 0) > 1 OR (FILL(alive, 0) >= " +
			strconv.Itoa(aliveMinutes) + " AND FILL(checks, 0) < 1), 1, 0)"),
		UsingMetrics: &map[string]awscloudwatch.IMetric{
			"failed": failed,
			"checks": m.serviceMetric(emf.PublicCheckFailed, "", "SampleCount", syntheticWindow),
			"alive":  sweep.alias.MetricInvocations(every(syntheticWindow, "Sum")),
		},
		Period: awscdk.Duration_Minutes(jsii.Number(syntheticWindow)),
	}), once("Two of three checks of the public address failed, or none was made"))
	m.addRow(newGraph("Checks of the public address, and those that failed",
		m.serviceMetric(emf.PublicCheckFailed, "", "SampleCount", syntheticMinutes),
		m.serviceMetric(emf.PublicCheckFailed, "", "Sum", syntheticMinutes)))
}
