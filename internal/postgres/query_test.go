package postgres_test

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/allo/reservations/internal/pgtest"
	"github.com/allo/reservations/internal/postgres"
)

// Arguments are encoded by their Go type the first time, and by the parameter's type once the
// statement is prepared.
func TestArgumentsAreTheSameUnnamedAndPrepared(t *testing.T) {
	t.Parallel()

	const (
		id    = "0192d000-0000-7000-8000-000000000001"
		other = "0192d000-0000-7000-8000-000000000002"
	)
	const sql = `
SELECT $1::text, $2::text, $3::int, $4::bytea, $5::bytea, $6::interval::text, $7::uuid::text,
       $8::uuid[]::text, $9::int[]::text, $10::reservation_status::text, $11::boolean,
       $12::jsonb::text, $13::timestamptz = 'infinity'`
	type row struct {
		Text     string
		Null     *string
		Int      int
		Bytes    []byte
		NoBytes  []byte
		Interval string
		UUID     string
		UUIDs    string
		Ints     string
		Enum     string
		Bool     bool
		JSON     string
		Infinity bool
	}
	want := row{
		Text: "O'Brien, \\ \"ü\"", Int: -7, Bytes: []byte{0, 255}, Interval: "00:01:30.001",
		UUID: id, UUIDs: "{" + id + "," + other + "}", Ints: "{1,2}", Enum: "PENDING", Bool: true,
		JSON: `{"a": 1}`, Infinity: true,
	}
	db := pgtest.New(t)
	for _, address := range []string{db.URL, db.DirectURL} {
		p := open(t, address)
		for n := range 3 {
			got, err := postgres.QueryRow(t.Context(), p, pgx.RowToStructByPos[row], sql, want.Text,
				(*string)(nil), want.Int, want.Bytes, []byte(nil), 90*time.Second+time.Millisecond,
				id, []string{id, other}, []int{1, 2}, want.Enum, true, want.JSON, "infinity")
			if diff := cmp.Diff(want, got); err != nil || diff != "" {
				t.Errorf("row %d differs, %v (-want +got):\n%s", n, err, diff)
			}
		}
	}
}

const (
	execMode    = "default_query_exec_mode"
	addSQL      = "SELECT $1::int + 1"
	preparedSQL = "SELECT count(*) FROM pg_prepared_statements WHERE statement = '" + addSQL + "'"
)

func TestTheURLDecidesWhetherAStatementStaysPrepared(t *testing.T) {
	t.Parallel()

	address := pgtest.New(t).DirectURL
	for mode, want := range map[string]int{"": 1, "cache_statement": 1, "exec": 0} {
		p := open(t, withParameter(t, address, execMode, mode))
		for _, n := range []int{1, 2, 3} {
			if got := queryOne[int](t, p, addSQL, n); got != n+1 {
				t.Errorf("mode %q: %d + 1 is %d", mode, n, got)
			}
		}
		if err := p.Exec(t.Context(), "SELECT $1::int / 0", 1); !postgres.HasCode(err, "22012") {
			t.Errorf("mode %q: a division by zero = %v, want Postgres's error", mode, err)
		}
		if got := queryOne[int](t, p, preparedSQL); got != want {
			t.Errorf("mode %q: %d statements stay prepared, want %d", mode, got, want)
		}
	}
	_, err := postgres.Open(postgres.URL(withParameter(t, address, execMode, "simple_protocol")), 1)
	if err == nil || !strings.Contains(err.Error(), "cache_statement, exec") {
		t.Errorf("Open() with simple_protocol = %v, want an error that names the two modes", err)
	}
}

// With ALLO_TEST_PGBOUNCER=1 this test runs through a pooler.
func TestNoStatementStaysPreparedBehindAPooler(t *testing.T) {
	t.Parallel()

	db := pgtest.New(t)
	p := open(t, db.URL)
	for range 3 {
		queryOne[int](t, p, addSQL, 1)
	}
	want := 1
	if db.URL != db.DirectURL {
		want = 0
	}
	if got := queryOne[int](t, p, preparedSQL); got != want {
		t.Errorf("%d statements stay prepared, want %d", got, want)
	}
}

