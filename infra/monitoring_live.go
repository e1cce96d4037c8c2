package main

import (
	"github.com/aws/aws-cdk-go/awscdk/v2/awscloudwatch"

	"github.com/allo/reservations/internal/emf"
)

// liveLag is how late the pages may hear of a change, in seconds. The relay looks each second.
const liveLag = 10

// addLive adds the live stock: what the pages see late or not at all. They poll meanwhile, so
// nothing is wrong but the pace.
func (m *monitoring) addLive(l *live) {
	if l == nil {
		return
	}
	lag := m.serviceMetric(emf.LiveLagSeconds, "", "Maximum", 1)
	if m.settings.Relays() {
		m.addAlarm("LiveBehind", lag, alarm{
			above: liveLag, breaching: 3, outOf: 3, missingBreaches: true,
			meaning: "The pages hear of changes of the stock over ten seconds late, or not at all",
		})
	}
	refused := sum([]awscloudwatch.IMetric{l.metric("4XXError"), l.metric("5XXError")})
	m.addAlarm("LiveRefused", refused, alarm{
		above: 0, breaching: 3, outOf: 5,
		meaning: "AppSync refuses what the relay publishes, so the pages see the stock late",
	})
	failed := l.authorizer.alias.MetricErrors(every(1, "Sum"))
	m.addAlarm("LiveClosed", failed, alarm{
		above: 0, breaching: 3, outOf: 5,
		meaning: "The function live-authorizer failed, so no page can follow the stock",
	})
	m.addRow(newGraph("Live: lag (s)", lag),
		newGraph("Live: messages", m.serviceMetric(emf.LivePublished, "", "Sum", 1)),
		newGraph("Live: publishes refused", l.metric("4XXError"), l.metric("5XXError")),
		newGraph("Live: authorizer, calls and errors",
			l.authorizer.alias.MetricInvocations(every(1, "Sum")), failed))
}

// addSignIn adds the sign-in of the console's users and of the payment side.
func (m *monitoring) addSignIn(in *signIn) {
	if in == nil {
		return
	}
	failed := in.trigger.alias.MetricErrors(every(1, "Sum"))
	m.addAlarm("SignInFailed", failed, once("The function grant-scopes failed, so somebody can't "+
		"sign in, or the payment side gets no token"))
	m.addRow(newGraph("Sign-in: tokens, and those that failed",
		in.trigger.alias.MetricInvocations(every(1, "Sum")), failed))
}
