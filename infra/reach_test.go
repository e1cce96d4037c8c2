package main

import (
	"cmp"
	"regexp"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
)

// What has to be allowed for the service to work at all, and what has to be named alike in two places: none of it fails a deploy.

// allowed are the statements of the policies of a function's role.
func (tpl template) allowed(f resource) []map[string]any {
	role, _ := f.get("Role", "Fn::GetAtt").([]any)
	return tpl.allowedRole(role[0])
}

func (tpl template) allowedRole(role any) []map[string]any {
	var found []map[string]any
	for _, p := range tpl.of("AWS::IAM::Policy") {
		for _, r := range list(p.get("Roles")) {
			if ref, _ := r.(map[string]any); ref["Ref"] == role {
				found = append(found, statements(p)...)
			}
		}
	}
	return found
}

// where are the resources on which an action is allowed.
func where(statements []map[string]any, action string) []string {
	var found []string
	for _, s := range statements {
		if s["Effect"] == "Allow" && slices.Contains(list(s["Action"]), any(action)) {
			found = append(found, text(s["Resource"]))
		}
	}
	return found
}

func TestAFunctionMayDoWhatItDoes(t *testing.T) {
	eachMode(t, func(t *testing.T, mode string, tpl template) {
		stack := stackOf(mode)
		proxied := len(tpl.of("AWS::RDS::DBProxy")) > 0
		for name, f := range tpl.functionsOf(t, stack) {
			statements := tpl.allowed(f)
			// It writes to the log that it is told of.
			group, _ := f.get("LoggingConfig", "LogGroup", "Ref").(string)
			if logs := where(statements, "logs:PutLogEvents"); len(logs) != 1 || !strings.Contains(logs[0], `"`+group+`"`) {
				t.Errorf("%s writes to the logs %v, want %s", name, logs, group)
			}
			var login, secret []string
			switch env := text(f.get("Environment", "Variables")); {
			case strings.Contains(env, "DATABASE_IAM_URL"):
				user, server := app, "DBClusterResourceId"
				if name == "migrate" {
					user = migrator
				} else if proxied {
					server = "DBProxyArn"
				}
				login = []string{server, "/" + string(user)}
			case strings.Contains(env, "DATABASE_SECRET"):
				secret = []string{":secret:" + f.get("Environment", "Variables", "DATABASE_SECRET").(string) + "-??????"}
			}
			for action, want := range map[string][]string{"rds-db:connect": login, "secretsmanager:GetSecretValue": secret} {
				got := where(statements, action)
				if (len(got) == 1) != (want != nil) || len(got) > 1 {
					t.Errorf("%s may %s on %v, want one that has %v", name, action, got, want)
				}
				for _, part := range want {
					if len(got) == 1 && !strings.Contains(got[0], part) {
						t.Errorf("%s may %s on %s, want %s in it", name, action, got[0], part)
					}
				}
			}
			tpl.inNetwork(t, stack, name, f, statements, login != nil)
		}
	})
}

// inNetwork holds that a function of Aurora's is in the network, that Lambda may handle its interface, and that its code may not.
func (tpl template) inNetwork(t *testing.T, stack, name string, f resource, statements []map[string]any, want bool) {
	t.Helper()
	if got := f.get("VpcConfig") != nil && len(where(statements, "ec2:CreateNetworkInterface")) == 1; got != want {
		t.Errorf("%s is in the network: %v, want %v", name, got, want)
	}
	denied := false
	for _, s := range statements {
		denied = denied || s["Effect"] == "Deny" && strings.Contains(text(s["Condition"]), `{"ArnEquals":{"lambda:SourceFunctionArn"`) &&
			strings.Contains(text(s["Condition"]), ":function:"+stack+"-"+name+`"`)
	}
	if denied != want {
		t.Errorf("the code of %s is kept from its network interface: %v, want %v", name, denied, want)
	}
}

