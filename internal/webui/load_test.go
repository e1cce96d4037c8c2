package webui

import (
	"io/fs"
	"os"
	"path"
	"regexp"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/allo/reservations/internal/negotiate"
)

func TestLoadIsTheSameEachTime(t *testing.T) {
	t.Parallel()
	first, err := load(static)
	if err != nil {
		t.Fatal(err)
	}
	for range 5 {
		again, err := load(static)
		if err != nil {
			t.Fatal(err)
		}
		for name, f := range first {
			other := again[name]
			if other == nil || other.hashed != f.hashed ||
				string(other.body()) != string(f.body()) {
				t.Errorf("%s is loaded differently", name)
			}
		}
	}
}

func TestAChangeOfAFileRenamesTheFilesThatReferToIt(t *testing.T) {
	t.Parallel()
	site := func(shared string) fileset {
		files, err := load(fstest.MapFS{
			"static/page.html": {
				Data: []byte(`<script type="module" src="/assets/page.js"></script>`),
			},
			"static/assets/page.js": {
				Data: []byte(`import { a } from "./shared.js"; import { h } from "preact";`),
			},
			"static/assets/other.js":  {Data: []byte(`import{h}from"preact"`)},
			"static/assets/shared.js": {Data: []byte(shared)},
			"static/v/preact.mjs": {
				Data: []byte("export{h}\n//# sourceMappingURL=preact.mjs.map\n"),
			},
			"static/v/LICENSE":       {Data: []byte("MIT")},
			"static/vendor/built.js": {Data: []byte(`from "nothing.js"`)},
			"static/vendor/text.mjs": {Data: []byte(`throw 'from "call()"'`)},
		})
		if err != nil {
			t.Fatal(err)
		}
		return files
	}
	before, after := site("export const a = 1;"), site("export const a = 2;")
	for name, changes := range map[string]bool{
		"page.html": true, "page.js": true, "shared.js": true, "other.js": false, "preact.mjs": false,
	} {
		if got := before[name].hashed != after[name].hashed; got != changes {
			t.Errorf("%s has another name: %v, want %v", name, got, changes)
		}
	}
	if got := string(before["page.html"].body()); !strings.Contains(got, before["page.js"].url()) {
		t.Errorf("page = %s, want it to refer to %s", got, before["page.js"].url())
	}
	if got := string(before["preact.mjs"].body()); got != "export{h}\n" {
		t.Errorf("preact.mjs = %q, want no reference to its source map", got)
	}
	if len(before) != 7 {
		t.Errorf("%d files are served, want 7, and no licence", len(before))
	}
}

