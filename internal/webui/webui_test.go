package webui_test

import (
	"compress/gzip"
	"encoding/xml"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/allo/reservations/internal/problem"
	"github.com/allo/reservations/internal/webui"
)

const (
	// maxFirstView is the most bytes of a page with its assets, compressed. Headers and data add up
	// to 60,000 bytes.
	maxFirstView = 46_000
	// maxConsoleView is the same for the console's shell. With a view, which comes after it, the
	// console's first view is within 60,000 bytes too.
	maxConsoleView = 48_000
	// maxOrderView is the same for the page of a hold. It reads one hold and no list, so its first
	// view is within 60,000 bytes too.
	maxOrderView = 48_000
	// maxDocsView is the same for the page of the API, most of which is Swagger UI.
	maxDocsView = 500_000
	// aHold is the address of a hold's page.
	aHold = "/reservation/0197c2a8-0000-7000-8000-000000000001"
)

// pages are the addresses of the pages, and the most bytes of each.
var pages = map[string]int{
	"/": maxFirstView, aHold: maxOrderView, "/sale": maxFirstView, "/ops": maxConsoleView,
	"/api/docs": maxDocsView,
}

func isPage(url string) bool { return pages[url] > 0 }

// site maps the address of every served file to its content: the pages, and the files that they and
// their assets refer to.
func site(t *testing.T, handler http.Handler) map[string]string {
	t.Helper()
	reference := regexp.MustCompile(`["(](/assets/[^")]+)`)
	found := map[string]string{}
	for queue := slices.Sorted(maps.Keys(pages)); len(queue) > 0; queue = queue[1:] {
		if _, ok := found[queue[0]]; ok {
			continue
		}
		resp := get(t, handler, queue[0], nil)
		if resp.Code != http.StatusOK {
			t.Errorf("GET %s = %d, want 200", queue[0], resp.Code)
		}
		found[queue[0]] = resp.Body.String()
		for _, match := range reference.FindAllStringSubmatch(resp.Body.String(), -1) {
			queue = append(queue, match[1])
		}
	}
	if len(found) < 15 {
		t.Fatalf("the site has %d files, want at least 15", len(found))
	}
	return found
}

func TestFilesAreServedWithTheirTypesAndHeaders(t *testing.T) {
	t.Parallel()

	types := map[string]string{
		"":     "text/html; charset=utf-8",
		".css": "text/css; charset=utf-8",
		".js":  "text/javascript; charset=utf-8",
		".mjs": "text/javascript; charset=utf-8",
		".svg": "image/svg+xml",
	}
	handler := webui.Handler(webui.Settings{})
	for url, body := range site(t, handler) {
		cache := "public, max-age=31536000, immutable"
		if isPage(url) {
			cache = "no-cache"
		}
		plain := get(t, handler, url, nil)
		packed := get(t, handler, url, http.Header{"Accept-Encoding": {"br, gzip;q=0.5"}})
		for _, resp := range []*httptest.ResponseRecorder{plain, packed} {
			checkHeader(t, resp, "Content-Type", types[path.Ext(url)])
			checkHeader(t, resp, "Cache-Control", cache)
			checkHeader(t, resp, "Vary", "Accept-Encoding")
			checkSecurityHeaders(t, resp)
		}
		checkHeader(t, packed, "Content-Encoding", "gzip")
		if got := unpack(t, packed.Body); got != body {
			t.Errorf(
				"GET %s with gzip unpacks to %d bytes, want the %d without",
				url,
				len(got),
				len(body),
			)
		}
		if plain.Header().Get("ETag") == packed.Header().Get("ETag") {
			t.Errorf("GET %s has the same ETag with gzip and without, want two", url)
		}
	}
}

