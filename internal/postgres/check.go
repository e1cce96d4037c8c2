package postgres

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
)

// UnsafeServerError lists the settings for which a server loses acknowledged commits or waits
// without a limit.
type UnsafeServerError struct{ Settings []string }

func (e *UnsafeServerError) Error() string {
	return "the database server is not safe to reserve on: " + strings.Join(e.Settings, ", ")
}

// settings are the server's settings on which the promises depend, in the order of settingsSQL.
type settings struct{ Fsync, SynchronousCommit, LockTimeout, StatementTimeout string }

// Aurora has no disk of its own to flush: its storage acknowledges a commit when four of six copies
// have it, whatever its fsync says.
const settingsSQL = `
SELECT CASE WHEN to_regproc('aurora_version') IS NULL THEN current_setting('fsync') ELSE 'on' END,
       current_setting('synchronous_commit'), current_setting('lock_timeout'),
       current_setting('statement_timeout')`

// Check reads the server settings on which the promises depend: fsync and synchronous_commit for
// I5, and the timeouts that limit every wait. It returns an *UnsafeServerError when one of them is
// off, or the error of the query.
func Check(ctx context.Context, p *Pool) error {
	s, err := QueryRow(ctx, p, pgx.RowToStructByPos[settings], settingsSQL)
	if err != nil {
		return fmt.Errorf("read the server's settings: %w", err)
	}
	if unsafe := s.unsafe(); unsafe != nil {
		return &UnsafeServerError{Settings: unsafe}
	}
	return nil
}

func (s settings) unsafe() []string {
	var unsafe []string
	if s.Fsync != "on" {
		unsafe = append(unsafe, "fsync is "+s.Fsync+", so a crash loses holds")
	}
	if s.SynchronousCommit == "off" {
		unsafe = append(unsafe, "synchronous_commit is off, so a crash loses holds")
	}
	if s.LockTimeout == "0" {
		unsafe = append(unsafe, "lock_timeout is 0 (the migration sets it on the role)")
	}
	if s.StatementTimeout == "0" {
		unsafe = append(unsafe, "statement_timeout is 0 (the migration sets it on the role)")
	}
	return unsafe
}
