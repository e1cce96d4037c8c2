package webhook

import "time"

// Waits are the delays of Standard Webhooks after each failed attempt but the last. There is one
// attempt more than delays: ten within about three days.
func Waits() []time.Duration {
	return []time.Duration{
		5 * time.Second, 5 * time.Minute, 30 * time.Minute, 2 * time.Hour, 5 * time.Hour,
		10 * time.Hour, 14 * time.Hour, 20 * time.Hour, 24 * time.Hour,
	}
}

const (
	// longestHide bounds how long a queue is told to hide a message. SQS allows 12 hours from the
	// receive, and the attempt takes some of them.
	longestHide = 11 * time.Hour
	// maxRetryAfter bounds how long an endpoint may put off the next attempt.
	maxRetryAfter = time.Hour
)

// Turn says what is due when a queue hands out a message once more.
type Turn struct {
	// Attempt says that the event is to be posted. Otherwise a long delay goes on.
	Attempt bool
	// Hide is how long to hide the message afterwards, unless the endpoint took it.
	Hide time.Duration
	// Last says that there is no attempt after this one.
	Last bool
}

// turns has an element for each receive of a message. A delay longer than longestHide is split
// into equal parts.
var turns = func() []Turn {
	var out []Turn
	for _, wait := range Waits() {
		parts := (wait + longestHide - 1) / longestHide
		for n := range parts {
			out = append(out, Turn{Attempt: n == 0, Hide: wait / parts})
		}
	}
	return append(out, Turn{Attempt: true, Last: true})
}()

// Receives is how often a queue hands out a message until its last attempt.
func Receives() int { return len(turns) }

// TurnOf returns what is due at a message's nth receive, counted from 1. After the last one, each
// is the last.
func TurnOf(n int) Turn { return turns[min(max(n, 1), len(turns))-1] }

// Delay returns how long to wait after an attempt that failed with this error, when the schedule
// says wait: what the endpoint asked for, if that is longer, but at most maxRetryAfter.
func Delay(wait time.Duration, err error) time.Duration {
	return max(wait, min(retryAfter(err), maxRetryAfter))
}
