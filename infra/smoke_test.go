package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/allo/reservations/internal/route"
)

// wantSmokeVariables returns the variables of the function smoke. A value of nil is a reference.
func wantSmokeVariables(mode, name string) map[string]any {
	if name != "smoke" {
		return nil
	}
	want := map[string]any{}
	if modes[mode]["smoke"] != "off" {
		want["SMOKE_FUNCTIONS"], want["STACK_ID"] = nil, nil
	}
	if modes[mode]["synthetic"] == "on" {
		want["PUBLIC_URL"] = nil
	}
	if sku := modes[mode]["syntheticSku"]; sku != "" {
		want["SYNTHETIC_SKU"] = sku
	}
	if modes[mode]["reserveAuth"] == "on" {
		want["SMOKE_RESERVE_AUTH"] = "on"
	}
	auth := modes[mode]["auth"]
	if auth == "cognito" {
		auth = "jwt"
	}
	if auth != "" {
		want["SMOKE_AUTH"] = auth
	}
	return want
}

// trigger returns the trigger whose logical id begins so.
func (tpl template) trigger(t *testing.T, prefix string) resource {
	t.Helper()
	var found []resource
	for _, r := range tpl.resources("Custom::Trigger") {
		if strings.HasPrefix(r.id, prefix) {
			found = append(found, r)
		}
	}
	if len(found) != 1 {
		t.Fatalf("%d triggers begin with %s, want one", len(found), prefix)
	}
	return found[0]
}

func TestTheSmokeTestRunsAfterTheVersionsAndBeforeAnyAlias(t *testing.T) {
	eachMode(t, func(t *testing.T, mode string, tpl template) {
		if modes[mode]["smoke"] == "off" {
			for _, r := range tpl.resources("Custom::Trigger") {
				if strings.HasPrefix(r.id, "Smoke") {
					t.Errorf("smoke=off has the trigger %s", r.id)
				}
			}
			return
		}
		for _, problem := range tpl.smokeProblems(t, mode) {
			t.Error(problem)
		}
	})
}

// These are the controls of the test above.
func TestASmokeTestThatGuardsNothingIsFound(t *testing.T) {
	const mode = "aurora-prod"
	tpl := synth(t, mode)
	smoke := tpl.functions(mode)["smoke"]
	version := tpl.versionOf(tpl.functions(mode)["reserve"].id)
	for name, change := range map[string][2]string{
		"not the new version": {
			`["reserve",{"Ref":"` + version + `"`, `["reserve",{"Ref":"` + smoke.id + `"`,
		},
		"any function": {`-reserve:*"`, `-*"`},
		"asynchronous": {`"InvocationType":"RequestResponse"`, `"InvocationType":"Event"`},
		"any stack":    {`{"Ref":"AWS::StackId"}`, `"*"`},
	} {
		if len(changed(t, tpl, change[0], change[1]).smokeProblems(t, mode)) == 0 {
			t.Errorf("%s: nothing is found", name)
		}
	}
	for _, early := range []string{"reserve", "relay"} {
		var other template
		if err := json.Unmarshal([]byte(asJSON(tpl.body)), &other.body); err != nil {
			t.Fatal(err)
		}
		for id, r := range asMap(other.body["Resources"]) {
			if strings.HasPrefix(id, "Functions"+early+"Alias") ||
				strings.HasPrefix(id, "Events"+early+"Alias") {
				delete(asMap(r), "DependsOn")
			}
		}
		if found := other.smokeProblems(t, mode); len(found) != 1 {
			t.Errorf("the alias of %s moves before the smoke test, and %v is found", early, found)
		}
	}
}

// asMap returns a JSON object.
func asMap(value any) map[string]any {
	object, _ := value.(map[string]any)
	return object
}

// versionOf returns the logical id of a function's version.
func (tpl template) versionOf(function string) string {
	for _, v := range tpl.resources("AWS::Lambda::Version") {
		if v.get("FunctionName", "Ref") == function {
			return v.id
		}
	}
	return "none"
}

