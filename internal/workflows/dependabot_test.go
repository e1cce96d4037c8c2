package workflows

import (
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

type dependabot struct {
	Updates []struct {
		Ecosystem   string   `yaml:"package-ecosystem"`
		Directory   string   `yaml:"directory"`
		Directories []string `yaml:"directories"`
		Cooldown    struct {
			Days int `yaml:"default-days"`
		} `yaml:"cooldown"`
		Groups map[string]struct {
			Patterns []string `yaml:"patterns"`
		} `yaml:"groups"`
	} `yaml:"updates"`
}

// manifests are the names of the files that Dependabot reads, with their ecosystems.
var manifests = map[string]string{
	"go.mod": "gomod", "package.json": "npm", "requirements.txt": "pip",
	"action.yml": "github-actions",
}

func TestDependabotKnowsEveryManifest(t *testing.T) {
	t.Parallel()

	text, err := os.ReadFile(filepath.Join(root, ".github", "dependabot.yml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, problem := range dependabotProblems(t, string(text)) {
		t.Error(problem)
	}
	for _, change := range []struct{ old, replacement, want string }{
		{"directory: /infra", "directory: /web", "infra/package.json"},
		{"package-ecosystem: pip", "package-ecosystem: uv", "internal/rehearsal/deploy/requirements.txt"},
		{"directories: [/, /.github/actions/aws]", "directories: [/]", ".github/actions/aws/action.yml"},
		{"github.com/aws/jsii-runtime-go", "github.com/aws/jsii", "names no module"},
		{"default-days: 7", "default-days: 0", "waits 0 days"},
	} {
		changed := strings.ReplaceAll(string(text), change.old, change.replacement)
		if changed == string(text) {
			t.Fatalf("dependabot.yml has no %s", change.old)
		}
		found := strings.Join(dependabotProblems(t, changed), "\n")
		if !strings.Contains(found, change.want) {
			t.Errorf("%s: the problems are %q, want %q among them", change.replacement, found, change.want)
		}
	}
}

// dependabotProblems says what is wrong with Dependabot's configuration.
func dependabotProblems(t *testing.T, text string) (found []string) {
	t.Helper()
	var d dependabot
	if err := yaml.Unmarshal([]byte(text), &d); err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	modules, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range d.Updates {
		for _, dir := range append(u.Directories, u.Directory) {
			known[u.Ecosystem+" "+dir] = true
		}
		if u.Cooldown.Days < 7 {
			found = append(found, fmt.Sprintf("%s waits %d days for a release to prove itself",
				u.Ecosystem, u.Cooldown.Days))
		}
		for name, group := range u.Groups {
			for _, pattern := range group.Patterns {
				wildcard := strings.ReplaceAll(regexp.QuoteMeta(pattern), `\*`, `\S*`)
				required := regexp.MustCompile(`(?m)^\t` + wildcard + ` v`)
				if u.Ecosystem == "gomod" && !required.Match(modules) {
					found = append(found, fmt.Sprintf("the pattern %s of the group %s names no module of "+
						"go.mod", pattern, name))
				}
			}
		}
	}
	for _, file := range manifestsOf(t) {
		dir := strings.TrimSuffix("/"+path.Dir(file), "/.")
		if dir == "" {
			dir = "/"
		}
		if !known[manifests[path.Base(file)]+" "+dir] {
			found = append(found, "Dependabot doesn't know "+file)
		}
	}
	if !known["github-actions /"] {
		found = append(found, "Dependabot doesn't know the workflows")
	}
	return found
}

// manifestsOf returns the manifests of the checkout, by their paths in it.
func manifestsOf(t *testing.T) (found []string) {
	t.Helper()
	skipped := []string{"node_modules", "build", ".local", ".git", "cdk.out", "testdata"}
	err := filepath.WalkDir(root, func(file string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && slices.Contains(skipped, entry.Name()) {
			return filepath.SkipDir
		}
		if manifests[entry.Name()] != "" {
			found = append(found, filepath.ToSlash(strings.TrimPrefix(file, root+"/")))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(found) < len(manifests) {
		t.Fatalf("the checkout has the manifests %v", found)
	}
	return found
}
