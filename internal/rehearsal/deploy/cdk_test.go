package deploy

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// commandLine runs the CDK's command line in a copy of the checkout, because the steps change
// files.
type commandLine struct {
	program string
	tree    string
	output  string // the cloud assembly
	env     []string
	said    bytes.Buffer // the output of all calls
}

// parts returns the files and folders of the checkout that the CDK app reads.
func parts() []string {
	return []string{
		"go.mod",
		"go.sum",
		"Makefile",
		"cdk.json",
		"functions",
		"infra",
		"internal",
		"migrations",
	}
}

func newCommandLine(t *testing.T, d *double) *commandLine {
	t.Helper()
	program, err := filepath.Abs(filepath.Join(root, "infra", "node_modules", ".bin", "cdk"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(program); err != nil {
		t.Fatalf("the CDK's command line isn't installed: run npm ci --prefix infra: %v", err)
	}
	dir := t.TempDir()
	c := &commandLine{
		program: program,
		tree:    filepath.Join(dir, "tree"),
		output:  filepath.Join(dir, "cdk.out"),
	}
	none := filepath.Join(dir, "none") // ignores this machine's AWS configuration
	c.env = slices.Concat(elsewhere(), d.variables(), []string{
		"CI=1", "NO_COLOR=1", "NODE_NO_WARNINGS=1", "CDK_HOME=" + filepath.Join(dir, "home"),
		"AWS_CONFIG_FILE=" + none, "AWS_SHARED_CREDENTIALS_FILE=" + none,
		"AWS_EC2_METADATA_DISABLED=true",
	})
	for _, part := range parts() {
		if err := copyTree(filepath.Join(root, part), filepath.Join(c.tree, part)); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

// copyTree copies a file or a folder, without node_modules.
func copyTree(from, to string) error {
	return filepath.WalkDir(from, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.Name() == "node_modules" {
			if entry.IsDir() {
				return filepath.SkipDir
			}
			return nil // a link
		}
		relative, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, relative)
		if entry.IsDir() {
			return os.MkdirAll(target, 0o750)
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if err := os.MkdirAll(filepath.Dir(target), 0o750); err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		return os.WriteFile(target, content, info.Mode().Perm())
	})
}

// settings returns the CDK's context: an external database, the strictest authentication, and
// this machine's architecture, because the functions run here.
func settings() []string {
	arch := map[string]string{"amd64": "x86_64", "arm64": "arm64"}[runtime.GOARCH]
	var args []string
	for _, setting := range []string{
		"env=dev", "db=external", "databaseUrlSecret=" + secret, "arch=" + arch,
		"auth=jwt", "jwtIssuer=https://issuer.example", "jwtAudience=shop",
		"corsOrigins=https://shop.example", "alarmEmail=operator@shop.example",
		"bus=on", "queues=crm", `webhooks=[{"name": "erp", "url": "https://erp.example/hook", ` +
			`"types": ["allo.stock.moved"], "secret": "rehearsal/webhook"}]`,
	} {
		args = append(args, "--context", setting)
	}
	return args
}

// run runs the command line in a folder and returns its output.
func (c *commandLine) run(t *testing.T, dir string, args ...string) (said string, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), cdkLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, c.program, append(args, "--output", c.output)...)
	cmd.Dir, cmd.Env, cmd.WaitDelay = dir, c.env, time.Second
	out, err := cmd.CombinedOutput()
	c.said.Write(out)
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	if err != nil {
		err = fmt.Errorf("%w; its output ends: %s", err, out[max(0, len(out)-maxLog):])
	}
	return string(out), err
}

// deploy synthesizes and deploys the copy of the checkout.
func (c *commandLine) deploy(t *testing.T) (said string, err error) {
	t.Helper()
	return c.run(
		t,
		c.tree,
		append([]string{"deploy", stack, "--require-approval", "never"}, settings()...)...)
}

// redeploy deploys the assembly of the last deploy again.
func (c *commandLine) redeploy(t *testing.T) (said string, err error) {
	t.Helper()
	return c.run(t, c.tree, "deploy", stack, "--require-approval", "never", "--app", c.output)
}

// change replaces text in a file of the copy, and returns a function that restores the file.
func (c *commandLine) change(t *testing.T, file, old, replacement string) (restore func()) {
	t.Helper()
	path := filepath.Join(c.tree, file)
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	after := strings.Replace(string(before), old, replacement, 1)
	if after == string(before) {
		t.Fatalf("%s has no %q", file, old)
	}
	write := func(content string) {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(after)
	return func() { write(string(before)) }
}

func (r *rehearsal) bootstrapStep(t *testing.T) {
	// Bootstrapping needs no app, so it runs in an empty folder.
	if _, err := r.cli.run(t, t.TempDir(), "bootstrap", "aws://"+account+"/"+region); err != nil {
		t.Fatalf("cdk bootstrap: %v", err)
	}
}

// elsewhereStep runs the commands that change an account with settings that name another account or
// another region than the shell's. The app refuses each before anything is built or called.
func (r *rehearsal) elsewhereStep(t *testing.T) {
	for _, command := range []string{"bootstrap", "deploy", "destroy"} {
		for setting, want := range map[string]string{
			"account=999999999999": "the shell's credentials are of the account " + account,
			"region=ap-south-2":    "the shell's region is " + region,
		} {
			args := append([]string{command, "--context", setting}, settings()...)
			if command == "destroy" {
				args = append(args, "--force")
			}
			said, err := r.cli.run(t, r.cli.tree, args...)
			if err == nil || !strings.Contains(said, want) {
				t.Errorf("cdk %s with %s = %v, want %q", command, setting, err, want)
			}
		}
	}
}
