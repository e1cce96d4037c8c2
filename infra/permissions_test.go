package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/allo/reservations/internal/route"
)

// wildcardActions are the actions that a role may be allowed on every resource. The EC2 actions are
// for Lambda's network interface, and are denied to the function's own code. A metric has no ARN.
var wildcardActions = []string{
	"cloudwatch:GetMetricData",
	"xray:PutTelemetryRecords", "xray:PutTraceSegments",
	"ec2:AssignPrivateIpAddresses", "ec2:CreateNetworkInterface", "ec2:DeleteNetworkInterface",
	"ec2:DescribeNetworkInterfaces", "ec2:DescribeSubnets", "ec2:UnassignPrivateIpAddresses",
}

func TestNoPermissionIsWiderThanItMustBe(t *testing.T) {
	eachMode(t, func(t *testing.T, mode string, tpl template) {
		seen := 0
		for _, r := range tpl.resources("") {
			for _, s := range statements(r) {
				if s["Effect"] != "Allow" || emptiesTheLog(r, s) {
					continue
				}
				seen++
				// In a queue's policy the star is the queue.
				everywhere := slices.Contains(asList(s["Resource"]), any("*")) &&
					r.kind != "AWS::SQS::QueuePolicy"
				for _, action := range asList(s["Action"]) {
					name, _ := action.(string)
					if strings.Contains(name, "*") {
						t.Errorf("%s allows %s", r.id, name)
					}
					if everywhere && !slices.Contains(wildcardActions, name) {
						t.Errorf("%s allows %s on every resource", r.id, name)
					}
				}
			}
		}
		if seen < len(functionNames(mode)) {
			t.Errorf("the test saw only %d statements", seen)
		}
	})
}

// emptiesTheLog reports whether a statement lets the CDK's own function empty the bucket of dev's
// CDN, so that the stack can be deleted. It is about one bucket, with the CDK's names of actions.
func emptiesTheLog(r resource, s map[string]any) bool {
	return r.kind == "AWS::S3::BucketPolicy" &&
		strings.Contains(asJSON(s["Principal"]), "CustomS3AutoDeleteObjects") &&
		!strings.Contains(asJSON(s["Resource"]), `"*"`)
}

