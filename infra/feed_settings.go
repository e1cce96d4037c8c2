package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/allo/reservations/internal/events"
)

// Events is how soon the events of the ledger are published.
type Events string

const (
	// EventsOn keeps the relay running: an event is out within about a second.
	EventsOn Events = "on"
	// EventsMinute runs the relay each minute, until nothing is left.
	EventsMinute Events = "minute"
	// EventsOff leaves the relay out. The ledger goes on, so nothing is lost.
	EventsOff Events = "off"
)

// Queue is a consumer's queue on the topic.
type Queue struct {
	Name string
	// Types are the types of the events that the queue gets. Without any it gets all events.
	Types []string
}

// Webhook is an endpoint to which events are posted. Its JSON is the functions' variable WEBHOOKS.
type Webhook struct {
	Name string `json:"name"`
	URL  string `json:"url"`
	// Types are the types of the events that are posted. Without any all events are.
	Types []string `json:"types,omitempty"`
	// Secret is the name of the secret that signs the posts.
	Secret string `json:"secret"`
	// Concurrency is how many events are posted at once. It isn't part of the variable.
	Concurrency int `json:"concurrency,omitempty"`
}

// Bounds of the settings.
const (
	// maxConsumers bounds the queues and webhooks together by their resources, of which a stack has
	// at most 450 (stack_test.go).
	maxConsumers = 10
	// maxURL keeps the variable WEBHOOKS within maxVariable.
	maxURL = 200
	// maxVariable is the most bytes of WEBHOOKS. Lambda allows 4 KiB for all variables of a
	// function. maxQueuesVariable is that of WEBHOOK_QUEUES, whose functions have fewer others.
	maxVariable       = 3072
	maxQueuesVariable = 3500
	// leastConcurrency of a webhook is Lambda's minimum, and the default. mostConcurrency keeps a slow
	// endpoint from taking the account's concurrency.
	leastConcurrency = 2
	mostConcurrency  = 50
)

const (
	wantConsumer = wantName + ", such as fulfilment"
	// secretFolder and a webhook's name make the default name of its secret.
	secretFolder = "webhook-"
	// signingPrefix begins a signing secret.
	signingPrefix = "whsec_"
)

func (s *Settings) readFeed(r *reader) {
	s.Events = Events(r.oneOf("events", string(s.Stage.Events),
		string(EventsOn), string(EventsMinute), string(EventsOff)))
	s.Bus = r.onOff("bus", false)
	s.Live = r.onOff("live", false)
	if s.Live && s.Events != EventsOn {
		r.fail("live=on needs events=on: the relay publishes the stock, and must run all the time")
	}
	s.Queues = r.queues("queues")
	s.Webhooks = r.webhooks("webhooks", s.StackName()+"/"+secretFolder)
	if n := len(webhookQueuesVariable(s.Webhooks, s.longestQueueARN)); n > maxQueuesVariable {
		r.fail("webhooks has %d bytes with the queues' ARNs; a function has room for %d: "+
			"name fewer types, or use shorter names and hosts", n, maxQueuesVariable)
	}
	if n := len(s.Queues) + len(s.Webhooks); n > maxConsumers {
		r.fail("there are %d queues and webhooks; a stack has room for %d. "+
			"Subscribe other queues to the topic from stacks of their own", n, maxConsumers)
	}
}

// Relays reports whether the minute rule runs the relay.
func (s Settings) Relays() bool { return s.Events != EventsOff && s.Sweeper }

// Sinks returns the names of the relay's sinks. Each has two places (events.Places).
func (s Settings) Sinks() []string {
	if s.Bus {
		return []string{"topic", "bus"}
	}
	return []string{"topic"}
}

// queues reads a list of queues, separated by commas. A queue is a name, or a name with the types
// of its events: fulfilment:allo.reservation.confirmed|allo.reservation.released.
func (r *reader) queues(key string) []Queue {
	value := r.text(key, "")
	if value == "" {
		return nil
	}
	var queues []Queue
	for item := range strings.SplitSeq(value, ",") {
		name, types, filtered := strings.Cut(item, ":")
		q := Queue{Name: name}
		if filtered {
			q.Types = strings.Split(types, "|")
		}
		queues = append(queues, q)
		r.checkTypes(key, name, q.Types)
	}
	r.checkNames(key, len(queues), func(i int) string { return queues[i].Name })
	return queues
}

// webhooks reads a list of webhooks: objects in cdk.json, or on the command line their JSON, or
// name=url pairs, separated by commas. A secret's default name is the folder and the webhook's
// name.
func (r *reader) webhooks(key, folder string) []Webhook {
	r.defaults[key] = ""
	webhooks, err := decodeWebhooks(r.context[key])
	if err != nil {
		r.fail("%s must be a list of objects with name, url, types and secret, "+
			"or name=url pairs separated by commas: %w", key, err)
		return nil
	}
	for i := range webhooks {
		w := &webhooks[i]
		w.Secret = cmp.Or(w.Secret, folder+w.Name)
		w.Concurrency = cmp.Or(w.Concurrency, leastConcurrency)
		r.checkWebhook(key, *w)
	}
	r.checkNames(key, len(webhooks), func(i int) string { return webhooks[i].Name })
	if n := len(webhooksVariable(webhooks)); n > maxVariable {
		r.fail("%s has %d bytes; a function has room for %d: "+
			"name fewer types, or use shorter URLs", key, n, maxVariable)
	}
	return webhooks
}

