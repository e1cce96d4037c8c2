package reservation_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/allo/reservations/internal/reservation"
)

// relationShop is an auditShop with payments, replacements and owners of every kind.
type relationShop struct {
	auditShop
	// paying has a payment under way, paid was confirmed by one, and late was dead when its payment
	// came, which got next, a cart too.
	paying, paid, late, next uuid.UUID
	// old was released for renewed.
	old, renewed uuid.UUID
	// ann and bob have two units each of a product whose limit is three.
	ann, bob uuid.UUID
}

func newRelationShop(t *testing.T) relationShop {
	t.Helper()
	shop := relationShop{auditShop: newAuditShop(t)}
	ctx, s := t.Context(), newService(shop.own)
	must := func(answer reservation.Answer, err error) uuid.UUID {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return answer.Hold.ID
	}
	rows := shop.stocks(100, 100)
	scarce, limited := shop.stock(1), shop.stock(100)
	shop.paying = shop.hold(rows[0]).ID
	must(s.StartPayment(ctx, shop.paying, "p", time.Minute, ""))
	shop.paid = shop.hold(rows[0]).ID
	must(s.StartPayment(ctx, shop.paid, "p", time.Minute, ""))
	must(s.ConfirmPayment(ctx, shop.paid, "p", false, ""))
	shop.late = shop.hold(rows...).ID
	shop.Kill(shop.late)
	shop.next = must(s.ConfirmPayment(ctx, shop.late, "p", true, "a key"))
	lost := shop.hold(scarce).ID
	must(s.StartPayment(ctx, lost, "p", time.Minute, ""))
	shop.Kill(lost)
	shop.hold(scarce)
	if _, err := s.ConfirmPayment(ctx, lost, "p", true, "another key"); err == nil {
		t.Fatal("a payment got units that another hold has")
	}
	shop.old = shop.hold(rows[0]).ID
	shop.renewed = must(s.Reserve(ctx, reservation.Request{
		Lines: rows, Replaces: &shop.old, Owner: "ann", Reference: "order 1",
	}))
	for _, sql := range []string{
		"UPDATE products SET max_per_owner = 3, changed_at = now() - interval '1 h' WHERE id = $1",
		"UPDATE inventory SET max_per_owner = 3 WHERE product_id = $1",
	} {
		shop.Exec(sql, limited.ProductID.String())
	}
	shop.ann = must(s.Reserve(ctx,
		reservation.Request{Lines: []reservation.Line{of(limited, 2)}, Owner: "ann"}))
	shop.bob = must(s.Reserve(ctx,
		reservation.Request{Lines: []reservation.Line{of(limited, 2)}, Owner: "bob"}))
	shop.mustAudit(t)
	return shop
}

// relationCorruption is an error in the data of the tables beside the holds. $1 is the hold.
type relationCorruption struct {
	promises []string
	sql      string
	hold     func(relationShop) uuid.UUID
	// unseen is true when it leaves no trace at the new transitions of a hold.
	unseen bool
}

func payingHold(shop relationShop) uuid.UUID  { return shop.paying }
func paidHold(shop relationShop) uuid.UUID    { return shop.paid }
func lateHold(shop relationShop) uuid.UUID    { return shop.late }
func nextHold(shop relationShop) uuid.UUID    { return shop.next }
func oldHold(shop relationShop) uuid.UUID     { return shop.old }
func renewedHold(shop relationShop) uuid.UUID { return shop.renewed }
func plainHold(shop relationShop) uuid.UUID   { return shop.live.ID }

