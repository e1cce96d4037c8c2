package main

import (
	"slices"
	"strings"
	"testing"
)

// synthDisaster returns the templates of prod and of its backup stack, with every setting of
// Disaster.
func synthDisaster(t *testing.T) (main, backup template) {
	t.Helper()
	settings := with(modes["aurora-prod"],
		"kms", "on", "migrate", "manual", "backupRegion", "eu-west-1")
	made := synthesizeApp(t, settings)
	return made.stack(t, settings, ""), made.stack(t, settings, "-backup")
}

func TestCDKNagFindsNothingInADisasterEither(t *testing.T) {
	main, backup := synthDisaster(t)
	for _, warning := range append(main.warnings, backup.warnings...) {
		t.Error(warning)
	}
}

func TestAManualMigrationIsOnlyCheckedByTheDeploy(t *testing.T) {
	main, _ := synthDisaster(t)
	const path = "MIGRATE"
	by := func(tpl template) any {
		return tpl.functions("aurora-prod")["migrate"].get("Environment", "Variables", path)
	}
	if got := by(main); got != "manual" {
		t.Errorf("with migrate=manual the function has %s=%v", path, got)
	}
	if got := by(synth(t, "aurora-prod")); got != nil {
		t.Errorf("by default the function has %s=%v", path, got)
	}
	main.trigger(t, "Migration") // it still installs the routines, and checks
}

// Each wait outlasts the one inside it, so that CloudFormation hears of each failure. The run
// itself ends after 14 minutes.
func TestTheWaitsForAMigrationAreNested(t *testing.T) {
	eachMode(t, func(t *testing.T, mode string, tpl template) {
		function, _ := tpl.functions(mode)["migrate"].get("Timeout").(float64)
		handler := 0.0
		for _, f := range tpl.resources("AWS::Lambda::Function") {
			if strings.Contains(f.id, "TriggerCustomResourceProvider") {
				handler, _ = f.get("Timeout").(float64)
			}
		}
		const run = 14 * 60
		if !(run < function && function < triggerTimeout && triggerTimeout < handler) {
			t.Errorf("a run takes %d s, the function %v s, the trigger %d s, its function %v s", run,
				function, triggerTimeout, handler)
		}
	})
}

// keyOf returns the reference to a template's own key.
func keyOf(t *testing.T, tpl template) string {
	t.Helper()
	return asJSON(map[string]any{"Fn::GetAtt": []any{tpl.only(t, "AWS::KMS::Key").id, "Arn"}})
}

// unencrypted returns the resources that a template's key doesn't encrypt.
func unencrypted(t *testing.T, tpl template) (without []string) {
	t.Helper()
	key := keyOf(t, tpl)
	for kind, properties := range keyProperties {
		for _, r := range tpl.resources(kind) {
			for _, property := range properties {
				if asJSON(r.get(strings.Split(property, ".")...)) != key {
					without = append(without, r.id+"."+property)
				}
			}
			if r.get("SqsManagedSseEnabled") != nil {
				without = append(without, r.id+" has two keys")
			}
		}
	}
	return without
}

func TestAKeyOfItsOwnEncryptsWhatTheStackKeeps(t *testing.T) {
	main, _ := synthDisaster(t)
	for _, what := range unencrypted(t, main) {
		t.Errorf("the key doesn't encrypt %s", what)
	}
	for kind := range keyProperties {
		if len(main.resources(kind)) == 0 {
			t.Errorf("the template has no %s, so nothing was checked", kind)
		}
	}
	// The control: one resource without the key.
	plain := changed(t, main, `"KmsMasterKeyId":`+keyOf(t, main), `"KmsMasterKeyId":"alias/aws/sns"`)
	if len(unencrypted(t, plain)) == 0 {
		t.Error("the check accepts a queue or a topic with another key")
	}
	if n := len(synth(t, "aurora-prod").resources("AWS::KMS::Key")); n != 0 {
		t.Errorf("by default the stack has %d keys", n)
	}
}

func TestTheKeyIsRotatedAndKept(t *testing.T) {
	main, backup := synthDisaster(t)
	for name, tpl := range map[string]template{"the stack": main, "the backup stack": backup} {
		key := tpl.only(t, "AWS::KMS::Key")
		if key.get("EnableKeyRotation") != true {
			t.Errorf("the key of %s isn't rotated", name)
		}
		if policy := key.attributes["DeletionPolicy"]; policy != "RetainExceptOnCreate" {
			t.Errorf("the key of %s has the deletion policy %v", name, policy)
		}
	}
	dev := draftOf(t, map[string]string{"kms": "on", "backupRegion": "eu-west-1"})
	key := dev.only(t, "AWS::KMS::Key")
	if key.attributes["DeletionPolicy"] != "Delete" || key.get("PendingWindowInDays") != 7.0 {
		t.Errorf("dev's key is %s, want it to go with the stack", asJSON(key.attributes))
	}
}

