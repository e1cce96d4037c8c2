package main

import (
	"github.com/aws/aws-cdk-go/awscdk/v2"
	"github.com/aws/aws-cdk-go/awscdk/v2/awscloudwatch"
	"github.com/aws/aws-cdk-go/awscdk/v2/awssns"
	"github.com/aws/aws-cdk-go/awscdk/v2/interfaces/interfacesawscloudwatch"
	"github.com/aws/constructs-go/constructs/v10"
	"github.com/aws/jsii-runtime-go"
)

// monitoring collects the stack's alarms, which all notify one topic, and the dashboard's rows.
// Each alarm has a section in RUNBOOK.md.
type monitoring struct {
	scope    constructs.Construct
	settings Settings
	topic    awssns.Topic
	alarms   []interfacesawscloudwatch.IAlarmRef
	rows     [][]awscloudwatch.IWidget
}

func newMonitoring(scope constructs.Construct, s Settings) *monitoring {
	// The id Watch is part of the logical id of every alarm: another id would replace them all.
	scope = constructs.NewConstruct(scope, jsii.String("Watch"))
	return &monitoring{scope: scope, settings: s, topic: newTopic(scope, s)}
}

// metricNamespace returns the CloudWatch namespace of the functions' own metrics. Each stack has
// its own, so that dev's holds don't count as prod's.
func metricNamespace(s Settings) string { return "AlloReservations/" + s.StackName() }

// outcomes are the values of the dimension Outcome of the metric Reservations that the dashboard
// shows. Package internal/app writes the metric.
var outcomes = []string{
	"HELD", "CONFIRMED", "RELEASED", "EXTENDED", "EXPIRED", "REPLAYED", "INSUFFICIENT_STOCK",
	"RESERVATION_EXPIRED", "STOCK_BUSY", "DATABASE_UNAVAILABLE",
}

// every asks for a metric's statistic over periods of some minutes.
func every(minutes float64, statistic string) *awscloudwatch.MetricOptions {
	return &awscloudwatch.MetricOptions{
		Statistic: jsii.String(statistic), Period: awscdk.Duration_Minutes(jsii.Number(minutes)),
	}
}

// serviceMetric returns a metric that the functions write themselves.
func (m *monitoring) serviceMetric(name, statistic string, minutes float64) awscloudwatch.Metric {
	return awscloudwatch.NewMetric(&awscloudwatch.MetricProps{
		Namespace:  jsii.String(metricNamespace(m.settings)),
		MetricName: jsii.String(name),
		Statistic:  jsii.String(statistic),
		Period:     awscdk.Duration_Minutes(jsii.Number(minutes)),
	})
}

// outcomeMetrics returns the number of calls each minute, one metric for each outcome.
func (m *monitoring) outcomeMetrics() []awscloudwatch.IMetric {
	var metrics []awscloudwatch.IMetric
	for _, outcome := range outcomes {
		metrics = append(metrics, awscloudwatch.NewMetric(&awscloudwatch.MetricProps{
			Namespace:     jsii.String(metricNamespace(m.settings)),
			MetricName:    jsii.String("Reservations"),
			DimensionsMap: &map[string]*string{"Outcome": jsii.String(outcome)},
			Label:         jsii.String(outcome),
			Statistic:     jsii.String("Sum"),
			Period:        awscdk.Duration_Minutes(jsii.Number(1)),
		}))
	}
	return metrics
}

// addAPI adds what callers notice: errors, slow answers, and the outcomes of their calls. It
// returns the alarm for 5xx answers.
func (m *monitoring) addAPI(a api) (api5xx awscloudwatch.Alarm) {
	api5xx = m.addAlarm("ApiErrors", errorShare(a), alarm{
		above: 1, breaching: 1, outOf: 1,
		meaning: "Over 1% of the calls, and more than five calls, got a 5xx answer",
	})
	latency := a.stage.MetricLatency(every(1, "p99"))
	functionLatency := a.stage.MetricIntegrationLatency(every(1, "p99"))
	m.addAlarm("ApiSlow", latency, alarm{
		above: 1000, breaching: 3, outOf: 5,
		meaning: "The slowest 1% of the calls took more than a second",
	})
	// The gateway has one metric for all functions. An alarm on each function's own duration would
	// be charged for each function.
	m.addAlarm("FunctionsSlow", functionLatency, alarm{
		above: 0.8 * apiTimeout * 1000, breaching: 3, outOf: 5,
		meaning: "Functions use over 80% of their timeout",
	})
	poolErrors := m.serviceMetric("PoolErrors", "Sum", 1)
	m.addAlarm("PoolErrors", poolErrors, alarm{
		above: 5, breaching: 3, outOf: 5,
		meaning: "Calls couldn't get a database connection",
	})
	m.addAlarm("Retries", m.serviceMetric("Retries", "Sum", 5), alarm{
		above: 0, breaching: 1, outOf: 1,
		meaning: "A transaction met a deadlock. The service alone can't cause one: " +
			"something else locks its rows",
	})

	m.addRow(
		newGraph("Calls a minute, and their 4xx and 5xx answers", a.stage.MetricCount(every(1, "Sum")),
			a.stage.MetricClientError(every(1, "Sum")), a.stage.MetricServerError(every(1, "Sum"))),
		newGraph("Latency, ms", a.stage.MetricLatency(every(1, "p50")), latency, functionLatency),
	)
	m.addRow(
		newGraph("Reservations by outcome", m.outcomeMetrics()...),
		newGraph("Short lines, retries, pool errors", m.serviceMetric("Shortages", "Sum", 1),
			m.serviceMetric("Retries", "Sum", 1), poolErrors),
	)
	return api5xx
}

