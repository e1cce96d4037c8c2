package main

import (
	"cmp"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/allo/reservations/internal/route"
)

func files(t *testing.T) (prices, measured) {
	t.Helper()
	list, m, err := embedded()
	if err != nil {
		t.Fatal(err)
	}
	return list, m
}

func TestThePageIsCurrent(t *testing.T) {
	t.Parallel()

	list, m := files(t)
	got, err := os.ReadFile("../../../infra/COST.md")
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != page(list, m) {
		t.Error("infra/COST.md isn't what the prices and the measures say: type make cost")
	}
	dearer := list
	dearer.Prices = slices.Clone(list.Prices)
	dearer.Prices[0].USD *= 2
	if page(dearer, m) == string(got) {
		t.Error("the page doesn't depend on the first price")
	}
}

func TestEachPriceNamesItsSource(t *testing.T) {
	t.Parallel()

	list, m := files(t)
	seen := map[string]bool{}
	for _, p := range list.Prices {
		if seen[p.ID] || p.USD <= 0 || thousands(p.Per) == "" ||
			!strings.HasPrefix(p.Source, "https://") {
			t.Errorf("the price %+v is listed twice or lacks something", p)
		}
		if p.Verified && p.Of == "" {
			t.Errorf("the price %s was read, but not of when", p.ID)
		}
		seen[p.ID] = true
	}
	for _, p := range list.Prices {
		without := prices{Prices: slices.DeleteFunc(slices.Clone(list.Prices),
			func(other price) bool { return other.ID == p.ID })}
		if !panics(func() { page(without, m) }) {
			t.Errorf("nothing asks for the price %s", p.ID)
		}
	}
}

func TestAPriceFromCodeHasAMarkOfItsOwn(t *testing.T) {
	t.Parallel()

	list, m := files(t)
	marks := map[string]string{}
	for line := range strings.Lines(page(list, m)) {
		if cells := strings.Split(line, "|"); len(cells) == 6 {
			address, _, _ := strings.Cut(strings.Trim(cells[4], " <"), ">")
			marks[address] = strings.TrimSpace(cells[3])
		}
	}
	counts := map[string]int{}
	for _, p := range list.Prices {
		want := map[bool]string{true: "✓"}[p.Verified]
		if p.Verified && strings.Contains(p.Source, "//github.com/") {
			want = "(✓)"
		}
		if marks[p.Source] != want {
			t.Errorf("the price %s has the mark %q, want %q", p.ID, marks[p.Source], want)
		}
		counts[want]++
	}
	if len(counts) != 3 {
		t.Errorf("the list has %v of each mark, want three marks", counts)
	}
}

// The pages beside COST.md name some of its sums.
func TestTheOtherPagesHaveTheSumsOfThisOne(t *testing.T) {
	t.Parallel()

	list, m := files(t)
	least := m.Prod
	least.MinACU = leastACU
	prod, cell := total(floor(list, m, m.Prod)), total(floor(list, m, least))
	for name, wants := range map[string][]string{
		"README.md": {
			fmt.Sprintf("prod about $%.0f,", prod), fmt.Sprintf("prod costs $%.0f.", cell),
			fmt.Sprintf("cost $%.0f more", total(perMillion(list, m, m.Prod, rates[1]))),
		},
		"SCALE.md": {fmt.Sprintf("is $%.0f a month", cell), fmt.Sprintf("default, $%.0f.", prod)},
	} {
		text, err := os.ReadFile("../../../infra/" + name)
		if err != nil {
			t.Fatal(err)
		}
		words := strings.Join(strings.Fields(string(text)), " ")
		for _, want := range wants {
			if !strings.Contains(words, want) {
				t.Errorf("%s doesn't say %q", name, want)
			}
		}
	}
}

func panics(f func()) (did bool) {
	defer func() { did = recover() != nil }()
	f()
	return false
}

func TestTheJourneyIsOfTheRouteTable(t *testing.T) {
	t.Parallel()

	_, m := files(t)
	functions := map[string]string{}
	for _, r := range route.API() {
		functions[r.Key()] = r.Function
	}
	for _, s := range journey {
		if functions[s.Route] != s.Function {
			t.Errorf("%s goes to %q, not to %q", s.Route, functions[s.Route], s.Function)
		}
		c := m.Calls[s.Route]
		if c.Ms <= 0 || c.LogBytes <= 0 || c.AnswerBytes <= 0 || c.SentBytes <= 0 {
			t.Errorf("%s was measured as %+v", s.Route, c)
		}
		// The catalog is long enough to be compressed, and nothing else is.
		if packed := c.SentBytes < c.AnswerBytes; packed != (s.Function == "list-products") {
			t.Errorf("of %s, %v of %v bytes are sent", s.Route, c.SentBytes, c.AnswerBytes)
		}
	}
}

