// Package migrations embeds the SQL of the schema and of the routines. Package migrate applies it.
package migrations

import "embed"

// Schema has the versioned files, NNNN_name.sql: tables, types, triggers, constraints and indexes.
// They go forward only and are applied in order by goose. A versioned file never calls a routine.
//
//go:embed *.sql
var Schema embed.FS

// Routines has procedures/NAME.sql: each function and procedure once, in its present text, in the
// file of the routine that it serves.
//
//go:embed procedures/*.sql
var Routines embed.FS
