package main

import (
	"cmp"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/allo/reservations/internal/httpapi"
)

// wantAlarms has the metric, its dimensions and the condition of each alarm, as alarmOf writes
// them. A wrong metric or threshold fails no deploy: the alarm is just silent.
var wantAlarms = map[string]string{
	"ApiErrors":     "AWS/ApiGateway 5xx ApiId,Stage Sum/300s > 1 in 1 of 1",
	"ApiSlow":       "AWS/ApiGateway Latency ApiId,Stage p99/60s > 1000 in 3 of 5",
	"FunctionsSlow": "AWS/ApiGateway IntegrationLatency ApiId,Stage p99/60s > 8000 in 3 of 5",
	"PoolErrors":    "own PoolErrors - Sum/60s > 5 in 3 of 5",
	"Retries":       "own Retries - Sum/300s > 0 in 1 of 1",
	"Errors":        "AWS/Lambda Errors FunctionName,Resource Sum/60s > 0 in 1 of 1",
	"Faults":        "own Faults Function Sum/60s > 0 in 1 of 1",
	"Throttles":     "AWS/Lambda Throttles FunctionName,Resource Sum/60s > 0 in 1 of 1",

	"PaymentsThrottled": "own GatewayThrottles Route Sum/60s > 0 in 1 of 1",
	"ShoppersThrottled": "own GatewayThrottles Route Sum/60s > 60 in 5 of 5",

	"SweeperDead": "AWS/Lambda Invocations FunctionName,Resource " +
		"Sum/300s < 3 in 1 of 1 or missing",
	"SweeperBehind":   "own SweepLag - Maximum/60s > 180 in 3 of 3 or missing",
	"SweeperErrors":   "AWS/Lambda Errors FunctionName,Resource Sum/300s > 2 in 1 of 1",
	"SweeperSlow":     "AWS/Lambda Duration FunctionName,Resource Maximum/60s > 40000 in 3 of 5",
	"RuleFailed":      "AWS/Events FailedInvocations RuleName Sum/60s > 0 in 1 of 1",
	"LostSweeps":      "AWS/SQS NumberOfMessagesSent QueueName Sum/300s > 0 in 1 of 1",
	"OldTransaction":  "own OldestTransaction - Maximum/60s > 300 in 1 of 1",
	"OldHorizon":      "own HorizonTransactions - Maximum/60s > 200000 in 3 of 3",
	"AuditViolations": "own AuditViolations - Maximum/3600s > 0 in 1 of 1",
	"AuditUnfinished": "own AuditUnfinished - Minimum/3600s > 0 in 3 of 3",
	"TopicFailed":     "AWS/SNS NumberOfNotificationsFailed TopicName Sum/60s > 0 in 1 of 1",
	"RelayDead": "AWS/Lambda Invocations FunctionName,Resource " +
		"Sum/300s < 3 in 1 of 1 or missing",
	"RelayErrors":  "AWS/Lambda Errors FunctionName,Resource Sum/300s > 2 in 1 of 1",
	"RelayBehind":  "own RelayLagSeconds Place Maximum/60s > 60 in 3 of 3 or missing",
	"EventsParked": "own EventsParked Sink Maximum/60s > 0 in 1 of 1",
	"QueueBehind": "AWS/SQS ApproximateAgeOfOldestMessage QueueName " +
		"Maximum/60s > 900 in 3 of 3",
	"QueueDead": "AWS/SQS ApproximateNumberOfMessagesVisible QueueName " +
		"Maximum/60s > 0 in 1 of 1",
	"PublicCheck":   "own PublicCheckFailed - Sum/900s > 0 in 1 of 1",
	"LiveBehind":    "own LiveLagSeconds - Maximum/60s > 10 in 3 of 3 or missing",
	"LiveRefused":   "AWS/AppSync 4XXError EventAPIId Sum/60s > 0 in 3 of 5",
	"LiveClosed":    "AWS/Lambda Errors FunctionName,Resource Sum/60s > 0 in 3 of 5",
	"SignInFailed":  "AWS/Lambda Errors FunctionName,Resource Sum/60s > 0 in 1 of 1",
	"WebhookBehind": "own WebhookFailed Webhook Sum/3600s > 0 in 1 of 1",
	"WebhookDead": "AWS/SQS ApproximateNumberOfMessagesVisible QueueName " +
		"Maximum/60s > 0 in 1 of 1",
}

// sweeperAlarms exist only while the sweeper is on.
var sweeperAlarms = []string{
	"SweeperDead", "SweeperBehind", "SweeperErrors", "SweeperSlow", "RuleFailed",
	"OldTransaction", "OldHorizon", // it reports them
}

// relayAlarms exist only while the minute rule runs the relay.
var relayAlarms = []string{
	"RelayDead", "RelayErrors", "RelayBehind", "EventsParked", "LiveBehind",
}

