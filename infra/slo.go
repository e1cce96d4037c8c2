package main

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/aws/aws-cdk-go/awscdk/v2"
	"github.com/aws/aws-cdk-go/awscdk/v2/awscloudwatch"
	"github.com/aws/aws-cdk-go/awscdk/v2/awscloudwatchactions"
	"github.com/aws/jsii-runtime-go"

	"github.com/allo/reservations/internal/emf"
)

// The service level objectives of reserve and confirm, each over sloDays days:
//
//   - Availability: 99.9% of the calls get an answer that isn't a 5xx, and aren't throttled by
//     Lambda. A refusal, such as 409 for too little stock, is a good answer. 0.1% is forty minutes
//     of 28 days: about what failovers of the database and a bad release that its canary ends may
//     cost.
//   - Latency: 99% of the calls are answered within emf.SlowAfter, from when the gateway took them.
//     So it is the p99.
//
// An objective's budget is the share of calls that may be bad. An alarm rings when it burns so fast
// that it would be gone in days: at 14.4 times its pace over an hour, which is about 2% of it, or
// at 6 times over six hours, which is about 5% (Google's Site Reliability Workbook, "Alerting on
// SLOs"). Each also looks at a window of a twelfth, so that the alarm ends soon after the trouble.
//
// An alarm's expression has one period, so each window is an alarm of its own, and a composite
// alarm joins the four of an objective. An alarm takes ten metrics (CloudWatch's user guide,
// "Limits that apply to alarms based on metric math expressions"), and both functions share it: it
// looks at the worse one. The gateway's own faults aren't in it: ApiErrors and PublicCheck see
// those.
const (
	sloDays = 28
	// sloLeast is the number of bad calls in the long window up to which an alarm is silent, as for
	// ApiErrors: without traffic one bad call would be a large share.
	sloLeast = 5
)

// objective is a service level objective.
type objective struct {
	id string
	// budget is the share of the calls that may be bad, in percent.
	budget  float64
	meaning string
	// metrics returns a function's metrics by their ids in an expression, which the number n ends.
	metrics func(m *monitoring, f function, n int, minutes float64) map[string]awscloudwatch.IMetric
	// bad and all are the expressions of the bad calls and of all calls. A % stands for n.
	bad, all string
}

var objectives = []objective{
	{
		id: "SloAvailability", budget: 0.1,
		meaning: "reserve or confirm fails for so many callers that its budget for errors, 0.1% of " +
			"28 days' calls, would be gone in days",
		metrics: func(
			m *monitoring, f function, n int, minutes float64,
		) map[string]awscloudwatch.IMetric {
			return numbered(n, map[string]awscloudwatch.IMetric{
				"calls":     f.alias.MetricInvocations(every(minutes, "Sum")),
				"errors":    f.alias.MetricErrors(every(minutes, "Sum")),
				"throttles": f.alias.MetricThrottles(every(minutes, "Sum")),
				"answers":   m.serviceMetric(emf.ServerErrors, f.name, "Sum", minutes),
			})
		},
		bad: "FILL(errors%, 0) + FILL(throttles%, 0) + FILL(answers%, 0)",
		all: "FILL(calls%, 0) + FILL(throttles%, 0)", // Lambda doesn't count a throttled call as one.
	},
	{
		id: "SloLatency", budget: 1,
		meaning: "reserve or confirm is slower than half a second for so many callers that its budget, " +
			"1% of 28 days' calls, would be gone in days",
		metrics: func(
			m *monitoring, f function, n int, minutes float64,
		) map[string]awscloudwatch.IMetric {
			return numbered(n, map[string]awscloudwatch.IMetric{
				"calls": f.alias.MetricInvocations(every(minutes, "Sum")),
				"slow":  m.serviceMetric(emf.SlowAnswers, f.name, "Sum", minutes),
			})
		},
		bad: "FILL(slow%, 0)",
		all: "FILL(calls%, 0)",
	},
}

// burn is a pace of a budget, and the two windows over which it is measured, in minutes.
type burn struct{ pace, long, short float64 }

var burns = []burn{
	{pace: 14.4, long: 60, short: 5},
	{pace: 6, long: 360, short: 30},
}

// numbered ends each id with the number n.
func numbered(n int, metrics map[string]awscloudwatch.IMetric) map[string]awscloudwatch.IMetric {
	out := map[string]awscloudwatch.IMetric{}
	for id, metric := range metrics {
		out[fmt.Sprintf("%s%d", id, n)] = metric
	}
	return out
}

// share returns the percentage of the calls of function n that were bad in a window. It is 0 with
// at most `least` bad ones.
func (o objective) share(
	m *monitoring, f function, n int, minutes float64, least int,
) awscloudwatch.MathExpression {
	number := func(text string) *string {
		return jsii.String(strings.ReplaceAll(text, "%", strconv.Itoa(n)))
	}
	period, metrics := awscdk.Duration_Minutes(jsii.Number(minutes)), o.metrics(m, f, n, minutes)
	all := map[string]awscloudwatch.IMetric{}
	for id, expression := range map[string]string{"bad%": o.bad, "all%": o.all} {
		used := map[string]awscloudwatch.IMetric{}
		for name, metric := range metrics {
			if strings.Contains(*number(expression), "("+name+",") {
				used[name] = metric
			}
		}
		all[*number(id)] = awscloudwatch.NewMathExpression(&awscloudwatch.MathExpressionProps{
			Expression: number(expression), UsingMetrics: &used, Period: period,
		})
	}
	return awscloudwatch.NewMathExpression(&awscloudwatch.MathExpressionProps{
		Expression:   number(fmt.Sprintf("IF(bad%% > %d, 100 * bad%% / all%%, 0)", least)),
		UsingMetrics: &all,
		Label:        jsii.String(f.name),
		Period:       period,
	})
}

