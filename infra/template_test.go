package main

import (
	"cmp"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/aws/jsii-runtime-go"

	"github.com/allo/reservations/internal/route"
)

func TestMain(m *testing.M) {
	flag.Parse()
	code := m.Run()
	jsii.Close()
	os.Exit(code)
}

// modes are the settings that the tests synthesize the stack with.
var modes = map[string]map[string]string{
	"aurora-dev": {},
	"aurora-prod": {
		"env": "prod", "auth": "jwt", "jwtIssuer": "https://issuer.example.com", "jwtAudience": "shop",
		"bus": "on", "reserveAuth": "on", "live": "on", "synthetic": "on",
		"provisioned":   "reserve:20,list-products:5",
		"alarmTopicArn": "arn:aws:sns:eu-central-1:123456789012:pager",
		"queues":        "fulfilment:allo.reservation.confirmed|allo.reservation.released,crm",
		"webhooks": `[
			{"name": "erp", "url": "https://erp.example.com/hook", "types": ["allo.stock.moved"],
			 "concurrency": 10},
			{"name": "mail", "url": "https://mail.example.com/hook", "secret": "shop/mail"}
		]`,
	},
	"aurora-direct": {
		"env": "prod", "dbProxy": "off", "auth": "iam", "rollout": "now", "reserveAuth": "on",
		"tracing":   "on",
		"readerLag": "2s",
		"minAcu":    "8", "provisioned": "reserve:50,confirm:5", "sale": "2026-12-24T08:00/4h",
		"confirmConcurrency": "20", "reserveRate": "300", "reserveBurst": "600",
	},
	"aurora-console": {
		"auth": "cognito", "jwtAudience": "erp1,erp2", "events": "on", "live": "on", "cdn": "on",
		"synthetic": "on", "syntheticSku": "CANARY",
	},
	"external-dev": {
		"db": "external", "arch": "x86_64", "rollout": "canary", "events": "off", "queues": "crm",
		"smoke": "off",
	},
	"external-prod": {
		"db": "external", "env": "prod", "auth": "iam", "sweeper": "off",
		"databaseUrlSecret": "shop/db", "migrateUrlSecret": "shop/migrate", "appRole": "shop",
		"corsOrigins": "https://shop.example.com",
		"domainName":  "api.example.com", "hostedZoneId": "Z123", "hostedZoneName": "example.com",
		"certificateArn": "arn:aws:acm:eu-central-1:123456789012:certificate/0",
		"cdn":            "on", "cdnDomainName": "shop.example.com",
		"cdnCertificateArn": "arn:aws:acm:us-east-1:123456789012:certificate/1",
		"cdnWebAcl":         "arn:aws:wafv2:us-east-1:123456789012:global/webacl/shop/0a",
		"cdnOnly":           "on", "cdnSecrets": "2,1",
		"alarmEmail": "ops@example.com", "owner": "checkout", "permissionsBoundary": "boundary",
		"sweeperConcurrency": "1", "holdTtl": "5m", "maxHold": "30m", "throttleRate": "50",
		"stockShown": "20", "retentionDays": "90", "maxPaymentHold": "2h", "maxUnits": "20",
		"maxLines": "10",
	},
}

// eachMode runs a test on the template of every mode.
func eachMode(t *testing.T, test func(t *testing.T, mode string, tpl template)) {
	t.Helper()
	for _, mode := range slices.Sorted(maps.Keys(modes)) {
		t.Run(mode, func(t *testing.T) { test(t, mode, synth(t, mode)) })
	}
}

