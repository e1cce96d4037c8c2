// Package webui has the pages: the shop, a hold, the console, the API's documentation and the 404
// page. They are embedded in the binary. There is no build step and no template: the pages
// hold no data. Their scripts read the reservation's id from the address, and all else from the API
// of the same origin.
//
// The shop's header, with the cart and the bar of the shopper's own holds, is on each page that a
// shopper sees: the shop, a product, the sale, a hold and the 404 page. The console and the
// documentation have headers of their own, because they are for other people.
//
// The files refer to each other by their plain names. When they are loaded, each gets a name with a
// hash of its content, and load rewrites the references. So a browser may keep a file for a year,
// while it asks for a page each time.
//
// The files under static/vendor are packages of others: vendor.sh fetched them from npm and checked
// their integrity.
package webui

import (
	"embed"
	"net/http"
	"strings"

	"github.com/allo/reservations/internal/problem"
)

//go:embed static
var static embed.FS

// site is what the handler serves.
type site struct {
	files fileset
	// settings is the document of the deployment's settings.
	settings *file
}

// Handler serves the pages, their assets and the settings. Any other address answers 404: with a
// page to a browser and with a problem to a program. Handler panics over embedded files that don't
// fit together, which only a change to this package can cause.
func Handler(s Settings) http.Handler {
	files, err := load(static)
	if err != nil {
		panic(err)
	}
	document, err := s.document()
	if err != nil {
		panic(err)
	}
	settings, err := newFile("settings.json", document)
	if err != nil {
		panic(err)
	}
	settings.cacheControl = revalidated
	return withSecurityHeaders(s.policy(), site{files, settings})
}

// ServeHTTP answers a GET or a HEAD; the gateway routes no other method here. It uses no ServeMux,
// which would answer an address like //ops with a redirect.
func (s site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	address := r.URL.EscapedPath()
	if address == "/settings.json" {
		s.settings.ServeHTTP(w, r)
		return
	}
	s.files.ServeHTTP(w, r)
}

// ServeHTTP answers with a page or an asset.
func (files fileset) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	address := r.URL.EscapedPath()
	if page := files.page(address); page != nil {
		page.ServeHTTP(w, r)
		return
	}
	if shorter, ok := strings.CutSuffix(address, "/"); ok && files.page(shorter) != nil {
		// #nosec G710 -- the address of a page begins with one slash, so it is on this host
		http.Redirect(w, r, shorter, http.StatusPermanentRedirect)
		return
	}
	name, _ := strings.CutPrefix(address, "/assets/")
	asset, isCurrent, ok := files.asset(name)
	switch {
	case !ok:
		files.notFound(w, r)
	case !isCurrent:
		asset.serve(w, r, revalidated)
	default:
		asset.ServeHTTP(w, r)
	}
}

// page returns the page at an address, or nil. A hold's page is the same for every id, and so is a
// product's. The console is one page for all its addresses: its script says which of them exist.
func (files fileset) page(address string) *file {
	switch address {
	case "/":
		return files["shop.html"]
	case "/sale":
		return files["sale.html"]
	case "/ops":
		return files["ops.html"]
	case "/api/docs":
		return files["docs.html"]
	}
	if rest, ok := strings.CutPrefix(address, "/ops/"); ok && areSegments(rest) {
		return files["ops.html"]
	}
	for prefix, page := range map[string]string{
		"/reservation/": "hold.html", "/product/": "product.html",
	} {
		id, ok := strings.CutPrefix(address, prefix)
		if ok && id != "" && !strings.Contains(id, "/") {
			return files[page]
		}
	}
	return nil
}

// areSegments reports whether a path is made of segments, and none is empty.
func areSegments(path string) bool {
	return !strings.Contains("/"+path+"/", "//")
}

// asset returns the file with a hashed name. While a release rolls out, a page of one version may
// ask the other version for a file. That version's file of the same plain name is better than none,
// but nobody may keep it under a hash that isn't its own: then isCurrent is false.
func (files fileset) asset(hashed string) (f *file, isCurrent, ok bool) {
	parts := strings.Split(hashed, ".")
	if len(parts) != 3 || len(parts[1]) != hashLength {
		return nil, false, false
	}
	f, ok = files[parts[0]+"."+parts[2]]
	if !ok || f.isPage() {
		return nil, false, false
	}
	return f, f.hashed == hashed, true
}

// notFound answers with a page outside /api to a caller who accepts HTML, and else with a problem.
func (files fileset) notFound(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Vary", "Accept")
	if strings.HasPrefix(r.URL.Path+"/", "/api/") || !acceptsHTML(r.Header) {
		problem.NotFound().Write(w)
		return
	}
	page := files["missing.html"]
	w.Header().Set("Content-Type", page.contentType)
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusNotFound)
	_, _ = w.Write(page.body()) // an error means that the caller has gone
}

// acceptsHTML reports whether a caller asks for HTML by name, as browsers do for a page.
func acceptsHTML(header http.Header) bool {
	for part := range strings.SplitSeq(strings.Join(header.Values("Accept"), ","), ",") {
		media, _, _ := strings.Cut(part, ";")
		if strings.EqualFold(strings.TrimSpace(media), "text/html") {
			return true
		}
	}
	return false
}

func withSecurityHeaders(policy string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		header := w.Header()
		header.Set("Content-Security-Policy", policy)
		header.Set("X-Content-Type-Options", "nosniff")
		header.Set("Referrer-Policy", "same-origin")
		next.ServeHTTP(w, r)
	})
}
