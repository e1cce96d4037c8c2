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

// maxEvent bounds a custom resource's request and what is answered to it.
const maxEvent = 64 << 10

// request is what CloudFormation tells the function of a custom resource.
type request struct {
	RequestType, ResponseURL, StackID, RequestID, LogicalResourceID string

	ResourceProperties struct{ HandlerArn string }
}

// invocation is what the test saw when a deploy had the migrations run.
type invocation struct {
	request   request
	published []string // the functions with a version, which is what traffic could go to, at that moment
	tables    int      // in the database, before
	answer    string   // the function's own
	err       error    // why the trigger failed
}

// trigger stands for the CDK's function behind a Trigger, which is written for Node on AWS: it invokes the version of the migrate function that
// it is told, and answers whether that went well. The migrate function itself is the deployed binary.
type trigger struct {
	double   *double
	database *database

	mu   sync.Mutex
	seen []invocation
}

// serve listens for the double, which tells of a custom resource by a POST, and returns where.
func (tr *trigger) serve(t *testing.T) string {
	t.Helper()
	var running sync.WaitGroup
	dir := t.TempDir()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var q request
		if err := json.NewDecoder(io.LimitReader(r.Body, maxEvent)).Decode(&q); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		w.WriteHeader(http.StatusAccepted) // as for an asynchronous invocation
		running.Go(func() { tr.handle(t, q, filepath.Join(dir, q.RequestID)) })
	}))
	t.Cleanup(func() { server.Close(); running.Wait() })
	return server.URL
}

// handle does as the CDK's function does, and answers to the response URL.
func (tr *trigger) handle(t *testing.T, q request, dir string) {
	in := invocation{request: q}
	if q.RequestType != "Delete" { // then the CDK's does nothing
		in.published, in.tables, in.err = tr.look()
		if in.err == nil {
			in.answer, in.err = tr.invoke(q.ResourceProperties.HandlerArn, dir)
		}
	}
	tr.mu.Lock()
	tr.seen = append(tr.seen, in)
	tr.mu.Unlock()
	answer := map[string]any{
		"Status": "SUCCESS", "StackId": q.StackID, "RequestId": q.RequestID, "LogicalResourceId": q.LogicalResourceID,
		"PhysicalResourceId": "MigrateTrigger", "Data": map[string]string{},
	}
	if in.err != nil {
		answer["Status"], answer["Reason"] = "FAILED", in.err.Error()
	}
	put, err := http.NewRequestWithContext(context.Background(), http.MethodPut, q.ResponseURL, bytes.NewReader(must(json.Marshal(answer))))
	if err != nil {
		t.Error(err)
		return
	}
	response, err := tr.double.config().HTTPClient.Do(put)
	if err != nil {
		t.Errorf("answer to %s: %v", q.ResponseURL, err)
		return
	}
	_ = response.Body.Close()
	if response.StatusCode != http.StatusOK {
		t.Errorf("answer to %s = %s", q.ResponseURL, response.Status)
	}
}

// invoke runs the version of the function that the ARN names.
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
		return "", fmt.Errorf("%w; it said: %s", err, said.String())
	}
	return string(out), nil
}

// invocations are those since the last look.
func (tr *trigger) invocations() []invocation {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	seen := tr.seen
	tr.seen = nil
	return seen
}

// look is at what there is before the migrations run: the functions that have a version, and the tables.
func (tr *trigger) look() (published []string, tables int, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), callLimit)
	defer cancel()
	client := lambda.NewFromConfig(tr.double.config())
	all, err := client.ListFunctions(ctx, &lambda.ListFunctionsInput{})
	if err != nil {
		return nil, 0, err
	}
	for _, f := range all.Functions {
		versions, err := client.ListVersionsByFunction(ctx, &lambda.ListVersionsByFunctionInput{FunctionName: f.FunctionName})
		if err != nil {
			return nil, 0, err
		}
		if len(versions.Versions) > 1 { // beside $LATEST
			published = append(published, strings.TrimPrefix(aws.ToString(f.FunctionName), stack+"-"))
		}
	}
	slices.Sort(published)
	tables, err = tr.database.ask(ctx, countTables)
	return published, tables, err
}
