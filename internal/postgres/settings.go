package postgres

import (
	"fmt"
	"strings"
)

// Place is where a rule about the server's settings is asked for.
type Place int

// The places.
const (
	// OnConnect refuses a connection on which a rule is broken.
	OnConnect Place = 1 << iota
	// InHealth makes the service not ready.
	InHealth
	// InAudit is a violation of I5, durability.
	InAudit
)

// rule is a value that a setting must not have.
type rule struct {
	setting, broken string
	// reason says what the value leads to.
	reason string
	places Place
	// notAurora says that Aurora keeps the promise with any value.
	notAurora bool
}

// rules is the one list of the settings that the service depends on. A standby serves the lists and
// the audit, so it is only unhealthy.
var rules = []rule{
	{
		setting: "fsync", broken: "off", reason: ", so a crash loses holds",
		places: OnConnect | InHealth | InAudit,
		// Aurora has no disk of its own to flush: its storage acknowledges a commit when four of six
		// copies have it.
		notAurora: true,
	},
	{
		setting: "synchronous_commit", broken: "off", reason: ", so a crash loses holds",
		places: OnConnect | InHealth | InAudit,
	},
	{
		setting: "client_min_messages", broken: "error",
		reason: ", so the server doesn't tell that a standby lacks a commit",
		places: OnConnect | InHealth | InAudit,
	},
	{
		setting: "session_replication_role", broken: "replica", reason: ", so no trigger runs",
		places: OnConnect | InHealth,
	},
	{
		setting: "default_transaction_isolation", broken: "repeatable read",
		reason: ", but the verbs are written for read committed", places: OnConnect | InHealth,
	},
	{
		setting: "default_transaction_isolation", broken: "serializable",
		reason: ", but the verbs are written for read committed", places: OnConnect | InHealth,
	},
	{
		setting: "lock_timeout", broken: "0", reason: " (the migration sets it on the role)",
		places: OnConnect | InHealth,
	},
	{
		setting: "statement_timeout", broken: "0", reason: " (the migration sets it on the role)",
		places: OnConnect | InHealth,
	},
	{
		setting: "transaction_read_only", broken: "on",
		reason: ", so nothing can be reserved: the server is a standby, or was the writer before a " +
			"fail-over",
		places: InHealth,
	},
}

// BrokenRulesSQL is a query with one row of text for each rule that the session's settings break.
// Only Aurora has a function aurora_version.
func BrokenRulesSQL(place Place) string {
	var values []string
	for _, r := range rules {
		if r.places&place != 0 {
			values = append(values, fmt.Sprintf("(%s, %s, %s, %t)", quote(r.setting),
				quote(r.broken), quote(r.reason), r.notAurora))
		}
	}
	return `
SELECT r.setting || ' is ' || r.broken || r.reason
FROM (VALUES ` + strings.Join(values, ", ") + `) r (setting, broken, reason, not_aurora)
WHERE current_setting(r.setting) = r.broken
  AND NOT (r.not_aurora AND to_regproc('aurora_version') IS NOT NULL)`
}

// quote writes a text as SQL.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }
