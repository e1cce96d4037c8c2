package reservation_test

import (
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/allo/reservations/internal/reservation"
)

// planted is a world in which every kind of row is there, for corruptions to be planted in.
type planted struct {
	*fixture
	row                          reservation.Line
	live, confirmed, dead        reservation.Hold
	cart, deadCart, resolvedCart reservation.Hold
}

func plant(t *testing.T) planted {
	t.Helper()
	f := newFixture(t, 0)
	ctx := f.Context()
	rows := f.stocks(100, 100)
	s := newService(f.own)
	p := planted{
		fixture: f, row: rows[0],
		live: f.hold(rows[0]), confirmed: f.hold(rows[0]), dead: f.hold(rows[0]),
		cart: f.hold(rows...), deadCart: f.hold(rows...), resolvedCart: f.hold(rows...),
	}
	if _, err := s.Confirm(ctx, p.confirmed.ID, "key"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Release(ctx, p.resolvedCart.ID, ""); err != nil {
		t.Fatal(err)
	}
	p.kill(p.dead, p.deadCart)
	p.mustAudit(t)
	return p
}

// corrupt does what the schema would refuse: without triggers and foreign keys, and without the
// check that is named, if any.
func (p planted) corrupt(check, sql string, args ...any) {
	p.t.Helper()
	ctx := p.Context()
	if check != "" {
		p.Exec(check)
	}
	err := pgx.BeginFunc(ctx, p.Admin, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SET LOCAL session_replication_role = replica"); err != nil {
			return err
		}
		tag, err := tx.Exec(ctx, sql, args...)
		if err == nil && tag.RowsAffected() != 1 {
			p.t.Fatalf("%s changed %d rows, want 1", sql, tag.RowsAffected())
		}
		return err
	})
	if err != nil {
		p.t.Fatalf("%s: %v", sql, err)
	}
}

const (
	dropWithin = "ALTER TABLE inventory DROP CONSTRAINT i1_reserved_within_total"
)

// corruption is what may be wrong with the data, and the promises that Audit must find broken by
// it.
type corruption struct {
	promises []string
	check    string // the statement that drops the constraint in its way, or empty
	sql      string
	on       func(planted) reservation.Hold // whose id is $1; nil means that $1 is the product's
}