// statements returns all policy statements in a resource, at any depth.
func statements(r resource) []map[string]any {
	var found []map[string]any
	var walk func(any)
	walk = func(value any) {
		switch v := value.(type) {
		case map[string]any:
			for _, s := range asList(v["Statement"]) {
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

// roleStatements returns the policy statements of the role with a logical id.
func (tpl template) roleStatements(role any) []map[string]any {
	id, _ := role.(string)
	policies := dig(tpl.body, "Resources", id, "Properties", "Policies")
	return statements(resource{properties: map[string]any{"Policies": policies}})
}

// A policy of its own would be a resource more for each role. A policy that a deploy removes must
// not have the name of the one that took its place, or the role would lose both.
func TestEachRoleHasItsPolicyInIt(t *testing.T) {
	eachMode(t, func(t *testing.T, _ string, tpl template) {
		for _, p := range tpl.resources("AWS::IAM::Policy") {
			t.Errorf("the policy %s is a resource of its own", p.id)
		}
		folded := 0
		for _, r := range tpl.resources("AWS::IAM::Role") {
			for _, p := range asList(r.get("Policies")) {
				if name, _ := dig(p, "PolicyName").(string); strings.Contains(name, "DefaultPolicy") {
					t.Errorf("the policy of %s has the name %s, as the CDK's own has", r.id, name)
				}
				if len(statements(resource{properties: map[string]any{"p": p}})) == 0 {
					t.Errorf("the policy of %s says nothing: %s", r.id, asJSON(p))
				}
				folded++
			}
		}
		if folded < 15 {
			t.Errorf("only %d roles have a policy", folded)
		}
	})
}

// The gateway invokes the functions of its routes, and no others, by their aliases.
func TestTheGatewayMayInvokeTheAliasesOfItsFunctions(t *testing.T) {
	eachMode(t, func(t *testing.T, mode string, tpl template) {
		roles := map[string]bool{}
		for _, i := range tpl.resources("AWS::ApiGatewayV2::Integration") {
			roles[fmt.Sprint(i.get("CredentialsArn", "Fn::GetAtt"))] = true
		}
		invoker := tpl.invoker(t)
		if len(roles) != 1 || !roles["["+invoker.id+" Arn]"] {
			t.Errorf("the routes invoke by the roles %v, want %s", roles, invoker.id)
		}
		allowed := allowedResources(statements(invoker), "lambda:InvokeFunction")
		for _, r := range route.All() {
			alias := ":function:" + stackName(mode) + "-" + r.Function + `:live"`
			if len(allowed) != 1 || strings.Count(allowed[0], alias) != 1 {
				t.Errorf("the gateway may invoke %v, want %s among them once", allowed, alias)
			}
		}
		for _, name := range []string{"sweep", "migrate", "outbox", "relay"} {
			if strings.Contains(asJSON(allowed), "-"+name+":") {
				t.Errorf("the gateway may invoke %s, which no route has", name)
			}
		}
	})
}

// invoker returns the role of the gateway.
func (tpl template) invoker(t *testing.T) resource {
	t.Helper()
	var found []resource
	for _, r := range tpl.resources("AWS::IAM::Role") {
		if strings.Contains(asJSON(r.get("AssumeRolePolicyDocument")), "apigateway.amazonaws.com") {
			found = append(found, r)
		}
	}
	if len(found) != 1 {
		t.Fatalf("%d roles are for the gateway, want one", len(found))
	}
	return found[0]
}

// roleOf returns the logical id of the role that a property refers to.
func roleOf(r resource, property string) any {
	arn, _ := r.get(property, "Fn::GetAtt").([]any)
	return arn[0]
}

// allowedResources returns the resources on which statements allow an action.
func allowedResources(statements []map[string]any, action string) []string {
	var found []string
	for _, s := range statements {
		if s["Effect"] == "Allow" && slices.Contains(asList(s["Action"]), any(action)) {
			found = append(found, asJSON(s["Resource"]))
		}
	}
	return found
}

// A missing permission fails no deploy, and a function would miss it only when it runs.
func TestEachFunctionMayLogReachItsDatabaseAndNoMore(t *testing.T) {
	eachMode(t, func(t *testing.T, mode string, tpl template) {
		for name, f := range tpl.functions(mode) {
			statements := tpl.roleStatements(roleOf(f, "Role"))
			group, _ := f.get("LoggingConfig", "LogGroup", "Ref").(string)
			wantAllowed(t, name, statements, "logs:PutLogEvents", []string{`"` + group + `"`})
			login, secret := tpl.databaseAccess(name, f)
			wantAllowed(t, name, statements, "rds-db:connect", login)
			if name != "deliver" { // TestEachFunctionOfTheFeedMayDoItsWorkAndNoMore checks it
				wantAllowed(t, name, statements, "secretsmanager:GetSecretValue", secret)
			}
			wantInNetwork(t, mode, name, f, statements, login != nil)
		}
	})
}

// databaseAccess returns parts of the resources on which a function needs to log in, or to read a
// secret; nil for neither.
func (tpl template) databaseAccess(name string, f resource) (login, secret []string) {
	variables, _ := f.get("Environment", "Variables").(map[string]any)
	if secretName, ok := variables["DATABASE_SECRET"].(string); ok {
		return nil, []string{":secret:" + secretName + "-??????"}
	}
	if variables["DATABASE_IAM_URL"] == nil {
		return nil, nil
	}
	switch {
	case name == "migrate":
		return []string{"DBClusterResourceId", "/" + string(roleMigrator)}, nil
	case len(tpl.resources("AWS::RDS::DBProxy")) > 0:
		return []string{"DBProxyArn", "/" + string(roleApp)}, nil
	default:
		return []string{"DBClusterResourceId", "/" + string(roleApp)}, nil
	}
}

// wantAllowed checks that the statements allow an action on one resource that has all parts, or,
// without parts, on none.
func wantAllowed(
	t *testing.T, name string, statements []map[string]any, action string, parts []string,
) {
	t.Helper()
	got := allowedResources(statements, action)
	ok := len(got) == 0
	if len(parts) > 0 {
		ok = len(got) == 1
	}
	for _, part := range parts {
		ok = ok && strings.Contains(got[0], part)
	}
	if !ok {
		t.Errorf("%s may %s on %v, want one resource with %v", name, action, got, parts)
	}
}

// wantInNetwork checks whether a function is in the network. If so, its role may manage its network
// interface, and its own code may not.
func wantInNetwork(
	t *testing.T, mode, name string, f resource, statements []map[string]any, want bool,
) {
	t.Helper()
	may := len(allowedResources(statements, "ec2:CreateNetworkInterface")) == 1
	if got := f.get("VpcConfig") != nil && may; got != want {
		t.Errorf("%s is in the network: %v, want %v", name, got, want)
	}
	denied := slices.ContainsFunc(statements, func(s map[string]any) bool {
		arn := asJSON(dig(s["Condition"], "ArnLike", "lambda:SourceFunctionArn"))
		return s["Effect"] == "Deny" &&
			slices.Contains(asList(s["Action"]), any("ec2:CreateNetworkInterface")) &&
			strings.Contains(arn, ":function:"+stackName(mode)+`-*"`)
	})
	if denied != want {
		t.Errorf("the code of %s is denied the network interface: %v, want %v", name, denied, want)
	}
}

func TestOnlyMigrateLogsInAsTheMigrator(t *testing.T) {
	eachMode(t, func(t *testing.T, _ string, tpl template) {
		for _, r := range tpl.resources("AWS::IAM::Role") {
			if !strings.HasPrefix(r.id, "Migration") &&
				strings.Contains(asJSON(r.properties), "/"+string(roleMigrator)) {
				t.Errorf("%s allows logging in as the migrator", r.id)
			}
		}
	})
}

func TestTheProxyLogsInAsTheApp(t *testing.T) {
	tpl := synth(t, "aurora-prod")
	role := roleOf(tpl.only(t, "AWS::RDS::DBProxy"), "RoleArn")
	wantAllowed(t, "the proxy", tpl.roleStatements(role), "rds-db:connect",
		[]string{"DBClusterResourceId", "/" + string(roleApp)})
}
