package main

import (
	"slices"

	"github.com/aws/aws-cdk-go/awscdk/v2"
	"github.com/aws/aws-cdk-go/awscdk/v2/awscloudwatch"
	"github.com/aws/aws-cdk-go/awscdk/v2/awslogs"
	"github.com/aws/jsii-runtime-go"

	"github.com/allo/reservations/internal/route"
)

// A throttled call is counted in the access log. The gateway's own metrics don't tell a 429 from a
// 404, and Lambda's don't tell the routes apart.
//
// The gateway sends a caller 429 when it throttles the call itself. When Lambda throttled it, the
// gateway got the 429, and what it sends may be another status. The log has both ("Customize HTTP
// API access logs" in the API Gateway developer guide):
// https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-logging-variables.html
const (
	gatewayThrottles = "GatewayThrottles"
	lambdaThrottles  = "LambdaThrottles"

	gatewayThrottled = `{ ($.status = "429") && ($.lambdaStatus != "429") }`
	lambdaThrottled  = `{ $.lambdaStatus = "429" }`
)

// throttleDimension is the dimension of the two metrics: a route's key. A caller can't choose
// others, so the values are as many as the routes.
const throttleDimension = "Route"

// turnedAway is how many calls a minute of shoppers the gateway may throttle. Fewer are a bot's, or
// one browser's that polls too fast.
const turnedAway = 60

// addThrottledCalls adds the calls that were throttled: of the payment side, which may lose none,
// and of shoppers.
func (m *monitoring) addThrottledCalls(a api) {
	m.countThrottles(a.accessLog, gatewayThrottles, gatewayThrottled)
	m.countThrottles(a.accessLog, lambdaThrottles, lambdaThrottled)
	payments, shoppers := keysOf(paymentRoutes()), keysOf(shoppersRoutes())
	m.addAlarm("PaymentsThrottled", sum(slices.Concat(
		m.throttles(gatewayThrottles, payments), m.throttles(lambdaThrottles, payments))),
		once("A call of the payment side was throttled, so a customer who pays may have to wait"))
	m.addAlarm("ShoppersThrottled", sum(m.throttles(gatewayThrottles, shoppers)), alarm{
		above: turnedAway, breaching: 5, outOf: 5,
		meaning: "The gateway turns away over 60 calls a minute of shoppers",
	})
	all := slices.Concat(payments, shoppers)
	m.addRow(
		newGraph("Calls throttled by the gateway", m.throttles(gatewayThrottles, all)...),
		newGraph("Calls throttled by Lambda", m.throttles(lambdaThrottles, all)...),
	)
}

// countThrottles counts the lines of the access log that match a pattern, by their route.
func (m *monitoring) countThrottles(log awslogs.LogGroup, name, pattern string) {
	awslogs.NewMetricFilter(m.scope, jsii.String(name), &awslogs.MetricFilterProps{
		LogGroup:        log,
		FilterPattern:   awslogs.FilterPattern_Literal(jsii.String(pattern)),
		MetricNamespace: jsii.String(metricNamespace(m.settings)),
		MetricName:      jsii.String(name),
		MetricValue:     jsii.String("1"),
		Unit:            awscloudwatch.Unit_COUNT,
		Dimensions:      &map[string]*string{throttleDimension: jsii.String("$.route")},
	})
}

// throttles returns the number of throttled calls each minute, one metric for each route.
func (m *monitoring) throttles(name string, routes []string) []awscloudwatch.IMetric {
	var metrics []awscloudwatch.IMetric
	for _, key := range routes {
		metrics = append(metrics, awscloudwatch.NewMetric(&awscloudwatch.MetricProps{
			Namespace:     jsii.String(metricNamespace(m.settings)),
			MetricName:    jsii.String(name),
			DimensionsMap: &map[string]*string{throttleDimension: jsii.String(key)},
			Statistic:     jsii.String("Sum"),
			Period:        awscdk.Duration_Minutes(jsii.Number(1)),
		}))
	}
	return metrics
}

// shoppersRoutes returns the open routes of the API on which a sale depends, without the pages. An
// alarm can watch ten.
func shoppersRoutes() []route.Route {
	var routes []route.Route
	for _, r := range route.API() {
		if r.Scope == "" && !isBackOffice(r) {
			routes = append(routes, r)
		}
	}
	return routes
}

func keysOf(routes []route.Route) []string {
	var keys []string
	for _, r := range routes {
		keys = append(keys, r.Key())
	}
	return keys
}

// addProvisioned adds how the environments that wait for calls are used. A call that found none of
// them got another one, and waited for its start.
func (m *monitoring) addProvisioned(functions []function) {
	var used, spilled []awscloudwatch.IMetric
	for _, f := range functions {
		if m.settings.Capacity.Provisioned[f.name] == 0 {
			continue
		}
		used = append(used, f.alias.Metric(
			jsii.String("ProvisionedConcurrencyUtilization"), every(1, "Maximum")))
		spilled = append(spilled, f.alias.Metric(
			jsii.String("ProvisionedConcurrencySpilloverInvocations"), every(1, "Sum")))
	}
	if len(used) == 0 {
		return
	}
	m.addRow(newGraph("Provisioned environments: share in use", used...),
		newGraph("Provisioned environments: calls that found none", spilled...))
}
