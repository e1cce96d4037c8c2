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

// hashLength is the number of hexadecimal digits of a file's hash in its name. They are enough that
// no two contents share a name.
const hashLength = 16

// packages maps the names by which modules import vendored packages to their files. A browser would
// need an import map for the names, and that is an inline script, which our policy forbids.
var packages = map[string]string{
	"preact": "preact.mjs", "preact/hooks": "hooks.mjs", "htm": "htm.mjs",
	"papaparse":    "papaparse.mjs",
	"oauth4webapi": "oauth4webapi.mjs",
}

// references has for each kind of file the pattern of a reference to another file. Its groups are
// the text before the reference, the reference and the text after it.
var references = map[string]*regexp.Regexp{
	".html": regexp.MustCompile(`((?:href|src)=")(/assets/[^"]*)(")`),
	".css":  regexp.MustCompile(`(url\(")([^":]*)("\))`),
	".js":   regexp.MustCompile(`(\b(?:from|import)\s*\(?")([^"\s;()]*)(")`),
	".mjs":  regexp.MustCompile(`(\b(?:from|import)\s*\(?")([^"\s;()]*)(")`),
}

// sourceMap matches the last line of a vendored module. We serve no source maps, and a browser's
// developer tools would ask for them.
var sourceMap = regexp.MustCompile(`(?m)^//# sourceMappingURL=.*\n?`)

// fileset has the served files by their plain names.
type fileset map[string]*file

// loader gives every file below static its hashed name. A file's content has the names of the files
// that it refers to, so those files come first. Two files can't refer to each other.
type loader struct {
	sources map[string]source
	open    []string // the files whose references are being resolved
	done    fileset
}

// source is a file as it is embedded.
type source struct {
	file string // its name without the folder
	body string
	// isOpaque is true for a file of a vendored package that isn't a module: it refers to no other
	// file, although some of its text may look so.
	isOpaque bool
}

// load reads every file below static, except for the licences. It fails over a reference to a file
// that isn't there, as a page would be broken.
func load(fsys fs.FS) (fileset, error) {
	l := loader{sources: make(map[string]source), done: make(fileset)}
	err := fs.WalkDir(fsys, "static", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || isLicence(entry.Name()) {
			return err
		}
		plain := strings.TrimSuffix(entry.Name(), ".gz")
		if _, twice := l.sources[plain]; twice {
			return fmt.Errorf(
				"webui: two files are named %s, but served names have no folders",
				plain,
			)
		}
		body, err := fs.ReadFile(fsys, name)
		l.sources[plain] = source{
			file: entry.Name(), body: string(body),
			isOpaque: strings.HasPrefix(name, "static/vendor/") && path.Ext(name) != ".mjs",
		}
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

// isLicence reports whether a file is there for readers of the repository, not of the pages.
func isLicence(name string) bool {
	return strings.HasPrefix(name, "LICENSE") || name == "NOTICE"
}

// resolve returns the file with a plain name. It resolves the files that this one refers to first.
func (l *loader) resolve(name string) (*file, error) {
	if f, ok := l.done[name]; ok {
		return f, nil
	}
	src, ok := l.sources[name]
	if !ok {
		return nil, fmt.Errorf(
			"webui: %s refers to %s, which isn't embedded",
			l.open[len(l.open)-1],
			name,
		)
	}
	if slices.Contains(l.open, name) {
		return nil, fmt.Errorf(
			"webui: %s refers to itself through %s",
			name,
			strings.Join(l.open, ", "),
		)
	}
	l.open = append(l.open, name)
	body, err := l.rewrite(path.Ext(name), src)
	if err != nil {
		return nil, err
	}
	l.open = l.open[:len(l.open)-1]

	f, err := newFile(src.file, body)
	l.done[name] = f
	return f, err
}

// rewrite replaces the references of a source by hashed names, and leaves out comments.
func (l *loader) rewrite(kind string, src source) (string, error) {
	reference, ok := references[kind]
	if !ok || src.isOpaque {
		return src.body, nil
	}
	var failure error
	body := reference.ReplaceAllStringFunc(withoutComments(kind, src.body), func(match string) string {
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

// withoutComments returns a script or a style sheet without the lines that have nothing but a
// comment. They are a quarter of our scripts, and a browser has no use for them. A line that begins
// so inside of a text of several lines would be lost too, so our scripts have none.
func withoutComments(kind, body string) string {
	if kind != ".js" && kind != ".css" {
		return body
	}
	var kept strings.Builder
	kept.Grow(len(body))
	isInside := false // of a comment of several lines
	for line := range strings.Lines(body) {
		text := strings.TrimSpace(line)
		switch {
		case isInside:
			isInside = !strings.HasSuffix(text, "*/")
		case kind == ".js" && strings.HasPrefix(text, "//"):
		case kind == ".css" && strings.HasPrefix(text, "/*") && strings.HasSuffix(text, "*/"):
		case kind == ".css" && strings.HasPrefix(text, "/*") && !strings.Contains(text, "*/"):
			isInside = true
		default:
			kept.WriteString(line)
		}
	}
	return kept.String()
}

// hashOf returns the part of a served name that changes with the content.
func hashOf(body string) string {
	sum := sha256.Sum256([]byte(body))
	return hex.EncodeToString(sum[:])[:hashLength]
}
