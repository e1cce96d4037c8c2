package local

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/allo/reservations/internal/app/deliver"
	"github.com/allo/reservations/internal/events/webhook"
)

const (
	// secretFile has the webhook's signing secret, so that each run has the same one.
	secretFile = "webhook.secret"
	// deliveries is how many events are posted side by side, as by the deliver function.
	deliveries = 2
)

// Webhook posts the events of a queue to one endpoint, with the deliver function's handler. Unlike
// on AWS the endpoint may be on this machine, by http too.
type Webhook struct {
	Queue *Queue
	// Secret is the signing secret.
	Secret  string
	handler *deliver.Handler
	log     *slog.Logger
	origin  string // the scheme and the host of the endpoint

	mu sync.Mutex
	// recent has the last deliveries, the newest last.
	recent []deliver.Delivery
}

// localWebhook is the webhook's name.
const localWebhook = "local"

// NewWebhook makes a Webhook. It keeps the signing secret in the directory.
func NewWebhook(endpoint, dir string, log *slog.Logger) (*Webhook, error) {
	client := webhook.NewClient(webhook.Options{AllowLoopback: true})
	if err := client.CheckURL(endpoint); err != nil {
		return nil, fmt.Errorf("the webhook's URL: %w", err)
	}
	text, secrets, err := keptSecret(dir)
	if err != nil {
		return nil, err
	}
	queue := NewQueue("local-webhook-local.fifo", nil, time.Now, log)
	handler := deliver.New(client, queue, queue.Now, []deliver.Webhook{{
		Name: localWebhook, URL: endpoint,
		Secrets: func(context.Context) ([]webhook.Secret, error) { return secrets, nil },
	}}, nil, log)
	w := &Webhook{Queue: queue, Secret: text, handler: handler, log: log, origin: originOf(endpoint)}
	handler.Watch(w.remember)
	return w, nil
}

// originOf returns the scheme and the host of a URL, which has been checked.
func originOf(endpoint string) string {
	u, err := url.Parse(endpoint)
	if err != nil {
		return ""
	}
	return u.Scheme + "://" + u.Host
}

func (w *Webhook) remember(d deliver.Delivery) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.recent = append(w.recent, d)
	w.recent = w.recent[max(len(w.recent)-deliver.MaxDeliveries, 0):]
}

// State returns how the webhook stands.
func (w *Webhook) State(ctx context.Context) deliver.State {
	s := deliver.State{Name: localWebhook, URL: w.origin, Deliveries: []deliver.Delivery{}}
	waiting, lag, dead := w.Queue.Counts()
	s.Waiting, s.Lag, s.DeadLetters = waiting, &lag, dead
	s.Parked, _ = w.Queue.Parked(ctx, "") // never fails
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, d := range slices.Backward(w.recent) {
		s.Deliveries = append(s.Deliveries, d)
	}
	return s
}

// keptSecret returns the secret of the directory's file, and makes both if there are none.
func keptSecret(dir string) (string, []webhook.Secret, error) {
	path := filepath.Join(dir, secretFile)
	file, err := os.ReadFile(path)
	text := strings.TrimSpace(string(file))
	if errors.Is(err, fs.ErrNotExist) {
		text = webhook.NewSecret()
		err = errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(path, []byte(text+"\n"), 0o600))
	}
	if err != nil {
		return "", nil, fmt.Errorf("keep the webhook's secret: %w", err)
	}
	secrets, err := webhook.ParseSecrets(text)
	if err != nil {
		return "", nil, fmt.Errorf("%s: %w", path, err)
	}
	return text, secrets, nil
}

// Run posts events until ctx ends.
func (w *Webhook) Run(ctx context.Context) {
	var running sync.WaitGroup
	for range deliveries {
		running.Go(func() { w.Queue.Run(ctx, w.handler.Handle, w.log) })
	}
	running.Wait()
}
