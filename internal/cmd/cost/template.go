package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
)

// resource is a resource of a template, as far as the page needs it.
type resource struct {
	Type       string
	Properties struct {
		Metrics       []struct{ MetricStat any }
		TracingConfig struct{ Mode string }
		LoggingConfig struct {
			LogFormat, SystemLogLevel string
		}
		FunctionName      any
		Environment       struct{ Variables map[string]any }
		AccessLogSettings struct{ Format string }

		ServerlessV2ScalingConfiguration struct{ MinCapacity float64 }
	}
}

// readTemplate counts what is charged in a synthesized template, and returns the bytes of a line of
// the access log.
func readTemplate(path string) (t template, accessLogBytes float64, err error) {
	text, err := os.ReadFile(path) //nolint:gosec // the operator names it
	if err != nil {
		return t, 0, err
	}
	var body struct{ Resources map[string]resource }
	if err := json.Unmarshal(text, &body); err != nil {
		return t, 0, fmt.Errorf("%s: %w", path, err)
	}
	for id, r := range body.Resources {
		switch r.Type {
		case "AWS::CloudWatch::Alarm":
			t.AlarmMetrics += metricsOf(r)
		case "AWS::CloudWatch::CompositeAlarm":
			t.CompositeAlarms++
		case "AWS::RDS::DBCluster":
			t.MinACU = r.Properties.ServerlessV2ScalingConfiguration.MinCapacity
		case "AWS::RDS::DBInstance":
			t.Instances++
		case "AWS::RDS::DBProxy":
			t.Proxies++
		case "AWS::ApiGatewayV2::Stage":
			accessLogBytes = accessLogLine(r.Properties.AccessLogSettings.Format)
		case "AWS::Lambda::Function":
			if r.Properties.FunctionName == nil { // the CDK's own
				continue
			}
			t.Functions++
			t.Tracing = t.Tracing || r.Properties.TracingConfig.Mode == "Active"
			quiet := r.Properties.LoggingConfig.SystemLogLevel == "WARN"
			t.PlatformLogs = t.PlatformLogs || !quiet
			if strings.Contains(strings.ToLower(id), "relay") {
				t.EventsOn = r.Properties.Environment.Variables["RELAY_SECONDS"] != "0"
			}
		}
	}
	if t.Functions == 0 || t.AlarmMetrics == 0 || accessLogBytes == 0 {
		return t, 0, errors.New(path + " is no template of the service")
	}
	return t, accessLogBytes, nil
}

// metricsOf returns how many metrics an alarm watches.
func metricsOf(alarm resource) int {
	if len(alarm.Properties.Metrics) == 0 {
		return 1
	}
	n := 0
	for _, m := range alarm.Properties.Metrics {
		if m.MetricStat != nil {
			n++
		}
	}
	return n
}

// examples are usual values of the access log's fields. What has no value is a hyphen.
var examples = map[string]string{
	"$context.requestId":                     "Kl2mNjEXoAMEJ5w=",
	"$context.requestTime":                   "29/Nov/2026:06:00:00 +0000",
	"$context.routeKey":                      "POST /api/reservations/{id}/confirm",
	"$context.status":                        "200",
	"$context.identity.sourceIp":             "203.0.113.197",
	"$context.responseLength":                "842",
	"$context.responseLatency":               "18",
	"$context.integrationLatency":            "12",
	"$context.integration.status":            "200",
	"$context.integration.integrationStatus": "200",

	"$context.integrationErrorMessage": "-",
	"$context.error.message":           "-",
	"$context.authorizer.error":        "-",
	"$context.identity.userArn":        "arn:aws:sts::123456789012:assumed-role/payments/i-0abc",
}

// accessLogLine returns the bytes of a line with usual values.
func accessLogLine(format string) float64 {
	var fields map[string]string
	if err := json.Unmarshal([]byte(format), &fields); err != nil {
		return 0
	}
	for key, field := range fields {
		if fields[key] = examples[field]; fields[key] == "" {
			fields[key] = "-"
		}
	}
	text, err := json.Marshal(fields)
	if err != nil {
		return 0
	}
	return float64(len(text))
}

// platformBytes returns the bytes of the two lines that Lambda writes for a call at its level INFO,
// platform.start and platform.report, as AWS's documents show them (AWS Lambda Developer Guide,
// "Working with Lambda function logs", and "Telemetry API event schema reference").
func platformBytes() float64 {
	const id, now = "6d68ca91-49c9-448d-89b8-7ca3e6dc66aa", "2026-11-29T06:00:00.000Z"
	return float64(len(`{"time":"`+now+`","type":"platform.start","record":{"requestId":"`+id+
		`","version":"12"}}`) +
		len(`{"time":"`+now+`","type":"platform.report","record":{"requestId":"`+id+
			`","metrics":{"durationMs":6.271,"billedDurationMs":7,"memorySizeMB":256,`+
			`"maxMemoryUsedMB":38},"status":"success"}}`))
}
