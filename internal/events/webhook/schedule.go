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

// clockSlack is how much earlier than due an event may be received: the queue counts whole seconds,
// and its clock isn't the function's.
const clockSlack = 2 * time.Second

// Turn says what is due when a queue hands out an event once more.
type Turn struct {
	// Attempt says that the event is to be posted. Otherwise a long delay goes on.
	Attempt bool
	// Hide is how long to hide the event afterwards, unless the endpoint took it.
	Hide time.Duration
	// Last says that there is no attempt after this one.
	Last bool
}

// step is a turn that is due so long after the first receive of an event.
type step struct {
	due           time.Duration
	attempt, last bool
}

// steps has the attempts, and what lies between them: a delay longer than longestHide is split into
// equal parts.
var steps = func() (out []step) {
	due := time.Duration(0)
	for _, wait := range Waits() {
		parts := (wait + longestHide - 1) / longestHide
		for n := range parts {
			out = append(out, step{due: due + n*(wait/parts), attempt: n == 0})
		}
		due += wait
	}
	return append(out, step{due: due, attempt: true, last: true})
}()

// Receives is how often a queue hands out an event until its last attempt, if each hand-out reaches
// the function. Those that don't, because Lambda throttles it, count in the queue and not here.
func Receives() int { return len(steps) }

// TurnOf returns what is due so long after an event's first receive. Of the steps whose time has
// come it is the last one: one that was missed isn't made up for.
func TurnOf(elapsed time.Duration) Turn {
	n := 0
	for n+1 < len(steps) && steps[n+1].due <= elapsed+clockSlack {
		n++
	}
	if steps[n].last {
		return Turn{Attempt: true, Last: true}
	}
	return Turn{
		Attempt: steps[n].attempt,
		Hide:    min(max(steps[n+1].due-elapsed, Waits()[0]), longestHide),
	}
}

// AttemptOf returns the number of the attempt that is due so long after an event's first receive,
// or of the last one before: from 1 to one more than there are Waits.
func AttemptOf(elapsed time.Duration) int {
	number := 0
	for n, step := range steps {
		if n > 0 && step.due > elapsed+clockSlack {
			break
		}
		if step.attempt {
			number++
		}
	}
	return number
}

// Delay returns how long to wait after an attempt that failed with this error, when the schedule
// says wait: what the endpoint asked for, if that is longer, but at most maxRetryAfter.
func Delay(wait time.Duration, err error) time.Duration {
	return max(wait, min(retryAfter(err), maxRetryAfter))
}