// smokeProblems says what is wrong with the check of a deploy.
func (tpl template) smokeProblems(t *testing.T, mode string) (found []string) {
	t.Helper()
	wrong := func(format string, args ...any) { found = append(found, fmt.Sprintf(format, args...)) }
	functions := tpl.functions(mode)
	smoke := functions["smoke"]
	var trigger resource
	for _, r := range tpl.resources("Custom::Trigger") {
		if strings.Contains(asJSON(r.get("HandlerArn")), `"`+tpl.versionOf(smoke.id)+`"`) {
			trigger = r
		}
	}
	if trigger.id == "" || trigger.get("InvocationType") != "RequestResponse" {
		wrong("the trigger of smoke's version is %s", asJSON(trigger.properties))
	}
	for _, a := range tpl.resources("AWS::Lambda::Alias") {
		if a.get("FunctionName", "Ref") != functions["migrate"].id && !a.dependsOn(`"`+trigger.id+`"`) {
			wrong("the alias %s doesn't wait for the smoke test", a.id)
		}
	}
	variables := asJSON(smoke.get("Environment", "Variables", "SMOKE_FUNCTIONS"))
	statements := tpl.roleStatements(roleOf(smoke, "Role"))
	invoked := strings.Join(allowedResources(statements, "lambda:InvokeFunction"), "")
	for _, name := range smoked {
		if !strings.Contains(variables, `["`+name+`",{"Ref":"`+tpl.versionOf(functions[name].id)+`"}]`) {
			wrong("smoke doesn't know the new version of %s: %s", name, variables)
		}
		if !strings.Contains(invoked, ":function:"+stackName(mode)+"-"+name+`:*"`) {
			wrong("smoke may invoke %s, and no version of %s", invoked, name)
		}
	}
	if n := strings.Count(invoked, ":function:"); n != len(smoked) {
		wrong("smoke may invoke %d functions, want %d", n, len(smoked))
	}
	provider := ""
	for _, r := range tpl.resources("AWS::IAM::Role") {
		if strings.HasPrefix(r.id, "AWSCDKTrigger") {
			provider += asJSON(r.properties)
		}
	}
	for _, name := range []string{"migrate", "smoke"} {
		if !strings.Contains(provider, ":function:"+stackName(mode)+"-"+name+`:*"`) {
			wrong("the triggers' function may not invoke %s: %s", name, provider)
		}
	}
	described := allowedResources(statements, "cloudformation:DescribeStacks")
	if !slices.Equal(described, []string{`{"Ref":"AWS::StackId"}`}) {
		wrong("smoke may describe the stacks %s, want its own", described)
	}
	return found
}

// The functions of a sale on which a shopper's money depends must be among those that are checked.
func TestTheSmokeTestCallsFunctionsOfTheRouteTable(t *testing.T) {
	t.Parallel()

	var all []string
	for _, r := range route.All() {
		all = append(all, r.Function)
	}
	for _, name := range smoked {
		if !slices.Contains(all, name) {
			t.Errorf("no route has the function %s", name)
		}
	}
	for _, name := range []string{"reserve", "confirm", "release", "start-payment", "list-products"} {
		if !slices.Contains(smoked, name) {
			t.Errorf("%s isn't checked", name)
		}
	}
}

// CloudFormation refuses a template whose resources need each other in a circle. The smoke test
// stands between the versions and the aliases, to which other resources lead.
func TestNoResourceNeedsItself(t *testing.T) {
	eachMode(t, func(t *testing.T, _ string, tpl template) {
		if circle := tpl.circle(); circle != nil {
			t.Errorf("these resources need each other: %v", circle)
		}
	})
	tpl := synth(t, "aurora-dev")
	trigger := tpl.trigger(t, "Smoke").id
	closed := changed(t, tpl, `"Type":"AWS::SNS::Topic"`,
		`"Type":"AWS::SNS::Topic","DependsOn":["`+trigger+`"]`)
	closed = changed(t, closed, `"Type":"Custom::Trigger"`,
		`"Type":"Custom::Trigger","Needs":{"Ref":"`+closed.resources("AWS::SNS::Topic")[0].id+`"}`)
	if closed.circle() == nil {
		t.Error("a circle isn't found")
	}
}

