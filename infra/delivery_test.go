package main

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// delivered is a context with everything that the delivery stack can have.
func delivered() map[string]string {
	return map[string]string{
		"account": "123456789012", "region": "eu-central-1", "cdn": "on", "drift": "on",
		"githubRepo": "Shop@1234/reservations@5678",
	}
}

func TestTheDefaultAppHasOneStack(t *testing.T) {
	if n := len(synthesizeApp(t, modes["aurora-dev"]).stacks); n != 1 {
		t.Errorf("the defaults make %d stacks: a plain cdk deploy would ask which one is meant", n)
	}
	drift := with(modes["external-dev"], "drift", "on")
	if n := len(draft.synthesize(t, drift).stacks); n != 2 {
		t.Errorf("with drift=on there are %d stacks, want the service's and the delivery's", n)
	}
}

// With a pattern or another subject, a workflow of another repository or branch could take a role.
func TestTheRolesTrustOneSubjectEach(t *testing.T) {
	tpl := synthesizeDelivery(t, delivered())
	for _, problem := range tpl.trustProblems() {
		t.Error(problem)
	}
	for _, change := range []struct{ old, replacement string }{
		{`:environment:dev"`, `:environment:*"`},
		{`:pull_request"`, `:ref:refs/heads/main"`},
		{"repo:Shop@1234/", "repo:Shop/"},
		{`"StringEquals":{"token`, `"StringLike":{"token`},
		{`"sts.amazonaws.com"`, `"https://github.com/Shop"`},
		{githubHost + ":sub", githubHost + ":actor"},
	} {
		if len(changed(t, tpl, change.old, change.replacement).trustProblems()) == 0 {
			t.Errorf("the test accepts %s", change.replacement)
		}
	}
	without := delivered()
	without["githubRepo"] = "shop/reservations"
	if text := asJSON(synthesizeDelivery(t, without).body); !strings.Contains(
		text, `"repo:shop/reservations:environment:dev"`) {
		t.Errorf("a repository without ids isn't named as its tokens name it: %s", text)
	}
}

// trustProblems says what is wrong with who may take the pipeline's roles.
func (tpl template) trustProblems() (found []string) {
	for role, context := range map[string]string{
		"Diff": "pull_request", "Deploy": "environment:dev",
	} {
		trust := asJSON(tpl.role(role).get("AssumeRolePolicyDocument", "Statement"))
		want := `"Action":"sts:AssumeRoleWithWebIdentity","Condition":{"StringEquals":{` +
			`"` + githubHost + `:aud":"sts.amazonaws.com","` + githubHost +
			`:sub":"repo:Shop@1234/reservations@5678:` + context + `"}},"Effect":"Allow"`
		if strings.Count(trust, `"Effect"`) != 1 || !strings.Contains(trust, want) {
			found = append(found, fmt.Sprintf("the role %s trusts %s", role, trust))
		}
	}
	return found
}

// role returns the role whose logical id begins with an id and the CDK's hash.
func (tpl template) role(id string) resource {
	for _, r := range tpl.resources("AWS::IAM::Role") {
		if strings.HasPrefix(r.id, id) && len(r.id) == len(id)+8 {
			return r
		}
	}
	return resource{}
}

// The code of any branch runs with the role of pull requests, so it may only read templates.
func TestThePipelinesRolesMayDoNoMoreThanTheyNeed(t *testing.T) {
	tpl := synthesizeDelivery(t, delivered())
	for _, problem := range tpl.rightsProblems() {
		t.Error(problem)
	}
	for _, change := range []struct{ old, replacement string }{
		{`"cloudformation:GetTemplate"`, `"cloudformation:*"`},
		{`:stack/allo-dev/*"`, `:stack/*"`},
		{"role/cdk-hnb659fds-deploy-role-123456789012-eu-central-1", "role/*"},
		{"cdk-hnb659fds-file-publishing-role-", "cdk-hnb659fds-cfn-exec-role-"},
		{`"sts:AssumeRole"`, `["sts:AssumeRole","iam:PassRole"]`},
	} {
		if len(changed(t, tpl, change.old, change.replacement).rightsProblems()) == 0 {
			t.Errorf("the test accepts %s", change.replacement)
		}
	}
	copied := delivered()
	copied["cdn"], copied["backupRegion"] = "off", "eu-west-1"
	regions := asJSON(synthesizeDelivery(t, copied).role("Deploy").properties)
	if !strings.Contains(regions, "-deploy-role-123456789012-eu-west-1") ||
		strings.Contains(regions, "us-east-1") {
		t.Errorf("the role may deploy to other regions than the stacks': %s", regions)
	}
	other := delivered()
	other["@aws-cdk/core:bootstrapQualifier"] = "shop"
	if text := asJSON(synthesizeDelivery(t, other).role("Deploy").properties); !strings.Contains(
		text, "cdk-shop-deploy-role-") {
		t.Errorf("the roles of another bootstrap aren't named: %s", text)
	}
}

