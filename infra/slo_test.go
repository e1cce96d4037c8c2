package main

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/allo/reservations/internal/emf"
)

// windowOfObjective matches the names of the alarms that a composite alarm joins.
var windowOfObjective = regexp.MustCompile(`^(Slo[A-Za-z]+)-[0-9]+m$`)

// metricAlarms returns the alarms that watch metrics, those too that notify nobody.
func (tpl template) metricAlarms(mode string) map[string]resource {
	named := map[string]resource{}
	for _, a := range tpl.resources("AWS::CloudWatch::Alarm") {
		name, _ := a.get("AlarmName").(string)
		named[strings.TrimPrefix(name, stackName(mode)+"-")] = a
	}
	return named
}

// wantWindows has the threshold in percent, the period in seconds and the least number of bad calls
// of each window of an objective. The thresholds are 14.4 and 6 times the budget.
var wantWindows = map[string]struct{ above, period, least float64 }{
	"SloAvailability-60m":  {1.44, 3600, 5},
	"SloAvailability-5m":   {1.44, 300, 0},
	"SloAvailability-360m": {0.6, 21600, 5},
	"SloAvailability-30m":  {0.6, 1800, 0},
	"SloLatency-60m":       {14.4, 3600, 5},
	"SloLatency-5m":        {14.4, 300, 0},
	"SloLatency-360m":      {6, 21600, 5},
	"SloLatency-30m":       {6, 1800, 0},
}

// wantExpressions has what the alarms of an objective compute for each function.
var wantExpressions = map[string]map[string]string{
	"SloAvailability": {
		"bad": "FILL(errors%[1]d, 0) + FILL(throttles%[1]d, 0) + FILL(answers%[1]d, 0)",
		"all": "FILL(calls%[1]d, 0) + FILL(throttles%[1]d, 0)",
	},
	"SloLatency": {"bad": "FILL(slow%[1]d, 0)", "all": "FILL(calls%[1]d, 0)"},
}

func TestTheObjectivesAlarmsMeasureTheirBudgets(t *testing.T) {
	eachMode(t, func(t *testing.T, mode string, tpl template) {
		if !isProd(mode) {
			for name := range tpl.metricAlarms(mode) {
				if strings.HasPrefix(name, "Slo") {
					t.Errorf("dev has the alarm %s", name)
				}
			}
			return
		}
		for _, problem := range tpl.objectiveProblems(mode) {
			t.Error(problem)
		}
	})
}

// These are the controls of the test above.
func TestAWrongObjectiveIsFound(t *testing.T) {
	const mode = "aurora-prod"
	tpl := synth(t, mode)
	for name, change := range map[string][2]string{
		"another threshold":    {`"Threshold":1.44`, `"Threshold":14`},
		"another period":       {`"Period":21600`, `"Period":3600`},
		"throttles are good":   {`FILL(throttles0, 0) + `, ``},
		"no floor":             {`IF(bad0 \u003e 5`, `IF(bad0 \u003e 0`},
		"one window is enough": {`\") AND ALARM(\"`, `\") OR ALARM(\"`},
		"only one function":    {`MAX([share0, share1])`, `share0`},
		"another function":     {`"Value":"confirm"`, `"Value":"health"`},
	} {
		if len(changed(t, tpl, change[0], change[1]).objectiveProblems(mode)) == 0 {
			t.Errorf("%s: nothing is found", name)
		}
	}
}

