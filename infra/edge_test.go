package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/allo/reservations/internal/lambdahttp"
	"github.com/allo/reservations/internal/route"
)

// guardedEdge are the settings of a shop that lets callers in by the CDN alone.
var guardedEdge = map[string]string{
	"env": "prod", "db": "external", "auth": "iam", "account": "123456789012",
	"region": "eu-central-1", "cdn": "on", "waf": "on", "wafRate": "200", "botControl": "on",
	"cdnOnly": "on", "cdnSecrets": "2,1", "alarmEmail": "ops@example.com",
}

// with returns the settings with some of them changed.
func with(settings map[string]string, changes ...string) map[string]string {
	changed := maps.Clone(settings)
	for i := 0; i < len(changes); i += 2 {
		changed[changes[i]] = changes[i+1]
	}
	return changed
}

// edgeOf returns the templates of the service and of its firewall.
func edgeOf(t *testing.T, settings map[string]string) (main, edge template) {
	t.Helper()
	made := synthesizeApp(t, settings)
	return made.stack(t, settings, ""), made.stack(t, settings, "-edge")
}

func TestTheFirewallStandsBeforeTheCDN(t *testing.T) {
	main, edge := edgeOf(t, guardedEdge)
	for _, problem := range firewallProblems(edge) {
		t.Error(problem)
	}
	for _, warning := range slices.Concat(main.warnings, edge.warnings) {
		t.Error(warning)
	}
	for _, problem := range handOverProblems(t, main, edge) {
		t.Error(problem)
	}
	if n := len(edge.resources("")); n > 2 {
		t.Errorf("the firewall's stack has %d resources, want the firewall and the parameter", n)
	}

	// These are the controls: the test finds a firewall that lets through what it should stop, or
	// stops what it should let through.
	for _, change := range [][2]string{
		{`/firewall/allo-prod`, `/firewall/allo-dev`},
		{"ssm:GetParameter", "ssm:PutParameter"},
		{`\"region\":\"us-east-1\"`, `\"region\":\"us-east-2\"`},
	} {
		if len(handOverProblems(t, changed(t, main, change[0], change[1]), edge)) == 0 {
			t.Errorf("the test accepts %s", change[1])
		}
	}
	for name, change := range map[string][2]string{
		"another limit":       {`"Limit":200`, `"Limit":2000`},
		"another window":      {`"EvaluationWindowSec":300`, `"EvaluationWindowSec":60`},
		"another route":       {`"SearchString":"/api/reservations"`, `"SearchString":"/api"`},
		"every method":        {`"SearchString":"POST"`, `"SearchString":"GET"`},
		"an encoded path":     {`"URL_DECODE"`, `"LOWERCASE"`},
		"counting alone":      {`{"Block":{"CustomResponse"`, `{"Count":{"CustomResponse"`},
		"another status":      {`"ResponseCode":429`, `"ResponseCode":403`},
		"one for all":         {`"AggregateKeyType":"IP"`, `"AggregateKeyType":"CONSTANT"`},
		"small bodies":        {`"Name":"SizeRestrictions_BODY"`, `"Name":"SizeRestrictions_URIPATH"`},
		"a closed door":       {`"DefaultAction":{"Allow":{}}`, `"DefaultAction":{"Block":{}}`},
		"no reputation":       {`"AWSManagedRulesAmazonIpReputationList"`, `"AWSManagedRulesUnixRuleSet"`},
		"dear bot control":    {`"InspectionLevel":"COMMON"`, `"InspectionLevel":"TARGETED"`},
		"a region's firewall": {`"Scope":"CLOUDFRONT"`, `"Scope":"REGIONAL"`},
		"no metrics":          {`"CloudWatchMetricsEnabled":true`, `"CloudWatchMetricsEnabled":false`},
	} {
		if len(firewallProblems(changed(t, edge, change[0], change[1]))) == 0 {
			t.Errorf("%s: the test accepts %s", name, change[1])
		}
	}
}

