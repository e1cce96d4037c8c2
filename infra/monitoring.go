package main

import (
	"slices"
	"strconv"

	"github.com/aws/aws-cdk-go/awscdk/v2"
	"github.com/aws/aws-cdk-go/awscdk/v2/awscloudwatch"
	"github.com/aws/aws-cdk-go/awscdk/v2/awssns"
	"github.com/aws/aws-cdk-go/awscdk/v2/interfaces/interfacesawscloudwatch"
	"github.com/aws/constructs-go/constructs/v10"
	"github.com/aws/jsii-runtime-go"

	"github.com/allo/reservations/internal/emf"
)

// monitoring collects the stack's alarms, which all notify the same topics, and the rows of the
// dashboard. Each alarm has a section in RUNBOOK.md.
type monitoring struct {
	scope    constructs.Construct
	settings Settings
	topics   []awssns.ITopic
	alarms   []interfacesawscloudwatch.IAlarmRef
	rows     [][]awscloudwatch.IWidget
	// starter is the rule that starts what reports each minute.
	starter constructs.IDependable
}

func newMonitoring(scope constructs.Construct, s Settings) *monitoring {
	// The id Watch is part of the logical id of every alarm: another id would replace them all.
	scope = constructs.NewConstruct(scope, jsii.String("Watch"))
	return &monitoring{scope: scope, settings: s, topics: topics(scope, s)}
}

// metricNamespace returns the CloudWatch namespace of the functions' own metrics. Each stack has
// its own, so that dev's holds don't count as prod's.
func metricNamespace(s Settings) string { return "AlloReservations/" + s.StackName() }

// outcomes are the values of the dimension of emf.Reservations that the dashboard shows.
var outcomes = []string{
	"HELD", "PAYING", "CONFIRMED", "REACQUIRED", "RELEASED", "EXTENDED", "EXPIRED", "REPLAYED",
	"INSUFFICIENT_STOCK", "RESERVATION_EXPIRED", "ALREADY_PAID", "PAYMENT_LOST", "STOCK_BUSY",
	"DATABASE_UNAVAILABLE",
}

// every asks for a metric's statistic over periods of some minutes.
func every(minutes float64, statistic string) *awscloudwatch.MetricOptions {
	return &awscloudwatch.MetricOptions{
		Statistic: jsii.String(statistic), Period: awscdk.Duration_Minutes(jsii.Number(minutes)),
	}
}

// serviceMetric returns a metric that the functions write themselves. The value is that of its
// dimension, or empty for a metric without one.
func (m *monitoring) serviceMetric(
	metric emf.Metric, value, statistic string, minutes float64,
) awscloudwatch.Metric {
	props := &awscloudwatch.MetricProps{
		Namespace:  jsii.String(metricNamespace(m.settings)),
		MetricName: jsii.String(metric.Name),
		Statistic:  jsii.String(statistic),
		Period:     awscdk.Duration_Minutes(jsii.Number(minutes)),
	}
	if metric.Dimension != "" {
		props.DimensionsMap = &map[string]*string{metric.Dimension: jsii.String(value)}
	}
	return awscloudwatch.NewMetric(props)
}