// worst returns the larger share of the functions.
func (o objective) worst(
	m *monitoring, functions []function, minutes float64, least int,
) awscloudwatch.MathExpression {
	shares := map[string]awscloudwatch.IMetric{}
	var ids []string
	for n, f := range functions {
		id := fmt.Sprintf("share%d", n)
		ids, shares[id] = append(ids, id), o.share(m, f, n, minutes, least)
	}
	return awscloudwatch.NewMathExpression(&awscloudwatch.MathExpressionProps{
		Expression:   jsii.String("MAX([" + strings.Join(ids, ", ") + "])"),
		UsingMetrics: &shares,
		Label:        jsii.String("% of the calls of the worse function"),
		Period:       awscdk.Duration_Minutes(jsii.Number(minutes)),
	})
}

// addObjectives adds the objectives' alarms, and their row of the dashboard.
func (m *monitoring) addObjectives(routed []function) {
	if !m.settings.Objectives {
		return
	}
	var functions []function
	for _, f := range routed {
		if slices.Contains(emf.Objectives(), f.name) {
			functions = append(functions, f)
		}
	}
	var widgets []awscloudwatch.IWidget
	for _, o := range objectives {
		m.addObjective(o, functions)
		widgets = append(widgets, o.widgets(m, functions)...)
	}
	m.rows = append(m.rows, widgets)
}

// addObjective adds an objective's composite alarm and the alarms that it joins, which notify
// nobody.
func (m *monitoring) addObjective(o objective, functions []function) {
	var rules []awscloudwatch.IAlarmRule
	for _, b := range burns {
		rules = append(rules, awscloudwatch.AlarmRule_AllOf(
			m.addWindow(o, b, b.long, sloLeast, functions),
			m.addWindow(o, b, b.short, 0, functions)))
	}
	all := awscloudwatch.NewCompositeAlarm(m.scope, jsii.String(o.id),
		&awscloudwatch.CompositeAlarmProps{
			CompositeAlarmName: jsii.String(m.settings.StackName() + "-" + o.id),
			AlarmDescription:   jsii.String(alarmDescription(o.meaning, o.id)),
			AlarmRule:          awscloudwatch.AlarmRule_AnyOf(rules...),
		})
	for _, topic := range m.topics {
		notify := awscloudwatchactions.NewSnsAction(topic)
		all.AddAlarmAction(notify)
		all.AddOkAction(notify)
	}
	m.alarms = append(m.alarms, all)
}

// addWindow adds the alarm of one window: the pace of the budget is above the burn's.
func (m *monitoring) addWindow(
	o objective, b burn, minutes float64, least int, functions []function,
) awscloudwatch.IAlarmRule {
	id := fmt.Sprintf("%s-%gm", o.id, minutes)
	return awscloudwatch.AlarmRule_FromAlarm(
		awscloudwatch.NewAlarm(m.scope, jsii.String(id), &awscloudwatch.AlarmProps{
			Metric:    o.worst(m, functions, minutes, least),
			AlarmName: jsii.String(m.settings.StackName() + "-" + id),
			AlarmDescription: jsii.String(fmt.Sprintf(
				"A part of the alarm %s, which notifies: %g times the budget's pace in %g minutes",
				o.id, b.pace, minutes)),
			Threshold:          jsii.Number(threshold(b, o)),
			ComparisonOperator: awscloudwatch.ComparisonOperator_GREATER_THAN_THRESHOLD,
			EvaluationPeriods:  jsii.Number(1),
			TreatMissingData:   awscloudwatch.TreatMissingData_NOT_BREACHING,
		}), awscloudwatch.AlarmState_ALARM)
}

// threshold returns the percentage of bad calls at which a budget burns so fast, to the thousandth:
// a product of two decimal fractions ends in noise.
func threshold(b burn, o objective) float64 { return math.Round(b.pace*o.budget*1000) / 1000 }

// widgets returns an objective's graph, and its figure for the days over which it is measured.
func (o objective) widgets(m *monitoring, functions []function) []awscloudwatch.IWidget {
	var recent, whole []awscloudwatch.IMetric
	for n, f := range functions {
		recent = append(recent, o.share(m, f, n, burns[0].short, 0))
		whole = append(whole, o.share(m, f, n, burns[0].short, 0))
	}
	width := jsii.Number(float64(dashboardColumns) / float64(2*len(objectives)))
	return []awscloudwatch.IWidget{
		awscloudwatch.NewGraphWidget(&awscloudwatch.GraphWidgetProps{
			Title: jsii.String(fmt.Sprintf("%s: bad calls, %% (budget %g)", o.id, o.budget)),
			Left:  &recent, Width: width,
		}),
		awscloudwatch.NewSingleValueWidget(&awscloudwatch.SingleValueWidgetProps{
			Title: jsii.String(fmt.Sprintf("%s: bad calls in %d days, %% (budget %g)", o.id, sloDays,
				o.budget)),
			Metrics: &whole, Width: width, Height: jsii.Number(6),
			Start:                jsii.String(fmt.Sprintf("-P%dD", sloDays)),
			SetPeriodToTimeRange: jsii.Bool(true),
		}),
	}
}
