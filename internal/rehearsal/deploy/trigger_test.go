package deploy

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/lambda"

	"github.com/allo/reservations/internal/local"
)

// maxEvent limits an event of a function, in bytes.
const maxEvent = 64 << 10

// request is what CloudFormation sends to the function of a custom resource.
type request struct {
	RequestType, ResponseURL, StackID, RequestID, LogicalResourceID string

	ResourceProperties struct{ HandlerArn string }
}

// invocation is what the test observed when a deploy ran the migrations or the smoke test.
type invocation struct {
	function  string // migrate or smoke
	request   request
	published []string // the functions that had a version, so traffic could reach them
	serving   []string // the functions that had an alias, so traffic did
	tables    int      // the tables in the database before
	answer    string   // the function's answer
	err       error    // the reason if the trigger failed
}

// trigger does the work of the CDK's function behind a Trigger, which needs Node on Lambda. It
// invokes a version of the function migrate or smoke, the deployed binary, and answers whether it
// succeeded. It also runs the functions that others invoke: those that a step offers by their
// aliases, and each version, which the smoke test invokes.
type trigger struct {
	double   *double
	database *database

	mu      sync.Mutex
	seen    []invocation
	offered map[string]local.Invoker // by the ARNs of aliases, and by NAME:VERSION
	said    words                    // the output of the versions
	closing []func() error           // ends the versions' processes
}

// offer makes a function answer invocations of its alias.
func (tr *trigger) offer(name string, f local.Invoker) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	if tr.offered == nil {
		tr.offered = map[string]local.Invoker{}
	}
	tr.offered[aliasARN(name)] = f
}

// answer invokes a function that was offered, as Lambda's Invoke does.
func (tr *trigger) answer(w http.ResponseWriter, r *http.Request) {
	name := r.URL.Query().Get("function")
	f, err := tr.find(r.Context(), name)
	if err != nil {
		http.Error(w, fmt.Sprintf("nobody offers the function %s: %v", name, err), http.StatusNotFound)
		return
	}
	event, err := io.ReadAll(io.LimitReader(r.Body, maxEvent))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	answer, err := f.Invoke(r.Context(), event)
	if err != nil {
		w.Header().Set("X-Amz-Function-Error", "Unhandled")
		answer = must(json.Marshal(map[string]string{"errorMessage": err.Error()}))
	}
	_, _ = w.Write(answer)
}

// find returns the function that was offered under a name. A version that wasn't is downloaded and
// runs until the end of the test, like an environment of Lambda.
func (tr *trigger) find(ctx context.Context, name string) (local.Invoker, error) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	if f := tr.offered[name]; f != nil {
		return f, nil
	}
	function, version, _ := strings.Cut(name, ":")
	function, ours := strings.CutPrefix(function, stack+"-")
	if !ours || version == "" {
		return nil, errors.New("it is no version of a function of the stack")
	}
	arn := strings.TrimSuffix(aliasARN(function), alias) + version
	f, err := fetch(ctx, tr.double, arn)
	if err != nil {
		return nil, err
	}
	runtime := local.NewRuntime(f.runtime(tr.double, &tr.said))
	tr.closing = append(tr.closing, runtime.Close)
	if tr.offered == nil {
		tr.offered = map[string]local.Invoker{}
	}
	tr.offered[name] = runtime
	return runtime, nil
}

// end ends the processes of the versions.
func (tr *trigger) end() {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	for _, closeOne := range tr.closing {
		_ = closeOne()
	}
}

// serve listens for the double's invocations and its requests for custom resources, and returns its
// URL.
func (tr *trigger) serve(t *testing.T) string {
	t.Helper()
	var running sync.WaitGroup
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/invocations" {
			tr.answer(w, r)
			return
		}
		var q request
		if err := json.NewDecoder(io.LimitReader(r.Body, maxEvent)).Decode(&q); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		w.WriteHeader(http.StatusAccepted) // like an asynchronous invocation
		running.Go(func() { tr.handle(t, q) })
	}))
	t.Cleanup(func() { server.Close(); running.Wait(); tr.end() })
	return server.URL
}

