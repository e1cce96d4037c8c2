package awsapi

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

const version = "arn:aws:lambda:eu-central-1:123456789012:function:allo-dev-reserve:7"

// lambdaSays returns the endpoint of a Lambda that gives one answer.
func lambdaSays(t *testing.T, status int, headers map[string]string, body string) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		payload, _ := io.ReadAll(r.Body)
		const want = "/2015-03-31/functions/allo-dev-reserve/invocations?Qualifier=7"
		if r.Method != http.MethodPost || r.RequestURI != want || string(payload) != `{"a":1}` ||
			!strings.Contains(r.Header.Get("Authorization"), "/eu-central-1/lambda/aws4_request") {
			t.Errorf("the request is %s %s %v %s", r.Method, r.RequestURI, r.Header, payload)
		}
		for name, value := range headers {
			w.Header().Set(name, value)
		}
		w.WriteHeader(status)
		fmt.Fprint(w, body)
	}))
	t.Cleanup(server.Close)
	return server.URL
}

func TestAVersionOfAFunctionIsInvoked(t *testing.T) {
	t.Parallel()

	endpoint := lambdaSays(t, http.StatusOK, nil, `{"statusCode":201}`)
	got, err := Invoke(t.Context(), account, endpoint, version, []byte(`{"a":1}`))
	if err != nil || string(got) != `{"statusCode":201}` {
		t.Errorf("Invoke = %s, %v", got, err)
	}
	unversioned := strings.TrimSuffix(version, ":7")
	if _, err := Invoke(t.Context(), account, endpoint, unversioned, nil); err == nil {
		t.Error("Invoke takes an ARN without a version, which is the newest code")
	}
}

func TestAFunctionsFailureIsToldFromLambdas(t *testing.T) {
	t.Parallel()

	for name, c := range map[string]struct {
		status  int
		headers map[string]string
		body    string
		want    string
		passes  bool
	}{
		"the function failed": {
			200,
			map[string]string{"X-Amz-Function-Error": "Unhandled"},
			`{"errorType":"Runtime.ExitError","errorMessage":"exit status 2"}`,
			"the function allo-dev-reserve failed, Unhandled Runtime.ExitError: exit status 2", false,
		},
		"the permission is new": {
			403,
			map[string]string{"X-Amzn-Errortype": "AccessDeniedException"},
			`{"Message":"not authorized"}`,
			"the answer of Lambda is 403 AccessDeniedException: not authorized", true,
		},
		"the version is being made": {409, nil, `{}`, "the answer of Lambda is 409", true},
		"no concurrency is left":    {429, nil, `{}`, "the answer of Lambda is 429", true},
		"Lambda is out of order":    {503, nil, `no JSON`, "the answer of Lambda is 503", true},
		"there is no such version":  {404, nil, `{}`, "the answer of Lambda is 404", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			endpoint := lambdaSays(t, c.status, c.headers, c.body)
			_, err := Invoke(t.Context(), account, endpoint, version, []byte(`{"a":1}`))
			if err == nil || !strings.HasPrefix(err.Error(), c.want) || MayPass(err) != c.passes {
				t.Errorf("the error is %v, which may pass: %v, want %q, %v", err, MayPass(err), c.want,
					c.passes)
			}
		})
	}
	if !MayPass(errors.New("connection reset")) {
		t.Error("a failure of the network can't pass")
	}
}

func TestAStacksStatusIsRead(t *testing.T) {
	t.Parallel()

	const id = "arn:aws:cloudformation:eu-central-1:123456789012:stack/allo-dev/1"
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		const signed = "/eu-central-1/cloudformation/aws4_request"
		if r.FormValue("Action") != "DescribeStacks" ||
			!strings.Contains(r.Header.Get("Authorization"), signed) {
			t.Errorf("the request is %v %v", r.Form, r.Header)
		}
		if r.FormValue("StackName") != id {
			fmt.Fprint(w, `<DescribeStacksResponse/>`)
			return
		}
		const ns = "http://cloudformation.amazonaws.com/doc/2010-05-15/"
		fmt.Fprint(w, `<DescribeStacksResponse xmlns="`+ns+`">
			<DescribeStacksResult><Stacks><member><StackName>allo-dev</StackName>
			<StackStatus>UPDATE_ROLLBACK_IN_PROGRESS</StackStatus></member></Stacks>
			</DescribeStacksResult></DescribeStacksResponse>`)
	}))
	t.Cleanup(server.Close)
	status, err := StackStatus(t.Context(), account, server.URL, id)
	if err != nil || status != "UPDATE_ROLLBACK_IN_PROGRESS" {
		t.Errorf("StackStatus = %q, %v", status, err)
	}
	if status, err := StackStatus(t.Context(), account, server.URL, "other"); err == nil {
		t.Errorf("StackStatus of an answer without a stack = %q", status)
	}
}
