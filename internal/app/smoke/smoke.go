// Package smoke checks a deployment by using it. The smoke function has two checks:
//
//   - In a deploy it calls the new versions of the functions, before any traffic reaches them. It
//     sends them the events that the gateway would send, so it needs no gateway and no token. It
//     holds a unit of a product of its own, reads the hold and releases it. Its failure ends the
//     deploy with a sentence that says which call got which answer.
//   - Each five minutes it calls the public address over HTTPS, as a shopper does, and writes the
//     metric emf.PublicCheckFailed. An alarm watches the metric.
//
// The check of a deploy leaves the shop as it was. Its product and its warehouse are for sale only
// while it runs, which takes a second or two; its name tells a shopper who sees it that it isn't
// for sale. A run that dies leaves a hold that ends by itself after a minute, and the next run puts
// the product away. The holds are real, so consumers get their events: held, extended and released,
// and in the first deploy the stock's, all of the product with the SKU smoke-test.
//
// A deploy may start the check again, when the answer of the first run was lost. Each run has an
// idempotency key of its own, so that it tests for itself; a call that a run repeats has the key of
// the first try, and has one effect. The first run may still be under way. So a run puts the
// product up again when another one has put it away, and waits for what another one is about to
// undo.
package smoke

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/aws/aws-lambda-go/lambdacontext"
	"github.com/google/uuid"

	"github.com/allo/reservations/internal/awsapi"
	"github.com/allo/reservations/internal/config"
	"github.com/allo/reservations/internal/emf"
)

// Limits of the check of a deploy. Together they are below the function's timeout of 120 s.
const (
	// patience is how long calls are repeated that got no answer, 429 or 503, counted from the start
	// of the run. A new role's permissions are known everywhere after some seconds, and a database
	// that was just created or is failing over answers within half a minute.
	patience = 60 * time.Second
	// runLimit ends a run.
	runLimit = 90 * time.Second
	// awayLimit bounds putting the product away, also after a run that failed.
	awayLimit = 20 * time.Second
	// pause is between two tries.
	pause = time.Second
)

// publicCalls is how many calls the check of the public address makes at most, and publicLimit ends
// it. Each call may take its callLimit.
const (
	publicCalls = 8
	publicLimit = publicCalls*callLimit + 10*time.Second
)

// PublicEvent is the event that starts the check of the public address. Any other event starts the
// check of a deploy.
const PublicEvent = "public"

// Event is what starts the smoke function.
type Event struct {
	// Check is PublicEvent, or empty.
	Check string `json:"check"`
}

// Report is what a run found.
type Report struct {
	// Check is deploy or public.
	Check string `json:"check"`
	// Product is the id of the product of which a unit was held, or empty. Consumers tell the check's
	// events by it.
	Product string `json:"product,omitempty"`
	// Failed says what went wrong, or is empty.
	Failed string `json:"failed,omitempty"`
	TookMs int64  `json:"tookMs"`
}

// Function is the smoke function. It is a lambda.Handler.
type Function struct {
	settings config.Smoke
	aws      config.AWS
	log      *slog.Logger
	metrics  *emf.Writer
	// The times of the check of a deploy.
	patience, pause, follow, leave time.Duration
}

// New makes the function of the settings.
func New(c config.Config, log *slog.Logger, metrics *emf.Writer) *Function {
	return &Function{
		settings: c.Smoke, aws: c.AWS, log: log, metrics: metrics,
		patience: patience, pause: pause, follow: followLimit, leave: leaveLimit,
	}
}

// Lambda returns the handler for lambda.Start.
func Lambda() *Function {
	c, log := config.Start(false)
	return New(c, log, emf.New(os.Stdout, c.MetricNamespace))
}

// Invoke runs a check. The trigger of a deploy sends no payload at all. The error is that of a
// check of a deploy that failed; a public check tells by its report and its metric.
func (f *Function) Invoke(ctx context.Context, payload []byte) ([]byte, error) {
	var event Event
	if len(payload) > 0 {
		if err := json.Unmarshal(payload, &event); err != nil {
			return nil, fmt.Errorf("read the event: %w", err)
		}
	}
	check := f.deploy
	switch event.Check {
	case "":
	case PublicEvent:
		check = f.public
	default:
		return nil, fmt.Errorf("the check %q is unknown; it must be %q or empty", event.Check,
			PublicEvent)
	}
	start := time.Now()
	report, err := check(ctx)
	report.TookMs = time.Since(start).Milliseconds()
	level, kind := slog.LevelInfo, "smoke"
	if report.Failed != "" {
		level = slog.LevelError
	}
	f.log.Log(ctx, level, kind, "report", report)
	if err != nil {
		return nil, err
	}
	return json.Marshal(report)
}

// deploy checks the new versions. A failure ends the deploy, unless CloudFormation is going back
// already: then the versions are the old ones, and a failure of the trigger would leave the stack
// in the state UPDATE_ROLLBACK_FAILED, from which only an operator can take it.
func (f *Function) deploy(ctx context.Context) (Report, error) {
	report := Report{Check: "deploy"}
	if len(f.settings.Functions) == 0 {
		return report, errors.New("SMOKE_FUNCTIONS is not set; the check of a deploy needs it")
	}
	run := &deployRun{
		caller: caller{
			api: &gateway{settings: f.settings, aws: f.aws}, log: f.log,
			patience: time.Now().Add(f.patience), pause: f.pause, follow: f.follow,
		},
		id: runID(ctx), leave: f.leave,
	}
	err := run.check(ctx)
	report.Product = run.product
	if err == nil {
		return report, nil
	}
	report.Failed = err.Error()
	if f.rollingBack(ctx) {
		return report, nil
	}
	return report, fmt.Errorf("the smoke test failed, so the traffic stays on the old versions: %w",
		err)
}

// rollingBack reports whether CloudFormation says that the stack goes back.
func (f *Function) rollingBack(ctx context.Context) bool {
	if f.settings.Stack == "" {
		return false
	}
	status, err := awsapi.StackStatus(context.WithoutCancel(ctx), f.aws, f.aws.Endpoint,
		f.settings.Stack)
	if err != nil {
		f.log.Error("the stack's status can't be read", "error", err.Error())
		return false
	}
	f.log.Info("the smoke test failed", "stackStatus", status)
	return strings.Contains(status, "ROLLBACK")
}

// public checks the public address and writes the metric.
func (f *Function) public(ctx context.Context) (Report, error) {
	report := Report{Check: PublicEvent}
	if f.settings.URL == "" {
		return report, errors.New("PUBLIC_URL is not set; the check of the public address needs it")
	}
	run := newPublicRun(f.settings, runID(ctx), f.log)
	err := run.check(ctx)
	report.Product = run.product
	failed := 0.0
	if err != nil {
		report.Failed, failed = err.Error(), 1
	}
	f.metrics.Write(emf.PublicCheckFailed.Value(failed))
	return report, nil
}

// runID names a run: Lambda's id of the request, which nobody can guess.
func runID(ctx context.Context) string {
	if lc, ok := lambdacontext.FromContext(ctx); ok && lc.AwsRequestID != "" {
		return lc.AwsRequestID
	}
	return uuid.NewString()
}
