package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"strings"
)

// maxWebhooks bounds WEBHOOKS. Each has two queues, and costs when it is idle too.
const maxWebhooks = 10

// Webhook is an endpoint that gets events.
type Webhook struct {
	// Name is part of the names of its queues, and the value of its metrics' dimension.
	Name string `json:"name"`
	// URL is where the events are posted.
	URL string `json:"url"`
	// Types are the types of the events that it gets. Empty means all.
	Types []string `json:"types,omitempty"`
	// Secret is the name or the ARN of a secret of Secrets Manager with the signing secret.
	Secret string `json:"secret"`
}

var (
	webhookName = shape{length: 40, others: "-"}
	eventType   = shape{length: 60, others: ".-"}
)

// WebhookQueue is a webhook as an operator sees it.
type WebhookQueue struct {
	Name string `json:"name"`
	// URL is the scheme and the host of the endpoint. The rest of its URL may have a token.
	URL string `json:"url"`
	// Types are the types of the events that it gets. Empty means all.
	Types []string `json:"types,omitempty"`
	// Queue is the ARN of its queue. The queue of its dead letters has a name like it.
	Queue string `json:"queue"`
}

func (r *reader) webhooks(name string) []Webhook {
	return readWebhooks(r, name, "name, url, types and secret", func(w Webhook) (string, error) {
		return w.Name, w.check()
	})
}

func (r *reader) webhookQueues(name string) []WebhookQueue {
	return readWebhooks(r, name, "name, url, types and queue",
		func(w WebhookQueue) (string, error) { return w.Name, w.check() })
}

// readWebhooks reads a JSON list. check returns the name of an element, and what is wrong with it.
// The error doesn't repeat the value, which has URLs with tokens.
func readWebhooks[T any](
	r *reader, name, fields string, check func(T) (string, error),
) []T {
	value := r.getenv(name)
	if value == "" {
		return nil
	}
	var webhooks []T
	decoder := json.NewDecoder(bytes.NewReader([]byte(value)))
	decoder.DisallowUnknownFields()
	err := decoder.Decode(&webhooks)
	if _, more := decoder.Token(); err != nil || !errors.Is(more, io.EOF) ||
		len(webhooks) > maxWebhooks {
		r.errs = append(r.errs, fmt.Errorf("%s must be a JSON list of at most %d objects with %s",
			name, maxWebhooks, fields))
		return nil
	}
	taken := map[string]bool{}
	for n, w := range webhooks {
		called, err := check(w)
		if err != nil {
			r.errs = append(r.errs, fmt.Errorf("element %d of %s: %w", n, name, err))
		} else if taken[called] {
			r.errs = append(r.errs, fmt.Errorf("element %d of %s has the name of another", n, name))
		}
		taken[called] = true
	}
	return webhooks
}

func (w Webhook) check() error {
	if err := checkWebhook(w.Name, w.URL, w.Types); err != nil {
		return err
	}
	if w.Secret == "" || !secretID.fits(w.Secret) || strings.HasPrefix(w.Secret, "whsec_") {
		return errors.New("secret must be the name or the ARN of a secret of Secrets Manager, " +
			"and not the signing secret itself")
	}
	return nil
}

func (w WebhookQueue) check() error {
	if err := checkWebhook(w.Name, w.URL, w.Types); err != nil {
		return err
	}
	if u, err := url.Parse(w.URL); err != nil || u.Path != "" || u.RawQuery != "" {
		return errors.New("url must have no path: the operator needs the host alone")
	}
	if strings.Count(w.Queue, ":") != 5 || !resource.fits(w.Queue) {
		return errors.New("queue must be the ARN of a queue")
	}
	return nil
}

// checkWebhook checks what both lists of webhooks have.
func checkWebhook(name, endpoint string, types []string) error {
	if name == "" || !webhookName.fits(name) {
		return errors.New("name must be of lower-case letters, digits and -, at most 40")
	}
	if u, err := url.Parse(endpoint); err != nil || u.Scheme != "https" || u.Hostname() == "" ||
		u.User != nil || u.Fragment != "" || !isPort(u.Port()) {
		return errors.New("url must be a URL with https and a host, without a user and a fragment")
	}
	for _, t := range types {
		if !strings.HasPrefix(t, "allo.") || !eventType.fits(t) {
			return errors.New("types must be types of events, such as allo.reservation.held")
		}
	}
	return nil
}

// isPort reports whether a URL may have the port. Without one it is empty.
func isPort(text string) bool {
	n, err := strconv.Atoi(text)
	return text == "" || err == nil && n >= 1 && n <= 65535
}