// Without a statement, an alarm's message, an event or a line of a log would be lost silently.
func TestTheKeysPolicyLetsEachServiceUseIt(t *testing.T) {
	main, _ := synthDisaster(t)
	statements := map[string]any{}
	list, _ := main.only(t, "AWS::KMS::Key").get("KeyPolicy", "Statement").([]any)
	for _, s := range list {
		id, _ := dig(s, "Sid").(string)
		statements[id] = s
	}
	senders := asJSON(dig(statements["Senders"], "Principal"))
	for _, service := range []string{"sns", "events", "cloudwatch", "backup"} {
		if !strings.Contains(senders, `"`+service+`.amazonaws.com"`) {
			t.Errorf("%s may not use the key to send: %s", service, senders)
		}
	}
	// The archive of the bus asks for the last one: EventBridge refuses to make it otherwise.
	for _, action := range []string{
		"kms:DescribeKey", "kms:Decrypt", "kms:GenerateDataKey*", "kms:ReEncrypt*",
	} {
		if !strings.Contains(asJSON(dig(statements["Senders"], "Action")), `"`+action+`"`) {
			t.Errorf("who sends may not use the key for %s", action)
		}
	}
	if dig(statements["Senders"], "Condition") != nil {
		t.Error("a condition shuts EventBridge out, which sends no source account")
	}
	roles := statements["RolesByWayOfAService"]
	condition := asJSON(dig(roles, "Condition"))
	for _, want := range []string{
		"kms:CallerAccount", "sqs.${AWS::Region}", "sns.${AWS::Region}", "secretsmanager.${AWS::Region}",
	} {
		if !strings.Contains(condition, want) {
			t.Errorf("the roles' condition is %s, want %s in it", condition, want)
		}
	}
	logs := asJSON(dig(statements["LogsOfTheStack"], "Condition"))
	for _, group := range main.resources("AWS::Logs::LogGroup") {
		name, _ := group.get("LogGroupName").(string)
		covered := slices.ContainsFunc(
			[]string{"/allo-prod/", "/aws/vendedlogs/allo-prod/", "/aws/rds/cluster/allo-prod/"},
			func(prefix string) bool {
				return strings.HasPrefix(name, prefix) && strings.Contains(logs, ":log-group:"+prefix+"*")
			})
		if !covered {
			t.Errorf("CloudWatch Logs may not use the key for the group %s: %s", name, logs)
		}
	}
}

func TestEachDaysBackupIsCopiedToTheOtherRegion(t *testing.T) {
	main, backup := synthDisaster(t)
	vault := backup.only(t, "AWS::Backup::BackupVault")
	if vault.get("BackupVaultName") != "allo-prod" || asJSON(vault.get("EncryptionKeyArn")) !=
		keyOf(t, backup) || vault.attributes["DeletionPolicy"] != "RetainExceptOnCreate" {
		t.Errorf("the other region's vault is %s", asJSON(vault.attributes))
	}
	if policy := asJSON(vault.get("AccessPolicy")); !strings.Contains(policy, `"Effect":"Deny"`) ||
		!strings.Contains(policy, "backup:DeleteRecoveryPoint") {
		t.Errorf("anybody may delete the last copy: %s", policy)
	}
	if !backup.protected {
		t.Error("CloudFormation may delete the backup stack")
	}
	plan := asJSON(main.only(t, "AWS::Backup::BackupPlan").get("BackupPlan"))
	for _, want := range []string{
		`"ScheduleExpression":"cron(0 2 * * ? *)"`, `:backup:eu-west-1:${AWS::AccountId}:`,
		`backup-vault:allo-prod"`, `"Lifecycle":{"DeleteAfterDays":35}`,
		`"Lifecycle":{"DeleteAfterDays":14}`,
	} {
		if !strings.Contains(plan, want) {
			t.Errorf("the plan is %s, want %s in it", plan, want)
		}
	}
	selection := asJSON(main.only(t, "AWS::Backup::BackupSelection").get("BackupSelection"))
	if !strings.Contains(selection, main.only(t, "AWS::RDS::DBCluster").id) {
		t.Errorf("the plan's selection is %s, want the cluster in it", selection)
	}
	own := main.only(t, "AWS::Backup::BackupVault")
	events := asJSON(own.get("Notifications", "BackupVaultEvents"))
	if !strings.Contains(events, "BACKUP_JOB_FAILED") || !strings.Contains(events, "COPY_JOB_FAILED") {
		t.Errorf("the vault tells of %s", events)
	}
	policies := asJSON(func() (all []any) {
		for _, p := range main.resources("AWS::SNS::TopicPolicy") {
			all = append(all, p.properties)
		}
		return all
	}())
	if !strings.Contains(policies, `"Service":"backup.amazonaws.com"`) {
		t.Errorf("AWS Backup may not publish to the alarms' topic: %s", policies)
	}
	for _, kind := range []string{"AWS::Backup::BackupPlan", "AWS::Backup::BackupVault"} {
		if n := len(synth(t, "aurora-prod").resources(kind)); n != 0 {
			t.Errorf("by default the stack has %d of %s", n, kind)
		}
	}
}

func TestInvalidSettingsOfADisasterAreRefused(t *testing.T) {
	t.Parallel()

	for name, test := range map[string]struct {
		context map[string]any
		want    string
	}{
		"migrations by a word": {map[string]any{"migrate": "off"}, "migrate is"},
		"key as a bool":        {map[string]any{"kms": true}, "kms is"},
		"region by its name":   {map[string]any{"backupRegion": "Ireland"}, "backupRegion is"},
		"its own region": {
			map[string]any{"region": "eu-west-1", "backupRegion": "eu-west-1"}, "name another one",
		},
		"another partition": {
			map[string]any{"region": "eu-west-1", "backupRegion": "cn-north-1"}, "same partition",
		},
		"backup of an external database": {
			map[string]any{"db": "external", "backupRegion": "eu-west-1"}, "is for db=aurora",
		},
	} {
		_, err := ReadSettings(test.context)
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: the error is %v, want %q in it", name, err, test.want)
		}
	}
	s, err := ReadSettings(map[string]any{
		"kms": "on", "migrate": "manual", "region": "eu-west-1", "backupRegion": "eu-central-1",
	})
	if want := (Disaster{true, "eu-central-1", true}); err != nil || s.Disaster != want {
		t.Errorf("ReadSettings() = %+v, %v, want %+v", s.Disaster, err, want)
	}
}
