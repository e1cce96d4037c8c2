package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
)

// wantThrottles has the rate and the burst of the routes with a throttle of their own.
func wantThrottles(mode string) map[string][2]float64 {
	rate, burst := 100.0, 200.0
	if isProd(mode) {
		rate, burst = 1000.0, 2000.0
	}
	if modes[mode]["throttleRate"] == "50" {
		rate = 50
	}
	reserve := [2]float64{rate, burst}
	if modes[mode]["reserveRate"] == "300" {
		reserve = [2]float64{300, 600}
	}
	const hold = "POST /api/reservations"
	return map[string][2]float64{
		hold: reserve, hold + "/{id}/confirm": {rate, burst},
		hold + "/{id}/payment": {rate, burst}, hold + "/{id}/payment/failed": {rate, burst},
	}
}

// throttleProblems says what is wrong with the throttles of the routes.
func (tpl template) throttleProblems(t *testing.T, mode string) (problems []string) {
	t.Helper()
	stage := tpl.only(t, "AWS::ApiGatewayV2::Stage")
	settings, _ := stage.get("RouteSettings").(map[string]any)
	got := map[string][2]float64{}
	for key, of := range settings {
		rate, _ := dig(of, "ThrottlingRateLimit").(float64)
		burst, _ := dig(of, "ThrottlingBurstLimit").(float64)
		got[key] = [2]float64{rate, burst}
		waits := slices.ContainsFunc(tpl.resources("AWS::ApiGatewayV2::Route"), func(r resource) bool {
			return r.get("RouteKey") == key && stage.dependsOn(`"`+r.id+`"`)
		})
		if !waits {
			problems = append(problems, "the stage doesn't wait for the route "+key)
		}
		if dig(of, "DetailedMetricsEnabled") != false {
			problems = append(problems, "the metrics of "+key+" are charged")
		}
	}
	if diff := gocmp.Diff(wantThrottles(mode), got); diff != "" {
		problems = append(problems, "throttles (-want +got):\n"+diff)
	}
	return problems
}

func TestAFloodOfReservesCantTakeTheRateOfPayments(t *testing.T) {
	eachMode(t, func(t *testing.T, mode string, tpl template) {
		for _, problem := range tpl.throttleProblems(t, mode) {
			t.Error(problem)
		}
	})
}

// These are the controls of the test above.
func TestAWrongThrottleIsFound(t *testing.T) {
	const mode = "aurora-direct"
	tpl := synth(t, mode)
	confirm := tpl.named(t, "AWS::ApiGatewayV2::Route", "RouteKey",
		"POST /api/reservations/{id}/confirm").id
	for name, change := range map[string][2]string{
		"another rate":           {`"ThrottlingRateLimit":300`, `"ThrottlingRateLimit":1000`},
		"another burst":          {`"ThrottlingBurstLimit":600`, `"ThrottlingBurstLimit":2000`},
		"no route of its own":    {`"POST /api/reservations":{`, `"GET /api/reservations":{`},
		"a route that isn't yet": {`"` + confirm + `",`, `"ApiHttp",`},
		"charged metrics":        {`"DetailedMetricsEnabled":false`, `"DetailedMetricsEnabled":true`},
	} {
		if len(changed(t, tpl, change[0], change[1]).throttleProblems(t, mode)) == 0 {
			t.Errorf("the test accepts %s", name)
		}
	}
}

// waits returns what each resource waits for, by its id: what it refers to, anywhere in it, and its
// DependsOn. CloudFormation refuses a template in which a resource waits for itself.
func (tpl template) waits() map[string][]string {
	reference := regexp.MustCompile(`"(?:Ref":|Fn::GetAtt":\[)"([A-Za-z0-9]+)"`)
	inText := regexp.MustCompile(`\$\{([A-Za-z0-9]+)`)
	waits := map[string][]string{}
	for _, r := range tpl.resources("") {
		text := asJSON(r.attributes)
		for _, pattern := range []*regexp.Regexp{reference, inText} {
			for _, found := range pattern.FindAllStringSubmatch(text, -1) {
				waits[r.id] = append(waits[r.id], found[1])
			}
		}
		for _, id := range asList(r.attributes["DependsOn"]) {
			waits[r.id] = append(waits[r.id], fmt.Sprint(id))
		}
	}
	return waits
}

