package pgserver

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// testTimeout bounds every wait of a test. It is long because a busy build machine is slow.
const testTimeout = 60 * time.Second

// parentOf turns this test program into one that starts a server on the given
// data directory and then waits to be killed.
var parentOf = flag.String("parent-of", "", "start a server on this data directory and wait")

func TestMain(m *testing.M) {
	flag.Parse()
	if *parentOf != "" {
		os.Exit(beParent(*parentOf))
	}
	os.Exit(m.Run())
}

// beParent starts a server, prints its process id, and waits for the end of its input, which comes
// with the end of the test at the latest.
func beParent(dataDir string) int {
	root, err := checkout()
	if err != nil {
		fmt.Println(err)
		return 1
	}
	binDir, err := Find(root)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	server, err := Start(context.Background(), Config{BinDir: binDir, DataDir: dataDir})
	if err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println(server.PID())
	io.Copy(io.Discard, os.Stdin)
	server.Stop()
	return 0
}

// checkout finds the root of the module above the working directory.
func checkout() (string, error) {
	dir, err := os.Getwd()
	for ; err == nil; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("no go.mod above the working directory")
		}
	}
	return "", err
}

func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
	t.Cleanup(cancel)
	return ctx
}

func binaries(t *testing.T) string {
	t.Helper()
	root, err := checkout()
	if err != nil {
		t.Fatal(err)
	}
	binDir, err := Find(root)
	if err != nil {
		t.Fatal(err)
	}
	return binDir
}

// newConfig describes a server on a data directory of the test's own.
func newConfig(t *testing.T) Config {
	t.Helper()
	return Config{BinDir: binaries(t), DataDir: filepath.Join(t.TempDir(), "data")}
}

func start(t *testing.T, c Config) *Server {
	t.Helper()
	server, err := Start(testContext(t), c)
	if err != nil {
		t.Fatalf("Start(%+v) = %v, want a server", c, err)
	}
	t.Cleanup(func() {
		if err := server.Stop(); err != nil {
			t.Errorf("Stop() at the end = %v, want nil", err)
		}
	})
	return server
}

func stop(t *testing.T, server *Server) {
	t.Helper()
	if err := server.Stop(); err != nil {
		t.Fatalf("Stop() = %v, want nil", err)
	}
}

func connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(testContext(t), url)
	if err != nil {
		t.Fatalf("connect: %v", err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
		defer cancel()
		conn.Close(ctx)
	})
	return conn
}

// write commits a row that read finds again.
func write(t *testing.T, server *Server) {
	t.Helper()
	conn := connect(t, server.URL("postgres"))
	if _, err := conn.Exec(testContext(t), "CREATE TABLE kept AS SELECT 42 AS value"); err != nil {
		t.Fatalf("write: %v", err)
	}
}

func read(t *testing.T, server *Server) {
	t.Helper()
	if got := setting(t, server, "SELECT value::text FROM kept"); got != "42" {
		t.Errorf("the row that was committed reads %q, want 42", got)
	}
}

func setting(t *testing.T, server *Server, query string) string {
	t.Helper()
	var value string
	conn := connect(t, server.URL("postgres"))
	if err := conn.QueryRow(testContext(t), query).Scan(&value); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return value
}

// saysInOneLine fails the test unless the error is a single line with the words in it.
func saysInOneLine(t *testing.T, err error, words ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want one that says %q", words)
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("the error has more than one line: %v", err)
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("the error is %q, want it to say %q", err, word)
		}
	}
}

// serverProcesses lists a server's process and its backends.
func serverProcesses(t *testing.T, pid int) []process {
	t.Helper()
	all, err := processes()
	if err != nil {
		t.Fatal(err)
	}
	var found []process
	for _, p := range all {
		if p.pid == pid || p.parent == pid {
			found = append(found, p)
		}
	}
	return found
}