// A pooler that doesn't track prepared statements may give a connection another session. That
// session lacks the statement, or has another client's statement under its name.
func TestAStatementThatAPoolerLostIsSentAgain(t *testing.T) {
	t.Parallel()

	const other = addSQL + "::int"
	for name, interfere := range map[string]func(other string) string{
		"no statement": func(string) string { return "DEALLOCATE ALL" },
		"another client's statement": func(other string) string {
			return "PREPARE " + other + " (int) AS SELECT $1 + 1"
		},
		"only another client's statement": func(other string) string {
			return "DEALLOCATE ALL; PREPARE " + other + " (int) AS SELECT $1 + 1"
		},
	} {
		address := withParameter(t, pgtest.New(t).DirectURL, execMode, "cache_statement")
		otherName := preparedName(t, address, other)
		p := open(t, address)
		for range 2 { // the second run prepares the statement
			queryOne[int](t, p, addSQL, 1)
		}
		for statement := range strings.SplitSeq(interfere(otherName), "; ") {
			if err := p.Exec(t.Context(), statement); err != nil {
				t.Fatal(err)
			}
		}
		for n := range 3 {
			for _, sql := range []string{addSQL, other} {
				if got := queryOne[int](t, p, sql, n); got != n+1 {
					t.Errorf("%s: %d + 1 is %d", name, n, got)
				}
			}
		}
		if !p.Unnamed() {
			t.Errorf("%s: the pool still prepares statements", name)
		}
	}
}

// A release may replace a routine by one with a wider result while connections have its statement
// prepared. Postgres refuses such a statement before it runs.
func TestAStatementWhoseResultChangedIsPreparedAgain(t *testing.T) {
	t.Parallel()

	for name, c := range map[string]struct{ drop, create, sql string }{
		"a function": {
			"DROP FUNCTION answer",
			"CREATE FUNCTION answer() RETURNS %s LANGUAGE sql AS 'SELECT 7'",
			"SELECT answer()",
		},
		"a set": {
			"DROP FUNCTION answer",
			"CREATE FUNCTION answer(OUT n %s, OUT other text) LANGUAGE sql AS $$ SELECT 7, 'x' $$",
			"SELECT n FROM answer()",
		},
		"a procedure": {
			"DROP PROCEDURE answer",
			"CREATE PROCEDURE answer(INOUT n %s) LANGUAGE plpgsql AS 'BEGIN n := 7; END'",
			"CALL answer(NULL)",
		},
	} {
		address := pgtest.New(t).DirectURL
		p, admin := open(t, address), open(t, address)
		create := func(result string) {
			t.Helper()
			if err := admin.Exec(t.Context(), fmt.Sprintf(c.create, result)); err != nil {
				t.Fatal(err)
			}
		}
		create("int")
		for range 3 { // the second run prepares the statement
			queryOne[int64](t, p, c.sql)
		}
		if err := admin.Exec(t.Context(), c.drop); err != nil {
			t.Fatal(err)
		}
		create("bigint")

		for n := range 3 {
			got, err := postgres.QueryRow(t.Context(), p, pgx.RowTo[int64], c.sql)
			if got != 7 || err != nil {
				t.Errorf("%s: run %d after the change = %d, %v, want 7", name, n, got, err)
			}
		}
		if prepared := queryOne[int](t, p, "SELECT count(*) FROM pg_prepared_statements "+
			"WHERE statement = $1", c.sql); prepared != 1 || p.Unnamed() {
			t.Errorf("%s: %d statements stay prepared, unnamed %t, want 1 and false", name,
				prepared, p.Unnamed())
		}
	}
}