var corruptions = map[string]corruption{
	"reserved below zero": {
		[]string{"I1", "I2"},
		dropWithin,
		"UPDATE inventory SET reserved = -1 WHERE product_id = $1",
		nil,
	},
	"reserved above total": {
		[]string{"I1", "I2"},
		dropWithin,
		"UPDATE inventory SET reserved = total + 1 WHERE product_id = $1",
		nil,
	},
	"reserved off by one": {
		[]string{"I2"},
		"",
		"UPDATE inventory SET reserved = reserved + 1 WHERE product_id = $1",
		nil,
	},
	"a hold without its stock row": {
		[]string{"I2"},
		"",
		"DELETE FROM inventory WHERE product_id = $1",
		nil,
	},
	"a live hold turned to expired by hand": {
		[]string{"I2"},
		"", "UPDATE reservations SET status = 'EXPIRED', updated_at = expires_at WHERE id = $1",
		func(p planted) reservation.Hold { return p.live },
	},
	"a confirmed hold of other units": {
		[]string{"I8"},
		"", "UPDATE reservations SET quantity = quantity + 1 WHERE id = $1",
		func(p planted) reservation.Hold { return p.confirmed },
	},
	"a released hold turned to confirmed": {
		[]string{"I8"},
		"", "UPDATE reservations SET status = 'CONFIRMED' WHERE id = $1",
		func(p planted) reservation.Hold { return p.resolvedCart },
	},
	"a line of a resolved hold still counted": {
		[]string{"I2"},
		"",
		"UPDATE reservation_items SET counted = true WHERE reservation_id = $1 AND product_id = (SELECT min(product_id::text)::uuid FROM reservation_items)",
		func(p planted) reservation.Hold { return p.resolvedCart },
	},
	"lines without a hold": {
		[]string{"I3", "I2"},
		"",
		"DELETE FROM reservations WHERE id = $1",
		func(p planted) reservation.Hold { return p.cart },
	},
	"confirmed after its end": {
		[]string{"I4"},
		"", "UPDATE reservations SET updated_at = expires_at + interval '1 s' WHERE id = $1",
		func(p planted) reservation.Hold { return p.confirmed },
	},
	"a key whose hold is gone": {
		[]string{"I6", "I8"},
		"",
		"DELETE FROM reservations WHERE id = $1",
		func(p planted) reservation.Hold { return p.confirmed },
	},
	"a cart of other units than its lines": {
		[]string{"I7"},
		"", "UPDATE reservations SET quantity = quantity + 1 WHERE id = $1",
		func(p planted) reservation.Hold { return p.cart },
	},
	"a live cart with a line given back": {
		[]string{"I2", "I7"},
		"",
		"UPDATE reservation_items SET counted = false WHERE reservation_id = $1 AND product_id = (SELECT min(product_id::text)::uuid FROM reservation_items)",
		func(p planted) reservation.Hold { return p.cart },
	},
	"a line that ends at another time than its cart": {
		[]string{"I7"},
		"",
		"UPDATE reservation_items SET expires_at = expires_at - interval '1 s' WHERE reservation_id = $1 AND product_id = (SELECT min(product_id::text)::uuid FROM reservation_items)",
		func(p planted) reservation.Hold { return p.cart },
	},
	"a hold of one line with lines besides": {
		[]string{"I7", "I2"},
		"",
		"INSERT INTO reservation_items SELECT id, product_id, warehouse_id, expires_at, 1, true FROM reservations WHERE id = $1",
		func(p planted) reservation.Hold { return p.live },
	},
	"total moved without a reason": {
		[]string{"I8"},
		"",
		"UPDATE inventory SET total = total + 1 WHERE product_id = $1",
		nil,
	},
	"a resolved hold turned around": {
		[]string{"I8"},
		"", "UPDATE reservations SET status = 'RELEASED' WHERE id = $1",
		func(p planted) reservation.Hold { return p.confirmed },
	},
	"a resolved hold alive again": {
		[]string{"I2", "I8"},
		"", "UPDATE reservations SET status = 'PENDING' WHERE id = $1",
		func(p planted) reservation.Hold { return p.confirmed },
	},
	"expired at another time than its end": {
		[]string{"I2", "I9"},
		"",
		"UPDATE reservations SET status = 'EXPIRED', updated_at = expires_at - interval '1 s' WHERE id = $1",
		func(p planted) reservation.Hold { return p.dead },
	},
	"a database that isn't durable": {[]string{"I5"}, "", "SELECT 1 WHERE $1 <> ''", nil},
}

func TestAuditFindsEachPlantedCorruption(t *testing.T) {
	t.Parallel()

	for name, test := range corruptions {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			p := plant(t)
			on := p.row.ProductID.String()
			if test.on != nil {
				on = test.on(p).ID.String()
			}
			p.corrupt(test.check, test.sql, on)
			if test.promises[0] == "I5" {
				p.Exec(
					"ALTER ROLE CURRENT_USER IN DATABASE " + pgx.Identifier{
						p.Name,
					}.Sanitize() + " SET synchronous_commit = off",
				)
				p.own.Reset()
			}

			var r report
			violations, err := newService(p.own).Audit(p.Context())
			if err != nil {
				t.Fatalf("Audit() = %v", err)
			}
			r.found = violations
			for _, promise := range test.promises {
				found := false
				for _, v := range violations {
					found = found || v.Promise == promise
				}
				if !found {
					t.Errorf("Audit() finds %v broken, want %s among them:%s", r.broken(), promise,
						&r)
				}
			}
		})
	}
}

func TestAuditBoundsItsReport(t *testing.T) {
	t.Parallel()

	f := newFixture(t, 0)
	for range 30 {
		row := f.stock(5)
		f.Exec("UPDATE inventory SET reserved = 1 WHERE product_id = $1", row.ProductID.String())
	}

	violations, err := newService(f.own).Audit(f.Context())

	if err != nil || len(violations) != 20 {
		t.Errorf("Audit() = %d violations, %v, want 20 of 30", len(violations), err)
	}
}