func TestStartMakesADurableAndPrivateServer(t *testing.T) {
	t.Parallel()

	c := newConfig(t)
	var steps []string
	c.Progress = func(step string) { steps = append(steps, step) }
	c.Settings = map[string]string{"max_connections": "42", "listen_addresses": "*"}
	server := start(t, c)

	for query, want := range map[string]string{
		"SHOW fsync":                   "on",
		"SHOW synchronous_commit":      "on",
		"SHOW full_page_writes":        "on",
		"SHOW max_connections":         "42",
		"SHOW listen_addresses":        loopback,
		"SHOW unix_socket_directories": "",
		"SHOW server_encoding":         "UTF8",
		"SHOW lc_messages":             "C",
		"SELECT current_user::text":    superuser,
		"SELECT left(rolpassword, 13) FROM pg_authid WHERE rolname = 'postgres'": "SCRAM-SHA-256",
		"SELECT string_agg(DISTINCT auth_method, ' ') FROM pg_hba_file_rules":    "scram-sha-256",
	} {
		if got := setting(t, server, query); got != want {
			t.Errorf("%s = %q, want %q", query, got, want)
		}
	}
	if len(steps) != 2 || steps[0] != "creating the database cluster" ||
		!strings.HasPrefix(steps[1], "starting Postgres 1") {
		t.Errorf("the steps are %q, want the creation and the start", steps)
	}
	for _, name := range []string{
		passwordFile(c.DataDir), filepath.Join(filepath.Dir(c.DataDir), "postgres.log"),
	} {
		info, err := os.Stat(name)
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("Stat(%s) = %v, %v, want mode 0600", name, info, err)
		}
	}
}

func TestServerRefusesAWrongPassword(t *testing.T) {
	t.Parallel()

	server := start(t, newConfig(t))

	conn, err := pgx.Connect(testContext(t), databaseURL(server.config.Port, "guess", superuser))
	if err == nil {
		conn.Close(testContext(t))
		t.Fatal("the server accepted a wrong password")
	}
}

func TestWarmStartIsFastAndKeepsData(t *testing.T) {
	t.Parallel()

	c := newConfig(t)
	first := start(t, c)
	write(t, first)
	stop(t, first)

	began := time.Now()
	second := start(t, c)
	t.Logf("a warm start took %s", time.Since(began))

	read(t, second)
}

func TestStopIsIdempotentAndEndsEverything(t *testing.T) {
	t.Parallel()

	server := start(t, newConfig(t))
	// A session that doesn't leave must not hold up the shutdown.
	connect(t, server.URL("postgres"))
	running := serverProcesses(t, server.PID())
	stop(t, server)
	stop(t, server)

	select {
	case <-server.Done():
	default:
		t.Error("Done() is open after Stop")
	}
	if len(running) < 2 {
		t.Errorf("the server ran as %v, want a postmaster and backends", running)
	}
	for _, p := range running {
		if p.alive() {
			t.Errorf("process %+v is there after Stop", p)
		}
	}
}

func TestKillThenRestartKeepsCommittedRows(t *testing.T) {
	t.Parallel()

	server := start(t, newConfig(t))
	write(t, server)
	connect(t, server.URL("postgres"))
	url, pid, running := server.URL("postgres"), server.PID(), serverProcesses(t, server.PID())
	if err := server.Kill(); err != nil {
		t.Fatalf("Kill() = %v, want nil", err)
	}
	for _, p := range running {
		if p.alive() {
			t.Errorf("process %+v is there after Kill", p)
		}
	}
	if err := server.Kill(); err != nil {
		t.Errorf("Kill() of a killed server = %v, want nil", err)
	}
	if err := server.Restart(testContext(t)); err != nil {
		t.Fatalf("Restart() = %v, want nil", err)
	}

	read(t, server)
	if server.URL("postgres") != url {
		t.Errorf("URL() = %s after Restart, want %s", server.URL("postgres"), url)
	}
	if server.PID() == pid {
		t.Errorf("PID() = %d, as before Restart", pid)
	}
}

func TestRestartRefusesARunningServer(t *testing.T) {
	t.Parallel()

	server := start(t, newConfig(t))

	saysInOneLine(t, server.Restart(testContext(t)), "stop it first")
}

