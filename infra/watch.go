package main

import (
	"github.com/aws/aws-cdk-go/awscdk/v2"
	"github.com/aws/aws-cdk-go/awscdk/v2/awscloudwatch"
	"github.com/aws/aws-cdk-go/awscdk/v2/awscloudwatchactions"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsiam"
	"github.com/aws/aws-cdk-go/awscdk/v2/awssns"
	"github.com/aws/aws-cdk-go/awscdk/v2/awssnssubscriptions"
	"github.com/aws/aws-cdk-go/awscdk/v2/interfaces/interfacesawscloudwatch"
	"github.com/aws/constructs-go/constructs/v10"
	"github.com/aws/jsii-runtime-go"
)

// metricNamespace is where the functions' own metrics are, apart for each stack: dev's holds are none of prod's.
func metricNamespace(s Settings) string { return "AlloReservations/" + s.StackName() }

// outcomes are what the metric Reservations is counted by, as package internal/app names them.
var outcomes = []string{
	"HELD", "CONFIRMED", "RELEASED", "EXTENDED", "EXPIRED", "REPLAYED", "INSUFFICIENT_STOCK", "RESERVATION_EXPIRED", "STOCK_BUSY", "DATABASE_UNAVAILABLE",
}

// watch collects the alarms, which all go to one topic, and the dashboard. Each alarm has a section in infra/RUNBOOK.md.
type watch struct {
	scope    constructs.Construct
	settings Settings
	topic    awssns.Topic
	alarms   []interfacesawscloudwatch.IAlarmRef
	rows     [][]awscloudwatch.IWidget
}

func newWatch(scope constructs.Construct, s Settings) *watch {
	w := &watch{scope: constructs.NewConstruct(scope, jsii.String("Watch")), settings: s}
	w.topic = awssns.NewTopic(w.scope, jsii.String("Alarms"), &awssns.TopicProps{TopicName: jsii.String(s.StackName() + "-alarms"), EnforceSSL: jsii.Bool(true)})
	// The policy that enforces TLS takes the place of the one that a topic has by itself, which lets the account's alarms publish.
	w.topic.AddToResourcePolicy(awsiam.NewPolicyStatement(&awsiam.PolicyStatementProps{
		Sid: jsii.String("AlarmsOfThisStack"), Actions: jsii.Strings("sns:Publish"), Resources: &[]*string{w.topic.TopicArn()},
		Principals: &[]awsiam.IPrincipal{awsiam.NewServicePrincipal(jsii.String("cloudwatch.amazonaws.com"), nil)},
		Conditions: &map[string]any{
			"StringEquals": map[string]any{"aws:SourceAccount": awscdk.Aws_ACCOUNT_ID()},
			"ArnLike":      map[string]any{"aws:SourceArn": alarmARNs(w.scope, s)},
		},
	}))
	if s.AlarmEmail != "" {
		w.topic.AddSubscription(awssnssubscriptions.NewEmailSubscription(jsii.String(s.AlarmEmail), nil))
	}
	return w
}

// alarmARNs are those of the stack's alarms.
func alarmARNs(scope constructs.Construct, s Settings) *string {
	return awscdk.Stack_Of(scope).FormatArn(&awscdk.ArnComponents{
		Service: jsii.String("cloudwatch"), Resource: jsii.String("alarm"), ResourceName: jsii.String(s.StackName() + "-*"),
		ArnFormat: awscdk.ArnFormat_COLON_RESOURCE_NAME,
	})
}

// alarm is when one rings: a value above a bound, or below it, in periods of the last `of` periods.
type alarm struct {
	above, below float64
	periods, of  float64
	// silence says that no data is bad: what should have reported is dead.
	silence bool
	means   string
}

// alarm makes one that tells the topic when it rings and when it ends.
func (w *watch) alarm(id string, metric awscloudwatch.IMetric, a alarm) awscloudwatch.Alarm {
	props := &awscloudwatch.AlarmProps{
		Metric:             metric,
		AlarmName:          jsii.String(w.settings.StackName() + "-" + id),
		AlarmDescription:   jsii.String(a.means + ". What to do: infra/RUNBOOK.md, " + id),
		Threshold:          jsii.Number(a.above),
		ComparisonOperator: awscloudwatch.ComparisonOperator_GREATER_THAN_THRESHOLD,
		EvaluationPeriods:  jsii.Number(a.of), DatapointsToAlarm: jsii.Number(a.periods),
		TreatMissingData: awscloudwatch.TreatMissingData_NOT_BREACHING,
	}
	if a.below > 0 {
		props.Threshold, props.ComparisonOperator = jsii.Number(a.below), awscloudwatch.ComparisonOperator_LESS_THAN_THRESHOLD
	}
	if a.silence {
		props.TreatMissingData = awscloudwatch.TreatMissingData_BREACHING
	}
	made := awscloudwatch.NewAlarm(w.scope, jsii.String(id), props)
	action := awscloudwatchactions.NewSnsAction(w.topic)
	made.AddAlarmAction(action)
	made.AddOkAction(action)
	w.alarms = append(w.alarms, made)
	return made
}

