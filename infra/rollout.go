package main

import (
	"github.com/aws/aws-cdk-go/awscdk/v2/awscloudwatch"
	"github.com/aws/aws-cdk-go/awscdk/v2/awscodedeploy"
	"github.com/aws/aws-cdk-go/awscdk/v2/interfaces/interfacesawscloudwatch"
	"github.com/aws/constructs-go/constructs/v10"
	"github.com/aws/jsii-runtime-go"
)

// newRollout sends a tenth of each function's traffic to its new version for five minutes. It sends
// all of it back if one of the function's own alarms or the API's error alarm rings. Without a
// rollout, as in dev, an alias moves at once. So does the sweeper's: one call a minute can't be
// split.
//
// A function's alarms count all its versions. So while the version in service has faults,
// CodeDeploy refuses its successor too: the operator deploys the hotfix with rollout=now.
func newRollout(
	scope constructs.Construct, functions []function,
	alarms map[string][]awscloudwatch.Alarm, api5xx awscloudwatch.Alarm,
) {
	scope = constructs.NewConstruct(scope, jsii.String("Rollout"))
	application := awscodedeploy.NewLambdaApplication(scope, jsii.String("Application"), nil)
	for _, f := range functions {
		watched := []interfacesawscloudwatch.IAlarmRef{api5xx}
		for _, a := range alarms[f.name] {
			watched = append(watched, a)
		}
		group := awscodedeploy.NewLambdaDeploymentGroup(scope, jsii.String(f.name),
			&awscodedeploy.LambdaDeploymentGroupProps{
				Application:      application,
				Alias:            f.alias,
				DeploymentConfig: awscodedeploy.LambdaDeploymentConfig_CANARY_10PERCENT_5MINUTES(),
				Alarms:           &watched,
				AutoRollback: &awscodedeploy.AutoRollbackConfig{
					DeploymentInAlarm: jsii.Bool(true),
					FailedDeployment:  jsii.Bool(true),
					StoppedDeployment: jsii.Bool(true),
				},
			})
		suppressManagedPolicy(group)
	}
}
