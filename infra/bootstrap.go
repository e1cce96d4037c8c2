package main

import (
	_ "embed"
	"strings"

	"github.com/aws/aws-cdk-go/awscdk/v2"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsiam"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsrds"
	"github.com/aws/aws-cdk-go/awscdk/v2/customresources"
	"github.com/aws/constructs-go/constructs/v10"
	"github.com/aws/jsii-runtime-go"
)

// bootstrapSQL creates the two roles.
//
//go:embed bootstrap.sql
var bootstrapSQL string

// bootstrapTimeout is in minutes. It allows for one statement and for a cluster that wakes up.
const bootstrapTimeout = 2

// newBootstrap runs bootstrap.sql through the Data API as the master user. A role that logs in by
// IAM must be created by a role that logs in by password, and only the master user does.
func newBootstrap(
	scope constructs.Construct, s Settings, cluster awsrds.DatabaseCluster,
) customresources.AwsCustomResource {
	call := &customresources.AwsSdkCall{
		Service: jsii.String("RDSData"),
		Action:  jsii.String("executeStatement"),
		Parameters: map[string]any{
			"resourceArn": cluster.ClusterArn(),
			"secretArn":   cluster.Secret().SecretArn(),
			"database":    databaseName,
			"sql":         withoutComments(bootstrapSQL),
		},
		PhysicalResourceId: customresources.PhysicalResourceId_Of(jsii.String("bootstrap")),
	}
	logs := newLogGroup(scope, "BootstrapLogs", s, "bootstrap")
	role := newRole(constructs.NewConstruct(scope, jsii.String("BootstrapFunction")), logs)
	role.AddToPolicy(allow("rds-data:ExecuteStatement", cluster.ClusterArn()))
	role.AddToPolicy(allow("secretsmanager:GetSecretValue", cluster.Secret().SecretArn()))
	resource := customresources.NewAwsCustomResource(scope, jsii.String("Bootstrap"),
		&customresources.AwsCustomResourceProps{
			OnCreate: call,
			OnUpdate: call,
			// The latest SDK would change what a deploy runs without a change here.
			InstallLatestAwsSdk: jsii.Bool(false),
			LogGroup:            logs,
			Role:                role,
			Timeout:             awscdk.Duration_Minutes(jsii.Number(bootstrapTimeout)),
		})
	resource.Node().AddDependency(cluster) // and so on its writer, which runs the statement
	return resource
}

// allow returns a statement that allows one action on one resource.
func allow(action string, resource *string) awsiam.PolicyStatement {
	return awsiam.NewPolicyStatement(&awsiam.PolicyStatementProps{
		Actions: jsii.Strings(action), Resources: &[]*string{resource},
	})
}

// withoutComments removes the comment lines. The Data API would search them for parameter names.
func withoutComments(sql string) string {
	var lines []string
	for line := range strings.Lines(sql) {
		if !strings.HasPrefix(strings.TrimSpace(line), "--") {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "")
}
