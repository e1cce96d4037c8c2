// Package migrations embeds the schema's migrations: NNNN_name.sql, forward only, applied in order by package migrate.
package migrations

import "embed"

// FS holds the migrations.
//
//go:embed *.sql
var FS embed.FS
