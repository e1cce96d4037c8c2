package postgres_test

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/allo/reservations/internal/migrate"
	"github.com/allo/reservations/internal/pgtest"
	"github.com/allo/reservations/internal/postgres"
)

// program is a program that connects by a URL.
type program struct {
	name    string
	connect func(t *testing.T, address string) error
}

var programs = []program{
	{"the service", func(t *testing.T, address string) error {
		t.Helper()
		p, err := postgres.Open(postgres.URL(address), 1)
		if err != nil {
			return err
		}
		defer p.Close()
		return p.Exec(t.Context(), "SELECT 1")
	}},
	{"the migration", func(t *testing.T, address string) error {
		t.Helper()
		_, err := migrate.Up(t.Context(), postgres.URL(address))
		return err
	}},
}

// with adds a parameter to a URL. It doesn't look whether it is there already.
func with(address, parameter string) string {
	if strings.Contains(address, "?") {
		return address + "&" + parameter
	}
	return address + "?" + parameter
}

func TestBothProgramsHonourTheSameParameters(t *testing.T) {
	t.Parallel()

	db := pgtest.New(t)
	for _, parameter := range []string{
		"application_name=shop", "connect_timeout=0", "connect_timeout=3", "connect_timeout=3600",
		"target_session_attrs=any", "target_session_attrs=read-write",
		"target_session_attrs=primary", "sslsni=0", "sslnegotiation=postgres",
		"channel_binding=disable", "require_auth=", "max_protocol_version=3.0",
		execMode + "=exec", execMode + "=cache_statement", "passfile=%2Fnowhere", "p%6Frt=" +
			portOf(t, db.DirectURL),
	} {
		for _, p := range programs {
			if err := p.connect(t, with(db.DirectURL, parameter)); err != nil {
				t.Errorf("%s with %s = %v, want it honoured", p.name, parameter, err)
			}
		}
	}
}

func portOf(t *testing.T, address string) string {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	return u.Port()
}

func TestBothProgramsRefuseTheSameParametersByName(t *testing.T) {
	t.Parallel()

	db := pgtest.New(t)
	for _, parameter := range []string{
		"options=-c%20synchronous_commit%3Doff", "search_path=elsewhere", "synchronous_commit=off",
		"fsync=off", "default_transaction_isolation=serializable", "statement_timeout=0",
		"lock_timeout=0", "client_min_messages=error", "session_replication_role=replica",
		"default_transaction_read_only=on", "role=postgres", "timezone=UTC", "client_encoding=LATIN1",
		"replication=database", "fallback_application_name=shop", "user_name=shop",
		"target_session_attrs=standby", "target_session_attrs=prefer-standby",
		"target_session_attrs=read-only", "target_session_attrs=",
		execMode + "=simple_protocol", execMode + "=describe_exec", "statement_cache_capacity=1",
		"description_cache_capacity=1", "pool_max_conns=100", "pool_min_conns=100", "service=shop",
		"servicefile=%2Fnowhere", "hostaddr=127.0.0.1", "keepalives=1", "gssencmode=disable",
		"krbsrvname=postgres", "pgbouncer=true", "schema=shop", "SSLMODE=disable", "s%65arch_path=x",
		"=", "%20", "application_name=a&application_name=b",
	} {
		key, _, _ := strings.Cut(parameter, "=")
		name, err := url.PathUnescape(key)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range programs {
			err := p.connect(t, with(db.DirectURL, parameter))
			var refused *postgres.ParameterError
			if !errors.As(err, &refused) || refused.Name != name ||
				!strings.Contains(err.Error(), fmt.Sprintf("%q", name)) {
				t.Errorf("%s with %s = %v, want it refused by name", p.name, parameter, err)
			}
		}
	}
}

