package negotiate_test

import (
	"bytes"
	"compress/gzip"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/allo/reservations/internal/negotiate"
)

func TestGzipIsForCallersThatAcceptIt(t *testing.T) {
	t.Parallel()

	for _, c := range []struct {
		headers []string
		want    bool
	}{
		{nil, false},
		{[]string{""}, false},
		{[]string{"br"}, false},
		{[]string{"identity"}, false},
		{[]string{"gzip"}, true},
		{[]string{"GZIP"}, true},
		{[]string{"x-gzip"}, true},
		{[]string{"xgzip"}, false},
		{[]string{"br,gzip"}, true},
		{[]string{"br", "gzip"}, true},
		{[]string{"deflate , gzip ; q=0.1"}, true},
		{[]string{"gzip;q=1.000"}, true},
		{[]string{"gzip;Q=0.5"}, true},
		{[]string{"gzip;q=0"}, false},
		{[]string{"gzip; q=0.000"}, false},
		{[]string{"gzip;q=0, *"}, false},
		{[]string{"*"}, true},
		{[]string{"*;q=0"}, false},
		{[]string{"br, *;q=0.1"}, true},
		{[]string{"identity, gzip;q=0.5"}, false},
		{[]string{"identity;q=0.5, gzip"}, true},
		{[]string{"gzip, identity"}, true},
		{[]string{"identity;q=0"}, false},
		{[]string{"gzip;q=nonsense"}, false},
		{[]string{"gzip;q=2"}, false},
		{[]string{"gzip;q=-1"}, false},
		{[]string{"gzip;q=NaN"}, false},
		{[]string{"gzip;level=9"}, false},
	} {
		header := http.Header{"Accept-Encoding": c.headers}
		if got := negotiate.AcceptsGzip(header); got != c.want {
			t.Errorf("AcceptsGzip(%q) = %t, want %t", c.headers, got, c.want)
		}
	}
}

func TestACopyIsCurrentIfItsTagIsNamed(t *testing.T) {
	t.Parallel()

	const tag = `"a1-gzip"`
	for _, c := range []struct {
		headers []string
		want    bool
	}{
		{nil, false},
		{[]string{""}, false},
		{[]string{","}, false},
		{[]string{tag}, true},
		{[]string{" W/" + tag + " "}, true},
		{[]string{`"other", ` + tag}, true},
		{[]string{`"other"`, tag}, true},
		{[]string{`"other",,` + tag}, true},
		{[]string{"*"}, true},
		{[]string{" * "}, true},
		{[]string{`"other", *`}, false}, // * stands alone
		{[]string{`"*"`}, false},
		{[]string{`"a1"`}, false},
		{[]string{"a1-gzip"}, false},
		{[]string{`w/` + tag}, false}, // W is a capital
		{[]string{`"a1-gzip`}, false},
	} {
		header := http.Header{"If-None-Match": c.headers}
		if got := negotiate.IsCurrent(header, tag); got != c.want {
			t.Errorf("IsCurrent(%q, %s) = %t, want %t", c.headers, tag, got, c.want)
		}
	}
}

func TestGzipGivesTheBodyBack(t *testing.T) {
	t.Parallel()

	unpack := func(packed []byte) string {
		r, err := gzip.NewReader(bytes.NewReader(packed))
		if err != nil {
			t.Error(err)
			return ""
		}
		body, err := io.ReadAll(r)
		if err != nil {
			t.Error(err)
		}
		return string(body)
	}
	var callers sync.WaitGroup // the writers are used again
	for n := range 20 {
		callers.Go(func() {
			body := strings.Repeat("a body ", 1000*n)
			var b bytes.Buffer
			negotiate.Gzip(&b, []byte(body))
			if got := unpack(b.Bytes()); got != body || n > 0 && b.Len() > len(body)/10 {
				t.Errorf("Gzip() makes %d bytes of %d, and they give %d back", b.Len(), len(body),
					len(got))
			}
			if got := unpack(negotiate.GzipBest([]byte(body))); got != body {
				t.Errorf("GzipBest() gives %d bytes back, want %d", len(got), len(body))
			}
		})
	}
	callers.Wait()
}