// outcomeMetrics returns the number of calls each minute, one metric for each outcome.
func (m *monitoring) outcomeMetrics() []awscloudwatch.IMetric {
	var metrics []awscloudwatch.IMetric
	for _, outcome := range outcomes {
		metrics = append(metrics, m.serviceMetric(emf.Reservations, outcome, "Sum", 1))
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
	latency := a.metrics.MetricLatency(every(1, "p99"))
	functionLatency := a.metrics.MetricIntegrationLatency(every(1, "p99"))
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
	poolErrors := m.serviceMetric(emf.PoolErrors, "", "Sum", 1)
	m.addAlarm("PoolErrors", poolErrors, alarm{
		above: 5, breaching: 3, outOf: 5,
		meaning: "Calls couldn't get a database connection",
	})
	m.addAlarm("Retries", m.serviceMetric(emf.Retries, "", "Sum", 5), alarm{
		above: 0, breaching: 1, outOf: 1,
		meaning: "A transaction met a deadlock. The service alone can't cause one: " +
			"something else locks its rows",
	})

	m.addRow(
		newGraph("Calls a minute, and their 4xx and 5xx answers", a.metrics.MetricCount(every(1, "Sum")),
			a.metrics.MetricClientError(every(1, "Sum")), a.metrics.MetricServerError(every(1, "Sum"))),
		newGraph("Latency, ms", a.metrics.MetricLatency(every(1, "p50")), latency, functionLatency),
	)
	m.addRow(
		newGraph("Reservations by outcome", m.outcomeMetrics()...),
		newGraph("Short lines, retries, pool errors",
			m.serviceMetric(emf.Shortages, "", "Sum", 1),
			m.serviceMetric(emf.Retries, "", "Sum", 1), poolErrors),
	)
	return api5xx
}

// errorShare returns the percentage of calls in five minutes that got a 5xx answer. Up to five such
// answers count as none.
func errorShare(a api) awscloudwatch.MathExpression {
	return awscloudwatch.NewMathExpression(&awscloudwatch.MathExpressionProps{
		Expression: jsii.String("IF(errors > 5, 100 * errors / count, 0)"),
		UsingMetrics: &map[string]awscloudwatch.IMetric{
			"errors": a.metrics.MetricServerError(every(5, "Sum")),
			"count":  a.metrics.MetricCount(every(5, "Sum")),
		},
		Label:  jsii.String("% of calls"),
		Period: awscdk.Duration_Minutes(jsii.Number(5)),
	})
}

// failures are the three metrics of what goes wrong in functions.
type failures struct{ errors, faults, throttles []awscloudwatch.IMetric }

func (m *monitoring) failuresOf(functions ...function) (all failures) {
	for _, f := range functions {
		all.errors = append(all.errors, f.alias.MetricErrors(every(1, "Sum")))
		all.faults = append(all.faults, m.serviceMetric(emf.Faults, f.name, "Sum", 1))
		all.throttles = append(all.throttles, f.alias.MetricThrottles(every(1, "Sum")))
	}
	return all
}

// addFunctions adds each function's errors, faults and throttles. The back office shares its
// alarms, and all functions share those for throttles, those too that AWS's own services ask. It
// returns the alarms that end a rollout of each function, by the functions' names.
func (m *monitoring) addFunctions(
	functions, asked []function,
) map[string][]awscloudwatch.Alarm {
	alarms := map[string][]awscloudwatch.Alarm{}
	var backOffice []function
	var concurrent []awscloudwatch.IMetric
	for _, f := range functions {
		concurrent = append(concurrent,
			f.function.Metric(jsii.String("ConcurrentExecutions"), every(1, "Maximum")))
		if f.backOffice {
			backOffice = append(backOffice, f)
			continue
		}
		own := m.failuresOf(f)
		alarms[f.name] = []awscloudwatch.Alarm{m.addFailures(f.name, own)}
	}
	m.addBackOffice(backOffice)
	m.addThrottles(slices.Concat(functions, asked))
	m.addProvisioned(functions)
	all := m.failuresOf(functions...)
	m.addRow(
		newGraph("Functions: errors", all.errors...),
		newGraph("Functions: faults, answers of 500", all.faults...),
		newGraph("Functions: throttles", all.throttles...),
		newGraph("Functions: concurrent executions", concurrent...),
	)
	return alarms
}

// addBackOffice adds the alarms of the back office's functions. The functions share them, as many
// as one alarm can watch.
func (m *monitoring) addBackOffice(functions []function) {
	for group := range slices.Chunk(functions, maxWatched) {
		shared := m.failuresOf(group...)
		const who = "A function of the back office, or live or health"
		name := nameOfGroup(backOffice, group)
		m.addAlarm("Errors-"+name, sum(shared.errors),
			once(who+" failed or timed out, which no input may cause"))
		m.addAlarm("Faults-"+name, sum(shared.faults),
			once(who+" answered a call with 500, which is a bug"))
	}
}

// addThrottles adds the alarms for functions that Lambda throttles. The functions share them,
// because they share the account's concurrency.
func (m *monitoring) addThrottles(functions []function) {
	for group := range slices.Chunk(functions, maxWatched) {
		m.addAlarm("Throttles-"+nameOfGroup(anyFunction, group), sum(m.failuresOf(group...).throttles),
			once("A function was throttled by Lambda: no concurrency was left"))
	}
}

// nameOfGroup names functions that share an alarm: by their kind and the first of them.
func nameOfGroup(kind string, group []function) string { return kind + "-" + group[0].name }

const (
	// backOffice and anyFunction are the kinds of functions that share an alarm.
	backOffice  = "back-office"
	anyFunction = "functions"
	// maxWatched is the most metrics of an alarm: CloudWatch's limit.
	maxWatched = 10
)

// sum adds up the values that metrics have in a minute. A metric without a value counts as nothing.
func sum(metrics []awscloudwatch.IMetric) awscloudwatch.IMetric {
	named := map[string]awscloudwatch.IMetric{}
	for i, metric := range metrics {
		named["m"+strconv.Itoa(i)] = metric
	}
	return awscloudwatch.NewMathExpression(&awscloudwatch.MathExpressionProps{
		Expression:   jsii.String("SUM(METRICS())"),
		UsingMetrics: &named,
		Period:       awscdk.Duration_Minutes(jsii.Number(1)),
	})
}

// addFailures adds the alarm of one function, which also ends its rollout. Lambda takes an answer
// of 500 for a success, so the alarm adds the two metrics up.
func (m *monitoring) addFailures(name string, own failures) awscloudwatch.Alarm {
	return m.addAlarm("Errors-"+name, sum(slices.Concat(own.errors, own.faults)),
		once("The function "+name+" failed, timed out or answered a call with 500, which is a bug"))
}

// once is an alarm for what may not happen at all.
func once(meaning string) alarm {
	return alarm{above: 0, breaching: 1, outOf: 1, meaning: meaning}
}

// addSweeper adds what no caller notices at once. Without the sweeper no hold and no stock is lost,
// but the bookkeeping falls behind.
func (m *monitoring) addSweeper(s sweeper) {
	m.starter = s.rule
	lost := s.deadLetters.MetricNumberOfMessagesSent(every(5, "Sum"))
	violations := m.serviceMetric(emf.AuditViolations, "", "Maximum", 60)
	lag := m.serviceMetric(emf.SweepLag, "", "Maximum", 1)
	duration := s.alias.MetricDuration(every(1, "Maximum"))
	// The alarm is for what is new. The queue keeps the events as evidence for two weeks, so its depth
	// doesn't fall when the cause is mended.
	m.addAlarm("LostSweeps", lost, alarm{
		above: 0, breaching: 1, outOf: 1,
		meaning: "Sweeps or runs of the relay were lost: the rule couldn't start them, or they failed",
	})
	m.addAlarm("AuditViolations", violations, alarm{
		above: 0, breaching: 1, outOf: 1,
		meaning: "An audit found a broken promise",
	})
	unfinished := m.serviceMetric(emf.AuditUnfinished, "", "Minimum", 60)
	m.addAlarm("AuditUnfinished", unfinished, alarm{
		above: 0, breaching: 3, outOf: 3,
		meaning: "No audit has finished in time for three hours, so the promises are unchecked",
	})
	if m.settings.Sweeper {
		m.addSweeperAlarms(s, lag, duration)
		m.addHorizon() // the sweeper reports it
	}
	m.addRow(
		newGraph("Holds expired by the sweeper, sweeps out of time",
			m.serviceMetric(emf.Expired, "", "Sum", 1), m.serviceMetric(emf.SweepMore, "", "Sum", 1)),
		newGraph("Sweep: lag (s)", lag),
		newGraph("Sweep: duration (ms)",
			m.serviceMetric(emf.SweepDuration, "", "Maximum", 1), duration),
		newGraph("Lost runs: new, and in the queue; broken promises",
			lost, depth(s.deadLetters), violations),
	)
}

// addHorizon adds the two alarms for transactions that make Postgres keep dead row versions. They
// make the calls on a hot row slower and the tables larger.
//
// The first alarm is early: before a sale, nothing is slow yet. The service's own longest statement
// takes 5 s. The second alarm measures the damage, and covers what has no age: a replica that sends
// its oldest snapshot, and a replication slot. A call is two transactions, so 200,000 are forty
// seconds of a sale of 2,500 calls a second.
func (m *monitoring) addHorizon() {
	oldest := m.serviceMetric(emf.OldestTransaction, "", "Maximum", 1)
	behind := m.serviceMetric(emf.HorizonTransactions, "", "Maximum", 1)
	m.addAlarm("OldTransaction", oldest, alarm{
		above: 300, breaching: 1, outOf: 1,
		meaning: "A transaction is older than five minutes, and Postgres keeps dead rows for it",
	})
	m.addAlarm("OldHorizon", behind, alarm{
		above: 200_000, breaching: 3, outOf: 3,
		meaning: "Postgres keeps the dead rows of 200,000 transactions, which makes calls slow",
	})
	m.addRow(
		newGraph("Oldest transaction (s)", oldest),
		newGraph("Transactions whose dead rows are kept", behind),
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
		meaning: "The minute rule couldn't start the sweeper or the relay",
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