// circle returns resources each of which waits for the next, and the last for the first; none
// without such a circle.
func circle(waits map[string][]string) []string {
	const open, done = 1, 2
	state := map[string]int{}
	var path []string
	var visit func(id string) bool
	visit = func(id string) bool {
		if state[id] == done {
			return false
		}
		path = append(path, id)
		if state[id] == open {
			return true
		}
		state[id] = open
		if slices.ContainsFunc(waits[id], visit) {
			return true
		}
		state[id], path = done, path[:len(path)-1]
		return false
	}
	for _, id := range slices.Sorted(maps.Keys(waits)) {
		if visit(id) {
			return path[slices.Index(path, path[len(path)-1]):]
		}
	}
	return nil
}

func TestNoResourceWaitsForItself(t *testing.T) {
	eachMode(t, func(t *testing.T, _ string, tpl template) {
		if found := circle(tpl.waits()); found != nil {
			t.Errorf("these wait for each other: %s", strings.Join(found, ", "))
		}
	})
}

// This is the control of the test above. An alarm that refers to the stage closes a circle: the
// stage waits for a route, and the route's function for the rollout that the alarm ends.
func TestACircleIsFound(t *testing.T) {
	const mode = "aurora-prod"
	tpl := synth(t, mode)
	stage := tpl.only(t, "AWS::ApiGatewayV2::Stage").id
	closed := changed(t, tpl, `{"Name":"Stage","Value":"$default"}`,
		`{"Name":"Stage","Value":{"Ref":"`+stage+`"}}`)
	found := circle(closed.waits())
	if !slices.Contains(found, stage) || len(found) < 4 {
		t.Errorf("the circle is %v, want the stage %s in it", found, stage)
	}
}

// provisioned returns the environments of each function that wait for calls, and the schedule of
// each, by the functions' names.
func (tpl template) provisioned(mode string) (constant map[string]any, scheduled map[string]any) {
	constant, scheduled = map[string]any{}, map[string]any{}
	for name, f := range tpl.functions(mode) {
		for _, a := range tpl.resources("AWS::Lambda::Alias") {
			if a.get("FunctionName", "Ref") != f.id {
				continue
			}
			if n := a.get("ProvisionedConcurrencyConfig", "ProvisionedConcurrentExecutions"); n != nil {
				constant[name] = n
			}
			for _, target := range tpl.resources("AWS::ApplicationAutoScaling::ScalableTarget") {
				if strings.Contains(asJSON(target.get("ResourceId")), `"`+a.id+`"`) {
					scheduled[name] = target.properties
				}
			}
		}
	}
	return constant, scheduled
}

// scheduleProblems says what is wrong with a scalable target.
func scheduleProblems(target any, n float64, begin, end string) (problems []string) {
	want := map[string]any{
		"ServiceNamespace": "lambda", "ScalableDimension": "lambda:function:ProvisionedConcurrency",
		"MinCapacity": 0.0, "MaxCapacity": n,
		"ScheduledActions": []any{
			map[string]any{
				"ScheduledActionName": "BeforeTheSale", "Schedule": "at(" + begin + ")",
				"ScalableTargetAction": map[string]any{"MinCapacity": n, "MaxCapacity": n},
			},
			map[string]any{
				"ScheduledActionName": "AfterTheSale", "Schedule": "at(" + end + ")",
				"ScalableTargetAction": map[string]any{"MinCapacity": 0.0, "MaxCapacity": 0.0},
			},
		},
	}
	for property, value := range want {
		if diff := gocmp.Diff(value, dig(target, property)); diff != "" {
			problems = append(problems, property+" (-want +got):\n"+diff)
		}
	}
	if id := asJSON(dig(target, "ResourceId")); !strings.Contains(id, "function:") ||
		!strings.Contains(id, ":"+liveAlias) {
		problems = append(problems, "the target is "+id)
	}
	return problems
}