// objectiveProblems says what is wrong with the alarms of the objectives.
func (tpl template) objectiveProblems(mode string) (found []string) {
	wrong := func(format string, args ...any) { found = append(found, fmt.Sprintf(format, args...)) }
	windows := map[string]resource{}
	for name, a := range tpl.metricAlarms(mode) {
		if windowOfObjective.MatchString(name) {
			windows[name] = a
		}
	}
	if len(windows) != len(wantWindows) {
		wrong("there are %d windows, want %d", len(windows), len(wantWindows))
	}
	for name, want := range wantWindows {
		a, ok := windows[name]
		if !ok {
			wrong("there is no alarm %s", name)
			continue
		}
		if a.get("Threshold") != want.above || a.get("AlarmActions") != nil ||
			a.get("TreatMissingData") != "notBreaching" {
			wrong("the alarm %s is %s", name, asJSON(a.properties))
		}
		for _, problem := range tpl.windowProblems(mode, name, a, want.period, want.least) {
			wrong("%s: %s", name, problem)
		}
	}
	for id := range wantExpressions {
		if problem := tpl.compositeProblem(mode, id, windows); problem != "" {
			wrong("%s: %s", id, problem)
		}
	}
	return found
}

// windowProblems says what is wrong with what an alarm of a window computes.
func (tpl template) windowProblems(
	mode, name string, a resource, period, least float64,
) (found []string) {
	got := map[string]string{}
	for _, q := range asList(a.get("Metrics")) {
		id := fmt.Sprint(dig(q, "Id"))
		if expression, ok := dig(q, "Expression").(string); ok {
			got[id] = expression
			continue
		}
		stat := dig(q, "MetricStat")
		if dig(stat, "Period") != period || dig(stat, "Stat") != "Sum" {
			found = append(found, "the metric "+asJSON(stat))
		}
		metric := tpl.watch(watched{}, dig(stat, "Metric"), stat).metric
		function := emf.Objectives()[int(id[len(id)-1]-'0')]
		if !strings.Contains(metric, "="+function) &&
			!strings.Contains(metric, "="+stackName(mode)+"-"+function+":live") {
			found = append(found, id+" is "+metric+", want that of "+function)
		}
	}
	objective := windowOfObjective.FindStringSubmatch(name)[1]
	for n := range emf.Objectives() {
		want := map[string]string{
			fmt.Sprint("share", n): fmt.Sprintf(
				"IF(bad%[1]d > %[2]g, 100 * bad%[1]d / all%[1]d, 0)", n, least),
		}
		for id, expression := range wantExpressions[objective] {
			want[fmt.Sprint(id, n)] = fmt.Sprintf(expression, n)
		}
		for id, expression := range want {
			if got[id] != expression {
				found = append(found, fmt.Sprintf("%s is %q, want %q", id, got[id], expression))
			}
		}
	}
	if all := asJSON(a.get("Metrics")); !strings.Contains(all, `"MAX([share0, share1])"`) {
		found = append(found, "it doesn't look at the worse function: "+all)
	}
	return found
}

// compositeProblem says what is wrong with an objective's composite alarm.
func (tpl template) compositeProblem(
	mode, id string, windows map[string]resource,
) string {
	for _, c := range tpl.resources("AWS::CloudWatch::CompositeAlarm") {
		if c.get("AlarmName") != stackName(mode)+"-"+id {
			continue
		}
		alarm := func(minutes string) string {
			return `ALARM("the Arn of ` + windows[id+"-"+minutes].id + `")`
		}
		want := "((" + alarm("60m") + " AND " + alarm("5m") + ") OR (" +
			alarm("360m") + " AND " + alarm("30m") + "))"
		if got := tpl.resolve(c.get("AlarmRule")); got != want {
			return "its rule is " + got + ", want " + want
		}
		return ""
	}
	return "there is no composite alarm"
}

// The dashboard has the budget's use over the days of the objective.
func TestTheDashboardShowsTheObjectives(t *testing.T) {
	const mode = "aurora-prod"
	body := asJSON(synth(t, mode).only(t, "AWS::CloudWatch::Dashboard").get("DashboardBody"))
	for _, part := range []string{
		"SloAvailability: bad calls in 28 days", "SloLatency: bad calls in 28 days", "-P28D",
	} {
		if !strings.Contains(body, part) {
			t.Errorf("the dashboard lacks %s", part)
		}
	}
}
