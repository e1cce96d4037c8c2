package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
)

// sharers are the functions that share a role, by its kind. They are written out, so that a
// function that gets the rights of others is found.
func sharers() map[rights][]string {
	return map[rights][]string{
		appRights: {
			"cancel", "erase-owner", "health", "history", "list-events", "list-movements",
			"list-reservations", "list-stock", "move-stock", "put-products", "put-warehouses",
			"return-goods", "stats",
		},
		noRights: {"grant-scopes", "live", "live-authorizer"},
	}
}

// officeFunctions are the functions that share a log group.
func officeFunctions() []string {
	return slices.Concat(append(slices.Collect(maps.Values(sharers())), withOwnRights)...)
}

// sharing returns the names of the functions that have the same role, one list for each role. It
// returns problems for a role with two statements of one name, which IAM refuses.
func (tpl template) sharing(mode string) (shared [][]string, problems []string) {
	byRole := map[string][]string{}
	for name, f := range tpl.functions(mode) {
		role := fmt.Sprint(roleOf(f, "Role"))
		byRole[role] = append(byRole[role], name)
	}
	for role, names := range byRole {
		slices.Sort(names)
		shared = append(shared, names)
		seen := map[any]bool{}
		for _, s := range tpl.roleStatements(role) {
			if id := s["Sid"]; id != nil && seen[id] {
				problems = append(problems, fmt.Sprintf("the role %s has %v twice", role, id))
			}
			seen[s["Sid"]] = true
		}
	}
	slices.SortFunc(shared, slices.Compare)
	return shared, problems
}

// wantSharing returns the lists that sharing must return.
func wantSharing(mode string) (want [][]string) {
	all := functionNames(mode)
	for _, names := range sharers() {
		there := slices.DeleteFunc(names, func(name string) bool { return !slices.Contains(all, name) })
		want = append(want, there)
		all = slices.DeleteFunc(all, func(name string) bool { return slices.Contains(there, name) })
	}
	for _, name := range all {
		want = append(want, []string{name})
	}
	slices.SortFunc(want, slices.Compare)
	return want
}

func TestOnlyFunctionsWithEqualRightsShareARole(t *testing.T) {
	eachMode(t, func(t *testing.T, mode string, tpl template) {
		got, problems := tpl.sharing(mode)
		if diff := gocmp.Diff(wantSharing(mode), got); diff != "" {
			t.Errorf("the functions of each role (-want +got):\n%s", diff)
		}
		for _, problem := range problems {
			t.Error(problem)
		}
	})
}

// These are the controls of the test above.
func TestAFunctionWithTheRightsOfOthersIsFound(t *testing.T) {
	const mode = "aurora-prod"
	tpl := synth(t, mode)
	role := func(name string) string { return fmt.Sprint(roleOf(tpl.functions(mode)[name], "Role")) }
	for _, change := range [][2]string{
		{"live", "move-stock"}, {"list-webhooks", "redeliver-webhook"}, {"confirm", "reserve"},
	} {
		old, other := role(change[0]), role(change[1])
		got, _ := changed(t, tpl, `"Role":{"Fn::GetAtt":["`+old+`"`,
			`"Role":{"Fn::GetAtt":["`+other+`"`).sharing(mode)
		if gocmp.Diff(wantSharing(mode), got) == "" {
			t.Errorf("%s may have the role of %s", change[0], change[1])
		}
	}
	twice := changed(t, tpl, `"Sid":"LambdaHandlesTheNetworkInterface"`, `"Sid":"TheCodeDoesNot"`)
	if _, problems := twice.sharing(mode); len(problems) == 0 {
		t.Error("a role may have two statements of one name")
	}
}

// The proxy shares the few connections of the writer and of the reader. The migration needs a
// session of its own, and so does the audit.
func TestOnlyTheSweeperAndTheMigrationMayLogInPastTheProxy(t *testing.T) {
	const mode = "aurora-prod"
	tpl := synth(t, mode)
	for name, f := range tpl.functions(mode) {
		logins := strings.Join(
			allowedResources(tpl.roleStatements(roleOf(f, "Role")), "rds-db:connect"), "")
		past := strings.Contains(logins, "DBClusterResourceId")
		if want := name == "sweep" || name == "migrate"; past != want {
			t.Errorf("%s may log in past the proxy: %t, want %t", name, past, want)
		}
	}
}
