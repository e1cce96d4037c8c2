package local

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"

	"github.com/allo/reservations/internal/events/channel"
)

// liveHeader begins the subprotocol that carries the authorization, beside channel.Protocol.
const liveHeader = "header-"

// liveClosing is why a connection ends.
type liveClosing struct {
	code   websocket.StatusCode
	reason string
}

var (
	closeGoingAway = liveClosing{websocket.StatusGoingAway, "the server stops"}
	closeSlow      = liveClosing{websocket.StatusPolicyViolation, "too slow"}
	closeIdle      = liveClosing{websocket.StatusPolicyViolation, "no subscription"}
	closeRefused   = liveClosing{websocket.StatusPolicyViolation, "not authorized"}
)

// liveConnection is the connection of a page. One goroutine reads its frames, and another one
// writes.
type liveConnection struct {
	live   *Live
	socket *websocket.Conn
	host   string // of the request
	ctx    context.Context
	cancel context.CancelCauseFunc
	// channels has the channel of each subscription, by its id. The lock of live guards it.
	channels map[string]string

	mu    sync.Mutex
	queue []liveFrame
	woken chan struct{} // has an element when the queue has a frame
}

// liveFrame waits to be written. With an id it is an event for that subscription, and the
// subscribers share the event. Without an id it is a whole frame.
type liveFrame struct {
	id   string
	body []byte
}

// connect accepts the WebSocket of a page. A page of another origin is refused: the browser says
// whose page it is.
func (l *Live) connect(w http.ResponseWriter, r *http.Request) {
	if !l.admit() {
		refuse(w, http.StatusServiceUnavailable)
		return
	}
	socket, err := websocket.Accept(w, r, &websocket.AcceptOptions{
		Subprotocols: []string{channel.Protocol},
	})
	if err != nil { // Accept has answered
		l.leave()
		l.opts.Log.Warn("a live connection was refused", "error", err.Error())
		return
	}
	socket.SetReadLimit(maxLiveFrame)
	c := &liveConnection{live: l, socket: socket, host: r.Host, woken: make(chan struct{}, 1)}
	// The request's context ends when this method returns, and the connection goes on.
	c.ctx, c.cancel = context.WithCancelCause(context.WithoutCancel(r.Context()))
	mayConnect := socket.Subprotocol() == channel.Protocol && mayConnect(r)
	added := l.add(c, func() {
		defer l.leave()
		defer l.remove(c)
		defer c.cancel(nil)
		if !mayConnect {
			c.refuse()
			return
		}
		c.serve()
	})
	if !added {
		l.leave()
		_ = socket.CloseNow()
	}
}

// mayConnect reports whether the authorization of a handshake lets the page connect.
func mayConnect(r *http.Request) bool {
	for _, value := range r.Header.Values("Sec-WebSocket-Protocol") {
		for name := range strings.SplitSeq(value, ",") {
			encoded, found := strings.CutPrefix(strings.TrimSpace(name), liveHeader)
			if !found {
				continue
			}
			text, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(encoded, "="))
			var a liveAuthorization
			return err == nil && json.Unmarshal(text, &a) == nil && a.allows(r.Host, channel.Connect, "")
		}
	}
	return false
}

// refuse tells the page that it may not connect, and closes.
func (c *liveConnection) refuse() {
	c.write([]liveFrame{{body: encodeLive(liveAnswer{
		Type: "connection_error", Errors: liveErrors("UnauthorizedException", "Permission denied"),
	})}})
	_ = c.socket.Close(closeRefused.code, closeRefused.reason)
}

// serve reads and writes until the connection ends.
func (c *liveConnection) serve() {
	var writing sync.WaitGroup
	writing.Go(c.writeFrames)
	for {
		// A context that ends would cut the socket before the page is told why. Closing it ends Read.
		kind, body, err := c.socket.Read(context.WithoutCancel(c.ctx))
		if err != nil {
			c.cancel(nil)
			break
		}
		c.take(kind, body)
	}
	writing.Wait()
	_ = c.socket.CloseNow()
}

// end closes the connection with a reason. It waits for nothing.
func (c *liveConnection) end(why liveClosing) { c.cancel(&why) }

func (w *liveClosing) Error() string { return w.reason }

// send queues events for a subscription, or drops the connection when too many frames wait. The
// caller holds the lock of live.
func (c *liveConnection) send(id string, events [][]byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ctx.Err() != nil {
		return
	}
	if len(c.queue)+len(events) > maxLiveQueue {
		c.end(closeSlow)
		return
	}
	for _, event := range events {
		c.queue = append(c.queue, liveFrame{id, event})
	}
	c.wake()
}

// reply queues an answer to a frame of the page.
func (c *liveConnection) reply(answer liveAnswer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.queue) >= maxLiveQueue {
		c.end(closeSlow)
		return
	}
	c.queue = append(c.queue, liveFrame{body: encodeLive(answer)})
	c.wake()
}

func (c *liveConnection) wake() {
	select {
	case c.woken <- struct{}{}:
	default: // the writer has been told
	}
}

// waiting takes the queue.
func (c *liveConnection) waiting() []liveFrame {
	c.mu.Lock()
	defer c.mu.Unlock()
	queue := c.queue
	c.queue = nil
	return queue
}

// writeFrames writes the queue and the keep-alive frames, until the connection ends. Then it tells
// the page why, if the reason is the server's.
func (c *liveConnection) writeFrames() {
	beat := time.NewTicker(c.live.opts.KeepAlive)
	defer beat.Stop()
	for c.ctx.Err() == nil {
		select {
		case <-c.ctx.Done():
		case <-c.woken:
			c.write(c.waiting())
		case <-beat.C:
			c.keepAlive()
		}
	}
	var why *liveClosing
	if errors.As(context.Cause(c.ctx), &why) {
		c.live.opts.Log.Info("a live connection was closed", "reason", why.reason)
		_ = c.socket.Close(why.code, why.reason)
	}
}

// keepAlive tells the page that the connection is there, unless the page doesn't use it.
func (c *liveConnection) keepAlive() {
	c.live.mu.Lock()
	isUsed := len(c.channels) > 0
	c.live.mu.Unlock()
	if !isUsed {
		c.end(closeIdle)
		return
	}
	c.write([]liveFrame{{body: keepAliveFrame}})
}

// write writes frames. A page that doesn't take them in time is dropped.
func (c *liveConnection) write(frames []liveFrame) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.ctx), c.live.opts.Write)
	defer cancel()
	for _, frame := range frames {
		err := c.socket.Write(ctx, websocket.MessageText, frame.bytes())
		switch {
		case err == nil:
		case ctx.Err() != nil:
			c.end(closeSlow)
			return
		default: // the page has gone
			c.cancel(nil)
			return
		}
	}
}