// example is easy to compute by hand: each call sends 500 bytes, with the headers 1,000.
func example() measured {
	m := measured{Calls: map[string]call{}, AccessLogBytes: 400, PlatformBytes: 300}
	for _, s := range journey {
		m.Calls[s.Route] = call{Ms: 1, LogBytes: 200, AnswerBytes: 900, SentBytes: 500}
	}
	return m
}

func TestAMillionIsComputedAsByHand(t *testing.T) {
	t.Parallel()

	list, _ := files(t)
	bill := perMillion(list, example(), template{Tracing: true, PlatformLogs: true}, 1)
	for name, want := range map[string]float64{
		"the gateway's calls":            11,                               // 11 million calls
		"data to the internet":           0.99,                             // 11 GB
		"Lambda: invocations":            2.2,                              //
		"Lambda: time":                   11e6 * 0.009 * 0.25 * 1.33334e-5, // 1 ms / 0.145 + 2 ms: 9 ms
		"logs: the gateway's access log": 2.2,                              // 4.4 GB
		"logs: the functions' own lines": 1.1,                              //
		"logs: Lambda's own lines":       1.65,                             //
		"Aurora: writes":                 1.2,                              // 3 verbs, twice each
		// Five and three calls a second of two functions are recorded in part.
		"X-Ray": 5 * (3 + 5*(1+0.05*4)/5 + 3*(1+0.05*2)/3),
	} {
		i := slices.IndexFunc(bill, func(l line) bool { return l.Name == name })
		if i < 0 || math.Abs(bill[i].USD-want) > 1e-9 {
			t.Errorf("%s: the bill is %+v, want %v", name, bill, want)
		}
	}
	// CloudFront takes 11 million calls and 11 GB. It saves 11 GB from the gateway, and of five
	// million calls the gateway, the invocation, the time and 3 GB of logs.
	cdn := 11 + 11*0.085 - (0.99 + 5 + 1 + 5e6*0.009*0.25*1.33334e-5 + 1.5)
	if got := behindCDN(list, example()); math.Abs(got-cdn) > 1e-9 {
		t.Errorf("behind the CDN a million costs %v more, want %v", got, cdn)
	}
	quiet := perMillion(list, example(), template{}, 1)
	for _, l := range quiet {
		if strings.Contains(l.Name, "X-Ray") || strings.Contains(l.Name, "Lambda's own") {
			t.Errorf("a stack without tracing and Lambda's lines pays for %s", l.Name)
		}
	}
}

// The page says what can be done about the three largest terms.
func TestTheLargestTermsAreThoseOfWhichThePageSpeaks(t *testing.T) {
	t.Parallel()

	list, m := files(t)
	bill := perMillion(list, m, m.Prod, rates[1])
	slices.SortFunc(bill, func(a, b line) int { return cmp.Compare(b.USD, a.USD) })
	want := []string{
		"the gateway's calls", "Lambda: invocations", "logs: the gateway's access log",
	}
	for i, name := range want {
		if bill[i].Name != name {
			t.Errorf("the term %d is %s, want %s: say in page.go what cuts it", i+1, bill[i].Name, name)
		}
	}
	if more := behindCDN(list, m); more <= 0 {
		t.Errorf("behind the CDN a million costs %v more: page.go says that this saves no dollar", more)
	}
}

func TestCapacityGrowsWithTheRate(t *testing.T) {
	t.Parallel()

	us := 0.0
	for _, s := range journey {
		us += s.Per * s.DatabaseUs
	}
	if got := acusAt(1); got != leastACU {
		t.Errorf("one reservation a second needs %v units", got)
	}
	want := 1000 * us / 1e6 / vCPUs / busy
	if got := acusAt(1000); got < want || got > want+0.5 {
		t.Errorf("a thousand reservations a second need %v units, want %v or a little more", got, want)
	}
}

// The relay asks for the bus as often as for the topic, so the floor's line of the outbox is the
// bus's too.
func TestTheBusIsAskedForAsOftenAsTheTopic(t *testing.T) {
	t.Parallel()

	list, m := files(t)
	for _, l := range floor(list, m, m.Prod) {
		if strings.HasPrefix(l.Name, "the outbox") {
			if got := busMonth(list, m) - 0.30; math.Abs(got-l.USD) > 1e-9 {
				t.Errorf("the bus costs %v beside its alarms, want %v", got, l.USD)
			}
			return
		}
	}
	t.Error("the floor has no line of the outbox")
}

