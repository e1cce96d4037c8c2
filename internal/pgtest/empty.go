package pgtest

import (
	"context"
	"crypto/rand"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

// NewEmpty returns an empty database for one test: no migration has run on it. Its URL is its
// DirectURL, even where tests use a PgBouncer. It is dropped when the test ends.
func NewEmpty(t testing.TB) Database {
	t.Helper()
	c := running(t)
	name := "empty_" + strings.ToLower(rand.Text())
	ctx, cancel := context.WithTimeout(context.Background(), cloneTimeout)
	defer cancel()
	if err := c.exec(ctx, "CREATE DATABASE "+pgx.Identifier{name}.Sanitize()); err != nil {
		t.Fatalf("pgtest: make an empty database: %v", err)
	}
	t.Cleanup(func() {
		if err := c.drop(name); err != nil {
			t.Errorf("pgtest: drop database %s: %v", name, err)
		}
	})
	url := c.server.URL(name)
	return Database{URL: url, DirectURL: url, Name: name}
}
