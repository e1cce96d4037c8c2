package local

import (
	"encoding/json"
	"io"
	"net/http"
	"strconv"

	"github.com/coder/websocket"
	"github.com/google/uuid"

	"github.com/allo/reservations/internal/events/channel"
)

// maxLivePost bounds the body of a POST, in bytes: its events, with room for their escapes.
const maxLivePost = 2 * channel.MaxEvents * channel.MaxBytes

// liveAuthorization is the authorization of a handshake or of a frame.
type liveAuthorization struct {
	Host          string `json:"host"`
	Authorization string `json:"Authorization"` //nolint:tagliatelle // AppSync's name
}

// allows reports whether the authorization, sent to a host, lets the page do an operation. Like
// AppSync it asks for some token, and then the rules of the function live-authorizer decide.
func (a liveAuthorization) allows(host, operation, name string) bool {
	return a.Host == host && a.Authorization != "" && channel.Allows(operation, name)
}

// liveRequest is a frame of a page.
type liveRequest struct {
	Type          string            `json:"type"`
	ID            string            `json:"id"`
	Channel       string            `json:"channel"`
	Authorization liveAuthorization `json:"authorization"`
}

// liveAnswer is a frame of the server, apart from those with an event.
type liveAnswer struct {
	Type    string      `json:"type"`
	ID      string      `json:"id,omitempty"`
	Timeout int64       `json:"connectionTimeoutMs,omitempty"`
	Errors  []liveError `json:"errors,omitempty"`
}

// liveError is why a request was refused.
type liveError struct {
	Type    string `json:"errorType"`
	Message string `json:"message"`
}

func liveErrors(kind, message string) []liveError { return []liveError{{kind, message}} }

var keepAliveFrame = encodeLive(liveAnswer{Type: "ka"})

func encodeLive(answer liveAnswer) []byte {
	text, err := json.Marshal(answer)
	if err != nil {
		panic(err) // it has texts and numbers only
	}
	return text
}

// bytes returns the frame as it is written. The event is JSON already: the text of a message.
func (f liveFrame) bytes() []byte {
	if f.id == "" {
		return f.body
	}
	out := make([]byte, 0, len(f.body)+maxLiveID+40)
	out = append(out, `{"type":"data","id":`...)
	out = strconv.AppendQuote(out, f.id)
	out = append(out, `,"event":`...)
	out = append(out, f.body...)
	return append(out, '}')
}

// take answers a frame of the page.
func (c *liveConnection) take(kind websocket.MessageType, body []byte) {
	var r liveRequest
	if kind != websocket.MessageText || json.Unmarshal(body, &r) != nil {
		c.reply(liveAnswer{
			Type: "error", Errors: liveErrors("BadRequestException", "the frame isn't JSON"),
		})
		return
	}
	switch r.Type {
	case "connection_init":
		c.reply(liveAnswer{
			Type: "connection_ack", Timeout: c.live.opts.Timeout.Milliseconds(),
		})
	case "subscribe":
		c.subscribe(r)
	case "unsubscribe":
		c.unsubscribe(r)
	case "publish": // by HTTP only, as the authorizer refuses it here
		c.reply(liveAnswer{
			Type: "publish_error", ID: r.ID,
			Errors: liveErrors("UnauthorizedException", "Permission denied"),
		})
	default:
		c.reply(liveAnswer{
			Type: "error", ID: r.ID, Errors: liveErrors("UnsupportedOperation",
				"the operation isn't supported through the realtime channel"),
		})
	}
}

func (c *liveConnection) subscribe(r liveRequest) {
	refuse := func(kind, message string) {
		c.reply(liveAnswer{Type: "subscribe_error", ID: r.ID, Errors: liveErrors(kind, message)})
	}
	switch {
	case !isLiveID(r.ID):
		r.ID = ""
		refuse("BadRequestException", "the id must have 1 to 128 letters, digits, - or _")
	case !r.Authorization.allows(c.host, channel.Subscribe, r.Channel):
		refuse("UnauthorizedException", "Permission denied")
	case !c.live.subscribe(c, r.ID, r.Channel):
		refuse("BadRequestException", "the id is in use, or there are 100 subscriptions")
	}
}

func (c *liveConnection) unsubscribe(r liveRequest) {
	if c.live.unsubscribe(c, r.ID) {
		c.reply(liveAnswer{Type: "unsubscribe_success", ID: r.ID})
		return
	}
	c.reply(liveAnswer{
		Type: "unsubscribe_error", ID: r.ID,
		Errors: liveErrors("UnknownOperationError", "there is no subscription with this id"),
	})
}

// isLiveID reports whether a text may be the id of a subscription.
func isLiveID(id string) bool {
	for _, c := range id {
		isOne := c == '-' || c == '_' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' ||
			c >= 'A' && c <= 'Z'
		if !isOne {
			return false
		}
	}
	return id != "" && len(id) <= maxLiveID
}

// publish takes events by HTTP, as AppSync does from a caller whom IAM lets in.
func (l *Live) publish(w http.ResponseWriter, r *http.Request) {
	fail := func(status int, kind, message string) {
		writeLive(w, status, map[string][]liveError{"errors": liveErrors(kind, message)})
	}
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		fail(http.StatusMethodNotAllowed, "BadRequestException", "send a POST")
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxLivePost))
	if err != nil {
		fail(statusOfReadError(err), "BadRequestException", "the body is too large or was cut off")
		return
	}
	if !l.mayPublish(r, body) {
		fail(http.StatusUnauthorized, "UnauthorizedException", "Permission denied")
		return
	}
	var request struct {
		Channel string   `json:"channel"`
		Events  []string `json:"events"`
	}
	if json.Unmarshal(body, &request) != nil ||
		len(request.Events) < 1 || len(request.Events) > channel.MaxEvents {
		fail(http.StatusBadRequest, "BadRequestException", "the body needs a channel and 1 to 5 events")
		return
	}
	messages := make([]json.RawMessage, len(request.Events))
	for n, event := range request.Events {
		messages[n] = json.RawMessage(event)
	}
	if err := l.Publish(r.Context(), request.Channel, messages); err != nil {
		fail(http.StatusBadRequest, "BadRequestException", err.Error())
		return
	}
	writeLive(w, http.StatusOK, newLivePublished(len(messages)))
}

// NewLivePublisher lets those publish who have signed their POST for AppSync with a credential.
func NewLivePublisher(accessKeyID, secretAccessKey string) Authorizer {
	a := newIAMAuthorizer(accessKeyID, secretAccessKey)
	a.service = "appsync"
	return a
}

func (l *Live) mayPublish(r *http.Request, body []byte) bool {
	if l.publishers == nil {
		return false
	}
	_, refused := l.publishers.authorize(r, body, "")
	if refused != nil {
		l.opts.Log.Warn("events for the live channel were refused", "reason", refused.reason)
	}
	return refused == nil
}

// livePublished says which events of a POST were taken.
type livePublished struct {
	Failed     []livePublishedEvent `json:"failed"`
	Successful []livePublishedEvent `json:"successful"`
}

type livePublishedEvent struct {
	Identifier string `json:"identifier"`
	Index      int    `json:"index"`
}

func newLivePublished(events int) livePublished {
	out := livePublished{Failed: []livePublishedEvent{}}
	for n := range events {
		out.Successful = append(out.Successful, livePublishedEvent{uuid.NewString(), n})
	}
	return out
}

func writeLive(w http.ResponseWriter, status int, answer any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(answer) // an error means that the caller has gone
}
