package main

import (
	"archive/zip"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/allo/reservations/internal/app/migration"
	"github.com/allo/reservations/internal/pgtest"
	"github.com/allo/reservations/internal/postgres"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// The function is the real one, in a stack whose deploys don't migrate.
func TestFollowMigratesADatabaseThatADeployDoesntTouch(t *testing.T) {
	t.Parallel()

	source := postgres.URL(pgtest.NewEmpty(t).DirectURL)
	function := migration.Handler(source, migration.Settings{ByHand: true},
		slog.New(slog.DiscardHandler))
	var out bytes.Buffer
	for _, want := range []string{"applied 0001_schema.sql, ", "deploy it now\n"} {
		if err := follow(t.Context(), function.Invoke, &out); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(out.String(), want) {
			t.Errorf("the output is %q, want %q in it", out.String(), want)
		}
		out.Reset()
	}
}

func TestFollowGoesOnUntilNothingIsLeft(t *testing.T) {
	t.Parallel()

	answers := []string{
		`{"applied": ["0001_a.sql"], "unfinished": "0002_b.sql isn't applied yet"}`,
		`{"applied": [], "unfinished": "0002_b.sql isn't applied yet"}`,
		`{"applied": ["0002_b.sql"]}`,
	}
	calls := 0
	invoke := func(_ context.Context, payload []byte) ([]byte, error) {
		if string(payload) != `{"apply":true,"seconds":50}` {
			t.Errorf("the payload is %s", payload)
		}
		calls++
		return []byte(answers[calls-1]), nil
	}
	var out bytes.Buffer
	if err := follow(t.Context(), invoke, &out); err != nil || calls != len(answers) {
		t.Errorf("follow() = %v after %d calls, want %d", err, calls, len(answers))
	}
	if !strings.Contains(out.String(), "applied 0002_b.sql") ||
		strings.Count(out.String(), "isn't applied yet") != 2 {
		t.Errorf("the output is %q, want each answer in it", out.String())
	}
}

func TestFollowEndsWithTheFunctionsErrorAndWithItsTime(t *testing.T) {
	t.Parallel()

	failed := errors.New("the column is missing")
	err := follow(t.Context(), func(context.Context, []byte) ([]byte, error) { return nil, failed },
		io.Discard)
	if !errors.Is(err, failed) {
		t.Errorf("follow() of a function that fails = %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	err = follow(ctx, func(context.Context, []byte) ([]byte, error) {
		cancel()
		return []byte(`{"unfinished": "a.sql"}`), nil
	}, io.Discard)
	if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "start this again") {
		t.Errorf("follow() after its time = %v", err)
	}
	for _, answer := range []string{"", "no JSON"} {
		if follow(t.Context(), func(context.Context, []byte) ([]byte, error) {
			return []byte(answer), nil
		}, io.Discard) == nil {
			t.Errorf("follow() takes the answer %q", answer)
		}
	}
}

// fakeCommands stands for make and for AWS's command line.
type fakeCommands struct {
	t      *testing.T
	arch   string
	failed string // what the command line says of the function's failure
	answer string
	ran    []string
	zipped []string // the files of the uploaded archive, with their modes
}

func (f *fakeCommands) run(
	_ context.Context, _ io.Writer, name string, args ...string,
) ([]byte, error) {
	f.t.Helper()
	f.ran = append(f.ran, name+" "+args[1])
	last := args[len(args)-1]
	switch {
	case name == "make":
		dir := filepath.Join(strings.TrimPrefix(last, "OUT="), "migrate")
		if !slices.Contains(args, "ARCH=arm64") || !slices.Contains(args, "FUNCTIONS=migrate") {
			f.t.Errorf("make builds %v", args)
		}
		return nil, errors.Join(os.MkdirAll(dir, 0o755),
			os.WriteFile(filepath.Join(dir, "bootstrap"), []byte("program"), 0o755))
	case args[1] == "get-function-configuration":
		return []byte(f.arch + "\n"), nil
	case args[1] == "update-function-code":
		at := slices.Index(args, "--zip-file")
		f.zipped = contents(f.t, strings.TrimPrefix(args[at+1], "fileb://"))
	case args[1] == "invoke":
		return []byte(f.failed + "\n"), os.WriteFile(last, []byte(f.answer), 0o600)
	}
	return nil, nil
}

func contents(t *testing.T, archive string) (files []string) {
	t.Helper()
	r, err := zip.OpenReader(archive)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for _, file := range r.File {
		files = append(files, fmt.Sprintf("%s %s %d", file.Mode(), file.Name,
			file.UncompressedSize64))
	}
	return files
}

func TestTheFunctionIsBuiltForItsArchitectureAndUpdatedBeforeItIsInvoked(t *testing.T) {
	t.Parallel()

	fake := &fakeCommands{t: t, arch: "arm64", failed: "None", answer: `{"applied": []}`}
	f := remote{name: "allo-prod-migrate", command: fake.run, stderr: io.Discard}
	if err := f.update(t.Context()); err != nil {
		t.Fatal(err)
	}
	if answer, err := f.invoke(t.Context(), []byte(`{}`)); err != nil ||
		string(answer) != fake.answer {
		t.Errorf("invoke() = %s, %v", answer, err)
	}
	want := []string{
		"aws get-function-configuration", "make build-for", "aws update-function-code", "aws wait",
		"aws invoke",
	}
	if !slices.Equal(fake.ran, want) {
		t.Errorf("the commands are %q, want %q", fake.ran, want)
	}
	if !slices.Equal(fake.zipped, []string{"-rwxr-xr-x bootstrap 7"}) {
		t.Errorf("the archive has %q", fake.zipped)
	}
	fake.failed, fake.answer = "Unhandled", `{"errorMessage": "the column is missing"}`
	if _, err := f.invoke(t.Context(), nil); err == nil ||
		!strings.Contains(err.Error(), "the column is missing") {
		t.Errorf("invoke() of a function that fails = %v", err)
	}
	fake.arch = "riscv"
	if err := f.update(t.Context()); err == nil {
		t.Error("update() builds for an architecture that it doesn't know")
	}
}

func TestTheCommandLineNamesTheStackAlone(t *testing.T) {
	t.Parallel()

	for _, args := range [][]string{nil, {"allo-prod"}, {"-stack", "allo-prod", "x"}, {"-wait"}} {
		if run(t.Context(), args, io.Discard, io.Discard) == nil {
			t.Errorf("run(%q) = nil", args)
		}
	}
}

func TestACommandThatFailsNamesItself(t *testing.T) {
	t.Parallel()

	out, err := command(t.Context(), io.Discard, "echo", "a", "b")
	if err != nil || string(out) != "a b\n" {
		t.Errorf("command(echo) = %q, %v", out, err)
	}
	if _, err := command(t.Context(), io.Discard, "false", "a", "b", "c"); err == nil ||
		!strings.Contains(err.Error(), "false a b: exit status 1") {
		t.Errorf("command(false) = %v", err)
	}
}