// errorShare returns the percentage of calls in five minutes that got a 5xx answer. Up to five such
// answers count as none.
func errorShare(a api) awscloudwatch.MathExpression {
	return awscloudwatch.NewMathExpression(&awscloudwatch.MathExpressionProps{
		Expression: jsii.String("IF(errors > 5, 100 * errors / count, 0)"),
		UsingMetrics: &map[string]awscloudwatch.IMetric{
			"errors": a.stage.MetricServerError(every(5, "Sum")),
			"count":  a.stage.MetricCount(every(5, "Sum")),
		},
		Label:  jsii.String("% of calls"),
		Period: awscdk.Duration_Minutes(jsii.Number(5)),
	})
}

// addFunctions adds each function's errors and throttles. It returns the error alarms by the
// functions' names, for the rollout.
func (m *monitoring) addFunctions(functions []function) map[string]awscloudwatch.Alarm {
	alarms := map[string]awscloudwatch.Alarm{}
	var errors, throttles, concurrent []awscloudwatch.IMetric
	for _, f := range functions {
		failed := f.alias.MetricErrors(every(1, "Sum"))
		throttled := f.alias.MetricThrottles(every(1, "Sum"))
		// A 5xx answer isn't an error of the function, so a single error is a bug.
		alarms[f.name] = m.addAlarm("Errors-"+f.name, failed, alarm{
			above: 0, breaching: 1, outOf: 1,
			meaning: "The function " + f.name + " failed or timed out, which no input may cause",
		})
		m.addAlarm("Throttles-"+f.name, throttled, alarm{
			above: 0, breaching: 1, outOf: 1,
			meaning: "Lambda throttled the function " + f.name + ": no concurrency was left",
		})
		errors, throttles = append(errors, failed), append(throttles, throttled)
		concurrent = append(concurrent,
			f.function.Metric(jsii.String("ConcurrentExecutions"), every(1, "Maximum")))
	}
	m.addRow(
		newGraph("Functions: errors", errors...),
		newGraph("Functions: throttles", throttles...),
		newGraph("Functions: concurrent executions", concurrent...),
	)
	return alarms
}

// addSweeper adds what no caller notices at once. Without the sweeper no hold and no stock is lost,
// but the bookkeeping falls behind.
func (m *monitoring) addSweeper(s sweeper) {
	deadLetters := s.deadLetters.MetricApproximateNumberOfMessagesVisible(every(1, "Maximum"))
	violations := m.serviceMetric("AuditViolations", "Maximum", 60)
	lag := m.serviceMetric("SweepLag", "Maximum", 1)
	duration := s.alias.MetricDuration(every(1, "Maximum"))
	m.addAlarm("LostSweeps", deadLetters, alarm{
		above: 0, breaching: 1, outOf: 1,
		meaning: "Sweeps were lost: the rule couldn't start them, or the function failed",
	})
	m.addAlarm("AuditViolations", violations, alarm{
		above: 0, breaching: 1, outOf: 1,
		meaning: "The hourly audit found a broken promise",
	})
	m.addAlarm("AuditUnfinished", m.serviceMetric("AuditUnfinished", "Minimum", 60), alarm{
		above: 0, breaching: 3, outOf: 3,
		meaning: "No audit has finished in time for three hours, so the promises are unchecked",
	})
	if m.settings.Sweeper {
		m.addSweeperAlarms(s, lag, duration)
	}
	m.addRow(
		newGraph("Holds expired by the sweeper", m.serviceMetric("Expired", "Sum", 1)),
		newGraph("Sweep: lag (s)", lag),
		newGraph("Sweep: duration (ms)", m.serviceMetric("SweepDuration", "Maximum", 1), duration),
		newGraph("Lost sweeps, broken promises", deadLetters, violations),
	)
}

// addSweeperAlarms adds the alarms of a sweeper that is on.
func (m *monitoring) addSweeperAlarms(s sweeper, lag, duration awscloudwatch.IMetric) {
	m.addAlarm("SweeperDead", s.alias.MetricInvocations(every(5, "Sum")), alarm{
		below: 3, breaching: 1, outOf: 1, missingBreaches: true,
		meaning: "The sweeper ran fewer than three times in five minutes",
	})
	m.addAlarm("SweeperBehind", lag, alarm{
		above: 180, breaching: 3, outOf: 3, missingBreaches: true,
		meaning: "Holds that died over three minutes ago aren't marked as expired",
	})
	m.addAlarm("SweeperErrors", s.alias.MetricErrors(every(5, "Sum")), alarm{
		above: 2, breaching: 1, outOf: 1,
		meaning: "Three sweeps failed in the last five minutes",
	})
	m.addAlarm("SweeperSlow", duration, alarm{
		above: 0.8 * sweepTimeout * 1000, breaching: 3, outOf: 5,
		meaning: "A sweep uses over 80% of its timeout",
	})
	m.addAlarm("RuleFailed", ruleFailures(s), alarm{
		above: 0, breaching: 1, outOf: 1,
		meaning: "The minute rule couldn't start the sweeper",
	})
}

func ruleFailures(s sweeper) awscloudwatch.Metric {
	return awscloudwatch.NewMetric(&awscloudwatch.MetricProps{
		Namespace:     jsii.String("AWS/Events"),
		MetricName:    jsii.String("FailedInvocations"),
		DimensionsMap: &map[string]*string{"RuleName": s.rule.RuleName()},
		Statistic:     jsii.String("Sum"),
		Period:        awscdk.Duration_Minutes(jsii.Number(1)),
	})
}
