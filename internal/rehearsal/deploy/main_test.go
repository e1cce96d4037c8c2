package deploy

import (
	"context"
	"testing"
	"time"

	"github.com/allo/reservations/internal/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// The names of the rehearsal.
const (
	region  = "us-east-1"
	account = "123456789012" // the account that moto simulates
	stack   = "allo-dev"
	secret  = "rehearsal/database"
	alias   = "live"
)

// Limits. They allow for a slow machine.
const (
	venvLimit   = 5 * time.Minute  // for pip on a slow connection
	startLimit  = 30 * time.Second // the double imports much of moto
	cdkLimit    = 5 * time.Minute  // compiling the CDK takes 90 seconds of it
	invokeLimit = 2 * time.Minute  // migrate waits up to one minute for a database
	callLimit   = 10 * time.Second // for one call of the double or the API
	expiryLimit = 15 * time.Second // until a hold of one second reads as expired
)

// rehearsal is the state that the steps share.
type rehearsal struct {
	double    *double
	cli       *commandLine
	database  *database
	trigger   *trigger
	functions map[string]*deployed // by the name of their directory under functions/
	routes    []routed
}

// TestDeploy runs the steps in order. Each step needs the one before.
func TestDeploy(t *testing.T) {
	r := prepare(t)
	for _, step := range []struct {
		name string
		do   func(*rehearsal, *testing.T)
	}{
		{"a shell that points elsewhere is refused", (*rehearsal).elsewhereStep},
		{"the account is bootstrapped", (*rehearsal).bootstrapStep},
		{"a first deploy whose migration fails leaves nothing", (*rehearsal).refusedStep},
		{"a deploy migrates before any function has a version", (*rehearsal).deployStep},
		{"the deployed resources are as the template says", (*rehearsal).readBackStep},
		{"no secret leaks", (*rehearsal).secrecyStep},
		{"the deployed code serves a reserve, a confirm and an expiry", (*rehearsal).serveStep},
		{"a consumer reads the events of a hold in order", (*rehearsal).publishStep},
		{"a failed migration leaves the traffic on the old versions", (*rehearsal).brokenStep},
		{"a version that the smoke test refuses gets no traffic", (*rehearsal).smokeStep},
		{"only a changed function is updated", (*rehearsal).changeStep},
		{"the README lists what the double doesn't model", (*rehearsal).listStep},
		{"destroy leaves nothing", (*rehearsal).destroyStep},
	} {
		start := time.Now()
		if !t.Run(step.name, func(t *testing.T) { step.do(r, t) }) {
			t.FailNow()
		}
		t.Logf("%s: %.1f s", step.name, time.Since(start).Seconds())
	}
}

func prepare(t *testing.T) *rehearsal {
	t.Helper()
	r := &rehearsal{database: newDatabase(t), trigger: &trigger{}}
	r.double = startDouble(t, r.trigger.serve(t))
	r.trigger.double, r.trigger.database = r.double, r.database
	r.cli = newCommandLine(t, r.double)
	return r
}

// within returns the test's context with a time limit.
func within(t *testing.T, limit time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	return ctx
}
