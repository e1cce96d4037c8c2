package outbox_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/allo/reservations/internal/events"
)

var update = flag.Bool("update", false, "write testdata/events.jsonl anew")

// goldenRows has a row for each kind of event, with fixed ids and times: the changes of a hold of
// one line and of a cart, a hold that a payment got in the place of another one, and the movement
// of a stock row.
const goldenRows = `
INSERT INTO reservations (id, product_id, warehouse_id, quantity, status, created_at, updated_at,
                          expires_at, version)
VALUES ('019aa6d2-7f3e-7cc4-a3a5-6f2b8f1f9e10', '0192d000-0000-7000-8000-000000000101',
        '0192d000-0000-7000-8000-000000000002', 2, 'CONFIRMED', '2026-03-01T10:00:00Z',
        '2026-03-01T10:04:00.123456Z', '2026-03-01T10:20:00Z', 5),
       ('019aa6d2-7f3e-7cc4-a3a5-6f2b8f1f9e11', NULL, NULL, 4, 'RELEASED', '2026-03-01T10:00:00Z',
        '2026-03-01T10:01:00.1Z', '2026-03-01T10:10:00Z', 2),
       ('019aa6d2-7f3e-7cc4-a3a5-6f2b8f1f9e12', '0192d000-0000-7000-8000-000000000101',
        '0192d000-0000-7000-8000-000000000002', 1, 'EXPIRED', '2026-03-01T10:00:00Z',
        '2026-03-01T10:10:00Z', '2026-03-01T10:10:00Z', 2);
INSERT INTO reservations (id, product_id, warehouse_id, quantity, status, created_at, updated_at,
                          expires_at, version, detailed)
VALUES ('019aa6d2-7f3e-7cc4-a3a5-6f2b8f1f9e13', '0192d000-0000-7000-8000-000000000101',
        '0192d000-0000-7000-8000-000000000002', 1, 'CONFIRMED', '2026-03-01T10:15:00Z',
        '2026-03-01T10:15:00Z', '2026-03-01T10:25:00Z', 1, true);
INSERT INTO replacements (old_id, new_id)
VALUES ('019aa6d2-7f3e-7cc4-a3a5-6f2b8f1f9e12', '019aa6d2-7f3e-7cc4-a3a5-6f2b8f1f9e13');
INSERT INTO hold_parties (hold_id, owner, reference)
VALUES ('019aa6d2-7f3e-7cc4-a3a5-6f2b8f1f9e13', 'Mrs Smith', 'of Mrs Smith');
INSERT INTO hold_payments (hold_id, reference, outcome, at, successor)
VALUES ('019aa6d2-7f3e-7cc4-a3a5-6f2b8f1f9e12', 'Mrs Smith''s card', 'REACQUIRED',
        '2026-03-01T10:15:00Z', '019aa6d2-7f3e-7cc4-a3a5-6f2b8f1f9e13');
INSERT INTO reservation_items (reservation_id, product_id, warehouse_id, quantity, expires_at,
                               counted)
VALUES ('019aa6d2-7f3e-7cc4-a3a5-6f2b8f1f9e11', '0192d000-0000-7000-8000-000000000101',
        '0192d000-0000-7000-8000-000000000002', 1, '2026-03-01T10:10:00Z', false),
       ('019aa6d2-7f3e-7cc4-a3a5-6f2b8f1f9e11', '0192d000-0000-7000-8000-000000000102',
        '0192d000-0000-7000-8000-000000000002', 3, '2026-03-01T10:10:00Z', false);
INSERT INTO ledger (hold_id, version, at, expires_at, kind, cause, actor)
SELECT ('019aa6d2-7f3e-7cc4-a3a5-6f2b8f1f9e1' || r.hold)::uuid, r.version, r.at::timestamptz,
       r.expires_at::timestamptz, r.kind::"char", r.cause::"char", r.actor
FROM (VALUES
    ('0', 1, '2026-03-01T10:00:00Z', '2026-03-01T10:10:00Z', 'h', 'v', NULL),
    ('0', 2, '2026-03-01T10:01:00.5Z', '2026-03-01T10:11:00Z', 'x', 'v', NULL),
    ('0', 3, '2026-03-01T10:02:00Z', '2026-03-01T10:32:00Z', 'p', 'v', 'payments'),
    ('0', 4, '2026-03-01T10:03:00Z', '2026-03-01T10:20:00Z', 'f', 'v', 'payments'),
    ('0', 5, '2026-03-01T10:04:00.123456Z', '2026-03-01T10:20:00Z', 'c', 'v', 'a <b> & "c"'),
    ('1', 1, '2026-03-01T10:00:00Z', '2026-03-01T10:10:00Z', 'h', 'v', NULL),
    ('1', 2, '2026-03-01T10:01:00.1Z', '2026-03-01T10:10:00Z', 'r', 'r', NULL),
    ('2', 1, '2026-03-01T10:00:00Z', '2026-03-01T10:10:00Z', 'h', 'o', 'clerk'),
    ('2', 2, '2026-03-01T10:10:00Z', '2026-03-01T10:10:00Z', 'e', 's', NULL),
    ('3', 1, '2026-03-01T10:15:00Z', '2026-03-01T10:25:00Z', 'c', 'v', 'payments')
) r (hold, version, at, expires_at, kind, cause, actor);
ALTER TABLE stock_movements DISABLE TRIGGER USER;
DELETE FROM stock_movements;
INSERT INTO stock_movements (product_id, warehouse_id, seq, at, kind, delta, total_after, source,
                             reference, line, note, actor, reservation_id)
VALUES ('0192d000-0000-7000-8000-000000000101', '0192d000-0000-7000-8000-000000000002', 1,
        '2026-03-01T09:00:00Z', 'OPENING', 50, 50, U&'\0001 erp \FFFE\FFFF', 'Mrs Smith', 1,
        'for Mr Smith', 'erp', NULL),
       ('0192d000-0000-7000-8000-000000000101', '0192d000-0000-7000-8000-000000000002', 12345678901,
        '2026-03-01T10:04:00.123456Z', 'SALE', -2, 48, NULL, NULL, NULL, NULL, NULL,
        '019aa6d2-7f3e-7cc4-a3a5-6f2b8f1f9e10');
ALTER TABLE stock_movements ENABLE TRIGGER USER;
UPDATE stream SET epoch = '6f1c0f0e-6f0c-4f0d-9a55-0f4ad3b3f001'`

