package deploy

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudformation"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge"
	"github.com/aws/aws-sdk-go-v2/service/lambda"

	"github.com/allo/reservations/internal/route"
)

// routed is a route of the deployed gateway with its function and its authorization.
type routed struct {
	route.Route
	auth   string
	scopes []string
}

// items is a list in an answer of API Gateway.
type items[T any] struct{ Items []T }

// gateway reads the HTTP API and its routes from the double.
func (d *double) gateway(t *testing.T) (id string, routes []routed) {
	t.Helper()
	apis := read[items[struct{ APIID string }]](
		t, d, question{service: "apigateway", path: "/v2/apis"},
	).Items
	if len(apis) != 1 {
		t.Fatalf("there are %d HTTP APIs, want one", len(apis))
	}
	id = apis[0].APIID
	targets := map[string]string{}
	for _, i := range read[items[struct {
		IntegrationID, IntegrationURI, IntegrationType, PayloadFormatVersion, CredentialsArn string
	}]](t, d, question{service: "apigateway", path: "/v2/apis/" + id + "/integrations"}).Items {
		if i.IntegrationType != "AWS_PROXY" || i.PayloadFormatVersion != "2.0" ||
			!strings.Contains(i.CredentialsArn, ":role/"+stack+"-ApiInvoker") {
			t.Errorf("integration %+v, want a proxy with payload 2.0 and the role of the API", i)
		}
		targets["integrations/"+i.IntegrationID] = i.IntegrationURI
	}
	for _, r := range read[items[struct {
		RouteKey, Target, AuthorizationType string
		AuthorizationScopes                 []string
	}]](t, d, question{service: "apigateway", path: "/v2/apis/" + id + "/routes"}).Items {
		method, path, _ := strings.Cut(r.RouteKey, " ")
		name := targets[r.Target][strings.LastIndex(targets[r.Target], ":function:")+1:]
		function, found := strings.CutPrefix(strings.TrimSuffix(name, ":"+alias), "function:"+stack+"-")
		if !found || !strings.HasSuffix(name, ":"+alias) {
			t.Errorf("route %s invokes %q, want a function's alias %s", r.RouteKey, targets[r.Target], alias)
		}
		routes = append(routes, routed{
			Route:  route.Route{Function: function, Method: method, Path: path},
			auth:   r.AuthorizationType,
			scopes: r.AuthorizationScopes,
		})
	}
	return id, routes
}

func (r *rehearsal) readBackStep(t *testing.T) {
	r.functions = fetchAll(t, r)
	roles, codes := map[string]string{}, map[string]string{}
	for name, f := range r.functions {
		wantFunction(t, name, f)
		if other, taken := roles[aws.ToString(f.Role)]; taken && other != roleUsers(name) {
			t.Errorf("%s has the role of %s", name, other)
		}
		if other, taken := codes[aws.ToString(f.CodeSha256)]; taken {
			t.Errorf("%s and %s have the same code", name, other)
		}
		roles[aws.ToString(f.Role)], codes[aws.ToString(f.CodeSha256)] = roleUsers(name), name
	}
	r.wantGateway(t)
	r.wantRule(t)
	r.wantSweeper(t)
	r.wantLogs(t)
}

// wantGateway fails the test unless the gateway has the table's routes, each with its scope.
func (r *rehearsal) wantGateway(t *testing.T) {
	t.Helper()
	id, routes := r.double.gateway(t)
	r.routes = routes
	var got, want []string
	for _, one := range routes {
		got = append(got, fmt.Sprintf("%s to %s by %s %v", one.Key(), one.Function, one.auth, one.scopes))
	}
	for _, one := range route.All() {
		auth, scopes := "NONE", []string(nil)
		if one.Scope != "" {
			auth, scopes = "JWT", []string{one.Scope}
		}
		want = append(want, fmt.Sprintf("%s to %s by %s %v", one.Key(), one.Function, auth, scopes))
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf(
			"the gateway's routes are\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"),
		)
	}
	type throttle struct {
		ThrottlingRateLimit  float64
		ThrottlingBurstLimit int
	}
	stages := read[items[struct {
		StageName            string
		AutoDeploy           bool
		AccessLogSettings    struct{ Format string }
		DefaultRouteSettings throttle
		RouteSettings        map[string]throttle
	}]](t, r.double, question{service: "apigateway", path: "/v2/apis/" + id + "/stages"}).Items
	const hold = "POST /api/reservations"
	all := throttle{100, 200}
	own := map[string]throttle{
		hold: all, hold + "/{id}/confirm": all, hold + "/{id}/payment": all,
		hold + "/{id}/payment/failed": all,
	}
	if len(stages) != 1 || stages[0].StageName != "$default" || !stages[0].AutoDeploy ||
		stages[0].DefaultRouteSettings != all || !maps.Equal(stages[0].RouteSettings, own) ||
		!json.Valid([]byte(stages[0].AccessLogSettings.Format)) {
		t.Errorf(
			"the stages are %+v, want $default, auto-deployed, throttled at 100 and 200, four routes by "+
				"themselves, with a JSON log", stages,
		)
	}
}

