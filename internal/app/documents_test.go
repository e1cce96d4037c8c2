package app_test

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// These find what a document names.
var (
	// linkPattern finds the target of a link, but not of one to another site.
	linkPattern = regexp.MustCompile(`\]\(([^)\s:]+)\)`)
	// headingPattern finds a heading.
	headingPattern = regexp.MustCompile(`(?m)^#{1,6} (.+)$`)
	// idPattern finds an anchor that isn't a heading's.
	idPattern = regexp.MustCompile(`<a id="([^"]+)">`)
	// punctuation is what an anchor leaves out of its heading.
	punctuation = regexp.MustCompile(`[^\p{L}\p{N} _-]`)
	// settingPattern finds a setting of a deploy, such as -c env=prod.
	settingPattern = regexp.MustCompile(`-c ([A-Za-z]+)=`)
	// settingRow finds a row of the table of settings in infra/README.md.
	settingRow = regexp.MustCompile("(?m)^\\| `([a-zA-Z]+)` \\|")
	// codePattern finds code, in a block or in a line.
	codePattern = regexp.MustCompile("(?s)```.*?```|`[^`]*`")
	// makePattern finds a target of make at the beginning of a line of code.
	makePattern = regexp.MustCompile("(?m)^[ `]*(?:time )?make\\s([a-z][a-z-]*)")
	// targetPattern finds a target of the Makefile.
	targetPattern = regexp.MustCompile(`(?m)^([a-z][a-z-]*):`)
)

// documents are the repository's pages, by their path from its root.
func documents(t *testing.T) map[string]string {
	t.Helper()
	pages := map[string]string{}
	err := filepath.WalkDir("../..", func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := entry.Name()
		if entry.IsDir() && (name == "node_modules" || name == "build" || name == "cdk.out" ||
			strings.HasPrefix(name, ".") && path != "../..") {
			return filepath.SkipDir
		}
		if filepath.Ext(name) != ".md" {
			return nil
		}
		text, err := os.ReadFile(path)
		pages[strings.TrimPrefix(path, "../../")] = string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return pages
}

// anchor returns the anchor of a heading, as GitHub makes it.
func anchor(heading string) string {
	return strings.ReplaceAll(punctuation.ReplaceAllString(strings.ToLower(heading), ""), " ", "-")
}

// brokenLinks returns the links of a page that lead to no file and no heading.
func brokenLinks(page string, pages map[string]string) (broken []string) {
	for _, link := range linkPattern.FindAllStringSubmatch(pages[page], -1) {
		file, fragment, _ := strings.Cut(link[1], "#")
		target := page
		if file != "" {
			target = filepath.Join(filepath.Dir(page), file)
		}
		if _, err := os.Stat(filepath.Join("../..", target)); err != nil && pages[target] == "" {
			broken = append(broken, link[1])
			continue
		}
		if fragment == "" {
			continue
		}
		if pages[target] == "" {
			target = filepath.Join(target, "README.md")
		}
		anchors := names(idPattern, pages[target])
		for _, heading := range names(headingPattern, pages[target]) {
			anchors = append(anchors, anchor(heading))
		}
		if !slices.Contains(anchors, fragment) {
			broken = append(broken, link[1])
		}
	}
	return broken
}

// code returns the code of a page.
func code(page string) string { return strings.Join(codePattern.FindAllString(page, -1), "\n") }

// unknown returns the names that the pattern finds in a text and that aren't known.
func unknown(pattern *regexp.Regexp, text string, known []string) (missing []string) {
	for _, found := range pattern.FindAllStringSubmatch(text, -1) {
		if !slices.Contains(known, found[1]) {
			missing = append(missing, found[1])
		}
	}
	return missing
}

// names returns what a pattern finds in a text.
func names(pattern *regexp.Regexp, text string) []string { return unknown(pattern, text, nil) }

func TestEveryLinkLeadsSomewhere(t *testing.T) {
	t.Parallel()

	pages := documents(t)
	for page := range pages {
		for _, link := range brokenLinks(page, pages) {
			t.Errorf("%s has a link to %s, which isn't there", page, link)
		}
	}
}

// Each setting of a deploy and each target of make that a page names exists.
func TestEveryCommandOfAPageExists(t *testing.T) {
	t.Parallel()

	pages := documents(t)
	makefile, err := os.ReadFile("../../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	settings := append(names(settingRow, pages["infra/README.md"]), "key") // it tells of -c key=value
	targets := names(targetPattern, string(makefile))
	for page, text := range pages {
		for _, name := range unknown(settingPattern, code(text), settings) {
			t.Errorf("%s has the setting %s, which infra/README.md doesn't know", page, name)
		}
		for _, name := range unknown(makePattern, code(text), targets) {
			t.Errorf("%s has make %s, which the Makefile doesn't know", page, name)
		}
	}
}

// The checks of the pages find what isn't there.
func TestThePagesChecksFindWhatIsMissing(t *testing.T) {
	t.Parallel()

	pages := map[string]string{
		"infra/a.md": "[x](b.md#the-end-of-it) [x](b.md#nowhere) [x](c.md) [x](#here) [x](#there)\n" +
			"[x](b.md#by-id)\n" +
			"[x](https://example.com/#y) [x](../infra) [x](../gone)\n# Here\n",
		"infra/b.md": "## The end, of `it`!\n<a id=\"by-id\"></a>\n",
	}
	got := brokenLinks("infra/a.md", pages)
	want := []string{"b.md#nowhere", "c.md", "#there", "../gone"}
	if !slices.Equal(got, want) {
		t.Errorf("brokenLinks = %v, want %v", got, want)
	}
	text := code("We\nmake it. `make test`, `make\ntset`, `-c evn=prod`\n" +
		"```sh\n   time make deploy ARGS='-c env=prod'\nmake bulid\n```\n")
	if got := fmt.Sprint(unknown(settingPattern, text, []string{"env"}),
		unknown(makePattern, text, []string{"test", "deploy"})); got != "[evn] [tset bulid]" {
		t.Errorf("unknown settings and targets = %s", got)
	}
}

// The pages write long ARGS in several lines, and make passes them on in one. The control's
// Makefile passes on the first line alone.
func TestMakePassesOnEveryLineOfItsArguments(t *testing.T) {
	t.Parallel()

	makefile, err := os.ReadFile("../../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	const joined = "override ARGS := $(strip $(ARGS))"
	inOne := func(makefile string) bool {
		path := filepath.Join(t.TempDir(), "Makefile")
		if err := os.WriteFile(path, []byte(makefile), 0o600); err != nil {
			t.Fatal(err)
		}
		args := "-n -f " + path + " deploy"
		c := exec.CommandContext(t.Context(), "make", append(strings.Fields(args),
			"ARGS=-c env=prod\n  -c name=day")...)
		c.Dir = "../.."
		said, err := c.CombinedOutput()
		if err != nil {
			t.Fatalf("make %s: %v: %s", args, err, said)
		}
		return strings.Contains(string(said), "deploy --all --strict -c env=prod -c name=day\n")
	}
	if !inOne(string(makefile)) {
		t.Error("make deploy drops the second line of its ARGS")
	}
	if inOne(strings.Replace(string(makefile), joined, "", 1)) {
		t.Error("without strip, make deploy has both lines: the test can't fail")
	}
}
