package local

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/allo/reservations/internal/events/channel"
)

// The paths of AppSync Events, on this machine's own host.
const (
	// liveRealtimePath takes WebSocket connections.
	liveRealtimePath = "/event/realtime"
	// livePublishPath takes events by HTTP.
	livePublishPath = "/event"
)

// The bounds of the live channel.
const (
	// maxLiveConnections bounds the connections of a Live. One takes about 27 KB, so that all of them
	// take less than 60 MB.
	maxLiveConnections = 2000
	// maxLiveSubscriptions bounds the subscriptions of a connection, as AppSync does. A page has two.
	maxLiveSubscriptions = 100
	// maxLiveFrame bounds a frame from a page, in bytes. A subscription takes about 300.
	maxLiveFrame = 4 << 10
	// maxLiveQueue bounds the frames that wait for a connection. It has room for the changes of
	// several seconds, because a page of the relay has hundreds of rows. A connection that would get
	// more is dropped.
	maxLiveQueue = 4096
	// maxLiveID bounds the id of a subscription, in bytes.
	maxLiveID = 128
	// maxLiveChannel bounds the name of a channel, in bytes: five segments of fifty characters, as
	// AppSync takes them.
	maxLiveChannel = 5 * 51
)

// LiveOptions are the times of a Live. The zero LiveOptions mean AppSync's, as far as it tells
// them.
type LiveOptions struct {
	// KeepAlive is the pause between two keep-alive frames. Zero means a minute. A connection that
	// has no subscription by then is closed.
	KeepAlive time.Duration
	// Timeout is how long a page should wait for any frame before it connects again. Zero means five
	// minutes.
	Timeout time.Duration
	// Write is how long a connection may take for the frames that wait for it. Zero means five
	// seconds.
	Write time.Duration
	Log   *slog.Logger
}

// Live stands in for AppSync Events: pages subscribe to channels over WebSockets, and the relay
// publishes to them. Each subscriber gets each message once, in the order of the calls of Publish.
// Nothing is kept for a subscriber that comes later.
//
// A subscriber that reads slowly delays nobody: it has a queue of its own, and is dropped when the
// queue is full or when a write takes too long.
type Live struct {
	opts    LiveOptions
	running sync.WaitGroup
	// publishers decides who may POST events. Without it nobody may.
	publishers Authorizer

	mu sync.Mutex
	// admitted counts the connections, and those that are being made.
	admitted    int
	connections map[*liveConnection]struct{}
	// subscriptions has the subscribers by channel. The value is the id that the subscriber chose.
	subscriptions map[string]map[liveSubscription]struct{}
	isClosed      bool
}

// liveSubscription is a connection's subscription, by the id that the page gave it.
type liveSubscription struct {
	connection *liveConnection
	id         string
}

// NewLive makes a Live. Close it.
func NewLive(opts LiveOptions) *Live {
	setDefault(&opts.KeepAlive, time.Minute)
	setDefault(&opts.Timeout, 5*time.Minute)
	setDefault(&opts.Write, 5*time.Second)
	return &Live{
		opts: opts, connections: map[*liveConnection]struct{}{},
		subscriptions: map[string]map[liveSubscription]struct{}{},
	}
}

// LetPublish lets those POST events whom the authorizer lets in, see NewLivePublisher. Without it
// nobody may. Call it before the Live serves.
func (l *Live) LetPublish(a Authorizer) { l.publishers = a }

func setDefault(d *time.Duration, value time.Duration) {
	if *d == 0 {
		*d = value
	}
}

