package webui

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"net/http"
	"path"
	"strconv"
	"strings"
	"sync"
	"time"
)

// How long a browser may keep what it has: a page and an asset under another deployment's name until it has asked again, an asset under its
// own name for good, as another content would have another name.
const (
	revalidated = "no-cache"
	immutable   = "public, max-age=31536000, immutable"
)

// file is one embedded file, with its references rewritten.
type file struct {
	hashed       string // the name that it is served under, if it isn't a page
	body         []byte
	contentType  string
	cacheControl string
	hash         string
	compressed   func() []byte
}

// newFile describes a file. It is compressed when it is first asked for: a Lambda's start needn't wait for all of them, and most browsers
// ask an instance for none but the page.
func newFile(name, body string) (*file, error) {
	extension := path.Ext(name)
	contentType, err := contentTypeOf(name)
	if err != nil {
		return nil, err
	}
	f := &file{body: []byte(body), contentType: contentType, hash: hashOf(body), cacheControl: immutable}
	f.hashed = strings.TrimSuffix(name, extension) + "." + f.hash + extension
	if f.isPage() {
		f.cacheControl = revalidated
	}
	f.compressed = sync.OnceValue(func() []byte { return compress(f.body) })
	return f, nil
}

func (f *file) isPage() bool { return strings.HasPrefix(f.contentType, "text/html") }

// url is where an asset is served.
func (f *file) url() string { return "/assets/" + f.hashed }

// contentTypeOf knows every kind of file we embed. The mime package would ask the machine, and machines disagree.
func contentTypeOf(name string) (string, error) {
	switch path.Ext(name) {
	case ".css":
		return "text/css; charset=utf-8", nil
	case ".html":
		return "text/html; charset=utf-8", nil
	case ".js", ".mjs":
		return "text/javascript; charset=utf-8", nil
	case ".svg":
		return "image/svg+xml", nil
	default:
		return "", fmt.Errorf("webui: %s has no known content type", name)
	}
}

// ServeHTTP answers with the file, or 304 to a browser that has it.
func (f *file) ServeHTTP(w http.ResponseWriter, r *http.Request) { f.serve(w, r, f.cacheControl) }

func (f *file) serve(w http.ResponseWriter, r *http.Request, cacheControl string) {
	header := w.Header()
	header.Set("Content-Type", f.contentType)
	header.Set("Cache-Control", cacheControl)
	header.Set("Vary", "Accept-Encoding")
	body, etag := f.body, f.hash
	if acceptsGzip(r.Header) {
		// The bytes are others, and so is the strong ETag.
		header.Set("Content-Encoding", "gzip")
		body, etag = f.compressed(), f.hash+"-gzip"
	}
	header.Set("ETag", `"`+etag+`"`)
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(body))
}

// acceptsGzip reports whether a caller takes gzip (RFC 9110, section 12.5.3). A proxy may have split the header's list over lines.
func acceptsGzip(header http.Header) bool {
	for coding := range strings.SplitSeq(strings.Join(header.Values("Accept-Encoding"), ","), ",") {
		name, parameter, _ := strings.Cut(coding, ";")
		if !strings.EqualFold(strings.TrimSpace(name), "gzip") {
			continue
		}
		_, weight, weighted := strings.Cut(parameter, "=")
		q, err := strconv.ParseFloat(strings.TrimSpace(weight), 64)
		return !weighted || (err == nil && q > 0)
	}
	return false
}

// compress cannot fail: it writes to memory, at a level that exists.
func compress(body []byte) []byte {
	var out bytes.Buffer
	w, err := gzip.NewWriterLevel(&out, gzip.BestCompression)
	if err == nil {
		_, err = w.Write(body)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		panic(err)
	}
	return out.Bytes()
}
