package deploy

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"debug/elf"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/allo/reservations/internal/local"
	"github.com/allo/reservations/internal/route"
)

// maxCode limits a function's zip and its contents, in bytes. It is Lambda's limit for unpacked
// code.
const maxCode = 250 << 20

// bucket is the bucket of the CDK's assets in a bootstrapped account.
const bucket = "cdk-hnb659fds-assets-" + account + "-" + region

// deployed is a function in the double, with its unpacked code.
type deployed struct {
	types.FunctionConfiguration
	binary string
}

// names returns the names of the stack's functions, sorted: the routes', the sweeper, migrate,
// smoke and those of the events.
func names() []string {
	all := []string{"sweep", "migrate", "outbox", "relay", "deliver", "smoke"}
	for _, r := range route.All() {
		all = append(all, r.Function)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// fetch downloads a function's code from the double and unpacks it. The name is the function's, or
// an ARN with a version or an alias. Code of one hash is downloaded once.
func fetch(ctx context.Context, d *double, name string) (*deployed, error) {
	got, err := lambda.NewFromConfig(d.config()).
		GetFunction(ctx, &lambda.GetFunctionInput{FunctionName: aws.String(name)})
	if err != nil {
		return nil, err
	}
	want := aws.ToString(got.Configuration.CodeSha256)
	f := &deployed{
		FunctionConfiguration: *got.Configuration,
		binary:                filepath.Join(d.code, hex.EncodeToString([]byte(want)), "bootstrap"),
	}
	if _, err := os.Stat(f.binary); err == nil {
		return f, nil
	}
	// The location is no working URL, but it ends with the asset's key.
	object, err := s3.NewFromConfig(d.config(), func(o *s3.Options) { o.UsePathStyle = true }).
		GetObject(ctx, &s3.GetObjectInput{
			Bucket: aws.String(bucket),
			Key:    aws.String(path.Base(aws.ToString(got.Code.Location))),
		})
	if err != nil {
		return nil, fmt.Errorf("download the code of %s: %w", name, err)
	}
	defer object.Body.Close()
	code, err := io.ReadAll(io.LimitReader(object.Body, maxCode))
	if err != nil {
		return nil, err
	}
	digest := sha256.Sum256(code)
	if sum := base64.StdEncoding.EncodeToString(digest[:]); sum != want {
		return nil, fmt.Errorf("the code of %s has the hash %s, and Lambda says %s", name, sum, want)
	}
	return f, unpack(code, f.binary)
}

// unpack writes the only file of a zip. The file appears whole, so that nothing runs a part of it.
func unpack(code []byte, to string) error {
	archive, err := zip.NewReader(bytes.NewReader(code), int64(len(code)))
	if err != nil {
		return err
	}
	if len(archive.File) != 1 || archive.File[0].Name != "bootstrap" ||
		archive.File[0].Mode()&0o111 == 0 {
		return fmt.Errorf(
			"the zip has %d files, the first %s %s; it must have only an executable bootstrap",
			len(archive.File), archive.File[0].Name, archive.File[0].Mode(),
		)
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
	// A child that is started while the file is open inherits it, and then nobody can run it.
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	part, err := os.CreateTemp(filepath.Dir(to), "part-")
	if err != nil {
		return err
	}
	_, err = part.Write(content)
	if err := errors.Join(err, part.Chmod(0o700), part.Close()); err != nil {
		return err
	}
	return os.Rename(part.Name(), to)
}

// runtime returns the configuration to run the function as Lambda would: with the deployed
// environment, the variables that lead to the double, and more.
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

// aliasARN returns the ARN of a function's alias.
func aliasARN(name string) string {
	return "arn:aws:lambda:" + region + ":" + account + ":function:" + stack + "-" + name + ":" + alias
}

// fetchAll downloads every function from the double, in the version that its alias serves.
func fetchAll(t *testing.T, r *rehearsal) map[string]*deployed {
	t.Helper()
	all := map[string]*deployed{}
	for _, name := range names() {
		f, err := fetch(within(t, callLimit), r.double, aliasARN(name))
		if err != nil {
			t.Fatal(err)
		}
		all[name] = f
	}
	return all
}

// wantFunction fails the test unless a function has its settings. The figures repeat those of
// infra/ on purpose.
func wantFunction(t *testing.T, name string, f *deployed) {
	t.Helper()
	timeouts := map[string]int32{
		"sweep": 50, "migrate": 870, "relay": 80, "deliver": 30, "smoke": 120,
	}
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
		Handler: aws.ToString(f.Handler), Runtime: string(f.Runtime),
		LogFormat: string(f.LoggingConfig.LogFormat),
		LogGroup:  aws.ToString(f.LoggingConfig.LogGroup),
		Tracing:   string(f.TracingConfig.Mode), Arch: f.Architectures,
		Memory: aws.ToInt32(f.MemorySize), Timeout: aws.ToInt32(f.Timeout), Machine: binary.Machine,
	}
	want := facts{
		Handler: "bootstrap", Runtime: "provided.al2023", LogFormat: "JSON",
		LogGroup: "/" + stack + "/" + logOf(name), Tracing: "PassThrough",
		Arch: []types.Architecture{arch}, Memory: 256, Timeout: timeout, Machine: machine,
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%s is %+v, want %+v", name, got, want)
	}
	if f.Environment == nil {
		t.Fatalf("%s has no environment", name)
	}
	environment := wantEnvironment(name)
	variables := maps.Clone(f.Environment.Variables)
	if strings.Contains(variables["STACK_ID"], ":stack/"+stack+"/") {
		variables["STACK_ID"] = "the stack's id"
	}
	if !maps.Equal(variables, environment) {
		t.Errorf("the environment of %s is %v, want %v", name, variables, environment)
	}
}

// office has the functions that share a role, by its kind. It repeats that of infra/ on purpose.
var office = map[string][]string{
	"the app's rights": {
		"cancel", "erase-owner", "health", "history", "list-events", "list-movements",
		"list-reservations", "list-stock", "move-stock", "put-products", "put-warehouses",
		"return-goods", "stats",
	},
	"nobody's rights": {"live", "live-authorizer", "grant-scopes"},
}

// roleUsers returns who has the role of a function: the function itself, or a kind of functions.
func roleUsers(name string) string {
	for kind, names := range office {
		if slices.Contains(names, name) {
			return kind
		}
	}
	return name
}

// logOf returns the last part of the name of a function's log group.
func logOf(name string) string {
	if roleUsers(name) != name || strings.HasSuffix(name, "-webhooks") ||
		strings.HasSuffix(name, "-webhook") {
		return "back-office"
	}
	return name
}

func wantEnvironment(name string) map[string]string {
	environment := map[string]string{
		"DATABASE_URL":     "",
		"METRIC_NAMESPACE": "AlloReservations/" + stack,
	}
	switch name {
	case "web", "live", "list-webhooks", "redeliver-webhook", "relay", "deliver",
		"smoke": // need no database
	default:
		environment["DATABASE_SECRET"] = secret
	}
	switch name {
	case "web":
		environment["DEMO"], environment["GUARDED"] = "off", "on"
	case "list-webhooks", "redeliver-webhook":
		environment["WEBHOOK_QUEUES"] = `[{"name":"erp","url":"https://erp.example",` +
			`"types":["allo.stock.moved"],"queue":"arn:aws:sqs:` + region + ":" + account + ":" + stack +
			`-webhook-erp.fifo"}]`
		environment["DELIVER_LOG_GROUP"] = "/" + stack + "/deliver"
	case "outbox", "list-events":
		environment["EVENT_SOURCE"] = stack
	case "relay":
		environment["TOPIC_ARN"] = "arn:aws:sns:" + region + ":" + account + ":" + stack + "-events.fifo"
		environment["OUTBOX_FUNCTION"], environment["RELAY_SECONDS"] = aliasARN("outbox"), "0"
		environment["BUS_NAME"] = stack + "-events"
	case "smoke":
		environment["SMOKE_FUNCTIONS"], environment["SMOKE_AUTH"] = firstVersions(), "jwt"
		environment["STACK_ID"] = "the stack's id"
	case "deliver":
		environment["WEBHOOKS"] = `[{"name":"erp","url":"https://erp.example/hook",` +
			`"types":["allo.stock.moved"],"secret":"rehearsal/webhook"}]`
	}
	return environment
}

// firstVersions returns the pairs of a function and its version that the smoke test of a first
// deploy calls.
func firstVersions() string {
	var pairs []string
	for _, name := range []string{
		"confirm", "extend", "get-reservation", "health", "list-products", "list-stock", "move-stock",
		"put-products", "put-warehouses", "release", "reserve", "start-payment",
	} {
		arn := strings.TrimSuffix(aliasARN(name), alias) + "1"
		pairs = append(pairs, name+"="+arn)
	}
	return strings.Join(pairs, ",")
}