func TestTheWayToTheClusterIsOpen(t *testing.T) {
	for mode, hops := range map[string][][2]string{
		"aurora-dev":  {{"FunctionsGroup", "ClusterSecurityGroup"}},
		"aurora-prod": {{"FunctionsGroup", "ClusterSecurityGroup"}, {"FunctionsGroup", "ProxyGroup"}, {"ProxyGroup", "ClusterSecurityGroup"}},
	} {
		tpl := synth(t, mode)
		for _, hop := range hops {
			in := slices.ContainsFunc(tpl.of("AWS::EC2::SecurityGroupIngress"), func(r resource) bool {
				return strings.Contains(text(r.get("GroupId")), hop[1]) && strings.Contains(text(r.get("SourceSecurityGroupId")), hop[0])
			})
			out := slices.ContainsFunc(tpl.of("AWS::EC2::SecurityGroupEgress"), func(r resource) bool {
				return strings.Contains(text(r.get("GroupId")), hop[0]) && strings.Contains(text(r.get("DestinationSecurityGroupId")), hop[1])
			})
			if !in || !out {
				t.Errorf("%s: from %s to %s: out %v, in %v", mode, hop[0], hop[1], out, in)
			}
		}
	}
	// The proxy logs in as the functions do.
	tpl := synth(t, "aurora-prod")
	role, _ := tpl.of("AWS::RDS::DBProxy")[0].get("RoleArn", "Fn::GetAtt").([]any)
	if got := where(tpl.allowedRole(role[0]), "rds-db:connect"); len(got) != 1 || !strings.Contains(got[0], "DBClusterResourceId") || !strings.Contains(got[0], "/"+string(app)) {
		t.Errorf("the proxy may log in at %v, want at the cluster as %s", got, app)
	}
}

// An alarm tells the topic only if the topic's policy lets it.
func TestTheAlarmsMayTellTheTopic(t *testing.T) {
	eachMode(t, func(t *testing.T, mode string, tpl template) {
		topics := tpl.of("AWS::SNS::Topic")
		for _, a := range tpl.of("AWS::CloudWatch::Alarm") {
			for _, action := range append(list(a.get("AlarmActions")), list(a.get("OKActions"))...) {
				if ref, _ := action.(map[string]any); ref["Ref"] != topics[0].id {
					t.Errorf("the alarm %s tells %v", a.id, action)
				}
			}
		}
		var allow map[string]any
		for _, s := range statements(tpl.of("AWS::SNS::TopicPolicy")[0]) {
			if s["Effect"] == "Allow" {
				allow = s
			}
		}
		if text(allow["Principal"]) != `{"Service":"cloudwatch.amazonaws.com"}` || allow["Action"] != "sns:Publish" ||
			!strings.Contains(text(allow["Condition"]), ":alarm:"+stackOf(mode)+"-*") || !strings.Contains(text(allow["Condition"]), "aws:SourceAccount") {
			t.Errorf("the topic lets in %s, want this stack's alarms", text(allow))
		}
	})
}

// watched is what each alarm looks at: a namespace, a metric, and the names of its dimensions.
var watched = map[string]string{
	"ApiErrors": "AWS/ApiGateway 5xx ApiId,Stage", "ApiSlow": "AWS/ApiGateway Latency ApiId,Stage",
	"FunctionsSlow": "AWS/ApiGateway IntegrationLatency ApiId,Stage", "PoolErrors": "own PoolErrors ", "Retries": "own Retries ",
	"Errors": "AWS/Lambda Errors FunctionName,Resource", "Throttles": "AWS/Lambda Throttles FunctionName,Resource",
	"SweeperDead": "AWS/Lambda Invocations FunctionName,Resource", "SweeperBehind": "own SweepLag ",
	"SweeperErrors": "AWS/Lambda Errors FunctionName,Resource", "SweeperSlow": "AWS/Lambda Duration FunctionName,Resource",
	"RuleFailed": "AWS/Events FailedInvocations RuleName", "LostSweeps": "AWS/SQS ApproximateNumberOfMessagesVisible QueueName",
	"AuditViolations": "own AuditViolations ", "AuditUnfinished": "own AuditUnfinished ",
	"DatabaseCapacity": "AWS/RDS ACUUtilization DBClusterIdentifier", "DatabaseConnections": "AWS/RDS DatabaseConnections DBClusterIdentifier",
	"ProxyPinned": "AWS/RDS DatabaseConnectionsCurrentlySessionPinned ProxyName",
}