// Every event of testdata/events.jsonl has these bytes for ever, on every path: in the relay's
// page, also after it crossed Lambda's JSON, and in the list. A change breaks the consumers that
// compare a repeat with what they have.
func TestTheBytesOfAnEventNeverChange(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	if _, err := f.Admin.Exec(f.Context(), goldenRows); err != nil {
		t.Fatal(err)
	}
	page := f.next(events.Request{Sink: "topic", Lease: uuid.NewString()})
	text, err := json.Marshal(page)
	if err != nil {
		t.Fatal(err)
	}
	var crossed events.Page
	if err := json.Unmarshal(text, &crossed); err != nil {
		t.Fatal(err)
	}
	listed, _, err := f.outbox.List(f.Context(), "", nil, 500)
	if err != nil {
		t.Fatal(err)
	}
	const path = "testdata/events.jsonl"
	if *update {
		if err := os.WriteFile(path, lines(page.Events), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, got := range map[string][]events.Event{
		"page": page.Events, "page through a Lambda": crossed.Events, "list": listed,
	} {
		if diff := cmp.Diff(string(want), string(lines(got))); diff != "" {
			t.Errorf("the %s differs (-want +got):\n%s", name, diff)
		}
		for _, e := range got {
			if bytes.ContainsAny(e.Body, "\u0001\ufffe\uffff") {
				t.Errorf("the event %s has a character that SQS refuses: %s", e.ID, e.Body)
			}
			if bytes.Contains(e.Body, []byte("Smith")) {
				t.Errorf("the event %s shows what a person wrote: %s", e.ID, e.Body)
			}
		}
	}
}

// lines writes the events' bodies, one a line.
func lines(page []events.Event) []byte {
	var out bytes.Buffer
	for _, e := range page {
		out.Write(append(e.Body, '\n'))
	}
	return out.Bytes()
}
