package pgserver

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
)

// Unprivileged returns the attributes under which to start a program that
// refuses to run as root, and makes that program's user the owner of the paths,
// with all that is below them. The user is the owner of the first path, or of
// the directory that will hold it, if that isn't root; else "postgres", else
// "nobody". When we aren't root there is nothing to give up: the attributes are
// empty and the paths stay as they are.
//
// Where the user may not pass through a directory that leads to a path, such as
// a checkout below /root, the program gets the capability to do so if Spawn
// starts it; where it can't be had, the error names the directory.
func Unprivileged(paths ...string) (*syscall.SysProcAttr, error) {
	if os.Geteuid() != 0 {
		return &syscall.SysProcAttr{}, nil
	}
	if len(paths) == 0 {
		return nil, errors.New("choose a user other than root: no path says which")
	}
	a, err := accountFor(paths[0])
	if err != nil {
		return nil, err
	}
	if err := a.own(paths...); err != nil {
		return nil, err
	}
	return a.attributes(paths...)
}

// account is the user who runs a server.
type account struct {
	name     string
	uid, gid int
}

// accountFor returns the user to run a server whose data is at path. It is the current user unless
// that is root.
func accountFor(path string) (account, error) {
	if uid := os.Geteuid(); uid != 0 {
		return account{name: "user " + strconv.Itoa(uid), uid: uid, gid: os.Getegid()}, nil
	}
	if err := mayOverride(); err != nil {
		return account{}, fmt.Errorf("postgres can't run as root, nor can this root run it "+
			"as another user (%w): run as an ordinary user", err)
	}
	if a, ok, err := ownerOf(path); ok || err != nil {
		return a, err
	}
	for _, name := range []string{"postgres", "nobody"} {
		found, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, uidErr := strconv.Atoi(found.Uid)
		gid, gidErr := strconv.Atoi(found.Gid)
		if uidErr == nil && gidErr == nil {
			return account{name: "user " + name, uid: uid, gid: gid}, nil
		}
	}
	return account{}, errors.New("postgres can't run as root, and this machine has neither " +
		"a user postgres nor a user nobody: run as an ordinary user")
}

// ownerOf returns the account that owns the path or, before there is one, the
// nearest directory above it. It is false when that is root, or a user whom this
// machine doesn't know, such as the owner of a checkout mounted into a
// container: initdb refuses to run as a user without a name. A server that is
// complete does without one.
func ownerOf(path string) (account, bool, error) {
	nearest := path
	info, err := os.Stat(nearest)
	for errors.Is(err, fs.ErrNotExist) && nearest != filepath.Dir(nearest) {
		nearest = filepath.Dir(nearest)
		info, err = os.Stat(nearest)
	}
	if err != nil {
		return account{}, false, fmt.Errorf("find a user for the server: %w", err)
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !ok || owner.Uid == 0 {
		return account{}, false, nil
	}
	uid := strconv.Itoa(int(owner.Uid))
	if _, err := user.LookupId(uid); err != nil && nearest != path {
		return account{}, false, nil
	}
	return account{name: "user " + uid, uid: int(owner.Uid), gid: int(owner.Gid)}, true, nil
}

// own makes the account the owner of the paths and of all files below them. It skips a path that
// the account owns already: the account made the files below.
func (a account) own(paths ...string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	for _, path := range paths {
		info, err := os.Stat(path)
		if err != nil {
			return fmt.Errorf("give %s to %s: %w", path, a.name, err)
		}
		if owner, ok := info.Sys().(*syscall.Stat_t); ok && int(owner.Uid) == a.uid {
			continue
		}
		err = filepath.WalkDir(path, func(name string, _ fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			return os.Lchown(name, a.uid, a.gid)
		})
		if err != nil {
			return fmt.Errorf("give %s to %s: %w", path, a.name, err)
		}
	}
	return nil
}

// makeDir makes the directory and its missing parents and gives them to the account. So a run as
// root doesn't lock out a later run as the owner of the checkout.
func (a account) makeDir(dir string) error {
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := a.makeDir(filepath.Dir(dir)); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return a.own(dir)
}

// attributes returns the attributes to start a program as the account. The program must be able to
// reach the paths.
func (a account) attributes(paths ...string) (*syscall.SysProcAttr, error) {
	attr := &syscall.SysProcAttr{}
	if os.Geteuid() != 0 {
		return attr, nil
	}
	attr.Credential = &syscall.Credential{Uid: uint32(a.uid), Gid: uint32(a.gid)}
	for _, path := range paths {
		barrier, err := a.barrier(path)
		if err != nil {
			return nil, err
		}
		if barrier == "" {
			continue
		}
		if err := allowPassage(attr); err != nil {
			return nil, fmt.Errorf("postgres can't run as root, and %s may not enter %s: "+
				"type `chmod a+x %s`, or run as an ordinary user (%w)", a.name, barrier, barrier, err)
		}
		break
	}
	return attr, nil
}

// barrier returns the last directory on the way to path that the account may not enter. If path is
// a program that the account may not run, it returns path. If the way is free, it returns "". It
// reads the mode bits only. Where an access list grants more, the program gets a capability that it
// doesn't need.
func (a account) barrier(path string) (string, error) {
	path, err := resolve(path)
	if err != nil {
		return "", err
	}
	for dir := path; ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err != nil {
			return "", fmt.Errorf("look whether %s may enter %s: %w", a.name, dir, err)
		}
		owner, ok := info.Sys().(*syscall.Stat_t)
		if ok && !a.mayEnter(info.Mode(), owner) {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", nil
		}
	}
}

// mayEnter applies the rule of Unix: only the first class that fits counts.
func (a account) mayEnter(mode fs.FileMode, owner *syscall.Stat_t) bool {
	switch {
	case int(owner.Uid) == a.uid:
		return mode&0o100 != 0
	case int(owner.Gid) == a.gid:
		return mode&0o010 != 0
	default:
		return mode&0o001 != 0
	}
}

// resolve returns the path as Postgres shows it: absolute and without links.
// The last element need not exist yet.
func resolve(path string) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	real, err := filepath.EvalSymlinks(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return real, err
	}
	dir, err := filepath.EvalSymlinks(filepath.Dir(path))
	return filepath.Join(dir, filepath.Base(path)), err
}
