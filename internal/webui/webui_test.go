package webui_test

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/allo/reservations/internal/webui"
)

// maxBytes is what the whole storefront may weigh before compression.
const maxBytes = 25_000

func TestFilesAreServedWithTheirTypesAndHeaders(t *testing.T) {
	t.Parallel()

	types := map[string]string{
		".css":  "text/css; charset=utf-8",
		".html": "text/html; charset=utf-8",
		".js":   "text/javascript; charset=utf-8",
		".svg":  "image/svg+xml",
	}
	handler := webui.Handler()
	for name, body := range staticFiles(t) {
		resp := get(t, handler, urlOf(name), nil)

		if resp.Code != http.StatusOK || resp.Body.String() != body {
			t.Errorf("GET %s = %d with %d bytes, want 200 with the %d of %s", urlOf(name), resp.Code, resp.Body.Len(), len(body), name)
		}
		checkHeader(t, resp, "Content-Type", types[path.Ext(name)])
		checkHeader(t, resp, "Content-Length", fmt.Sprint(len(body)))
		checkHeader(t, resp, "Cache-Control", "no-cache")
		checkSecurityHeaders(t, resp)
	}
}

func TestIfNoneMatchSavesTheBody(t *testing.T) {
	t.Parallel()

	handler := webui.Handler()
	seen := make(map[string]string)
	for name := range staticFiles(t) {
		etag := get(t, handler, urlOf(name), nil).Header().Get("ETag")
		if other, ok := seen[etag]; ok || len(etag) < 10 {
			t.Errorf("ETag of %s = %q, want one of its own (%s)", name, etag, other)
		}
		seen[etag] = name

		for _, condition := range []string{etag, "W/" + etag, `"other", ` + etag} {
			resp := get(t, handler, urlOf(name), http.Header{"If-None-Match": {condition}})
			if resp.Code != http.StatusNotModified || resp.Body.Len() != 0 {
				t.Errorf("GET %s if none match %s = %d with %d bytes, want a bare 304", name, condition, resp.Code, resp.Body.Len())
			}
			checkHeader(t, resp, "ETag", etag)
			checkHeader(t, resp, "Cache-Control", "no-cache")
			checkSecurityHeaders(t, resp)
		}
		if resp := get(t, handler, urlOf(name), http.Header{"If-None-Match": {`"other"`}}); resp.Code != http.StatusOK {
			t.Errorf("GET %s if none match another = %d, want 200", name, resp.Code)
		}
	}
}

func TestUnknownPathsAre404(t *testing.T) {
	t.Parallel()

	handler := webui.Handler()
	for _, target := range []string{
		"/assets/", "/assets/missing.js", "/assets/api.js/", "/assets/index.html", "/assets/%2e%2e/index.html",
		"/assets/..%2findex.html", "/assets/API.JS", "/index.html", "/static/index.html", "/reservation/", "/reservation/a/b",
	} {
		resp := get(t, handler, target, nil)

		if resp.Code != http.StatusNotFound {
			t.Errorf("GET %s = %d, want 404", target, resp.Code)
		}
		checkSecurityHeaders(t, resp)
		if etag := resp.Header().Get("ETag"); etag != "" {
			t.Errorf("GET %s has the ETag %s, want none", target, etag)
		}
	}
}

func TestEveryHoldHasTheSamePage(t *testing.T) {
	t.Parallel()

	handler := webui.Handler()
	page := staticFiles(t)["reservation.html"]
	for _, id := range []string{"0197c2a8-0000-7000-8000-000000000001", "nonsense", "a%2Fb", "%25"} {
		if resp := get(t, handler, "/reservation/"+id, nil); resp.Code != http.StatusOK || resp.Body.String() != page {
			t.Errorf("GET /reservation/%s = %d, want 200 with the page", id, resp.Code)
		}
	}
}

func TestPagesObeyTheirOwnPolicy(t *testing.T) {
	t.Parallel()

	handler := webui.Handler()
	for name, body := range staticFiles(t) {
		if path.Ext(name) != ".html" && path.Ext(name) != ".svg" {
			continue
		}
		found, err := inspect(body)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if len(found.inline) > 0 {
			t.Errorf("%s has inline %q, want none: the policy blocks it", name, found.inline)
		}
		if path.Ext(name) == ".html" && (found.title == "" || len(found.references) == 0) {
			t.Errorf("%s has the title %q and refers to %q, want both", name, found.title, found.references)
		}
		for _, target := range found.references {
			if resp := get(t, handler, target, nil); !strings.HasPrefix(target, "/") || resp.Code != http.StatusOK {
				t.Errorf("%s refers to %s, which is %d", name, target, resp.Code)
			}
		}
	}
}