// rightsProblems says what the pipeline's roles may do that they needn't.
func (tpl template) rightsProblems() (found []string) {
	const (
		frankfurt, virginia = ":cloudformation:eu-central-1", ":cloudformation:us-east-1"
		stack               = ":123456789012:stack/allo-dev"
		role                = "arn:aws:iam::123456789012:role/cdk-hnb659fds-"
		here, there         = "-role-123456789012-eu-central-1", "-role-123456789012-us-east-1"
	)
	want := map[string]struct{ actions, resources []string }{
		"Diff": {
			[]string{
				"cloudformation:DescribeStacks", "cloudformation:GetTemplate",
				"ec2:DescribeAvailabilityZones",
			},
			[]string{
				"arn:aws" + frankfurt + stack + "-*/*", "arn:aws" + frankfurt + stack + "/*",
				"arn:aws" + virginia + stack + "-*/*", "arn:aws" + virginia + stack + "/*", "*",
			},
		},
		"Deploy": {
			[]string{"sts:AssumeRole", "ec2:DescribeAvailabilityZones"},
			[]string{
				role + "deploy" + here, role + "deploy" + there,
				role + "file-publishing" + here, role + "file-publishing" + there, "*",
			},
		},
	}
	for id, w := range want {
		var actions, resources []string
		for _, policy := range asList(tpl.role(id).get("Policies")) {
			for _, statement := range asList(dig(policy, "PolicyDocument", "Statement")) {
				for _, action := range asList(dig(statement, "Action")) {
					actions = append(actions, fmt.Sprint(action))
				}
				for _, arn := range asList(dig(statement, "Resource")) {
					resources = append(resources, fmt.Sprint(arn))
				}
			}
		}
		if !slices.Equal(actions, w.actions) || !slices.Equal(resources, w.resources) {
			found = append(found, fmt.Sprintf("the role %s may %v on %v", id, actions, resources))
		}
		if extra := tpl.role(id).get("ManagedPolicyArns"); extra != nil {
			found = append(found, fmt.Sprintf("the role %s has managed policies: %v", id, extra))
		}
	}
	return found
}

// STS refuses a session that is longer than its role allows.
func TestTheRolesLastAsLongAsTheirJobs(t *testing.T) {
	tpl := synthesizeDelivery(t, delivered())
	for _, problem := range tpl.sessionProblems(t) {
		t.Error(problem)
	}
	short := changed(t, tpl, fmt.Sprintf(`"MaxSessionDuration":%d`, deploySession),
		`"MaxSessionDuration":3600`)
	if found := short.sessionProblems(t); len(found) != 2 {
		t.Errorf("with a role of an hour the test finds %v, want the jobs of dev and prod", found)
	}
}

// sessionProblems says which jobs of the workflows ask for a longer session than their role allows.
// Package workflows checks that they ask for as long as they may run.
func (tpl template) sessionProblems(t *testing.T) (found []string) {
	t.Helper()
	const byDefault = 3600.0 // of a role's MaxSessionDuration
	for workflow, role := range map[string]string{"diff": "Diff", "deploy": "Deploy"} {
		allowed, ok := tpl.role(role).get("MaxSessionDuration").(float64)
		if !ok {
			allowed = byDefault
		}
		asked := sessions(t, "../.github/workflows/"+workflow+".yml")
		if len(asked) != 2 {
			found = append(found, fmt.Sprintf("%s: %d jobs take a role", workflow, len(asked)))
		}
		for job, seconds := range asked {
			if seconds < 1 || seconds > allowed {
				found = append(found, fmt.Sprintf("%s: the job %s asks for %v seconds, and %s allows %v",
					workflow, job, seconds, role, allowed))
			}
		}
	}
	return found
}

// sessions returns how many seconds each job of a workflow asks to have its role.
func sessions(t *testing.T, path string) map[string]float64 {
	t.Helper()
	source, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var workflow struct {
		Jobs map[string]struct {
			Steps []struct {
				Uses string
				With struct{ Seconds float64 }
			}
		}
	}
	if err := yaml.Unmarshal(source, &workflow); err != nil {
		t.Fatal(err)
	}
	asked := map[string]float64{}
	for job, j := range workflow.Jobs {
		for _, s := range j.Steps {
			if s.Uses == "./.github/actions/aws" {
				asked[job] = s.With.Seconds
			}
		}
	}
	return asked
}

