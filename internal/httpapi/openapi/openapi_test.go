package openapi

import (
	"compress/gzip"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func get(ifNoneMatch ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodGet, "/api/openapi.json", nil)
	r.Header["If-None-Match"] = ifNoneMatch
	w := httptest.NewRecorder()
	Handler().ServeHTTP(w, r)
	return w
}

func TestTheDocumentIsServedAsJSON(t *testing.T) {
	t.Parallel()

	w := get()

	if w.Code != http.StatusOK || w.Header().Get("Content-Type") != "application/json" {
		t.Errorf(
			"answer = %d %s, want 200 application/json",
			w.Code,
			w.Header().Get("Content-Type"),
		)
	}
	if got := w.Header().Get("Cache-Control"); got != maxAge {
		t.Errorf("Cache-Control = %q, want %q", got, maxAge)
	}
	var doc struct{ OpenAPI string }
	if err := json.Unmarshal(
		w.Body.Bytes(),
		&doc,
	); err != nil ||
		!strings.HasPrefix(doc.OpenAPI, "3.1.") {
		t.Errorf("openapi = %q, %v, want 3.1", doc.OpenAPI, err)
	}
}

func TestTheDocumentIsTheSameEachTime(t *testing.T) {
	t.Parallel()

	one, two := get(), get()

	if one.Body.String() != two.Body.String() ||
		one.Header().Get("ETag") != two.Header().Get("ETag") {
		t.Error("two handlers serve different documents, so a cache would never hit")
	}
}

func TestACurrentCopyGets304(t *testing.T) {
	t.Parallel()

	tag := get().Header().Get("ETag")
	tests := []struct {
		ifNoneMatch []string
		want        int
	}{
		{[]string{tag}, http.StatusNotModified},
		{[]string{"W/" + tag}, http.StatusNotModified},
		{[]string{`"other", ` + tag}, http.StatusNotModified},
		{[]string{`"other"`, tag}, http.StatusNotModified},
		{[]string{"*"}, http.StatusNotModified},
		{[]string{`"other"`}, http.StatusOK},
		{[]string{strings.Trim(tag, `"`)}, http.StatusOK},
		{[]string{""}, http.StatusOK},
	}
	for _, test := range tests {
		w := get(test.ifNoneMatch...)
		if w.Code != test.want || w.Header().Get("ETag") != tag ||
			w.Header().Get("X-Request-Id") == "" {
			t.Errorf(
				"If-None-Match %q = %d %v, want %d, the ETag and an id",
				test.ifNoneMatch,
				w.Code,
				w.Header(),
				test.want,
			)
		}
		if (w.Body.Len() == 0) != (test.want == http.StatusNotModified) {
			t.Errorf("If-None-Match %q = %d with %d bytes", test.ifNoneMatch, w.Code, w.Body.Len())
		}
	}
}

func TestTheRequestsIDIsKept(t *testing.T) {
	t.Parallel()

	w := httptest.NewRecorder()
	w.Header().Set("X-Request-Id", "the platform's")

	Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/api/openapi.json", nil))

	if got := w.Header().Get("X-Request-Id"); got != "the platform's" {
		t.Errorf("X-Request-Id = %q, want the one that was set before", got)
	}
}

func TestTheDocumentIsCompressedForCallersThatAcceptIt(t *testing.T) {
	t.Parallel()

	handler := Handler()
	packed := func(ifNoneMatch string) *httptest.ResponseRecorder {
		r := httptest.NewRequest(http.MethodGet, "/api/openapi.json", nil)
		r.Header.Set("Accept-Encoding", "gzip")
		r.Header.Set("If-None-Match", ifNoneMatch)
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		return w
	}

	plain := get()
	w := packed(plain.Header().Get("ETag"))
	tag := w.Header().Get("ETag")
	r, err := gzip.NewReader(w.Body)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(r)
	if err != nil || string(body) != plain.Body.String() || w.Code != http.StatusOK ||
		w.Header().Get("Content-Encoding") != "gzip" || tag == plain.Header().Get("ETag") {
		t.Errorf("the compressed document = %d %v, %v, want the same one under another ETag", w.Code,
			w.Header(), err)
	}
	if again := packed(tag); again.Code != http.StatusNotModified || again.Body.Len() > 0 ||
		again.Header().Get("ETag") != tag {
		t.Errorf("the document that the caller has = %d %v, want 304", again.Code, again.Header())
	}
}
