package reservation_test

import (
	"errors"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/allo/reservations/internal/reservation"
)

// reserveTwice makes a hold of one line and one of two, each under a key.
func (f *fixture) reserveTwice() error {
	s, lines := f.services()[0], f.stocks(5, 5)
	for _, lines := range [][]reservation.Line{lines[:1], lines} {
		_, err := s.Reserve(f.Context(), reservation.Request{Lines: lines, Key: uuid.NewString()})
		if err != nil {
			return err
		}
	}
	return nil
}

// restartAlways lets each new hold begin anew, as one does that has waited long for its stock rows.
func (f *fixture) restartAlways() {
	f.t.Helper()
	f.mutate("lost_time", "least(interval '250 ms', _ttl / 4)", "interval '-1 s'")
}

// rowsAtBeginningSQL counts the rows of the ledger, and those with the hold's first times.
const rowsAtBeginningSQL = `
SELECT ARRAY[count(*), count(*) FILTER (WHERE l.at = r.created_at AND l.expires_at = r.expires_at)]
FROM ledger l JOIN reservations r ON r.id = l.hold_id WHERE l.version = 1`

func TestARestartedHoldHasOneRowOfTheLedger(t *testing.T) {
	t.Parallel()

	f := newFixture(t, 1)
	f.restartAlways()
	if err := f.reserveTwice(); err != nil {
		t.Fatal(err)
	}
	if n := queryOne[[]int](f, rowsAtBeginningSQL); n[0] != 2 || n[1] != 2 {
		t.Errorf("two holds have %d first rows in the ledger, %d of them with the hold's times", n[0],
			n[1])
	}
	f.mustAudit(t)
}

// The control shows why the verbs write the ledger, and not a trigger of each row. Such a trigger
// does for a hold that isn't restarted. A restart changes the hold once more in the same version,
// so the trigger writes a second row, which the ledger's key refuses.
func TestATriggerOfEachRowCannotWriteTheLedger(t *testing.T) {
	t.Parallel()

	f := newFixture(t, 1)
	f.Exec(`
CREATE FUNCTION write_ledger() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO ledger (at, expires_at, hold_id, version, kind, cause)
    VALUES (new.updated_at, new.expires_at, new.id, new.version, 'h', 'v');
    RETURN NULL;
END $$;
CREATE TRIGGER a_row_writes_the_ledger AFTER INSERT OR UPDATE ON reservations
    FOR EACH ROW EXECUTE FUNCTION write_ledger()`)
	for _, routine := range []string{"reserve_line", "reserve_cart"} {
		f.mutate(routine, "INSERT INTO ledger (at, expires_at, hold_id, version, kind, cause)\n"+
			"            VALUES (_now, _now + _ttl, _id, 1, 'h', 'v')", "SELECT")
	}
	if err := f.reserveTwice(); err != nil {
		t.Fatalf("without a restart: %v", err)
	}
	f.mustAudit(t)
	f.restartAlways()

	err := f.reserveTwice()

	var refused *pgconn.PgError
	if !errors.As(err, &refused) || refused.Code != "23505" ||
		refused.ConstraintName != "ledger_pkey" {
		t.Errorf("Reserve() of a hold that is restarted = %v, want its second row refused", err)
	}
}
