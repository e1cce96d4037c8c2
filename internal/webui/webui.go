// Package webui is the storefront: two pages, one stylesheet and a few ES modules, embedded in the binary and served as
// they are written. There is no build step, and no template either: the pages hold no data. Their scripts read the
// reservation's id from the address and everything else from the API of the same origin.
package webui

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io/fs"
	"net/http"
	"path"
	"strings"
	"time"
)

//go:embed static
var static embed.FS

// contentSecurityPolicy lets a page load from its own origin only, and nothing inline: a name in the catalog that carries
// markup stays text, even if a script forgot to treat it so.
const contentSecurityPolicy = "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"

// Handler serves the pages and their assets. It panics over an embedded file that it can't describe, which only a change to
// this package can cause.
func Handler() http.Handler {
	files, err := load(static)
	if err != nil {
		panic(err)
	}

	mux := http.NewServeMux()
	mux.Handle("GET /{$}", files["index.html"])
	mux.Handle("GET /reservation/{id}", files["reservation.html"])
	mux.HandleFunc("GET /assets/{file...}", func(w http.ResponseWriter, r *http.Request) {
		asset, ok := files["assets/"+r.PathValue("file")]
		if !ok {
			http.NotFound(w, r)
			return
		}
		asset.ServeHTTP(w, r)
	})

	return withSecurityHeaders(mux)
}

// file is one embedded file with the headers that describe it.
type file struct {
	body        []byte
	contentType string
	etag        string
}

// load reads every file below static, by its path there. The ETag is a hash of the content: it is the same from every
// instance of the Lambda and changes with the deployment that changes the file.
func load(fsys fs.FS) (map[string]*file, error) {
	files := make(map[string]*file)
	err := fs.WalkDir(fsys, "static", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		body, err := fs.ReadFile(fsys, name)
		if err != nil {
			return err
		}
		contentType, err := contentTypeOf(name)
		if err != nil {
			return err
		}
		sum := sha256.Sum256(body)
		files[strings.TrimPrefix(name, "static/")] = &file{
			body:        body,
			contentType: contentType,
			etag:        `"` + hex.EncodeToString(sum[:16]) + `"`,
		}
		return nil
	})
	return files, err
}

// contentTypeOf knows every kind of file we embed. The mime package would ask the machine, and machines disagree.
func contentTypeOf(name string) (string, error) {
	switch path.Ext(name) {
	case ".css":
		return "text/css; charset=utf-8", nil
	case ".html":
		return "text/html; charset=utf-8", nil
	case ".js":
		return "text/javascript; charset=utf-8", nil
	case ".svg":
		return "image/svg+xml", nil
	default:
		return "", fmt.Errorf("webui: %s has no known content type", name)
	}
}

// ServeHTTP answers with the file, or 304 to a browser that has it. Browsers ask again each time: the names don't change
// with the content, so a page and a script of two deployments must never meet.
func (f *file) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	header.Set("Content-Type", f.contentType)
	header.Set("Cache-Control", "no-cache")
	header.Set("ETag", f.etag)
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(f.body))
}

func withSecurityHeaders(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		header := w.Header()
		header.Set("Content-Security-Policy", contentSecurityPolicy)
		header.Set("X-Content-Type-Options", "nosniff")
		header.Set("Referrer-Policy", "same-origin")
		next.ServeHTTP(w, r)
	})
}