// An account can have one provider for GitHub, so a stack that is deleted mustn't take it along.
func TestTheProviderOfTheAccountStays(t *testing.T) {
	provider := synthesizeDelivery(t, delivered()).only(t, "AWS::IAM::OIDCProvider")
	if got := provider.attributes["DeletionPolicy"]; got != "RetainExceptOnCreate" {
		t.Errorf("the provider's deletion policy is %v", got)
	}
	if got := asJSON(provider.get("Url")); got != `"https://token.actions.githubusercontent.com"` {
		t.Errorf("the provider's URL is %s", got)
	}
	with := delivered()
	arn := "arn:aws:iam::123456789012:oidc-provider/" + githubHost
	with["githubProvider"] = arn
	tpl := synthesizeDelivery(t, with)
	if made := tpl.resources("AWS::IAM::OIDCProvider"); len(made) != 0 {
		t.Errorf("the stack makes a provider beside %s", arn)
	}
	if trust := asJSON(tpl.role("Deploy").get("AssumeRolePolicyDocument")); !strings.Contains(
		trust, `{"Federated":"`+arn+`"}`) {
		t.Errorf("the role trusts %s", trust)
	}
}

func TestTheDeliveryStackIsClean(t *testing.T) {
	for _, env := range []string{"dev", "prod"} {
		context := delivered()
		context["env"], context["permissionsBoundary"] = env, "boundary"
		tpl := synthesizeDelivery(t, context)
		for _, warning := range tpl.warnings {
			t.Error(warning)
		}
		if tpl.protected != (env == "prod") {
			t.Errorf("%s: termination protection is %v", env, tpl.protected)
		}
		for _, r := range tpl.resources("AWS::IAM::Role") {
			if !strings.Contains(asJSON(r.get("PermissionsBoundary")), "policy/boundary") {
				t.Errorf("the role %s has no permissions boundary", r.id)
			}
		}
	}
}

func TestAShellThatPointsElsewhereIsRefused(t *testing.T) {
	t.Parallel()

	const account, region = "123456789012", "eu-central-1"
	pinned := Settings{Account: account, Region: region}
	for name, test := range map[string]struct {
		settings        Settings
		account, region string
		want            []string
	}{
		"as pinned":         {pinned, account, region, nil},
		"no credentials":    {pinned, "", "us-east-1", nil},
		"nothing pinned":    {Settings{}, "999999999999", "us-east-1", nil},
		"the region pinned": {Settings{Region: region}, "999999999999", region, nil},
		"copies in another region": {
			Settings{Disaster: Disaster{BackupRegion: "eu-west-1"}}, account, region, nil,
		},
		"copies in the same region": {
			Settings{Disaster: Disaster{BackupRegion: region}},
			account, region,
			[]string{"backupRegion is " + region},
		},
		"another account": {
			pinned, "999999999999", region, []string{"account 999999999999", "account is " + account},
		},
		"another region": {pinned, account, "us-east-1", []string{"AWS_REGION=" + region}},
		"both": {
			pinned, "999999999999", "us-east-1", []string{"account is " + account, "AWS_REGION=" + region},
		},
	} {
		err := test.settings.checkShell(func(name string) string {
			return map[string]string{
				"CDK_DEFAULT_ACCOUNT": test.account, "CDK_DEFAULT_REGION": test.region,
			}[name]
		})
		if (err != nil) != (test.want != nil) {
			t.Errorf("%s: checkShell = %v", name, err)
		}
		for _, part := range test.want {
			if !strings.Contains(fmt.Sprint(err), part) {
				t.Errorf("%s: checkShell = %v, want %q in it", name, err, part)
			}
		}
	}
}

func TestInvalidSettingsOfTheDeliveryAreRefused(t *testing.T) {
	t.Parallel()

	provider := "arn:aws:iam::123456789012:oidc-provider/" + githubHost
	for name, test := range map[string]struct {
		context map[string]any
		want    string
	}{
		"no owner":   {map[string]any{"githubRepo": "reservations"}, "githubRepo is"},
		"a pattern":  {map[string]any{"githubRepo": "shop/*"}, "githubRepo is"},
		"a URL":      {map[string]any{"githubRepo": "https://github.com/shop/app"}, "githubRepo is"},
		"a subject":  {map[string]any{"githubRepo": "shop/app:pull_request"}, "githubRepo is"},
		"one id":     {map[string]any{"githubRepo": "shop@1/app"}, "the ids of both"},
		"drift=true": {map[string]any{"drift": "true"}, "drift is"},
		"a provider of nothing": {
			map[string]any{"githubProvider": provider}, "githubProvider is for githubRepo",
		},
		"another issuer": {
			map[string]any{
				"githubRepo": "shop/app", "githubProvider": strings.ReplaceAll(provider, "token", "x"),
			},
			"githubProvider is",
		},
		"another account's provider": {
			map[string]any{
				"githubRepo": "shop/app", "githubProvider": provider, "account": "999999999999",
			},
			"must be of the account 999999999999",
		},
	} {
		_, err := ReadSettings(test.context)
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: ReadSettings = %v, want %q in it", name, err, test.want)
		}
	}
	s, err := ReadSettings(map[string]any{
		"githubRepo": "shop/app", "githubProvider": provider, "drift": "on", "account": "123456789012",
	})
	if err != nil || s.Delivery != (Delivery{"shop/app", provider, true}) {
		t.Errorf("ReadSettings = %+v, %v", s.Delivery, err)
	}
}
