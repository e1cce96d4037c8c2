package deploy

import (
	"context"
	"testing"
	"time"

	"github.com/allo/reservations/internal/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// Where the rehearsal takes place.
const (
	region  = "us-east-1"
	account = "123456789012" // moto's
	stack   = "allo-dev"
	secret  = "rehearsal/database"
	alias   = "live"
)

// Bounds. On two cores that nobody else uses the whole takes two minutes; Go may have to compile the CDK first.
const (
	venvLimit   = 5 * time.Minute  // pip, on a slow line
	startLimit  = 30 * time.Second // the double imports half of moto
	cdkLimit    = 5 * time.Minute  // of which compiling the CDK takes one and a half
	invokeLimit = 2 * time.Minute  // of which migrate waits one for a database
	callLimit   = 10 * time.Second // one call of the double or of the API
	expiryLimit = 15 * time.Second // until a hold of one second is seen to have died
)

// rehearsal is the state that one step leaves to the next.
type rehearsal struct {
	dir       string // for what outlives a step
	double    *double
	cli       *commandLine
	database  *database
	trigger   *trigger
	functions map[string]*deployed // by their directory's name under functions/
	routes    []routed
}

// TestDeploy is one deploy's life. Each step needs the one before.
func TestDeploy(t *testing.T) {
	r := prepare(t)
	for _, step := range []struct {
		name string
		do   func(*rehearsal, *testing.T)
	}{
		{"the account is bootstrapped", (*rehearsal).bootstrapStep},
		{"a first deploy that can't migrate leaves nothing", (*rehearsal).refusedStep},
		{"a deploy migrates before anything has a version", (*rehearsal).deployStep},
		{"what the template says is there", (*rehearsal).readBackStep},
		{"no secret is told", (*rehearsal).secrecyStep},
		{"the deployed code serves a reserve, a confirm and an expiry", (*rehearsal).serveStep},
		{"a deploy that can't migrate leaves the traffic where it was", (*rehearsal).brokenStep},
		{"a changed function is all that changes", (*rehearsal).changeStep},
		{"what the double doesn't model is listed", (*rehearsal).listStep},
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
	r := &rehearsal{dir: t.TempDir(), database: newDatabase(t), trigger: &trigger{}}
	r.double = startDouble(t, r.trigger.serve(t))
	r.trigger.double, r.trigger.database = r.double, r.database
	r.cli = newCommandLine(t, r.double)
	return r
}

// within is the test's context with a limit.
func within(t *testing.T, limit time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	return ctx
}