// over is how a metric is asked for: a statistic over some minutes.
func over(minutes float64, statistic string) *awscloudwatch.MetricOptions {
	return &awscloudwatch.MetricOptions{Statistic: jsii.String(statistic), Period: awscdk.Duration_Minutes(jsii.Number(minutes))}
}

// own is a metric of the functions' own.
func (w *watch) own(name, statistic string, minutes float64, outcome ...string) awscloudwatch.Metric {
	props := &awscloudwatch.MetricProps{
		Namespace: jsii.String(metricNamespace(w.settings)), MetricName: jsii.String(name),
		Statistic: jsii.String(statistic), Period: awscdk.Duration_Minutes(jsii.Number(minutes)),
	}
	if len(outcome) > 0 {
		props.DimensionsMap = &map[string]*string{"Outcome": jsii.String(outcome[0])}
		props.Label = jsii.String(outcome[0])
	}
	return awscloudwatch.NewMetric(props)
}

// watchAPI is what callers feel: errors, slowness, and what becomes of their holds.
func (w *watch) watchAPI(a api) (api5xx awscloudwatch.Alarm) {
	count, errors := a.stage.MetricCount(over(5, "Sum")), a.stage.MetricServerError(over(5, "Sum"))
	share := awscloudwatch.NewMathExpression(&awscloudwatch.MathExpressionProps{
		Expression:   jsii.String("IF(errors > 5, 100 * errors / count, 0)"),
		UsingMetrics: &map[string]awscloudwatch.IMetric{"errors": errors, "count": count},
		Label:        jsii.String("% of calls"), Period: awscdk.Duration_Minutes(jsii.Number(5)),
	})
	api5xx = w.alarm("ApiErrors", share, alarm{above: 1, periods: 1, of: 1, means: "more than one call in a hundred, and more than five, were answered by 5xx"})
	p99 := a.stage.MetricLatency(over(1, "p99"))
	w.alarm("ApiSlow", p99, alarm{above: 1000, periods: 3, of: 5, means: "the slowest hundredth of the calls took more than a second"})
	// Four fifths of their timeout: soon they will be cut off. The gateway sees all functions in one metric, where each one's own duration would be
	// an alarm each, to be paid for.
	w.alarm("FunctionsSlow", a.stage.MetricIntegrationLatency(over(1, "p99")),
		alarm{above: 0.8 * apiTimeout * 1000, periods: 3, of: 5, means: "functions take four fifths of the time that they have"})
	w.alarm("PoolErrors", w.own("PoolErrors", "Sum", 1),
		alarm{above: 5, periods: 3, of: 5, means: "calls found no connection to the database"})
	w.alarm("Retries", w.own("Retries", "Sum", 5),
		alarm{above: 0, periods: 1, of: 1, means: "a transaction met a deadlock, which the service by itself can't cause: something else locks its rows"})

	w.row(
		w.graph("Calls a minute, and those answered by 4xx and 5xx", a.stage.MetricCount(over(1, "Sum")), a.stage.MetricClientError(over(1, "Sum")), a.stage.MetricServerError(over(1, "Sum"))),
		w.graph("Latency, ms", a.stage.MetricLatency(over(1, "p50")), p99, a.stage.MetricIntegrationLatency(over(1, "p99"))),
	)
	var byOutcome []awscloudwatch.IMetric
	for _, outcome := range outcomes {
		byOutcome = append(byOutcome, w.own("Reservations", "Sum", 1, outcome))
	}
	w.row(
		w.graph("Reservations by outcome", byOutcome...),
		w.graph("Short lines, retries, pool errors", w.own("Shortages", "Sum", 1), w.own("Retries", "Sum", 1), w.own("PoolErrors", "Sum", 1)),
	)
	return api5xx
}

// watchFunctions answers the alarms of the functions' errors, by the functions' names: a rollout goes back when its own rings.
func (w *watch) watchFunctions(functions []function) map[string]awscloudwatch.Alarm {
	errors := map[string]awscloudwatch.Alarm{}
	var failed, throttled, running []awscloudwatch.IMetric
	for _, f := range functions {
		failures, throttles := f.alias.MetricErrors(over(1, "Sum")), f.alias.MetricThrottles(over(1, "Sum"))
		// One is a bug, on any day: an answer of 5xx is no failure of the function's.
		errors[f.name] = w.alarm("Errors-"+f.name, failures,
			alarm{above: 0, periods: 1, of: 1, means: "the function " + f.name + " failed or was cut off, which no input may cause"})
		w.alarm("Throttles-"+f.name, throttles,
			alarm{above: 0, periods: 1, of: 1, means: "the function " + f.name + " was refused for want of concurrency"})
		failed, throttled = append(failed, failures), append(throttled, throttles)
		running = append(running, f.function.Metric(jsii.String("ConcurrentExecutions"), over(1, "Maximum")))
	}
	w.row(w.graph("Functions: errors", failed...), w.graph("Functions: throttles", throttled...), w.graph("Functions: at once", running...))
	return errors
}