// firewallProblems says what is wrong with the firewall of guardedEdge.
func firewallProblems(edge template) (found []string) {
	firewalls := edge.resources("AWS::WAFv2::WebACL")
	if len(firewalls) != 1 {
		return []string{fmt.Sprintf("there are %d firewalls", len(firewalls))}
	}
	firewall := firewalls[0]
	field := func(name, text string, transformations ...string) any {
		var all []any
		for i, kind := range transformations {
			all = append(all, map[string]any{"Priority": float64(i), "Type": kind})
		}
		return map[string]any{"ByteMatchStatement": map[string]any{
			"FieldToMatch": map[string]any{name: map[string]any{}}, "SearchString": text,
			"PositionalConstraint": "EXACTLY", "TextTransformations": all,
		}}
	}
	reserves := map[string]any{"AndStatement": map[string]any{"Statements": []any{
		field("Method", "POST", "NONE"),
		field("UriPath", "/api/reservations", "URL_DECODE", "NORMALIZE_PATH"),
	}}}
	none := map[string]any{"None": map[string]any{}}
	group := func(name string) map[string]any {
		return map[string]any{"VendorName": "AWS", "Name": name}
	}
	common := group("AWSManagedRulesCommonRuleSet")
	var counted []any
	for _, rule := range countedRules {
		counted = append(counted, map[string]any{
			"Name": rule, "ActionToUse": map[string]any{"Count": map[string]any{}},
		})
	}
	common["RuleActionOverrides"] = counted
	bots := group("AWSManagedRulesBotControlRuleSet")
	bots["ScopeDownStatement"] = reserves
	bots["ManagedRuleGroupConfigs"] = []any{map[string]any{
		"AWSManagedRulesBotControlRuleSet": map[string]any{"InspectionLevel": "COMMON"},
	}}
	rule := func(priority int, name string, statement, action any, kind string) any {
		return map[string]any{
			"Name": name, "Priority": float64(priority), "Statement": statement, kind: action,
			"VisibilityConfig": wantVisible(name),
		}
	}
	managed := func(priority int, name string, statement any) any {
		statement = map[string]any{"ManagedRuleGroupStatement": statement}
		return rule(priority, name, statement, none, "OverrideAction")
	}
	want := map[string]any{
		"Scope": "CLOUDFRONT", "Name": "allo-prod",
		"DefaultAction":    map[string]any{"Allow": map[string]any{}},
		"VisibilityConfig": wantVisible("allo-prod"),
		"Rules": []any{
			managed(0, "reputation", group("AWSManagedRulesAmazonIpReputationList")),
			managed(1, "bad-inputs", group("AWSManagedRulesKnownBadInputsRuleSet")),
			rule(2, "reserve-rate", map[string]any{"RateBasedStatement": map[string]any{
				"AggregateKeyType": "IP", "Limit": 200.0, "EvaluationWindowSec": 300.0,
				"ScopeDownStatement": reserves,
			}}, map[string]any{"Block": map[string]any{"CustomResponse": map[string]any{
				"ResponseCode": 429.0, "CustomResponseBodyKey": rateLimited,
				"ResponseHeaders": []any{map[string]any{"Name": "Retry-After", "Value": "60"}},
			}}}, "Action"),
			managed(3, "common", common),
			managed(4, "bots", bots),
		},
	}
	for key, value := range want {
		if diff := gocmp.Diff(value, firewall.get(key)); diff != "" {
			found = append(found, fmt.Sprintf("the firewall's %s (-want +got):\n%s", key, diff))
		}
	}
	return append(found, answerProblems(firewall.get("CustomResponseBodies", rateLimited))...)
}

func wantVisible(name string) any {
	return map[string]any{
		"CloudWatchMetricsEnabled": true, "SampledRequestsEnabled": true, "MetricName": name,
	}
}

// answerProblems says what is wrong with the body of a 429: it is a problem like each error's.
func answerProblems(body any) []string {
	var document map[string]any
	text, _ := dig(body, "Content").(string)
	if err := json.Unmarshal([]byte(text), &document); err != nil ||
		dig(body, "ContentType") != "APPLICATION_JSON" {
		return []string{fmt.Sprintf("the body of a 429 is %v: %v", body, err)}
	}
	if document["code"] != rateLimited || document["status"] != 429.0 ||
		document["type"] != "urn:allo:problem:"+rateLimited || document["title"] == "" ||
		document["detail"] == "" || document["detail"] != document["error"] {
		return []string{fmt.Sprintf("the body of a 429 is %v", document)}
	}
	return nil
}

