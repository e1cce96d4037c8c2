package webhook

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"time"

	"github.com/allo/reservations/internal/events"
)

const (
	// Timeout is how long an endpoint may take to answer, from the resolving of its name on.
	Timeout = 15 * time.Second
	// maxAnswer is how much of an answer's body is read, in bytes. Nothing uses it: an endpoint that
	// sends a short answer shouldn't see its connection cut.
	maxAnswer = 64 << 10
	// maxHeader bounds an answer's header, in bytes.
	maxHeader = 16 << 10
	userAgent = "allo-reservations"
)

// Options are the settings of a Client.
type Options struct {
	// AllowLoopback allows http and https to this machine itself. Only the local program sets it.
	AllowLoopback bool
	// Roots are the trusted authorities. Nil means the machine's.
	Roots *x509.CertPool
}

// Client posts events. It is safe for concurrent use.
type Client struct {
	allowLoopback bool
	dialer        *net.Dialer
	client        *http.Client
	maxAnswer     int64
	now           func() time.Time
}

// NewClient makes a Client.
func NewClient(o Options) *Client {
	dialer := &net.Dialer{Control: guard(o.AllowLoopback)}
	transport := &http.Transport{
		DialContext:            dialer.DialContext,
		TLSClientConfig:        &tls.Config{RootCAs: o.Roots, MinVersion: tls.VersionTLS12},
		DisableKeepAlives:      true,
		DisableCompression:     true,
		MaxResponseHeaderBytes: maxHeader,
	}
	stay := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &Client{
		allowLoopback: o.AllowLoopback, dialer: dialer, maxAnswer: maxAnswer, now: time.Now,
		client: &http.Client{Transport: transport, CheckRedirect: stay, Timeout: Timeout},
	}
}

// CheckURL checks an endpoint's URL: https, a host, and neither a user nor a fragment. With
// AllowLoopback it also takes http to this machine. The error doesn't repeat the URL, which may
// have a token in it.
func (c *Client) CheckURL(raw string) error {
	u, err := url.Parse(raw)
	if err != nil || u.Hostname() == "" || u.User != nil || u.Fragment != "" {
		return errors.New("it must be a URL with a host, without a user and without a fragment")
	}
	if u.Scheme == "https" || u.Scheme == "http" && c.allowLoopback && isLoopback(u.Hostname()) {
		return nil
	}
	if c.allowLoopback {
		return errors.New("it must be a URL with https, or with http to this machine")
	}
	return errors.New("it must be a URL with https")
}

func isLoopback(host string) bool {
	a, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && a.IsLoopback()
}

// AnswerError means that an endpoint answered with a status that isn't 2xx.
type AnswerError struct {
	Status int
	// RetryAfter is how long the endpoint asked to wait, or zero.
	RetryAfter time.Duration
}

func (e *AnswerError) Error() string {
	return "the endpoint answered " + strconv.Itoa(e.Status)
}

// Gone reports whether an attempt failed because the endpoint is gone for good.
func Gone(err error) bool {
	answer := (*AnswerError)(nil)
	return errors.As(err, &answer) && answer.Status == http.StatusGone
}

func retryAfter(err error) time.Duration {
	if answer := (*AnswerError)(nil); errors.As(err, &answer) {
		return answer.RetryAfter
	}
	return 0
}

// Post sends the event once, signed with each of the secrets. It returns the status that the
// endpoint answered with, or zero when no answer came. The error is nil when the endpoint took the
// event, and an *AnswerError for another status than 2xx. No error has the URL.
func (c *Client) Post(
	ctx context.Context, to string, secrets []Secret, e events.Event,
) (status int, err error) {
	if err := c.CheckURL(to); err != nil {
		return 0, fmt.Errorf("the endpoint's URL: %w", err)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, to, bytes.NewReader(e.Body))
	if err != nil {
		return 0, errors.New("the endpoint's URL can't be used")
	}
	at, id := c.now(), e.DedupID()
	h := request.Header
	h.Set("Content-Type", "application/cloudevents+json")
	h.Set("User-Agent", userAgent)
	h.Set("Webhook-Id", id)
	h.Set("Webhook-Timestamp", strconv.FormatInt(at.Unix(), 10))
	h.Set("Webhook-Signature", Sign(secrets, id, at, e.Body))
	response, err := c.client.Do(request)
	if err != nil {
		return 0, withoutURL(err)
	}
	defer func() { _ = response.Body.Close() }()
	// The status has come, so what the rest of the answer does changes nothing.
	_, _ = io.Copy(io.Discard, io.LimitReader(response.Body, c.maxAnswer))
	if response.StatusCode >= 200 && response.StatusCode <= 299 {
		return response.StatusCode, nil
	}
	return response.StatusCode, &AnswerError{response.StatusCode, c.parseRetryAfter(response)}
}

// withoutURL removes the URL that package http puts before an error.
func withoutURL(err error) error {
	if wrapped := (*url.Error)(nil); errors.As(err, &wrapped) {
		err = wrapped.Err
	}
	return fmt.Errorf("post the event: %w", err)
}

// parseRetryAfter reads how long an endpoint that is busy asks to wait: seconds, or a date.
func (c *Client) parseRetryAfter(r *http.Response) time.Duration {
	if r.StatusCode != http.StatusTooManyRequests && r.StatusCode != http.StatusServiceUnavailable {
		return 0
	}
	text := r.Header.Get("Retry-After")
	if seconds, err := strconv.ParseUint(text, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second
	}
	if date, err := http.ParseTime(text); err == nil {
		return max(date.Sub(c.now()), 0)
	}
	return 0
}
