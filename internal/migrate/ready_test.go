package migrate_test

import (
	"errors"
	"net/url"
	"path"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/jackc/pgx/v5"

	"github.com/allo/reservations/internal/migrate"
	"github.com/allo/reservations/internal/pgtest"
	"github.com/allo/reservations/internal/postgres"
	"github.com/allo/reservations/internal/reservation"
	"github.com/allo/reservations/migrations"
)

// ready checks by a new connection whether this release is ready.
func ready(t *testing.T, address string) error {
	t.Helper()
	pool, err := postgres.Open(postgres.URL(address), 1)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	return reservation.New(pool, reservation.Options{}).Ready(t.Context())
}

// changed returns this release's routines with another text.
func changed(t *testing.T, change func(file, text string) string) release {
	t.Helper()
	texts, err := migrations.Texts(migrations.Routines)
	if err != nil {
		t.Fatal(err)
	}
	r := release{}
	for file, text := range texts {
		if text = change(file, text); text != "" {
			r[strings.TrimPrefix(file, "procedures/")] = text
		}
	}
	return r
}

// While a deploy moves the traffic, the newer release's routines are in place, and the canary's
// alarms ask the health of the one in service.
func TestAReleaseStaysReadyWhileANewerOneIsDeployed(t *testing.T) {
	t.Parallel()

	db := pgtest.New(t)
	comment := func(word string) func(string, string) string {
		return func(_, text string) string { return text + "-- " + word + "\n" }
	}
	this := changed(t, func(_, text string) string { return text })
	moved := changed(t, func(file, text string) string {
		if file == "procedures/max_tries.sql" {
			return ""
		}
		return text
	})
	moved[path.Base(migrations.PreviousRelease)] += this["max_tries.sql"]
	for name, newer := range map[string]release{
		"other texts": changed(t, comment("newer")),
		"a routine that moved to the previous release's file": moved,
		"a routine without a file": changed(t, func(file, text string) string {
			if file == "procedures/max_tries.sql" {
				return ""
			}
			return text
		}),
	} {
		deploy(t, db.DirectURL, newer)
		if err := ready(t, db.DirectURL); err != nil {
			t.Errorf("%s: Ready() = %v, want nil", name, err)
		}
		deploy(t, db.DirectURL, newer)
		deploy(t, db.DirectURL, this) // the operator goes back
		if err := ready(t, db.DirectURL); err != nil {
			t.Errorf("%s, undone: Ready() = %v, want nil", name, err)
		}
	}
	for range 30 { // longer than a comment remembers
		deploy(t, db.DirectURL, this)
	}
	if err := ready(t, db.DirectURL); err != nil {
		t.Errorf("after many deploys Ready() = %v, want nil", err)
	}
}

// A database on which only an older release was deployed lacks this release's texts, and so does
// one whose operator went back to that release.
func TestAReleaseIsReadyFromItsDeployUntilOneGoesBack(t *testing.T) {
	t.Parallel()

	db := pgtest.NewEmpty(t)
	older := fstest.MapFS{}
	for name, text := range changed(t, func(file, text string) string {
		if file == "procedures/reserve_line.sql" {
			return text + "-- older\n"
		}
		return text
	}) {
		older["procedures/"+name] = &fstest.MapFile{Data: []byte(text)}
	}
	deployOlder := func() {
		t.Helper()
		_, err := migrate.UpWith(t.Context(), postgres.URL(db.URL), "", migrations.Schema, older)
		if err != nil {
			t.Fatal(err)
		}
	}
	wantOnlyTheLineMissing := func(when string) {
		t.Helper()
		var lacks *reservation.NotReadyError
		if err := ready(t, db.URL); !errors.As(err, &lacks) || len(lacks.Routines) != 1 ||
			!strings.Contains(lacks.Routines[0], "reserve_line.sql") || len(lacks.Schema) != 0 {
			t.Errorf("Ready() %s = %v, want reserve_line.sql alone", when, err)
		}
	}

	deployOlder()
	wantOnlyTheLineMissing("before the deploy")
	if _, err := migrate.Up(t.Context(), postgres.URL(db.URL)); err != nil {
		t.Fatal(err)
	}
	if err := ready(t, db.URL); err != nil {
		t.Errorf("Ready() after the deploy = %v, want nil", err)
	}
	deployOlder()
	wantOnlyTheLineMissing("after a deploy that went back")
}

// The service's role is ready with its rights and no others.
func TestTheServicesRoleIsReadyWithItsRights(t *testing.T) {
	t.Parallel()

	db := pgtest.NewFixture(t, pgtest.New(t))
	role := "ready_" + strings.TrimPrefix(db.Name, "allo_test_")
	name := pgx.Identifier{role}.Sanitize()
	db.Exec("CREATE ROLE " + name + " LOGIN PASSWORD 'ready'")
	defer db.Exec("DROP ROLE " + name)
	defer db.Exec("DROP OWNED BY " + name)
	if _, err := migrate.UpAndGrant(t.Context(), postgres.URL(db.DirectURL), role); err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(db.DirectURL)
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword(role, "ready")
	if err := ready(t, u.String()); err != nil {
		t.Errorf("Ready() with the service's rights = %v, want nil", err)
	}
	for statement, want := range map[string]string{
		"REVOKE INSERT ON reservations FROM " + name:                  "INSERT on reservations",
		"REVOKE UPDATE (first_end) ON inventory FROM " + name:         "UPDATE on inventory.first_end",
		"REVOKE UPDATE ON SEQUENCE log_records FROM " + name:          "UPDATE on log_records",
		"REVOKE EXECUTE ON FUNCTION max_tries() FROM PUBLIC, " + name: "procedures/max_tries.sql",
	} {
		db.Exec(statement)
		if err := ready(t, u.String()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Ready() after %s = %v, want %q", statement, err, want)
		}
	}
	db.Exec("REVOKE ALL ON goose_versions FROM " + name)
	if err := ready(t, u.String()); err == nil || !strings.Contains(err.Error(), "no rights") {
		t.Errorf("Ready() without rights = %v, want them named", err)
	}
}
