package main

import (
	"strings"
	"testing"
)

func TestInvalidChecksAreRefused(t *testing.T) {
	t.Parallel()

	const pager = "arn:aws:sns:eu-central-1:123456789012:pager"
	for name, test := range map[string]struct {
		context map[string]any
		want    string
	}{
		"no word of smoke": {map[string]any{"smoke": "no"}, "smoke is"},
		"no word of slo":   {map[string]any{"slo": "99.9"}, "slo is"},
		"a product without a check": {
			map[string]any{"syntheticSku": "CANARY"}, "syntheticSku is for synthetic=on",
		},
		"a product that can't be reserved": {
			map[string]any{
				"synthetic": "on", "syntheticSku": "CANARY", "reserveAuth": "on", "auth": "iam",
			}, "syntheticSku needs reserveAuth=off",
		},
		"a check of a parked stack": {
			map[string]any{"synthetic": "on", "sweeper": "off"}, "synthetic=on needs sweeper=on",
		},
		"an SKU with a space": {
			map[string]any{"synthetic": "on", "syntheticSku": "a canary"}, "syntheticSku is",
		},
		"a topic's name": {map[string]any{"alarmTopicArn": "pager"}, "alarmTopicArn is"},
		"a queue": {
			map[string]any{"alarmTopicArn": strings.Replace(pager, "sns", "sqs", 1)}, "alarmTopicArn is",
		},
		"a FIFO topic": {map[string]any{"alarmTopicArn": pager + ".fifo"}, "alarmTopicArn is"},
		"a topic of another region": {
			map[string]any{"alarmTopicArn": pager, "region": "eu-west-1"},
			"alarmTopicArn is in eu-central-1",
		},
	} {
		if _, err := ReadSettings(test.context); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: ReadSettings = %v, want %q in the error", name, err, test.want)
		}
	}
}

func TestTheChecksAreRead(t *testing.T) {
	t.Parallel()

	const pager = "arn:aws:sns:eu-central-1:123456789012:pager"
	for env, objectives := range map[string]bool{"dev": false, "prod": true} {
		s, err := ReadSettings(map[string]any{"env": env})
		if want := (Checks{Smoke: true, Objectives: objectives}); err != nil || s.Checks != want {
			t.Errorf("%s: the checks are %+v, %v, want %+v", env, s.Checks, err, want)
		}
	}
	s, err := ReadSettings(map[string]any{
		"smoke": "off", "synthetic": "on", "syntheticSku": "CANARY-1", "slo": "on",
		"alarmTopicArn": pager, "region": "eu-central-1",
	})
	want := Checks{
		Synthetic: true, SyntheticSKU: "CANARY-1", Objectives: true, AlarmTopicARN: pager,
	}
	if err != nil || s.Checks != want {
		t.Errorf("the checks are %+v, %v, want %+v", s.Checks, err, want)
	}
}
