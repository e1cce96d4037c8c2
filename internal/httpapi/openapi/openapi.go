// Package openapi has the document that describes the API. It is apart from package httpapi so that
// the web function, which serves the document, links no database driver, and the API's functions
// link no YAML.
package openapi

import (
	"crypto/sha256"
	_ "embed" // for the document
	"fmt"
	"net/http"
	"sync"

	"github.com/go-json-experiment/json"
	"github.com/google/uuid"
	"go.yaml.in/yaml/v3"

	"github.com/allo/reservations/internal/negotiate"
)

// document is the contract: YAML for the people who write it, served as JSON to programs.
//
//go:embed openapi.yaml
var document []byte

// maxAge lets a copy of the document be used for five minutes. To ask again is cheap: a 304.
const maxAge = "public, max-age=300"

// JSON returns the document as JSON, with the fields of each object ordered by name. It fails if
// openapi.yaml isn't YAML or has a value that JSON lacks, which this package's tests would find.
func JSON() ([]byte, error) {
	var value any
	if err := yaml.Unmarshal(document, &value); err != nil {
		return nil, fmt.Errorf("read openapi.yaml: %w", err)
	}
	body, err := json.Marshal(value, json.Deterministic(true))
	if err != nil {
		return nil, fmt.Errorf("write openapi.yaml as JSON: %w", err)
	}
	return body, nil
}

// Handler serves the document at every path. It panics if it can't read the document, which only a
// change to this package can cause. It keeps the X-Request-Id that the answer has already, and else
// sets a random one.
func Handler() http.Handler {
	body, err := JSON()
	if err != nil {
		panic(err)
	}
	sum := sha256.Sum256(body)
	packed := sync.OnceValue(func() []byte { return negotiate.GzipBest(body) })
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		header := w.Header()
		if header.Get("X-Request-Id") == "" {
			header.Set("X-Request-Id", uuid.NewString())
		}
		header.Set("X-Content-Type-Options", "nosniff")
		header.Set("Cache-Control", maxAge)
		header.Set("Vary", "Accept-Encoding")
		isPacked := negotiate.AcceptsGzip(r.Header)
		tag := fmt.Sprintf(`"%x"`, sum[:16])
		if isPacked { // other bytes need another ETag
			tag = fmt.Sprintf(`"%x-gzip"`, sum[:16])
		}
		header.Set("ETag", tag)
		if negotiate.IsCurrent(r.Header, tag) {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		answer := body
		if isPacked {
			header.Set("Content-Encoding", "gzip")
			answer = packed()
		}
		header.Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusOK)
		_, _ = w.Write(answer) // an error means that the caller has gone
	})
}