var relationCorruptions = map[string]relationCorruption{
	"a payment confirmed a hold that is PENDING": {
		promises: []string{"payments"}, hold: plainHold,
		sql: "INSERT INTO hold_payments VALUES ($1, 'q', 'CONFIRMED', now())",
	},
	"a payment of a CONFIRMED hold is under way": {
		promises: []string{"payments"}, hold: paidHold,
		sql: "INSERT INTO hold_payments VALUES ($1, 'q', 'STARTED', now())",
	},
	"the payment of a CONFIRMED hold is missing": {
		promises: []string{"payments"}, hold: paidHold,
		sql: "DELETE FROM hold_payments WHERE hold_id = $1",
	},
	"the payment under way is missing": {
		promises: []string{"payments"}, hold: payingHold,
		sql: "DELETE FROM hold_payments WHERE hold_id = $1",
	},
	"the hold doesn't know of its payment": {
		promises: []string{"payments", "I10"}, hold: payingHold,
		sql: "UPDATE reservations SET paying = false WHERE id = $1",
	},
	"the hold has a payment that never began": {
		promises: []string{"payments", "I10"}, hold: plainHold,
		sql: "UPDATE reservations SET paying = true WHERE id = $1",
	},
	"a payment has no hold": {
		promises: []string{"payments"}, hold: paidHold, unseen: true,
		sql: "INSERT INTO hold_payments SELECT gen_random_uuid(), $1::uuid::text, 'FAILED', now()",
	},
	"a payment got another hold": {
		promises: []string{"payments", "replacements"}, hold: lateHold,
		sql: "UPDATE hold_payments SET successor = gen_random_uuid() WHERE hold_id = $1",
	},
	"what a payment got isn't CONFIRMED": {
		promises: []string{"payments", "replacements", "I10"}, hold: nextHold,
		sql: "UPDATE reservations SET status = 'RELEASED' WHERE id = $1",
	},
	"what a payment got took no other's place": {
		promises: []string{"payments"}, hold: lateHold,
		sql: "DELETE FROM replacements WHERE old_id = $1",
	},
	"what a payment got has other lines": {
		promises: []string{"replacements", "I7"}, hold: nextHold,
		sql: `
UPDATE reservation_items SET quantity = quantity + 1
WHERE reservation_id = $1
  AND product_id = (SELECT min(product_id::text)::uuid FROM reservation_items
                    WHERE reservation_id = $1)`,
	},
	"what a payment got has another quantity": {
		promises: []string{"replacements", "I7"}, hold: nextHold,
		sql: "UPDATE reservations SET quantity = quantity + 1 WHERE id = $1",
	},
	"a hold that was replaced is still live": {
		promises: []string{"replacements", "I10", "I2"}, hold: oldHold,
		sql: "UPDATE reservations SET status = 'PENDING' WHERE id = $1",
	},
	"a hold doesn't know what it replaces": {
		promises: []string{"replacements", "parties"}, hold: renewedHold,
		sql: "UPDATE reservations SET detailed = false WHERE id = $1",
	},
	"a hold was replaced by none": {
		promises: []string{"replacements"}, hold: oldHold,
		sql: "UPDATE replacements SET new_id = gen_random_uuid() WHERE old_id = $1",
	},
	"a hold was released for none": {
		promises: []string{"I10"}, hold: oldHold,
		sql: "DELETE FROM replacements WHERE old_id = $1",
	},
	"a hold took the place of one that a shopper had released": {
		promises: []string{"replacements", "I10"}, hold: oldHold,
		sql: `
UPDATE replacements SET old_id = (
    SELECT l.hold_id FROM ledger l WHERE l.kind = 'r' AND l.cause = 'v')
WHERE old_id = $1`,
	},
	"a hold doesn't know its owner": {
		promises: []string{"parties"}, hold: plainHold,
		sql: "INSERT INTO hold_parties VALUES ($1, 'carl')",
	},
	"an owner has no hold": {
		promises: []string{"parties"}, hold: plainHold, unseen: true,
		sql: "INSERT INTO hold_parties SELECT gen_random_uuid(), $1::uuid::text",
	},
	"an owner has more than the limit": {
		promises: []string{"I12"}, hold: func(shop relationShop) uuid.UUID { return shop.bob },
		sql: "UPDATE hold_parties SET owner = 'ann' WHERE hold_id = $1",
	},
}

// Each is found while the holds are new, and by a full audit for ever.
func TestEachAuditFindsEachCorruptionBesideTheHolds(t *testing.T) {
	t.Parallel()
	for name, c := range relationCorruptions {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			shop := newRelationShop(t)
			shop.mustAuditNew()
			shop.allOld()
			shop.corrupt("", c.sql, c.hold(shop).String())
			wantBroken(t, shop.own, c.promises...)
			wantPromises(t, "AuditFull()", shop.mustAuditFull(), c.promises)
			if c.unseen {
				return
			}
			shop.Exec("UPDATE audit_state SET seen = '1:1:' WHERE kind = 'NEW'")
			shop.sinceLongAgo()
			violations, err := newService(shop.own).AuditNew(t.Context())
			if err != nil {
				t.Fatalf("AuditNew() = %v", err)
			}
			wantPromises(t, "AuditNew()", violations, c.promises)
			for _, v := range violations {
				if strings.Contains(v.Detail, "ann") {
					t.Errorf("%q names an owner", v.Detail)
				}
			}
		})
	}
}

// An owner may have more than a limit that was lowered later, and a hold that died before another
// one was made doesn't count beside it, although a jump of the clock has brought it back to life.
func TestAuditsAllowMoreThanALimitWhereNoneWasBroken(t *testing.T) {
	t.Parallel()
	for name, sql := range map[string]string{
		"the limit was lowered": `
UPDATE products SET max_per_owner = 1, changed_at = clock_timestamp() WHERE max_per_owner = 3`,
		"there is no limit any more": "UPDATE products SET max_per_owner = NULL WHERE max_per_owner = 3",
		"another hold was dead": `
UPDATE reservations r SET created_at = o.expires_at
FROM hold_parties p, hold_parties q JOIN reservations o ON o.id = q.hold_id
WHERE p.owner = 'bob' AND r.id = p.hold_id AND q.owner = 'ann'
  AND o.product_id IN (SELECT id FROM products WHERE max_per_owner = 3)`,
		"some units came back": `
INSERT INTO returns (reservation_id, reference, line, product_id, warehouse_id, quantity, at)
SELECT h.id, 'r', 1, h.product_id, h.warehouse_id, 1, now()
FROM reservations h JOIN hold_parties p ON p.hold_id = h.id WHERE p.owner = 'bob'`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			shop := newRelationShop(t)
			shop.corrupt("", sql)
			shop.corrupt("", "UPDATE hold_parties SET owner = 'ann' WHERE owner = 'bob'")
			for _, v := range shop.mustAuditFull() {
				if v.Promise == "I12" {
					t.Errorf("AuditFull() finds %+v", v)
				}
			}
		})
	}
}
