package main

import (
	"github.com/aws/aws-cdk-go/awscdk/v2"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsiam"
	"github.com/aws/aws-cdk-go/awscdk/v2/awskms"
	"github.com/aws/constructs-go/constructs/v10"
	"github.com/aws/jsii-runtime-go"
)

// keyPendingDays is how long a deleted key of dev can be taken back: the least that KMS allows.
const keyPendingDays = 7

// keyProperties maps each type of resource that kms=on encrypts to its property for the key's ARN.
// Cognito, AppSync and API Gateway keep no data of the shop. The only secret in the functions'
// variables is the CDN's, with cdnOnly=on: Lambda's own key encrypts them, and this one would be a
// call of KMS in each cold start. The CDN's log stays with S3's own key.
var keyProperties = map[string][]string{
	"AWS::Backup::BackupVault": {"EncryptionKeyArn"},
	"AWS::Events::Archive":     {"KmsKeyIdentifier"},
	"AWS::Events::EventBus":    {"KmsKeyIdentifier"},
	"AWS::Logs::LogGroup":      {"KmsKeyId"},
	"AWS::RDS::DBCluster":      {"KmsKeyId", "MasterUserSecret.KmsKeyId"},
	"AWS::SNS::Topic":          {"KmsMasterKeyId"},
	"AWS::SQS::Queue":          {"KmsMasterKeyId"},
}

// encryptWithOwnKey creates a key and makes every resource of keyProperties use it. It does so at
// the end, so that no construct can be forgotten.
func encryptWithOwnKey(stack awscdk.Stack, s Settings) {
	if !s.OwnKey {
		return
	}
	key := newKey(stack, s)
	for _, node := range *stack.Node().FindAll(constructs.ConstructOrder_PREORDER) {
		resource, ok := node.(awscdk.CfnResource)
		if !ok {
			continue
		}
		kind := *resource.CfnResourceType()
		for _, property := range keyProperties[kind] {
			resource.AddPropertyOverride(jsii.String(property), key.KeyArn())
		}
		if kind == "AWS::SQS::Queue" {
			// A queue has either SQS's key or one of KMS.
			resource.AddPropertyDeletionOverride(jsii.String("SqsManagedSseEnabled"))
		}
	}
}

func newKey(stack awscdk.Stack, s Settings) awskms.Key {
	props := &awskms.KeyProps{
		Alias:             jsii.String(s.StackName()),
		Description:       jsii.String("Encrypts what " + s.StackName() + " keeps"),
		EnableKeyRotation: jsii.Bool(true), // once a year; what is encrypted already stays readable
	}
	if s.Stage.Protected {
		// Without its key, the snapshot of a deleted stack can't be restored.
		props.RemovalPolicy = awscdk.RemovalPolicy_RETAIN_ON_UPDATE_OR_DELETE
	} else {
		props.RemovalPolicy = awscdk.RemovalPolicy_DESTROY
		props.PendingWindow = awscdk.Duration_Days(jsii.Number(keyPendingDays))
	}
	// The construct's own statement lets the account's administrators decide, by IAM, who may use the
	// key. RDS and AWS Backup use it by grants, which the deploying role makes by that right.
	key := awskms.NewKey(stack, jsii.String("Key"), props)
	for _, statement := range keyStatements(s) {
		key.AddToResourcePolicy(statement, jsii.Bool(true))
	}
	return key
}

// keyStatements let AWS's services and the account's roles use the key:
//   - CloudWatch Logs, for the stack's log groups alone (its user guide, "Encrypt log data in
//     CloudWatch Logs using AWS Key Management Service");
//   - what sends to an encrypted topic or queue, and EventBridge for its bus: SNS's developer
//     guide, "Key management", and EventBridge's user guide, "Authorizing EventBridge to use a
//     customer managed key" and, for kms:ReEncrypt*, "Encrypting EventBridge archives with AWS KMS
//     keys". There is no condition, because EventBridge sends no source account to
//     an encrypted topic or queue. A foreign alarm or rule needs the topic's or the queue's policy
//     too, and has it not;
//   - every role of the account, but only by way of SQS, SNS and Secrets Manager, whose own
//     permissions then decide. The keys that AWS manages for these services have the same
//     statement.
func keyStatements(s Settings) []awsiam.PolicyStatement {
	use := []string{
		"kms:Encrypt", "kms:Decrypt", "kms:ReEncrypt*", "kms:GenerateDataKey*", "kms:DescribeKey",
	}
	senders := []string{"sns", "events", "cloudwatch", "backup"}
	var principals []awsiam.IPrincipal
	for _, name := range senders {
		principals = append(principals, servicePrincipal(name+".amazonaws.com"))
	}
	var groups []*string
	for _, prefix := range logGroupPrefixes(s) {
		groups = append(groups, awscdk.Fn_Sub(jsii.String("arn:${AWS::Partition}:logs:${AWS::Region}:"+
			"${AWS::AccountId}:log-group:"+prefix+"*"), nil))
	}
	var services []*string
	for _, name := range []string{"sqs", "sns", "secretsmanager"} {
		services = append(services,
			awscdk.Fn_Sub(jsii.String(name+".${AWS::Region}.${AWS::URLSuffix}"), nil))
	}
	return []awsiam.PolicyStatement{
		keyStatement("LogsOfTheStack", use,
			[]awsiam.IPrincipal{awsiam.NewServicePrincipal(awscdk.Fn_Sub(
				jsii.String("logs.${AWS::Region}.amazonaws.com"), nil), nil)},
			map[string]any{"ArnLike": map[string]any{"kms:EncryptionContext:aws:logs:arn": groups}}),
		keyStatement("Senders", []string{
			"kms:Decrypt", "kms:ReEncrypt*", "kms:GenerateDataKey*", "kms:DescribeKey",
		}, principals, nil),
		keyStatement("RolesByWayOfAService", use, []awsiam.IPrincipal{awsiam.NewAnyPrincipal()},
			map[string]any{"StringEquals": map[string]any{
				"kms:CallerAccount": awscdk.Aws_ACCOUNT_ID(), "kms:ViaService": services,
			}}),
	}
}

func keyStatement(
	id string, actions []string, principals []awsiam.IPrincipal, conditions map[string]any,
) awsiam.PolicyStatement {
	props := &awsiam.PolicyStatementProps{
		Sid: jsii.String(id), Actions: jsii.Strings(actions...), Resources: jsii.Strings("*"),
		Principals: &principals,
	}
	if conditions != nil {
		props.Conditions = &conditions
	}
	return awsiam.NewPolicyStatement(props)
}

// logGroupPrefixes begin the names of the stack's log groups: newLogGroup's, those that AWS's
// services write to, and the one that RDS names.
func logGroupPrefixes(s Settings) []string {
	return []string{
		"/" + s.StackName() + "/", vendedName(s, ""), "/aws/rds/cluster/" + s.StackName() + "/",
	}
}
