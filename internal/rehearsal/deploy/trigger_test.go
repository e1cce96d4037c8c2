package deploy

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
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

// invocation is what the test observed when a deploy ran the migrations.
type invocation struct {
	request   request
	published []string // the functions that had a version, so traffic could reach them
	tables    int      // the tables in the database before
	answer    string   // the function's answer
	err       error    // the reason if the trigger failed
}

// trigger does the work of the CDK's function behind a Trigger, which needs Node on Lambda. It
// invokes a version of the migrate function, the deployed binary, and answers whether it succeeded.
// It also runs the functions that others invoke.
type trigger struct {
	double   *double
	database *database

	mu      sync.Mutex
	seen    []invocation
	offered map[string]local.Invoker // by the ARNs of aliases
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
	tr.mu.Lock()
	f := tr.offered[name]
	tr.mu.Unlock()
	if f == nil {
		http.Error(w, "nobody offers the function "+name, http.StatusNotFound)
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

// serve listens for the double's invocations and its requests for custom resources, and returns its
// URL.
func (tr *trigger) serve(t *testing.T) string {
	t.Helper()
	var running sync.WaitGroup
	dir := t.TempDir()
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
		running.Go(func() { tr.handle(t, q, filepath.Join(dir, q.RequestID)) })
	}))
	t.Cleanup(func() { server.Close(); running.Wait() })
	return server.URL
}

// handle handles a request as the CDK's function does, and sends the answer to the response URL.
func (tr *trigger) handle(t *testing.T, q request, dir string) {
	in := invocation{request: q}
	if q.RequestType != "Delete" { // on Delete the CDK's function does nothing
		in.published, in.tables, in.err = tr.look()
		if in.err == nil {
			in.answer, in.err = tr.invoke(q.ResourceProperties.HandlerArn, dir)
		}
	}
	tr.mu.Lock()
	tr.seen = append(tr.seen, in)
	tr.mu.Unlock()
	answer := map[string]any{
		"Status": "SUCCESS", "StackId": q.StackID, "RequestId": q.RequestID,
		"LogicalResourceId":  q.LogicalResourceID,
		"PhysicalResourceId": "MigrateTrigger", "Data": map[string]string{},
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

// invoke runs the function's version that the ARN names, and returns its answer.
func (tr *trigger) invoke(arn, dir string) (answer string, err error) {
	if !strings.Contains(arn, ":function:"+stack+"-migrate:") {
		return "", fmt.Errorf("the trigger's handler is %q, want a version of the migrate function", arn)
	}
	ctx, cancel := context.WithTimeout(context.Background(), invokeLimit)
	defer cancel()
	f, err := fetch(ctx, tr.double, arn, dir)
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

// invocations returns the invocations since the last call.
func (tr *trigger) invocations() []invocation {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	seen := tr.seen
	tr.seen = nil
	return seen
}

// look returns the functions that have a version, and the number of tables.
func (tr *trigger) look() (published []string, tables int, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), callLimit)
	defer cancel()
	client := lambda.NewFromConfig(tr.double.config())
	all, err := client.ListFunctions(ctx, &lambda.ListFunctionsInput{})
	if err != nil {
		return nil, 0, err
	}
	for _, f := range all.Functions {
		versions, err := client.ListVersionsByFunction(
			ctx, &lambda.ListVersionsByFunctionInput{FunctionName: f.FunctionName},
		)
		if err != nil {
			return nil, 0, err
		}
		if len(versions.Versions) > 1 { // beside $LATEST
			published = append(published, strings.TrimPrefix(aws.ToString(f.FunctionName), stack+"-"))
		}
	}
	slices.Sort(published)
	tables, err = tr.database.queryNumber(ctx, countTables)
	return published, tables, err
}