// handle handles a request as the CDK's function does, and sends the answer to the response URL.
func (tr *trigger) handle(t *testing.T, q request) {
	in := invocation{request: q, function: functionOf(q.ResourceProperties.HandlerArn)}
	if q.RequestType != "Delete" { // on Delete the CDK's function does nothing
		in.err = tr.look(&in)
		if in.err == nil {
			in.answer, in.err = tr.invoke(in.function, q.ResourceProperties.HandlerArn)
		}
	}
	tr.mu.Lock()
	tr.seen = append(tr.seen, in)
	tr.mu.Unlock()
	answer := map[string]any{
		"Status": "SUCCESS", "StackId": q.StackID, "RequestId": q.RequestID,
		"LogicalResourceId":  q.LogicalResourceID,
		"PhysicalResourceId": q.LogicalResourceID, "Data": map[string]string{},
	}
	if in.err != nil {
		answer["Status"], answer["Reason"] = "FAILED", in.err.Error()
	}
	put, err := http.NewRequestWithContext(
		context.Background(), http.MethodPut, q.ResponseURL,
		bytes.NewReader(must(json.Marshal(answer))),
	)
	if err != nil {
		t.Error(err)
		return
	}
	response, err := tr.double.config().HTTPClient.Do(put)
	if err != nil {
		t.Errorf("send the answer to %s: %v", q.ResponseURL, err)
		return
	}
	_ = response.Body.Close()
	if response.StatusCode != http.StatusOK {
		t.Errorf("sending the answer to %s = %s", q.ResponseURL, response.Status)
	}
}

// functionOf returns the name of the function of a version's ARN.
func functionOf(arn string) string {
	_, name, _ := strings.Cut(arn, ":function:"+stack+"-")
	name, _, _ = strings.Cut(name, ":")
	return name
}

// invoke runs the function's version that the ARN names, and returns its answer.
func (tr *trigger) invoke(function, arn string) (answer string, err error) {
	if function != "migrate" && function != "smoke" {
		return "", fmt.Errorf("the trigger's handler is %q, want a version of migrate or smoke", arn)
	}
	ctx, cancel := context.WithTimeout(context.Background(), invokeLimit)
	defer cancel()
	f, err := fetch(ctx, tr.double, arn)
	if err != nil {
		return "", err
	}
	said := &words{}
	runtime := local.NewRuntime(f.runtime(tr.double, said))
	defer runtime.Close()
	out, err := runtime.Invoke(ctx, []byte("{}"))
	if err != nil {
		return "", fmt.Errorf("%w; its output: %s", err, said.String())
	}
	return string(out), nil
}

// invocations returns the invocations since the last call: those of migrate, and those of smoke.
func (tr *trigger) invocations() (migrations, smokes []invocation) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	for _, in := range tr.seen {
		if in.function == "smoke" {
			smokes = append(smokes, in)
		} else {
			migrations = append(migrations, in)
		}
	}
	tr.seen = nil
	return migrations, smokes
}

// look notes the functions that have a version or an alias, and the number of tables.
func (tr *trigger) look(in *invocation) error {
	ctx, cancel := context.WithTimeout(context.Background(), callLimit)
	defer cancel()
	client := lambda.NewFromConfig(tr.double.config())
	all, err := client.ListFunctions(ctx, &lambda.ListFunctionsInput{})
	if err != nil {
		return err
	}
	for _, f := range all.Functions {
		name := strings.TrimPrefix(aws.ToString(f.FunctionName), stack+"-")
		versions, err := client.ListVersionsByFunction(
			ctx, &lambda.ListVersionsByFunctionInput{FunctionName: f.FunctionName},
		)
		if err != nil {
			return err
		}
		if len(versions.Versions) > 1 { // beside $LATEST
			in.published = append(in.published, name)
		}
		aliases, err := client.ListAliases(
			ctx, &lambda.ListAliasesInput{FunctionName: f.FunctionName},
		)
		if err != nil {
			return err
		}
		if len(aliases.Aliases) > 0 && name != "migrate" { // whose alias nobody calls
			in.serving = append(in.serving, name)
		}
	}
	slices.Sort(in.published)
	slices.Sort(in.serving)
	in.tables, err = tr.database.queryNumber(ctx, countTables)
	return err
}