func TestTheFirewallIsForARouteOfTheTable(t *testing.T) {
	t.Parallel()

	if !slices.ContainsFunc(route.All(), func(r route.Route) bool {
		return r.Key() == http.MethodPost+" "+reservePath && r.Function == "reserve"
	}) {
		t.Errorf("no route is POST %s", reservePath)
	}
}

// handOverProblems says what is wrong with the way of the firewall's ARN to the CDN.
func handOverProblems(t *testing.T, main, edge template) (found []string) {
	t.Helper()
	parameter := edge.only(t, "AWS::SSM::Parameter")
	firewall := edge.only(t, "AWS::WAFv2::WebACL").id
	if got := asJSON(parameter.get("Value")); got != `{"Fn::GetAtt":["`+firewall+`","Arn"]}` {
		found = append(found, "the parameter's value is "+got)
	}
	var reader resource
	for _, r := range main.resources("Custom::AWS") {
		if strings.HasPrefix(r.id, "CdnFirewall") {
			reader = r
		}
	}
	config := main.only(t, "AWS::CloudFront::Distribution").get("DistributionConfig")
	want := `{"Fn::GetAtt":["` + reader.id + `","Parameter.Value"]}`
	if got := asJSON(dig(config, "WebACLId")); reader.id == "" || got != want {
		found = append(found, "the CDN's firewall is "+got+", want "+want)
	}
	name := fmt.Sprint(parameter.get("Name"))
	for _, when := range []string{"Create", "Update"} {
		call := asJSON(reader.get(when))
		for _, part := range []string{
			`\"action\":\"getParameter\"`, `\"region\":\"us-east-1\"`, `\"Name\":\"` + name + `\"`,
		} {
			if !strings.Contains(call, part) {
				found = append(found, "on "+when+" the ARN is read by "+call)
			}
		}
	}
	rights := ""
	for _, policy := range main.resources("AWS::IAM::Policy") {
		rights += asJSON(policy.properties)
	}
	if !strings.Contains(rights, `"ssm:GetParameter"`) ||
		!strings.Contains(rights, `:parameter`+name) {
		found = append(found, "nobody may read the parameter")
	}
	return found
}

// The firewall is made before the CDN that refers to it, in each region and with each database.
func TestTheFirewallsStackIsDeployedFirst(t *testing.T) {
	for name, settings := range map[string]map[string]string{
		"another region": guardedEdge,
		"the same region and a cluster": with(guardedEdge, "region", "us-east-1", "db", "aurora",
			"azs", "us-east-1a,us-east-1b", "botControl", "off"),
		"the shell's region": with(guardedEdge, "region", "", "account", ""),
	} {
		main, edge := edgeOf(t, settings)
		var manifest struct {
			Artifacts map[string]struct {
				Dependencies []string
				Environment  string
			}
		}
		if err := json.Unmarshal(synthesizeApp(t, settings).manifest, &manifest); err != nil {
			t.Fatal(err)
		}
		if !slices.Contains(manifest.Artifacts["allo-prod"].Dependencies, "allo-prod-edge") {
			t.Errorf("%s: the stack is deployed after %v", name,
				manifest.Artifacts["allo-prod"].Dependencies)
		}
		place := manifest.Artifacts["allo-prod-edge"].Environment
		if !strings.HasSuffix(place, "/us-east-1") {
			t.Errorf("%s: the firewall is in %s", name, place)
		}
		rules := 4
		if settings["botControl"] == "on" {
			rules = 5
		}
		if got := asList(edge.only(t, "AWS::WAFv2::WebACL").get("Rules")); len(got) != rules {
			t.Errorf("%s: the firewall has %d rules, want %d", name, len(got), rules)
		}
		for _, warning := range slices.Concat(main.warnings, edge.warnings) {
			t.Errorf("%s: %s", name, warning)
		}
		for _, f := range main.resources("AWS::Lambda::Function") {
			if f.get("LoggingConfig", "LogGroup") == nil {
				t.Errorf("%s: %s logs to a group that Lambda keeps for ever", name, f.id)
			}
		}
	}
}

