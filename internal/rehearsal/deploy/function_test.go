package deploy

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"debug/elf"
	"encoding/base64"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/allo/reservations/internal/local"
	"github.com/allo/reservations/internal/route"
)

// maxCode bounds a function's zip and what is in it: Lambda's own limit of what is unpacked.
const maxCode = 250 << 20

// bucket is where a bootstrapped account keeps the CDK's assets.
const bucket = "cdk-hnb659fds-assets-" + account + "-" + region

// deployed is a function as the double has it.
type deployed struct {
	types.FunctionConfiguration
	binary string
}

// names are the functions of a stack by their directories: those that have a route, the rule's and the deploy's.
func names() []string {
	all := []string{"sweep", "migrate"}
	for _, r := range route.All() {
		all = append(all, r.Function)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// fetch takes a function's code out of the double, by the function's name or an ARN that names its version or alias, and unpacks it into a
// folder below dir.
func fetch(ctx context.Context, d *double, name, dir string) (*deployed, error) {
	got, err := lambda.NewFromConfig(d.config()).GetFunction(ctx, &lambda.GetFunctionInput{FunctionName: aws.String(name)})
	if err != nil {
		return nil, err
	}
	// The double's location can't be followed, but it ends in the key of the asset.
	object, err := s3.NewFromConfig(d.config(), func(o *s3.Options) { o.UsePathStyle = true }).
		GetObject(ctx, &s3.GetObjectInput{Bucket: aws.String(bucket), Key: aws.String(path.Base(aws.ToString(got.Code.Location)))})
	if err != nil {
		return nil, fmt.Errorf("the code of %s: %w", name, err)
	}
	defer object.Body.Close()
	code, err := io.ReadAll(io.LimitReader(object.Body, maxCode))
	if err != nil {
		return nil, err
	}
	digest := sha256.Sum256(code)
	if sum := base64.StdEncoding.EncodeToString(digest[:]); sum != aws.ToString(got.Configuration.CodeSha256) {
		return nil, fmt.Errorf("the code of %s is %s, and Lambda says that it is %s", name, sum, aws.ToString(got.Configuration.CodeSha256))
	}
	f := &deployed{FunctionConfiguration: *got.Configuration, binary: filepath.Join(dir, "bootstrap")}
	return f, unpack(code, f.binary)
}

// unpack writes the one file that a zip holds.
func unpack(code []byte, to string) error {
	archive, err := zip.NewReader(bytes.NewReader(code), int64(len(code)))
	if err != nil {
		return err
	}
	if len(archive.File) != 1 || archive.File[0].Name != "bootstrap" || archive.File[0].Mode()&0o111 == 0 {
		return fmt.Errorf("the zip holds %d files, the first %s %s; it must hold an executable bootstrap and nothing else",
			len(archive.File), archive.File[0].Name, archive.File[0].Mode())
	}
	file, err := archive.File[0].Open()
	if err != nil {
		return err
	}
	defer file.Close()
	content, err := io.ReadAll(io.LimitReader(file, maxCode))
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o750); err != nil {
		return err
	}
	return os.WriteFile(to, content, 0o700) //nolint:gosec // it is run
}

// runtime is how Lambda would run the function: with the environment that was deployed, and what Lambda adds to it.
func (f *deployed) runtime(d *double, said io.Writer, more ...string) local.RuntimeConfig {
	env := d.variables()
	if f.Environment != nil {
		for _, name := range slices.Sorted(maps.Keys(f.Environment.Variables)) {
			env = append(env, name+"="+f.Environment.Variables[name])
		}
	}
	return local.RuntimeConfig{
		Name: aws.ToString(f.FunctionName), Binary: f.binary, Env: append(env, more...),
		Timeout: time.Duration(aws.ToInt32(f.Timeout)) * time.Second, Stdout: said, Stderr: said,
	}
}

// fetchAll takes all functions out of the double, as their aliases serve them.
func fetchAll(t *testing.T, r *rehearsal) map[string]*deployed {
	t.Helper()
	all := map[string]*deployed{}
	dir, err := os.MkdirTemp(r.dir, "functions-")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names() {
		live := "arn:aws:lambda:" + region + ":" + account + ":function:" + stack + "-" + name + ":" + alias
		f, err := fetch(within(t, callLimit), r.double, live, filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		all[name] = f
	}
	return all
}

// wantFunction fails the test unless a function is as the service needs it: the figures are those of the README and of infra/, a third time.
func wantFunction(t *testing.T, name string, f *deployed) {
	t.Helper()
	timeouts := map[string]int32{"sweep": 50, "migrate": 300}
	timeout, ok := timeouts[name]
	if !ok {
		timeout = 10
	}
	arch, machine := types.ArchitectureX8664, elf.EM_X86_64
	if runtime.GOARCH == "arm64" {
		arch, machine = types.ArchitectureArm64, elf.EM_AARCH64
	}
	type facts struct {
		Handler, Runtime, LogFormat, LogGroup, Tracing string
		Arch                                           []types.Architecture
		Memory, Timeout                                int32
		Machine                                        elf.Machine
	}
	binary, err := elf.Open(f.binary)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	defer binary.Close()
	got := facts{
		Handler: aws.ToString(f.Handler), Runtime: string(f.Runtime), LogFormat: string(f.LoggingConfig.LogFormat),
		LogGroup: aws.ToString(f.LoggingConfig.LogGroup), Tracing: string(f.TracingConfig.Mode), Arch: f.Architectures,
		Memory: aws.ToInt32(f.MemorySize), Timeout: aws.ToInt32(f.Timeout), Machine: binary.Machine,
	}
	want := facts{
		Handler: "bootstrap", Runtime: "provided.al2023", LogFormat: "JSON", LogGroup: "/" + stack + "/" + name, Tracing: "Active",
		Arch: []types.Architecture{arch}, Memory: 256, Timeout: timeout, Machine: machine,
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%s is %+v, want %+v", name, got, want)
	}
	environment := map[string]string{"DATABASE_URL": "", "METRIC_NAMESPACE": "AlloReservations/" + stack}
	if name != "web" { // which needs no database
		environment["DATABASE_SECRET"] = secret
	}
	if f.Environment == nil || !maps.Equal(f.Environment.Variables, environment) {
		t.Errorf("the environment of %s is %+v, want %v", name, f.Environment, environment)
	}
}
