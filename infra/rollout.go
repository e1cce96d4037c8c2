package main

import (
	"github.com/aws/aws-cdk-go/awscdk/v2/awscloudwatch"
	"github.com/aws/aws-cdk-go/awscdk/v2/awscodedeploy"
	"github.com/aws/aws-cdk-go/awscdk/v2/interfaces/interfacesawscloudwatch"
	"github.com/aws/constructs-go/constructs/v10"
	"github.com/aws/jsii-runtime-go"
)

// newRollout sends a tenth of each function's traffic to its new version for five minutes, and all of it back when an alarm says so. Without
// it, as on dev, an alias moves at once. The sweeper moves at once too: once a minute is no traffic that could be split.
func newRollout(scope constructs.Construct, functions []function, errors map[string]awscloudwatch.Alarm, api5xx awscloudwatch.Alarm) {
	scope = constructs.NewConstruct(scope, jsii.String("Rollout"))
	application := awscodedeploy.NewLambdaApplication(scope, jsii.String("Application"), nil)
	for _, f := range functions {
		group := awscodedeploy.NewLambdaDeploymentGroup(scope, jsii.String(f.name), &awscodedeploy.LambdaDeploymentGroupProps{
			Application:      application,
			Alias:            f.alias,
			DeploymentConfig: awscodedeploy.LambdaDeploymentConfig_CANARY_10PERCENT_5MINUTES(),
			Alarms:           &[]interfacesawscloudwatch.IAlarmRef{errors[f.name], api5xx},
			AutoRollback: &awscodedeploy.AutoRollbackConfig{
				DeploymentInAlarm: jsii.Bool(true), FailedDeployment: jsii.Bool(true), StoppedDeployment: jsii.Bool(true),
			},
		})
		explainDeployRole(group)
	}
}