// wantRule fails the test unless the minute rule is enabled, sends each event to the aliases of the
// sweeper and the relay once, and sends undelivered events to the queue.
func (r *rehearsal) wantRule(t *testing.T) {
	t.Helper()
	ctx, client := within(t, callLimit), eventbridge.NewFromConfig(r.double.config())
	rules, err := client.ListRules(ctx, &eventbridge.ListRulesInput{})
	if err != nil || len(rules.Rules) != 1 {
		t.Fatalf("ListRules() = %+v, %v, want one rule", rules, err)
	}
	rule := rules.Rules[0]
	if rule.State != "ENABLED" || aws.ToString(rule.ScheduleExpression) != "rate(1 minute)" {
		t.Errorf(
			"the rule is %s, %s, want it enabled at rate(1 minute)", rule.State,
			aws.ToString(rule.ScheduleExpression),
		)
	}
	targets, err := client.ListTargetsByRule(ctx, &eventbridge.ListTargetsByRuleInput{Rule: rule.Name})
	if err != nil || len(targets.Targets) != 2 {
		t.Fatalf("ListTargetsByRule() = %+v, %v, want two targets", targets, err)
	}
	for i, name := range []string{"sweep", "relay"} {
		target := targets.Targets[i]
		wantQueue := "arn:aws:sqs:" + region + ":" + account + ":" + stack + "-lost-sweeps"
		if aws.ToString(target.Arn) != aliasARN(name) {
			t.Errorf("a target of the rule is %s, want %s", aws.ToString(target.Arn), aliasARN(name))
		}
		if target.DeadLetterConfig == nil || aws.ToString(target.DeadLetterConfig.Arn) != wantQueue {
			t.Errorf("%s: undelivered events go to %+v, want %s", name, target.DeadLetterConfig, wantQueue)
		}
		if target.RetryPolicy == nil || aws.ToInt32(target.RetryPolicy.MaximumRetryAttempts) != 0 {
			t.Errorf("%s: the rule's retries are %+v, want none", name, target.RetryPolicy)
		}
	}
	r.wantQueues(t)
}

// wantQueues fails the test unless there are exactly the queues of the settings.
func (r *rehearsal) wantQueues(t *testing.T) {
	t.Helper()
	var got []string
	for _, address := range read[struct{ QueueUrls []string }](
		t, r.double, question{service: "sqs", target: "AmazonSQS.ListQueues"},
	).QueueUrls {
		got = append(got, path.Base(address))
	}
	slices.Sort(got)
	want := []string{
		stack + "-dead-queue-crm.fifo", stack + "-dead-webhook-erp.fifo", stack + "-lost-sweeps",
		stack + "-queue-crm.fifo", stack + "-webhook-erp.fifo",
	}
	if !slices.Equal(got, want) {
		t.Errorf("the queues are %v, want %v", got, want)
	}
}

// wantSweeper fails the test unless a failed sweep goes to the queue without a retry.
func (r *rehearsal) wantSweeper(t *testing.T) {
	t.Helper()
	client := lambda.NewFromConfig(r.double.config())
	got, err := client.GetFunctionEventInvokeConfig(
		within(t, callLimit),
		&lambda.GetFunctionEventInvokeConfigInput{
			FunctionName: aws.String(stack + "-sweep"), Qualifier: aws.String(alias),
		},
	)
	if err != nil {
		t.Fatal(err)
	}
	if aws.ToInt32(got.MaximumRetryAttempts) != 0 || aws.ToInt32(got.MaximumEventAgeInSeconds) != 60 ||
		got.DestinationConfig.OnFailure == nil {
		t.Errorf("the sweeper's events: %+v, want no retry, an age of 60 s, and the queue", got)
	}
}

// wantLogs fails the test unless each log group has a retention period and each function a group.
func (r *rehearsal) wantLogs(t *testing.T) {
	t.Helper()
	groups := read[struct {
		LogGroups []struct {
			LogGroupName    string
			RetentionInDays int
		}
	}](t, r.double, question{service: "logs", target: "Logs_20140328.DescribeLogGroups"}).LogGroups
	kept := map[string]int{}
	for _, g := range groups {
		if kept[g.LogGroupName] = g.RetentionInDays; g.RetentionInDays != 7 {
			t.Errorf("the log %s is kept for %d days, want 7", g.LogGroupName, g.RetentionInDays)
		}
	}
	for name, f := range r.functions {
		if kept[aws.ToString(f.LoggingConfig.LogGroup)] == 0 {
			t.Errorf("%s has no log group among %v", name, kept)
		}
	}
}

// template returns the stack's template from CloudFormation.
func (d *double) template(t *testing.T) string {
	t.Helper()
	client := cloudformation.NewFromConfig(d.config())
	got, err := client.GetTemplate(
		within(t, callLimit), &cloudformation.GetTemplateInput{StackName: aws.String(stack)},
	)
	if err != nil {
		t.Fatal(err)
	}
	return aws.ToString(got.TemplateBody)
}

// secrecyStep searches everything that a deploy writes for the database's password, for URLs and
// for certificates.
func (r *rehearsal) secrecyStep(t *testing.T) {
	written := map[string]string{
		"the template":              r.double.template(t),
		"the command line's output": r.cli.said.String(),
	}
	err := filepath.WalkDir(r.cli.output, func(file string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || filepath.Base(file) == "bootstrap" {
			return err
		}
		content, err := os.ReadFile(file)
		written[file] = string(content)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	leaks := func(text string) bool {
		return strings.Contains(text, r.database.password) || strings.Contains(text, "postgres://") ||
			strings.Contains(text, "BEGIN CERTIFICATE")
	}
	for where, text := range written {
		if leaks(text) {
			t.Errorf("%s has the database's URL, password or certificate", where)
		}
	}
	if r.database.password == "" || !leaks(r.database.url) {
		t.Error("the search doesn't find the database's own URL")
	}
	if !strings.Contains(written["the template"], secret) {
		t.Errorf("the template doesn't name the secret %s, so it is the wrong template", secret)
	}
}
