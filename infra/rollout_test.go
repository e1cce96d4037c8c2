package main

import (
	"slices"
	"strings"
	"testing"
)

func TestProdRollsOutByCanaryAndDevAtOnce(t *testing.T) {
	eachMode(t, func(t *testing.T, mode string, tpl template) {
		groups := tpl.resources("AWS::CodeDeploy::DeploymentGroup")
		want := 0
		if isProd(mode) {
			want = len(functionNames()) - 2 // all but sweep and migrate
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
			if want := isProd(mode) && strings.HasPrefix(a.id, "Functions"); byCanary != want {
				t.Errorf("CodeDeploy moves the alias %s: %v, want %v", a.id, byCanary, want)
			}
		}
	})
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
		own := func(alarm string) bool {
			name := strings.ReplaceAll(strings.TrimPrefix(alarm, "Errors-"), "-", "")
			rest, ok := strings.CutPrefix(g.id, "Rollout"+name)
			return ok && len(rest) == len("12345678")
		}
		if len(got) != 2 || got[0] != "ApiErrors" || !own(got[1]) {
			t.Errorf("the rollout %s watches %v", g.id, got)
		}
	}
}
