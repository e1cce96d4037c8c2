package smoke

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/allo/reservations/internal/awsapi"
)

// maxQuoted bounds the part of an answer that an error repeats, in bytes.
const maxQuoted = 300

// call is one call of the API.
type call struct {
	// route is the key of the route, such as GET /api/reservations/{id}.
	route string
	// id fills in the route's parameter.
	id    string
	query url.Values
	// body is sent as JSON, unless it is nil.
	body any
	// key is the Idempotency-Key, or empty.
	key string
	// fresh says that the answer must have every change up to now (Cache-Control: no-cache).
	fresh bool
}

// String returns the method and the path.
func (c call) String() string { return strings.ReplaceAll(c.route, "{id}", c.id) }

// method and path return the parts of the call's request.
func (c call) method() string {
	method, _, _ := strings.Cut(c.route, " ")
	return method
}

func (c call) path() string {
	_, path, _ := strings.Cut(c.route, " ")
	return strings.ReplaceAll(path, "{id}", url.PathEscape(c.id))
}

// answer is what a call got.
type answer struct {
	status int
	body   []byte
}

// code returns the code of a problem, or empty.
func (a answer) code() string {
	var problem struct{ Code string }
	_ = json.Unmarshal(a.body, &problem) // a page isn't JSON and has no code
	return problem.Code
}

// api takes calls: the functions themselves, or the public address. Its error means that there was
// no answer.
type api interface {
	send(ctx context.Context, c call) (answer, error)
}

// caller makes calls and checks their answers. It logs each.
type caller struct {
	api api
	log *slog.Logger
	// patience is until when a call is repeated that may succeed later.
	patience time.Time
	pause    time.Duration
	// follow is how long until waits.
	follow time.Duration
}

// unwantedError is an answer that a check didn't want.
type unwantedError struct {
	call   call
	answer answer
	want   string
}

func (e *unwantedError) Error() string {
	return fmt.Sprintf("%s answered %d %.*s; want %s", e.call, e.answer.status, maxQuoted,
		e.answer.body, e.want)
}

// isProblem reports whether err is an answer with the code of a problem.
func isProblem(err error, code string) bool {
	var unwanted *unwantedError
	return errors.As(err, &unwanted) && unwanted.answer.code() == code
}

// want makes a call, checks its status and the code of a problem, and decodes the answer into
// `into`, unless it is nil.
func (c *caller) want(ctx context.Context, q call, status int, code string, into any) error {
	start := time.Now()
	a, err := c.repeat(ctx, q)
	c.log.InfoContext(ctx, "smoke call", "call", q.String(), "status", a.status, "code", a.code(),
		"tookMs", time.Since(start).Milliseconds())
	if err != nil {
		return fmt.Errorf("%s got no answer: %w", q, err)
	}
	if a.status != status || code != "" && a.code() != code {
		return &unwantedError{q, a, strings.TrimSpace(strconv.Itoa(status) + " " + code)}
	}
	if into == nil {
		return nil
	}
	if err := json.Unmarshal(a.body, into); err != nil {
		return fmt.Errorf("%s answered %d with %.*s, which can't be read: %w", q, a.status, maxQuoted,
			a.body, err)
	}
	return nil
}

// repeat makes a call until it gets an answer that stays. It repeats the call with the same key.
func (c *caller) repeat(ctx context.Context, q call) (a answer, err error) {
	for {
		a, err = c.api.send(ctx, q)
		passes := a.status == http.StatusServiceUnavailable || a.status == http.StatusTooManyRequests
		if err != nil {
			passes = awsapi.MayPass(err)
		}
		if !passes || time.Now().After(c.patience) || !wait(ctx, c.pause) {
			return a, err
		}
	}
}

// lateError means that until has waited in vain.
type lateError struct {
	what  string
	after time.Duration
}

func (e *lateError) Error() string {
	return fmt.Sprintf("%s after %s", e.what, e.after.Round(time.Second))
}

// until waits until ok reports true, for c.follow at most. What it looks at may come from a
// server that follows the database, some milliseconds later. The error is ok's own, or a *lateError
// that says `what` is wrong.
func (c *caller) until(ctx context.Context, what string, ok func() (bool, error)) error {
	return c.within(ctx, c.follow, what, ok)
}

// within is until with a limit of its own.
func (c *caller) within(
	ctx context.Context, limit time.Duration, what string, ok func() (bool, error),
) error {
	start := time.Now()
	for {
		done, err := ok()
		if err != nil || done {
			return err
		}
		if time.Since(start) > limit || !wait(ctx, c.pause/followPauses) {
			return &lateError{what, time.Since(start)}
		}
	}
}

// followPauses is how often until looks within a pause.
const followPauses = 4

// wait waits, and reports false when the context ends first.
func wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
