package main

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the snapshots in testdata again")

// entry is one line of a snapshot: a resource of a template, or an entry of another section.
type entry struct {
	// kind is the resource's type, or the section's name, such as Outputs.
	kind, id string
	// content is everything that CloudFormation acts on, as indented JSON.
	content string
}

// line is the entry in the snapshot file. The hash changes with the content.
func (e entry) line() string {
	sum := sha256.Sum256([]byte(e.content))
	return e.kind + " " + e.id + " " + hex.EncodeToString(sum[:8])
}

// codeHashes matches what changes with the code of a function, ours or the CDK's: the hash of an
// asset, and the end of a version's logical id.
var codeHashes = regexp.MustCompile(`[0-9a-f]{64}|(CurrentVersion[0-9A-F]{8})[0-9a-f]{32}`)

// entries lists a template's resources and the entries of its other sections, sorted by kind and
// id. Metadata is left out: it is for people and tools, and CloudFormation doesn't act on it.
func entries(template []byte) ([]entry, error) {
	var body map[string]json.RawMessage
	if err := json.Unmarshal(codeHashes.ReplaceAll(template, []byte("${1}HASH")), &body); err != nil {
		return nil, err
	}
	var all []entry
	for section, raw := range body {
		var members map[string]any
		if json.Unmarshal(raw, &members) != nil { // a text, such as the description
			members = map[string]any{"-": raw}
		}
		for id, value := range members {
			kind := section
			if resource, ok := value.(map[string]any); ok && section == "Resources" {
				kind = fmt.Sprint(resource["Type"])
				delete(resource, "Metadata")
			}
			content, err := json.MarshalIndent(value, "", "  ")
			if err != nil {
				return nil, err
			}
			all = append(all, entry{kind: kind, id: id, content: string(content)})
		}
	}
	slices.SortFunc(all, func(a, b entry) int {
		return cmp.Or(strings.Compare(a.kind, b.kind), strings.Compare(a.id, b.id))
	})
	return all, nil
}

// drift describes each difference between a snapshot's lines and a template's entries: it names
// the resource and prints what it is now.
func drift(snapshot []string, now []entry) []string {
	hashes := map[string]string{}
	for _, line := range snapshot {
		if kind, rest, ok := strings.Cut(line, " "); ok {
			id, hash, _ := strings.Cut(rest, " ")
			hashes[kind+" "+id] = hash
		}
	}
	var found []string
	for _, e := range now {
		key := e.kind + " " + e.id
		switch old, ok := hashes[key]; {
		case !ok:
			found = append(found, fmt.Sprintf("%s is new:\n%s", key, e.content))
		case e.line() != key+" "+old:
			found = append(found, fmt.Sprintf("%s has changed. It is now:\n%s", key, e.content))
		}
		delete(hashes, key)
	}
	for _, key := range slices.Sorted(maps.Keys(hashes)) {
		found = append(found, key+" is gone.")
	}
	return found
}

// A snapshot has one line for each resource, so a review shows which resources a change of the
// stack touches. The other tests assert what the resources must be.
func TestTheTemplatesMatchTheirSnapshots(t *testing.T) {
	eachMode(t, func(t *testing.T, mode string, tpl template) {
		now, err := entries(tpl.json)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join("testdata", mode+".txt")
		if *update {
			writeSnapshot(t, path, now)
		}
		snapshot, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, difference := range drift(strings.Split(string(snapshot), "\n"), now) {
			t.Errorf("%s: %s", mode, difference)
		}
		if t.Failed() {
			t.Logf("If this is what you want, run go test ./infra -update and commit %s.", path)
		}
	})
}

func writeSnapshot(t *testing.T, path string, now []entry) {
	t.Helper()
	var out strings.Builder
	for _, e := range now {
		out.WriteString(e.line() + "\n")
	}
	if err := os.WriteFile(path, []byte(out.String()), 0o600); err != nil {
		t.Fatal(err)
	}
}

const (
	exampleTemplate = `{"Description": "a stack", "Resources": {
		"Queue": {
			"Type": "AWS::SQS::Queue", "Properties": {"QueueName": "q"}, "Metadata": {"a": 1}
		},
		"Code": {
			"Type": "AWS::Lambda::Function", "Properties": {"Code": {"S3Key": "` + exampleHash + `"}}
		}
	}}`
	exampleHash = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
)

func TestADriftNamesTheResourceAndPrintsIt(t *testing.T) {
	t.Parallel()

	lines := func(template string) (lines []string) {
		for _, e := range mustEntries(t, template) {
			lines = append(lines, e.line())
		}
		return lines
	}
	snapshot := lines(exampleTemplate)
	for name, test := range map[string]struct{ old, replacement, want string }{
		"changed": {
			`"q"`, `"other"`, "AWS::SQS::Queue Queue has changed. It is now:\n" +
				"{\n  \"Properties\": {\n    \"QueueName\": \"other\"\n",
		},
		"new": {
			`"Code": {`, `"More": {"Type": "AWS::SNS::Topic"}, "Code": {`,
			"AWS::SNS::Topic More is new:\n{\n  \"Type\"",
		},
		"gone":        {`"Queue": {`, `"Queue2": {`, "AWS::SQS::Queue Queue is gone."},
		"description": {"a stack", "another", "Description - has changed. It is now:\n\"another\""},
		"retained": {
			`"Metadata"`, `"DeletionPolicy": "Retain", "Metadata"`, `"DeletionPolicy": "Retain"`,
		},
		"metadata is free": {`"a": 1`, `"a": 2`, ""},
		"code is free":     {exampleHash, strings.Repeat("f", 64), ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			changed := strings.Replace(exampleTemplate, test.old, test.replacement, 1)
			if changed == exampleTemplate {
				t.Fatalf("the example has no %q", test.old)
			}
			got := strings.Join(drift(snapshot, mustEntries(t, changed)), "\n")
			if !strings.Contains(got, test.want) || (test.want == "") != (got == "") {
				t.Errorf("drift = %q, want %q in it", got, test.want)
			}
		})
	}
}

func mustEntries(t *testing.T, template string) []entry {
	t.Helper()
	all, err := entries([]byte(template))
	if err != nil {
		t.Fatal(err)
	}
	return all
}