// In a busy shop the relay asks twice as often as in a quiet one.
func TestABusyShopsOutboxIsAskedTwiceAsOften(t *testing.T) {
	t.Parallel()

	list, m := files(t)
	for _, l := range floor(list, m, m.Prod) {
		if strings.HasPrefix(l.Name, "the outbox") {
			if got := busyMonth(list, m); math.Abs(got-l.USD) > 1e-9 || got == 0 {
				t.Errorf("a busy month costs %v more, want as much as the quiet one: %v", got, l.USD)
			}
			return
		}
	}
	t.Error("the floor has no line of the outbox")
}

// The floor has the least capacity of the template's own cluster, of each instance.
func TestTheFloorPaysForTheLeastCapacity(t *testing.T) {
	t.Parallel()

	list, m := files(t)
	for _, stack := range []template{m.Dev, m.Prod} {
		// A unit costs 0.12 an hour, and a month has 730 hours.
		want := stack.MinACU * float64(stack.Instances) * 0.12 * 730
		if got := floor(list, m, stack)[0].USD; math.Abs(got-want) > 1e-9 || want == 0 {
			t.Errorf("the floor of %+v has %v for Aurora, want %v", stack, got, want)
		}
	}
	// What is above the least is charged for the reader too, which scales with the writer.
	one, two := template{MinACU: 2, Instances: 1}, template{MinACU: 2, Instances: 2}
	want := (acusAt(1000) - 2) * 0.12 * million / 1000 / 3600
	if got := aurora(list, one, 1000); math.Abs(got-want) > 1e-9 || want <= 0 {
		t.Errorf("one instance costs %v above its least, want %v", got, want)
	}
	if got := aurora(list, two, 1000); math.Abs(got-2*want) > 1e-9 {
		t.Errorf("two instances cost %v above their least, want %v", got, 2*want)
	}
}

func TestATemplateIsCounted(t *testing.T) {
	t.Parallel()

	const text = `{"Resources": {
		"One": {"Type": "AWS::CloudWatch::Alarm", "Properties": {"MetricName": "Errors"}},
		"Sum": {"Type": "AWS::CloudWatch::Alarm", "Properties": {"Metrics": [
			{"Expression": "a + b"}, {"MetricStat": {"Stat": "Sum"}}, {"MetricStat": {"Stat": "Sum"}}]}},
		"Both": {"Type": "AWS::CloudWatch::CompositeAlarm"},
		"EventsrelayFunction": {"Type": "AWS::Lambda::Function", "Properties": {
			"FunctionName": "allo-dev-relay", "LoggingConfig": {"SystemLogLevel": "WARN"},
			"Environment": {"Variables": {"RELAY_SECONDS": "59"}}}},
		"Provider": {"Type": "AWS::Lambda::Function", "Properties": {}},
		"Cluster": {"Type": "AWS::RDS::DBCluster", "Properties": {
			"ServerlessV2ScalingConfiguration": {"MinCapacity": 1.5, "MaxCapacity": 16}}},
		"Writer": {"Type": "AWS::RDS::DBInstance"}, "Proxy": {"Type": "AWS::RDS::DBProxy"},
		"Stage": {"Type": "AWS::ApiGatewayV2::Stage", "Properties": {"AccessLogSettings": {
			"Format": "{\"status\":\"$context.status\"}"}}}
	}}`
	want := template{
		AlarmMetrics: 3, CompositeAlarms: 1, Functions: 1, Instances: 1, MinACU: 1.5, Proxies: 1,
		EventsOn: true,
	}
	for name, test := range map[string]struct {
		old, replacement string
		change           func(*template)
	}{
		"as it is": {"", "", func(*template) {}},
		"traced": {
			`"LoggingConfig"`, `"TracingConfig": {"Mode": "Active"}, "LoggingConfig"`, traced,
		},
		"Lambda's lines":  {`"WARN"`, `"INFO"`, func(t *template) { t.PlatformLogs = true }},
		"by the minute":   {`"59"`, `"0"`, func(t *template) { t.EventsOn = false }},
		"larger":          {"1.5", "8", func(t *template) { t.MinACU = 8 }},
		"without a proxy": {"DBProxy", "DBSubnetGroup", func(t *template) { t.Proxies = 0 }},
	} {
		path := filepath.Join(t.TempDir(), "template.json")
		if err := write(path, strings.Replace(text, test.old, test.replacement, 1)); err != nil {
			t.Fatal(err)
		}
		expected := want
		test.change(&expected)
		got, bytes, err := readTemplate(path)
		if err != nil || got != expected || bytes != float64(len(`{"status":"200"}`)) {
			t.Errorf("%s: readTemplate = %+v, %v, %v, want %+v", name, got, bytes, err, expected)
		}
	}
	path := filepath.Join(t.TempDir(), "template.json")
	if err := write(path, `{"Resources": {}}`); err != nil {
		t.Fatal(err)
	}
	if _, _, err := readTemplate(path); err == nil {
		t.Error("readTemplate accepts a template of nothing")
	}
}

func traced(t *template) { t.Tracing = true }
