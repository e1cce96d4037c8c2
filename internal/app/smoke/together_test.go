package smoke

import (
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/events"

	"github.com/allo/reservations/internal/config"
	"github.com/allo/reservations/internal/pgtest"
)

// overlap is two runs, of which the second begins in the middle of the first.
type overlap struct {
	// The second run begins at the first one's call number nth of the function at. The first one goes
	// on when the second has stopped before its call of the function stop, or has ended if that is
	// empty. The second one goes on when the first has got an answer of the function resume.
	at     string
	nth    int
	stop   string
	resume string
	// dies says that the second run gets no good answer any more once it goes on.
	dies bool

	t              *testing.T
	stopped, goOn  chan struct{}
	ended          chan error
	began, resumed bool
}

// run runs both on a shop, and returns their errors.
func (o *overlap) run(t *testing.T, s *cloud) (first, second error) {
	t.Helper()
	o.t, o.stopped, o.goOn, o.ended = t, make(chan struct{}), make(chan struct{}), make(chan error, 1)
	other := s.twin(t)
	other.replace(o.pause())
	s.replace(o.watch(other.function(config.Smoke{})))
	_, first = invoke(t, s.function(config.Smoke{}), "")
	if !o.began {
		t.Fatal("the second run never began: the test proves nothing")
	}
	if o.stop != "" && !o.resumed {
		t.Errorf("the first run got no answer of %s beside the second: the test proves nothing",
			o.resume)
		close(o.goOn)
	}
	return first, <-o.ended
}

// watch looks at the first run's calls. It starts the second run and lets it go on.
func (o *overlap) watch(
	second *Function,
) func(http.ResponseWriter, string, events.APIGatewayV2HTTPRequest) bool {
	var mu sync.Mutex
	calls, answered := 0, false
	return func(_ http.ResponseWriter, function string, _ events.APIGatewayV2HTTPRequest) bool {
		mu.Lock()
		defer mu.Unlock()
		if answered && !o.resumed {
			o.resumed = true
			close(o.goOn)
		}
		if function == o.at {
			calls++
		}
		if !o.began && calls == o.nth {
			o.began = true
			go func() {
				_, err := second.Invoke(o.t.Context(), nil)
				o.ended <- err
				if o.stop == "" {
					close(o.stopped)
				}
			}()
			o.await(o.stopped)
		}
		answered = answered || o.began && o.stop != "" && function == o.resume
		return false
	}
}

// pause stops the second run before its call of stop.
func (o *overlap) pause() func(http.ResponseWriter, string, events.APIGatewayV2HTTPRequest) bool {
	var mu sync.Mutex
	reached := false
	return func(w http.ResponseWriter, function string, _ events.APIGatewayV2HTTPRequest) bool {
		mu.Lock()
		defer mu.Unlock()
		if !reached && function == o.stop {
			reached = true
			close(o.stopped)
			o.await(o.goOn)
		}
		return reached && o.dies && fail(w, http.StatusInternalServerError, "")
	}
}

func (o *overlap) await(done <-chan struct{}) {
	select {
	case <-done:
	case <-time.After(time.Minute):
		o.t.Error("one of two runs waits for the other for a minute")
	}
}

// calls counts the calls of a function that came.
func (s *cloud) calls(t *testing.T, function string) (n int) {
	t.Helper()
	for _, event := range s.events() {
		if routeOf(t, event).Function == function {
			n++
		}
	}
	return n
}

// A deploy may start a second run while the first is under way. Both succeed, wherever they meet.
func TestTwoRunsAtOnceBothSucceed(t *testing.T) {
	t.Parallel()

	for name, c := range map[string]struct {
		overlap

		// The first run makes more calls of the function disturbed than the usual ones.
		disturbed string
		usual     int
	}{
		"put away before the catalog is read": {
			overlap{at: "list-products", nth: 1}, "put-products", 3,
		},
		"put away before the reserve": {overlap{at: "reserve", nth: 1}, "reserve", 1},
		"another unit is held before the release": {
			overlap{at: "release", nth: 1, stop: "release", resume: "list-stock"}, "list-stock", 5,
		},
		"put up again after the end": {
			overlap{at: "list-products", nth: 2, stop: "extend", resume: "list-products"},
			"list-products", 2,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newCloud(t, config.Config{})
			if first, second := c.run(t, s); first != nil || second != nil {
				t.Errorf("the first run: %v; the second: %v", first, second)
			}
			if n := s.calls(t, c.disturbed); n <= c.usual {
				t.Errorf("the first run made %d calls of %s, want more than %d: the second one didn't "+
					"disturb it, and the test proves nothing", n, c.disturbed, c.usual)
			}
			shop := s.wantPutAway(t, 1)
			const released = "SELECT count(*) FROM reservations WHERE status = 'RELEASED'"
			if n := pgtest.QueryOne[int](shop, released); n != 2 {
				t.Errorf("%d holds were released, want one of each run", n)
			}
		})
	}
}

// A run that dies has put the product up again. The one beside it puts it away.
func TestARunPutsAwayWhatADeadOneLeft(t *testing.T) {
	t.Parallel()

	s := newCloud(t, config.Config{})
	o := overlap{at: "list-products", nth: 2, stop: "extend", resume: "list-products", dies: true}
	if first, second := o.run(t, s); first != nil || second == nil {
		t.Errorf("the run that lives: %v; the one that dies: %v", first, second)
	}
	f := pgtest.NewFixture(t, s.db)
	if n := pgtest.QueryOne[int](f, "SELECT count(*) FROM products WHERE status = 'ACTIVE'"); n != 0 {
		t.Error("the product is still for sale")
	}
}

