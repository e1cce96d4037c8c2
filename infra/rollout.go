package main

import (
	"github.com/aws/aws-cdk-go/awscdk/v2/awscloudwatch"
	"github.com/aws/aws-cdk-go/awscdk/v2/awscodedeploy"
	"github.com/aws/aws-cdk-go/awscdk/v2/interfaces/interfacesawscloudwatch"
	"github.com/aws/constructs-go/constructs/v10"
	"github.com/aws/jsii-runtime-go"
)

// newRollout sends a tenth of each function's traffic to its new version for five minutes. It sends
// all of it back if the function's error alarm or the API's error alarm rings. Without a rollout,
// as in dev, an alias moves at once. So does the sweeper's: one call a minute can't be split.
func newRollout(
	scope constructs.Construct, functions []function,
	errors map[string]awscloudwatch.Alarm, api5xx awscloudwatch.Alarm,
) {
	scope = constructs.NewConstruct(scope, jsii.String("Rollout"))
	application := awscodedeploy.NewLambdaApplication(scope, jsii.String("Application"), nil)
	for _, f := range functions {
		group := awscodedeploy.NewLambdaDeploymentGroup(scope, jsii.String(f.name),
			&awscodedeploy.LambdaDeploymentGroupProps{
				Application:      application,
				Alias:            f.alias,
				DeploymentConfig: awscodedeploy.LambdaDeploymentConfig_CANARY_10PERCENT_5MINUTES(),
				Alarms:           &[]interfacesawscloudwatch.IAlarmRef{errors[f.name], api5xx},
				AutoRollback: &awscodedeploy.AutoRollbackConfig{
					DeploymentInAlarm: jsii.Bool(true),
					FailedDeployment:  jsii.Bool(true),
					StoppedDeployment: jsii.Bool(true),
				},
			})
		suppressManagedPolicy(group)
	}
}
