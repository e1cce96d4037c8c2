package main

import (
	"encoding/json"
	"strings"
	"testing"
)

// Prod's log groups stay when a deploy takes them out of the stack. A later deploy that creates
// them again fails, because their names are in use. So no setting may take one out.
func TestNoSettingTakesALogGroupOutOfProd(t *testing.T) {
	for name, test := range map[string]struct{ most, least map[string]string }{
		"a cluster": {
			modes["aurora-prod"], map[string]string{"env": "prod", "events": "off", "smoke": "off"},
		},
		"an external database": {
			map[string]string{"env": "prod", "db": "external", "cdn": "on", "waf": "on"},
			map[string]string{"env": "prod", "db": "external", "events": "off", "smoke": "off"},
		},
	} {
		most, least := synthesizeWith(t, test.most), draftOf(t, test.least)
		for _, lost := range lostLogGroups(most, least) {
			t.Errorf("%s: the settings take the log group %s out of the stack", name, lost)
		}

		// This is the control.
		var without template
		if err := json.Unmarshal(least.json, &without.body); err != nil {
			t.Fatal(err)
		}
		for _, group := range without.resources("AWS::Logs::LogGroup") {
			if strings.HasPrefix(group.id, "Smoke") {
				delete(asMap(without.body["Resources"]), group.id)
			}
		}
		if found := lostLogGroups(most, without); len(found) != 1 {
			t.Errorf("%s: without the log group of smoke the test finds %v", name, found)
		}
	}
}

// lostLogGroups returns the kept log groups of a template that another one lacks or names
// otherwise.
func lostLogGroups(of, in template) (lost []string) {
	names := map[string]any{}
	for _, group := range in.resources("AWS::Logs::LogGroup") {
		names[group.id] = group.get("LogGroupName")
	}
	for _, group := range of.resources("AWS::Logs::LogGroup") {
		isKept := group.attributes["DeletionPolicy"] == "RetainExceptOnCreate"
		if name := group.get("LogGroupName"); isKept && names[group.id] != name {
			lost = append(lost, group.id)
		}
	}
	return lost
}
