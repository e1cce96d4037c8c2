package main

import (
	"cmp"
	"maps"
	"slices"
	"testing"
	"time"
	"unicode/utf8"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/allo/reservations/internal/httpapi"
	"github.com/allo/reservations/internal/migrate"
)

func TestEveryFunctionHasItsRuntimeAndCode(t *testing.T) {
	eachMode(t, func(t *testing.T, mode string, tpl template) {
		functions := tpl.functions(mode)
		want := functionNames(mode)
		if got := slices.Sorted(maps.Keys(functions)); !slices.Equal(got, want) {
			t.Errorf("the functions are %v, want %v", got, want)
		}
		owners := map[string]string{}
		for name, f := range functions {
			code := asJSON(f.get("Code"))
			if owners[code] != "" {
				t.Errorf("%s and %s share %s", name, owners[code], code)
			}
			owners[code] = name
			want := map[string]any{
				"Runtime": "provided.al2023", "Handler": "bootstrap", "MemorySize": 256.0,
				"Architectures": []any{cmp.Or(modes[mode]["arch"], "arm64")},
				"TracingConfig": traced(mode), "RecursiveLoop": "Terminate",
			}
			for property, value := range want {
				if diff := gocmp.Diff(value, f.get(property)); diff != "" {
					t.Errorf("%s: %s (-want +got):\n%s", name, property, diff)
				}
			}
			if level := f.get("LoggingConfig", "SystemLogLevel"); level != "WARN" {
				t.Errorf("%s: Lambda's own lines are of the level %v and above", name, level)
			}
			wantConcurrency := any(nil)
			if name == "sweep" && modes[mode]["sweeperConcurrency"] == "1" {
				wantConcurrency = 1.0
			}
			if mode == "aurora-direct" && isPayment(name) {
				wantConcurrency = 20.0
			}
			if got := f.get("ReservedConcurrentExecutions"); got != wantConcurrency {
				t.Errorf("%s reserves a concurrency of %v, want %v", name, got, wantConcurrency)
			}
		}
	})
}

// traced returns the tracing of a mode's functions: none by default, so that X-Ray, which charges
// for each trace, records nothing.
func traced(mode string) any {
	if modes[mode]["tracing"] == "on" {
		return map[string]any{"Mode": "Active"}
	}
	return nil
}

// maxDescription is Lambda's limit for a function's description, in characters. Only a deploy would
// find a longer one.
const maxDescription = 256

func TestEveryFunctionsDescriptionIsWithinLambdasLimit(t *testing.T) {
	eachMode(t, func(t *testing.T, mode string, tpl template) {
		for name, f := range tpl.functions(mode) {
			description, _ := f.get("Description").(string)
			if n := utf8.RuneCountInString(description); n == 0 || n > maxDescription {
				t.Errorf("the description of %s has %d characters, want 1 to %d: %s",
					name, n, maxDescription, description)
			}
		}
	})
}

// Old versions are the way back, so an update keeps them. A version from a failed deploy would make
// the next deploy fail, so it goes.
func TestVersionsAreKeptUnlessTheirDeployFails(t *testing.T) {
	eachMode(t, func(t *testing.T, _ string, tpl template) {
		for _, v := range tpl.resources("AWS::Lambda::Version") {
			if v.attributes["DeletionPolicy"] != "RetainExceptOnCreate" {
				t.Errorf("the deletion policy of %s is %v", v.id, v.attributes["DeletionPolicy"])
			}
		}
	})
}

// The environment is exact, so a lost variable fails the test and so does one with a password.
func TestEveryFunctionHasExactlyItsVariables(t *testing.T) {
	eachMode(t, func(t *testing.T, mode string, tpl template) {
		for name, f := range tpl.functions(mode) {
			got, _ := f.get("Environment", "Variables").(map[string]any)
			want := wantVariables(mode, name)
			if url, ok := got["DATABASE_IAM_URL"]; ok && want["DATABASE_IAM_URL"] != nil {
				// TestFunctionsConnectThroughTheProxyWithoutPreparedStatements checks the value.
				want["DATABASE_IAM_URL"] = url
			}
			if _, ok := got["DATABASE_READER"]; ok && !isExternal(mode) {
				// TestReadsGoToTheReader checks the value, the mode and the name.
				want["DATABASE_READER"] = got["DATABASE_READER"]
				if lag := modes[mode]["readerLag"]; lag != "" {
					want["READER_LAG"] = lag
				}
			}
			if secrets, ok := got["ORIGIN_SECRETS"]; ok && modes[mode]["cdnOnly"] == "on" {
				// TestTheFunctionsTakeTheSecretsOfTheCDN checks the value.
				want["ORIGIN_SECRETS"] = secrets
			}
			for key, value := range want {
				if value == nil {
					want[key] = got[key] // a reference; TestTheFeedsVariablesLeadToItsResources checks it
				}
			}
			if diff := gocmp.Diff(want, got); diff != "" {
				t.Errorf("the variables of %s (-want +got):\n%s", name, diff)
			}
		}
	})
}

