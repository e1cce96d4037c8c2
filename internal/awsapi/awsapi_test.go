package awsapi

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/allo/reservations/internal/config"
)

var account = config.AWS{
	Region: "eu-central-1", AccessKeyID: "AKIAIOSFODNN7EXAMPLE", SecretAccessKey: "none",
}

// manager answers with the text as a secret. It counts the reads.
func manager(t *testing.T, text *atomic.Value) (a config.AWS, reads *atomic.Int64) {
	t.Helper()
	reads = &atomic.Int64{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		reads.Add(1)
		fmt.Fprintf(w, `{"SecretString": %q}`, text.Load())
	}))
	t.Cleanup(server.Close)
	a = account
	a.SecretsEndpoint = server.URL
	return a, reads
}

func TestASecretIsReadAgainAfterItsLifetime(t *testing.T) {
	t.Parallel()

	var text atomic.Value
	text.Store("one")
	a, reads := manager(t, &text)
	s := NewSecret("allo/database", a, func(text string) (string, error) { return text, nil })
	now := time.Now()
	s.client.now = func() time.Time { return now }
	want := func(name, want string, again bool, wantReads int64) {
		t.Helper()
		got, err := s.Get(t.Context(), again)
		if err != nil || got != want || reads.Load() != wantReads {
			t.Errorf("%s: the secret is %q, %v, after %d reads, want %q after %d", name, got, err,
				reads.Load(), want, wantReads)
		}
	}
	want("first", "one", false, 1)
	text.Store("two")
	now = now.Add(SecretLife - time.Second)
	want("within its lifetime", "one", false, 1)
	now = now.Add(2 * time.Second)
	want("after its lifetime", "two", false, 2)
	text.Store("three")
	want("asked anew", "three", true, 3)
}

func TestAFailedReadKeepsNothing(t *testing.T) {
	t.Parallel()

	var text atomic.Value
	text.Store("bad")
	a, reads := manager(t, &text)
	s := NewSecret("allo/hook", a, func(text string) (string, error) {
		if text == "bad" {
			return "", fmt.Errorf("it isn't good")
		}
		return text, nil
	})
	_, err := s.Get(t.Context(), false)
	if err == nil || err.Error() != "the secret allo/hook: it isn't good" {
		t.Errorf("the error of a bad secret is %v", err)
	}
	text.Store("good")
	if got, err := s.Get(t.Context(), false); got != "good" || err != nil || reads.Load() != 2 {
		t.Errorf("the mended secret is %q, %v, after %d reads", got, err, reads.Load())
	}
}

func TestTheEndpointIsTheRegionsOwn(t *testing.T) {
	t.Parallel()

	for _, c := range []struct{ region, endpoint, want string }{
		{"eu-central-1", "", "https://sqs.eu-central-1.amazonaws.com/"},
		{"cn-north-1", "", "https://sqs.cn-north-1.amazonaws.com.cn/"},
		{"eu-central-1", "http://localhost:5000", "http://localhost:5000/"},
		{"eu-central-1", "http://localhost:5000/", "http://localhost:5000/"},
	} {
		client := NewClient(SQS, config.AWS{Region: c.region}, c.endpoint)
		if got := client.Endpoint(); got != c.want {
			t.Errorf("the endpoint of %s and %q is %s, want %s", c.region, c.endpoint, got, c.want)
		}
	}
}

func TestACallIsSignedJSON(t *testing.T) {
	t.Parallel()

	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := r.Header
		const signed = "/eu-central-1/sqs/aws4_request"
		if r.Method != http.MethodPost || h.Get("X-Amz-Target") != "AmazonSQS.TagQueue" ||
			h.Get("Content-Type") != SQS.ContentType ||
			!strings.Contains(h.Get("Authorization"), signed) {
			t.Errorf("the request is %s %v", r.Method, h)
		}
		if r.ContentLength > 100 {
			w.WriteHeader(http.StatusBadRequest)
			fmt.Fprint(w, `{"__type":"com.amazonaws.sqs#QueueDoesNotExist","message":"no such queue"}`)
		}
	}))
	t.Cleanup(server.Close)
	client := NewClient(SQS, account, server.URL)
	if _, err := client.Call(t.Context(), "TagQueue", map[string]string{"a": "b"}); err != nil {
		t.Error(err)
	}
	_, err := client.Call(t.Context(), "TagQueue", map[string]string{"a": strings.Repeat("b", 100)})
	const want = "the answer of SQS is 400 QueueDoesNotExist: no such queue"
	if err == nil || err.Error() != want {
		t.Errorf("the error is %v, want %s", err, want)
	}
}
