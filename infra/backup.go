package main

import (
	"github.com/aws/aws-cdk-go/awscdk/v2"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsbackup"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsevents"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsiam"
	"github.com/aws/aws-cdk-go/awscdk/v2/awskms"
	"github.com/aws/aws-cdk-go/awscdk/v2/awssns"
	"github.com/aws/constructs-go/constructs/v10"
	"github.com/aws/jsii-runtime-go"
)

const (
	// backupHour is the hour of the daily backup, in UTC.
	backupHour = "2"
	// backupHours is how long AWS Backup may take to begin and to end a backup.
	backupHours = 8
	// copyDays is how long the other region keeps a copy. It outlasts a holiday in which nobody
	// notices that the shop's data is damaged.
	copyDays = 35
)

// addBackups lets AWS Backup make a snapshot of the cluster each day and copy it to the vault of
// the other region. Aurora's own backups stay, and restore to any second, but only in their own
// region. A copy is a snapshot even of a backup that isn't (AWS Backup's developer guide, "Copying
// continuous backups": "PITR is not available for these copies"), so a lost region costs up to a
// day, and the time of the last copy. Aurora's Global Database would lose about a second. It needs
// a second cluster that runs all day, at the first one's price.
//
// The plan names the cluster by its ARN, so the account needs no opt-in to AWS Backup for Aurora
// (AWS Backup's API reference, UpdateRegionSettings). The topic gets a message of each backup or
// copy that failed.
func (a *aurora) addBackups(scope constructs.Construct, s Settings, alarms awssns.ITopic) {
	if s.BackupRegion == "" {
		return
	}
	scope = constructs.NewConstruct(scope, jsii.String("Backup"))
	vault := awsbackup.NewBackupVault(scope, jsii.String("Vault"), &awsbackup.BackupVaultProps{
		BackupVaultName:   jsii.String(s.StackName()),
		RemovalPolicy:     backupRemoval(s),
		NotificationTopic: alarms,
		NotificationEvents: &[]awsbackup.BackupVaultEvents{
			awsbackup.BackupVaultEvents_BACKUP_JOB_FAILED, awsbackup.BackupVaultEvents_COPY_JOB_FAILED,
		},
	})
	other := awsbackup.BackupVault_FromBackupVaultArn(scope, jsii.String("Other"),
		awscdk.Fn_Sub(jsii.String("arn:${AWS::Partition}:backup:"+s.BackupRegion+
			":${AWS::AccountId}:backup-vault:"+s.StackName()), nil))
	plan := awsbackup.NewBackupPlan(scope, jsii.String("Plan"), &awsbackup.BackupPlanProps{
		BackupPlanName: jsii.String(s.StackName()),
		BackupVault:    vault,
	})
	plan.AddRule(awsbackup.NewBackupPlanRule(&awsbackup.BackupPlanRuleProps{
		RuleName: jsii.String("daily"),
		ScheduleExpression: awsevents.Schedule_Cron(&awsevents.CronOptions{
			Hour: jsii.String(backupHour), Minute: jsii.String("0"),
		}),
		StartWindow:      awscdk.Duration_Hours(jsii.Number(1)),
		CompletionWindow: awscdk.Duration_Hours(jsii.Number(backupHours)),
		DeleteAfter:      awscdk.Duration_Days(jsii.Number(s.Stage.BackupDays)),
		CopyActions: &[]*awsbackup.BackupPlanCopyActionProps{{
			DestinationBackupVault: other,
			DeleteAfter:            awscdk.Duration_Days(jsii.Number(copyDays)),
		}},
	}))
	role := awsiam.NewRole(scope, jsii.String("Role"), &awsiam.RoleProps{
		AssumedBy: servicePrincipal("backup.amazonaws.com"),
	})
	plan.AddSelection(jsii.String("Cluster"), &awsbackup.BackupSelectionOptions{
		BackupSelectionName: jsii.String("cluster"),
		Resources: &[]awsbackup.BackupResource{
			awsbackup.BackupResource_FromArn(a.cluster.ClusterArn()),
		},
		Role: role,
	})
	suppressBackupPolicy(role)
}

// backupRemoval keeps a vault of prod. A vault that has backups can't be deleted in any case.
func backupRemoval(s Settings) awscdk.RemovalPolicy {
	if s.Stage.Protected {
		return awscdk.RemovalPolicy_RETAIN_ON_UPDATE_OR_DELETE
	}
	return awscdk.RemovalPolicy_DESTROY
}

// newBackupStack creates the stack STACK-backup in the other region, with the vault that gets the
// copies and the vault's key. CloudFormation makes resources of one region in a stack, so this is a
// second one, and the first waits for it. Its region needs the CDK's bootstrap too.
//
// RDS can't decrypt a snapshot in a region without a key there, so the vault has one of its own,
// whatever the setting kms is.
func newBackupStack(cdk awscdk.App, s Settings, main awscdk.Stack) {
	if s.BackupRegion == "" {
		return
	}
	stack := awscdk.NewStack(cdk, jsii.String(s.StackName()+"-backup"), &awscdk.StackProps{
		Description:           jsii.String("The copies of the backups of " + s.StackName()),
		Env:                   &awscdk.Environment{Account: optional(s.Account), Region: &s.BackupRegion},
		TerminationProtection: jsii.Bool(s.Stage.Protected),
	})
	key := awskms.NewKey(stack, jsii.String("Key"), &awskms.KeyProps{
		Alias:             jsii.String(s.StackName() + "-backup"),
		Description:       jsii.String("Encrypts the copies of the backups of " + s.StackName()),
		EnableKeyRotation: jsii.Bool(true),
		RemovalPolicy:     backupRemoval(s),
	})
	awsbackup.NewBackupVault(stack, jsii.String("Vault"), &awsbackup.BackupVaultProps{
		BackupVaultName: jsii.String(s.StackName()),
		EncryptionKey:   key,
		RemovalPolicy:   backupRemoval(s),
		// Nobody deletes the last copy by mistake, or by a role that may delete backups alone. Copies
		// still end by their own age. Who may change the vault's policy can undo this.
		BlockRecoveryPointDeletion: jsii.Bool(s.Stage.Protected),
	})
	tag(stack, s)
	main.AddStackDependency(stack, jsii.String("the copies need their vault"))
}