func TestEnvironmentsWaitForCallsAlwaysOrDuringTheSale(t *testing.T) {
	eachMode(t, func(t *testing.T, mode string, tpl template) {
		constant, scheduled := tpl.provisioned(mode)
		want := map[string]any{}
		if mode == "aurora-prod" {
			want = map[string]any{"reserve": 20.0, "list-products": 5.0}
		}
		if diff := gocmp.Diff(want, constant); diff != "" {
			t.Errorf("always (-want +got):\n%s", diff)
		}
		targets := len(tpl.resources("AWS::ApplicationAutoScaling::ScalableTarget"))
		if mode != "aurora-direct" {
			if targets != 0 {
				t.Errorf("%d functions have a schedule without a sale", targets)
			}
			return
		}
		if targets != 2 || len(scheduled) != 2 {
			t.Fatalf("%d functions have a schedule, want reserve and confirm", targets)
		}
		for name, n := range map[string]float64{"reserve": 50, "confirm": 5} {
			for _, problem := range scheduleProblems(
				scheduled[name], n, "2026-12-24T07:45:00", "2026-12-24T12:00:00") {
				t.Errorf("%s: %s", name, problem)
			}
		}
	})
}

// These are the controls of the test above.
func TestAWrongScheduleIsFound(t *testing.T) {
	const mode = "aurora-direct"
	for _, change := range [][2]string{
		{"at(2026-12-24T07:45:00)", "at(2026-12-24T08:00:00)"},
		{"at(2026-12-24T12:00:00)", "at(2026-12-25T12:00:00)"},
		{`"MinCapacity":50`, `"MinCapacity":5`},
		{`"MaxCapacity":0`, `"MaxCapacity":50`},
		{`:` + liveAlias + `"]]}`, `:latest"]]}`},
	} {
		_, scheduled := changed(t, synth(t, mode), change[0], change[1]).provisioned(mode)
		if len(scheduleProblems(
			scheduled["reserve"], 50, "2026-12-24T07:45:00", "2026-12-24T12:00:00")) == 0 {
			t.Errorf("the test accepts %s", change[1])
		}
	}
}

// filterProblems says what is wrong with the filters that count throttled calls: each field that
// they name must be one of the access log's, with the variable that has the value.
func (tpl template) filterProblems(t *testing.T, mode string) (problems []string) {
	t.Helper()
	stage := tpl.only(t, "AWS::ApiGatewayV2::Stage")
	log := asJSON(stage.get("AccessLogSettings", "DestinationArn"))
	var fields map[string]string
	format, _ := stage.get("AccessLogSettings", "Format").(string)
	if err := json.Unmarshal([]byte(format), &fields); err != nil {
		t.Fatal(err)
	}
	variables := map[string]string{
		"status": "$context.status", "route": "$context.routeKey",
		"lambdaStatus": "$context.integration.integrationStatus",
	}
	got := map[string]string{}
	for _, f := range tpl.resources("AWS::Logs::MetricFilter") {
		m := asList(f.get("MetricTransformations"))[0]
		pattern, _ := f.get("FilterPattern").(string)
		got[fmt.Sprint(dig(m, "MetricName"))] = pattern
		if group, _ := f.get("LogGroupName", "Ref").(string); !strings.Contains(log, `"`+group+`"`) {
			problems = append(problems, f.id+" doesn't read the access log")
		}
		dimension := asList(dig(m, "Dimensions"))
		if dig(m, "MetricNamespace") != "AlloReservations/"+stackName(mode) ||
			dig(m, "MetricValue") != "1" || len(dimension) != 1 || dig(m, "DefaultValue") != nil {
			problems = append(problems, f.id+" writes "+asJSON(m))
			continue
		}
		named := regexp.MustCompile(`\$\.(\w+)`).FindAllStringSubmatch(
			pattern+fmt.Sprint(dig(dimension[0], "Value")), -1)
		for _, field := range named {
			if fields[field[1]] == "" || fields[field[1]] != variables[field[1]] {
				problems = append(problems, fmt.Sprintf("%s reads %s, which is %q in the access log",
					f.id, field[1], fields[field[1]]))
			}
		}
	}
	want := map[string]string{
		"GatewayThrottles": `{ ($.status = "429") && ($.lambdaStatus != "429") }`,
		"LambdaThrottles":  `{ $.lambdaStatus = "429" }`,
	}
	if diff := gocmp.Diff(want, got); diff != "" {
		problems = append(problems, "patterns (-want +got):\n"+diff)
	}
	return problems
}

