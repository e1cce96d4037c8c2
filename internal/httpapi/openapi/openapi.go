// Package openapi has the document that describes the API. It is apart from package httpapi so that
// the web function, which serves the document, links no database driver, and the API's functions
// link no YAML.
package openapi

import (
	"crypto/sha256"
	_ "embed" // for the document
	"fmt"
	"net/http"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/google/uuid"
	"go.yaml.in/yaml/v3"
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
	tag := fmt.Sprintf(`"%x"`, sum[:16])
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		header := w.Header()
		if header.Get("X-Request-Id") == "" {
			header.Set("X-Request-Id", uuid.NewString())
		}
		header.Set("X-Content-Type-Options", "nosniff")
		header.Set("Cache-Control", maxAge)
		header.Set("ETag", tag)
		if matches(r.Header.Values("If-None-Match"), tag) {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		header.Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusOK)
		_, _ = w.Write(body) // an error means that the caller has gone
	})
}

// matches reports whether an If-None-Match header names the tag. A cache on the way may have made
// the tag a weak one.
func matches(header []string, tag string) bool {
	for candidate := range strings.SplitSeq(strings.Join(header, ","), ",") {
		candidate = strings.TrimSpace(candidate)
		if candidate == "*" || strings.TrimPrefix(candidate, "W/") == tag {
			return true
		}
	}
	return false
}
