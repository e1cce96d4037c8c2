package pgserver

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// superuser is the role that initdb makes. Everyone connects as this role.
const superuser = "postgres"

// initdbTimeout bounds initdb, which takes half a second on a laptop and many
// times that on a busy build machine with a slow disk.
const initdbTimeout = 60 * time.Second

// passwordFile returns the file with the superuser's password. It lies beside the data directory,
// because initdb wants an empty directory.
func passwordFile(dataDir string) string { return dataDir + ".password" }

func readPassword(dataDir string) (string, error) {
	password, err := os.ReadFile(passwordFile(dataDir))
	if errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("%s, the database's password, is gone: remove %s to start afresh",
			passwordFile(dataDir), dataDir)
	}
	if err != nil {
		return "", fmt.Errorf("read the database password: %w", err)
	}
	return strings.TrimSpace(string(password)), nil
}

// ensureCluster makes the data directory unless it holds a cluster of this version already.
func (c Config) ensureCluster(ctx context.Context, a account) error {
	entries, err := os.ReadDir(c.DataDir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read the data directory (as %s): %w", a.name, err)
	}
	if len(entries) == 0 {
		return c.createCluster(ctx, a)
	}
	data, err := os.ReadFile(filepath.Join(c.DataDir, "PG_VERSION"))
	if err != nil {
		return fmt.Errorf("%s holds files but no Postgres cluster: "+
			"remove it or choose another data directory", c.DataDir)
	}
	return c.checkVersion(ctx, strings.TrimSpace(string(data)))
}

// VersionError means that the data directory belongs to another major version of Postgres, which
// this version's server can't read.
type VersionError struct {
	DataDir string
	// Data and Server are the two major versions, such as "16" and "17".
	Data, Server string
}

func (e *VersionError) Error() string {
	return fmt.Sprintf("%s holds data of Postgres %s, which Postgres %s can't read",
		e.DataDir, e.Data, e.Server)
}

func (c Config) checkVersion(ctx context.Context, data string) error {
	number := strings.TrimPrefix(c.version(ctx), "Postgres ") // such as 17.10, or 18beta1
	server := number
	if end := strings.IndexFunc(number, func(r rune) bool { return r < '0' || r > '9' }); end >= 0 {
		server = number[:end]
	}
	// Without a number the server itself finds out.
	if server != "" && server != data {
		return &VersionError{DataDir: c.DataDir, Data: data, Server: server}
	}
	return nil
}

// createCluster runs initdb beside the data directory and moves the complete result there. So an
// interrupted initdb leaves nothing that a later start would take for a cluster.
func (c Config) createCluster(ctx context.Context, a account) error {
	c.Progress("creating the database cluster")
	draft := c.DataDir + ".new"
	if err := removeDraft(ctx, draft); err != nil {
		return err
	}
	if err := os.Mkdir(draft, 0o700); err != nil {
		return fmt.Errorf("create the data directory: %w", err)
	}
	if err := os.WriteFile(passwordFile(c.DataDir), []byte(rand.Text()+"\n"), 0o600); err != nil {
		return fmt.Errorf("keep the database password: %w", err)
	}
	// initdb reads the password as the user it runs as.
	if err := a.own(draft, passwordFile(c.DataDir)); err != nil {
		return err
	}
	attr, err := a.attributes(filepath.Join(c.BinDir, "initdb"), draft)
	if err != nil {
		return err
	}
	if err := c.initdb(ctx, draft, attr); err != nil {
		return errors.Join(err, os.RemoveAll(draft))
	}
	if err := os.Rename(draft, c.DataDir); err != nil {
		return fmt.Errorf("put the data directory in place: %w", err)
	}
	return nil
}

// draftTimeout bounds the wait for the children of a killed initdb. They write until they find
// their input closed.
const draftTimeout = 10 * time.Second

// removeDraft removes an unfinished data directory, even while a process still writes into it.
func removeDraft(ctx context.Context, draft string) error {
	ctx, cancel := context.WithTimeout(ctx, draftTimeout)
	defer cancel()
	for {
		err := os.RemoveAll(draft)
		if err == nil {
			return nil
		}
		select {
		case <-time.After(endPollInterval):
		case <-ctx.Done():
			return fmt.Errorf("remove an unfinished data directory: %w", err)
		}
	}
}

// initdb makes a cluster in dir, with the password that is kept already.
func (c Config) initdb(ctx context.Context, dir string, attr *syscall.SysProcAttr) error {
	ctx, cancel := context.WithTimeout(ctx, initdbTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(c.BinDir, "initdb"),
		"--pgdata="+dir,
		"--username="+superuser,
		"--pwfile="+passwordFile(c.DataDir),
		"--auth=scram-sha-256",
		"--encoding=UTF8",
		"--locale=C", // The one locale every system has; it sorts by code point.
		"--no-instructions",
	)
	cmd.Env, cmd.Dir, cmd.SysProcAttr = childEnvironment, childDir, attr
	// initdb starts servers, which share its process group.
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = killTimeout // to read its output after it was killed
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	child, err := Spawn(cmd, syscall.SIGKILL)
	if err != nil {
		return fmt.Errorf("start initdb: %w", err)
	}
	<-child.Done() // The context's end kills it.
	if child.err != nil {
		return fmt.Errorf("create the database cluster: initdb ended with %w: %s",
			child.err, oneLine(output.String()))
	}
	return nil
}