// wantAlarmsOf adds the alarms of a mode's database, and removes those of what is off.
func wantAlarmsOf(mode string) map[string]string {
	want := map[string]string{}
	for id, condition := range wantAlarms {
		isOff := modes[mode]["sweeper"] == "off" && slices.Contains(sweeperAlarms, id) ||
			!relays(mode) && slices.Contains(relayAlarms, id) ||
			modes[mode]["synthetic"] == "" && id == "PublicCheck" ||
			modes[mode]["live"] == "" && strings.HasPrefix(id, "Live") ||
			modes[mode]["auth"] != "cognito" && strings.HasPrefix(id, "SignIn") ||
			modes[mode]["queues"] == "" && strings.HasPrefix(id, "Queue") ||
			modes[mode]["webhooks"] == "" && strings.HasPrefix(id, "Webhook")
		if !isOff {
			want[id] = condition
		}
	}
	if _, ok := want["RelayBehind"]; ok && eventsOf(mode) == EventsMinute {
		want["RelayBehind"] = strings.Replace(want["RelayBehind"], "> 60", "> 180", 1)
	}
	if isExternal(mode) {
		return want
	}
	connections := 605
	if isProd(mode) {
		connections = 2422
	}
	want["DatabaseCapacity"] = "AWS/RDS ACUUtilization DBClusterIdentifier " +
		"Maximum/60s > 90 in 5 of 5"
	want["DatabaseConnections"] = fmt.Sprintf("AWS/RDS DatabaseConnections DBClusterIdentifier "+
		"Maximum/60s > %d in 3 of 3", connections)
	if isProd(mode) {
		want["ReaderFallbacks"] = "own ReaderFallbacks Reason Sum/60s > 5 in 5 of 5"
	}
	if mode == "aurora-prod" {
		want["ProxyPinned"] = "AWS/RDS DatabaseConnectionsCurrentlySessionPinned ProxyName " +
			"Sum/60s > 0 in 5 of 5"
	}
	return want
}

// eachAlarm matches the alarms that exist for each function, place, sink, queue or webhook.
var eachAlarm = regexp.MustCompile(`^(Errors|Faults|Throttles|RelayBehind|EventsParked|` +
	`QueueBehind|QueueDead|WebhookBehind)-(.+)$`)

// eachOf has the word that stands for each one's name in RUNBOOK.md.
var eachOf = map[string]string{
	"Errors": "FUNCTION", "Faults": "FUNCTION", "Throttles": "FUNCTION",
	"RelayBehind": "PLACE", "EventsParked": "SINK",
	"QueueBehind": "NAME", "QueueDead": "NAME", "WebhookBehind": "NAME",
}

func TestEachAlarmWatchesItsMetric(t *testing.T) {
	eachMode(t, func(t *testing.T, mode string, tpl template) {
		got := map[string]string{}
		for name, a := range tpl.alarms(mode) {
			if a.kind == "AWS::CloudWatch::CompositeAlarm" {
				continue // TestTheObjectivesAlarmsMeasureTheirBudgets checks it.
			}
			condition := strings.Replace(alarmOf(a), "AlloReservations/"+stackName(mode), "own", 1)
			if m := eachAlarm.FindStringSubmatch(name); m != nil {
				dims := alarmDimensions(a)
				if !strings.Contains(dims, tpl.subject(mode, m[1], m[2])) {
					t.Errorf("the alarm %s watches %s", name, dims)
				}
				if m[1] == "Errors" && !strings.HasPrefix(m[2], backOffice) &&
					(!strings.Contains(dims, `"MetricName":"Faults"`) ||
						!strings.Contains(dims, `"`+m[2]+`"`)) {
					t.Errorf("the alarm %s doesn't watch the faults of %s: %s", name, m[2], dims)
				}
				name = m[1]
			}
			got[name] = condition
		}
		if diff := gocmp.Diff(wantAlarmsOf(mode), got); diff != "" {
			t.Errorf("alarms (-want +got):\n%s", diff)
		}
	})
}

// subject returns a part of the dimensions of an alarm that there is for each function, sink or
// queue.
func (tpl template) subject(mode, kind, name string) string {
	for _, group := range []string{backOffice, anyFunction} { // an alarm is named by the group's first
		name = strings.TrimPrefix(name, group+"-")
	}
	switch kind {
	case "Errors", "Throttles":
		return `"` + tpl.functions(mode)[name].id + `"`
	case "QueueBehind":
		return `["EventsQueues` + name + `Queue`
	case "QueueDead":
		return `["EventsQueues` + name + `Dead`
	case "WebhookBehind":
		return `["EventsWebhooks` + name + `Queue`
	default: // The functions write these metrics themselves.
		return `"` + name + `"`
	}
}

