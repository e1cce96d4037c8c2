package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/allo/reservations/internal/emf"
	"github.com/allo/reservations/internal/events"
	"github.com/allo/reservations/internal/httpapi"
	"github.com/allo/reservations/internal/postgres"
	"github.com/allo/reservations/internal/route"
)

// watched is a metric that an alarm or the dashboard watches.
type watched struct {
	by, metric string // the metric as metricKey writes it
	statistic  string
	period     float64 // in seconds
	isAlarm    bool
	periods    float64 // of an alarm
}

// metricKey writes a metric's namespace, name and dimensions, which CloudWatch compares exactly.
func metricKey(namespace, name string, dimensions map[string]string) string {
	key := namespace + " " + name
	for _, dimension := range slices.Sorted(maps.Keys(dimensions)) {
		key += " " + dimension + "=" + dimensions[dimension]
	}
	return key
}

// reporting says how a metric is reported.
type reporting struct {
	// statistics match the statistics that make sense of the metric.
	statistics *regexp.Regexp
	// every is the time between two values, in seconds. An alarm with a shorter period would see
	// periods without data.
	every float64
}

var (
	counted  = reporting{regexp.MustCompile(`^Sum$`), 60}
	measured = reporting{regexp.MustCompile(`^(Average|Maximum|Minimum)$`), 60}
	// timed metrics keep each value, so they have percentiles.
	timed = reporting{regexp.MustCompile(`^(Average|Maximum|Minimum|p[0-9.]+)$`), 60}
	// own metrics of the unit Count are counters or gauges.
	ownCount = reporting{regexp.MustCompile(`^(Sum|Maximum|Minimum)$`), 60}
	// ownCheck is counted too: a check that isn't made reports nothing.
	ownCheck  = reporting{regexp.MustCompile(`^(Sum|SampleCount)$`), syntheticMinutes * 60}
	ownHourly = reporting{regexp.MustCompile(`^(Maximum|Minimum)$`), 3600}
)

// awsMetrics has the metrics that AWS documents for each kind of resource, as far as we use them.
var awsMetrics = map[string]map[string]reporting{
	"AWS/Lambda": {
		"Invocations": counted, "Errors": counted, "Throttles": counted, "Duration": timed,
		"ConcurrentExecutions":                       {regexp.MustCompile("^Maximum$"), 60},
		"ProvisionedConcurrencyUtilization":          {regexp.MustCompile("^Maximum$"), 60},
		"ProvisionedConcurrencySpilloverInvocations": counted,
	},
	// The names are those of an HTTP API. A REST API has 4XXError and 5XXError.
	"AWS/ApiGateway": {
		"Count": counted, "4xx": counted, "5xx": counted,
		"Latency": timed, "IntegrationLatency": timed,
	},
	"AWS/SQS": {
		"ApproximateNumberOfMessagesVisible": measured, "ApproximateAgeOfOldestMessage": measured,
		"NumberOfMessagesSent": counted,
	},
	"AWS/SNS": {"NumberOfNotificationsFailed": counted},
	// The metrics of an Event API's HTTP endpoint, to which only the relay sends.
	"AWS/AppSync": {"4XXError": counted, "5XXError": counted},
	"AWS/Events":  {"FailedInvocations": counted},
	"AWS/RDS": {
		"ACUUtilization": measured, "DatabaseConnections": measured, "CommitLatency": measured,
		"Deadlocks": measured, // a rate
	},
	// The proxies' metrics are in the namespace AWS/RDS too. Each of a proxy's machines reports its
	// own connections.
	"proxy": {"DatabaseConnectionsCurrentlySessionPinned": counted},
}

