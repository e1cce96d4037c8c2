package main

import (
	"cmp"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-cdk-go/awscdk/v2"
	"github.com/aws/aws-cdk-go/awscdk/v2/awssqs"
	"github.com/aws/jsii-runtime-go"
	gocmp "github.com/google/go-cmp/cmp"

	"github.com/allo/reservations/internal/httpapi"
	"github.com/allo/reservations/internal/migrate"
	"github.com/allo/reservations/internal/route"
)

// eachMode runs a test on every mode's template. Synthesizing isn't parallel, and neither are they.
func eachMode(t *testing.T, test func(t *testing.T, mode string, tpl template)) {
	t.Helper()
	for _, mode := range slices.Sorted(maps.Keys(modes)) {
		t.Run(mode, func(t *testing.T) { test(t, mode, synth(t, mode)) })
	}
}

func TestTheRulesFindNothing(t *testing.T) {
	eachMode(t, func(t *testing.T, _ string, tpl template) {
		for _, f := range tpl.warnings {
			t.Error(f)
		}
	})
}

// The control of the test above: what AWS's rules find fault with fails a synth.
func TestTheRulesFindWhatIsWrong(t *testing.T) {
	context := flags(t)
	cdk := awscdk.NewApp(&awscdk.AppProps{Context: &context, Outdir: jsii.String(t.TempDir())})
	awssqs.NewQueue(awscdk.NewStack(cdk, jsii.String("bad"), nil), jsii.String("PlainQueue"), nil)
	if err := finish(cdk); err == nil {
		t.Error("a queue that takes plain HTTP was synthesized without a finding")
	}
}

func TestEveryRowOfTheTableIsRoutedToItsFunctionsAlias(t *testing.T) {
	eachMode(t, func(t *testing.T, mode string, tpl template) {
		want := map[string]string{}
		for _, r := range route.All() {
			want[r.Key()] = r.Function
		}
		got := map[string]string{}
		for _, r := range tpl.of("AWS::ApiGatewayV2::Route") {
			got[fmt.Sprint(r.get("RouteKey"))] = tpl.functionBehind(t, mode, r)
		}
		if diff := gocmp.Diff(want, got); diff != "" {
			t.Errorf("routes (-want +got):\n%s", diff)
		}
	})
}

// functionBehind is the function whose alias a route's integration calls.
func (tpl template) functionBehind(t *testing.T, mode string, r resource) string {
	t.Helper()
	id := strings.TrimSuffix(regexp.MustCompile(`"Ref":"([^"]+)"`).FindStringSubmatch(text(r.get("Target")))[1], `"`)
	for _, integration := range tpl.of("AWS::ApiGatewayV2::Integration") {
		if integration.id != id {
			continue
		}
		aliasID, _ := integration.get("IntegrationUri", "Ref").(string)
		for _, alias := range tpl.of("AWS::Lambda::Alias") {
			if alias.id == aliasID && alias.get("Name") == live {
				for name, f := range tpl.functionsOf(t, stackOf(mode)) {
					if alias.get("FunctionName", "Ref") == f.id {
						return name
					}
				}
			}
		}
	}
	return ""
}

func TestEveryFunctionIsAsItShouldBe(t *testing.T) {
	eachMode(t, func(t *testing.T, mode string, tpl template) {
		functions := tpl.functionsOf(t, stackOf(mode))
		if got := slices.Sorted(maps.Keys(functions)); !slices.Equal(got, functionNames()) {
			t.Errorf("functions %v, want %v", got, functionNames())
		}
		code, roles := map[string]string{}, map[string]string{}
		wantArch := cmp.Or(modes[mode]["arch"], "arm64")
		for name, f := range functions {
			key, role := text(f.get("Code")), text(f.get("Role"))
			if code[key] != "" {
				t.Errorf("%s has the code of %s", name, code[key])
			}
			if roles[role] != "" {
				t.Errorf("%s has the role of %s", name, roles[role])
			}
			code[key], roles[role] = name, name
			if f.get("Runtime") != "provided.al2023" || f.get("Handler") != "bootstrap" || text(f.get("Architectures")) != `["`+wantArch+`"]` {
				t.Errorf("%s runs %v %v on %v, want bootstrap on provided.al2023, %s", name, f.get("Runtime"), f.get("Handler"), f.get("Architectures"), wantArch)
			}
			if f.get("TracingConfig", "Mode") != "Active" || f.get("LoggingConfig", "LogFormat") != "JSON" || f.get("RecursiveLoop") != "Terminate" {
				t.Errorf("%s: tracing %v, log %v, loops %v", name, f.get("TracingConfig"), f.get("LoggingConfig"), f.get("RecursiveLoop"))
			}
		}
		for _, v := range tpl.of("AWS::Lambda::Version") {
			if v.whole["DeletionPolicy"] != "RetainExceptOnCreate" {
				t.Errorf("the version %s goes with the next one, and with it the way back, or stays after a rollback, and is in the way", v.id)
			}
		}
	})
}