func TestThrottledCallsAreCountedByTheOneWhoThrottled(t *testing.T) {
	eachMode(t, func(t *testing.T, mode string, tpl template) {
		for _, problem := range tpl.filterProblems(t, mode) {
			t.Error(problem)
		}
	})
}

// These are the controls of the test above.
func TestAFilterThatCountsNothingIsFound(t *testing.T) {
	const mode = "aurora-prod"
	for name, change := range map[string][2]string{
		"a field that the log lacks": {`\"lambdaStatus\":\"$context`, `\"lambda\":\"$context`},
		"an ambiguous variable":      {"integration.integrationStatus", "integrationStatus"},
		"a dimension of no field":    {`"Value":"$.route"`, `"Value":"$.path"`},
		"another status":             {`$.status = \"429\"`, `$.status = \"404\"`},
		"a number for a text":        {`$.lambdaStatus = \"429\"`, `$.lambdaStatus = 429`},
		"another namespace": {
			`"MetricNamespace":"AlloReservations/allo-prod"`, `"MetricNamespace":"Allo"`,
		},
	} {
		if len(changed(t, synth(t, mode), change[0], change[1]).filterProblems(t, mode)) == 0 {
			t.Errorf("the test accepts %s", name)
		}
	}
}

// The alarm of the payment side watches both kinds of throttles of each of its routes.
func TestThePaymentsAlarmWatchesEveryThrottleOfThePaymentSide(t *testing.T) {
	eachMode(t, func(t *testing.T, mode string, tpl template) {
		metrics := asJSON(tpl.alarms(mode)["PaymentsThrottled"].get("Metrics"))
		for _, path := range []string{"confirm", "payment", "payment/failed"} {
			dimension := `"Dimensions":[{"Name":"Route","Value":"POST /api/reservations/{id}/` + path + `"}]`
			if n := strings.Count(metrics, dimension); n != 2 {
				t.Errorf("the alarm watches %d throttles of %s, want 2: %s", n, path, metrics)
			}
		}
	})
}

// The schedule of a sale starts its environments a quarter of an hour before, and never afterwards.
func TestASaleThatCannotBePreparedAnyMoreIsTold(t *testing.T) {
	t.Parallel()

	begin := time.Date(2026, 12, 24, 8, 0, 0, 0, time.UTC)
	sale := Settings{Capacity: Capacity{Sale: &Sale{Begin: begin, End: begin.Add(4 * time.Hour)}}}
	for name, test := range map[string]struct {
		settings Settings
		now      time.Time
		want     bool
	}{
		"no sale":               {Settings{}, begin, false},
		"in time":               {sale, begin.Add(-saleLead - time.Second), false},
		"a moment too late":     {sale, begin.Add(-saleLead), true},
		"during the sale":       {sale, begin.Add(time.Hour), true},
		"after the sale":        {sale, begin.Add(24 * time.Hour), true},
		"in time, a month away": {sale, begin.Add(-30 * 24 * time.Hour), false},
	} {
		if got := test.settings.saleIsLate(test.now); got != test.want {
			t.Errorf("%s: saleIsLate = %v", name, got)
		}
	}
}

// The synth says so, and a strict one doesn't fail on it.
func TestASynthTellsOfALateSale(t *testing.T) {
	for begin, want := range map[string]bool{"2020-01-01T08:00": true, "2999-01-01T08:00": false} {
		tpl := draftOf(t, map[string]string{
			"db": "external", "provisioned": "reserve:2", "sale": begin + "/4h",
		})
		if got := strings.Contains(string(tpl.metadata), lateSaleText); got != want {
			t.Errorf("a sale of %s: the synth tells of it: %v", begin, got)
		}
		if len(tpl.warnings) > 0 {
			t.Errorf("a sale of %s: a strict synth fails on %v", begin, tpl.warnings)
		}
	}
}