// Publish sends messages to the subscribers of a channel, and makes Live a channel.Publisher. It
// waits for no subscriber. It returns an error when AppSync would refuse the channel or a message,
// and then sends nothing.
func (l *Live) Publish(_ context.Context, name string, messages []json.RawMessage) error {
	if !isLiveChannel(name) {
		return fmt.Errorf("%.60q isn't the name of a live channel", name)
	}
	events := make([][]byte, len(messages))
	for n, message := range messages {
		if err := checkLiveMessage(message); err != nil {
			return fmt.Errorf("message %d for %s: %w", n, name, err)
		}
		text, err := json.Marshal(string(message))
		if err != nil {
			return fmt.Errorf("encode message %d: %w", n, err)
		}
		events[n] = text
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for s := range l.subscriptions[name] {
		s.connection.send(s.id, events)
	}
	return nil
}

func checkLiveMessage(message json.RawMessage) error {
	switch {
	case len(message) > channel.MaxBytes:
		return fmt.Errorf("it has %d bytes, and the limit is %d", len(message), channel.MaxBytes)
	case !utf8.Valid(message) || !json.Valid(message):
		return errors.New("it isn't JSON")
	}
	return nil
}

// isLiveChannel reports whether a text is the path of one channel: up to five segments of letters,
// digits and hyphens. A wildcard isn't one.
func isLiveChannel(name string) bool {
	if len(name) < 2 || len(name) > maxLiveChannel || name[0] != '/' {
		return false
	}
	segments, length := 1, 0
	for _, c := range name[1:] {
		switch {
		case c == '/':
			if length == 0 {
				return false
			}
			segments, length = segments+1, 0
		case c == '-' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z':
			length++
		default:
			return false
		}
		if segments > 5 || length > 50 {
			return false
		}
	}
	return length > 0
}

// Connections returns how many connections there are.
func (l *Live) Connections() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.connections)
}

// Subscriptions returns how many subscriptions a channel has.
func (l *Live) Subscriptions(name string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.subscriptions[name])
}

// Handler returns a handler that serves the live channel and passes all other requests on.
func (l *Live) Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case liveRealtimePath:
			l.connect(w, r)
		case livePublishPath:
			l.publish(w, r)
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// admit makes room for a connection. It returns false when there are too many.
func (l *Live) admit() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.admitted >= maxLiveConnections {
		return false
	}
	l.admitted++
	return true
}

// leave gives the room of a connection back.
func (l *Live) leave() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.admitted--
}

// add adds a connection, and run as its goroutine. It returns false after Close.
func (l *Live) add(c *liveConnection, run func()) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.isClosed {
		return false
	}
	l.connections[c] = struct{}{}
	l.running.Go(run)
	return true
}

// remove removes a connection and its subscriptions.
func (l *Live) remove(c *liveConnection) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.connections, c)
	for id, name := range c.channels {
		l.drop(liveSubscription{c, id}, name)
	}
}

// drop removes a subscription. The caller holds the lock.
func (l *Live) drop(s liveSubscription, name string) {
	delete(l.subscriptions[name], s)
	if len(l.subscriptions[name]) == 0 {
		delete(l.subscriptions, name)
	}
}

// subscribe adds a subscription. It returns false when the connection has one with this id already,
// or as many as it may have.
func (l *Live) subscribe(c *liveConnection, id, name string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, twice := c.channels[id]; twice || len(c.channels) >= maxLiveSubscriptions {
		return false
	}
	if c.channels == nil {
		c.channels = map[string]string{}
	}
	c.channels[id] = name
	if l.subscriptions[name] == nil {
		l.subscriptions[name] = map[liveSubscription]struct{}{}
	}
	l.subscriptions[name][liveSubscription{c, id}] = struct{}{}
	// The answer comes before the channel's first message, because Publish waits for the lock.
	c.reply(liveAnswer{Type: "subscribe_success", ID: id})
	return true
}

// unsubscribe removes a subscription. It returns false when there is none with this id.
func (l *Live) unsubscribe(c *liveConnection, id string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	name, ok := c.channels[id]
	if ok {
		delete(c.channels, id)
		l.drop(liveSubscription{c, id}, name)
	}
	return ok
}

// Close ends all connections, and waits for them: up to ten seconds for one that doesn't answer.
// New ones are refused.
func (l *Live) Close() error {
	l.mu.Lock()
	l.isClosed = true
	open := maps.Clone(l.connections)
	l.mu.Unlock()
	for c := range open {
		c.end(closeGoingAway)
	}
	l.running.Wait()
	return nil
}