func TestRestartAfterTheServerCrashedByItself(t *testing.T) {
	t.Parallel()

	server := start(t, newConfig(t))
	write(t, server)
	postmaster, ok := lookup(server.PID())
	if !ok {
		t.Fatalf("lookup(%d) found no process", server.PID())
	}
	// Only the postmaster dies: its backends are there for a moment longer.
	if err := postmaster.signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	select {
	case <-server.Done():
	case <-testContext(t).Done():
		t.Fatal("Done() is open after the server's death")
	}
	if err := server.Restart(testContext(t)); err != nil {
		t.Fatalf("Restart() = %v, want nil", err)
	}

	read(t, server)
}

func TestStalePIDFileIsNoObstacle(t *testing.T) {
	t.Parallel()

	c := newConfig(t)
	server := start(t, c)
	write(t, server)
	stop(t, server)

	// A start must end neither process 1 nor this test, which isn't a postgres. No process has the
	// highest id.
	for name, content := range map[string]string{
		"of init":       "1\n",
		"of the test":   strconv.Itoa(os.Getpid()) + "\n",
		"of the dead":   "4194304\n/elsewhere\n1700000000\n5432\n\n127.0.0.1\n  1 2\nready   \n",
		"cut short":     "12",
		"of nonsense":   "no number\n",
		"without bytes": "",
	} {
		t.Run(name, func(t *testing.T) {
			name := filepath.Join(c.DataDir, "postmaster.pid")
			if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}

			read(t, start(t, c)) // It stops at the end of this row's test.
		})
	}
}

func TestOrphanOnTheDataDirectoryIsReplaced(t *testing.T) {
	t.Parallel()

	c := newConfig(t)
	first := start(t, c)
	write(t, first)
	stop(t, first)
	orphan := startOrphan(t, first)
	second := start(t, c)

	// It has ended already; its exit status may take a moment to arrive.
	if !orphan.WaitFor(testTimeout) {
		t.Errorf("the orphan %d runs beside the new server", orphan.PID())
	}
	read(t, second)
}

// startOrphan runs a server on the data directory of a stopped one. As with an orphan, nobody holds
// the lock.
func startOrphan(t *testing.T, stopped *Server) *Child {
	t.Helper()
	c := stopped.config
	attr, err := Unprivileged(c.DataDir)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(filepath.Join(c.BinDir, "postgres"), c.arguments(c.Port)...)
	cmd.Env, cmd.Dir, cmd.SysProcAttr = childEnvironment, childDir, attr
	child, err := Spawn(cmd, syscall.SIGKILL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { end(child) })
	if err := stopped.awaitAnswer(testContext(t), child, c.Port); err != nil {
		t.Fatal(err)
	}
	return child
}

func TestDataDirectoryInUseIsLeftAlone(t *testing.T) {
	t.Parallel()

	c := newConfig(t)
	server := start(t, c)
	_, err := Start(testContext(t), c)

	saysInOneLine(t, err, "is in use by process "+strconv.Itoa(os.Getpid()))
	setting(t, server, "SELECT 'alive'")
	if !InUse(c.DataDir) {
		t.Error("InUse() = false beside a running server, want true")
	}
	stop(t, server)
	if InUse(c.DataDir) {
		t.Error("InUse() = true after Stop, want false")
	}
}

func TestKilledParentLeavesNoServer(t *testing.T) {
	t.Parallel()

	if runtime.GOOS != "linux" {
		t.Skip(
			"only Linux can tell a child of its parent's death; elsewhere the next Start ends the orphan",
		)
	}
	dataDir := filepath.Join(t.TempDir(), "data")
	parent := exec.CommandContext(testContext(t), os.Args[0], "-parent-of="+dataDir)
	stdin, err := parent.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	stdout, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatalf("the parent printed %q: %v", line, err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatalf("the parent started no server: %s", line)
	}
	running := serverProcesses(t, pid)
	if err := parent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	parent.Wait() // fails, as it was killed

	if len(running) < 2 {
		t.Errorf("the server ran as %v, want a postmaster and backends", running)
	}
	for _, p := range running {
		if !p.awaitEnd(testTimeout) {
			t.Errorf("process %+v outlived its parent", p)
		}
	}
	// An ordered shutdown removes the pid file; a crash would have left it.
	if _, err := os.Stat(filepath.Join(dataDir, "postmaster.pid")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the pid file is there after the shutdown: %v", err)
	}
}

