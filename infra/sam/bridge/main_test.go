package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/allo/reservations/internal/pgtest"
)

// waitLimit limits every wait. It allows for a machine that is busy with other tests.
const waitLimit = 30 * time.Second

func TestMain(m *testing.M) { pgtest.Main(m) }

// engineWith starts a stub of a container engine and returns its address. It gives these answers by
// path, and 404 to every other request.
func engineWith(t *testing.T, answers map[string]string) string {
	t.Helper()
	// Socket paths are limited to about 100 characters.
	dir, err := os.MkdirTemp("", "allo-bridge-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	l, err := net.Listen("unix", filepath.Join(dir, "engine.sock"))
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer, ok := answers[r.URL.Path]
		if !ok {
			w.WriteHeader(http.StatusNotFound)
		}
		fmt.Fprint(w, answer)
	})}
	go server.Serve(l)
	t.Cleanup(func() { server.Close() })
	return "unix://" + l.Addr().String()
}

// gateway is this machine's address on the stub's network. Any address of this machine will do.
const gateway = "127.0.0.1"

// Answers of container engines.
const (
	plain = `{
		"OperatingSystem": "Debian GNU/Linux 12",
		"SecurityOptions": ["name=seccomp,profile=default"]
	}`
	rootless = `{
		"OperatingSystem": "debian",
		"SecurityOptions": ["name=seccomp,profile=default", "name=rootless"]
	}`
	desktop = `{
		"OperatingSystem": "Docker Desktop",
		"SecurityOptions": ["name=seccomp,profile=unconfined", "name=cgroupns"]
	}`
	networks = `{"IPAM": {"Config": [{"Gateway": "fd00::1"}, {"Gateway": "` + gateway + `"}]}}`
)

func writeTemplate(t *testing.T, resources string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "template.json")
	if err := os.WriteFile(path, []byte(`{"Resources": `+resources+`}`), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

const twoFunctions = `{
	"Reserve": {
		"Type": "AWS::Lambda::Function",
		"Properties": {"Environment": {"Variables": {"DATABASE_URL": ""}}}
	},
	"Confirm": {
		"Type": "AWS::Lambda::Function",
		"Properties": {"Environment": {"Variables": {"DATABASE_URL": "", "OTHER": {"Ref": "X"}}}}
	},
	"Provider": {
		"Type": "AWS::Lambda::Function",
		"Properties": {"Environment": {"Variables": {"OTHER": "x"}}}
	},
	"Bare": {"Type": "AWS::Lambda::Function", "Properties": {}},
	"Stage": {"Type": "AWS::ApiGatewayV2::Stage", "Properties": {"StageName": "$default"}}
}`

func TestAContainerReachesAPostgresOnTheLoopback(t *testing.T) {
	t.Parallel()

	db := pgtest.New(t)
	envFile := filepath.Join(t.TempDir(), "environment.json")
	opts := options{
		template: writeTemplate(t, twoFunctions), envFile: envFile,
		engine: engineWith(t, map[string]string{"/info": plain, "/networks/podman": networks}),
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	said, saying := io.Pipe()
	ended := make(chan error, 1)
	go func() { ended <- serve(ctx, opts, db.DirectURL, saying); saying.Close() }()
	if line := make([]byte, len("ready\n")); !readAll(said, line) || string(line) != "ready\n" {
		t.Fatalf("the bridge prints %q and ends with %v, want it ready", line, <-ended)
	}

	environment := read(t, envFile)
	inside := environment["Reserve"]["DATABASE_URL"]
	if want := map[string]map[string]string{
		"Reserve": {"DATABASE_URL": inside}, "Confirm": {"DATABASE_URL": inside},
	}; !cmp.Equal(environment, want) {
		t.Errorf("the environment is (-want +got)\n%s", cmp.Diff(want, environment))
	}
	conn := connect(t, inside)
	if inside == db.DirectURL {
		t.Errorf("inside a container the database is at %s, want it at the bridge", inside)
	}
	var name string
	if err := conn.QueryRow(t.Context(), "SELECT current_database()").Scan(&name); err != nil ||
		name != db.Name {
		t.Errorf("through the bridge the database is %q, %v; want %q", name, err, db.Name)
	}

	cancel()
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("the bridge ends with %v", err)
		}
	case <-time.After(waitLimit):
		t.Fatal("an open connection keeps the bridge from ending")
	}
	if err := conn.Ping(t.Context()); err == nil {
		t.Error("the connection outlives the bridge")
	}
	if _, err := os.Stat(envFile); !os.IsNotExist(err) {
		t.Errorf("the file with the password still exists: %v", err)
	}
}