// Each function of the back office is watched by one alarm of a kind, and each function by one for
// throttles.
func TestFunctionsShareAlarms(t *testing.T) {
	eachMode(t, func(t *testing.T, mode string, tpl template) {
		inOffice := 0
		for name, f := range tpl.functions(mode) {
			if !strings.HasPrefix(f.id, "Functions") {
				continue
			}
			subjects := map[string]string{"Throttles-" + anyFunction: f.id}
			if !slices.Contains(shoppersFunctions(), name) {
				inOffice++
				subjects["Errors-"+backOffice], subjects["Faults-"+backOffice] = f.id, name
			}
			for kind, subject := range subjects {
				if watching := tpl.sharedAlarms(t, mode, kind, subject); watching != 1 {
					t.Errorf("%d shared alarms %s watch %s, want one", watching, kind, name)
				}
			}
		}
		if inOffice == 0 {
			t.Error("the back office has no function")
		}
	})
}

// sharedAlarms counts the alarms of a kind that watch a function among others.
func (tpl template) sharedAlarms(t *testing.T, mode, kind, subject string) (watching int) {
	t.Helper()
	for name, a := range tpl.alarms(mode) {
		if !strings.HasPrefix(name, kind+"-") {
			continue
		}
		metrics := alarmDimensions(a)
		if strings.Contains(metrics, `"Expression":"SUM(METRICS())"`) &&
			strings.Contains(metrics, `"`+subject+`"`) {
			watching++
		}
		if n := len(asList(a.get("Metrics"))); n > maxWatched+1 {
			t.Errorf("the alarm %s has %d metrics and expressions", name, n)
		}
	}
	return watching
}

// alarmDimensions returns the dimensions of an alarm's metrics.
func alarmDimensions(a resource) string {
	return asJSON(a.get("Dimensions")) + asJSON(a.get("Metrics"))
}

// alarmOf writes an alarm as in wantAlarms. Of an expression it takes one metric.
func alarmOf(a resource) string {
	var metric any = a.properties
	statistic, period := cmp.Or(a.get("Statistic"), a.get("ExtendedStatistic")), a.get("Period")
	for _, query := range asList(a.get("Metrics")) {
		if id := dig(query, "Id"); slices.Contains([]any{"errors", "failed", "m0"}, id) {
			metric = dig(query, "MetricStat", "Metric")
			statistic, period = dig(query, "MetricStat", "Stat"), dig(query, "MetricStat", "Period")
		}
	}
	var dimensions []string
	for _, d := range asList(dig(metric, "Dimensions")) {
		dimensions = append(dimensions, fmt.Sprint(dig(d, "Name")))
	}
	slices.Sort(dimensions)
	operators := map[any]string{"GreaterThanThreshold": ">", "LessThanThreshold": "<"}
	missing := map[any]string{"breaching": " or missing", "notBreaching": ""}
	return fmt.Sprintf("%v %v %s %v/%vs %s %v in %v of %v%s",
		dig(metric, "Namespace"), dig(metric, "MetricName"),
		cmp.Or(strings.Join(dimensions, ","), "-"), statistic, period,
		operators[a.get("ComparisonOperator")], a.get("Threshold"),
		a.get("DatapointsToAlarm"), a.get("EvaluationPeriods"), missing[a.get("TreatMissingData")])
}

func TestTheErrorAlarmIgnoresAFewErrors(t *testing.T) {
	eachMode(t, func(t *testing.T, mode string, tpl template) {
		metrics := asJSON(tpl.alarms(mode)["ApiErrors"].get("Metrics"))
		if !strings.Contains(metrics, `IF(errors \u003e 5, 100 * errors / count, 0)`) {
			t.Errorf("the alarm ApiErrors computes %s", metrics)
		}
	})
}

func TestTheWebhooksAlarmCountsAttemptsAndWaits(t *testing.T) {
	const mode = "aurora-prod"
	metrics := asJSON(synth(t, mode).alarms(mode)["WebhookBehind-erp"].get("Metrics"))
	for _, part := range []string{
		`IF((FILL(failed, 0) \u003e 0 AND FILL(delivered, 0) == 0) OR FILL(age, 0) \u003e 3600, 1, 0)`,
		`"WebhookFailed"`, `"WebhookDelivered"`, `"ApproximateAgeOfOldestMessage"`,
	} {
		if !strings.Contains(metrics, part) {
			t.Errorf("the alarm lacks %s: %s", part, metrics)
		}
	}
}