func TestRootRunsAServerBelowADirectoryOfMode0700(t *testing.T) {
	t.Parallel()

	if os.Geteuid() != 0 {
		t.Skip("not root: a server of our own user enters the directories we enter")
	}
	closed := t.TempDir()
	if err := os.Chmod(closed, 0o700); err != nil {
		t.Fatal(err)
	}
	c := Config{BinDir: binaries(t), DataDir: filepath.Join(closed, "checkout", ".local", "data")}
	if strings.Contains(c.BinDir, "node_modules") { // Others know where they were installed.
		native := filepath.Join(closed, "native")
		if err := os.CopyFS(native, os.DirFS(filepath.Dir(c.BinDir))); err != nil {
			t.Fatal(err)
		}
		c.BinDir = filepath.Join(native, "bin")
	}
	first := start(t, c)
	write(t, first)
	stop(t, first)
	second := start(t, c)

	read(t, second)
	info, err := os.Stat(fmt.Sprintf("/proc/%d", second.PID()))
	if err != nil {
		t.Skipf("no /proc on %s: %v", runtime.GOOS, err)
	}
	if owner := info.Sys().(*syscall.Stat_t); owner.Uid == 0 {
		t.Error("the server runs as root")
	}
}

func TestUnprivilegedKeepsToTheOwnerOfTheData(t *testing.T) {
	t.Parallel()

	if os.Geteuid() != 0 {
		attr, err := Unprivileged(t.TempDir())
		if err != nil || attr.Credential != nil {
			t.Errorf("Unprivileged() = %+v, %v, want no change of user", attr, err)
		}
		return
	}
	dir, other := t.TempDir(), t.TempDir()
	const owner = 12345
	if err := os.Chown(dir, owner, owner); err != nil {
		t.Fatal(err)
	}
	attr, err := Unprivileged(dir, other)
	if err != nil || attr.Credential == nil || attr.Credential.Uid != owner {
		t.Fatalf("Unprivileged() = %+v, %v, want user %d", attr, err, owner)
	}

	info, err := os.Stat(other)
	if err != nil || info.Sys().(*syscall.Stat_t).Uid != owner {
		t.Errorf("Stat(%s) = %+v, %v, want it to belong to user %d", other, info, err, owner)
	}
}