// checkWebhook checks all but the name. An error doesn't repeat the URL, which may have a token, or
// the secret, which may be the signing secret itself by mistake.
func (r *reader) checkWebhook(key string, w Webhook) {
	r.checkTypes(key, w.Name, w.Types)
	if !isWebhookURL(w.URL) {
		r.fail("the url of the webhook %s must begin with https:// and a host's name, without a user "+
			"or a fragment, with a port from 1 to 65535 if any, and have at most %d characters",
			w.Name, maxURL)
	}
	if strings.Contains(w.URL, "?") {
		r.fail("the url of the webhook %s must have no query, which often has a token: everybody who "+
			"can read the template can read the url. Let the endpoint check the signature of each "+
			"post, whose secret isn't in the template", w.Name)
	}
	if !secretPattern.MatchString(w.Secret) || strings.HasPrefix(w.Secret, signingPrefix) {
		r.fail("the secret of the webhook %s must be %s, and not the signing secret itself",
			w.Name, wantSecret)
	}
	if w.Concurrency < leastConcurrency || w.Concurrency > mostConcurrency {
		r.fail("the concurrency of the webhook %s is %d; it must be from %d to %d",
			w.Name, w.Concurrency, leastConcurrency, mostConcurrency)
	}
}

// decodeWebhooks decodes the value of the context.
func decodeWebhooks(value any) ([]Webhook, error) {
	text, isText := value.(string)
	switch {
	case value == nil || isText && text == "":
		return nil, nil
	case isText && !strings.HasPrefix(text, "["):
		return webhookPairs(text)
	case !isText:
		encoded, err := json.Marshal(value)
		if err != nil {
			return nil, err
		}
		text = string(encoded)
	}
	var webhooks []Webhook
	decoder := json.NewDecoder(bytes.NewReader([]byte(text)))
	decoder.DisallowUnknownFields()
	return webhooks, decoder.Decode(&webhooks)
}

func webhookPairs(text string) (webhooks []Webhook, err error) {
	for pair := range strings.SplitSeq(text, ",") {
		name, address, ok := strings.Cut(pair, "=")
		if !ok {
			return nil, fmt.Errorf("element %d is no name=url", len(webhooks)+1)
		}
		webhooks = append(webhooks, Webhook{Name: name, URL: address})
	}
	return webhooks, nil
}

// isWebhookURL reports whether a webhook may have the URL. An address in the place of the host's
// name is refused here, and the address that the name resolves to is checked when it is dialled.
func isWebhookURL(text string) bool {
	u, err := url.Parse(text)
	return err == nil && len(text) <= maxURL && u.Scheme == "https" && u.User == nil &&
		u.Fragment == "" && domainPattern.MatchString(u.Hostname()) && isPort(u.Port())
}

// isPort reports whether a URL may have the port. Without one it is empty.
func isPort(text string) bool {
	n, err := strconv.Atoi(text)
	return text == "" || err == nil && n >= 1 && n <= 65535
}

// checkTypes checks the types of the events that a queue or a webhook gets.
func (r *reader) checkTypes(key, name string, types []string) {
	for i, kind := range types {
		if !slices.Contains(events.Types(), kind) {
			r.fail("%s: %s has the type %q; the types are %s",
				key, name, kind, strings.Join(events.Types(), ", "))
		}
		if slices.Contains(types[:i], kind) {
			r.fail("%s: %s has the type %s twice", key, name, kind)
		}
	}
}

// checkNames checks the names of a list. They are parts of queues' names, and without their hyphens
// parts of outputs' names.
func (r *reader) checkNames(key string, n int, name func(int) string) {
	seen := map[string]bool{}
	for i := range n {
		if !isName(name(i)) {
			r.fail("%s has the name %q; it must be %s", key, name(i), wantConsumer)
		}
		bare := strings.ReplaceAll(name(i), "-", "")
		if seen[bare] {
			r.fail("%s has the name %s twice; hyphens don't tell names apart", key, name(i))
		}
		seen[bare] = true
	}
}

// webhooksVariable returns the value of the functions' variable WEBHOOKS.
func webhooksVariable(webhooks []Webhook) string {
	webhooks = slices.Clone(webhooks)
	for i := range webhooks {
		webhooks[i].Concurrency = 0
	}
	text, err := json.Marshal(webhooks)
	if err != nil {
		panic(fmt.Sprintf("encode webhooks: %v", err))
	}
	return string(text)
}

// shownWebhook is a webhook as an operator sees it: without the path of its URL, which may have a
// token. Its JSON is the functions' variable WEBHOOK_QUEUES.
type shownWebhook struct {
	Name  string   `json:"name"`
	URL   string   `json:"url"`
	Types []string `json:"types,omitempty"`
	// Queue is the ARN of the webhook's queue.
	Queue string `json:"queue"`
}

// webhookQueuesVariable returns the value of WEBHOOK_QUEUES. queueARN returns the ARN of a
// webhook's queue by the webhook's name.
func webhookQueuesVariable(webhooks []Webhook, queueARN func(name string) string) string {
	shown := make([]shownWebhook, 0, len(webhooks))
	for _, w := range webhooks {
		one := shownWebhook{Name: w.Name, Types: w.Types, Queue: queueARN(w.Name)}
		if u, err := url.Parse(w.URL); err == nil { // checkWebhook reports a URL that isn't one
			one.URL = u.Scheme + "://" + u.Host
		}
		shown = append(shown, one)
	}
	text, err := json.Marshal(shown)
	if err != nil {
		panic(fmt.Sprintf("encode webhooks: %v", err))
	}
	return string(text)
}

// longestQueueARN returns the ARN of a webhook's queue in a region with a long name: a setting is
// checked before the region is known.
func (s Settings) longestQueueARN(name string) string {
	return "arn:aws:sqs:ap-southeast-1:123456789012:" + s.StackName() + "-webhook-" + name + ".fifo"
}
