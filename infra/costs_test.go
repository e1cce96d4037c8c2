package main

import (
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
)

// chargedFor is what COST.md's measures have of a template.
type chargedFor struct {
	AlarmMetrics, CompositeAlarms, Functions, Instances, Proxies int
}

// countCharged counts in a template what AWS charges for each.
func countCharged(tpl template) chargedFor {
	c := chargedFor{
		CompositeAlarms: len(tpl.resources("AWS::CloudWatch::CompositeAlarm")),
		Instances:       len(tpl.resources("AWS::RDS::DBInstance")),
		Proxies:         len(tpl.resources("AWS::RDS::DBProxy")),
	}
	for _, alarm := range tpl.resources("AWS::CloudWatch::Alarm") {
		queries := asList(alarm.get("Metrics"))
		if len(queries) == 0 {
			c.AlarmMetrics++
		}
		for _, query := range queries {
			if dig(query, "MetricStat") != nil {
				c.AlarmMetrics++
			}
		}
	}
	for _, function := range tpl.resources("AWS::Lambda::Function") {
		if function.get("FunctionName") != nil { // the CDK's own have none
			c.Functions++
		}
	}
	return c
}

// COST.md is computed from what was counted in the templates then.
func TestTheMeasuresOfTheCostsCountTheTemplates(t *testing.T) {
	var measures struct{ Dev, Prod chargedFor }
	readJSON(t, "../internal/cmd/cost/measures.json", &measures)
	prod := draftOf(t, map[string]string{"env": "prod"})
	for _, stack := range []struct {
		name     string
		measured chargedFor
		tpl      template
	}{{"dev", measures.Dev, synth(t, "aurora-dev")}, {"prod", measures.Prod, prod}} {
		if diff := gocmp.Diff(stack.measured, countCharged(stack.tpl)); diff != "" {
			t.Errorf("%s (-measured +template): type make cost-measure\n%s", stack.name, diff)
		}
	}
	joining := changed(t, prod, `"AWS::CloudWatch::Alarm"`, `"AWS::CloudWatch::CompositeAlarm"`)
	if got := countCharged(joining); got == measures.Prod {
		t.Errorf("of alarms that all join others the count is the same: %+v", got)
	}
}