// The control of the test above: the driver alone obeys such a parameter.
func TestTheDriverWouldObeyARefusedParameter(t *testing.T) {
	t.Parallel()

	for parameter, want := range map[string]string{
		"options=-c%20synchronous_commit%3Doff": "off", "synchronous_commit=off": "off",
	} {
		address := with(pgtest.New(t).DirectURL, parameter)
		conn, err := pgx.Connect(t.Context(), address)
		if err != nil {
			t.Fatal(err)
		}
		var got string
		err = conn.QueryRow(t.Context(), "SHOW synchronous_commit").Scan(&got)
		if err != nil || got != want {
			t.Errorf("synchronous_commit with %s is %s, %v, want %s", parameter, got, err, want)
		}
		if err := conn.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

func TestAnErrorOfAParameterDoesNotRepeatItsValue(t *testing.T) {
	t.Parallel()

	for _, address := range []string{
		"postgres://u@h/d?pasword=secret", "postgres://u@h/d?sslmode=disable&search_path=secret",
		"postgres://u:secret@h/d?target_session_attrs=secret", "postgres://u@h/d?x%zzy=secret",
		"postgres://u@h/d?password=secret%zz",
	} {
		_, err := postgres.Open(postgres.URL(address), 1)
		if err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("Open() of %s = %v, want an error without the value", address, err)
		}
	}
}

func TestTheConfigurationFollowsTheParameters(t *testing.T) {
	t.Parallel()

	config := func(address string) *pgx.ConnConfig {
		t.Helper()
		c, err := postgres.Target{URL: address}.Config(limit)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	for parameter, want := range map[string]time.Duration{
		"": limit, "connect_timeout=3": 3 * time.Second, "connect_timeout=0": limit,
		"connect_timeout=60": limit,
	} {
		if got := config(with("postgres://u@h/d", parameter)).ConnectTimeout; got != want {
			t.Errorf("with %s a connect has %s, want %s", parameter, got, want)
		}
	}
	named := config("postgres://u:p%3Fp@h/d?application_name=a+b%20c").RuntimeParams
	if len(named) != 1 || named["application_name"] != "a+b c" {
		t.Errorf("the run-time parameters are %v, want the URL's application_name alone", named)
	}
	plain := config("postgres://u@h/d").RuntimeParams
	if len(plain) != 1 || plain["application_name"] != "allo-reservations" {
		t.Errorf("the run-time parameters are %v, want our application_name alone", plain)
	}
	hosts := config("postgres://u@a:1,b:2/d?sslmode=disable")
	if hosts.Host != "a" || len(hosts.Fallbacks) != 1 || hosts.Fallbacks[0].Host != "b" {
		t.Errorf("the hosts are %s and %v, want a and b", hosts.Host, hosts.Fallbacks)
	}
}

// This test sets the environment, so it can't be parallel.
func TestBothProgramsRefuseSettingsOfTheEnvironment(t *testing.T) {
	db := pgtest.New(t)
	for variable, name := range map[string]string{"PGOPTIONS": "options", "PGTZ": "timezone"} {
		t.Run(variable, func(t *testing.T) {
			t.Setenv(variable, "-c synchronous_commit=off")
			for _, p := range programs {
				var refused *postgres.ParameterError
				err := p.connect(t, db.DirectURL)
				if !errors.As(err, &refused) || refused.Name != name {
					t.Errorf("%s with %s = %v, want it refused by name", p.name, variable, err)
				}
			}
		})
	}
}

func TestEveryHonouredParameterIsInTheTable(t *testing.T) {
	t.Parallel()

	doc, err := os.ReadFile(filepath.Join(".", "doc.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range postgres.Honoured() {
		if !strings.Contains(string(doc), name) {
			t.Errorf("the table of doc.go lacks %s", name)
		}
	}
}

func TestAClientsURLHasNoPassword(t *testing.T) {
	t.Parallel()

	for address, want := range map[string][2]string{
		"postgres://u:p%40@h:1/d": {"postgres://u@h:1/d", "p@"},
		"postgres://u@h/d?password=s&sslmode=require&default_query_exec_mode=exec": {
			"postgres://u@h/d?sslmode=require", "s",
		},
		"postgres://u@h/d?application_name=a%20b": {"postgres://u@h/d?application_name=a%20b", ""},
		"postgres://h/d": {"postgres://h/d", ""},
	} {
		rest, password, err := postgres.ClientURL(address)
		if err != nil || rest != want[0] || password != want[1] {
			t.Errorf("ClientURL(%s) = %s, %s, %v, want %v", address, rest, password, err, want)
		}
	}
	if _, _, err := postgres.ClientURL("postgres://u:secret%zz@h"); err == nil ||
		strings.Contains(err.Error(), "secret") {
		t.Errorf("ClientURL() of a malformed URL = %v, want an error without the password", err)
	}
}
