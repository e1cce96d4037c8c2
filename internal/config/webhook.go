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

// webhooks reads a JSON list. The error doesn't repeat the value, which has URLs with tokens.
func (r *reader) webhooks(name string) []Webhook {
	value := r.getenv(name)
	if value == "" {
		return nil
	}
	var webhooks []Webhook
	decoder := json.NewDecoder(bytes.NewReader([]byte(value)))
	decoder.DisallowUnknownFields()
	err := decoder.Decode(&webhooks)
	if _, more := decoder.Token(); err != nil || !errors.Is(more, io.EOF) ||
		len(webhooks) > maxWebhooks {
		r.errs = append(r.errs, fmt.Errorf("%s must be a JSON list of at most %d objects with name, "+
			"url, types and secret", name, maxWebhooks))
		return nil
	}
	taken := map[string]bool{}
	for n, w := range webhooks {
		if err := w.check(); err != nil {
			r.errs = append(r.errs, fmt.Errorf("element %d of %s: %w", n, name, err))
		} else if taken[w.Name] {
			r.errs = append(r.errs, fmt.Errorf("element %d of %s has the name of another", n, name))
		}
		taken[w.Name] = true
	}
	return webhooks
}

func (w Webhook) check() error {
	if w.Name == "" || !webhookName.fits(w.Name) {
		return errors.New("name must be of lower-case letters, digits and -, at most 40")
	}
	if u, err := url.Parse(w.URL); err != nil || u.Scheme != "https" || u.Hostname() == "" ||
		u.User != nil || u.Fragment != "" || !isPort(u.Port()) {
		return errors.New("url must be a URL with https and a host, without a user and a fragment")
	}
	if w.Secret == "" || !secretID.fits(w.Secret) || strings.HasPrefix(w.Secret, "whsec_") {
		return errors.New("secret must be the name or the ARN of a secret of Secrets Manager, " +
			"and not the signing secret itself")
	}
	for _, t := range w.Types {
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
