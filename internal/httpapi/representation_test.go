package httpapi_test

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/allo/reservations/internal/pgtest"
)

// catalogPaths are the addresses of the catalog.
func (s stockedClient) catalogPaths() []string {
	return []string{
		"/api/products", "/api/products?limit=1", "/api/products?sku=CM-300",
		"/api/products/" + s.mug.String(), "/api/warehouses", "/api/warehouses?limit=1",
	}
}

func TestACurrentCopyOfTheCatalogGets304(t *testing.T) {
	t.Parallel()

	s := newStockedClient(t)
	for _, path := range s.catalogPaths() {
		for _, accepted := range []string{"identity", "gzip"} {
			whole := s.send("GET", path, "", "Accept-Encoding", accepted).want(t, http.StatusOK, "")
			tag := whole.header.Get("ETag")
			for _, copies := range []string{tag, "W/" + tag, `"other", ` + tag, "*"} {
				a := s.send("GET", path, "", "Accept-Encoding", accepted, "If-None-Match", copies).
					want(t, http.StatusNotModified, "")
				if len(a.body) > 0 || a.header.Get("Content-Type") != "" ||
					a.header.Get("Content-Encoding") != "" {
					t.Errorf("%s has a body: %v %q", a.sent, a.header, a.body)
				}
				// The headers of a 304 take the place of those of the copy.
				for _, name := range []string{"ETag", "Cache-Control", "Vary", "Link"} {
					if diff := cmp.Diff(whole.header.Values(name), a.header.Values(name)); diff != "" {
						t.Errorf("%s: %s of the 304 differs from that of the 200:\n%s", a.sent, name,
							diff)
					}
				}
			}
			for _, copies := range []string{`"other"`, strings.Trim(tag, `"`), ""} {
				s.send("GET", path, "", "Accept-Encoding", accepted, "If-None-Match", copies).
					want(t, http.StatusOK, "")
			}
		}
	}
}

// head sends a HEAD. The document has no answer to one, so none is validated.
func (c client) head(path string, headers ...string) answer {
	c.t.Helper()
	r := httptest.NewRequest(http.MethodHead, path, nil).WithContext(c.t.Context())
	for i := 0; i < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	c.mux.ServeHTTP(w, r)
	return answer{w.Code, w.Header(), w.Body.Bytes(), "HEAD " + path}
}

func TestAHeadOfTheCatalogHasTheHeadersOfAGet(t *testing.T) {
	t.Parallel()

	s := newStockedClient(t)
	for _, path := range s.catalogPaths() {
		get := s.get(path).want(t, http.StatusOK, "")
		head := s.head(path)
		for _, name := range []string{"ETag", "Cache-Control", "Vary", "Link", "Content-Type"} {
			if got, want := head.header.Get(name), get.header.Get(name); got != want {
				t.Errorf("%s of HEAD %s is %q, want %q", name, path, got, want)
			}
		}
		if a := s.head(path, "If-None-Match", get.header.Get("ETag")); a.status !=
			http.StatusNotModified {
			t.Errorf("HEAD %s with the ETag of GET = %d, want 304", path, a.status)
		}
	}
}

// Each change of the answer changes its ETag.
func TestAnotherAnswerHasAnotherETag(t *testing.T) {
	t.Parallel()

	s := newStockedClient(t)
	tag := func(path string) string {
		t.Helper()
		return s.get(path).want(t, http.StatusOK, "").header.Get("ETag")
	}
	const page = "/api/products?limit=2"
	first := tag(page)
	if again := tag(page); again != first {
		t.Errorf("the same page has the ETags %s and %s, want one", first, again)
	}
	hold := s.reserve(t, reserveBody(s.mug, s.east, 1))
	held := tag(page)
	s.kill(hold)
	if dead := tag(page); held == first || dead != first {
		t.Errorf("the ETag is %s, with a live hold %s, with a dead one %s; want the hold to change it",
			first, held, dead)
	}
	// The page has the same body, but now there is another one.
	s.db.NamedProduct("Vase", "V-1")
	a := s.send("GET", page, "", "If-None-Match", first).want(t, http.StatusOK, "")
	if a.header.Get("Link") == "" || a.header.Get("ETag") == first {
		t.Errorf("the page that leads to another has the headers %v, want a Link and a new ETag",
			a.header)
	}
}