func TestRootLeavesEverythingToTheOwnerOfTheCheckout(t *testing.T) {
	t.Parallel()

	if os.Geteuid() != 0 {
		t.Skip("not root: all files are ours anyway")
	}
	checkout, owner := t.TempDir(), lookupNobody(t)
	if err := os.Chown(checkout, owner, owner); err != nil {
		t.Fatal(err)
	}
	start(
		t,
		Config{BinDir: binaries(t), DataDir: filepath.Join(checkout, ".local", "postgres", "data")},
	)

	err := filepath.WalkDir(checkout, func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err == nil && int(info.Sys().(*syscall.Stat_t).Uid) != owner {
			t.Errorf("%s doesn't belong to user %d", name, owner)
		}
		if name == filepath.Join(checkout, ".local", "postgres", "data") {
			return fs.SkipDir // The running server's files come and go.
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// lookupNobody returns a user id that every machine knows.
func lookupNobody(t *testing.T) int {
	t.Helper()
	nobody, err := user.Lookup("nobody")
	if err != nil {
		t.Fatal(err)
	}
	uid, err := strconv.Atoi(nobody.Uid)
	if err != nil {
		t.Fatal(err)
	}
	return uid
}

func TestRootServesACheckoutWhoseOwnerHasNoName(t *testing.T) {
	t.Parallel()

	if os.Geteuid() != 0 {
		t.Skip("not root: the server runs as we do")
	}
	checkout := t.TempDir()
	const stranger = 12345
	if err := os.Chown(checkout, stranger, stranger); err != nil {
		t.Fatal(err)
	}

	setting(
		t,
		start(t, Config{BinDir: binaries(t), DataDir: filepath.Join(checkout, "data")}),
		"SELECT 'alive'",
	)
}

func TestTakenPortIsNamed(t *testing.T) {
	t.Parallel()

	listener, err := net.Listen("tcp", loopback+":0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	c := newConfig(t)
	c.Port = listener.Addr().(*net.TCPAddr).Port
	_, err = Start(testContext(t), c)

	saysInOneLine(t, err, fmt.Sprintf("%s:%d: the port is taken", loopback, c.Port))
}

func TestFailedStartShowsTheServersLastWords(t *testing.T) {
	t.Parallel()

	c := newConfig(t)
	c.Settings = map[string]string{"shared_buffers": "plenty"}
	_, err := Start(testContext(t), c)

	saysInOneLine(
		t,
		err,
		"ended while starting",
		`FATAL:  invalid value for parameter "shared_buffers": "plenty"`,
	)
	// The data directory is free again: the next start must not meet a lock.
	c.Settings = nil
	start(t, c)
}

func TestStartGivesUpWithItsContext(t *testing.T) {
	t.Parallel()

	c := newConfig(t)
	ctx, cancel := context.WithCancel(testContext(t))
	cancel()
	if _, err := Start(ctx, c); !errors.Is(err, context.Canceled) {
		t.Errorf("Start() = %v, want %v", err, context.Canceled)
	}

	start(t, c) // The unfinished start is no obstacle.
}

func TestStartLeavesForeignFilesAlone(t *testing.T) {
	t.Parallel()

	c := newConfig(t)
	if err := os.Mkdir(c.DataDir, 0o700); err != nil {
		t.Fatal(err)
	}
	letter := filepath.Join(c.DataDir, "letter.txt")
	if err := os.WriteFile(letter, []byte("dear"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Start(testContext(t), c)

	saysInOneLine(t, err, "no Postgres cluster")
	if _, err := os.Stat(letter); err != nil {
		t.Error(err)
	}
}

func TestLostPasswordIsNamed(t *testing.T) {
	t.Parallel()

	c := newConfig(t)
	stop(t, start(t, c))
	if err := os.Remove(passwordFile(c.DataDir)); err != nil {
		t.Fatal(err)
	}
	_, err := Start(testContext(t), c)

	saysInOneLine(
		t,
		err,
		passwordFile(c.DataDir)+", the database's password, is gone",
		"remove "+c.DataDir,
	)
}

func TestRunningURLReachesTheServerOnly(t *testing.T) {
	t.Parallel()

	c := newConfig(t)
	if url, ok := RunningURL(c.DataDir, "postgres"); ok {
		t.Errorf("RunningURL() = %s before there is a server", url)
	}
	server := start(t, c)
	url, ok := RunningURL(c.DataDir, "postgres")
	if !ok || url != server.URL("postgres") {
		t.Errorf("RunningURL() = %s, %t, want %s", url, ok, server.URL("postgres"))
	}
	connect(t, url)
	if err := server.Kill(); err != nil {
		t.Fatal(err)
	}

	// The killed server has left its pid file.
	if url, ok := RunningURL(c.DataDir, "postgres"); ok {
		t.Errorf("RunningURL() = %s after the server's death", url)
	}
}

func TestADraftIsRemovedWhileAProcessWritesToIt(t *testing.T) {
	t.Parallel()

	draft := filepath.Join(t.TempDir(), "data.new")
	if err := os.Mkdir(draft, 0o700); err != nil {
		t.Fatal(err)
	}
	// A killed initdb leaves a child behind, which writes files for a moment longer.
	const files = 2000
	wrote := make(chan struct{})
	go func() {
		defer close(wrote)
		for i := range files {
			dir := filepath.Join(draft, strconv.Itoa(i))
			if os.Mkdir(dir, 0o700) == nil {
				_ = os.WriteFile(filepath.Join(dir, "file"), nil, 0o600)
			}
		}
	}()
	if err := removeDraft(t.Context(), draft); err != nil {
		t.Errorf("removeDraft() = %v, want none", err)
	}
	<-wrote
	if _, err := os.Stat(draft); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the draft is still there: %v", err)
	}
}
