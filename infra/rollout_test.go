package main

import (
	"slices"
	"strings"
	"testing"
)

func TestAStackRollsOutByCanaryOrAtOnce(t *testing.T) {
	eachMode(t, func(t *testing.T, mode string, tpl template) {
		groups := tpl.resources("AWS::CodeDeploy::DeploymentGroup")
		want := 0
		if usesCanary(mode) {
			want = len(shoppersFunctions())
		}
		if len(groups) != want {
			t.Errorf("%d functions roll out by canary, want %d", len(groups), want)
		}
		for _, g := range groups {
			config := asJSON(g.get("DeploymentConfigName"))
			if !strings.Contains(config, "Canary10Percent5Minutes") {
				t.Errorf("%s rolls out by %s", g.id, config)
			}
			rollback := asJSON(g.get("AutoRollbackConfiguration"))
			for _, part := range []string{
				`"Enabled":true`, "DEPLOYMENT_FAILURE", "DEPLOYMENT_STOP_ON_REQUEST",
				"DEPLOYMENT_STOP_ON_ALARM",
			} {
				if !strings.Contains(rollback, part) {
					t.Errorf("%s rolls back by %s, want %s in it", g.id, rollback, part)
				}
			}
		}
		// The alias's update policy hands its moves to CodeDeploy.
		for _, a := range tpl.resources("AWS::Lambda::Alias") {
			byCanary := dig(a.attributes, "UpdatePolicy", "CodeDeployLambdaAliasUpdate") != nil
			want := usesCanary(mode) && slices.ContainsFunc(shoppersFunctions(),
				func(name string) bool {
					return strings.HasPrefix(a.id, "Functions"+strings.ReplaceAll(name, "-", "")+"Alias")
				})
			if byCanary != want {
				t.Errorf("CodeDeploy moves the alias %s: %v, want %v", a.id, byCanary, want)
			}
		}
	})
}

// shoppersFunctions returns the names of the functions that roll out by canary: those on which a
// sale depends. They are written out, so that one lost from them is found.
func shoppersFunctions() []string {
	return []string{
		"list-products", "list-warehouses", "reserve", "get-reservation", "confirm", "release",
		"extend", "start-payment", "fail-payment", "web",
	}
}

func TestARolloutWatchesItsOwnFunctionAndTheAPI(t *testing.T) {
	const mode = "aurora-prod"
	tpl := synth(t, mode)
	names := map[string]string{}
	for name, a := range tpl.alarms(mode) {
		names[a.id] = name
	}
	for _, g := range tpl.resources("AWS::CodeDeploy::DeploymentGroup") {
		var got []string
		for _, a := range asList(g.get("AlarmConfiguration", "Alarms")) {
			id, _ := dig(a, "Name", "Ref").(string)
			got = append(got, names[id])
		}
		slices.Sort(got)
		// A logical id has the function's name without its hyphens, and then a hash.
		own := func(alarm, kind string) bool {
			function, isKind := strings.CutPrefix(alarm, kind+"-")
			name := strings.ReplaceAll(function, "-", "")
			rest, ok := strings.CutPrefix(g.id, "Rollout"+name)
			return isKind && ok && len(rest) == len("12345678")
		}
		if len(got) != 2 || got[0] != "ApiErrors" || !own(got[1], "Errors") {
			t.Errorf("the rollout %s watches %v", g.id, got)
		}
	}
}

// CodeDeploy starts no canary while one of its alarms rings. So a hotfix must not go through it.
// The rest of the stack stays as it is.
func TestAHotfixGoesPastTheCanaryAndChangesNothingElse(t *testing.T) {
	canary := contents(t, synth(t, "aurora-prod"))
	hotfix := contents(t, draftOf(t, with(modes["aurora-prod"], "rollout", "now")))
	for key, content := range canary {
		isCanarys := strings.HasPrefix(key, "AWS::CodeDeploy::") || strings.Contains(key, " Rollout")
		other, there := hotfix[key]
		switch {
		case isCanarys == there:
			t.Errorf("%s is in the hotfix's template: %t, want the rest without the canary", key, there)
		case strings.HasPrefix(key, "AWS::Lambda::Alias "):
			if strings.Contains(other, "CodeDeploy") {
				t.Errorf("CodeDeploy moves %s: %s", key, other)
			}
		case there && other != content:
			t.Errorf("the hotfix changes %s:\n%s", key, other)
		}
		delete(hotfix, key)
	}
	for key := range hotfix {
		t.Errorf("the hotfix adds %s", key)
	}
}

// contents returns what CloudFormation acts on in each entry of a template, by kind and id.
func contents(t *testing.T, tpl template) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, e := range mustEntries(t, string(tpl.json)) {
		all[e.kind+" "+e.id] = e.content
	}
	return all
}
