package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"sync"

	"github.com/allo/reservations/internal/events"
)

// consumers is a sink that remembers every event. CloudEvents tells events apart by their source
// and id, so two different events must never share both (I11).
type consumers struct {
	mu    sync.Mutex
	heard map[string]json.RawMessage
	// confirmed has the holds that were sold.
	confirmed map[string]bool
	wrong     error
}

func newConsumers() *consumers {
	return &consumers{heard: map[string]json.RawMessage{}, confirmed: map[string]bool{}}
}

// Publish takes the events.
func (c *consumers) Publish(_ context.Context, batch []events.Event) []error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, event := range batch {
		var head struct{ Source, ID string }
		if err := json.Unmarshal(event.Body, &head); err != nil || head.Source == "" {
			c.wrong = fmt.Errorf("an event has no source: %.200s", event.Body)
			continue
		}
		key := head.Source + " " + head.ID
		before, known := c.heard[key]
		if known && !bytes.Equal(before, event.Body) {
			c.wrong = fmt.Errorf("the event %s was published with two meanings: %s and %s", key, before,
				event.Body)
		}
		c.heard[key] = event.Body
		if event.Type == events.TypeConfirmed {
			c.confirmed[event.Subject] = true
		}
	}
	return make([]error, len(batch))
}

// missing returns an error if no event told of one of the sales.
func (c *consumers) missing(sales []sale) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, sale := range sales {
		if !c.confirmed[sale.hold.String()] {
			return fmt.Errorf("no event told of the sale %s", sale.hold)
		}
	}
	return nil
}

// contradiction returns what the consumers can't make sense of.
func (c *consumers) contradiction() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.wrong
}