func TestInspectFindsWhatThePolicyBlocks(t *testing.T) {
	t.Parallel()

	for _, page := range []string{
		`<script>alert(1)</script>`,
		`<script src="/a.js">alert(1)</script>`,
		`<style>p { color: red }</style>`,
		`<p style="color: red">a</p>`,
		`<button onclick="f()">a</button>`,
		`<BUTTON ONCLICK="f()">a</BUTTON>`,
		`<a href="javascript:f()">a</a>`,
	} {
		if found, err := inspect(page); err != nil || len(found.inline) == 0 {
			t.Errorf("inspect(%s) = %+v, %v, want something inline", page, found, err)
		}
	}
}

func TestScriptsImportWhatExistsAndMakeNoMarkup(t *testing.T) {
	t.Parallel()

	files := staticFiles(t)
	imports := regexp.MustCompile(`\bfrom\s+"([^"]+)"|\bimport\s*\(?\s*"([^"]+)"`)
	markup := regexp.MustCompile(`innerHTML|outerHTML|insertAdjacentHTML|setHTML|document\.write|\beval\b|new Function|\.style\b|DOMParser`)
	for name, body := range files {
		if path.Ext(name) != ".js" {
			continue
		}
		if found := markup.FindString(body); found != "" {
			t.Errorf("%s uses %s, want data to reach the page as text only", name, found)
		}
		for _, match := range imports.FindAllStringSubmatch(body, -1) {
			target := path.Join(path.Dir(name), match[1]+match[2])
			if _, ok := files[target]; !ok {
				t.Errorf("%s imports %s, which isn't embedded", name, target)
			}
		}
	}
}

func TestStorefrontIsSmall(t *testing.T) {
	t.Parallel()

	total := 0
	for _, body := range staticFiles(t) {
		total += len(body)
	}
	if total > maxBytes {
		t.Errorf("the storefront is %d bytes, want at most %d", total, maxBytes)
	}
}

// staticFiles reads what the package should have embedded, by its path below static.
func staticFiles(t *testing.T) map[string]string {
	t.Helper()
	files := make(map[string]string)
	root := os.DirFS("static")
	err := fs.WalkDir(root, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		body, err := fs.ReadFile(root, name)
		files[name] = string(body)
		return err
	})
	if err != nil || len(files) < 3 {
		t.Fatalf("reading static: %d files, %v", len(files), err)
	}
	return files
}

// urlOf is where a file is served.
func urlOf(name string) string {
	switch name {
	case "index.html":
		return "/"
	case "reservation.html":
		return "/reservation/0197c2a8-0000-7000-8000-000000000001"
	default:
		return "/" + name
	}
}

func get(t *testing.T, handler http.Handler, target string, header http.Header) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, target, nil)
	for name, values := range header {
		r.Header[name] = values
	}
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, r)
	return w
}

func checkHeader(t *testing.T, resp *httptest.ResponseRecorder, name, want string) {
	t.Helper()
	if got := resp.Header().Values(name); !slices.Equal(got, []string{want}) {
		t.Errorf("%s = %q, want %q", name, got, want)
	}
}

func checkSecurityHeaders(t *testing.T, resp *httptest.ResponseRecorder) {
	t.Helper()
	checkHeader(t, resp, "Content-Security-Policy",
		"default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'")
	checkHeader(t, resp, "X-Content-Type-Options", "nosniff")
	checkHeader(t, resp, "Referrer-Policy", "same-origin")
}

// document is what inspect finds in a page.
type document struct {
	title      string
	references []string
	inline     []string
}

// inspect walks a page's elements and notes what it refers to and what a policy without 'unsafe-inline' would block.
func inspect(page string) (document, error) {
	decoder := xml.NewDecoder(strings.NewReader(page))
	decoder.Strict = false
	decoder.AutoClose = xml.HTMLAutoClose
	decoder.Entity = xml.HTMLEntity

	var found document
	element := ""
	for {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			return found, nil
		}
		if err != nil {
			return found, err
		}
		switch token := token.(type) {
		case xml.StartElement:
			element = strings.ToLower(token.Name.Local)
			found.attributes(token.Attr)
		case xml.EndElement:
			element = ""
		case xml.CharData:
			found.text(element, strings.TrimSpace(string(token)))
		}
	}
}

func (d *document) attributes(attributes []xml.Attr) {
	for _, attribute := range attributes {
		name := strings.ToLower(attribute.Name.Local)
		switch {
		case name == "style", strings.HasPrefix(name, "on"), strings.HasPrefix(attribute.Value, "javascript:"):
			d.inline = append(d.inline, name)
		case name == "href", name == "src", name == "action":
			d.references = append(d.references, attribute.Value)
		}
	}
}

func (d *document) text(element, text string) {
	switch {
	case text == "":
	case element == "title":
		d.title = text
	case element == "script", element == "style":
		d.inline = append(d.inline, text)
	}
}