// stubAssets returns a folder with a different stub of a binary for each function.
func stubAssets(t *testing.T) string {
	t.Helper()
	assets := t.TempDir()
	for _, name := range append(functionNames(""),
		"relay", "deliver", "live-authorizer", "grant-scopes") {
		dir := filepath.Join(assets, name)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "bootstrap"), []byte(name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return assets
}

// functionNames returns the names of a mode's functions, sorted: the routes', the sweeper, migrate
// and the feed's.
func functionNames(mode string) []string {
	names := []string{"sweep", "migrate", "outbox"}
	if eventsOf(mode) != EventsOff {
		names = append(names, "relay")
	}
	if modes[mode]["webhooks"] != "" {
		names = append(names, "deliver")
	}
	if modes[mode]["live"] == "on" {
		names = append(names, "live-authorizer")
	}
	if modes[mode]["auth"] == "cognito" {
		names = append(names, "grant-scopes")
	}
	if modes[mode]["smoke"] != "off" || modes[mode]["synthetic"] == "on" {
		names = append(names, "smoke")
	}
	for _, r := range route.All() {
		names = append(names, r.Function)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// resource is a resource of a template.
type resource struct {
	id, kind   string
	properties map[string]any
	// attributes has everything beside the properties too, such as DependsOn.
	attributes map[string]any
}

// resources returns the resources of a kind, sorted by id; of every kind if kind is empty.
func (tpl template) resources(kind string) []resource {
	all, _ := tpl.body["Resources"].(map[string]any)
	var found []resource
	for id, value := range all {
		attributes, _ := value.(map[string]any)
		if attributes["Type"] == kind || kind == "" {
			properties, _ := attributes["Properties"].(map[string]any)
			found = append(found, resource{
				id: id, kind: fmt.Sprint(attributes["Type"]),
				properties: properties, attributes: attributes,
			})
		}
	}
	slices.SortFunc(found, func(a, b resource) int { return strings.Compare(a.id, b.id) })
	return found
}

// only returns the one resource of a kind.
func (tpl template) only(t *testing.T, kind string) resource {
	t.Helper()
	found := tpl.resources(kind)
	if len(found) != 1 {
		t.Fatalf("the template has %d resources of type %s, want one", len(found), kind)
	}
	return found[0]
}

// functions returns our functions by their names without the stack's name.
func (tpl template) functions(mode string) map[string]resource {
	named := map[string]resource{}
	for _, f := range tpl.resources("AWS::Lambda::Function") {
		if name, ok := f.properties["FunctionName"].(string); ok {
			named[strings.TrimPrefix(name, stackName(mode)+"-")] = f
		}
	}
	return named
}

// alarms returns the alarms that notify somebody, by their names without the stack's name. The
// others are the windows of the objectives (slo_test.go).
func (tpl template) alarms(mode string) map[string]resource {
	named := map[string]resource{}
	all := append(tpl.resources("AWS::CloudWatch::Alarm"),
		tpl.resources("AWS::CloudWatch::CompositeAlarm")...)
	for _, a := range all {
		name, _ := a.get("AlarmName").(string)
		name = strings.TrimPrefix(name, stackName(mode)+"-")
		if !windowOfObjective.MatchString(name) {
			named[name] = a
		}
	}
	return named
}

// outputs returns the outputs as JSON.
func (tpl template) outputs() string { return asJSON(tpl.body["Outputs"]) }

// get follows keys into the resource's properties. It returns nil if there is no value.
func (r resource) get(keys ...string) any { return dig(r.properties, keys...) }

// dig follows keys into a JSON value. It returns nil if there is no value.
func dig(value any, keys ...string) any {
	for _, key := range keys {
		object, ok := value.(map[string]any)
		if !ok {
			return nil
		}
		value = object[key]
	}
	return value
}

// dependsOn reports whether the resource's DependsOn has an id that contains part.
func (r resource) dependsOn(part string) bool {
	return strings.Contains(asJSON(r.attributes["DependsOn"]), part)
}

// asJSON encodes a value for comparing and searching.
func asJSON(value any) string {
	out, err := json.Marshal(value)
	if err != nil {
		panic(err)
	}
	return string(out)
}

// asList returns a value that CloudFormation allows to be one item or a list of items.
func asList(value any) []any {
	if many, ok := value.([]any); ok {
		return many
	}
	if value == nil {
		return nil
	}
	return []any{value}
}

func isProd(mode string) bool { return modes[mode]["env"] == "prod" }

// usesCanary tells whether a mode's new versions get their traffic by a canary.
func usesCanary(mode string) bool {
	return cmp.Or(modes[mode]["rollout"], map[bool]string{true: "canary"}[isProd(mode)]) == "canary"
}

// eventsOf returns how soon a mode's events are published.
func eventsOf(mode string) Events {
	byDefault := EventsMinute
	if isProd(mode) {
		byDefault = EventsOn
	}
	return cmp.Or(Events(modes[mode]["events"]), byDefault)
}

// relays tells whether the minute rule runs the relay in a mode.
func relays(mode string) bool {
	return eventsOf(mode) != EventsOff && modes[mode]["sweeper"] != "off"
}

// named returns the one resource of a kind whose property has a value.
func (tpl template) named(t *testing.T, kind, property, name string) resource {
	t.Helper()
	var found []resource
	for _, r := range tpl.resources(kind) {
		if r.get(property) == name {
			found = append(found, r)
		}
	}
	if len(found) != 1 {
		t.Fatalf("%d resources of type %s have the %s %s, want one", len(found), kind, property, name)
	}
	return found[0]
}

func isExternal(mode string) bool { return modes[mode]["db"] == "external" }

func stackName(mode string) string { return stackOf(modes[mode]) }

// stackOf returns the name of the service's stack with settings.
func stackOf(settings map[string]string) string {
	return cmp.Or(settings["name"], "allo") + "-" + cmp.Or(settings["env"], "dev")
}