// An alarm reaches the topic only if the topic's policy allows it. With a key of KMS it would need
// a permission on the key too.
func TestEveryAlarmNotifiesTheTopic(t *testing.T) {
	eachMode(t, func(t *testing.T, mode string, tpl template) {
		topic := tpl.named(t, "AWS::SNS::Topic", "TopicName", stackName(mode)+"-alarms")
		if topic.get("KmsMasterKeyId") != nil {
			t.Errorf("the topic has the key %s", asJSON(topic.get("KmsMasterKeyId")))
		}
		topics := []any{map[string]any{"Ref": topic.id}}
		if pager := modes[mode]["alarmTopicArn"]; pager != "" {
			topics = append(topics, pager)
		}
		want := asJSON(topics)
		for name, a := range tpl.alarms(mode) {
			full, _ := a.get("AlarmName").(string)
			if a.get("ActionsEnabled") == false || !strings.HasPrefix(full, stackName(mode)+"-") {
				t.Errorf("the topic's policy doesn't cover the alarm %s, or its actions are off", full)
			}
			ring, end := asJSON(a.get("AlarmActions")), asJSON(a.get("OKActions"))
			if ring != want || end != want {
				t.Errorf("%s notifies %s when it rings and %s when it ends, want the topic both times",
					name, ring, end)
			}
		}
		var allowed []map[string]any
		for _, p := range tpl.resources("AWS::SNS::TopicPolicy") {
			for _, s := range statements(p) {
				if s["Effect"] == "Allow" && strings.Contains(asJSON(p.get("Topics")), topic.id) {
					allowed = append(allowed, s)
				}
			}
		}
		if len(allowed) != 1 {
			t.Fatalf("the topic's policy allows %s, want one statement", asJSON(allowed))
		}
		conditions := asJSON(allowed[0]["Condition"])
		if asJSON(allowed[0]["Principal"]) != `{"Service":"cloudwatch.amazonaws.com"}` ||
			allowed[0]["Action"] != "sns:Publish" ||
			!strings.Contains(conditions, ":alarm:"+stackName(mode)+"-*") ||
			!strings.Contains(conditions, "aws:SourceAccount") {
			t.Errorf("the topic's policy allows %s, want this stack's alarms", asJSON(allowed))
		}
	})
	email := synth(t, "external-prod").only(t, "AWS::SNS::Subscription")
	if email.get("Endpoint") != "ops@example.com" || email.get("Protocol") != "email" {
		t.Errorf("the subscription is %s", asJSON(email.properties))
	}
}

func TestEveryAlarmHasASectionInTheRunbook(t *testing.T) {
	source, err := os.ReadFile("RUNBOOK.md")
	if err != nil {
		t.Fatal(err)
	}
	sections := map[string]bool{}
	headings := regexp.MustCompile("(?m)^### `([A-Za-z-]+)`").FindAllStringSubmatch(string(source), -1)
	for _, heading := range headings {
		sections[heading[1]] = false
	}
	eachMode(t, func(t *testing.T, mode string, tpl template) {
		for name, a := range tpl.alarms(mode) {
			section := name
			if m := eachAlarm.FindStringSubmatch(name); m != nil {
				section = m[1] + "-" + eachOf[m[1]]
			}
			if _, ok := sections[section]; !ok {
				t.Errorf("RUNBOOK.md has no section for the alarm %s", name)
			}
			sections[section] = true
			description, _ := a.get("AlarmDescription").(string)
			if !strings.HasSuffix(description, "infra/RUNBOOK.md, "+name) {
				t.Errorf("the alarm %s says %q, want it to name its section", name, description)
			}
		}
	})
	for section, used := range sections {
		if !used {
			t.Errorf("RUNBOOK.md has a section for the alarm %s, which no stack has", section)
		}
	}
}

func TestTheDashboardShowsEveryAlarmAndOutcome(t *testing.T) {
	for _, outcome := range outcomes {
		if !slices.Contains(httpapi.Outcomes(), outcome) {
			t.Errorf("the dashboard shows the outcome %s, which no call has", outcome)
		}
	}
	eachMode(t, func(t *testing.T, mode string, tpl template) {
		body := asJSON(tpl.only(t, "AWS::CloudWatch::Dashboard").get("DashboardBody"))
		for name, a := range tpl.alarms(mode) {
			if !strings.Contains(body, a.id) {
				t.Errorf("the dashboard doesn't show the alarm %s", name)
			}
		}
		graphs := append([]string{
			"Latency", "Shortages", "GatewayThrottles", "LambdaThrottles", "Functions: errors", "SweepLag",
			"Expired", "AuditViolations",
		}, outcomes...)
		if eventsOf(mode) != EventsOff {
			graphs = append(graphs, "RelayLagSeconds", "EventsPublished")
		}
		if !isExternal(mode) {
			graphs = append(graphs, "ACUUtilization", "DatabaseConnections", "Deadlocks")
		}
		for _, graph := range graphs {
			if !strings.Contains(body, graph) {
				t.Errorf("the dashboard doesn't show %s", graph)
			}
		}
	})
}
