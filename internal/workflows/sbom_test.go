package workflows

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

var sbomDir = flag.String("sbom", "", "the folder of the lists that make sbom wrote, to check them")

// schemas is the module that has CycloneDX's schemas. No package of it is linked.
const schemas = "github.com/CycloneDX/cyclonedx-go@v0.12.0"

// TestEachSbomFitsItsSchema checks the lists of `make sbom`: one for each function, each as the
// schema of CycloneDX says, and with the driver of Postgres where a function has it.
func TestEachSbomFitsItsSchema(t *testing.T) {
	t.Parallel()
	if *sbomDir == "" {
		t.Skip("make sbom runs this test")
	}
	functions, err := os.ReadDir(filepath.Join(root, "functions"))
	if err != nil {
		t.Fatal(err)
	}
	schema := compile(t)
	for _, f := range functions {
		text, err := os.ReadFile(filepath.Join(*sbomDir, f.Name()+".cdx.json"))
		if err != nil {
			t.Fatal(err)
		}
		if err := check(schema, text, f.Name()); err != nil {
			t.Errorf("%s: %v", f.Name(), err)
		}
		for _, change := range []struct{ old, replacement string }{
			{`"bomFormat": "CycloneDX"`, `"bomFormat": "SPDX"`},
			{`"type": "library"`, `"type": "book"`},
			{"functions/" + f.Name(), "functions/other"},
		} {
			changed := bytes.ReplaceAll(text, []byte(change.old), []byte(change.replacement))
			if bytes.Equal(changed, text) || check(schema, changed, f.Name()) == nil {
				t.Errorf("%s: the test accepts %s", f.Name(), change.replacement)
			}
		}
	}
}

// check checks the list of a function.
func check(schema *jsonschema.Schema, text []byte, function string) error {
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		return err
	}
	if err := schema.Validate(value); err != nil {
		return err
	}
	var list struct {
		Metadata struct {
			Component struct {
				PURL string `json:"purl"`
			} `json:"component"`
		} `json:"metadata"`
		Components []struct {
			Name string `json:"name"`
		} `json:"components"`
	}
	if err := json.Unmarshal(text, &list); err != nil {
		return err
	}
	if !strings.HasSuffix(list.Metadata.Component.PURL, "#functions/"+function) {
		return fmt.Errorf("the list is of %s", list.Metadata.Component.PURL)
	}
	for _, c := range list.Components {
		if c.Name == "github.com/aws/aws-lambda-go" { // each function has it
			return nil
		}
	}
	return fmt.Errorf("the list has no aws-lambda-go among %d modules", len(list.Components))
}

// compile compiles CycloneDX's schema in the version that the lists have.
func compile(t *testing.T) *jsonschema.Schema {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "mod", "download", "-json", schemas).Output()
	if err != nil {
		t.Fatalf("download %s: %v", schemas, err)
	}
	var module struct{ Dir string }
	if err := json.Unmarshal(out, &module); err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	for _, name := range []string{"bom-1.6.schema.json", "spdx.schema.json", "jsf-0.82.schema.json"} {
		file := name
		if strings.HasPrefix(name, "jsf") {
			file = "jsf-0.82.schemax.json" // the module has it under another name
		}
		text, err := os.ReadFile(filepath.Join(module.Dir, "schema", file))
		if err != nil {
			t.Fatal(err)
		}
		value, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		if err := c.AddResource("http://cyclonedx.org/schema/"+name, value); err != nil {
			t.Fatal(err)
		}
	}
	schema, err := c.Compile("http://cyclonedx.org/schema/bom-1.6.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return schema
}
