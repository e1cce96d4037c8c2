package faults

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/allo/reservations/internal/pgtest"

	"github.com/allo/reservations/internal/local/builttest"
)

// wallClockSource is the line of Go's package time that reads the wall clock. A build with an
// overlay adds offsetSource to it. The linker sets the offset, so that all programs share the
// compiled packages.
const (
	wallClockSource = "sec += unixToInternal - minWall"
	offsetSource    = `
var clockOffsetText string

var clockOffset = func() int64 {
	seconds, _ := atoi(clockOffsetText)
	return int64(seconds)
}()
`
)

// buildWithClockOffset builds the local program with a clock that is wrong by so many seconds.
// Nothing else differs.
func buildWithClockOffset(t *testing.T, seconds int) string {
	t.Helper()
	goroot, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	source := filepath.Join(strings.TrimSpace(string(goroot)), "src", "time", "time.go")
	text, err := os.ReadFile(source)
	if err != nil {
		t.Fatal(err)
	}
	replaced := strings.Replace(string(text), wallClockSource, wallClockSource+" + clockOffset", 1)
	if replaced == string(text) {
		t.Fatalf("%s has no %q: this Go reads the clock elsewhere", source, wallClockSource)
	}
	dir := t.TempDir()
	replacement := filepath.Join(dir, "time.go")
	overlay := filepath.Join(dir, "overlay.json")
	program := filepath.Join(dir, "local")
	if err := os.WriteFile(replacement, []byte(replaced+offsetSource), 0o600); err != nil {
		t.Fatal(err)
	}
	rules, err := json.Marshal(map[string]map[string]string{"Replace": {source: replacement}})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(overlay, rules, 0o600); err != nil {
		t.Fatal(err)
	}
	build := exec.Command("go", "build", "-overlay", overlay, "-o", program,
		"-ldflags", fmt.Sprintf("-X time.clockOffsetText=%d", seconds), "./internal/cmd/local")
	build.Dir = builttest.Root(t)
	if output, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, output)
	}
	return program
}

// startProgram runs a program on the database until the test ends, and returns its URL.
func startProgram(t *testing.T, program, databaseURL string) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := listener.Addr().(*net.TCPAddr).Port
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "run", "-with-parent", "-still")
	cmd.Dir = builttest.Root(t)
	cmd.Env = append(os.Environ(), "DATABASE_URL="+databaseURL, "PORT="+strconv.Itoa(port),
		"SWEEP_INTERVAL=1s", "LOG_LEVEL=error")
	cmd.Stdout, cmd.Stderr = t.Output(), t.Output()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	})
	url := "http://127.0.0.1:" + strconv.Itoa(port)
	s := newClient(url, 1)
	for ctx := withTimeout(t, testLimit); ; {
		if s.send(ctx, http.MethodGet, "/api/health", "", nil).ok() {
			return url
		}
		if ctx.Err() != nil {
			t.Fatal("the program did not start")
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// TestExpiryIgnoresTheServicesClock runs the program with a clock a day fast and a day slow, on a
// database whose clock is right. Its histories are checked against the right clock, to the
// microsecond.
func TestExpiryIgnoresTheServicesClock(t *testing.T) {
	offsets := map[string]int{"a day fast": 86_400, "a day slow": -86_400, "right": 0}
	for name, seconds := range offsets {
		t.Run(name, func(t *testing.T) {
			db := pgtest.New(t)
			d := attach(t, db, startProgram(t, buildWithClockOffset(t, seconds), db.URL))
			s := newClient(d.url, 1)
			row := d.addProduct(1, 10)[0]
			r := s.reserve(t.Context(), "", 60, item{row.Product, row.Warehouse, 1})
			if r.Status != http.StatusCreated {
				t.Fatalf("a reserve was answered %d %s %v", r.Status, r.Body, r.Err)
			}
			// The id shows the program's clock, and so that it is the wrong one.
			if at := idTime(r.Reservation.ID); (time.Until(at) > time.Hour) != (seconds > 0) ||
				(time.Since(at) > time.Hour) != (seconds < 0) {
				t.Fatalf("the program's clock reads %s, want an offset of %d seconds", at, seconds)
			}
			v := recordHistory(d, uint64(seconds), historyTime).check(t, true)
			if !v.clean() {
				t.Error(v)
			}
			d.audit()
			t.Log(v)
		})
	}
}

// idTime returns when a UUIDv7 was made.
func idTime(id uuid.UUID) time.Time {
	sec, nsec := id.Time().UnixTime()
	return time.Unix(sec, nsec)
}

// TestAnswersIgnoreTheSessionsTimeZone reads one hold through sessions in three time zones.
func TestAnswersIgnoreTheSessionsTimeZone(t *testing.T) {
	d := newDeployment(t)
	s, row := newClient(d.url, 1), d.addProduct(1, 10)[0]
	zone := func(name string) {
		d.db.Exec(`DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET TimeZone = ` + "''" + name +
			"''" + `', current_database()); END $$`)
		d.db.EndSessions()
	}
	zone("Asia/Kolkata")
	before := time.Now()
	made := reserveUntilCreated(t, s, row, "zones").Reservation
	if made == nil || made.CreatedAt.Sub(before) > answerLimit ||
		made.CreatedAt.Before(before.Add(-time.Second)) {
		t.Fatalf("made %+v at %s", made, before)
	}
	for _, name := range []string{"America/St_Johns", "Pacific/Kiritimati", "UTC"} {
		zone(name)
		var r reply
		for ctx := withTimeout(t, testLimit); !r.ok(); {
			if r = s.get(ctx, made.ID); ctx.Err() != nil {
				t.Fatalf("%d %s %v", r.Status, r.Body, r.Err)
			}
		}
		if got := *r.Reservation; !got.CreatedAt.Equal(made.CreatedAt) ||
			!got.ExpiresAt.Equal(made.ExpiresAt) || got.Status != "PENDING" {
			t.Errorf("in %s the hold is %+v, want %+v", name, got, *made)
		}
		if !strings.Contains(string(r.Body), made.ExpiresAt.UTC().Format(time.RFC3339Nano)) {
			t.Errorf("in %s the answer is %s, want its times in UTC", name, r.Body)
		}
	}
}
