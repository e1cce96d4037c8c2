package main

import (
	"github.com/aws/aws-cdk-go/awscdk/v2"
	"github.com/aws/aws-cdk-go/awscdk/v2/awscloudwatch"
	"github.com/aws/aws-cdk-go/awscdk/v2/awscloudwatchactions"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsevents"
	"github.com/aws/aws-cdk-go/awscdk/v2/awseventstargets"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsiam"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsscheduler"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsschedulertargets"
	"github.com/aws/aws-cdk-go/awscdk/v2/awssns"
	"github.com/aws/jsii-runtime-go"
)

const (
	// driftHour is the hour of the day, in UTC, in which the stack is compared with its template:
	// before Europe's working day.
	driftHour = "4"
	// driftWindow is how many minutes later the comparison may begin, as AWS likes.
	driftWindow = 30
	// driftRetries is how often the call is made again after an error.
	driftRetries = 3
	// driftMaxAge is how many hours the call is retried.
	driftMaxAge = 1
)

// newDriftWatch compares the service's stack with its template every day, and notifies the alarms'
// topic when they differ: when somebody changed a resource by hand, which the next deploy may undo
// or fail on. It also notifies when the comparison fails, as nobody would miss it.
func newDriftWatch(stack awscdk.Stack, s Settings) {
	topic := awssns.Topic_FromTopicArn(stack, jsii.String("Topic"), alarmTopicARN(stack, s))
	group := awsscheduler.NewScheduleGroup(stack, jsii.String("Schedules"),
		&awsscheduler.ScheduleGroupProps{
			ScheduleGroupName: jsii.String(s.StackName()), RemovalPolicy: awscdk.RemovalPolicy_DESTROY,
		})
	role := newDriftRole(stack, s)
	awsscheduler.NewSchedule(stack, jsii.String("Daily"), &awsscheduler.ScheduleProps{
		ScheduleName:  jsii.String("drift"),
		ScheduleGroup: group,
		Description:   jsii.String("Compares the stack with its template every day"),
		Schedule: awsscheduler.ScheduleExpression_Cron(&awsscheduler.CronOptionsWithTimezone{
			Minute: jsii.String("0"), Hour: jsii.String(driftHour),
		}),
		TimeWindow: awsscheduler.TimeWindow_Flexible(
			awscdk.Duration_Minutes(jsii.Number(driftWindow))),
		Target: awsschedulertargets.NewUniversal(&awsschedulertargets.UniversalTargetProps{
			Service: jsii.String("cloudformation"), Action: jsii.String("detectStackDrift"),
			Input: awsscheduler.ScheduleTargetInput_FromObject(
				map[string]any{"StackName": s.StackName()}),
			PolicyStatements: &[]awsiam.PolicyStatement{detectDrift(stack, s)},
			Role:             role,
			RetryAttempts:    jsii.Number(driftRetries),
			MaxEventAge:      awscdk.Duration_Hours(jsii.Number(driftMaxAge)),
		}),
	})
	newDriftRule(stack, s, topic)
	addUncheckedAlarm(stack, s, group, topic)
}

// alarmTopicARN returns the ARN of the topic that the alarms of the service's stack notify. It is
// made of names, so that this stack can be deployed and removed by itself.
func alarmTopicARN(stack awscdk.Stack, s Settings) *string {
	return stack.FormatArn(&awscdk.ArnComponents{
		Service: jsii.String("sns"), Resource: jsii.String(s.StackName() + "-alarms"),
		ArnFormat: awscdk.ArnFormat_NO_RESOURCE_NAME,
	})
}

// newDriftRole creates the role with which the schedule calls CloudFormation. CloudFormation reads
// the resources as this role, so it must be able to read all of them (AWS CloudFormation User
// Guide, "Detect unmanaged configuration changes to stacks and resources with drift detection").
func newDriftRole(stack awscdk.Stack, s Settings) awsiam.Role {
	role := awsiam.NewRole(stack, jsii.String("DriftRole"), &awsiam.RoleProps{
		Description: jsii.String("Lets the schedule compare the stack with its template"),
		AssumedBy: awsiam.NewServicePrincipal(jsii.String("scheduler.amazonaws.com"),
			&awsiam.ServicePrincipalOpts{Conditions: &map[string]any{
				"StringEquals": map[string]any{
					"aws:SourceAccount": stack.Account(),
					"aws:SourceArn": stack.FormatArn(&awscdk.ArnComponents{
						Service: jsii.String("scheduler"), Resource: jsii.String("schedule-group"),
						ResourceName: jsii.String(s.StackName()),
					}),
				},
			}}),
		ManagedPolicies: &[]awsiam.IManagedPolicy{
			awsiam.ManagedPolicy_FromAwsManagedPolicyName(jsii.String("ReadOnlyAccess")),
		},
	})
	suppress(role, "AwsSolutions-IAM4",
		"CloudFormation reads every resource of the stack as this role, and AWS's policy follows its "+
			"services; only the schedule can use the role, for one call",
		"Policy::arn:<AWS::Partition>:iam::aws:policy/ReadOnlyAccess")
	suppress(role, "AwsSolutions-IAM5",
		"The id in a stack's ARN isn't known before the stack is made")
	return role
}

