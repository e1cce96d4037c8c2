package main

import (
	"strings"
	"testing"
)

func TestTheMigrationRunsAfterTheDatabaseAndBeforeAnyVersion(t *testing.T) {
	eachMode(t, func(t *testing.T, mode string, tpl template) {
		trigger, migrate := tpl.trigger(t, "Migration"), tpl.functions(mode)["migrate"]
		waiting := 0
		for _, v := range tpl.resources("AWS::Lambda::Version") {
			if v.get("FunctionName", "Ref") == migrate.id {
				if handler := asJSON(trigger.get("HandlerArn")); !strings.Contains(handler, v.id) {
					t.Errorf("the trigger calls %s, want migrate's version %s", handler, v.id)
				}
				continue
			}
			if !v.dependsOn(trigger.id) {
				t.Errorf("the version %s doesn't wait for the migration", v.id)
			}
			waiting++
		}
		if want := len(functionNames(mode)) - 1; waiting != want {
			t.Errorf("%d versions wait for the migration, want %d", waiting, want)
		}
		if trigger.get("InvocationType") != "RequestResponse" ||
			trigger.get("Timeout") != "885000" && trigger.get("Timeout") != 885000.0 {
			t.Errorf("the trigger is %s, want it to wait for the answer", asJSON(trigger.properties))
		}
		if !isExternal(mode) && !trigger.dependsOn("DatabaseBootstrap") {
			t.Errorf("the migration depends on %s, want the bootstrap among it",
				asJSON(trigger.attributes["DependsOn"]))
		}
	})
}
