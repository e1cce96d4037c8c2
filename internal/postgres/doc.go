// Package postgres connects the service to its database: where the database is, a pool that
// survives a Lambda's freezes and a pooler in transaction mode, the meaning of errors, and a check
// that the server keeps the commits that it acknowledges.
package postgres