// reportedMetrics returns what CloudWatch gets: the metrics of the template's resources, by AWS's
// documents, and those that our functions write.
func (tpl template) reportedMetrics(mode string) map[string]reporting {
	reported := map[string]reporting{}
	add := func(metrics, namespace string, dimensions map[string]string) {
		for name, r := range awsMetrics[metrics] {
			reported[metricKey(namespace, name, dimensions)] = r
		}
	}
	for _, r := range tpl.resources("") {
		switch r.kind {
		case "AWS::Lambda::Function":
			add("AWS/Lambda", "AWS/Lambda", map[string]string{"FunctionName": tpl.ref(r.id)})
		case "AWS::Lambda::Alias":
			function := tpl.resolve(r.get("FunctionName"))
			add("AWS/Lambda", "AWS/Lambda", map[string]string{
				"FunctionName": function, "Resource": function + ":" + tpl.resolve(r.get("Name")),
			})
		case "AWS::Logs::MetricFilter":
			tpl.addFiltered(reported, r)
		case "AWS::ApiGatewayV2::Stage":
			add("AWS/ApiGateway", "AWS/ApiGateway", map[string]string{
				"ApiId": tpl.resolve(r.get("ApiId")), "Stage": tpl.ref(r.id),
			})
		case "AWS::SQS::Queue":
			add("AWS/SQS", "AWS/SQS", map[string]string{"QueueName": tpl.name(r.id)})
		case "AWS::SNS::Topic":
			add("AWS/SNS", "AWS/SNS", map[string]string{"TopicName": tpl.name(r.id)})
		case "AWS::AppSync::Api":
			add("AWS/AppSync", "AWS/AppSync",
				map[string]string{"EventAPIId": "the ApiId of " + r.id})
		case "AWS::Events::Rule":
			add("AWS/Events", "AWS/Events", map[string]string{"RuleName": tpl.name(r.id)})
		case "AWS::RDS::DBCluster": // RDS writes its identifiers in lower case.
			add("AWS/RDS", "AWS/RDS",
				map[string]string{"DBClusterIdentifier": strings.ToLower(tpl.name(r.id))})
		case "AWS::RDS::DBProxy":
			add("proxy", "AWS/RDS", map[string]string{"ProxyName": strings.ToLower(tpl.name(r.id))})
		}
	}
	for _, m := range emf.All() {
		for _, dimensions := range tpl.ownDimensions(mode, m) {
			key := metricKey("AlloReservations/"+stackName(mode), m.Name, dimensions)
			reported[key] = ownReporting(m)
		}
	}
	return reported
}

// addFiltered adds the metric of a filter of the access log, which has a value for each route.
func (tpl template) addFiltered(reported map[string]reporting, filter resource) {
	for _, m := range asList(filter.get("MetricTransformations")) {
		for _, d := range asList(dig(m, "Dimensions")) {
			for _, r := range route.All() {
				reported[metricKey(tpl.resolve(dig(m, "MetricNamespace")), fmt.Sprint(dig(m, "MetricName")),
					map[string]string{fmt.Sprint(dig(d, "Key")): r.Key()})] = counted
			}
		}
	}
}

// ownDimensions returns the dimensions with which a mode's functions write a metric.
func (tpl template) ownDimensions(mode string, m emf.Metric) (all []map[string]string) {
	switch m {
	case emf.RelayLagSeconds, emf.EventsPublished, emf.EventsParked:
		relay, ok := tpl.functions(mode)["relay"]
		if !ok {
			return nil
		}
		names := []string{"topic"}
		if relay.get("Environment", "Variables", "BUS_NAME") != nil {
			names = append(names, "bus")
		}
		if m == emf.RelayLagSeconds {
			sinks := names
			names = nil
			for _, sink := range sinks {
				names = append(names, events.Places(sink)...)
			}
		}
		for _, name := range names {
			all = append(all, map[string]string{m.Dimension: name})
		}
	case emf.LiveLagSeconds, emf.LivePublished:
		if len(tpl.resources("AWS::AppSync::Api")) > 0 {
			all = append(all, nil)
		}
	case emf.WebhookDelivered, emf.WebhookFailed, emf.WebhookDead:
		for _, w := range tpl.webhooks(mode) {
			all = append(all, map[string]string{m.Dimension: w.Name})
		}
	case emf.Reservations:
		for _, outcome := range httpapi.Outcomes() {
			all = append(all, map[string]string{m.Dimension: outcome})
		}
	case emf.ServerErrors, emf.SlowAnswers:
		for _, function := range emf.Objectives() {
			all = append(all, map[string]string{m.Dimension: function})
		}
	case emf.PublicCheckFailed:
		if modes[mode]["synthetic"] == "on" {
			all = append(all, nil)
		}
	case emf.ReaderFallbacks:
		for _, f := range tpl.functions(mode) {
			if f.get("Environment", "Variables", "DATABASE_READER") != nil {
				for _, reason := range postgres.Fallbacks() {
					all = append(all, map[string]string{m.Dimension: string(reason)})
				}
				break
			}
		}
	case emf.Faults:
		for _, r := range route.All() {
			all = append(all, map[string]string{m.Dimension: r.Function})
		}
	default:
		all = append(all, nil)
	}
	return all
}

func ownReporting(m emf.Metric) reporting {
	switch {
	case m == emf.PublicCheckFailed:
		return ownCheck
	case m == emf.AuditViolations || m == emf.AuditUnfinished:
		return ownHourly
	case m.Unit == emf.Count:
		return ownCount
	default:
		return timed
	}
}

// nameProperties has the property that names a resource, by its kind.
var nameProperties = map[string]string{
	"AWS::Lambda::Function": "FunctionName", "AWS::ApiGatewayV2::Stage": "StageName",
	"AWS::SQS::Queue": "QueueName", "AWS::Events::Rule": "Name", "AWS::SNS::Topic": "TopicName",
	"AWS::RDS::DBCluster": "DBClusterIdentifier", "AWS::RDS::DBProxy": "DBProxyName",
	"AWS::CloudWatch::Alarm": "AlarmName", "AWS::CloudWatch::CompositeAlarm": "AlarmName",
}

