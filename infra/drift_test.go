package main

import (
	"fmt"
	"os"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
)

func TestDriftIsLookedForAndToldOf(t *testing.T) {
	tpl := synthesizeDelivery(t, delivered())
	for _, problem := range tpl.driftProblems(t) {
		t.Error(problem)
	}
	for _, change := range []struct{ old, replacement string }{
		{"aws-sdk:cloudformation:detectStackDrift", "aws-sdk:cloudformation:describeStacks"},
		{`{\"StackName\":\"allo-dev\"}`, `{\"StackName\":\"allo-prod\"}`},
		{"cron(0 4 ", "rate(0 4 "},
		{"scheduler.amazonaws.com", "events.amazonaws.com"},
		{"cloudformation:DetectStackDrift", "cloudformation:ListStacks"},
		{"policy/ReadOnlyAccess", "policy/AdministratorAccess"},
		{`"prefix"`, `"suffix"`},
		{`"DRIFTED"`, `"IN_SYNC"`},
		{`"DETECTION_FAILED"`, `"DETECTION_IN_PROGRESS"`},
		{":allo-dev-alarms", ":allo-dev-events"},
		{"TargetErrorCount", "InvocationAttemptCount"},
	} {
		if len(changed(t, tpl, change.old, change.replacement).driftProblems(t)) == 0 {
			t.Errorf("the test accepts %s", change.replacement)
		}
	}
	roles := delivered()
	delete(roles, "drift")
	if kind := "AWS::Scheduler::Schedule"; len(synthesizeDelivery(t, roles).resources(kind)) != 0 {
		t.Error("drift=off makes a schedule")
	}
}

// driftProblems says what is wrong with the watch for drift.
func (tpl template) driftProblems(t *testing.T) (found []string) {
	t.Helper()
	const stack = ":cloudformation:eu-central-1:123456789012:stack/allo-dev/"
	schedule, rule := tpl.only(t, "AWS::Scheduler::Schedule"), tpl.only(t, "AWS::Events::Rule")
	alarm, role := tpl.only(t, "AWS::CloudWatch::Alarm"), tpl.role("DriftRole")
	for what, parts := range map[string]struct {
		text string
		want []string
	}{
		"schedule": {asJSON(schedule.properties), []string{
			":scheduler:::aws-sdk:cloudformation:detectStackDrift", `{\"StackName\":\"allo-dev\"}`,
			`"cron(0 4 * * ? *)"`, `"State":"ENABLED"`,
			fmt.Sprintf(`"RoleArn":{"Fn::GetAtt":["%s","Arn"]}`, role.id),
		}},
		"role": {asJSON(role.properties), []string{
			`"Service":"scheduler.amazonaws.com"`, `"aws:SourceAccount":"123456789012"`,
			":scheduler:eu-central-1:123456789012:schedule-group/allo-dev",
			"cloudformation:DetectStackDrift", "cloudformation:DetectStackResourceDrift", stack + "*",
			":iam::aws:policy/ReadOnlyAccess",
		}},
		"rule": {asJSON(rule.properties), []string{
			`"source":["aws.cloudformation"]`,
			`"detail-type":["CloudFormation Drift Detection Status Change"]`,
			`"stack-id":[{"prefix":`, stack + `"`,
			":sns:eu-central-1:123456789012:allo-dev-alarms", `"RoleArn"`,
		}},
		"alarm": {asJSON(alarm.properties), []string{
			`"AlarmName":"allo-dev-DriftUnchecked"`, `"MetricName":"TargetErrorCount"`,
			`"Namespace":"AWS/Scheduler"`, `"Name":"ScheduleGroup"`, ":allo-dev-alarms",
			`"ComparisonOperator":"GreaterThanThreshold"`, `"Threshold":0`,
		}},
	} {
		for _, want := range parts.want {
			if !strings.Contains(parts.text, want) {
				found = append(found, fmt.Sprintf("the %s has no %s: %s", what, want, parts.text))
			}
		}
	}
	want := `[{"status-details":{"detection-status":["DETECTION_COMPLETE"],` +
		`"stack-drift-status":["DRIFTED"]}},{"status-details":{"detection-status":["DETECTION_FAILED"]}}]`
	if diff := gocmp.Diff(want, asJSON(rule.get("EventPattern", "detail", "$or"))); diff != "" {
		found = append(found, "the rule's statuses (-want +got): "+diff)
	}
	return found
}

func TestTheRunbookTellsWhatToDoOfDrift(t *testing.T) {
	t.Parallel()

	text, err := os.ReadFile("RUNBOOK.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(text), "\n## Drift\n")
	section, _, _ = strings.Cut(section, "\n## ")
	if !ok || !strings.Contains(section, "`DriftUnchecked`") {
		t.Error("RUNBOOK.md has no section Drift that tells of DriftUnchecked")
	}
}