// databaseless are the functions that need no database.
var databaseless = []string{
	"web", "live", "list-webhooks", "redeliver-webhook", "relay", "deliver", "live-authorizer",
	"grant-scopes", "smoke",
}

func wantVariables(mode, name string) map[string]any {
	want := map[string]any{
		"DATABASE_URL": "", "METRIC_NAMESPACE": "AlloReservations/" + stackName(mode),
	}
	for key, variable := range map[string]string{
		"holdTtl": "HOLD_TTL", "maxHold": "MAX_HOLD", "stockShown": "STOCK_SHOWN",
		"retentionDays": "RETENTION_DAYS", "maxPaymentHold": "MAX_PAYMENT_HOLD",
		"maxUnits": "MAX_UNITS", "maxLines": "MAX_LINES",
	} {
		if value := modes[mode][key]; value != "" {
			want[variable] = value
		}
	}
	maps.Copy(want, wantFeedVariables(mode, name))
	maps.Copy(want, wantPagesVariables(mode, name))
	maps.Copy(want, wantSmokeVariables(mode, name))
	switch {
	case slices.Contains(databaseless, name):
	case !isExternal(mode):
		want["DATABASE_IAM_URL"] = "any"
	default:
		want["DATABASE_SECRET"] = cmp.Or(
			modes[mode]["databaseUrlSecret"], stackName(mode)+"/database-url")
	}
	if name == "migrate" {
		if secret := modes[mode]["migrateUrlSecret"]; secret != "" {
			want["DATABASE_SECRET"] = secret
		}
		if !isExternal(mode) {
			want["APP_ROLE"] = "allo_app"
		} else if role := modes[mode]["appRole"]; role != "" {
			want["APP_ROLE"] = role
		}
	}
	return want
}

func TestEachTimeoutOutlastsTheOneInsideIt(t *testing.T) {
	eachMode(t, func(t *testing.T, mode string, tpl template) {
		for _, i := range tpl.resources("AWS::ApiGatewayV2::Integration") {
			if i.get("TimeoutInMillis") != float64(gatewayTimeout*1000) {
				t.Errorf("the timeout of %s is %v ms, want %d s",
					i.id, i.get("TimeoutInMillis"), gatewayTimeout)
			}
		}
		timeouts := map[string]float64{
			"sweep": sweepTimeout, "migrate": migrateTimeout,
			"relay": relayTimeout, "deliver": deliverTimeout, "grant-scopes": poolTimeout,
			"smoke": smokeTimeout,
		}
		for name, f := range tpl.functions(mode) {
			if want := cmp.Or(timeouts[name], apiTimeout); f.get("Timeout") != want {
				t.Errorf("the timeout of %s is %v s, want %v", name, f.get("Timeout"), want)
			}
		}
	})
	api := apiTimeout * time.Second
	if httpapi.RequestTimeout >= api || migrate.StatementTimeout >= httpapi.RequestTimeout {
		t.Errorf("a function has %s, a request %s, a statement %s: each must outlast the next",
			api, httpapi.RequestTimeout, migrate.StatementTimeout)
	}
	if relayTimeout < relaySeconds+apiTimeout || relaySeconds >= 60 {
		t.Error("a run of the relay can't finish its last page")
	}
	if gatewayTimeout <= apiTimeout || triggerTimeout <= migrateTimeout ||
		smokeTriggerTimeout <= smokeTimeout || sweepTimeout >= 60 {
		t.Error("the gateway, the trigger or the minute ends before the function inside it")
	}
}

func TestEveryLogGroupHasARetentionPeriod(t *testing.T) {
	eachMode(t, func(t *testing.T, mode string, tpl template) {
		wantDays, wantPolicy := 7.0, "Delete"
		if isProd(mode) {
			wantDays, wantPolicy = 90.0, "RetainExceptOnCreate"
		}
		groups := map[string]resource{}
		for _, g := range tpl.resources("AWS::Logs::LogGroup") {
			days, policy := g.get("RetentionInDays"), g.attributes["DeletionPolicy"]
			if days != wantDays || policy != wantPolicy {
				t.Errorf("%s is kept for %v days and on deletion %v, want %v and %s",
					g.id, days, policy, wantDays, wantPolicy)
			}
			groups[g.id] = g
		}
		for _, f := range tpl.resources("AWS::Lambda::Function") {
			group, _ := f.get("LoggingConfig", "LogGroup", "Ref").(string)
			if _, ok := groups[group]; !ok {
				t.Errorf("%s logs to a group that Lambda creates and keeps for ever: %v",
					f.id, f.get("LoggingConfig"))
			}
		}
		for name, f := range tpl.functions(mode) {
			group, _ := f.get("LoggingConfig", "LogGroup", "Ref").(string)
			want := "/" + stackName(mode) + "/" + name
			if slices.Contains(officeFunctions(), name) {
				want = "/" + stackName(mode) + "/back-office"
			}
			if got := groups[group].get("LogGroupName"); got != want {
				t.Errorf("%s logs to %v, want %s", name, got, want)
			}
			if f.get("LoggingConfig", "LogFormat") != "JSON" {
				t.Errorf("the log format of %s is %v", name, f.get("LoggingConfig", "LogFormat"))
			}
		}
	})
}
