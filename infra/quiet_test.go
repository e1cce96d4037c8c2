package main

import (
	"fmt"
	"os"
	"path/filepath"
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
		{`"DependsOn":["SweeperEveryMinute`, `"DependsOn":["SweeperOther`},
	} {
		if len(loudAlarms(t, mode, changed(t, synth(t, mode), change[0], change[1]))) == 0 {
			t.Errorf("the test accepts %s", change[1])
		}
	}
}

// loudAlarms says which alarms would ring on a first deploy.
func loudAlarms(t *testing.T, mode string, tpl template) (found []string) {
	t.Helper()
	rule, missing := tpl.only(t, "AWS::Events::Rule"), 0
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
		if warm != want || !a.dependsOn(rule.id) {
			found = append(found, fmt.Sprintf("the alarm %s waits %s, after %s", name, warm,
				asJSON(a.attributes["DependsOn"])))
		}
	}
	if missing == 0 && modes[mode]["sweeper"] != "off" {
		found = append(found, "no alarm watches for missing data")
	}
	return found
}

// What one lost run leaves in the queue is evidence, and not an alarm for two weeks.
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

// Nobody hears a topic without a subscriber. Each synth of such a prod says so.
func TestAProdWhoseAlarmsNobodyHearsWarns(t *testing.T) {
	const settings = "external-prod"
	for email, want := range map[string]bool{"ops@example.com": false, "": true} {
		tpl := synthesizeWith(t, with(modes[settings], "alarmEmail", email))
		if got := strings.Contains(fmt.Sprint(tpl.warnings), unheard); got != want ||
			len(tpl.warnings) > 1 {
			t.Errorf("with alarmEmail=%s the warnings are %v, want %v", email, tpl.warnings, want)
		}
	}
	// Dev has a note, which doesn't fail a strict synth.
	dev := synthesizeWith(t, map[string]string{"db": "external"})
	metadata, err := os.ReadFile(filepath.Join(dev.assembly, "allo-dev.metadata.json"))
	if err != nil {
		t.Fatal(err)
	}
	if len(dev.warnings) > 0 || !strings.Contains(string(metadata), "Nobody hears the alarms") {
		t.Errorf("dev has the warnings %v, want a note", dev.warnings)
	}
}