func TestOnlyTheCatalogIsCached(t *testing.T) {
	t.Parallel()

	s := newStockedClient(t)
	hold := s.reserve(t, reserveBody(s.mug, s.east, 1))
	for _, path := range s.catalogPaths() {
		const want = "public, max-age=1, stale-while-revalidate=2"
		if got := s.get(path).header.Get("Cache-Control"); got != want {
			t.Errorf("Cache-Control of %s = %q, want %q", path, got, want)
		}
	}
	for _, a := range []answer{
		s.get(hold), s.get("/api/reservations"), s.get("/api/stats"), s.get("/api/health"),
		s.get("/api/products?limit=0"), s.get("/api/products/" + s.east.String()),
		s.send("GET", "/api/products?limit=0", "", "If-None-Match", "*"),
		s.send("GET", hold, "", "If-None-Match", "*"),
		s.post(hold+"/confirm", ""),
		newClient(t, unreachable).get("/api/products"),
	} {
		if got := a.header.Get("Cache-Control"); got != "no-store" || a.header.Get("ETag") != "" ||
			a.status == http.StatusNotModified {
			t.Errorf("%s = %d with Cache-Control %q and the ETag %q, want no-store alone", a.sent,
				a.status, got, a.header.Get("ETag"))
		}
	}
}

func TestLongAnswersAreCompressedForCallersThatAcceptIt(t *testing.T) {
	t.Parallel()

	s := newStockedClient(t)
	s.db.Exec(`
INSERT INTO products (id, name, sku)
SELECT gen_random_uuid(), 'P' || n, 'P' || n FROM generate_series(1, 49) n`)
	for range 5 {
		s.reserve(t, reserveBody(s.mug, s.east, 1))
	}
	for _, path := range []string{"/api/products", "/api/reservations", "/api/stats"} {
		plain := s.get(path).want(t, http.StatusOK, "")
		packed := s.send("GET", path, "", "Accept-Encoding", "br, gzip;q=0.5").
			want(t, http.StatusOK, "")
		if plain.header.Get("Content-Encoding") != "" ||
			packed.header.Get("Content-Encoding") != "gzip" ||
			plain.header.Get("Vary") != "Accept-Encoding" ||
			packed.header.Get("Vary") != "Accept-Encoding" {
			t.Errorf("%s has the headers %v, and compressed %v", path, plain.header, packed.header)
		}
		r, err := gzip.NewReader(bytes.NewReader(packed.body))
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(r)
		if err != nil || len(packed.body) > len(plain.body)/2 {
			t.Errorf("%s has %d bytes compressed and %d plain, %v, want half at most", path,
				len(packed.body), len(plain.body), err)
		}
		if path == "/api/products" && !bytes.Equal(body, plain.body) {
			t.Errorf("%s unpacks to another body", path)
		}
		if p, q := plain.header.Get("ETag"), packed.header.Get("ETag"); path == "/api/products" &&
			(p == q || q != strings.TrimSuffix(p, `"`)+`-gzip"`) {
			t.Errorf("the ETags of %s are %s and compressed %s, want two", path, p, q)
		}
		// The ETag of the other representation isn't that of this one.
		s.send("GET", path, "", "If-None-Match", packed.header.Get("ETag")).want(t, http.StatusOK, "")
	}
	for _, accepted := range []string{"", "br", "gzip;q=0", "identity, gzip;q=0.5", "*;q=0"} {
		a := s.send("GET", "/api/products", "", "Accept-Encoding", accepted)
		if got := a.header.Get("Content-Encoding"); got != "" {
			t.Errorf("Accept-Encoding %q gets Content-Encoding %q, want none", accepted, got)
		}
	}
}

func TestShortAnswersErrorsAndPOSTsAreNotCompressed(t *testing.T) {
	t.Parallel()

	s := newStockedClient(t)
	lines := make([]string, 20)
	for i := range lines {
		product := s.db.NamedProduct(fmt.Sprint("P", i), fmt.Sprint("P", i))
		s.db.Stock(product, s.east, 1)
		lines[i] = reserveBody(product, s.east, 1)
	}
	for _, a := range []answer{
		s.send("GET", "/api/warehouses", "", "Accept-Encoding", "gzip"),
		s.send("GET", "/api/products?cursor="+strings.Repeat("x", 2000), "", "Accept-Encoding", "gzip"),
		s.post("/api/reservations", cartBody(lines...), "Accept-Encoding", "gzip"),
		s.post("/api/reservations", cartBody(lines...), "Accept-Encoding", "gzip"),
	} {
		if got := a.header.Get("Content-Encoding"); got != "" {
			t.Errorf("%s = %d of %d bytes with Content-Encoding %q, want none", a.sent, a.status,
				len(a.body), got)
		}
	}
	// The limit is on the body.
	db := pgtest.NewFixture(t, pgtest.New(t))
	c := newClient(t, db.URL)
	db.NamedWarehouse("n")
	short := len(c.get("/api/warehouses").body)
	for length, want := range map[int]string{999: "", 1000: "gzip"} {
		db.Exec("UPDATE warehouses SET name = repeat('n', $1)", length-short+1)
		plain := c.get("/api/warehouses")
		a := c.send("GET", "/api/warehouses", "", "Accept-Encoding", "gzip")
		if got := a.header.Get("Content-Encoding"); len(plain.body) != length || got != want {
			t.Errorf("a body of %d bytes has the Content-Encoding %q, want %d and %q",
				len(plain.body), got, length, want)
		}
	}
}