// name returns a resource's name. CloudFormation makes a name of capitals and digits for a resource
// without one.
func (tpl template) name(id string) string {
	r := dig(tpl.body, "Resources", id)
	property := nameProperties[fmt.Sprint(dig(r, "Type"))]
	if value := dig(r, "Properties", property); property != "" && value != nil {
		return tpl.resolve(value)
	}
	return "Generated-" + id
}

// ref returns what {"Ref": id} gives: the name of most resources, something else of others.
func (tpl template) ref(id string) string {
	switch fmt.Sprint(dig(tpl.body, "Resources", id, "Type")) {
	case "AWS::ApiGatewayV2::Api":
		return "the id of " + id
	case "AWS::SQS::Queue":
		return "the URL of " + id
	case "<nil>":
		return "${" + id + "}" // such as AWS::Region
	}
	return tpl.name(id)
}

// resolve returns the text that CloudFormation makes of a value.
func (tpl template) resolve(value any) string {
	if text, ok := value.(string); ok {
		return text
	}
	if id, ok := dig(value, "Ref").(string); ok {
		return tpl.ref(id)
	}
	if got, ok := dig(value, "Fn::GetAtt").([]any); ok {
		id, attribute := fmt.Sprint(got[0]), fmt.Sprint(got[1])
		if attribute == "QueueName" || attribute == "TopicName" {
			return tpl.name(id)
		}
		return "the " + attribute + " of " + id
	}
	if join, ok := dig(value, "Fn::Join").([]any); ok {
		var parts []string
		for _, part := range asList(join[1]) {
			parts = append(parts, tpl.resolve(part))
		}
		return strings.Join(parts, fmt.Sprint(join[0]))
	}
	return "unknown: " + asJSON(value)
}

// watchedMetrics returns the metrics of all alarms and of the dashboard.
func (tpl template) watchedMetrics(t *testing.T, mode string) []watched {
	t.Helper()
	var all []watched
	for name, a := range tpl.metricAlarms(mode) {
		w := watched{by: "the alarm " + name, isAlarm: true}
		w.periods, _ = a.get("EvaluationPeriods").(float64)
		if a.get("MetricName") != nil {
			all = append(all, tpl.watch(w, a.properties, a.properties))
		}
		for _, query := range asList(a.get("Metrics")) {
			if stat := dig(query, "MetricStat"); stat != nil {
				all = append(all, tpl.watch(w, dig(stat, "Metric"), stat))
			}
		}
	}
	return append(all, tpl.graphedMetrics(t)...)
}

// watch adds a metric, its statistic and its period.
func (tpl template) watch(w watched, metric, stat any) watched {
	dimensions := map[string]string{}
	for _, d := range asList(dig(metric, "Dimensions")) {
		dimensions[fmt.Sprint(dig(d, "Name"))] = tpl.resolve(dig(d, "Value"))
	}
	w.metric = metricKey(tpl.resolve(dig(metric, "Namespace")), fmt.Sprint(dig(metric, "MetricName")),
		dimensions)
	for _, key := range []string{"Statistic", "ExtendedStatistic", "Stat"} {
		if text, ok := dig(stat, key).(string); ok {
			w.statistic = text
		}
	}
	w.period, _ = dig(stat, "Period").(float64)
	return w
}

// graphedMetrics returns the metrics of the dashboard. Its body is JSON: a metric is a list of the
// namespace, the name, each dimension's name and value, and the options.
func (tpl template) graphedMetrics(t *testing.T) []watched {
	t.Helper()
	board := tpl.only(t, "AWS::CloudWatch::Dashboard")
	var body struct {
		Widgets []struct {
			Properties struct {
				Title   string
				Metrics [][]any
			}
		}
	}
	text := tpl.resolve(board.get("DashboardBody"))
	if err := json.Unmarshal([]byte(text), &body); err != nil {
		t.Fatalf("the dashboard's body: %v: %s", err, text)
	}
	var all []watched
	for _, widget := range body.Widgets {
		for _, m := range widget.Properties.Metrics {
			options := m[len(m)-1]
			if len(m) == 1 { // an expression
				continue
			}
			w := watched{by: "the graph " + widget.Properties.Title, statistic: "Average", period: 300}
			if text, ok := dig(options, "stat").(string); ok {
				w.statistic = text
			}
			if seconds, ok := dig(options, "period").(float64); ok {
				w.period = seconds
			}
			dimensions := map[string]string{}
			for i := 2; i+1 < len(m); i += 2 {
				dimensions[fmt.Sprint(m[i])] = fmt.Sprint(m[i+1])
			}
			w.metric = metricKey(fmt.Sprint(m[0]), fmt.Sprint(m[1]), dimensions)
			all = append(all, w)
		}
	}
	return all
}

