package awssink

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"time"

	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"github.com/allo/reservations/internal/awsapi"
	"github.com/allo/reservations/internal/config"
	"github.com/allo/reservations/internal/events/channel"
)

// The bounds of the calls of AppSync.
const (
	// maxChannelCalls is how many calls of a channel run at once. At 25 ms a call they send 3,200
	// messages of stock rows a second.
	maxChannelCalls = 16
	// channelTimeout bounds a call.
	channelTimeout = 3 * time.Second
	// maxChannelAnswer bounds an answer, in bytes: it has an id for each of the few messages.
	maxChannelAnswer = 64 << 10
	// channelTries is how often a call is made. The message after a failed one comes in a second.
	channelTries = 3
	// channelRetry is the pause before the second try. The next one is twice as long.
	channelRetry = 100 * time.Millisecond
)

// appSync publishes to the channels of an Event API of AppSync.
type appSync struct {
	endpoint string
	account  config.AWS
	client   *http.Client
	slots    chan struct{} // has an element for each call that runs
	now      func() time.Time
	retry    time.Duration
}

// NewChannel makes the live channel of an Event API, by the URL of its HTTP endpoint.
func NewChannel(account config.AWS, endpoint string) channel.Publisher {
	transport := &http.Transport{
		TLSClientConfig:     &tls.Config{RootCAs: awsapi.Roots(), MinVersion: tls.VersionTLS12},
		MaxIdleConnsPerHost: maxChannelCalls,
		IdleConnTimeout:     30 * time.Second, // a kept connection doesn't survive a freeze
	}
	// The signature is for one host, so no redirect is followed.
	stay := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &appSync{
		endpoint: endpoint, account: account,
		client: &http.Client{Transport: transport, CheckRedirect: stay, Timeout: channelTimeout},
		slots:  make(chan struct{}, maxChannelCalls), now: time.Now, retry: channelRetry,
	}
}

// call is the body of a request. AppSync takes each event as the text of a JSON value.
type call struct {
	Channel string   `json:"channel"`
	Events  []string `json:"events"`
}

// Publish sends the messages, several calls at once.
func (a *appSync) Publish(
	ctx context.Context, name string, messages []json.RawMessage,
) error {
	var calls [][]byte
	for part := range slices.Chunk(messages, channel.MaxEvents) {
		body := call{Channel: name}
		for _, message := range part {
			if len(message) > channel.MaxBytes {
				return fmt.Errorf("a message to %s has %d bytes, more than %d", name, len(message),
					channel.MaxBytes)
			}
			body.Events = append(body.Events, string(message))
		}
		text, err := json.Marshal(body)
		if err != nil {
			return fmt.Errorf("encode a call: %w", err)
		}
		calls = append(calls, text)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var sending sync.WaitGroup
	for _, body := range calls {
		select {
		case <-ctx.Done(): // a call has failed, or the time is over
		case a.slots <- struct{}{}:
			sending.Go(func() {
				defer func() { <-a.slots }()
				if err := a.send(ctx, body); err != nil {
					cancel(fmt.Errorf("publish to %s: %w", name, err))
				}
			})
		}
	}
	sending.Wait()
	return context.Cause(ctx)
}

// send makes a call, and again when it fails but may succeed.
func (a *appSync) send(ctx context.Context, body []byte) error {
	for try := 0; ; try++ {
		again, err := a.post(ctx, body)
		if err == nil || !again || try+1 == channelTries {
			return err
		}
		timer := time.NewTimer(a.retry << try)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return err
		}
	}
}

// post makes a call once. again says that it may succeed later.
func (a *appSync) post(ctx context.Context, body []byte) (again bool, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, a.endpoint+"/event",
		bytes.NewReader(body))
	if err != nil {
		return false, err
	}
	request.Header.Set("Content-Type", "application/json")
	digest := sha256.Sum256(body)
	err = v4.NewSigner().SignHTTP(ctx, awsapi.Credentials(a.account), request,
		hex.EncodeToString(digest[:]), "appsync", a.account.Region, a.now())
	if err != nil {
		return false, fmt.Errorf("sign the call: %w", err)
	}
	response, err := a.client.Do(request)
	if err != nil {
		return true, err
	}
	defer func() { _ = response.Body.Close() }()
	answer, err := io.ReadAll(io.LimitReader(response.Body, maxChannelAnswer))
	if err != nil {
		return true, fmt.Errorf("read the answer: %w", err)
	}
	if response.StatusCode != http.StatusOK {
		again = response.StatusCode == http.StatusTooManyRequests || response.StatusCode >= 500
		return again, fmt.Errorf("the answer is %d %.300s", response.StatusCode, answer)
	}
	return true, refusedMessages(answer)
}

// refusedMessages is an error when the answer says that a message wasn't taken.
func refusedMessages(answer []byte) error {
	var result struct {
		Failed []struct {
			Code    int    `json:"code"`
			Message string `json:"message"`
		} `json:"failed"`
	}
	if err := json.Unmarshal(answer, &result); err != nil {
		return errors.New("the answer isn't JSON")
	}
	if len(result.Failed) > 0 {
		return fmt.Errorf("%d messages were refused, the first one with %d %.300s",
			len(result.Failed), result.Failed[0].Code, result.Failed[0].Message)
	}
	return nil
}
