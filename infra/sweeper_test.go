package main

import (
	"strings"
	"testing"
)

func TestTheRuleRunsTheSweepersAliasEveryMinute(t *testing.T) {
	eachMode(t, func(t *testing.T, mode string, tpl template) {
		state := "ENABLED"
		if modes[mode]["sweeper"] == "off" {
			state = "DISABLED"
		}
		rule := tpl.only(t, "AWS::Events::Rule")
		if rule.get("ScheduleExpression") != "rate(1 minute)" || rule.get("State") != state {
			t.Errorf("the rule is %s, want %s every minute", asJSON(rule.properties), state)
		}
		targets := asList(rule.get("Targets"))
		if len(targets) != 1 {
			t.Fatalf("the rule has %d targets, want one", len(targets))
		}
		if arn := asJSON(dig(targets[0], "Arn")); !strings.Contains(arn, "SweepersweepAlias") {
			t.Errorf("the rule runs %s, want the sweeper's alias", arn)
		}
	})
}

// A failed sweep isn't retried, because the next one does its work. Its event goes to the queue.
func TestAFailedSweepGoesToTheQueue(t *testing.T) {
	eachMode(t, func(t *testing.T, mode string, tpl template) {
		queue := tpl.only(t, "AWS::SQS::Queue")
		const days = 14 * 24 * 60 * 60
		if queue.get("MessageRetentionPeriod") != float64(days) {
			t.Errorf("the queue keeps events for %v s, want %d",
				queue.get("MessageRetentionPeriod"), days)
		}
		target := asList(tpl.only(t, "AWS::Events::Rule").get("Targets"))[0]
		const once = `{"MaximumEventAgeInSeconds":60,"MaximumRetryAttempts":0}`
		if got := asJSON(dig(target, "RetryPolicy")); got != once {
			t.Errorf("the rule retries by %s, want %s", got, once)
		}
		if got := asJSON(dig(target, "DeadLetterConfig")); !strings.Contains(got, queue.id) {
			t.Errorf("the rule's undelivered events go to %s, want %s", got, queue.id)
		}
		config := tpl.only(t, "AWS::Lambda::EventInvokeConfig")
		if config.get("Qualifier") == "$LATEST" || config.get("MaximumRetryAttempts") != 0.0 ||
			config.get("MaximumEventAgeInSeconds") != 60.0 {
			t.Errorf("the sweeper's retries are %s", asJSON(config.properties))
		}
		if got := asJSON(config.get("DestinationConfig", "OnFailure")); !strings.Contains(got, queue.id) {
			t.Errorf("a failed sweep's event goes to %s, want %s", got, queue.id)
		}
		role := tpl.roleStatements(roleOf(tpl.functions(mode)["sweep"], "Role"))
		wantAllowed(t, "the sweeper", role, "sqs:SendMessage", []string{queue.id})
	})
}