// maxSpan is the longest time that an alarm may look at, in seconds: CloudWatch's limit.
const maxSpan = 24 * 60 * 60

// problems says which metrics that are watched nobody reports like that.
func (tpl template) problems(t *testing.T, mode string) []string {
	t.Helper()
	reported := tpl.reportedMetrics(mode)
	var found []string
	for _, w := range tpl.watchedMetrics(t, mode) {
		how, isReported := reported[w.metric]
		switch {
		case !isReported:
			found = append(found, fmt.Sprintf("%s watches %q, which nothing reports", w.by, w.metric))
		case !how.statistics.MatchString(w.statistic):
			found = append(found, fmt.Sprintf("%s watches the %s of %q", w.by, w.statistic, w.metric))
		case w.isAlarm && (w.period < how.every || w.period*w.periods > maxSpan):
			found = append(found, fmt.Sprintf("%s watches %q in %v periods of %v s, "+
				"which is reported every %v s", w.by, w.metric, w.periods, w.period, how.every))
		}
	}
	return found
}

// A wrong dimension fails no deploy: CloudWatch takes it for a metric without data.
func TestEveryWatchedMetricIsOneThatIsReported(t *testing.T) {
	eachMode(t, func(t *testing.T, mode string, tpl template) {
		if n := len(tpl.watchedMetrics(t, mode)); n < 100 {
			t.Errorf("the test found only %d metrics", n)
		}
		for _, problem := range tpl.problems(t, mode) {
			t.Error(problem)
		}
	})
}

// These are the controls of the test above.
func TestAMetricThatNothingReportsIsFound(t *testing.T) {
	const mode = "aurora-prod"
	body := asJSON(synth(t, mode).body)
	for name, change := range map[string]struct{ old, replacement string }{
		"a proxy named in capitals": {`"DBProxyName":"allo-prod"`, `"DBProxyName":"Allo-Prod"`},
		"a proxy without a name":    {`"DBProxyName":"allo-prod",`, ``},
		"a cluster in capitals": {
			`"DBClusterIdentifier":"allo-prod"`, `"DBClusterIdentifier":"ALLO"`,
		},
		"another alias":                  {`:live"`, `:other"`},
		"another dimension":              {`"Name":"Function",`, `"Name":"FunctionName",`},
		"another function":               {`"Value":"confirm"`, `"Value":"confirms"`},
		"another own metric":             {`"MetricName":"SweepLag"`, `"MetricName":"SweeperLag"`},
		"another stack":                  {`"Namespace":"AlloReservations/allo-prod"`, `"Namespace":"A"`},
		"a GraphQL API's dimension":      {`"Name":"EventAPIId"`, `"Name":"GraphQLAPIId"`},
		"a REST API's metric":            {`"MetricName":"5xx"`, `"MetricName":"5XXError"`},
		"the queue's URL":                {`"Fn::GetAtt":["SweeperLost`, `"Fn::GetAtt":["Sweeper`},
		"another sink":                   {`"Value":"bus"`, `"Value":"buses"`},
		"another webhook":                {`\"Webhook\",\"erp\"`, `\"Webhook\",\"crm\"`},
		"a percentile of a count":        {`"Statistic":"Sum"`, `"ExtendedStatistic":"p99"`},
		"an hourly metric by the minute": {`"Period":3600`, `"Period":60`},
		"too long a time":                {`"EvaluationPeriods":3`, `"EvaluationPeriods":3000`},
		"a graph of another metric":      {`\"Shortages\"`, `\"Shorts\"`},
		"a graph of another outcome":     {`\"Outcome\",\"HELD\"`, `\"Outcome\",\"KEPT\"`},
		"a graph of another rate": {
			`\"Deadlocks\",\"DBClusterIdentifier\",\"`, `\"Deadlocked\",\"DBClusterIdentifier\",\"`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			changed := strings.ReplaceAll(body, change.old, change.replacement)
			if changed == body {
				t.Fatalf("the template has no %s", change.old)
			}
			var tpl template
			if err := json.Unmarshal([]byte(changed), &tpl.body); err != nil {
				t.Fatal(err)
			}
			if len(tpl.problems(t, mode)) == 0 {
				t.Errorf("the test accepts %s", change.replacement)
			}
		})
	}
}

// A metric that nobody looks at costs as much as the others.
func TestEveryOwnMetricIsWatched(t *testing.T) {
	watches := map[string]bool{}
	for _, w := range synth(t, "aurora-prod").watchedMetrics(t, "aurora-prod") {
		watches[strings.Split(w.metric, " ")[1]] = true
	}
	for _, m := range emf.All() {
		if !watches[m.Name] {
			t.Errorf("no alarm and no graph watches %s", m.Name)
		}
	}
}