// watchSweeper is for what nobody feels at once. A dead sweeper loses no hold and no stock, but its bookkeeping falls behind.
func (w *watch) watchSweeper(s sweeper) {
	queued := s.lost.MetricApproximateNumberOfMessagesVisible(over(1, "Maximum"))
	lag, took := w.own("SweepLag", "Maximum", 1), s.alias.MetricDuration(over(1, "Maximum"))
	failed := awscloudwatch.NewMetric(&awscloudwatch.MetricProps{
		Namespace: jsii.String("AWS/Events"), MetricName: jsii.String("FailedInvocations"),
		DimensionsMap: &map[string]*string{"RuleName": s.rule.RuleName()}, Statistic: jsii.String("Sum"), Period: awscdk.Duration_Minutes(jsii.Number(1)),
	})
	w.alarm("LostSweeps", queued, alarm{above: 0, periods: 1, of: 1, means: "sweeps were lost: the rule couldn't start them, or the function failed"})
	w.alarm("AuditViolations", w.own("AuditViolations", "Maximum", 60),
		alarm{above: 0, periods: 1, of: 1, means: "the hourly audit found a promise broken"})
	w.alarm("AuditUnfinished", w.own("AuditUnfinished", "Minimum", 60),
		alarm{above: 0, periods: 3, of: 3, means: "for three hours no audit ended in its time, so nobody knows whether the promises hold"})
	if w.settings.Sweeper {
		w.alarm("SweeperDead", s.alias.MetricInvocations(over(5, "Sum")),
			alarm{below: 3, periods: 1, of: 1, silence: true, means: "the sweeper ran less than three times in five minutes"})
		w.alarm("SweeperBehind", lag,
			alarm{above: 180, periods: 3, of: 3, silence: true, means: "holds that died more than three minutes ago aren't written down"})
		w.alarm("SweeperErrors", s.alias.MetricErrors(over(5, "Sum")), alarm{above: 2, periods: 1, of: 1, means: "three sweeps of the last five minutes failed"})
		w.alarm("SweeperSlow", took, alarm{above: 0.8 * sweepTimeout * 1000, periods: 3, of: 5, means: "a sweep takes four fifths of its time"})
		w.alarm("RuleFailed", failed, alarm{above: 0, periods: 1, of: 1, means: "the minute rule couldn't start the sweeper"})
	}
	w.row(
		w.graph("Holds expired by the sweeper", w.own("Expired", "Sum", 1)),
		w.graph("Sweep: lag (s)", lag),
		w.graph("Sweep: duration (ms)", w.own("SweepDuration", "Maximum", 1), took),
		w.graph("Sweeps lost; promises broken", queued, w.own("AuditViolations", "Maximum", 60)),
	)
}

// graph is one of a row's.
type graph struct {
	title   string
	metrics []awscloudwatch.IMetric
}

func (w *watch) graph(title string, metrics ...awscloudwatch.IMetric) graph {
	return graph{title, metrics}
}

// row puts graphs beside each other, sharing the dashboard's width.
func (w *watch) row(graphs ...graph) {
	const columns = 24
	var widgets []awscloudwatch.IWidget
	for _, g := range graphs {
		widgets = append(widgets, awscloudwatch.NewGraphWidget(&awscloudwatch.GraphWidgetProps{
			Title: jsii.String(g.title), Left: &g.metrics, Width: jsii.Number(columns / len(graphs)),
		}))
	}
	w.rows = append(w.rows, widgets)
}

// dashboard shows the alarms first, and then everything in the order in which it was added.
func (w *watch) dashboard() awscloudwatch.Dashboard {
	board := awscloudwatch.NewDashboard(w.scope, jsii.String("Dashboard"), &awscloudwatch.DashboardProps{DashboardName: jsii.String(w.settings.StackName())})
	board.AddWidgets(awscloudwatch.NewAlarmStatusWidget(&awscloudwatch.AlarmStatusWidgetProps{
		Title: jsii.String("Alarms"), Alarms: &w.alarms, Width: jsii.Number(24), Height: jsii.Number(3),
	}))
	for _, row := range w.rows {
		board.AddWidgets(row...)
	}
	return board
}
