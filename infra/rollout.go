package main

import (
	"github.com/aws/aws-cdk-go/awscdk/v2/awscloudwatch"
	"github.com/aws/aws-cdk-go/awscdk/v2/awscodedeploy"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsiam"
	"github.com/aws/aws-cdk-go/awscdk/v2/interfaces/interfacesawscloudwatch"
	"github.com/aws/constructs-go/constructs/v10"
	"github.com/aws/jsii-runtime-go"
)

// newRollout sends a tenth of each function's traffic to its new version for five minutes. It sends
// all of it back if one of the function's own alarms or the API's error alarm rings. Without a
// rollout, as in dev, an alias moves at once. So do those of the back office, which has too few
// calls to judge a version by, those of live and health, and of the functions that no caller
// invokes.
//
// A function's alarms count all its versions. So while the version in service has faults,
// CodeDeploy refuses its successor too: the operator deploys the hotfix with rollout=now.
func newRollout(
	scope constructs.Construct, functions []function,
	alarms map[string][]awscloudwatch.Alarm, api5xx awscloudwatch.Alarm,
) {
	scope = constructs.NewConstruct(scope, jsii.String("Rollout"))
	application := awscodedeploy.NewLambdaApplication(scope, jsii.String("Application"), nil)
	role := newRolloutRole(scope)
	for _, f := range functions {
		if f.backOffice {
			continue
		}
		watched := []interfacesawscloudwatch.IAlarmRef{api5xx}
		for _, a := range alarms[f.name] {
			watched = append(watched, a)
		}
		awscodedeploy.NewLambdaDeploymentGroup(scope, jsii.String(f.name),
			&awscodedeploy.LambdaDeploymentGroupProps{
				Application:      application,
				Role:             role,
				Alias:            f.alias,
				DeploymentConfig: awscodedeploy.LambdaDeploymentConfig_CANARY_10PERCENT_5MINUTES(),
				Alarms:           &watched,
				AutoRollback: &awscodedeploy.AutoRollbackConfig{
					DeploymentInAlarm: jsii.Bool(true),
					FailedDeployment:  jsii.Bool(true),
					StoppedDeployment: jsii.Bool(true),
				},
			})
	}
}

// newRolloutRole creates the role with which CodeDeploy moves the aliases.
func newRolloutRole(scope constructs.Construct) awsiam.Role {
	role := awsiam.NewRole(scope, jsii.String("Role"), &awsiam.RoleProps{
		AssumedBy: servicePrincipal("codedeploy.amazonaws.com"),
	})
	suppressManagedPolicy(role)
	return role
}
