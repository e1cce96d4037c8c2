// Package awsapi calls AWS without AWS's clients. A call is one signed POST of JSON. The clients of
// Secrets Manager and SQS with the SDK's configuration would add megabytes that a cold start has to
// load. Package awsapi links no database driver, so that a function without a database can use it.
package awsapi

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"github.com/allo/reservations/internal/config"
)

// maxReason bounds the part of a refusal that is logged, in bytes.
const maxReason = 300

// Service is a service of AWS that takes JSON.
type Service struct {
	// Title is its name in errors.
	Title string
	// Host is the first part of its host name, and its name in signatures.
	Host string
	// Target is what the name of an action follows in the header X-Amz-Target.
	Target string
	// ContentType names the version of its JSON.
	ContentType string
	// Timeout bounds a call.
	Timeout time.Duration
	// MaxAnswer bounds an answer, in bytes.
	MaxAnswer int64
}

// SQS takes the calls about queues. Its answers are short, because nobody receives with it.
var SQS = Service{
	Title: "SQS", Host: "sqs", Target: "AmazonSQS", ContentType: "application/x-amz-json-1.0",
	Timeout: 3 * time.Second, MaxAnswer: 64 << 10,
}

// Logs takes the calls about the lines of CloudWatch Logs.
var Logs = Service{
	Title: "CloudWatch Logs", Host: "logs", Target: "Logs_20140328",
	ContentType: "application/x-amz-json-1.1",
	Timeout:     3 * time.Second, MaxAnswer: 2 << 20,
}

// Metrics takes the calls about the metrics of CloudWatch.
var Metrics = Service{
	Title: "CloudWatch", Host: "monitoring", Target: "GraniteServiceVersion20100801",
	ContentType: "application/x-amz-json-1.0",
	Timeout:     3 * time.Second, MaxAnswer: 256 << 10,
}

// Client calls one service as the Lambda. It is safe for concurrent use.
type Client struct {
	service  Service
	account  config.AWS
	endpoint string
	// client is made at the first call, because parsing its roots takes milliseconds.
	client func() *http.Client
	now    func() time.Time
}

// NewClient makes a Client. The endpoint is a URL, or empty for the region's own.
func NewClient(service Service, account config.AWS, endpoint string) *Client {
	if endpoint == "" {
		domain := "amazonaws.com"
		if strings.HasPrefix(account.Region, "cn-") {
			domain = "amazonaws.com.cn"
		}
		endpoint = "https://" + service.Host + "." + account.Region + "." + domain
	}
	return &Client{
		service: service, account: account, endpoint: strings.TrimSuffix(endpoint, "/") + "/",
		client: sync.OnceValue(newClient), now: time.Now,
	}
}

func newClient() *http.Client {
	transport := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: Roots(), MinVersion: tls.VersionTLS12},
		// Minutes and a freeze lie between two calls, so a kept connection would be dead.
		DisableKeepAlives: true,
	}
	// The signature is for one host, so no redirect is followed.
	stay := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &http.Client{Transport: transport, CheckRedirect: stay}
}

// Endpoint returns the service's URL, which ends in a slash.
func (c *Client) Endpoint() string { return c.endpoint }

// Call calls an action with the JSON of in, and returns the answer.
func (c *Client) Call(ctx context.Context, action string, in any) ([]byte, error) {
	body, err := json.Marshal(in)
	if err != nil {
		return nil, err
	}
	answer, _, err := c.post(ctx, action, body, map[string]string{
		"Content-Type": c.service.ContentType, "X-Amz-Target": c.service.Target + "." + action,
	})
	return answer, err
}

// post sends a signed POST with these headers to the endpoint, and returns the answer and its
// headers. The action is for errors. An answer other than 200 is a *RefusedError.
func (c *Client) post(
	ctx context.Context, action string, body []byte, headers map[string]string,
) ([]byte, http.Header, error) {
	ctx, cancel := context.WithTimeout(ctx, c.service.Timeout)
	defer cancel()
	request, err := c.request(ctx, body, headers)
	if err != nil {
		return nil, nil, err
	}
	response, err := c.client().Do(request)
	if err != nil {
		return nil, nil, fmt.Errorf("call %s: %w", c.service.Title, err)
	}
	defer func() { _ = response.Body.Close() }()
	answer, err := io.ReadAll(io.LimitReader(response.Body, c.service.MaxAnswer+1))
	if err != nil {
		return nil, nil, fmt.Errorf("read the response of %s: %w", c.service.Title, err)
	}
	if int64(len(answer)) > c.service.MaxAnswer {
		return nil, nil, fmt.Errorf("the response of %s to %s has more than %d bytes", c.service.Title,
			action, c.service.MaxAnswer)
	}
	if response.StatusCode != http.StatusOK {
		return nil, nil, c.refusal(response.StatusCode, answer, response.Header)
	}
	return answer, response.Header, nil
}

// request makes a signed request.
func (c *Client) request(
	ctx context.Context, body []byte, headers map[string]string,
) (*http.Request, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, c.endpoint,
		bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("call %s: %w", c.service.Title, err)
	}
	for name, value := range headers {
		request.Header.Set(name, value)
	}
	err = v4.NewSigner().SignHTTP(ctx, Credentials(c.account), request, sum(body), c.service.Host,
		c.account.Region, c.now())
	if err != nil {
		return nil, fmt.Errorf("sign the request to %s: %w", c.service.Title, err)
	}
	return request, nil
}

// Credentials returns the credentials of the Lambda's environment. Lambda replaces the environment
// before they expire.
func Credentials(a config.AWS) aws.Credentials {
	return aws.Credentials{
		AccessKeyID: a.AccessKeyID, SecretAccessKey: a.SecretAccessKey, SessionToken: a.SessionToken,
		Source: "the environment",
	}
}

func sum(body []byte) string {
	digest := sha256.Sum256(body)
	return hex.EncodeToString(digest[:])
}

// RefusedError is an answer of a service other than 200.
type RefusedError struct {
	// Service is the service's title.
	Service string
	Status  int
	// Name is the service's name for the error, or empty.
	Name string
	// Reason names the role and the resource, which an administrator needs to allow the call.
	Reason string
}

func (e *RefusedError) Error() string {
	return fmt.Sprintf("the answer of %s is %d %.*s: %.*s", e.Service, e.Status, maxReason, e.Name,
		maxReason, e.Reason)
}

// refusal reads an answer other than 200. Services with REST paths name the error in a header.
func (c *Client) refusal(status int, body []byte, header http.Header) error {
	var reason struct {
		Type    string `json:"__type"`
		Message string
	}
	_ = json.Unmarshal(body, &reason) // a proxy's response isn't JSON and leaves only the status
	_, name, found := strings.Cut(reason.Type, "#")
	if !found {
		name = cmp.Or(reason.Type, header.Get("X-Amzn-Errortype"))
	}
	return &RefusedError{
		Service: c.service.Title, Status: status, Name: name, Reason: reason.Message,
	}
}
