package main

import (
	"fmt"
	"strings"
	"testing"
)

// An alarm for which missing data breaches would ring on a first deploy, before its reporter has
// run.
func TestNoAlarmRingsBecauseItsReporterIsNew(t *testing.T) {
	eachMode(t, func(t *testing.T, mode string, tpl template) {
		for _, problem := range loudAlarms(t, mode, tpl) {
			t.Error(problem)
		}
	})

	// These are the controls.
	const mode = "aurora-prod"
	for _, change := range [][2]string{
		{`"WarmUpPeriodDurationInMinutes":15`, `"WarmUpPeriodDurationInMinutes":1`},
		{
			`"OnlyStartEvaluatingAfterWarmUpPeriodEnds":true`,
			`"OnlyStartEvaluatingAfterWarmUpPeriodEnds":false`,
		},
		{`"SweeperEveryMinuteC1A5CDBA"]`, `"SweeperOther"]`},
	} {
		if len(loudAlarms(t, mode, changed(t, synth(t, mode), change[0], change[1]))) == 0 {
			t.Errorf("the test accepts %s", change[1])
		}
	}
}

// loudAlarms says which alarms would ring on a first deploy.
func loudAlarms(t *testing.T, mode string, tpl template) (found []string) {
	t.Helper()
	missing, starter := 0, ""
	for _, rule := range tpl.resources("AWS::Events::Rule") {
		if strings.HasPrefix(rule.id, "SweeperEveryMinute") {
			starter = `"` + rule.id + `"`
		}
	}
	for name, a := range tpl.alarms(mode) {
		warm := asJSON(a.get("WarmUpConfiguration"))
		if a.get("TreatMissingData") != "breaching" {
			if warm != "null" {
				found = append(found, fmt.Sprintf("the alarm %s waits, and needn't", name))
			}
			continue
		}
		missing++
		const want = `{"OnlyStartEvaluatingAfterWarmUpPeriodEnds":true,` +
			`"WarmUpPeriodDurationInMinutes":15}`
		if warm != want || !a.dependsOn(starter) {
			found = append(found, fmt.Sprintf("the alarm %s waits %s, after %s", name, warm,
				asJSON(a.attributes["DependsOn"])))
		}
	}
	if missing == 0 && modes[mode]["sweeper"] != "off" {
		found = append(found, "no alarm watches for missing data")
	}
	return found
}

// A lost run leaves a message in the queue for two weeks, as evidence. The alarm ends before that.
func TestLostSweepsHeals(t *testing.T) {
	eachMode(t, func(t *testing.T, mode string, tpl template) {
		a := tpl.alarms(mode)["LostSweeps"]
		queue := tpl.named(t, "AWS::SQS::Queue", "QueueName", stackName(mode)+"-lost-sweeps")
		if a.get("MetricName") != "NumberOfMessagesSent" || a.get("Statistic") != "Sum" ||
			a.get("TreatMissingData") != "notBreaching" ||
			!strings.Contains(asJSON(a.get("Dimensions")), queue.id) {
			t.Errorf("LostSweeps is %s", asJSON(a.properties))
		}
		body := asJSON(tpl.only(t, "AWS::CloudWatch::Dashboard").get("DashboardBody"))
		if !strings.Contains(body, "ApproximateNumberOfMessagesVisible") {
			t.Error("the dashboard doesn't show what is in the queue")
		}
	})
}

// A synth prints a note when the alarms' topic has no subscriber. A strict synth accepts it.
func TestAStackWhoseAlarmsNobodyHearsSaysSo(t *testing.T) {
	for name, test := range map[string]struct {
		mode string
		want bool
	}{
		"an address":     {"external-prod", false},
		"a topic":        {"aurora-prod", false},
		"nobody":         {"external-dev", true},
		"nobody in prod": {"aurora-direct", true},
	} {
		tpl := synth(t, test.mode)
		if got := strings.Contains(string(tpl.metadata), unheardText); got != test.want {
			t.Errorf("%s: the synth warns: %v, want %v", name, got, test.want)
		}
		if len(tpl.warnings) > 0 {
			t.Errorf("%s: a strict synth fails on %v", name, tpl.warnings)
		}
	}
}
