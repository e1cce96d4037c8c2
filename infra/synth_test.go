package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/aws/aws-cdk-go/awscdk/v2"
	"github.com/aws/jsii-runtime-go"
)

// template is the template of a stack. Tests share it, so they only read it: changed makes a copy.
type template struct {
	json []byte
	body map[string]any
	// metadata is what the synth tells of the stack's constructs, such as warnings, as JSON.
	metadata []byte
	// warnings are the findings of cdk-nag and the CDK's own.
	warnings []string
	// protected tells whether CloudFormation refuses to delete the stack. No template says so.
	protected bool
}

// app is what a synth writes.
type app struct {
	stacks map[string]template // by the stacks' names
	// manifest says where the stacks are deployed and in which order, as JSON.
	manifest []byte
}

// kind is a way to synthesize.
type kind struct {
	name  string
	build func(t *testing.T, cdk awscdk.App, s Settings)
	write func(cdk awscdk.App) error
}

var (
	// checked makes all stacks of the app, as a deploy does.
	checked = kind{"checked", buildStacks, finish}
	// draft makes them without the checks of cdk-nag and of CloudFormation's rules, which take half
	// of the time.
	draft = kind{"draft", func(t *testing.T, cdk awscdk.App, s Settings) {
		cdk.Node().SetContext(jsii.String("@aws-cdk/core:validateAgainstDefaultRules"), false)
		buildStacks(t, cdk, s)
	}, func(cdk awscdk.App) error {
		cdk.Synth(nil)
		return nil
	}}
	// delivery makes the delivery stack alone, in a fraction of the time.
	delivery = kind{"delivery", func(_ *testing.T, cdk awscdk.App, s Settings) {
		newDelivery(cdk, s)
	}, finish}
)

// buildStacks makes the app's stacks, with a stub for each function's binary.
func buildStacks(t *testing.T, cdk awscdk.App, s Settings) {
	t.Helper()
	newStacks(cdk, s, stubAssets(t))
}

// synth returns the template of a mode's service.
func synth(t *testing.T, mode string) template {
	t.Helper()
	return synthesizeWith(t, modes[mode])
}

// synthesizeWith returns the template of the service with settings.
func synthesizeWith(t *testing.T, settings map[string]string) template {
	t.Helper()
	return synthesizeApp(t, settings).stack(t, settings, "")
}

// synthesizeApp returns all stacks of the app with settings.
func synthesizeApp(t *testing.T, settings map[string]string) app {
	t.Helper()
	return checked.synthesize(t, settings)
}

// draftOf returns the template of the service with settings, for a test that compares it with
// others and leaves the checks to them.
func draftOf(t *testing.T, settings map[string]string) template {
	t.Helper()
	return draft.synthesize(t, settings).stack(t, settings, "")
}

// synthesizeDelivery returns the template of the delivery stack.
func synthesizeDelivery(t *testing.T, settings map[string]string) template {
	t.Helper()
	return delivery.synthesize(t, settings).stack(t, settings, "-delivery")
}

// apps has each app that was made, so that no settings are synthesized twice.
var apps = struct {
	sync.Mutex
	made map[string]app
}{made: map[string]app{}}

func (k kind) synthesize(t *testing.T, settings map[string]string) app {
	t.Helper()
	apps.Lock() // jsii serves one caller at a time
	defer apps.Unlock()
	key := k.name + asJSON(settings)
	if made, ok := apps.made[key]; ok {
		return made
	}
	out := t.TempDir()
	cdk := newApp(t, settings, out)
	s, err := ReadSettings(contextOf(cdk))
	if err != nil {
		t.Fatal(err)
	}
	k.build(t, cdk, s)
	if err := k.write(cdk); err != nil {
		t.Fatal(err)
	}
	made := readApp(t, out)
	apps.made[key] = made
	return made
}

// newApp returns an app that writes to the folder out. Its context has settings and what cdk.json
// has: the CDK's feature flags change the template.
func newApp(t *testing.T, settings map[string]string, out string) awscdk.App {
	t.Helper()
	var file struct {
		Context map[string]any `json:"context"`
	}
	readJSON(t, "../cdk.json", &file)
	for key, value := range settings {
		file.Context[key] = value
	}
	file.Context["aws:cdk:disable-asset-staging"] = true // no test reads a copy of a stub
	return awscdk.NewApp(&awscdk.AppProps{
		Context: &file.Context, Outdir: jsii.String(out), TreeMetadata: jsii.Bool(false),
	})
}

// readApp reads what a synth wrote to a folder.
func readApp(t *testing.T, out string) app {
	t.Helper()
	var manifest struct {
		Artifacts map[string]struct {
			Type       string
			Properties struct {
				TemplateFile          string
				TerminationProtection bool
			}
			AdditionalMetadataFile string
		}
	}
	made := app{stacks: map[string]template{}}
	made.manifest = readJSON(t, filepath.Join(out, "manifest.json"), &manifest)
	for name, artifact := range manifest.Artifacts {
		if artifact.Type != "aws:cloudformation:stack" {
			continue
		}
		tpl := template{protected: artifact.Properties.TerminationProtection}
		tpl.json = readJSON(t, filepath.Join(out, artifact.Properties.TemplateFile), &tpl.body)
		tpl.metadata, tpl.warnings = readMetadata(t, filepath.Join(out, artifact.AdditionalMetadataFile))
		made.stacks[name] = tpl
	}
	return made
}

// readMetadata returns a stack's metadata, and the warnings and errors in it. With --strict,
// `cdk synth` fails on both.
func readMetadata(t *testing.T, path string) (source []byte, warnings []string) {
	t.Helper()
	var entries map[string][]struct {
		Type string
		Data any
	}
	source = readJSON(t, path, &entries)
	for _, construct := range slices.Sorted(maps.Keys(entries)) {
		for _, entry := range entries[construct] {
			if entry.Type == "aws:cdk:warning" || entry.Type == "aws:cdk:error" {
				warnings = append(warnings, fmt.Sprintf("%s: %v", construct, entry.Data))
			}
		}
	}
	return source, warnings
}

// readJSON decodes a file into a value and returns its text.
func readJSON(t *testing.T, path string, into any) []byte {
	t.Helper()
	source, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(source, into); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return source
}

// stack returns the template of the stack whose name is the service's with an ending.
func (a app) stack(t *testing.T, settings map[string]string, ending string) template {
	t.Helper()
	name := stackOf(settings) + ending
	tpl, ok := a.stacks[name]
	if !ok {
		t.Fatalf("the app has no stack %s", name)
	}
	return tpl
}
