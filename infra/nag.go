package main

import (
	"fmt"

	"github.com/aws/aws-cdk-go/awscdk/v2/awsapigatewayv2"
	"github.com/aws/aws-cdk-go/awscdk/v2/awscloudfront"
	"github.com/aws/aws-cdk-go/awscdk/v2/awscognito"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsiam"
	"github.com/aws/aws-cdk-go/awscdk/v2/awslambda"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsrds"
	"github.com/aws/aws-cdk-go/awscdk/v2/awss3"
	"github.com/aws/aws-cdk-go/awscdk/v2/awssecretsmanager"
	"github.com/aws/aws-cdk-go/awscdk/v2/awssqs"
	"github.com/aws/constructs-go/constructs/v10"
	"github.com/aws/jsii-runtime-go"
	"github.com/cdklabs/cdk-nag-go/cdknag/v2"

	"github.com/allo/reservations/internal/route"
)

// This file suppresses the findings of cdk-nag that we accept, each on its own resource and with
// the reason. cdk-nag checks AWS's own rules for sound stacks.

// suppress accepts a rule's findings on a construct and its children. A finding about permissions
// is narrowed by appliesTo.
func suppress(c constructs.IConstruct, rule, reason string, appliesTo ...any) {
	suppression := &cdknag.NagPackSuppression{Id: jsii.String(rule), Reason: jsii.String(reason)}
	if len(appliesTo) > 0 {
		suppression.AppliesTo = &appliesTo
	}
	cdknag.NagSuppressions_AddResourceSuppressions(
		c, &[]*cdknag.NagPackSuppression{suppression}, jsii.Bool(true))
}

func suppressWildcards(f awslambda.Function) {
	suppress(f.Role(), "AwsSolutions-IAM5",
		"X-Ray's and the ec2:*NetworkInterface* actions that Lambda needs in a VPC support no "+
			"narrower resource; the function's own code is denied the latter",
		"Resource::*")
}

func suppressEachVersion(f awslambda.Function, s Settings) {
	suppress(f.Role(), "AwsSolutions-IAM5",
		"It calls each function's new version, whose number only the deploy knows",
		&cdknag.RegexAppliesTo{Regex: jsii.String(eachVersion(s))})
}

func suppressOpenRoute(added awsapigatewayv2.HttpRoute, s Settings, r route.Route) {
	reason := "Open to shoppers, who have no account; the stage's throttle limits it"
	if r.Scope != "" {
		reason = fmt.Sprintf("auth=%s is for demonstrations, as the deploy's output says; "+
			"auth=cognito, auth=jwt and auth=iam guard it", s.Auth)
	}
	suppress(added, "AwsSolutions-APIG4", reason)
}

func suppressDeletionProtection(cluster awsrds.DatabaseCluster) {
	suppress(cluster, "AwsSolutions-RDS10",
		"env=dev may be destroyed; env=prod protects its cluster")
}

func suppressMissingDeadLetterQueue(q awssqs.Queue) {
	suppress(q, "AwsSolutions-SQS3", "This is a dead-letter queue; an alarm watches its depth")
}

func suppressThreatProtection(pool awscognito.UserPool) {
	suppress(pool, "AwsSolutions-COG3",
		"Cognito's threat protection needs its Plus plan, at four times the price for each user; "+
			"only invited users sign in, with a second factor unless mfa=optional")
}

func suppressOptionalMFA(pool awscognito.UserPool) {
	suppress(pool, "AwsSolutions-COG2", "mfa=optional; env=prod asks for a second factor by default")
}

func suppressDistribution(d awscloudfront.Distribution, s Settings) {
	suppress(d, "AwsSolutions-CFR1", "A shop sells to every country unless its owner says otherwise")
	if s.WebACL == "" && !s.WAF {
		suppress(d, "AwsSolutions-CFR2", "The setting waf adds a firewall, which has a price")
	}
	if s.CDNDomain == nil {
		suppress(d, "AwsSolutions-CFR4",
			"CloudFront's own certificate fixes the oldest TLS; cdnDomainName asks for TLS 1.2")
	}
}

func suppressRotation(secret awssecretsmanager.Secret) {
	suppress(secret, "AwsSolutions-SMG4", "The setting cdnSecrets changes it, in three deploys: "+
		"only a deploy can tell CloudFront and the functions of another one")
}

func suppressLogOfTheLog(bucket awss3.Bucket) {
	suppress(bucket, "AwsSolutions-S1", "This bucket has the access log of the CDN itself")
}

func suppressBackupPolicy(role awsiam.Role) {
	suppress(role, "AwsSolutions-IAM4",
		"AWS's managed policy for AWS Backup; AWS updates it with AWS Backup",
		"Policy::arn:<AWS::Partition>:iam::aws:policy/service-role/AWSBackupServiceRolePolicyForBackup")
}

func suppressManagedPolicy(rollout awsiam.Role) {
	suppress(rollout, "AwsSolutions-IAM4",
		"AWS's limited managed policy for CodeDeploy on Lambda; AWS updates it with CodeDeploy",
		"Policy::arn:<AWS::Partition>:iam::aws:policy/service-role/"+
			"AWSCodeDeployRoleForLambdaLimited")
}
