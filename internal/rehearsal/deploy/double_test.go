package deploy

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"github.com/allo/reservations/internal/local/pgserver"
)

// root is the path of the checkout from this folder.
const root = "../../.."

// maxAnswer limits an answer of the double, in bytes. A template is the largest.
const maxAnswer = 16 << 20

// maxLog limits how much of a program's output a failure shows, in bytes.
const maxLog = 8 << 10

// double is the running double of AWS.
type double struct {
	endpoint string
	log      string // the path of its log
	code     string // the folder of the functions' unpacked code, by its hash
}

// credentials returns any credentials: the double doesn't check them.
func credentials() aws.Credentials {
	return aws.Credentials{AccessKeyID: "double", SecretAccessKey: "double"}
}

// config returns the configuration of an AWS client for the double.
func (d *double) config() aws.Config {
	return aws.Config{
		Region: region, BaseEndpoint: aws.String(d.endpoint), RetryMaxAttempts: 1,
		Credentials: aws.CredentialsProviderFunc(
			func(context.Context) (aws.Credentials, error) { return credentials(), nil },
		),
		HTTPClient: &http.Client{Timeout: callLimit, Transport: &http.Transport{}}, // without a proxy
	}
}

// startDouble starts double.py and stops it when the test ends. The double sends the requests of
// custom resources to the URL invoke.
func startDouble(t *testing.T, invoke string) *double {
	t.Helper()
	python := environment(t)
	port, err := pgserver.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	// The host is a name and not an address: moto recognizes the URL of a template by its host,
	// which the command line derives from the endpoint's.
	d := &double{
		endpoint: "http://localhost:" + strconv.Itoa(port),
		log:      filepath.Join(t.TempDir(), "double.log"),
		code:     t.TempDir(),
	}
	log, err := os.Create(d.log)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), python, "double.py",
		"--port", strconv.Itoa(port), "--region", region, "--account", account, "--invoke", invoke)
	cmd.Env, cmd.Stdout, cmd.Stderr = elsewhere(), log, log
	child, err := pgserver.Spawn(cmd, syscall.SIGKILL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := child.Signal(syscall.SIGKILL); err != nil || !child.WaitFor(callLimit) {
			t.Errorf("the double doesn't stop: %v", err)
		}
		if t.Failed() {
			t.Logf("the double's log ends:\n%s", tail(d.log))
		}
	})
	for start := time.Now(); ; time.Sleep(50 * time.Millisecond) {
		if response, err := http.Get(d.endpoint + "/notes"); err == nil {
			_ = response.Body.Close()
			return d
		}
		if child.WaitFor(0) || time.Since(start) > startLimit {
			t.Fatalf("the double didn't start within %s; its log ends:\n%s", startLimit, tail(d.log))
		}
	}
}

// environment returns the python of a virtual environment with the packages of requirements.txt. It
// installs them from PyPI unless they are there.
func environment(t *testing.T) string {
	t.Helper()
	wanted, err := os.ReadFile("requirements.txt")
	if err != nil {
		t.Fatal(err)
	}
	dir, err := filepath.Abs(filepath.Join(root, "build", "moto"))
	if err != nil {
		t.Fatal(err)
	}
	python, stamp := filepath.Join(dir, "bin", "python"), filepath.Join(dir, "requirements.txt")
	if have, err := os.ReadFile(stamp); err == nil && bytes.Equal(have, wanted) {
		return python
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	ctx := within(t, venvLimit)
	for _, command := range [][]string{
		{"python3", "-m", "venv", dir},
		{
			python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
			"--requirement", "requirements.txt",
		},
	} {
		if out, err := exec.CommandContext(ctx, command[0], command[1:]...).CombinedOutput(); err != nil {
			t.Fatalf(
				"%v: %v\n%s\nThe rehearsal needs PyPI, python3 and its venv module "+
					"(Debian: apt-get install python3-venv).",
				command,
				err,
				out,
			)
		}
	}
	if err := os.WriteFile(stamp, wanted, 0o600); err != nil {
		t.Fatal(err)
	}
	return python
}

// tail returns the end of a file.
func tail(file string) string {
	content, err := os.ReadFile(file)
	if err != nil {
		return err.Error()
	}
	return string(content[max(0, len(content)-maxLog):])
}

// question is a call of a service for which go.mod has no client. A call has a target in the JSON
// protocol, a form in the query protocol, and a path in REST. The default JSON is an empty object.
type question struct {
	service string
	target  string
	json    string
	form    string
	path    string
}

// callAWS makes a call of AWS and returns the raw answer.
func (d *double) callAWS(t *testing.T, q question) []byte {
	t.Helper()
	method, path, body := http.MethodPost, "/", []byte("{}")
	if q.json != "" {
		body = []byte(q.json)
	}
	if q.path != "" {
		method, path, body = http.MethodGet, q.path, nil
	}
	if q.form != "" {
		body = []byte(q.form)
	}
	request, err := http.NewRequestWithContext(
		within(t, callLimit), method, d.endpoint+path, bytes.NewReader(body),
	)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/x-amz-json-1.0")
	if q.form != "" {
		request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	if q.target != "" {
		request.Header.Set("X-Amz-Target", q.target)
	}
	digest := sha256.Sum256(body)
	sum := hex.EncodeToString(digest[:])
	err = v4.NewSigner().SignHTTP(
		t.Context(), credentials(), request, sum, q.service, region, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	response, err := d.config().HTTPClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil || response.StatusCode != http.StatusOK {
		t.Fatalf("%+v = %s %s %v", q, response.Status, answer, err)
	}
	return answer
}

// read makes a call of AWS and decodes its JSON answer.
func read[T any](t *testing.T, d *double, q question) (out T) {
	t.Helper()
	answer := d.callAWS(t, q)
	if err := json.Unmarshal(answer, &out); err != nil {
		t.Fatalf("%+v = %s: %v", q, answer, err)
	}
	return out
}

// notes has what the double says about itself.
type notes struct {
	// Skipped has the resource types that neither moto nor the double creates. Lost has the
	// properties that the service's API doesn't accept. Added has the types that moto's
	// CloudFormation skips and the double creates. Each maps to logical ids.
	Skipped, Lost, Added map[string][]string
}

func (d *double) notes(t *testing.T) (n notes) {
	t.Helper()
	request := must(
		http.NewRequestWithContext(
			within(t, callLimit), http.MethodGet, d.endpoint+"/notes", http.NoBody,
		),
	)
	response, err := d.config().HTTPClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if err := json.NewDecoder(io.LimitReader(response.Body, maxAnswer)).Decode(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// must returns the value of a call that fails only by a mistake in the test.
func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

// elsewhere returns this process's environment without its AWS variables, and without a proxy for
// this machine.
func elsewhere() []string {
	env := []string{"NO_PROXY=localhost,127.0.0.1", "no_proxy=localhost,127.0.0.1"}
	for _, variable := range os.Environ() {
		if !strings.HasPrefix(variable, "AWS_") &&
			!strings.EqualFold(strings.SplitN(variable, "=", 2)[0], "NO_PROXY") {
			env = append(env, variable)
		}
	}
	return env
}

// variables returns the environment variables that send a program to the double instead of AWS.
func (d *double) variables() []string {
	return []string{
		"AWS_ENDPOINT_URL=" + d.endpoint, "AWS_REGION=" + region, "AWS_DEFAULT_REGION=" + region,
		"AWS_ACCESS_KEY_ID=" + credentials().AccessKeyID,
		"AWS_SECRET_ACCESS_KEY=" + credentials().SecretAccessKey,
	}
}
