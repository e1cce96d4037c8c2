package emf

import "time"

// Metric is a metric of the service: its name, its unit, and the name of its dimension, which is
// empty for a metric without one.
type Metric struct {
	Name      string
	Unit      Unit
	Dimension string
}

// The service's metrics. The functions write them, and package infra watches them under the same
// names. CloudWatch charges for each metric, and for each value of its dimension, by the hours in
// which it is written.
var (
	// Reservations counts the POSTs of the API by outcome (httpapi.Outcomes).
	Reservations = Metric{"Reservations", Count, "Outcome"}
	// Shortages counts the lines of refused reserves that asked for more than there was.
	Shortages = Metric{"Shortages", Count, ""}
	// Retries counts the transactions that ran again after a deadlock or a serialization failure.
	Retries = Metric{"Retries", Count, ""}
	// PoolErrors counts the calls that got no connection to the database.
	PoolErrors = Metric{"PoolErrors", Count, ""}
	// ReaderFallbacks counts the reads that the writer answered because the reader couldn't, by the
	// reason (postgres.Fallbacks).
	ReaderFallbacks = Metric{"ReaderFallbacks", Count, "Reason"}
	// Faults counts a function's answers that are bugs, by the function's name in the route table:
	// those with a 5xx status other than 503.
	Faults = Metric{"Faults", Count, "Function"}

	// ServerErrors counts the answers with a 5xx status of a function with a service level objective
	// (Objectives), those among Faults and 503 too.
	ServerErrors = Metric{"ServerErrors", Count, "Function"}
	// SlowAnswers counts the answers of such a function that came later than SlowAfter.
	SlowAnswers = Metric{"SlowAnswers", Count, "Function"}
	// PublicCheckFailed is 1 when a check of the public address failed, else 0. The smoke function
	// writes it each five minutes.
	PublicCheckFailed = Metric{"PublicCheckFailed", Count, ""}

	// Expired counts the holds that a sweep marked as expired.
	Expired = Metric{"Expired", Count, ""}
	// SweepDuration is how long a sweep took.
	SweepDuration = Metric{"SweepDuration", Milliseconds, ""}
	// SweepMore is 1 when a sweep's time ran out with work left, else 0.
	SweepMore = Metric{"SweepMore", Count, ""}
	// SweepLag is how long the oldest hold that a sweep found had been dead.
	SweepLag = Metric{"SweepLag", Seconds, ""}
	// OldestTransaction is the age of the oldest transaction that keeps dead row versions.
	OldestTransaction = Metric{"OldestTransaction", Seconds, ""}
	// HorizonTransactions is how many transactions have begun since the oldest snapshot that keeps
	// dead row versions, on the server or on a replica.
	HorizonTransactions = Metric{"HorizonTransactions", Count, ""}

	// AuditViolations counts what the last audit of what is new found, or what the full audits did,
	// whichever is more.
	AuditViolations = Metric{"AuditViolations", Count, ""}
	// AuditUnfinished is 1 when an audit didn't finish, else 0.
	AuditUnfinished = Metric{"AuditUnfinished", Count, ""}

	// RelayLagSeconds is the age of the oldest event that a sink didn't have yet, for each of its two
	// places. The relay writes it at least every ten seconds of a run, and at its end, if the outbox
	// told it.
	RelayLagSeconds = Metric{"RelayLagSeconds", Seconds, "Place"}
	// EventsPublished counts the events that a sink accepted.
	EventsPublished = Metric{"EventsPublished", Count, "Sink"}
	// EventsParked is how many events a sink refused for good, or stand behind such an event, until an
	// operator redrives them. The relay writes it with RelayLagSeconds.
	EventsParked = Metric{"EventsParked", Count, "Sink"}

	// LiveLagSeconds is how long the oldest news of the live channel had waited when it was sent. The
	// relay writes it at least every ten seconds of a run, and at its end, if the outbox told it.
	LiveLagSeconds = Metric{"LiveLagSeconds", Seconds, ""}
	// LivePublished counts the messages that the live channel took: of stock rows and of holds.
	LivePublished = Metric{"LivePublished", Count, ""}

	// WebhookDelivered counts the events that an endpoint took, by the webhook's name.
	WebhookDelivered = Metric{"WebhookDelivered", Count, "Webhook"}
	// WebhookFailed counts the attempts that failed and are made again.
	WebhookFailed = Metric{"WebhookFailed", Count, "Webhook"}
	// WebhookDead counts the events that went to a webhook's dead-letter queue.
	WebhookDead = Metric{"WebhookDead", Count, "Webhook"}
)

// All lists the service's metrics.
func All() []Metric {
	return []Metric{
		Reservations, Shortages, Retries, PoolErrors, ReaderFallbacks, Faults,
		ServerErrors, SlowAnswers, PublicCheckFailed,
		Expired, SweepDuration, SweepMore, SweepLag, OldestTransaction, HorizonTransactions,
		AuditViolations, AuditUnfinished, RelayLagSeconds, EventsPublished, EventsParked,
		LiveLagSeconds, LivePublished, WebhookDelivered, WebhookFailed, WebhookDead,
	}
}

// SlowAfter is the latency of the objectives: a caller who waits longer got a slow answer. A warm
// call takes some ten milliseconds, and the first one of a new environment some hundreds; half a
// second is where a shopper begins to notice.
const SlowAfter = 500 * time.Millisecond

// Objectives lists the functions with service level objectives, by their names in the route table:
// those that take and sell stock.
func Objectives() []string { return []string{"reserve", "confirm"} }
