package main

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"
)

// A deploy of prod with db=external by mistake takes the whole database out of the stack. What the
// database needs must stay, with its data.
func TestADeployWithAnotherDatabaseDeletesNothingOfProds(t *testing.T) {
	before := synth(t, "aurora-direct")
	after := draftOf(t, with(modes["aurora-direct"], "db", "external", "dbProxy", "",
		"readerLag", "", "minAcu", ""))
	for _, problem := range deletedData(before, after) {
		t.Error(problem)
	}

	// These are the controls.
	for _, kind := range []string{
		"AWS::RDS::DBCluster", "AWS::RDS::DBInstance", "AWS::RDS::DBSubnetGroup", "AWS::EC2::Subnet",
	} {
		for _, attribute := range []string{"DeletionPolicy", "UpdateReplacePolicy"} {
			var tpl template // a copy
			if err := json.Unmarshal(before.json, &tpl.body); err != nil {
				t.Fatal(err)
			}
			tpl.resources(kind)[0].attributes[attribute] = "Snapshot"
			if len(deletedData(tpl, after)) == 0 {
				t.Errorf("the test accepts the %s Snapshot of %s", attribute, kind)
			}
		}
	}
	for _, r := range synth(t, "aurora-dev").resources("") {
		isKept := r.attributes["DeletionPolicy"] == "RetainExceptOnCreate"
		if slices.Contains(keptKinds, r.kind) && isKept {
			t.Errorf("%s of dev stays when its stack is deleted", r.id)
		}
	}
}

// deletedData says what of the database a deploy deletes that changes one template to another.
func deletedData(before, after template) (found []string) {
	stays := map[string]bool{}
	for _, r := range after.resources("") {
		stays[r.id] = true
	}
	gone := 0
	for _, r := range before.resources("") {
		ofCluster := r.kind != "AWS::EC2::SecurityGroup" || strings.HasPrefix(r.id, "DatabaseCluster")
		if stays[r.id] || !slices.Contains(keptKinds, r.kind) || !ofCluster {
			continue
		}
		gone++
		if r.attributes["DeletionPolicy"] != "RetainExceptOnCreate" ||
			r.attributes["UpdateReplacePolicy"] != "Retain" {
			found = append(found, "the deploy deletes "+r.id)
		}
	}
	if gone < len(keptKinds) {
		found = append(found, "the deploy takes less than a database out of the stack")
	}
	return found
}

// The policy that an operator sets on prod's stack refuses such a deploy before it begins.
func TestTheStackPolicyGuardsWhatIsKept(t *testing.T) {
	t.Parallel()

	source, err := os.ReadFile("stack-policy.json")
	if err != nil {
		t.Fatal(err)
	}
	var policy struct {
		Statement []struct {
			Effect    string
			Action    any
			Condition struct {
				StringEquals struct{ ResourceType []string }
			}
		}
	}
	if err := json.Unmarshal(source, &policy); err != nil {
		t.Fatal(err)
	}
	var guarded []string
	for _, s := range policy.Statement {
		if s.Effect == "Deny" && asJSON(s.Action) == `["Update:Delete","Update:Replace"]` {
			guarded = append(guarded, s.Condition.StringEquals.ResourceType...)
		}
	}
	for _, kind := range keptKinds {
		// A security group is replaced when its description changes, which no data depends on.
		if kind != "AWS::EC2::SecurityGroup" && !slices.Contains(guarded, kind) {
			t.Errorf("the stack policy lets a deploy delete %s", kind)
		}
	}
}
