package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/aws/aws-cdk-go/awscdk/v2"
	"github.com/aws/jsii-runtime-go"

	"github.com/allo/reservations/internal/route"
)

func TestMain(m *testing.M) {
	flag.Parse()
	code := m.Run()
	jsii.Close()
	os.Exit(code)
}

// The modes that every rule is held against.
var modes = map[string]map[string]string{
	"aurora-dev":    {},
	"aurora-prod":   {"env": "prod", "auth": "jwt", "jwtIssuer": "https://issuer.example.com", "jwtAudience": "shop"},
	"aurora-direct": {"env": "prod", "dbProxy": "off", "auth": "iam"},
	"external-dev":  {"db": "external", "arch": "x86_64"},
	"external-prod": {
		"db": "external", "env": "prod", "auth": "iam", "sweeper": "off", "databaseUrlSecret": "shop/db", "migrateUrlSecret": "shop/migrate", "appRole": "shop", "corsOrigins": "https://shop.example.com",
		"domainName": "api.example.com", "hostedZoneId": "Z123", "hostedZoneName": "example.com",
		"certificateArn": "arn:aws:acm:eu-central-1:123456789012:certificate/0", "alarmEmail": "ops@example.com", "owner": "checkout",
		"permissionsBoundary": "boundary", "sweeperConcurrency": "1", "holdTtl": "5m", "throttleRate": "50",
	},
}

// template is a synthesized template, with what cdk-nag and the CDK warned of.
type template struct {
	json     []byte
	body     map[string]any
	warnings []string
}

var (
	synthesized   = map[string]template{}
	synthesizedMu sync.Mutex
)

// synth synthesizes a mode as the app does, once, on functions that are a file each. jsii serves one caller at a time.
func synth(t *testing.T, mode string) template {
	t.Helper()
	synthesizedMu.Lock()
	defer synthesizedMu.Unlock()
	if made, ok := synthesized[mode]; ok {
		return made
	}
	made := synthContext(t, modes[mode])
	synthesized[mode] = made
	return made
}

func synthContext(t *testing.T, chosen map[string]string) template {
	t.Helper()
	context := flags(t)
	for key, value := range chosen {
		context[key] = value
	}
	out := t.TempDir()
	cdk := awscdk.NewApp(&awscdk.AppProps{Context: &context, Outdir: jsii.String(out)})
	settings, err := ReadSettings(contextOf(cdk))
	if err != nil {
		t.Fatal(err)
	}
	newStack(cdk, settings, fakeAssets(t))
	if err := finish(cdk); err != nil {
		t.Fatal(err)
	}
	made := template{warnings: warnings(t, filepath.Join(out, settings.StackName()+".metadata.json"))}
	made.json, err = os.ReadFile(filepath.Join(out, settings.StackName()+".template.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(made.json, &made.body); err != nil {
		t.Fatal(err)
	}
	return made
}

// flags is the context that cdk.json has: the CDK's feature flags change what a template holds.
func flags(t *testing.T) map[string]any {
	t.Helper()
	source, err := os.ReadFile("../cdk.json")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Context map[string]any `json:"context"`
	}
	if err := json.Unmarshal(source, &file); err != nil {
		t.Fatal(err)
	}
	return file.Context
}

// fakeAssets is a folder with a bootstrap for each function, each another.
func fakeAssets(t *testing.T) string {
	t.Helper()
	assets := t.TempDir()
	for _, name := range functionNames() {
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

// functionNames are all functions, sorted: those of the routes, the sweeper and the migration.
func functionNames() []string {
	names := []string{"sweep", "migrate"}
	for _, r := range route.All() {
		names = append(names, r.Function)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// warnings are what a synth with --strict would end with; errors end any.
func warnings(t *testing.T, metadata string) []string {
	t.Helper()
	source, err := os.ReadFile(metadata)
	if err != nil {
		t.Fatal(err)
	}
	var entries map[string][]struct {
		Type string `json:"type"`
		Data any    `json:"data"`
	}
	if err := json.Unmarshal(source, &entries); err != nil {
		t.Fatal(err)
	}
	var found []string
	for path, list := range entries {
		for _, entry := range list {
			if entry.Type == "aws:cdk:warning" || entry.Type == "aws:cdk:error" {
				found = append(found, fmt.Sprintf("%s: %v", path, entry.Data))
			}
		}
	}
	return found
}

// resource is one of a template's.
type resource struct {
	id, kind   string
	properties map[string]any
	whole      map[string]any
}

// of lists the resources of a kind, by their logical id.
func (tpl template) of(kind string) []resource {
	all, _ := tpl.body["Resources"].(map[string]any)
	var found []resource
	for id, value := range all {
		whole, _ := value.(map[string]any)
		if whole["Type"] == kind || kind == "" {
			properties, _ := whole["Properties"].(map[string]any)
			found = append(found, resource{id: id, kind: fmt.Sprint(whole["Type"]), properties: properties, whole: whole})
		}
	}
	slices.SortFunc(found, func(a, b resource) int { return strings.Compare(a.id, b.id) })
	return found
}

// get follows keys into a resource's properties. It is nil where there is nothing.
func (r resource) get(keys ...string) any {
	var value any = r.properties
	for _, key := range keys {
		object, ok := value.(map[string]any)
		if !ok {
			return nil
		}
		value = object[key]
	}
	return value
}

// text is a value as JSON, to be searched.
func text(value any) string {
	out, err := json.Marshal(value)
	if err != nil {
		panic(err)
	}
	return string(out)
}

// functionsOf are our functions in a template, by their names without the stack's.
func (tpl template) functionsOf(t *testing.T, stack string) map[string]resource {
	t.Helper()
	named := map[string]resource{}
	for _, f := range tpl.of("AWS::Lambda::Function") {
		if name, ok := f.properties["FunctionName"].(string); ok {
			named[strings.TrimPrefix(name, stack+"-")] = f
		}
	}
	return named
}

// stackOf is the name of a mode's stack.
func stackOf(mode string) string {
	if env := modes[mode]["env"]; env != "" {
		return "allo-" + env
	}
	return "allo-dev"
}