// A function may override only what it declares, so each declares DATABASE_URL; and nothing says a URL with a password.
func TestTheWayToTheDatabase(t *testing.T) {
	eachMode(t, func(t *testing.T, mode string, tpl template) {
		for name, f := range tpl.functionsOf(t, stackOf(mode)) {
			env, _ := f.get("Environment", "Variables").(map[string]any)
			if value, declared := env["DATABASE_URL"]; !declared || value != "" {
				t.Errorf("%s: DATABASE_URL is %v, declared %v, want it declared and empty", name, value, declared)
			}
			if secret := env["DATABASE_SECRET"]; mode == "external-prod" && secret != nil && (secret == "shop/migrate") != (name == "migrate") {
				t.Errorf("%s reads the secret %v", name, secret)
			}
			external, web := modes[mode]["db"] == "external", name == "web"
			if (env["DATABASE_SECRET"] != nil) != (external && !web) || (env["DATABASE_IAM_URL"] != nil) != (!external && !web) {
				t.Errorf("%s: environment %v", name, env)
			}
			if user := strings.Contains(text(env["DATABASE_IAM_URL"]), string(migrator)); user != (!external && name == "migrate") {
				t.Errorf("%s logs in as the migrator: %v", name, user)
			}
		}
		if password := regexp.MustCompile(`postgres(ql)?://[^@"/]*:[^@"/]*@`).Find(tpl.json); password != nil {
			t.Errorf("the template has %s", password)
		}
	})
}

// The proxy pins sessions that have prepared statements, so the functions have none behind it; without it they may.
func TestOnlyBehindTheProxyNothingStaysPrepared(t *testing.T) {
	for mode, want := range map[string]bool{"aurora-dev": false, "aurora-direct": false, "aurora-prod": true} {
		f := synth(t, mode).functionsOf(t, stackOf(mode))
		if got := strings.Contains(text(f["reserve"].properties), "default_query_exec_mode=exec"); got != want {
			t.Errorf("%s: reserve leaves no statement prepared: %v, want %v", mode, got, want)
		}
		if strings.Contains(text(f["migrate"].properties), "default_query_exec_mode") {
			t.Errorf("%s: migrate goes through the proxy", mode)
		}
	}
}

func TestTheMigrationRunsBeforeAnyVersionAndAfterTheDatabase(t *testing.T) {
	eachMode(t, func(t *testing.T, mode string, tpl template) {
		triggers := tpl.of("Custom::Trigger")
		if len(triggers) != 1 {
			t.Fatalf("%d triggers, want one", len(triggers))
		}
		trigger, migrate := triggers[0], tpl.functionsOf(t, stackOf(mode))["migrate"]
		waited := 0
		for _, v := range tpl.of("AWS::Lambda::Version") {
			if v.get("FunctionName", "Ref") == migrate.id {
				if !strings.Contains(text(trigger.get("HandlerArn")), v.id) {
					t.Errorf("the trigger calls %v, want migrate's version %s", trigger.get("HandlerArn"), v.id)
				}
				continue
			}
			if !strings.Contains(text(v.whole["DependsOn"]), trigger.id) {
				t.Errorf("the version %s doesn't wait for the migration", v.id)
			}
			waited++
		}
		if want := len(functionNames()) - 1; waited != want {
			t.Errorf("%d versions wait for the migration, want %d", waited, want)
		}
		if modes[mode]["db"] != "external" && !strings.Contains(text(trigger.whole["DependsOn"]), "DatabaseBootstrap") {
			t.Errorf("the migration depends on %v, want the database's bootstrap among it", trigger.whole["DependsOn"])
		}
	})
}

