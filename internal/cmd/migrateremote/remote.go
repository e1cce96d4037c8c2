package main

import (
	"archive/zip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// remote is the stack's migrate function.
type remote struct {
	name string
	// command runs a program and returns its output.
	command func(ctx context.Context, stderr io.Writer, name string, args ...string) ([]byte, error)
	stderr  io.Writer
}

// command runs a program. AWS's own messages reach the operator on stderr.
func command(
	ctx context.Context, stderr io.Writer, name string, args ...string,
) ([]byte, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stderr = stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", name, strings.Join(args[:min(2, len(args))], " "), err)
	}
	return out, nil
}

func (r remote) aws(ctx context.Context, args ...string) ([]byte, error) {
	return r.command(ctx, r.stderr, "aws", args...)
}

// update builds the function for its architecture and puts it into the stack.
func (r remote) update(ctx context.Context) error {
	out, err := r.aws(ctx, "lambda", "get-function-configuration", "--function-name", r.name,
		"--query", "Architectures[0]", "--output", "text")
	if err != nil {
		return fmt.Errorf("look for the function of the stack: %w", err)
	}
	names := map[string]string{"arm64": "arm64", "x86_64": "amd64"} // Go's names for Lambda's
	arch, known := names[strings.TrimSpace(string(out))]
	if !known {
		return fmt.Errorf("%s has the architecture %.20q, want arm64 or x86_64", r.name, out)
	}
	dir, err := os.MkdirTemp("", "migrate-remote-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	_, err = r.command(ctx, r.stderr, "make", "--no-print-directory", "build-for",
		"FUNCTIONS=migrate", "GOOS=linux", "ARCH="+arch, "OUT="+dir)
	if err != nil {
		return fmt.Errorf("build the migrate function: %w", err)
	}
	archive := filepath.Join(dir, "migrate.zip")
	if err := zipProgram(archive, filepath.Join(dir, "migrate", "bootstrap")); err != nil {
		return fmt.Errorf("pack the migrate function: %w", err)
	}
	_, err = r.aws(ctx, "lambda", "update-function-code", "--function-name", r.name,
		"--zip-file", "fileb://"+archive, "--query", "CodeSha256", "--output", "text")
	if err == nil {
		_, err = r.aws(ctx, "lambda", "wait", "function-updated-v2", "--function-name", r.name)
	}
	if err != nil {
		return fmt.Errorf("put the migrate function into the stack: %w", err)
	}
	return nil
}

// zipProgram makes an archive with one executable, bootstrap.
func zipProgram(archive, program string) (err error) {
	out, err := os.Create(archive)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	in, err := os.Open(program)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	w := zip.NewWriter(out)
	header := &zip.FileHeader{Name: "bootstrap", Method: zip.Deflate}
	header.SetMode(0o755)
	entry, err := w.CreateHeader(header)
	if err != nil {
		return err
	}
	if _, err := io.Copy(entry, in); err != nil {
		return err
	}
	return w.Close()
}

// invoke invokes the function. An invocation of a file with a transaction may take fifteen minutes.
// After a cut connection the command line tries again, which does no harm.
func (r remote) invoke(ctx context.Context, payload []byte) ([]byte, error) {
	file, err := os.CreateTemp("", "migrate-remote-*.json")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.Remove(file.Name()) }()
	if err := file.Close(); err != nil {
		return nil, err
	}
	failed, err := r.aws(ctx, "lambda", "invoke", "--function-name", r.name,
		"--payload", string(payload), "--cli-binary-format", "raw-in-base64-out",
		"--cli-read-timeout", "960", "--query", "FunctionError", "--output", "text", file.Name())
	if err != nil {
		return nil, fmt.Errorf("invoke the migrate function: %w", err)
	}
	answer, err := os.ReadFile(file.Name())
	if err != nil {
		return nil, err
	}
	// The command line prints None for a function that didn't fail.
	if kind := strings.TrimSpace(string(failed)); kind != "None" && kind != "" {
		var failure struct {
			Message string `json:"errorMessage"`
		}
		if json.Unmarshal(answer, &failure) != nil || failure.Message == "" {
			failure.Message = fmt.Sprintf("%.500s", answer)
		}
		return nil, fmt.Errorf("the migrate function failed: %s", failure.Message)
	}
	return answer, nil
}