func readAll(r io.Reader, into []byte) bool {
	_, err := io.ReadFull(r, into)
	return err == nil
}

func read(t *testing.T, path string) map[string]map[string]string {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file with the password is %v, %v, want it readable only by its owner", info, err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var environment map[string]map[string]string
	if err := json.Unmarshal(text, &environment); err != nil {
		t.Fatal(err)
	}
	return environment
}

func connect(t *testing.T, databaseURL string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), databaseURL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.WithoutCancel(t.Context())) })
	return conn
}

func TestTheURLInsideAContainer(t *testing.T) {
	t.Parallel()

	for _, c := range []struct {
		name    string
		answers map[string]string
		url     string
		want    string // the URL's host inside a container; a relay's without its port
		err     string
	}{
		{
			"docker",
			map[string]string{"/info": plain, "/networks/bridge": networks},
			"postgres://u:p@localhost:1/x", gateway, "",
		},
		{
			"podman",
			map[string]string{"/info": plain, "/networks/podman": networks},
			"postgres://u:p@127.0.0.1/x", gateway, "",
		},
		{
			"docker desktop",
			map[string]string{"/info": desktop},
			"postgres://u:p@[::1]/x", "host.docker.internal:5432", "",
		},
		{
			"another machine",
			map[string]string{"/info": rootless, "/networks/bridge": networks},
			"postgres://db.example:1/x", "db.example:1", "",
		},
		{
			"rootless",
			map[string]string{"/info": rootless, "/networks/podman": networks},
			"postgres://localhost/x", "", "rootless",
		},
		{
			"no network",
			map[string]string{"/info": plain},
			"postgres://localhost/x", "", "no network named bridge or podman",
		},
		{"no engine", nil, "postgres://localhost/x", "", "start Docker"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()

			inside, r, err := bridge(t.Context(), engineWith(t, c.answers), c.url)
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Errorf("bridge = %v, want an error with %q", err, c.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			u, err := url.Parse(inside)
			if err != nil {
				t.Fatal(err)
			}
			host := u.Host
			if r != nil {
				defer r.listener.Close()
				host = u.Hostname()
			}
			if host != c.want || (r != nil) != (c.want == gateway) {
				t.Errorf("bridge = %s, relayed: %t; want %s", inside, r != nil, c.want)
			}
		})
	}
}

func TestAnEngineAddressThatSAMCannotUseIsRefused(t *testing.T) {
	t.Parallel()

	for _, address := range []string{"", "/var/run/docker.sock", "npipe:////./pipe/docker_engine"} {
		if _, err := newEngine(address); err == nil || !strings.Contains(err.Error(), "DOCKER_HOST") {
			t.Errorf("newEngine(%q) = %v, want an error that names DOCKER_HOST", address, err)
		}
	}
}

func TestATemplateWithoutTheVariableIsRefused(t *testing.T) {
	t.Parallel()

	for _, resources := range []string{`{}`, `{"Stage": {"Type": "AWS::ApiGatewayV2::Stage"}}`} {
		if ids, err := declaring(writeTemplate(t, resources)); err == nil ||
			!strings.Contains(err.Error(), variable) {
			t.Errorf("declaring(%s) = %v, %v; want an error that names %s", resources, ids, err, variable)
		}
	}
	if ids, err := declaring(writeTemplate(t, twoFunctions)); err != nil ||
		!slices.Equal(ids, []string{"Confirm", "Reserve"}) {
		t.Errorf("declaring = %v, %v; want Confirm and Reserve", ids, err)
	}
}

func TestAnEnvironmentFileThatOthersCanReadIsReplaced(t *testing.T) {
	t.Parallel()

	path := filepath.Join(t.TempDir(), "environment.json")
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := writeEnvironment(path, []string{"Reserve"}, "postgres://x"); err != nil {
		t.Fatal(err)
	}
	want := map[string]map[string]string{"Reserve": {"DATABASE_URL": "postgres://x"}}
	if got := read(t, path); !cmp.Equal(got, want) {
		t.Errorf("the environment is %v, want %v", got, want)
	}
}
