package httpapi

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"net/http"

	"github.com/allo/reservations/internal/negotiate"
)

// minGzip is the smallest body that is compressed, in bytes. A smaller one fits into one packet of
// 1,500 bytes with its headers, so that a caller gets it no sooner.
const minGzip = 1000

// catalogAge is the Cache-Control of the catalog, which is the same for every caller. A cache may
// use its copy for a second. For two more seconds it may use the copy while it asks whether there
// is another. So of a thousand shoppers who look at a page, one a second asks the service.
const catalogAge = "public, max-age=1, stale-while-revalidate=2"

// sendBody answers with a body, or with 304 to a caller whose copy of the catalog is current. It
// compresses the answer to a GET for a caller who accepts that. The answer to a POST is small, and
// is for one caller.
func (r *recorder) sendBody(status int, body []byte) {
	header := r.Header()
	packed := false
	if r.isRead {
		header.Set("Vary", "Accept-Encoding")
		packed = len(body) >= minGzip && negotiate.AcceptsGzip(r.asked)
	}
	if r.isCatalog {
		tag := entityTag(header.Get("Link"), body, packed)
		header.Set("ETag", tag)
		header.Set("Cache-Control", catalogAge)
		if negotiate.IsCurrent(r.asked, tag) {
			header.Del("Content-Type")
			r.WriteHeader(http.StatusNotModified)
			return
		}
	}
	if packed {
		header.Set("Content-Encoding", "gzip")
		b := buffers.Get().(*bytes.Buffer)
		defer buffers.Put(b)
		b.Reset()
		negotiate.Gzip(b, body)
		body = b.Bytes()
	}
	r.WriteHeader(status)
	_, _ = r.Write(body) // an error means that the caller has gone
}

// entityTag is a strong ETag: one for each body, as its bytes are sent. Compressed bytes are
// others, so they have another tag. A page's Link belongs to it as much as its body does: a copy
// whose Link has changed isn't current.
func entityTag(link string, body []byte, packed bool) string {
	h := sha256.New()
	h.Write([]byte(link + "\n"))
	h.Write(body)
	tag := hex.EncodeToString(h.Sum(nil)[:16])
	if packed {
		tag += "-gzip"
	}
	return `"` + tag + `"`
}

// writeCatalog answers with a part of the catalog, which caches may keep.
func writeCatalog(w *recorder, body any) error {
	w.isCatalog = true
	return writeJSON(w, http.StatusOK, body)
}
