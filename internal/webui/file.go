package webui

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"path"
	"strings"
	"sync"
	"time"

	"github.com/allo/reservations/internal/negotiate"
)

// The Cache-Control of the files.
const (
	// revalidated is for a page, and for an asset under the name of another version: a browser must
	// ask before it uses its copy.
	revalidated = "no-cache"
	// immutable is for an asset under its own name: another content would have another name.
	immutable = "public, max-age=31536000, immutable"
)

// file is one embedded file, with its references rewritten.
type file struct {
	hashed       string // the name in its URL, unless it is a page
	body         func() []byte
	contentType  string
	cacheControl string
	hash         string
	compressed   func() []byte
}

// newFile describes a file. The first request for it compresses it, so that a Lambda starts without
// that work: most instances serve only a page.
//
// A large file is embedded as gzip, under its name with .gz: it would make the binary too large.
func newFile(name, content string) (*file, error) {
	name, isCompressed := strings.CutSuffix(name, ".gz")
	extension := path.Ext(name)
	contentType, err := contentTypeOf(name)
	if err != nil {
		return nil, err
	}
	f := &file{contentType: contentType, hash: hashOf(content), cacheControl: immutable}
	f.hashed = strings.TrimSuffix(name, extension) + "." + f.hash + extension
	if f.isPage() {
		f.cacheControl = revalidated
	}
	if isCompressed {
		f.compressed = func() []byte { return []byte(content) }
		f.body = sync.OnceValue(func() []byte { return decompress(content) })
	} else {
		f.body = func() []byte { return []byte(content) }
		f.compressed = sync.OnceValue(func() []byte { return negotiate.GzipBest([]byte(content)) })
	}
	return f, nil
}

func (f *file) isPage() bool { return strings.HasPrefix(f.contentType, "text/html") }

// url is the address of an asset.
func (f *file) url() string { return "/assets/" + f.hashed }

// contentTypeOf returns the type of a file that we embed. Package mime would read the machine's
// tables, which differ.
func contentTypeOf(name string) (string, error) {
	switch path.Ext(name) {
	case ".css":
		return "text/css; charset=utf-8", nil
	case ".html":
		return "text/html; charset=utf-8", nil
	case ".js", ".mjs":
		return "text/javascript; charset=utf-8", nil
	case ".json":
		return "application/json", nil
	case ".svg":
		return "image/svg+xml", nil
	default:
		return "", fmt.Errorf("webui: %s has no known content type", name)
	}
}

// ServeHTTP answers with the file, or with 304 to a browser that has it.
func (f *file) ServeHTTP(w http.ResponseWriter, r *http.Request) { f.serve(w, r, f.cacheControl) }

func (f *file) serve(w http.ResponseWriter, r *http.Request, cacheControl string) {
	header := w.Header()
	header.Set("Content-Type", f.contentType)
	header.Set("Cache-Control", cacheControl)
	header.Set("Vary", "Accept-Encoding")
	body, etag := f.body, f.hash
	if negotiate.AcceptsGzip(r.Header) {
		// Other bytes need another strong ETag.
		header.Set("Content-Encoding", "gzip")
		body, etag = f.compressed, f.hash+"-gzip"
	}
	header.Set("ETag", `"`+etag+`"`)
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(body()))
}

// decompress can't fail: vendor.sh compressed the content, and a test reads it.
func decompress(content string) []byte {
	r, err := gzip.NewReader(strings.NewReader(content))
	if err != nil {
		panic(err)
	}
	body, err := io.ReadAll(r)
	if err != nil {
		panic(err)
	}
	return body
}