func unpack(t *testing.T, packed io.Reader) string {
	t.Helper()
	r, err := gzip.NewReader(packed)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

func TestGzipIsOnlySentToCallersThatAcceptIt(t *testing.T) {
	t.Parallel()

	handler := webui.Handler(webui.Settings{})
	for accepted, want := range map[string]string{
		"": "", "br": "", "identity": "", "gzip;q=0": "", "gzip; q=0.000": "",
		"gzip;q=nonsense": "", "xgzip": "",
		"gzip": "gzip", "GZIP": "gzip", "br,gzip": "gzip", "deflate , gzip ; q=0.1": "gzip",
	} {
		resp := get(t, handler, "/", http.Header{"Accept-Encoding": {accepted}})
		if got := resp.Header().Get("Content-Encoding"); got != want {
			t.Errorf("Accept-Encoding %q gets Content-Encoding %q, want %q", accepted, got, want)
		}
	}
}

func TestIfNoneMatchSavesTheBody(t *testing.T) {
	t.Parallel()

	handler := webui.Handler(webui.Settings{})
	seen := make(map[string]string)
	for url := range site(t, handler) {
		for _, encoding := range []string{"", "gzip"} {
			etag := get(
				t,
				handler,
				url,
				http.Header{"Accept-Encoding": {encoding}},
			).Header().
				Get("ETag")
			if other, ok := seen[etag]; ok || len(etag) < 10 {
				t.Errorf("ETag of %s = %q, want another than that of %s", url, etag, other)
			}
			seen[etag] = url

			for _, condition := range []string{etag, "W/" + etag, `"other", ` + etag} {
				resp := get(t, handler, url, http.Header{
					"If-None-Match": {condition}, "Accept-Encoding": {encoding},
				})
				if resp.Code != http.StatusNotModified || resp.Body.Len() != 0 {
					t.Errorf("GET %s if none match %s = %d with %d bytes, want a bare 304",
						url, condition, resp.Code, resp.Body.Len())
				}
				checkHeader(t, resp, "ETag", etag)
				checkSecurityHeaders(t, resp)
			}
			resp := get(t, handler, url, http.Header{"If-None-Match": {`"other"`}})
			if resp.Code != http.StatusOK {
				t.Errorf("GET %s if none match another = %d, want 200", url, resp.Code)
			}
		}
	}
}

func TestUnknownPathsAre404(t *testing.T) {
	t.Parallel()

	handler := webui.Handler(webui.Settings{})
	for _, target := range []string{
		"/assets/", "/assets/missing.js", "/assets/missing.0123456789abcdef.js",
		"/assets/api.js", "/assets/api.0123.js", "/assets/shop.0123456789abcdef.html",
		"/assets/LICENSE", "/assets/%2e%2e/shop.html", "/assets/..%2fshop.html",
		"/assets/vendor/preact/preact.mjs", "/index.html", "/shop.html", "/static/shop.html",
		"/reservation/", "/reservation/a/b", "/reservation//", "/ops//", "/ops//x", "/ops/a//b", "//ops",
		"/settings.json/", "/assets/settings.json", "/assets/settings.0123456789abcdef.json",
		"/../ops", "/nothing", "/nothing/", "/api/", "/api/nothing", "/api/docs/x",
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

func TestAnUnknownPathIsAPageToABrowserAndAProblemToAProgram(t *testing.T) {
	t.Parallel()

	const browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
	handler := webui.Handler(webui.Settings{})
	for _, test := range []struct{ target, accept, contentType string }{
		{"/nothing", browser, "text/html; charset=utf-8"},
		{"/nothing", "Text/HTML", "text/html; charset=utf-8"},
		{"/assets/missing.js", browser, "text/html; charset=utf-8"},
		{"/apinothing", browser, "text/html; charset=utf-8"},
		{"/api/nothing", browser, problem.ContentType},
		{"/api", browser, problem.ContentType},
		{"/nothing", "", problem.ContentType},
		{"/nothing", "*/*", problem.ContentType},
		{"/nothing", "application/json", problem.ContentType},
	} {
		resp := get(t, handler, test.target, http.Header{"Accept": {test.accept}})

		if resp.Code != http.StatusNotFound {
			t.Errorf("GET %s = %d, want 404", test.target, resp.Code)
		}
		checkHeader(t, resp, "Content-Type", test.contentType)
		checkHeader(t, resp, "Cache-Control", "no-store")
		checkHeader(t, resp, "Vary", "Accept")
		checkSecurityHeaders(t, resp)
		want := "Page not found"
		if test.contentType == problem.ContentType {
			want = `"code":"NOT_FOUND"`
		}
		if !strings.Contains(resp.Body.String(), want) {
			t.Errorf("GET %s = %s, want %s in it", test.target, resp.Body, want)
		}
	}
}

func TestASlashAfterAPageIsRedirected(t *testing.T) {
	t.Parallel()

	handler := webui.Handler(webui.Settings{})
	for page := range pages {
		if page == "/" {
			continue
		}
		resp := get(t, handler, page+"/", nil)
		if resp.Code != http.StatusPermanentRedirect || resp.Header().Get("Location") != page {
			t.Errorf("GET %s/ = %d to %q, want 308 to %s",
				page, resp.Code, resp.Header().Get("Location"), page)
		}
		checkSecurityHeaders(t, resp)
	}
}

// While a release rolls out, a page of one version may ask the other version for a file.
func TestAnAssetUnderTheNameOfAnotherVersionIsServedButNotCached(t *testing.T) {
	t.Parallel()

	handler := webui.Handler(webui.Settings{})
	for url, body := range site(t, handler) {
		if isPage(url) {
			continue
		}
		parts := strings.Split(url, ".")
		resp := get(t, handler, parts[0]+".0123456789abcdef."+parts[2], nil)
		if resp.Code != http.StatusOK || resp.Body.String() != body {
			t.Errorf("GET %s under another hash = %d, want what we have", url, resp.Code)
		}
		checkHeader(t, resp, "Cache-Control", "no-cache")
	}
}

func TestEveryHoldHasTheSamePage(t *testing.T) {
	t.Parallel()

	handler := webui.Handler(webui.Settings{})
	page := get(t, handler, aHold, nil).Body.String()
	for _, id := range []string{"nonsense", "a%2Fb", "%25"} {
		resp := get(t, handler, "/reservation/"+id, nil)
		if resp.Code != http.StatusOK || resp.Body.String() != page {
			t.Errorf("GET /reservation/%s = %d, want 200 with the page", id, resp.Code)
		}
	}
}

// The console's script knows which of its addresses exist.
func TestTheConsoleIsOnePage(t *testing.T) {
	t.Parallel()

	handler := webui.Handler(webui.Settings{})
	page := get(t, handler, "/ops", nil).Body.String()
	for _, address := range []string{"/ops/holds", "/ops/holds/a%2Fb", "/ops/stock/a/b", "/ops/x"} {
		resp := get(t, handler, address, nil)
		if resp.Code != http.StatusOK || resp.Body.String() != page {
			t.Errorf("GET %s = %d, want 200 with the console", address, resp.Code)
		}
	}
}

func TestTheSettingsAreServed(t *testing.T) {
	t.Parallel()

	signIn := &webui.SignIn{Issuer: "https://id.example/pool", ClientID: "c", Scopes: []string{"a"}}
	for want, s := range map[string]webui.Settings{
		`{"demo":false,"auth":false,"signIn":null}`: {},
		`{"demo":true,"auth":true,"signIn":null}`:   {Demo: true, Guarded: true},
		`{"demo":false,"auth":true,"signIn":` +
			`{"issuer":"https://id.example/pool","clientId":"c","scopes":["a"]}}`: {SignIn: signIn},
		`{"demo":false,"auth":true,"signIn":` +
			`{"issuer":"https://id.example/pool","clientId":"c","scopes":["a"],"audience":"shop"}}`: {
			SignIn: &webui.SignIn{
				Issuer: signIn.Issuer, ClientID: "c", Scopes: signIn.Scopes, Audience: "shop",
			},
		},
	} {
		resp := get(t, webui.Handler(s), "/settings.json", nil)
		if resp.Code != http.StatusOK || resp.Body.String() != want {
			t.Errorf("GET /settings.json = %d %s, want %s", resp.Code, resp.Body, want)
		}
		checkHeader(t, resp, "Content-Type", "application/json")
		checkHeader(t, resp, "Cache-Control", "no-cache")
	}
}

// A script may send a request to the deployment's own addresses, and nowhere else.
func TestThePolicyNamesTheAddressesOfTheSettings(t *testing.T) {
	t.Parallel()

	for want, s := range map[string]webui.Settings{
		"'self'": {Demo: true, Guarded: true},
		"'self' https://token.example wss://live.example https://id.example": {
			SignIn:      &webui.SignIn{Issuer: "https://id.example/pool"},
			TokenOrigin: "https://token.example",
			LiveURL:     "wss://live.example/event/realtime",
		},
		"'self' http://localhost:9400": {SignIn: &webui.SignIn{Issuer: "http://localhost:9400"}},
	} {
		for _, address := range []string{"/", "/ops", "/settings.json"} {
			got := get(t, webui.Handler(s), address, nil).Header().Get("Content-Security-Policy")
			if !strings.Contains(got, "; connect-src "+want+"; ") {
				t.Errorf("GET %s has the policy %q, want connect-src %s", address, got, want)
			}
		}
	}
}

func TestPagesObeyTheirOwnPolicy(t *testing.T) {
	t.Parallel()

	handler := webui.Handler(webui.Settings{})
	for url, body := range site(t, handler) {
		if !isPage(url) && path.Ext(url) != ".svg" {
			continue
		}
		found, err := inspect(body)
		if err != nil {
			t.Errorf("%s: %v", url, err)
		}
		if len(found.inline) > 0 {
			t.Errorf("%s has inline %q, want none: the policy blocks it", url, found.inline)
		}
		if isPage(url) && (found.title == "" || len(found.references) == 0) {
			t.Errorf(
				"%s has the title %q and refers to %q, want both",
				url,
				found.title,
				found.references,
			)
		}
		for _, target := range slices.Concat(found.references, found.later) {
			if !strings.HasPrefix(target, "/") && target != "" { // an empty one is the page itself
				t.Errorf("%s refers to %s, want our own origin", url, target)
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

func TestScriptsMakeNoMarkup(t *testing.T) {
	t.Parallel()

	markup := regexp.MustCompile(`innerHTML|outerHTML|insertAdjacentHTML|setHTML|document\.write|` +
		`\beval\b|new Function|\.style\b|style=|DOMParser`)
	ours, err := filepath.Glob("static/assets/*.js")
	if err != nil || len(ours) < 5 {
		t.Fatalf("static/assets has the scripts %q, %v, want more", ours, err)
	}
	for _, name := range ours {
		body, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if found := markup.FindString(string(body)); found != "" {
			t.Errorf("%s uses %s, want data to become text only, and no inline style", name, found)
		}
	}
}

func TestFirstViewsAreSmall(t *testing.T) {
	t.Parallel()

	handler := webui.Handler(webui.Settings{})
	gzipped := http.Header{"Accept-Encoding": {"gzip"}}
	for page, most := range pages {
		found, err := inspect(get(t, handler, page, nil).Body.String())
		if err != nil {
			t.Fatal(err)
		}
		total := get(t, handler, page, gzipped).Body.Len()
		for _, target := range found.references {
			if strings.HasPrefix(target, "/assets/") {
				total += get(t, handler, target, gzipped).Body.Len()
			}
		}
		t.Logf("%s takes %d bytes", page, total)
		if total > most {
			t.Errorf("%s takes %d bytes, want at most %d", page, total, most)
		}
	}
}

func get(
	t *testing.T,
	handler http.Handler,
	target string,
	header http.Header,
) *httptest.ResponseRecorder {
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
		"default-src 'self'; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; "+
			"form-action 'self'")
	checkHeader(t, resp, "X-Content-Type-Options", "nosniff")
	checkHeader(t, resp, "Referrer-Policy", "same-origin")
}

// document has the findings of inspect.
type document struct {
	title      string
	references []string
	// later are the references in templates, which a browser doesn't load.
	later  []string
	inline []string
}

// inspect walks a page's elements. It collects the references, and all that a policy without
// 'unsafe-inline' would block.
func inspect(page string) (document, error) {
	decoder := xml.NewDecoder(strings.NewReader(page))
	decoder.Strict = false
	decoder.AutoClose = xml.HTMLAutoClose
	decoder.Entity = xml.HTMLEntity

	var found document
	element, templates := "", 0
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
			if element = strings.ToLower(token.Name.Local); element == "template" {
				templates++
			}
			found.attributes(token.Attr, templates > 0)
		case xml.EndElement:
			if strings.EqualFold(token.Name.Local, "template") {
				templates--
			}
			element = ""
		case xml.CharData:
			found.text(element, strings.TrimSpace(string(token)))
		}
	}
}

func (d *document) attributes(attributes []xml.Attr, isLater bool) {
	for _, attribute := range attributes {
		name := strings.ToLower(attribute.Name.Local)
		switch {
		case name == "style",
			strings.HasPrefix(name, "on"),
			strings.HasPrefix(attribute.Value, "javascript:"):
			d.inline = append(d.inline, name)
		case isLater && (name == "href" || name == "src"):
			d.later = append(d.later, attribute.Value)
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
