package e2e

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/allo/reservations/internal/pgtest"
)

// archive makes all holds 90 days older and moves the resolved ones into the archive.
func (d *deployment) archive() {
	d.t.Helper()
	ctx := d.db.Context()
	err := pgx.BeginFunc(ctx, d.db.Admin, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `
SET LOCAL session_replication_role = replica;
UPDATE reservations SET created_at = created_at - interval '90 d',
       updated_at = updated_at - interval '90 d', expires_at = expires_at - interval '90 d';`+
			pgtest.MoveLedgerSQL)
		return err
	})
	if err != nil {
		d.t.Fatal(err)
	}
	const retention = 30 * 24 * time.Hour
	d.db.Exec("SELECT archive_holds($1, '-infinity', 100)", retention)
}

func TestAnArchivedHoldIsRead(t *testing.T) {
	eachTransport(t, func(t *testing.T, d *deployment) {
		sold := d.reserve(cart(line(mug, newYork, 1), line(keyboard, newYork, 1)))
		given := d.reserve(line(mug, newYork, 2))
		d.post("/api/reservations/"+sold.ID+"/confirm", "").want(t, http.StatusOK, "")
		d.post("/api/reservations/"+given.ID+"/release", "").want(t, http.StatusOK, "")
		read := func(id string) hold {
			t.Helper()
			return d.get("/api/reservations/"+id).want(t, http.StatusOK, "").hold(t)
		}
		before := map[string]hold{sold.ID: read(sold.ID), given.ID: read(given.ID)}
		d.archive()
		if n := pgtest.QueryOne[int](d.db, "SELECT count(*) FROM reservations"); n > 0 {
			t.Fatalf("%d holds aren't archived", n)
		}
		for id, was := range before {
			now := read(id)
			if by := was.CreatedAt.Sub(now.CreatedAt); by < 89*24*time.Hour {
				t.Errorf("the archived hold was made %s before", by)
			}
			now.ExpiresAt, now.CreatedAt, now.UpdatedAt = was.ExpiresAt, was.CreatedAt, was.UpdatedAt
			now.ConfirmedAt, now.ReleasedAt = was.ConfirmedAt, was.ReleasedAt
			if got, want := marshal(t, now), marshal(t, was); got != want {
				t.Errorf("the archived hold reads as %s, want %s", got, want)
			}
			kinds := d.get("/api/reservations/"+id+"/history").want(t, http.StatusOK, "")
			if n := strings.Count(string(kinds.body), `"kind"`); n != 2 {
				t.Errorf("the archived hold's history is %s, want two transitions", kinds.body)
			}
		}
		// Its end stays: a repeat is answered as ever, and another verb is refused.
		d.post("/api/reservations/"+sold.ID+"/confirm", "").want(t, http.StatusOK, "")
		d.post("/api/reservations/"+sold.ID+"/release", "").
			want(t, http.StatusConflict, "RESERVATION_CONFIRMED")
		d.post("/api/reservations/"+given.ID+"/confirm", "").
			want(t, http.StatusConflict, "RESERVATION_RELEASED")
		d.wantStock(mug, newYork, 29, 0)
	})
}
