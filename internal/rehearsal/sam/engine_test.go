package sam

import (
	"archive/tar"
	"bytes"
	"context"
	"debug/elf"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// podman is a container engine of the test's own. Its storage, network and socket are in one folder
// and end with the test. Its network plugins leave only empty chains in the kernel's tables.
type podman struct {
	dir     string
	address string
}

// podmanConfiguration lets podman also work inside a container, where it can neither raise limits
// nor use systemd. The network is in the test's folder, under the name of podman's default network.
// It must not be configured as the default while it is created or removed.
const podmanConfiguration = `[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1000:1000"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "none"
tmp_dir = "%[1]s/libpod"
[network]
network_config_dir = "%[1]s/networks"
default_network = "%[2]s"
`

// podmanStorage copies layers instead of mounting them, so that the folder can be removed.
const podmanStorage = `[storage]
driver = "vfs"
graphroot = "%[1]s/storage"
runroot = "%[1]s/run"
`

const network = "podman"

// startPodman starts the engine with the base image that SAM needs. If something is missing, it
// skips the test and says what.
func startPodman(t *testing.T) *podman {
	t.Helper()
	if missing := missingForPodman(); missing != "" {
		t.Skip("The functions were NOT run under SAM: " + missing)
	}
	p := &podman{dir: shortDir(t)}
	p.address = "unix://" + filepath.Join(p.dir, "podman.sock")
	p.write(t, "storage.conf", fmt.Sprintf(podmanStorage, p.dir))
	p.write(t, "making.conf", fmt.Sprintf(podmanConfiguration, p.dir, "none"))
	p.write(t, "serving.conf", fmt.Sprintf(podmanConfiguration, p.dir, network))
	p.write(t, "networks/.keep", "")

	t.Cleanup(func() { p.run(t, "making.conf", "network", "rm", "--force", network) })
	p.run(t, "making.conf", "network", "create", network)
	p.importImage(t)
	p.probe(t)
	p.serve(t)
	t.Cleanup(func() { p.run(t, "serving.conf", "rm", "--all", "--force", "--time", "0") })
	return p
}

// missingForPodman says what this machine lacks to run podman, or returns an empty string.
func missingForPodman() string {
	if runtime.GOOS != "linux" || os.Geteuid() != 0 {
		return "podman needs Linux and root here; elsewhere give -engine=unix:///var/run/docker.sock"
	}
	if !administers() {
		return "this process lacks CAP_SYS_ADMIN, as in an unprivileged container"
	}
	for _, name := range []string{"podman", "runc", "busybox", "iptables"} {
		if _, err := exec.LookPath(name); err != nil {
			return name + " is missing: apt-get install podman runc busybox-static " +
				"containernetworking-plugins iptables"
		}
	}
	if !static(busybox()) {
		return "busybox isn't a static program: apt-get install busybox-static"
	}
	return ""
}

// administers reports whether this process has CAP_SYS_ADMIN. Without it, podman runs as rootless
// and leaves a process behind.
func administers() bool {
	const sysAdmin = 21 // CAP_SYS_ADMIN of linux/capability.h.
	status, err := os.ReadFile("/proc/self/status")
	_, after, found := strings.Cut(string(status), "\nCapEff:")
	line, _, _ := strings.Cut(after, "\n")
	effective, parseErr := strconv.ParseUint(strings.TrimSpace(line), 16, 64)
	return err == nil && found && parseErr == nil && effective&(1<<sysAdmin) != 0
}

func busybox() string {
	path, _ := exec.LookPath("busybox") // static reports false for an empty path
	return path
}

// static reports whether a program is statically linked.
func static(path string) bool {
	f, err := elf.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	libraries, err := f.ImportedLibraries()
	return err == nil && len(libraries) == 0
}

func (p *podman) write(t *testing.T, name, text string) {
	t.Helper()
	path := filepath.Join(p.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (p *podman) command(ctx context.Context, configuration string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "podman", args...)
	cmd.Env = append(cmd.Environ(), "CONTAINERS_CONF="+filepath.Join(p.dir, configuration),
		"CONTAINERS_STORAGE_CONF="+filepath.Join(p.dir, "storage.conf"), "TMPDIR="+p.dir)
	return cmd
}

// run runs a podman command that must succeed. It also works in cleanups, after the test's context
// has ended.
func (p *podman) run(t *testing.T, configuration string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), commandTimeout)
	defer cancel()
	out, err := p.command(ctx, configuration, args...).CombinedOutput()
	if err != nil {
		t.Errorf("podman %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// serve starts the API that SAM uses, and stops it when the test ends.
func (p *podman) serve(t *testing.T) {
	t.Helper()
	said := &output{}
	cmd := p.command(
		context.WithoutCancel(t.Context()), "serving.conf", "system", "service", "--time", "0",
		p.address,
	)
	cmd.Stdout, cmd.Stderr = said, said
	cmd.WaitDelay = time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(stopTimeout):
			t.Errorf("podman's service doesn't stop:\n%s", said)
			cmd.Process.Kill()
		}
	})
	waitFor(t, startTimeout, "podman's service", func() bool {
		_, err := os.Stat(strings.TrimPrefix(p.address, "unix://"))
		return err == nil
	})
}

// importImage creates the image to which SAM adds its runtime emulator, under the name of AWS's
// image. Our functions are static programs, so the image only needs a shell for the two commands of
// SAM's build.
func (p *podman) importImage(t *testing.T) {
	t.Helper()
	program, err := os.ReadFile(busybox())
	if err != nil {
		t.Fatal(err)
	}
	var image bytes.Buffer
	w := tar.NewWriter(&image)
	add := func(h tar.Header, content []byte) {
		h.Size = int64(len(content))
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(content); err != nil {
			t.Fatal(err)
		}
	}
	for _, dir := range []string{"bin", "tmp", "var", "var/task", "var/runtime"} {
		add(tar.Header{Typeflag: tar.TypeDir, Name: dir, Mode: 0o755}, nil)
	}
	add(tar.Header{Typeflag: tar.TypeReg, Name: "bin/busybox", Mode: 0o755}, program)
	for _, name := range []string{"sh", "mv", "chmod"} {
		add(tar.Header{Typeflag: tar.TypeSymlink, Name: "bin/" + name, Linkname: "busybox"}, nil)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	p.write(t, "image.tar", image.String())
	p.run(
		t, "serving.conf", "import", "--quiet", "--change", "ENV PATH=/bin",
		filepath.Join(p.dir, "image.tar"), baseImage(),
	)
}

// baseImage is the name of the image that SAM uses for provided.al2023.
func baseImage() string {
	arch := map[string]string{"amd64": "x86_64", "arm64": "arm64"}[runtime.GOARCH]
	return "public.ecr.aws/lambda/provided:al2023-" + arch
}

// probe skips the test if this machine doesn't let podman run a container. A machine that is itself
// a container may not.
func (p *podman) probe(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), commandTimeout)
	defer cancel()
	out, err := p.command(ctx, "serving.conf", "run", "--rm", baseImage(), "sh", "-c", "exit 0").
		CombinedOutput()
	if err != nil {
		t.Skipf(
			"The functions were NOT run under SAM: this machine lets podman run no container: %v\n%s",
			err, out,
		)
	}
}

// containers lists the ids of all containers.
func (p *podman) containers(t *testing.T) string {
	t.Helper()
	return strings.TrimSpace(p.run(t, "serving.conf", "ps", "--all", "--quiet"))
}
