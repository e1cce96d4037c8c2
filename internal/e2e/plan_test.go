package e2e

import (
	"net/http"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/allo/reservations/internal/pgtest"
)

// A session keeps a plan that it made while a table was nearly empty, so the plan must not read the
// whole table. Unless the functions' settings forbid sequential scans, the planner chooses them
// here, as the tables are tiny.
func TestVerbsUseIndexesOnTinyTables(t *testing.T) {
	t.Parallel()

	d := deploy(t, inProcess)
	d.db.Exec("VACUUM ANALYZE")
	scans := func() map[string]int64 {
		t.Helper()
		rows, err := d.db.Admin.Query(t.Context(), `
SELECT relname, seq_scan FROM pg_stat_user_tables
WHERE relname IN ('reservations', 'reservation_items', 'idempotency_keys', 'inventory')`)
		if err != nil {
			t.Fatal(err)
		}
		counts := map[string]int64{}
		var name string
		var n int64
		if _, err := pgx.ForEachRow(rows, []any{&name, &n},
			func() error { counts[name] = n; return nil }); err != nil {
			t.Fatal(err)
		}
		return counts
	}

	before := scans()
	h := d.reserve(line(mug, newYork, 1))
	c := d.reserve(cart(line(mug, newYork, 1), line(keyboard, newYork, 1)))
	d.postWithKey("/api/reservations", "plan", line(mug, newYork, 1))
	d.post("/api/reservations", line(mug, losAngeles, 2))
	d.post("/api/reservations/"+h.ID+"/extend", `{"ttlSeconds":60}`)
	d.get("/api/reservations/" + h.ID)
	d.post("/api/reservations/"+h.ID+"/confirm", "")
	d.post("/api/reservations/"+c.ID+"/release", "")
	for _, query := range []string{"", "?status=PENDING", "?status=EXPIRED&productId=" +
		mug.String()} {
		d.get("/api/reservations"+query).want(t, http.StatusOK, "")
	}
	d.get("/api/stats").want(t, http.StatusOK, "")
	d.sweep()
	// A session reports its counts when it ends.
	d.endSessions()
	before["inventory"]++ // the stats read every stock row once
	for name, after := range scans() {
		if after != before[name] {
			t.Errorf("%s had %d sequential scans, want none", name, after-before[name])
		}
	}
}

// endSessions ends the service's connections and lets the service notice.
func (d *deployment) endSessions() {
	d.t.Helper()
	d.db.EndSessions()
	// The first ping finds the connection gone, the second has a new one.
	_ = d.service.Ping(d.t.Context())
	if err := d.service.Ping(d.t.Context()); err != nil {
		d.t.Fatal(err)
	}
}

// A page of resolved holds must be read from the end of an index. With an index in another order,
// Postgres would read all of it and sort.
func TestPageOfResolvedHoldsReadsOnlyItsRows(t *testing.T) {
	t.Parallel()

	const many, page = 5000, 10
	d := deploy(t, inProcess)
	d.db.Exec(`
INSERT INTO reservations (id, product_id, warehouse_id, quantity,
                          created_at, updated_at, expires_at, status)
SELECT gen_random_uuid(), $1, $2, 1, t, t, t + interval '1 min', 'RELEASED'
FROM generate_series(1, $3::integer) n,
     LATERAL (SELECT clock_timestamp() - interval '1 h' - n * interval '1 s' AS t) made`,
		mug.String(), newYork.String(), many)
	d.db.Exec("VACUUM ANALYZE")
	read := func() int64 {
		t.Helper()
		d.endSessions()
		return pgtest.QueryOne[int64](d.db, "SELECT sum(idx_tup_read)::bigint "+
			"FROM pg_stat_user_indexes WHERE relname = 'reservations'")
	}
	before := read()
	d.get("/api/reservations?limit=10&status=RELEASED").want(t, http.StatusOK, "")
	if got := read() - before; got > 2*(page+1) {
		t.Errorf("a page of %d holds read %d index entries", page, got)
	}
}
