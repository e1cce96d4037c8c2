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
		rule := tpl.named(t, "AWS::Events::Rule", "Name", stackName(mode)+"-every-minute")
		if rule.get("ScheduleExpression") != "rate(1 minute)" || rule.get("State") != state {
			t.Errorf("the rule is %s, want %s every minute", asJSON(rule.properties), state)
		}
		want := []string{"SweepersweepAlias"}
		if eventsOf(mode) != EventsOff {
			want = append(want, "EventsrelayAlias")
		}
		targets := asList(rule.get("Targets"))
		if len(targets) != len(want) {
			t.Fatalf("the rule has %d targets, want %v", len(targets), want)
		}
		for i, target := range targets {
			if arn := asJSON(dig(target, "Arn")); !strings.Contains(arn, want[i]) {
				t.Errorf("the rule runs %s, want %s", arn, want[i])
			}
		}
	})
}

// A failed run isn't retried, because the next one does its work. Its event goes to the queue.
func TestAFailedSweepOrRelayGoesToTheQueue(t *testing.T) {
	eachMode(t, func(t *testing.T, mode string, tpl template) {
		queue := tpl.named(t, "AWS::SQS::Queue", "QueueName", stackName(mode)+"-lost-sweeps")
		const days = 14 * 24 * 60 * 60
		if queue.get("MessageRetentionPeriod") != float64(days) {
			t.Errorf("the queue keeps events for %v s, want %d",
				queue.get("MessageRetentionPeriod"), days)
		}
		rule := tpl.named(t, "AWS::Events::Rule", "Name", stackName(mode)+"-every-minute")
		for _, target := range asList(rule.get("Targets")) {
			const once = `{"MaximumEventAgeInSeconds":60,"MaximumRetryAttempts":0}`
			if got := asJSON(dig(target, "RetryPolicy")); got != once {
				t.Errorf("the rule retries by %s, want %s", got, once)
			}
			if got := asJSON(dig(target, "DeadLetterConfig")); !strings.Contains(got, queue.id) {
				t.Errorf("the rule's undelivered events go to %s, want %s", got, queue.id)
			}
		}
		functions := []string{"sweep"}
		if eventsOf(mode) != EventsOff {
			functions = append(functions, "relay")
		}
		configs := tpl.resources("AWS::Lambda::EventInvokeConfig")
		if len(configs) != len(functions) {
			t.Errorf("%d functions have settings for failed events, want %v", len(configs), functions)
		}
		for _, config := range configs {
			if config.get("Qualifier") == "$LATEST" || config.get("MaximumRetryAttempts") != 0.0 ||
				config.get("MaximumEventAgeInSeconds") != 60.0 {
				t.Errorf("the retries of %s are %s", config.id, asJSON(config.properties))
			}
			got := asJSON(config.get("DestinationConfig", "OnFailure"))
			if !strings.Contains(got, queue.id) {
				t.Errorf("a failed event of %s goes to %s, want %s", config.id, got, queue.id)
			}
		}
		for _, name := range functions {
			role := tpl.roleStatements(roleOf(tpl.functions(mode)[name], "Role"))
			wantAllowed(t, name, role, "sqs:SendMessage", []string{queue.id})
		}
	})
}
