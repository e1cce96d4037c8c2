package webui

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"
)

// hashLength is how much of a file's hash stands in its name, in hexadecimal digits: enough that two contents never share one.
const hashLength = 16

// packages are the names by which modules import what npm brought. A browser would need an import map for them, which is an inline
// script, and so forbidden by our policy.
var packages = map[string]string{"preact": "preact.mjs", "preact/hooks": "hooks.mjs", "htm": "htm.mjs"}

// references tells how a file of a kind refers to others: each expression has what comes before the reference, the reference, and
// what comes after it.
var references = map[string]*regexp.Regexp{
	".html": regexp.MustCompile(`((?:href|src)=")(/assets/[^"]*)(")`),
	".css":  regexp.MustCompile(`(url\(")([^":]*)("\))`),
	".js":   regexp.MustCompile(`(\b(?:from|import)\s*\(?")([^"]*)(")`),
	".mjs":  regexp.MustCompile(`(\b(?:from|import)\s*\(?")([^"]*)(")`),
}

// sourceMap is the last line of a vendored module. We don't serve the maps, and a browser's tools would ask for them.
var sourceMap = regexp.MustCompile(`(?m)^//# sourceMappingURL=.*\n?`)

// fileset is what is served, by the names that its authors gave.
type fileset map[string]*file

// loader gives every file below static its hashed name. A file's content holds the names of those that it refers to, so these come
// first; two that refer to each other could have no names at all.
type loader struct {
	sources map[string]string
	open    []string // whose references are being resolved
	done    fileset
}

// load reads every file below static, by its last name, but for licences, which are there for who reads the repository. It
// fails over a reference to a file that isn't there: then a page would be broken.
func load(fsys fs.FS) (fileset, error) {
	l := loader{sources: make(map[string]string), done: make(fileset)}
	err := fs.WalkDir(fsys, "static", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || entry.Name() == "LICENSE" {
			return err
		}
		if _, twice := l.sources[entry.Name()]; twice {
			return fmt.Errorf("webui: two files are named %s, and served names have no directories", entry.Name())
		}
		body, err := fs.ReadFile(fsys, name)
		l.sources[entry.Name()] = string(body)
		return err
	})
	if err != nil {
		return nil, err
	}
	for name := range l.sources {
		if _, err := l.resolve(name); err != nil {
			return nil, err
		}
	}
	return l.done, nil
}

// resolve makes the file of a name, after those that it refers to.
func (l *loader) resolve(name string) (*file, error) {
	if f, ok := l.done[name]; ok {
		return f, nil
	}
	source, ok := l.sources[name]
	if !ok {
		return nil, fmt.Errorf("webui: %s refers to %s, which isn't embedded", l.open[len(l.open)-1], name)
	}
	if slices.Contains(l.open, name) {
		return nil, fmt.Errorf("webui: %s refers to itself by way of %s", name, strings.Join(l.open, ", "))
	}
	l.open = append(l.open, name)
	body, err := l.rewrite(path.Ext(name), source)
	if err != nil {
		return nil, err
	}
	l.open = l.open[:len(l.open)-1]

	f, err := newFile(name, body)
	l.done[name] = f
	return f, err
}

// rewrite puts the hashed names in place of the references of a source.
func (l *loader) rewrite(kind, source string) (string, error) {
	reference, ok := references[kind]
	if !ok {
		return source, nil
	}
	var failure error
	body := reference.ReplaceAllStringFunc(source, func(match string) string {
		parts := reference.FindStringSubmatch(match)
		name, isPackage := packages[parts[2]]
		if !isPackage {
			name = strings.TrimPrefix(strings.TrimPrefix(parts[2], "/assets/"), "./")
		}
		f, err := l.resolve(name)
		if err != nil {
			failure = err
			return match
		}
		return parts[1] + f.url() + parts[3]
	})
	if kind == ".mjs" {
		body = sourceMap.ReplaceAllLiteralString(body, "")
	}
	return body, failure
}

// hashOf is the part of a served name that changes with the content.
func hashOf(body string) string {
	sum := sha256.Sum256([]byte(body))
	return hex.EncodeToString(sum[:])[:hashLength]
}