func TestEachAlarmLooksAtAMetricThatThereIs(t *testing.T) {
	function := regexp.MustCompile(`^(Errors|Throttles)-(.+)$`)
	eachMode(t, func(t *testing.T, mode string, tpl template) {
		stack := stackOf(mode)
		functions := tpl.functionsOf(t, stack)
		namespace := functions["sweep"].get("Environment", "Variables", "METRIC_NAMESPACE")
		for name, f := range functions {
			if got := f.get("Environment", "Variables", "METRIC_NAMESPACE"); got != namespace {
				t.Errorf("%s writes its metrics to %v, the sweeper to %v", name, got, namespace)
			}
		}
		for _, a := range tpl.of("AWS::CloudWatch::Alarm") {
			name, _ := a.get("AlarmName").(string)
			id := strings.TrimPrefix(name, stack+"-")
			if m := function.FindStringSubmatch(id); m != nil {
				id = m[1]
				if got := text(a.get("Dimensions")); !strings.Contains(got, functions[m[2]].id+`"`) {
					t.Errorf("the alarm %s looks at %s", name, got)
				}
			}
			want := strings.Replace(watched[id], "own ", text(namespace)[1:len(text(namespace))-1]+" ", 1)
			if diff := gocmp.Diff(want, metricOf(a)); diff != "" {
				t.Errorf("the alarm %s looks at something else (-want +got):\n%s", name, diff)
			}
		}
	})
}

// metricOf is what an alarm looks at, of an expression its errors.
func metricOf(a resource) string {
	metric := a.properties
	for _, m := range list(a.get("Metrics")) {
		if query, _ := m.(map[string]any); query["Id"] == "errors" {
			stat, _ := query["MetricStat"].(map[string]any)
			metric, _ = stat["Metric"].(map[string]any)
		}
	}
	var dimensions []string
	for _, d := range list(metric["Dimensions"]) {
		dimension, _ := d.(map[string]any)
		name, _ := dimension["Name"].(string)
		dimensions = append(dimensions, name)
	}
	slices.Sort(dimensions)
	namespace, _ := metric["Namespace"].(string)
	name, _ := metric["MetricName"].(string)
	return namespace + " " + name + " " + strings.Join(dimensions, ",")
}

// A rollout goes back when its own function fails, or callers see errors.
func TestARolloutWatchesItsOwnFunction(t *testing.T) {
	tpl := synth(t, "aurora-prod")
	byID := map[string]string{}
	for _, a := range tpl.of("AWS::CloudWatch::Alarm") {
		byID[a.id], _ = a.get("AlarmName").(string)
	}
	for _, g := range tpl.of("AWS::CodeDeploy::DeploymentGroup") {
		var got []string
		for _, a := range list(g.get("AlarmConfiguration", "Alarms")) {
			alarm, _ := a.(map[string]any)
			ref, _ := alarm["Name"].(map[string]any)
			id, _ := ref["Ref"].(string)
			got = append(got, byID[id])
		}
		slices.Sort(got)
		own, _, _ := strings.Cut(strings.TrimPrefix(g.id, "Rollout"), "-")
		if len(got) != 2 || got[0] != "allo-prod-ApiErrors" || !strings.HasPrefix(own, strings.ReplaceAll(strings.TrimPrefix(got[1], "allo-prod-Errors-"), "-", "")) {
			t.Errorf("the rollout %s watches %v", g.id, got)
		}
	}
	// The alias says which rollout moves it.
	for _, a := range tpl.of("AWS::Lambda::Alias") {
		update, _ := a.whole["UpdatePolicy"].(map[string]any)
		routed := strings.HasPrefix(a.id, "Functions")
		if (update["CodeDeployLambdaAliasUpdate"] != nil) != routed {
			t.Errorf("the alias %s is moved by %v", a.id, cmp.Or(text(update), "CloudFormation"))
		}
	}
}
