package reservation_test

import (
	"encoding/binary"
	"encoding/json"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/allo/reservations/internal/pgtest"
	"github.com/allo/reservations/internal/reservation"
)

// The codes of testdata/codes.json are those of the pages too.
func TestACodeIsThatOfThePages(t *testing.T) {
	t.Parallel()

	text, err := os.ReadFile("testdata/codes.json")
	if err != nil {
		t.Fatal(err)
	}
	var codes []struct{ ID, Code string }
	if err := json.Unmarshal(text, &codes); err != nil || len(codes) == 0 {
		t.Fatalf("%d codes, %v", len(codes), err)
	}
	for _, c := range codes {
		if got := reservation.CodeOf(uuid.MustParse(c.ID)).String(); got != c.Code {
			t.Errorf("the code of %s is %s, want %s", c.ID, got, c.Code)
		}
	}
}

func TestACodeIsReadAsAPersonWritesIt(t *testing.T) {
	t.Parallel()

	for text, want := range map[string]string{
		"7K2M-9QXD": "7K2M-9QXD", "7k2m9qxd": "7K2M-9QXD", "7k2m 9qxd": "7K2M-9QXD",
		"0000-0000": "0000-0000", "OoIi-lL10": "0011-1110", "ZZZZ-ZZZZ": "ZZZZ-ZZZZ",
		"": "", "7K2M-9QX": "", "7K2M-9QXDD": "", "7K2M-9QXU": "", "7K2M_9QXD": "", "7K2M-9QXé": "",
	} {
		code, ok := reservation.ParseCode(text)
		if got := code.String(); ok != (want != "") || ok && got != want {
			t.Errorf("ParseCode(%q) = %s, %t, want %q", text, got, ok, want)
		}
	}
	for range 1000 {
		code := reservation.Code(rand.Uint64() >> 24)
		if back, ok := reservation.ParseCode(code.String()); !ok || back != code {
			t.Fatalf("ParseCode(%s) = %s, %t", code, back, ok)
		}
	}
}

// idAt makes an id of a time, whose last bits are low.
func idAt(at time.Time, low byte) uuid.UUID {
	id := uuid.Must(uuid.NewRandom())
	var ms [8]byte
	binary.BigEndian.PutUint64(ms[:], uint64(at.UnixMilli())<<16)
	copy(id[:6], ms[:6])
	id[6] = id[6]&0x0f | 0x70
	id[15] = id[15]&^31 | low
	return id
}

// makeHold inserts a live hold with this id.
func (f *fixture) makeHold(row reservation.Line, id uuid.UUID) {
	f.t.Helper()
	f.unguarded(`
INSERT INTO reservations
       (id, product_id, warehouse_id, quantity, created_at, updated_at, expires_at)
SELECT '` + id.String() + `', '` + row.ProductID.String() + `', '` + row.WarehouseID.String() + `',
       1, t, t, t + interval '1 h' FROM clock_timestamp() t`)
}

// A code leads to its hold, to the hold of an earlier span with the same code, and to no other hold
// of the same millisecond.
func TestACodeLeadsToItsHold(t *testing.T) {
	t.Parallel()

	f := newFixture(t, 1)
	row := f.stock(100)
	s := f.services()[0]
	const span = 1 << 35 * time.Millisecond
	now := time.Now()
	id, sibling := idAt(now, 7), idAt(now, 8)
	earlier, first := idAt(now.Add(-span), 7), idAt(now.Add(-2*span), 7)
	before := idAt(now.Add(-9*span), 7)
	for _, one := range []uuid.UUID{id, sibling, earlier, first, before} {
		f.makeHold(row, one)
	}
	want := []uuid.UUID{id, earlier}
	if first[0] > 0 && now.Add(-2*span).Year() >= 2024 {
		want = append(want, first)
	}
	page, err := s.ByCode(f.Context(), reservation.CodeOf(id))
	if diff := cmp.Diff(want, ids(page.Holds)); err != nil || diff != "" || page.Next != nil {
		t.Errorf("ByCode() differs, %v (-want +got):\n%s", err, diff)
	}
	page, err = s.ByCode(f.Context(), reservation.CodeOf(sibling))
	if diff := cmp.Diff([]uuid.UUID{sibling}, ids(page.Holds)); err != nil || diff != "" {
		t.Errorf("ByCode(of the sibling) differs, %v (-want +got):\n%s", err, diff)
	}
	page, err = s.ByCode(f.Context(), reservation.CodeOf(idAt(now.Add(-time.Hour), 7)))
	if err != nil || len(page.Holds) > 0 {
		t.Errorf("ByCode(of no hold) = %d holds, %v", len(page.Holds), err)
	}
	made := f.hold(row)
	page, err = s.ByCode(f.Context(), reservation.CodeOf(made.ID))
	if err != nil || len(page.Holds) != 1 || page.Holds[0].ID != made.ID || page.Now.IsZero() {
		t.Errorf("ByCode(of a hold that was reserved) = %+v, %v", page, err)
	}
	// The control.
	f.mutate("list_holds_of_code", "& 31 = _bits", "& 31 >= 0")
	page, err = s.ByCode(f.Context(), reservation.CodeOf(id))
	if err != nil || len(page.Holds) == len(want) {
		t.Errorf("without the last bits ByCode() = %d holds, %v: the control proves nothing",
			len(page.Holds), err)
	}
}

// A look-up reads a few blocks of the primary key, however many holds there are.
func TestACodeIsLookedUpByThePrimaryKey(t *testing.T) {
	t.Parallel()

	f := newFixture(t, 0)
	for batch := range 10 {
		f.Exec(othersSQL, batch, reservation.Pending)
	}
	f.Exec("ANALYZE reservations")
	const sql = `
SELECT * FROM list_holds_of_code(
    ARRAY['01a00000-0000-0000-0000-000000000000', '019ad500-0000-0000-0000-000000000000']::uuid[],
    ARRAY['01a00000-0000-ffff-ffff-ffffffffffff', '019ad500-0000-ffff-ffff-ffffffffffff']::uuid[],
    7, 100)`
	blocks, took := f.Explain(sql)
	t.Logf("a look-up among %d holds: %d blocks in %.1f ms",
		pgtest.QueryOne[int](f.Fixture, "SELECT count(*) FROM reservations"), blocks, took)
	if blocks > 20 {
		t.Errorf("a look-up reads %d blocks, want at most 20", blocks)
	}
}