// secretReference matches a reference to a secret of the CDN by its number.
var secretReference = regexp.MustCompile(
	`\{\{resolve:secretsmanager:",\{"Ref":"CdnSecret(\d+)[0-9A-F]{8}"\},":SecretString:::\}\}`)

// shown returns the numbers of the secrets to which a value refers.
func shown(value any) (numbers string) {
	for _, match := range secretReference.FindAllStringSubmatch(asJSON(value), -1) {
		numbers += match[1] + " "
	}
	return strings.TrimSpace(numbers)
}

// The CDN shows the first secret, and the functions that anyone may call take both. With auth=none
// these are all that the gateway invokes. The references to secrets of a template are limited.
func TestTheFunctionsTakeTheSecretsOfTheCDN(t *testing.T) {
	const mostReferences = 60 // CloudFormation's user guide, "dynamic references"
	none := with(guardedEdge, "auth", "none", "waf", "off", "wafRate", "", "botControl", "")
	for name, test := range map[string]struct {
		settings map[string]string
		open     []string
	}{
		"iam": {with(none, "auth", "iam"), []string{
			"extend", "get-reservation", "health", "list-products", "list-warehouses", "live", "release",
			"reserve", "web",
		}},
		"none": {none, functionsOfRoutes()},
	} {
		tpl := synthesizeWith(t, test.settings)
		var takes []string
		for function, f := range tpl.functions("external-prod") {
			value := f.get("Environment", "Variables", "ORIGIN_SECRETS")
			if value == nil {
				continue
			}
			takes = append(takes, function)
			if got := shown(value); got != "2 1" {
				t.Errorf("%s: %s takes the secrets %s, want 2 and 1", name, function, got)
			}
		}
		slices.Sort(takes)
		if diff := gocmp.Diff(test.open, takes); diff != "" {
			t.Errorf("%s: functions that look for the CDN (-want +got):\n%s", name, diff)
		}
		config := tpl.only(t, "AWS::CloudFront::Distribution").get("DistributionConfig")
		if got := shown(config); got != "2" {
			t.Errorf("%s: the CDN shows the secrets %s, want 2", name, got)
		}
		if n := strings.Count(asJSON(tpl.body), "{{resolve:"); n == 0 || n > mostReferences {
			t.Errorf("%s: the template has %d references, want at most %d", name, n, mostReferences)
		}
		for _, secret := range tpl.resources("AWS::SecretsManager::Secret") {
			if secret.get("GenerateSecretString", "PasswordLength") != 64.0 ||
				secret.get("GenerateSecretString", "ExcludePunctuation") != true ||
				secret.get("Name") != nil || secret.get("SecretString") != nil {
				t.Errorf("%s: the secret %s is %s", name, secret.id, asJSON(secret.properties))
			}
		}
		for _, warning := range tpl.warnings {
			t.Errorf("%s: %s", name, warning)
		}
	}
	if originHeader != lambdahttp.OriginHeader {
		t.Errorf("the CDN writes %s, and the functions read %s", originHeader, lambdahttp.OriginHeader)
	}
}

// functionsOfRoutes returns the functions that the gateway invokes, sorted.
func functionsOfRoutes() (names []string) {
	for _, r := range route.All() {
		names = append(names, r.Function)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// The CDN shows its secret before anybody looks for it, so that cdnOnly=on refuses nobody who comes
// through the CDN.
func TestTheCDNShowsItsSecretBeforeTheFunctionsWantIt(t *testing.T) {
	tpl := synth(t, "aurora-console")
	config := tpl.only(t, "AWS::CloudFront::Distribution").get("DistributionConfig")
	for _, origin := range asList(dig(config, "Origins")) {
		headers := asList(dig(origin, "OriginCustomHeaders"))
		if len(headers) != 1 || dig(headers[0], "HeaderName") != originHeader ||
			shown(dig(headers[0], "HeaderValue")) != "1" {
			t.Errorf("the CDN writes %s, want %s with the first secret", asJSON(headers), originHeader)
		}
	}
	for name, f := range tpl.functions("aurora-console") {
		if f.get("Environment", "Variables", "ORIGIN_SECRETS") != nil {
			t.Errorf("%s looks for the CDN without cdnOnly=on", name)
		}
	}
}