func detectDrift(stack awscdk.Stack, s Settings) awsiam.PolicyStatement {
	return allowOn([]*string{stackARN(stack, s, "/*")},
		"cloudformation:DetectStackDrift", "cloudformation:DetectStackResourceDrift")
}

// stackARN returns the ARN of the service's stack with something in the place of its id.
func stackARN(stack awscdk.Stack, s Settings, id string) *string {
	return stack.FormatArn(&awscdk.ArnComponents{
		Service: jsii.String("cloudformation"), Resource: jsii.String("stack"),
		ResourceName: jsii.String(s.StackName() + id),
	})
}

// newDriftRule notifies the topic of a comparison that found a difference or failed. The event's
// form is in the AWS CloudFormation User Guide, "Drift Detection Status Change event detail". The
// rule publishes by a role, so the topic's policy needn't name it.
func newDriftRule(stack awscdk.Stack, s Settings, topic awssns.ITopic) {
	detail := func(path string) *string { return awsevents.EventField_FromPath(jsii.String(path)) }
	awsevents.NewRule(stack, jsii.String("Drifted"), &awsevents.RuleProps{
		RuleName:    jsii.String(s.StackName() + "-drifted"),
		Description: jsii.String("Tells the operators that the stack differs from its template"),
		EventPattern: &awsevents.EventPattern{
			Source:     jsii.Strings("aws.cloudformation"),
			DetailType: jsii.Strings("CloudFormation Drift Detection Status Change"),
			Detail: &map[string]any{
				"stack-id": []any{map[string]any{"prefix": stackARN(stack, s, "/")}},
				"$or": []any{
					driftStatus("DETECTION_COMPLETE", "DRIFTED"), driftStatus("DETECTION_FAILED"),
				},
			},
		},
		Targets: &[]awsevents.IRuleTarget{
			awseventstargets.NewSnsTopic(topic, &awseventstargets.SnsTopicProps{
				AuthorizeUsingRole: jsii.Bool(true),
				Message: awsevents.RuleTargetInput_FromText(jsii.String(
					"The stack " + s.StackName() + " was compared with its template: " +
						*detail("$.detail.status-details.stack-drift-status") + ", " +
						*detail("$.detail.status-details.detection-status") + ". Resources that differ: " +
						*detail("$.detail.drift-detection-details.drifted-stack-resource-count") +
						". What to do: infra/RUNBOOK.md, Drift")),
			}),
		},
	})
}

// driftStatus matches an event by how the comparison ended, and by what it found if that is given.
func driftStatus(detection string, found ...any) map[string]any {
	status := map[string]any{"detection-status": []any{detection}}
	if len(found) > 0 {
		status["stack-drift-status"] = found
	}
	return map[string]any{"status-details": status}
}

// addUncheckedAlarm adds the alarm for a day on which the schedule couldn't ask CloudFormation.
func addUncheckedAlarm(
	stack awscdk.Stack, s Settings, group awsscheduler.ScheduleGroup, topic awssns.ITopic,
) {
	const id = "DriftUnchecked"
	awscloudwatch.NewAlarm(stack, jsii.String(id), &awscloudwatch.AlarmProps{
		Metric: group.MetricTargetErrors(&awscloudwatch.MetricOptions{
			Statistic: jsii.String("Sum"), Period: awscdk.Duration_Hours(jsii.Number(1)),
		}),
		AlarmName: jsii.String(s.StackName() + "-" + id),
		AlarmDescription: jsii.String("CloudFormation refused to compare the stack with its template. " +
			"What to do: infra/RUNBOOK.md, Drift"),
		Threshold:          jsii.Number(0),
		ComparisonOperator: awscloudwatch.ComparisonOperator_GREATER_THAN_THRESHOLD,
		EvaluationPeriods:  jsii.Number(1),
		TreatMissingData:   awscloudwatch.TreatMissingData_NOT_BREACHING,
	}).AddAlarmAction(awscloudwatchactions.NewSnsAction(topic))
}