// A statement that Postgres refuses while it runs isn't sent again.
func TestAnUnsupportedFeatureIsNoReasonToTryAgain(t *testing.T) {
	t.Parallel()

	p := open(t, pgtest.New(t).DirectURL)
	const raise = `
CREATE FUNCTION count_and_fail() RETURNS int LANGUAGE plpgsql AS $$ BEGIN
  PERFORM nextval('calls');
  RAISE 'cached plan must not change result type' USING ERRCODE = '0A000';
END $$`
	for _, sql := range []string{"CREATE SEQUENCE calls", raise} {
		if err := p.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	for range 3 {
		if err := p.Exec(t.Context(), "SELECT count_and_fail()"); !postgres.HasCode(err, "0A000") {
			t.Errorf("Exec() = %v, want SQLSTATE 0A000", err)
		}
	}
	if calls := queryOne[int](t, p, "SELECT last_value FROM calls"); calls != 3 {
		t.Errorf("the function ran %d times, want 3", calls)
	}
}

// preparedName returns the name under which pgx prepares a statement.
func preparedName(t *testing.T, address, sql string) string {
	t.Helper()
	p := open(t, address)
	for range 2 {
		queryOne[int](t, p, sql, 1)
	}
	return queryOne[string](t, p, "SELECT name FROM pg_prepared_statements WHERE statement = $1",
		sql)
}

func TestAConnectionPreparesNoMoreThanItsLimit(t *testing.T) {
	t.Parallel()

	p := open(t, withParameter(t, pgtest.New(t).DirectURL, execMode, "cache_statement"))
	for range 2 {
		for n := range postgres.MaxPrepared + 5 {
			queryOne[int](t, p, "SELECT "+strconv.Itoa(n))
		}
	}
	if got := queryOne[int](t, p,
		"SELECT count(*) FROM pg_prepared_statements"); got != postgres.MaxPrepared {
		t.Errorf("%d statements stay prepared, want %d", got, postgres.MaxPrepared)
	}
}

func TestATransactionCommitsOnlyWhenItsFunctionSucceeds(t *testing.T) {
	t.Parallel()

	p := open(t, pgtest.New(t).URL)
	insert := func(tx pgx.Tx, name string) {
		t.Helper()
		_, err := tx.Exec(t.Context(),
			"INSERT INTO warehouses (id, name) VALUES (gen_random_uuid(), $1)", name)
		if err != nil {
			t.Fatal(err)
		}
	}
	failure := errors.New("failure")
	err := p.Transaction(t.Context(), pgx.TxOptions{}, func(tx pgx.Tx) error {
		insert(tx, "undone")
		return failure
	})
	if !errors.Is(err, failure) {
		t.Errorf("Transaction() = %v, want the function's %v", err, failure)
	}
	err = p.Transaction(t.Context(), pgx.TxOptions{}, func(tx pgx.Tx) error {
		insert(tx, "half done")
		_, _ = tx.Exec(t.Context(), "SELECT 1 / 0") // the error is ignored
		return nil
	})
	if !errors.Is(err, pgx.ErrTxCommitRollback) {
		t.Errorf("Transaction() with an ignored failure = %v, want %v", err,
			pgx.ErrTxCommitRollback)
	}
	err = p.Transaction(t.Context(), pgx.TxOptions{},
		func(tx pgx.Tx) error { insert(tx, "done"); return nil })
	if err != nil {
		t.Errorf("Transaction() = %v", err)
	}
	readOnly := pgx.TxOptions{AccessMode: pgx.ReadOnly}
	err = p.Transaction(t.Context(), readOnly, func(tx pgx.Tx) error {
		var setting string
		err := tx.QueryRow(t.Context(), "SHOW transaction_read_only").Scan(&setting)
		if setting != "on" {
			t.Errorf("transaction_read_only is %q, want on", setting)
		}
		return err
	})
	names := queryOne[string](t, p, "SELECT string_agg(name, ', ') FROM warehouses")
	if err != nil || names != "done" {
		t.Errorf("the warehouses are %q, %v, want only the committed one", names, err)
	}
}