func TestNoPortIsOpenToTheWorld(t *testing.T) {
	eachMode(t, func(t *testing.T, _ string, tpl template) {
		for _, r := range append(tpl.of("AWS::EC2::SecurityGroup"), tpl.of("AWS::EC2::SecurityGroupIngress")...) {
			if in := text(r.get("SecurityGroupIngress")) + text(r.get("CidrIp")) + text(r.get("CidrIpv6")); strings.Contains(in, "0.0.0.0/0") || strings.Contains(in, "::/0") {
				t.Errorf("%s lets the world in: %s", r.id, in)
			}
		}
		for _, kind := range []string{"AWS::EC2::NatGateway", "AWS::EC2::InternetGateway", "AWS::EC2::VPCEndpoint"} {
			if found := tpl.of(kind); len(found) > 0 {
				t.Errorf("there is a %s, which nothing needs", kind)
			}
		}
	})
}

func TestEachTimeoutIsAnsweredForByTheOneInside(t *testing.T) {
	eachMode(t, func(t *testing.T, mode string, tpl template) {
		for _, i := range tpl.of("AWS::ApiGatewayV2::Integration") {
			if i.get("TimeoutInMillis") != float64(gatewayTimeout*1000) {
				t.Errorf("%s gives up after %v ms, want %d s", i.id, i.get("TimeoutInMillis"), gatewayTimeout)
			}
		}
		for name, f := range tpl.functionsOf(t, stackOf(mode)) {
			want := map[string]float64{"sweep": sweepTimeout, "migrate": migrateTimeout}[name]
			if want == 0 {
				want = apiTimeout
			}
			if f.get("Timeout") != want {
				t.Errorf("%s has %v s, want %v", name, f.get("Timeout"), want)
			}
		}
	})
	if api := apiTimeout * time.Second; httpapi.RequestTimeout >= api || migrate.StatementTimeout >= httpapi.RequestTimeout {
		t.Errorf("a function has %s, a request %s, a statement %s: each has to end before the one around it", api, httpapi.RequestTimeout, migrate.StatementTimeout)
	}
	if gatewayTimeout <= apiTimeout || triggerTimeout <= migrateTimeout || sweepTimeout >= 60 {
		t.Error("a limit ends before the one that it is around")
	}
}

func TestEveryLogEnds(t *testing.T) {
	eachMode(t, func(t *testing.T, mode string, tpl template) {
		groups := map[string]bool{}
		for _, g := range tpl.of("AWS::Logs::LogGroup") {
			if days, ok := g.get("RetentionInDays").(float64); !ok || days < 1 {
				t.Errorf("the log %s is kept for ever", g.id)
			}
			groups[g.id] = true
		}
		for _, f := range tpl.of("AWS::Lambda::Function") {
			if group, _ := f.get("LoggingConfig", "LogGroup", "Ref").(string); !groups[group] {
				t.Errorf("the function %s logs to a group of Lambda's own making, which is kept for ever: %v", f.id, f.get("LoggingConfig"))
			}
		}
		for _, s := range tpl.of("AWS::ApiGatewayV2::Stage") {
			if s.get("StageName") != "$default" || s.get("AccessLogSettings", "DestinationArn") == nil || s.get("DefaultRouteSettings", "ThrottlingRateLimit") == nil {
				t.Errorf("the stage is %v", s.properties)
			}
		}
	})
}

// explained are the actions that may be allowed on every resource, and why.
var explained = map[string]string{
	"xray:PutTelemetryRecords":       "X-Ray knows no resource here",
	"xray:PutTraceSegments":          "X-Ray knows no resource here",
	"ec2:AssignPrivateIpAddresses":   "Lambda's network interface; EC2 knows no narrower resource, and the function's code is denied it",
	"ec2:CreateNetworkInterface":     "the same",
	"ec2:DeleteNetworkInterface":     "the same",
	"ec2:DescribeNetworkInterfaces":  "the same",
	"ec2:DescribeSubnets":            "the same",
	"ec2:UnassignPrivateIpAddresses": "the same",
}

