package postgres

import (
	"context"
	"errors"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/allo/reservations/internal/dsn"
	"github.com/allo/reservations/internal/pgtest"
)

func openTest(t *testing.T, url string) *Pool {
	t.Helper()
	p, err := Open(dsn.URL(url), 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

// ask reads one value.
func ask(t *testing.T, db Querier, sql string, args ...any) string {
	t.Helper()
	rows, err := db.Query(t.Context(), sql, args...)
	if err != nil || len(rows) != 1 || len(rows[0]) != 1 {
		t.Fatalf("Query(%s) = %q, %v, want one value", sql, rows, err)
	}
	return string(rows[0][0])
}

func TestArgumentsAndAnswersAreText(t *testing.T) {
	t.Parallel()

	p := openTest(t, pgtest.New(t).URL)
	name := "O'Brien, \\ \"ü\""
	rows, err := p.Query(t.Context(),
		"SELECT $1::text, $2::text, $3::text, $4::int, $5::bytea, $6::interval, $7::bytea UNION ALL SELECT 'second', null, null, 0, '', '0', null",
		name, &name, (*string)(nil), -7, []byte{0, 255}, 90*time.Second+time.Millisecond, []byte(nil))

	want := Rows{
		{[]byte(name), []byte(name), nil, []byte("-7"), []byte(`\x00ff`), []byte("00:01:30.001"), nil},
		{[]byte("second"), nil, nil, []byte("0"), []byte(`\x`), []byte("00:00:00"), nil},
	}
	if diff := cmp.Diff(want, rows); err != nil || diff != "" {
		t.Errorf("Query() differs, %v (-want +got):\n%s", err, diff)
	}
}

const backendSQL = "SELECT pg_backend_pid()"

func TestAConnectionIsUsedAgainUntilItIsTooOld(t *testing.T) {
	t.Parallel()

	p := openTest(t, pgtest.New(t).DirectURL)
	first := ask(t, p, backendSQL)
	if again := ask(t, p, backendSQL); again != first {
		t.Errorf("the second query ran on backend %s, want %s again", again, first)
	}
	if _, err := p.Query(t.Context(), "SELECT 1 / 0"); err == nil {
		t.Error("Query() of a division by zero succeeded")
	}
	if again := ask(t, p, backendSQL); again != first {
		t.Errorf("after an error the query ran on backend %s, want %s again", again, first)
	}

	res, err := p.acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	res.Value().expires = time.Now()
	release(res)
	if again := ask(t, p, backendSQL); again == first {
		t.Errorf("a connection past its life was used again")
	}
}

const preparedSQL = "SELECT count(*) FROM pg_prepared_statements WHERE statement = 'SELECT $1::int + 1'"

func TestAStatementStaysPreparedUnlessTheURLSaysNot(t *testing.T) {
	t.Parallel()

	address := pgtest.New(t).DirectURL
	for mode, want := range map[string]string{"": "1", cacheStatement: "1", execUnnamed: "0"} {
		p := openTest(t, withMode(t, address, mode))
		for _, n := range []int{1, 2, 3} {
			if got := ask(t, p, "SELECT $1::int + 1", n); got != strconv.Itoa(n+1) {
				t.Errorf("mode %q: the answer to %d + 1 is %s", mode, n, got)
			}
		}
		if _, err := p.Query(t.Context(), "SELECT $1::int / 0", 1); err == nil {
			t.Errorf("mode %q: a division by zero succeeded", mode)
		}
		if got := ask(t, p, preparedSQL); got != want {
			t.Errorf("mode %q: %s statements stay prepared, want %s", mode, got, want)
		}
	}
	if _, err := Open(dsn.URL(withMode(t, address, "simple_protocol")), 1); err == nil || !strings.Contains(err.Error(), "cache_statement or exec") {
		t.Errorf("Open() in another mode = %v, want an error that says which there are", err)
	}
}

// TestNothingStaysPreparedBehindAPooler needs one to bite: it runs with the others through PgBouncer (make test-pooled).
func TestNothingStaysPreparedBehindAPooler(t *testing.T) {
	t.Parallel()

	db := pgtest.New(t)
	p := openTest(t, db.URL)
	for range 3 {
		ask(t, p, "SELECT $1::int + 1", 1)
	}
	want := "1"
	if db.URL != db.DirectURL {
		want = "0"
	}
	if got := ask(t, p, preparedSQL); got != want {
		t.Errorf("%s statements stay prepared, want %s", got, want)
	}
}

// The first statement on a connection comes with a question, and fails or succeeds as any other.
func TestTheFirstStatementMayFail(t *testing.T) {
	t.Parallel()

	p := openTest(t, pgtest.New(t).DirectURL)
	if _, err := p.Query(t.Context(), "SELECT 1 / 0"); !hasCode(err, "22012") {
		t.Errorf("Query() of a division by zero = %v, want Postgres's error", err)
	}
	res, err := p.acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if way := res.Value().way; way != direct {
		t.Errorf("the connection's way is %v, want %v", way, direct)
	}
	res.Value().way = unknown
	pid := res.Value().PID()
	release(res)
	if got := ask(t, p, backendSQL); got != strconv.FormatUint(uint64(pid), 10) {
		t.Errorf("after the error the query ran on backend %s, want %d", got, pid)
	}
}

func withMode(t *testing.T, address, mode string) string {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	if mode != "" {
		q := u.Query()
		q.Set("default_query_exec_mode", mode)
		u.RawQuery = q.Encode()
	}
	return u.String()
}

// A pooler that doesn't track statements brings a connection together with a server session that has lost ours, or has another client's.
func TestStatementsThatAPoolerLostAreSentAnew(t *testing.T) {
	t.Parallel()

	const sql = "SELECT $1::int + 1"
	for name, interfere := range map[string]string{
		"lost":            "DEALLOCATE ALL",
		"another's":       "PREPARE " + statementName(sql+"::int") + " (int) AS SELECT $1 + 1",
		"another's, lost": "DEALLOCATE ALL; PREPARE " + statementName(sql+"::int") + " (int) AS SELECT $1 + 1",
	} {
		p := openTest(t, withMode(t, pgtest.New(t).DirectURL, cacheStatement))
		ask(t, p, sql, 1)
		for statement := range strings.SplitSeq(interfere, "; ") {
			if err := p.Transaction(t.Context(), "", func(tx Tx) error { _, err := tx.Query(t.Context(), statement); return err }); err != nil {
				t.Fatal(err)
			}
		}
		for n := range 3 {
			for _, query := range []string{sql, sql + "::int"} {
				if got := ask(t, p, query, n); got != strconv.Itoa(n+1) {
					t.Errorf("%s: the answer to %d + 1 is %s", name, n, got)
				}
			}
		}
		if !p.exec.Load() {
			t.Errorf("%s: statements are prepared still", name)
		}
	}
}

func TestAConnectionKeepsNoMoreStatementsThanItMay(t *testing.T) {
	t.Parallel()

	p := openTest(t, withMode(t, pgtest.New(t).DirectURL, cacheStatement))
	for n := range maxPrepared + 5 {
		ask(t, p, "SELECT "+strconv.Itoa(n))
	}
	if got := ask(t, p, "SELECT count(*) FROM pg_prepared_statements"); got != strconv.Itoa(maxPrepared) {
		t.Errorf("%s statements stay prepared, want %d", got, maxPrepared)
	}
}

// An environment that was frozen thaws with a connection that its server has long closed.
func TestAnIdleConnectionThatDiedIsReplaced(t *testing.T) {
	t.Parallel()

	db := pgtest.New(t)
	p, admin := openTest(t, db.DirectURL), openTest(t, db.DirectURL)
	p.pingAfter = 0
	pid := ask(t, p, backendSQL)
	ask(t, admin, "SELECT pg_terminate_backend($1::int)", pid)
	for ask(t, admin, "SELECT count(*) FROM pg_stat_activity WHERE pid = $1::int", pid) != "0" {
		continue // the question paces it
	}
	if again := ask(t, p, backendSQL); again == pid {
		t.Errorf("the query ran on backend %s, which has ended", pid)
	}

	// Without the question the caller gets the error: the test above bites.
	p.pingAfter = time.Hour
	pid = ask(t, p, backendSQL)
	ask(t, admin, "SELECT pg_terminate_backend($1::int)", pid)
	if _, err := p.Query(t.Context(), backendSQL); !Unavailable(err) {
		t.Errorf("Query() on a connection that has ended = %v, want it unavailable", err)
	}
	if again := ask(t, p, backendSQL); again == pid {
		t.Errorf("the query after it ran on backend %s, which has ended", pid)
	}
}

func TestATransactionEndsAsItsFunctionDoes(t *testing.T) {
	t.Parallel()

	p := openTest(t, pgtest.New(t).URL)
	insert := func(tx Tx, name string) {
		t.Helper()
		if _, err := tx.Query(t.Context(), "INSERT INTO warehouses (id, name) VALUES (gen_random_uuid(), $1)", name); err != nil {
			t.Fatal(err)
		}
	}
	failure := errors.New("failure")
	err := p.Transaction(t.Context(), "", func(tx Tx) error {
		insert(tx, "undone")
		return failure
	})
	if !errors.Is(err, failure) {
		t.Errorf("Transaction() = %v, want the function's %v", err, failure)
	}
	err = p.Transaction(t.Context(), "", func(tx Tx) error {
		insert(tx, "half done")
		_, _ = tx.Query(t.Context(), "SELECT 1 / 0") // the error is forgotten
		return nil
	})
	if !errors.Is(err, errRolledBack) {
		t.Errorf("Transaction() that failed unnoticed = %v, want %v", err, errRolledBack)
	}
	if err := p.Transaction(t.Context(), "", func(tx Tx) error { insert(tx, "done"); return nil }); err != nil {
		t.Errorf("Transaction() = %v", err)
	}
	err = p.Transaction(t.Context(), "READ ONLY", func(tx Tx) error {
		if got := ask(t, tx, "SHOW transaction_read_only"); got != "on" {
			t.Errorf("transaction_read_only = %s, want on", got)
		}
		return nil
	})
	if got := ask(t, p, "SELECT string_agg(name, ', ') FROM warehouses"); err != nil || got != "done" {
		t.Errorf("the warehouses are %q, %v, want only what was committed", got, err)
	}
}

func TestNobodyWaitsLongerThanItsContextForAConnection(t *testing.T) {
	t.Parallel()

	p := openTest(t, pgtest.New(t).URL)
	err := p.Transaction(t.Context(), "", func(Tx) error {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		_, err := p.Query(ctx, "SELECT 1")
		return err
	})
	if !Unavailable(err) {
		t.Errorf("Query() while the only connection is taken = %v, want it unavailable", err)
	}
	ask(t, p, "SELECT 1")
}

func TestTooManyCallersAreTurnedAwayAtOnce(t *testing.T) {
	t.Parallel()

	const tooMany = 20
	p := openTest(t, pgtest.New(t).URL)
	res, err := p.acquire(t.Context()) // nobody else has the one connection meanwhile
	if err != nil {
		t.Fatal(err)
	}
	answers := make(chan error)
	for range maxWaiting + tooMany {
		go func() {
			_, err := p.Query(t.Context(), "SELECT 1")
			answers <- err
		}()
	}
	for range tooMany {
		if err := <-answers; !errors.Is(err, ErrSaturated) || !Unavailable(err) {
			t.Errorf("a caller too many is answered %v, want %v", err, ErrSaturated)
		}
	}
	release(res)
	for range maxWaiting {
		if err := <-answers; err != nil {
			t.Errorf("a caller who waited is answered %v", err)
		}
	}
	if n := p.waiting.Load(); n != 0 {
		t.Errorf("%d wait when nobody does", n)
	}
}
