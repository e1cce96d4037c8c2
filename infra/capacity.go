package main

import (
	"net/http"
	"time"

	"github.com/aws/aws-cdk-go/awscdk/v2"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsapigatewayv2"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsapplicationautoscaling"
	"github.com/aws/aws-cdk-go/awscdk/v2/awslambda"
	"github.com/aws/constructs-go/constructs/v10"
	"github.com/aws/jsii-runtime-go"

	"github.com/allo/reservations/internal/route"
)

// saleLead is how long before a sale the environments are started. Lambda begins a minute or two
// after it is asked, and starts 500 a minute at the slowest ("Managing Lambda provisioned
// concurrency" in the Lambda developer guide).
const saleLead = 15 * time.Minute

// concurrency returns a function's reserved concurrency, 0 for none. A flood of other calls can't
// take what a function reserves, and it never has more.
func (c Capacity) concurrency(function string) int {
	if isPayment(function) {
		return c.ConfirmConcurrency
	}
	return 0
}

// provision has n environments of an alias wait for calls during a sale. Before and after it none
// wait. A call that finds one doesn't wait for its start. It may wait for a log-in: an environment
// that wasn't called for five minutes connects anew (package postgres), because its connection may
// be dead.
//
// The alias itself doesn't have their number (newAlias), or a deploy would set it back. Lambda lets
// nobody change the number while a canary splits the alias's traffic (the same guide), so no deploy
// may run when a sale is about to begin (RUNBOOK.md, "Before a sale").
func provision(alias awslambda.Alias, n int, sale Sale) {
	if n == 0 {
		return
	}
	target := alias.AddAutoScaling(&awslambda.AutoScalingOptions{
		MinCapacity: jsii.Number(0), MaxCapacity: jsii.Number(n),
	})
	for _, action := range []struct {
		id string
		at time.Time
		n  int
	}{
		{"BeforeTheSale", sale.Begin.Add(-saleLead), n}, {"AfterTheSale", sale.End, 0},
	} {
		target.ScaleOnSchedule(jsii.String(action.id), &awsapplicationautoscaling.ScalingSchedule{
			Schedule: awsapplicationautoscaling.Schedule_Expression(
				jsii.String("at(" + action.at.Format("2006-01-02T15:04:05") + ")")),
			MinCapacity: jsii.Number(action.n),
			MaxCapacity: jsii.Number(action.n),
		})
	}
}

// lateSale and lateSaleText are the id and the text of the note that a sale's schedule comes too
// late.
const (
	lateSale     = "allo:sale-too-late"
	lateSaleText = "WARNING: the sale's environments should have been started already, so the " +
		"schedule won't start them. Start them by hand, or leave sale out if it is over: " +
		"infra/RUNBOOK.md, Before a sale"
)

// warnOfLateSale tells at a synth of a sale that can't be prepared any more: AWS doesn't run an
// action of the past, or refuses it. It is a note, on which a synth with --strict doesn't fail.
func warnOfLateSale(stack constructs.Construct, s Settings, now time.Time) {
	if s.saleIsLate(now) {
		awscdk.Annotations_Of(stack).AddInfoV2(jsii.String(lateSale), jsii.String(lateSaleText))
	}
}

// saleIsLate reports whether the environments of a sale should have been started already.
func (s Settings) saleIsLate(now time.Time) bool {
	return s.Capacity.Sale != nil && !now.Before(s.Capacity.Sale.Begin.Add(-saleLead))
}

// throttle is what the gateway allows of a route: a rate a second, and a burst at once.
type throttle struct{ rate, burst int }

// ownThrottles returns the routes that have a throttle of their own, by their keys. What they allow
// doesn't count for the other routes, so a flood of reserves, or of anything else, can't take the
// rate from the calls of customers who have paid. The rate of the account bounds them all.
func ownThrottles(s Settings) map[string]throttle {
	throttles := map[string]throttle{}
	for _, r := range route.All() {
		if r.Function == "reserve" && r.Method == http.MethodPost {
			throttles[r.Key()] = throttle{s.Capacity.ReserveRate, s.Capacity.ReserveBurst}
		}
	}
	for _, r := range paymentRoutes() {
		throttles[r.Key()] = throttle{s.ThrottleRate, s.ThrottleBurst}
	}
	return throttles
}

// throttleRoutes gives routes their throttles. The construct of a stage has none for a route. The
// gateway refuses settings of a route that isn't there yet, so the stage waits for its routes:
// https://github.com/aws/serverless-application-model/issues/2479
func (a api) throttleRoutes(s Settings, routes map[string]awsapigatewayv2.HttpRoute) {
	settings := map[string]any{}
	for key, t := range ownThrottles(s) {
		settings[key] = map[string]any{
			"ThrottlingRateLimit": t.rate, "ThrottlingBurstLimit": t.burst,
			"DetailedMetricsEnabled": false,
		}
		a.stage.Node().AddDependency(routes[key])
	}
	resource, _ := a.stage.Node().DefaultChild().(awsapigatewayv2.CfnStage)
	resource.SetRouteSettings(settings)
}