func TestNoPermissionIsWiderThanIsExplained(t *testing.T) {
	eachMode(t, func(t *testing.T, _ string, tpl template) {
		seen := 0
		for _, r := range tpl.of("") {
			for _, s := range statements(r) {
				if s["Effect"] != "Allow" {
					continue
				}
				seen++
				for _, action := range list(s["Action"]) {
					name, _ := action.(string)
					if strings.Contains(name, "*") {
						t.Errorf("%s allows %s", r.id, name)
					}
					if slices.ContainsFunc(list(s["Resource"]), func(v any) bool { return v == "*" }) && explained[name] == "" {
						t.Errorf("%s allows %s on everything", r.id, name)
					}
				}
			}
		}
		if seen < len(functionNames()) {
			t.Errorf("only %d statements were seen", seen)
		}
	})
}

// statements are all that a policy of any kind says in a resource.
func statements(r resource) []map[string]any {
	var found []map[string]any
	var walk func(any)
	walk = func(value any) {
		switch v := value.(type) {
		case map[string]any:
			for _, s := range list(v["Statement"]) {
				if statement, ok := s.(map[string]any); ok {
					found = append(found, statement)
				}
			}
			for _, inner := range v {
				walk(inner)
			}
		case []any:
			for _, inner := range v {
				walk(inner)
			}
		}
	}
	walk(r.properties)
	return found
}

func list(value any) []any {
	if many, ok := value.([]any); ok {
		return many
	}
	if value == nil {
		return nil
	}
	return []any{value}
}

// A function that isn't asked for the secret can't read it, and none logs in as another's role.
func TestAFunctionReachesOnlyItsDatabase(t *testing.T) {
	eachMode(t, func(t *testing.T, mode string, tpl template) {
		for _, p := range tpl.of("AWS::IAM::Policy") {
			body, web := text(p.properties), strings.Contains(p.id, "web")
			if web && (strings.Contains(body, "secretsmanager:") || strings.Contains(body, "rds-db:connect")) {
				t.Errorf("web may reach the database: %s", body)
			}
			if strings.HasPrefix(p.id, "Functions") && strings.Contains(body, "/"+string(migrator)) {
				t.Errorf("%s may log in as the migrator", p.id)
			}
		}
	})
}

func TestOnlyThePaymentSideConfirmsAndOnlyTheOperatorLooks(t *testing.T) {
	scopes := map[string]string{
		"POST /api/reservations/{id}/confirm": "reservations:confirm", "GET /api/reservations": "inventory:read", "GET /api/stats": "inventory:read",
	}
	for mode, want := range map[string]string{"aurora-dev": "NONE", "aurora-prod": "JWT", "aurora-direct": "AWS_IAM"} {
		guarded := 0
		for _, r := range synth(t, mode).of("AWS::ApiGatewayV2::Route") {
			wantType, wantScopes := "NONE", "null"
			if scope := scopes[fmt.Sprint(r.get("RouteKey"))]; scope != "" {
				wantType = want
				if want == "JWT" {
					wantScopes = text([]string{scope})
				}
				guarded++
			}
			if got := cmp.Or(fmt.Sprint(r.get("AuthorizationType")), "NONE"); got != wantType || text(r.get("AuthorizationScopes")) != wantScopes {
				t.Errorf("%s: %v asks for %v %v, want %s %s", mode, r.get("RouteKey"), got, text(r.get("AuthorizationScopes")), wantType, wantScopes)
			}
		}
		if guarded != len(scopes) {
			t.Errorf("%s: %d routes are guarded, want %d", mode, guarded, len(scopes))
		}
	}
	out := func(mode string) string { return text(synth(t, mode).body["Outputs"]) }
	if !strings.Contains(out("aurora-dev"), "THIS IS A DEMONSTRATION") || strings.Contains(out("aurora-prod"), "DEMONSTRATION") {
		t.Error("the outputs don't say of auth=none, and of it alone, that it is a demonstration")
	}
	for _, arn := range []string{"/POST/api/reservations/*/confirm", "/GET/api/reservations\"", "/GET/api/stats"} {
		if !strings.Contains(out("aurora-direct"), arn) {
			t.Errorf("the outputs don't name %s, which the payment side or the operator has to be allowed: %s", arn, out("aurora-direct"))
		}
	}
}

