// Package openapi is the document that describes the API. It stands apart from package httpapi so that the function of the pages,
// which serves the document, links no database, and the functions of the API link no YAML.
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

// document is the contract. It is kept as YAML because people write it, and served as JSON because programs read it.
//
//go:embed openapi.yaml
var document []byte

// maxAge is how long a copy of the document may be used without asking. It is short because the answer to asking is too.
const maxAge = "public, max-age=300"

// JSON is the document in JSON, with the fields of each object in the order of their names. An error means that openapi.yaml
// isn't YAML, or says what JSON can't, which this package's tests would have found.
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

// Handler answers with the document, whatever the path. It panics over a document that it can't read, which only a change to this
// package can cause. The request's id is made here unless whoever mounts the handler has set X-Request-Id before.
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
		_, _ = w.Write(body) // the caller is gone: there is nobody to tell
	})
}

// matches reports whether an If-None-Match names the tag. A cache on the way may have made the tag a weak one.
func matches(header []string, tag string) bool {
	for candidate := range strings.SplitSeq(strings.Join(header, ","), ",") {
		candidate = strings.TrimSpace(candidate)
		if candidate == "*" || strings.TrimPrefix(candidate, "W/") == tag {
			return true
		}
	}
	return false
}
