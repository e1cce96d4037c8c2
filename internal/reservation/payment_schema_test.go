package reservation_test

import (
	"strings"
	"testing"
)

// somePaymentsSQL are payments with each outcome, of two holds, and a replacement.
const somePaymentsSQL = `
INSERT INTO hold_payments (hold_id, reference, outcome, at, successor, short) VALUES
    ('00000000-0000-0000-0000-00000000000a', 'started', 'STARTED', now(), NULL, NULL),
    ('00000000-0000-0000-0000-00000000000a', 'failed', 'FAILED', now(), NULL, NULL),
    ('00000000-0000-0000-0000-00000000000a', 'lost', 'LOST', now(), NULL, '[]'),
    ('00000000-0000-0000-0000-00000000000a', 'confirmed', 'CONFIRMED', now(), NULL, NULL),
    ('00000000-0000-0000-0000-00000000000b', 'reacquired', 'REACQUIRED', now(),
     '00000000-0000-0000-0000-00000000000c', NULL);
INSERT INTO replacements (old_id, new_id) VALUES
    ('00000000-0000-0000-0000-00000000000b', '00000000-0000-0000-0000-00000000000c')`

func TestTheSchemaGuardsPaymentsAndReplacements(t *testing.T) {
	t.Parallel()

	const (
		a      = "'00000000-0000-0000-0000-00000000000a'"
		b      = "'00000000-0000-0000-0000-00000000000b'"
		c      = "'00000000-0000-0000-0000-00000000000c'"
		d      = "'00000000-0000-0000-0000-00000000000d'"
		insert = "INSERT INTO hold_payments (hold_id, reference, outcome, at, successor, short) VALUES "
	)
	f := newFixture(t, 0)
	f.Exec(somePaymentsSQL)
	for name, statement := range map[string]struct{ sql, refusal string }{
		"a second payment under way": {
			insert + "(" + a + ", 'x', 'STARTED', now(), NULL, NULL)", "hold_payments_started",
		},
		"a second payment that paid": {
			insert + "(" + a + ", 'x', 'REACQUIRED', now(), " + d + ", NULL)", "hold_payments_paid",
		},
		"a payment that pays beside a successor": {
			insert + "(" + b + ", 'x', 'CONFIRMED', now(), NULL, NULL)", "hold_payments_paid",
		},
		"the same payment": {
			insert + "(" + a + ", 'failed', 'FAILED', now(), NULL, NULL)", "hold_payments_pkey",
		},
		"no successor": {
			insert + "(" + d + ", 'x', 'REACQUIRED', now(), NULL, NULL)",
			"a_reacquired_payment_has_a_successor",
		},
		"a successor of a payment that failed": {
			insert + "(" + d + ", 'x', 'FAILED', now(), " + c + ", NULL)",
			"a_reacquired_payment_has_a_successor",
		},
		"a loss that doesn't say why": {
			insert + "(" + d + ", 'x', 'LOST', now(), NULL, NULL)", "a_lost_payment_says_why",
		},
		"a success that says what was short": {
			insert + "(" + d + ", 'x', 'CONFIRMED', now(), NULL, '[]')", "a_lost_payment_says_why",
		},
		"no reference": {
			insert + "(" + d + ", '', 'STARTED', now(), NULL, NULL)", "hold_payments_reference_check",
		},
		"a long reference": {
			insert + "(" + d + ", repeat('x', 101), 'STARTED', now(), NULL, NULL)",
			"hold_payments_reference_check",
		},
		"a confirmed payment that fails": {
			"UPDATE hold_payments SET outcome = 'FAILED' WHERE reference = 'confirmed'", "I3",
		},
		"a reacquired payment that is lost": {
			"UPDATE hold_payments SET outcome = 'LOST', successor = NULL, short = '[]'" +
				" WHERE reference = 'reacquired'", "I3",
		},
		"another successor": {
			"UPDATE hold_payments SET successor = " + d + " WHERE reference = 'reacquired'", "I3",
		},
		"a lost payment that confirms": {
			"UPDATE hold_payments SET outcome = 'FAILED', short = NULL WHERE reference = 'lost'", "I3",
		},
		"a payment that is renamed": {
			"UPDATE hold_payments SET reference = 'x' WHERE reference = 'failed'", "I3",
		},
		"a payment of another hold": {
			"UPDATE hold_payments SET hold_id = " + d + " WHERE reference = 'started'", "I3",
		},
		"a payment that is deleted": {
			"DELETE FROM hold_payments WHERE reference = 'failed'", "I3",
		},
		"a second successor": {
			"INSERT INTO replacements (old_id, new_id) VALUES (" + b + ", " + d + ")",
			"replacements_pkey",
		},
		"a successor of two holds": {
			"INSERT INTO replacements (old_id, new_id) VALUES (" + a + ", " + c + ")",
			"replacements_new_id_key",
		},
		"a hold that follows itself": {
			"INSERT INTO replacements (old_id, new_id) VALUES (" + d + ", " + d + ")",
			"a_hold_follows_another",
		},
		"a replacement that changes":    {"UPDATE replacements SET new_id = " + d, "I3"},
		"a replacement that is deleted": {"DELETE FROM replacements", "I3"},
		"a party without a name": {
			"INSERT INTO hold_parties (hold_id) VALUES (" + d + ")", "hold_parties_check",
		},
		"an owner without a character": {
			"INSERT INTO hold_parties (hold_id, owner) VALUES (" + d + ", '')",
			"hold_parties_owner_check",
		},
		"a long reference of a hold": {
			"INSERT INTO hold_parties (hold_id, reference) VALUES (" + d + ", repeat('x', 101))",
			"hold_parties_reference_check",
		},
	} {
		_, err := f.Admin.Exec(f.Context(), statement.sql)
		if err == nil || !strings.Contains(err.Error(), statement.refusal) {
			t.Errorf("%s: %v, want a refusal by %s", name, err, statement.refusal)
		}
	}
}