func TestTheRuleRunsTheSweepersAlias(t *testing.T) {
	eachMode(t, func(t *testing.T, mode string, tpl template) {
		rules, off := tpl.of("AWS::Events::Rule"), modes[mode]["sweeper"] == "off"
		if len(rules) != 1 || rules[0].get("ScheduleExpression") != "rate(1 minute)" || (rules[0].get("State") == "DISABLED") != off {
			t.Fatalf("rules: %v", rules)
		}
		target, _ := list(rules[0].get("Targets"))[0].(map[string]any)
		if !strings.Contains(text(target["Arn"]), "SweepersweepAlias") || target["DeadLetterConfig"] == nil ||
			text(target["RetryPolicy"]) != `{"MaximumEventAgeInSeconds":60,"MaximumRetryAttempts":0}` {
			t.Errorf("the rule's target is %s", text(target))
		}
		configs := tpl.of("AWS::Lambda::EventInvokeConfig")
		if len(configs) != 1 || configs[0].get("Qualifier") == "$LATEST" || configs[0].get("MaximumRetryAttempts") != 0.0 ||
			configs[0].get("MaximumEventAgeInSeconds") != 60.0 || configs[0].get("DestinationConfig", "OnFailure") == nil {
			t.Errorf("the sweeper's events: %v", configs)
		}
		dead := tpl.alarm("SweeperDead")
		if (dead.id == "") != off {
			t.Errorf("the alarm of a dead sweeper is %q, and the sweeper off: %v", dead.id, off)
		}
		if !off && (dead.get("TreatMissingData") != "breaching" || dead.get("ComparisonOperator") != "LessThanThreshold") {
			t.Errorf("the alarm of a dead sweeper: %v", dead.properties)
		}
	})
}

func TestTheDashboardShowsOutcomesThatThereAre(t *testing.T) {
	for _, outcome := range outcomes {
		if !slices.Contains(httpapi.Outcomes(), outcome) {
			t.Errorf("the dashboard shows the outcome %s, which no call has", outcome)
		}
	}
}

func (tpl template) alarm(id string) resource {
	for _, a := range tpl.of("AWS::CloudWatch::Alarm") {
		if name, _ := a.get("AlarmName").(string); strings.HasSuffix(name, "-"+id) {
			return a
		}
	}
	return resource{}
}

// Each alarm tells the topic, and has its section in the runbook, which has no other.
func TestEveryAlarmIsInTheRunbook(t *testing.T) {
	source, err := os.ReadFile("RUNBOOK.md")
	if err != nil {
		t.Fatal(err)
	}
	written := map[string]bool{}
	for _, heading := range regexp.MustCompile("(?m)^### `([A-Za-z-]+)`").FindAllStringSubmatch(string(source), -1) {
		written[heading[1]] = false
	}
	eachMode(t, func(t *testing.T, mode string, tpl template) {
		for _, a := range tpl.of("AWS::CloudWatch::Alarm") {
			name, _ := a.get("AlarmName").(string)
			id := strings.TrimPrefix(name, stackOf(mode)+"-")
			for _, many := range []string{"Errors-", "Throttles-"} {
				if strings.HasPrefix(id, many) {
					id = many + "FUNCTION"
				}
			}
			if _, ok := written[id]; !ok {
				t.Errorf("the alarm %s isn't in RUNBOOK.md", id)
			}
			written[id] = true
			if len(list(a.get("AlarmActions"))) != 1 || len(list(a.get("OKActions"))) != 1 {
				t.Errorf("the alarm %s tells nobody", id)
			}
		}
	})
	for id, exists := range written {
		if !exists {
			t.Errorf("RUNBOOK.md has the alarm %s, which no stack has", id)
		}
	}
}

func TestProductionIsProtectedAndDevelopmentGoes(t *testing.T) {
	for mode, want := range map[string]struct {
		protected any
		policy    string
		instances int
		canaries  int
	}{
		"aurora-dev":  {false, "Delete", 1, 0},
		"aurora-prod": {true, "Snapshot", 2, len(functionNames()) - 2},
	} {
		tpl := synth(t, mode)
		cluster := tpl.of("AWS::RDS::DBCluster")[0]
		if cluster.get("DeletionProtection") != want.protected || cluster.whole["DeletionPolicy"] != want.policy {
			t.Errorf("%s: the cluster's protection is %v, its policy %v", mode, cluster.get("DeletionProtection"), cluster.whole["DeletionPolicy"])
		}
		for _, must := range []string{"StorageEncrypted", "EnableIAMDatabaseAuthentication", "ManageMasterUserPassword", "EnableHttpEndpoint", "CopyTagsToSnapshot"} {
			if cluster.get(must) != true {
				t.Errorf("%s: the cluster's %s is %v", mode, must, cluster.get(must))
			}
		}
		if got := len(tpl.of("AWS::RDS::DBInstance")); got != want.instances {
			t.Errorf("%s: %d instances, want %d", mode, got, want.instances)
		}
		groups := tpl.of("AWS::CodeDeploy::DeploymentGroup")
		if len(groups) != want.canaries {
			t.Errorf("%s: %d functions go by canary, want %d", mode, len(groups), want.canaries)
		}
		for _, g := range groups {
			if !strings.Contains(text(g.get("DeploymentConfigName")), "Canary10Percent5Minutes") || len(list(g.get("AlarmConfiguration", "Alarms"))) != 2 ||
				g.get("AutoRollbackConfiguration", "Enabled") != true {
				t.Errorf("%s: a rollout of %s", mode, text(g.properties))
			}
		}
	}
}

func TestWhatTheContextAsksForIsThere(t *testing.T) {
	tpl, plain := synth(t, "external-prod"), synth(t, "external-dev")
	first := func(tpl template, kind string) resource { return append(tpl.of(kind), resource{})[0] }
	api := first(tpl, "AWS::ApiGatewayV2::Api")
	if text(api.get("CorsConfiguration", "AllowOrigins")) != `["https://shop.example.com"]` || api.get("DisableExecuteApiEndpoint") != true {
		t.Errorf("the API is %s", text(api.properties))
	}
	if other := first(plain, "AWS::ApiGatewayV2::Api"); other.get("CorsConfiguration") != nil || other.get("DisableExecuteApiEndpoint") == true {
		t.Errorf("the API that nothing was asked for is %s", text(other.properties))
	}
	if d := first(tpl, "AWS::ApiGatewayV2::DomainName"); d.get("DomainName") != "api.example.com" || len(tpl.of("AWS::ApiGatewayV2::ApiMapping")) != 1 {
		t.Errorf("the domain is %s", text(d.properties))
	}
	if r := first(tpl, "AWS::Route53::RecordSet"); r.get("Name") != "api.example.com." || r.get("Type") != "A" {
		t.Errorf("the record is %s", text(r.properties))
	}
	stage := first(tpl, "AWS::ApiGatewayV2::Stage")
	if stage.get("DefaultRouteSettings", "ThrottlingRateLimit") != 50.0 || stage.get("DefaultRouteSettings", "ThrottlingBurstLimit") != 2000.0 {
		t.Errorf("the throttle is %s", text(stage.get("DefaultRouteSettings")))
	}
	if s := first(tpl, "AWS::SNS::Subscription"); s.get("Endpoint") != "ops@example.com" || s.get("Protocol") != "email" {
		t.Errorf("the subscription is %s", text(s.properties))
	}
	functions := tpl.functionsOf(t, "allo-prod")
	if functions["reserve"].get("Environment", "Variables", "HOLD_TTL") != "5m" || functions["sweep"].get("ReservedConcurrentExecutions") != 1.0 {
		t.Errorf("reserve %s, sweep %s", text(functions["reserve"].properties), text(functions["sweep"].properties))
	}
	if functions["migrate"].get("Environment", "Variables", "APP_ROLE") != "shop" {
		t.Errorf("migrate grants %v what the service uses", functions["migrate"].get("Environment", "Variables", "APP_ROLE"))
	}
	if tags := text(functions["reserve"].get("Tags")); !strings.Contains(tags, `{"Key":"owner","Value":"checkout"}`) || !strings.Contains(tags, `{"Key":"env","Value":"prod"}`) {
		t.Errorf("the tags are %s", tags)
	}
	for _, r := range tpl.of("AWS::IAM::Role") {
		if !strings.Contains(text(r.get("PermissionsBoundary")), "policy/boundary") {
			t.Errorf("the role %s is out of bounds", r.id)
		}
	}
}