func TestManyRunsAtOnceSucceed(t *testing.T) {
	t.Parallel()

	const runs = 4
	s := newCloud(t, config.Config{})
	var all sync.WaitGroup
	for range runs {
		f := s.twin(t).function(config.Smoke{})
		all.Go(func() {
			if _, err := f.Invoke(t.Context(), nil); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	shop := s.wantPutAway(t, 1)
	const released = "SELECT count(*) FROM reservations WHERE status = 'RELEASED'"
	if n := pgtest.QueryOne[int](shop, released); n != runs {
		t.Errorf("%d holds were released, want %d", n, runs)
	}
}

// The controls: what a run takes for another run's doing fails the deploy when no other run undoes
// it.
func TestWhatNoOtherRunUndoesFailsTheDeploy(t *testing.T) {
	t.Parallel()

	for name, c := range map[string]struct {
		function, want string
		// spoil returns what the function's caller gets in the place of the answer.
		spoil func(f *pgtest.Fixture, answer string) string
	}{
		"a reserve of what is for sale is refused": {
			"reserve", "NOT_FOR_SALE",
			func(*pgtest.Fixture, string) string {
				return `{"statusCode":409,"body":"{\"code\":\"NOT_FOR_SALE\"}"}`
			},
		},
		"a release leaves its unit counted": {
			"release", "isn't back in the stock",
			func(f *pgtest.Fixture, answer string) string {
				f.Exec("UPDATE inventory SET reserved = reserved + 1")
				return answer
			},
		},
		"a product that is put away stays for sale": {
			"put-products", "still shows the product",
			func(f *pgtest.Fixture, answer string) string {
				f.Exec("UPDATE products SET status = 'ACTIVE'")
				return answer
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newCloud(t, config.Config{})
			shop := pgtest.NewFixture(t, s.db)
			s.functions.HTTP[c.function] = spoil{
				s.functions.HTTP[c.function],
				func(answer string) string { return c.spoil(shop, answer) },
			}
			f := s.function(config.Smoke{})
			f.follow, f.leave = time.Second, time.Second
			if _, err := invoke(t, f, ""); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("the deploy's error is %v, want %q in it", err, c.want)
			}
		})
	}
}

// A run that dies leaves its unit held for longer than the stock may be behind. The run beside it
// waits for the end of that hold.
func TestAHoldThatADeadRunLeftFailsNoDeploy(t *testing.T) {
	t.Parallel()

	const follow = 200 * time.Millisecond
	for name, c := range map[string]struct {
		ends, leave time.Duration
		want        string
	}{
		"the hold ends":                        {2 * follow, time.Minute, ""},
		"the control: it outlasts the waiting": {time.Hour, follow, "isn't back in the stock"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newCloud(t, config.Config{})
			s.replace(leaveUnit(pgtest.NewFixture(t, s.db), c.ends))
			f := s.function(config.Smoke{})
			f.follow, f.leave = follow, c.leave
			_, err := invoke(t, f, "")
			if (err != nil) != (c.want != "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("the deploy's error is %v, want %q", err, c.want)
			}
		})
	}
}

// leaveUnit lets another run hold a unit when a run releases its own. That hold ends a time after
// the run has looked for its unit first.
func leaveUnit(
	f *pgtest.Fixture, after time.Duration,
) func(http.ResponseWriter, string, events.APIGatewayV2HTTPRequest) bool {
	var mu sync.Mutex
	var looked time.Time
	isHeld, isOver := false, false
	return func(_ http.ResponseWriter, function string, _ events.APIGatewayV2HTTPRequest) bool {
		mu.Lock()
		defer mu.Unlock()
		switch {
		case function == "release" && !isHeld:
			f.Exec("UPDATE inventory SET reserved = reserved + 1")
			isHeld = true
		case function == "list-stock" && isHeld && looked.IsZero():
			looked = time.Now()
		case function == "list-stock" && isHeld && !isOver && time.Since(looked) > after:
			f.Exec("UPDATE inventory SET reserved = reserved - 1")
			isOver = true
		}
		return false
	}
}

// A function that is broken in the last call fails the deploy. Only a product that stays for sale
// is put away once more.
func TestABrokenLastCallFailsTheDeploy(t *testing.T) {
	t.Parallel()

	s := newCloud(t, config.Config{})
	var mu sync.Mutex
	calls := 0
	s.replace(func(
		w http.ResponseWriter, function string, _ events.APIGatewayV2HTTPRequest,
	) bool {
		mu.Lock()
		defer mu.Unlock()
		if function == "list-products" {
			calls++
		}
		return function == "list-products" && calls == 2 && fail(w, http.StatusInternalServerError, "")
	})
	_, err := invoke(t, s.function(config.Smoke{}), "")
	if err == nil || !strings.Contains(err.Error(), "answered 500") || calls != 2 {
		t.Errorf("the deploy's error is %v after %d calls of the catalog", err, calls)
	}
}

// The control of two runs: the units that they don't give back aren't taken for each other's.
func TestTwoRunsFindAReleaseThatGivesNothingBack(t *testing.T) {
	t.Parallel()

	s := newCloud(t, config.Config{})
	f := pgtest.NewFixture(t, s.db)
	s.functions.HTTP["release"] = spoil{s.functions.HTTP["release"], func(answer string) string {
		f.Exec("UPDATE inventory SET reserved = reserved + 1")
		return answer
	}}
	o := overlap{at: "release", nth: 1, stop: "release", resume: "list-stock"}
	first, second := o.run(t, s)
	for which, err := range map[string]error{"first": first, "second": second} {
		if err == nil || !strings.Contains(err.Error(), "isn't back in the stock") {
			t.Errorf("the %s run: %v, want that its unit isn't back", which, err)
		}
	}
}