func TestCommentsAreLeftOut(t *testing.T) {
	t.Parallel()
	files, err := load(fstest.MapFS{
		"static/a.js": {Data: []byte("// One.\nconst a = 1; // two\n  // Three.\nf(`x\n/* y */`);\n")},
		"static/a.css": {Data: []byte("/* One. */\np {\n  /* Two\n     // lines. */\n  a: b; /* c */\n}\n" +
			"/* a */ i { c: d }\n")},
		"static/a.html": {Data: []byte("<p>\n// text\n</p>\n")},
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"a.js":   "const a = 1; // two\nf(`x\n/* y */`);\n",
		"a.css":  "p {\n  a: b; /* c */\n}\n/* a */ i { c: d }\n",
		"a.html": "<p>\n// text\n</p>\n",
	} {
		if got := string(files[name].body()); got != want {
			t.Errorf("%s = %q, want %q", name, got, want)
		}
	}
}

// withoutComments takes a line that begins with two slashes for a comment.
func TestNoTextOfAScriptHasALineThatLooksLikeAComment(t *testing.T) {
	t.Parallel()
	scripts, err := fs.Glob(static, "static/assets/*.js")
	if err != nil || len(scripts) < 5 {
		t.Fatalf("there are %d scripts, %v", len(scripts), err)
	}
	for _, name := range scripts {
		body, err := fs.ReadFile(static, name)
		if err != nil {
			t.Fatal(err)
		}
		isInside := false // of a template, which alone may have several lines
		for n, line := range strings.Split(string(body), "\n") {
			isComment := strings.HasPrefix(strings.TrimSpace(line), "//")
			if isInside && isComment {
				t.Errorf("%s:%d is a line of a text, and would be lost: %s", name, n+1, line)
			}
			if !isComment && strings.Count(line, "`")%2 == 1 {
				isInside = !isInside
			}
		}
	}
}

func TestLoadRefusesFilesThatDontFitTogether(t *testing.T) {
	t.Parallel()
	for reason, site := range map[string]fstest.MapFS{
		"refers to missing.js": {"static/a.js": {Data: []byte(`import "./missing.js"`)}},
		"refers to react":      {"static/a.js": {Data: []byte(`import {h} from "react"`)}},
		"refers to a.png":      {"static/a.css": {Data: []byte(`p { background: url("a.png") }`)}},
		"refers to gone.js":    {"static/a.html": {Data: []byte(`<script src="/assets/gone.js">`)}},
		"refers to itself": {
			"static/a.js": {Data: []byte(`import "./b.js"`)},
			"static/b.js": {Data: []byte(`import "./a.js"`)},
		},
		"two files are named": {
			"static/a/x.js": {Data: []byte("1")}, "static/b/x.js": {Data: []byte("2")},
		},
		"no known content type": {"static/a.png": {Data: []byte("1")}},
	} {
		if _, err := load(site); err == nil || !strings.Contains(err.Error(), reason) {
			t.Errorf("load() = %v, want an error that says %q", err, reason)
		}
	}
}

// load finds references by pattern. A reference that it misses would lead to a name that isn't
// served. So this test looks for everything that looks like a file's name in the served files.
func TestNoReferenceIsLeftUnresolved(t *testing.T) {
	t.Parallel()
	files, err := load(static)
	if err != nil {
		t.Fatal(err)
	}
	served := map[string]bool{}
	for _, f := range files {
		served[f.hashed] = true
	}
	anything := regexp.MustCompile(`["'(\s=/]([\w-]+(?:\.[\w]+)?\.(?:js|mjs|css|svg))\b`)
	bare := regexp.MustCompile(`(?:from|import)\s*\(?["'](?:preact|htm)`)
	for name, f := range files {
		if strings.HasPrefix(name, "swagger-ui.") {
			continue // it has names of other files, and refers to none of ours
		}
		for _, match := range anything.FindAllStringSubmatch(string(f.body()), -1) {
			if !served[match[1]] {
				t.Errorf("%s refers to %s, which isn't served", name, match[1])
			}
		}
		if found := bare.FindString(string(f.body())); found != "" {
			t.Errorf("%s has %s, which no browser can resolve", name, found)
		}
	}
}

// A browser finds a module that the page doesn't name only after it has the module that imports it:
// another round trip. A page may also name a module that its script imports after the first view.
func TestPagesPreloadEveryModule(t *testing.T) {
	t.Parallel()
	files, err := load(static)
	if err != nil {
		t.Fatal(err)
	}
	imported := regexp.MustCompile(`\bfrom\s*"/assets/([\w-]+)\.\w+\.(\w+)"`)
	later := regexp.MustCompile(`\bimport\("/assets/([\w-]+)\.\w+\.(\w+)"`)
	first := regexp.MustCompile(`module" src="/assets/([\w-]+)\.\w+\.js"`)
	named := regexp.MustCompile(
		`(?:modulepreload" href|module" src)="/assets/([\w-]+)\.\w+\.(m?js)"`,
	)
	for name, f := range files {
		if !f.isPage() {
			continue
		}
		known := map[string]bool{}
		for _, match := range named.FindAllStringSubmatch(string(f.body()), -1) {
			known[match[1]+"."+match[2]] = true
		}
		needed, late := map[string]bool{}, map[string]bool{}
		var need func(module string)
		need = func(module string) {
			if needed[module] {
				return
			}
			needed[module] = true
			for _, match := range later.FindAllStringSubmatch(string(files[module].body()), -1) {
				late[match[1]+"."+match[2]] = true
			}
			for _, match := range imported.FindAllStringSubmatch(string(files[module].body()), -1) {
				need(match[1] + "." + match[2])
			}
		}
		if script := first.FindStringSubmatch(string(f.body())); script != nil {
			need(script[1] + ".js")
		} else {
			t.Errorf("%s has no script", name)
		}
		for module := range needed {
			if !known[module] {
				t.Errorf("%s doesn't preload %s", name, module)
			}
		}
		for module := range known {
			if !needed[module] && !late[module] {
				t.Errorf("%s preloads %s, which it doesn't need", name, module)
			}
		}
	}
}

func TestEveryVendoredPackageHasItsLicence(t *testing.T) {
	t.Parallel()
	entries, err := os.ReadDir("static/vendor")
	if err != nil || len(entries) != 6 {
		t.Fatalf("static/vendor has %d packages, %v, want 6", len(entries), err)
	}
	for _, e := range entries {
		licence, err := fs.ReadFile(static, path.Join("static/vendor", e.Name(), "LICENSE"))
		if err != nil || len(licence) < 500 {
			t.Errorf("%s: licence of %d bytes, %v", e.Name(), len(licence), err)
		}
	}
}

func BenchmarkLoad(b *testing.B) {
	for b.Loop() {
		if _, err := load(static); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCompressAll(b *testing.B) {
	files, err := load(static)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		for _, f := range files {
			negotiate.GzipBest(f.body())
		}
	}
}