// circle returns resources that need each other in a circle, or nil.
func (tpl template) circle() (circle []string) {
	all, _ := tpl.body["Resources"].(map[string]any)
	state := map[string]int{} // 1 while it is visited, 2 when it is done
	var visit func(id string, path []string) []string
	visit = func(id string, path []string) []string {
		switch {
		case all[id] == nil || state[id] == 2:
			return nil
		case state[id] == 1:
			return append(path, id)
		}
		state[id] = 1
		for _, need := range needs(all[id]) {
			if found := visit(need, append(path, id)); found != nil {
				return found
			}
		}
		state[id] = 2
		return nil
	}
	for id := range all {
		if found := visit(id, nil); found != nil {
			return found
		}
	}
	return nil
}

// needs returns the ids to which a value refers, at any depth.
func needs(value any) (ids []string) {
	switch v := value.(type) {
	case map[string]any:
		for key, inner := range v {
			switch key {
			case "Ref":
				ids = append(ids, fmt.Sprint(inner))
			case "Fn::GetAtt":
				ids = append(ids, fmt.Sprint(asList(inner)[0]))
			case "DependsOn":
				for _, id := range asList(inner) {
					ids = append(ids, fmt.Sprint(id))
				}
			default:
				ids = append(ids, needs(inner)...)
			}
		}
	case []any:
		for _, inner := range v {
			ids = append(ids, needs(inner)...)
		}
	}
	return ids
}

func TestThePublicAddressIsCheckedEachFiveMinutes(t *testing.T) {
	eachMode(t, func(t *testing.T, mode string, tpl template) {
		var rules []resource
		for _, r := range tpl.resources("AWS::Events::Rule") {
			if r.get("Name") == stackName(mode)+"-synthetic" {
				rules = append(rules, r)
			}
		}
		if on := modes[mode]["synthetic"] == "on"; len(rules) != map[bool]int{true: 1}[on] {
			t.Fatalf("there are %d rules, and synthetic is %v", len(rules), on)
		}
		for _, rule := range rules {
			target := asList(rule.get("Targets"))[0]
			if rule.get("ScheduleExpression") != "rate(5 minutes)" || rule.get("State") != "ENABLED" ||
				!strings.Contains(asJSON(dig(target, "Arn")), "SmokesmokeAlias") ||
				dig(target, "Input") != `{"check":"public"}` {
				t.Errorf("the rule is %s", asJSON(rule.properties))
			}
		}
	})
	for mode, want := range map[string]string{
		"aurora-prod": "ApiEndpoint", "aurora-console": "DomainName",
	} {
		smoke := synth(t, mode).functions(mode)["smoke"]
		url := asJSON(smoke.get("Environment", "Variables", "PUBLIC_URL"))
		if !strings.Contains(url, want) {
			t.Errorf("%s: the address is %s, want the %s", mode, url, want)
		}
	}
}

// The alarm rings when two of three checks failed, or when none came while the sweeper ran. A first
// deploy, in which neither ran yet, is silent.
func TestTheAlarmOfThePublicAddressWatchesItsAbsenceToo(t *testing.T) {
	const mode = "aurora-prod"
	a := synth(t, mode).alarms(mode)["PublicCheck"]
	metrics := asJSON(a.get("Metrics"))
	for _, part := range []string{
		`IF(FILL(failed, 0) \u003e 1 OR (FILL(alive, 0) \u003e= 12 AND FILL(checks, 0) \u003c 1), 1, 0)`,
		`"Stat":"SampleCount"`, `"MetricName":"Invocations"`, `SweepersweepFunction`,
	} {
		if !strings.Contains(metrics, part) {
			t.Errorf("the alarm lacks %s: %s", part, metrics)
		}
	}
	if a.get("TreatMissingData") != "notBreaching" {
		t.Errorf("missing data is %v", a.get("TreatMissingData"))
	}
}
