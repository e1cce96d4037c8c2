// Package webui is the storefront and the operator's page: three pages, two stylesheets and a few ES modules, embedded in the binary.
// There is no build step, and no template either: the pages hold no data. Their scripts read the reservation's id from the address
// and everything else from the API of the same origin.
//
// The files name each other as their authors wrote them. When they are loaded each is given a name with a hash of its content, and
// the references to it are rewritten, see load: a page is asked for again each time, and what it refers to is kept for a year.
//
// What is under static/vendor is other people's: `make vendor-web` fetched it from npm and checked its integrity, see vendor.sh.
package webui

import (
	"embed"
	"net/http"
	"strings"
)

//go:embed static
var static embed.FS

// contentSecurityPolicy lets a page load from its own origin only, and nothing inline: a name in the catalog that carries
// markup stays text, even if a script forgot to treat it so.
const contentSecurityPolicy = "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"

// Handler serves the pages and their assets. It panics over embedded files that don't fit together, which only a change to
// this package can cause.
func Handler() http.Handler {
	files, err := load(static)
	if err != nil {
		panic(err)
	}

	mux := http.NewServeMux()
	mux.Handle("GET /{$}", files["shop.html"])
	mux.Handle("GET /reservation/{id}", files["hold.html"])
	mux.Handle("GET /ops", files["ops.html"])
	mux.HandleFunc("GET /assets/{file}", func(w http.ResponseWriter, r *http.Request) {
		asset, isCurrent, ok := files.asset(r.PathValue("file"))
		switch {
		case !ok:
			http.NotFound(w, r)
		case !isCurrent:
			asset.serve(w, r, revalidated)
		default:
			asset.ServeHTTP(w, r)
		}
	})

	return withSecurityHeaders(mux)
}

// asset finds what a hashed name stands for. While a release rolls out, a page of one deployment may ask the other for its files: that
// one's file of the same name is better than none, but not to be kept under a name that isn't its own. Hence isCurrent.
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

func withSecurityHeaders(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		header := w.Header()
		header.Set("Content-Security-Policy", contentSecurityPolicy)
		header.Set("X-Content-Type-Options", "nosniff")
		header.Set("Referrer-Policy", "same-origin")
		next.ServeHTTP(w, r)
	})
}
