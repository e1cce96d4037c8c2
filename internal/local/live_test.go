package local

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/coder/websocket"
	"github.com/google/uuid"

	"github.com/allo/reservations/internal/events/channel"
)

// liveServer is a Live behind a server.
type liveServer struct {
	*Live
	t   *testing.T
	url string
}

func newLiveServer(t *testing.T, change ...func(*LiveOptions)) *liveServer {
	t.Helper()
	opts := LiveOptions{Log: quiet}
	for _, c := range change {
		c(&opts)
	}
	s := &liveServer{Live: NewLive(opts), t: t}
	server := httptest.NewServer(s.Handler(http.NotFoundHandler()))
	s.url = server.URL
	t.Cleanup(func() {
		_ = s.Close()
		server.Close()
	})
	return s
}

// livePage is the connection of a test's page.
type livePage struct {
	*websocket.Conn
	t    *testing.T
	host string
}

// handshake returns the subprotocols of a page, with an authorization for a host.
func handshake(host, token string) []string {
	text := fmt.Sprintf(`{"host":%q,"Authorization":%q}`, host, token)
	return []string{channel.Protocol, "header-" + base64.RawURLEncoding.EncodeToString([]byte(text))}
}

func (s *liveServer) host() string { return strings.TrimPrefix(s.url, "http://") }

// dial connects, or returns the status of the refusal.
func (s *liveServer) dial(protocols []string, header http.Header) (*livePage, int) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	//nolint:bodyclose // Dial says not to close it
	conn, response, err := websocket.Dial(ctx, "ws://"+s.host()+liveRealtimePath,
		&websocket.DialOptions{Subprotocols: protocols, HTTPHeader: header})
	if err != nil {
		if response == nil {
			s.t.Fatal(err)
		}
		return nil, response.StatusCode
	}
	s.t.Cleanup(func() { _ = conn.CloseNow() })
	return &livePage{conn, s.t, s.host()}, response.StatusCode
}

// page connects as a page does.
func (s *liveServer) page() *livePage {
	s.t.Helper()
	p, status := s.dial(handshake(s.host(), channel.Token), nil)
	if p == nil {
		s.t.Fatalf("the handshake's status is %d", status)
	}
	return p
}

func (p *livePage) send(text string) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := p.Write(ctx, websocket.MessageText, []byte(text)); err != nil {
		p.t.Fatal(err)
	}
}

// next returns the next frame, apart from keep-alive frames.
func (p *livePage) next() (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for {
		_, body, err := p.Read(ctx)
		if err != nil || string(body) != `{"type":"ka"}` {
			return string(body), err
		}
	}
}

// wants fails the test unless the next frames have these texts in them.
func (p *livePage) wants(texts ...string) {
	p.t.Helper()
	for _, text := range texts {
		frame, err := p.next()
		if err != nil || !strings.Contains(frame, text) {
			p.t.Fatalf("the next frame is %q, %v, want %q in it", frame, err, text)
		}
	}
}

// wantsEnd fails the test unless the server ends the connection for this reason.
func (p *livePage) wantsEnd(reason string) {
	p.t.Helper()
	for {
		if frame, err := p.next(); err != nil {
			if !strings.Contains(err.Error(), reason) {
				p.t.Errorf("the connection ended with %v, want %q", err, reason)
			}
			return
		} else if !strings.Contains(frame, `"type":"data"`) {
			p.t.Errorf("the page got %s before the end", frame)
		}
	}
}

// waitUntil waits until the condition holds.
func waitUntil(t *testing.T, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !holds(); {
		if time.Now().After(deadline) {
			t.Fatal("the condition didn't hold in time")
		}
		<-time.After(5 * time.Millisecond)
	}
}

// digestOf returns the digest of a body for its signature.
func digestOf(body string) string {
	sum := sha256.Sum256([]byte(body))
	return hex.EncodeToString(sum[:])
}

func (p *livePage) subscribe(id, name string) {
	p.t.Helper()
	p.send(fmt.Sprintf(`{"type":"subscribe","id":%q,"channel":%q,"authorization":`+
		`{"host":%q,"Authorization":"anyone"}}`, id, name, p.host))
}

func publishLive(t *testing.T, l *Live, name string, messages ...string) {
	t.Helper()
	raw := make([]json.RawMessage, len(messages))
	for n, m := range messages {
		raw[n] = json.RawMessage(m)
	}
	if err := l.Publish(t.Context(), name, raw); err != nil {
		t.Fatal(err)
	}
}

func TestAPageFollowsChannels(t *testing.T) {
	t.Parallel()

	s := newLiveServer(t)
	p, other := s.page(), s.page()
	p.send(`{"type":"connection_init"}`)
	p.wants(`{"type":"connection_ack","connectionTimeoutMs":300000}`)
	hold := channel.OfHold(uuid.New())
	for _, page := range []*livePage{p, other} {
		page.subscribe("0", channel.AllStock)
		page.wants(`{"type":"subscribe_success","id":"0"}`)
	}
	p.subscribe("1", hold)
	p.wants(`{"type":"subscribe_success","id":"1"}`)

	publishLive(t, s.Live, channel.AllStock, `{"a":1}`, `"\"<b>\u2028"`)
	publishLive(t, s.Live, hold, `{"c":3}`)
	for page, want := range map[*livePage][]string{
		p: {
			`{"type":"data","id":"0","event":"{\"a\":1}"}`, `"id":"0"`,
			`{"type":"data","id":"1","event":"{\"c\":3}"}`,
		},
		other: {`{"type":"data","id":"0","event":"{\"a\":1}"}`, `"id":"0"`},
	} {
		page.wants(want...)
	}
	p.send(`{"type":"unsubscribe","id":"0"}`)
	p.wants(`{"type":"unsubscribe_success","id":"0"}`)
	publishLive(t, s.Live, channel.AllStock, `{"d":4}`)
	publishLive(t, s.Live, hold, `{"e":5}`)
	p.wants(`{\"e\":5}`)
	other.wants(`{\"d\":4}`)

	_ = other.CloseNow()
	waitUntil(t, func() bool { return s.Connections() == 1 && s.Subscriptions(channel.AllStock) == 0 })
}

// The channel delivers a message byte for byte, whatever characters it has.
func TestAMessageComesAsItWas(t *testing.T) {
	t.Parallel()

	s := newLiveServer(t)
	p := s.page()
	p.subscribe("a-Z_9", channel.AllStock)
	p.wants("subscribe_success")
	const message = `{"name":"\"<b> \u2028 é\\"}`
	publishLive(t, s.Live, channel.AllStock, message)
	frame, err := p.next()
	var data struct{ Type, ID, Event string }
	if err != nil || json.Unmarshal([]byte(frame), &data) != nil || data.Event != message {
		t.Errorf("the frame is %s, %v, want the event %s", frame, err, message)
	}
}

func TestWhatAPageMayNotDo(t *testing.T) {
	t.Parallel()

	s := newLiveServer(t)
	p := s.page()
	for _, name := range []string{"/stock/*", "/holds/*", "/holds/1", "", "stock/all", "/other/all"} {
		p.subscribe("1", name)
		p.wants(`{"type":"subscribe_error","id":"1","errors":[{"errorType":"UnauthorizedException"`)
	}
	p.send(`{"type":"subscribe","id":"1","channel":"/stock/all"}`)
	p.wants("UnauthorizedException") // it has no authorization
	p.subscribe(`a"b`, channel.AllStock)
	p.wants(`{"type":"subscribe_error","errors":[{"errorType":"BadRequestException"`)
	p.subscribe(strings.Repeat("a", maxLiveID+1), channel.AllStock)
	p.wants("subscribe_error")
	p.send(`{"type":"publish","id":"2","channel":"/stock/all","events":["{}"]}`)
	p.wants(`{"type":"publish_error","id":"2","errors":[{"errorType":"UnauthorizedException"`)
	p.send(`{"type":"unsubscribe","id":"3"}`)
	p.wants(`{"type":"unsubscribe_error","id":"3","errors":[{"errorType":"UnknownOperationError"`)
	p.send(`{"type":"dance"}`)
	p.wants("UnsupportedOperation")
	p.send("nonsense")
	p.wants(`"type":"error"`)

	for n := range maxLiveSubscriptions {
		p.subscribe(fmt.Sprint(n), channel.AllStock)
		p.wants("subscribe_success")
	}
	p.subscribe("5", channel.AllStock)
	p.wants("the id is in use")
	p.subscribe("more", channel.AllStock)
	p.wants("subscribe_error")

	p.send(`{"type":"` + strings.Repeat("a", maxLiveFrame) + `"}`)
	p.wantsEnd("StatusMessageTooBig")
}

func TestWhoMayConnect(t *testing.T) {
	t.Parallel()

	s := newLiveServer(t)
	refused := map[string][]string{
		"another host":     handshake("example.com", channel.Token),
		"no token":         handshake(s.host(), ""),
		"no authorization": {channel.Protocol},
		"not base64":       {channel.Protocol, "header-!"},
		"not JSON":         {channel.Protocol, "header-YQ"},
		"no protocol":      handshake(s.host(), channel.Token)[1:],
	}
	for name, protocols := range refused {
		p, status := s.dial(protocols, nil)
		if p == nil {
			t.Fatalf("%s: the handshake's status is %d", name, status)
		}
		p.wants(`{"type":"connection_error","errors":[{"errorType":"UnauthorizedException"`)
		p.wantsEnd("not authorized")
	}
	own := handshake(s.host(), channel.Token)
	for origin, want := range map[string]int{
		s.url: 101, "": 101, "http://example.com": 403, "null": 403, "http://" + s.host() + "1": 403,
	} {
		header := http.Header{}
		if origin != "" {
			header.Set("Origin", origin)
		}
		if _, status := s.dial(own, header); status != want {
			t.Errorf("a page of %q gets %d, want %d", origin, status, want)
		}
	}
	got := statusOf(t, http.MethodGet, s.url+liveRealtimePath)
	if got != http.StatusUpgradeRequired {
		t.Errorf("a plain GET gets %d, want 426", got)
	}
}

// A page that doesn't read is dropped, and delays nobody. The control is the page beside it, which
// gets all the same messages and stays.
func TestASlowPageIsDropped(t *testing.T) {
	t.Parallel()

	s := newLiveServer(t, func(o *LiveOptions) { o.Write = 200 * time.Millisecond })
	slow, quick := s.page(), s.page()
	for _, p := range []*livePage{slow, quick} {
		p.subscribe("0", channel.AllStock)
		p.wants("subscribe_success")
	}
	long := `"` + strings.Repeat("a", 20_000) + `"` // fills the sockets' buffers soon
	for sent := 0; s.Connections() == 2; sent++ {
		if sent == maxLiveQueue {
			t.Fatal("the slow page is still there")
		}
		start := time.Now()
		publishLive(t, s.Live, channel.AllStock, long)
		if took := time.Since(start); took > patience/2 {
			t.Fatalf("a publish took %v", took)
		}
		quick.wants(long[1:100])
	}
	publishLive(t, s.Live, channel.AllStock, `"last"`)
	quick.wants("last")
	slow.SetReadLimit(1 << 20)
	slow.wantsEnd("") // it reads what was on its way, and then the end
}

func TestAPageWithTooManyFramesWaitingIsDropped(t *testing.T) {
	t.Parallel()

	s := newLiveServer(t)
	p := s.page()
	p.subscribe("0", channel.AllStock)
	p.wants("subscribe_success")
	messages := make([]string, maxLiveQueue+1)
	for n := range messages {
		messages[n] = "1"
	}
	publishLive(t, s.Live, channel.AllStock, messages[1:]...) // as many as may wait
	for range messages[1:] {
		p.wants(`"event":"1"`)
	}
	publishLive(t, s.Live, channel.AllStock, messages...)
	p.wantsEnd("too slow")
}

func TestAConnectionIsKeptAliveWhileItIsUsed(t *testing.T) {
	t.Parallel()

	s := newLiveServer(t, func(o *LiveOptions) { o.KeepAlive = 500 * time.Millisecond })
	s.page().wantsEnd("no subscription")
	var used *livePage
	waitUntil(t, func() bool { // on a busy machine the first beat may come before the subscription
		used = s.page()
		used.subscribe("0", channel.AllStock)
		_, err := used.next()
		return err == nil
	})
	for beats := 0; beats < 3; {
		_, body, err := used.Read(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if string(body) == `{"type":"ka"}` {
			beats++
		}
	}
}

func TestTheEndOfTheServerEndsItsConnections(t *testing.T) {
	t.Parallel()

	s := newLiveServer(t)
	p := s.page()
	p.subscribe("0", channel.AllStock)
	p.wants("subscribe_success")
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		_ = s.Close()
	}()
	p.wantsEnd("StatusGoingAway")
	<-closed
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	//nolint:bodyclose // Dial says not to close it
	conn, _, err := websocket.Dial(ctx, "ws://"+s.host()+liveRealtimePath,
		&websocket.DialOptions{Subprotocols: handshake(s.host(), channel.Token)})
	if err == nil {
		_, _, err = conn.Read(ctx)
	}
	if err == nil || s.Connections() != 0 {
		t.Errorf("after the end there are %d connections, %v", s.Connections(), err)
	}
}

func TestConnectionsAreBounded(t *testing.T) {
	t.Parallel()

	s := newLiveServer(t)
	for range maxLiveConnections - 1 {
		if !s.admit() {
			t.Fatal("there is no room")
		}
	}
	last := s.page()
	last.subscribe("0", channel.AllStock)
	last.wants("subscribe_success")
	own := handshake(s.host(), channel.Token)
	if _, status := s.dial(own, nil); status != http.StatusServiceUnavailable {
		t.Errorf("one more gets %d, want 503", status)
	}
	_ = last.CloseNow()
	waitUntil(t, func() bool { p, _ := s.dial(own, nil); return p != nil })
}

// Each of many subscribers gets each message once and in order, while others come and go.
func TestEachSubscriberGetsEachMessageOnce(t *testing.T) {
	t.Parallel()

	const pages, messages = 20, 300
	s := newLiveServer(t)
	var reading sync.WaitGroup
	for range pages {
		p := s.page()
		p.subscribe("0", channel.AllStock)
		p.wants("subscribe_success")
		reading.Go(func() {
			for n := range messages {
				want := fmt.Sprintf(`"event":"%d"`, n)
				if frame, err := p.next(); err != nil || !strings.Contains(frame, want) {
					t.Errorf("the next frame is %s, %v, want %s", frame, err, want)
					return
				}
			}
		})
	}
	for n := range messages {
		publishLive(t, s.Live, channel.AllStock, fmt.Sprint(n))
		if n%10 == 0 {
			passing := s.page()
			passing.subscribe("0", channel.AllStock)
			_ = passing.CloseNow()
		}
	}
	reading.Wait()
}

func TestWhatCannotBePublished(t *testing.T) {
	t.Parallel()

	l := newLiveServer(t).Live
	for _, name := range []string{
		"", "/", "stock", "/stock/", "//", "/stock/*", "/a/b/c/d/e/f", "/é",
		"/" + strings.Repeat("a", 51),
	} {
		if l.Publish(t.Context(), name, nil) == nil {
			t.Errorf("the channel %q was taken", name)
		}
	}
	for _, message := range []string{
		"", "nonsense", "\"\xff\"", `"` + strings.Repeat("a", channel.MaxBytes) + `"`,
	} {
		one := []json.RawMessage{json.RawMessage(message)}
		if l.Publish(t.Context(), channel.AllStock, one) == nil {
			t.Errorf("the message %.20q was taken", message)
		}
	}
}

func TestEventsCanBePosted(t *testing.T) {
	t.Parallel()

	const id, secret = "AKIATEST", "hidden"
	s := newLiveServer(t)
	s.LetPublish(NewLivePublisher(id, secret))
	p := s.page()
	p.subscribe("0", channel.AllStock)
	p.wants("subscribe_success")
	post := func(secret, service, body string) (int, string) {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.url+livePublishPath,
			strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		credentials := aws.Credentials{AccessKeyID: id, SecretAccessKey: secret}
		if err := v4.NewSigner().SignHTTP(t.Context(), credentials, r, digestOf(body), service,
			region, time.Now()); err != nil {
			t.Fatal(err)
		}
		response, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		text, _ := io.ReadAll(response.Body)
		return response.StatusCode, string(text)
	}
	const two = `{"channel":"/stock/all","events":["{\"a\":1}","2"]}`
	for _, c := range []struct {
		secret, service, body string
		status                int
		text                  string
	}{
		{secret, "appsync", two, 200, `"index":1`},
		{"wrong", "appsync", two, 401, "UnauthorizedException"},
		{secret, "execute-api", two, 401, "UnauthorizedException"},
		{secret, "appsync", "nonsense", 400, "BadRequestException"},
		{secret, "appsync", `{"channel":"/stock/all","events":[]}`, 400, "1 to 5"},
		{secret, "appsync", `{"channel":"/stock/all","events":["1","1","1","1","1","1"]}`, 400, ""},
		{secret, "appsync", `{"channel":"/stock/*","events":["1"]}`, 400, "live channel"},
		{secret, "appsync", strings.Repeat(" ", maxLivePost+1), 413, "too large"},
	} {
		status, text := post(c.secret, c.service, c.body)
		if status != c.status || !strings.Contains(text, c.text) {
			t.Errorf("POST %.60s = %d %s, want %d with %q", c.body, status, text, c.status, c.text)
		}
	}
	p.wants(`{\"a\":1}`, `"event":"2"`)

	for _, c := range []struct {
		method, url string
		want        int
	}{
		{http.MethodPost, newLiveServer(t).url, http.StatusUnauthorized}, // it has no publisher
		{http.MethodGet, s.url, http.StatusMethodNotAllowed},
	} {
		if got := statusOf(t, c.method, c.url+livePublishPath); got != c.want {
			t.Errorf("a %s gets %d, want %d", c.method, got, c.want)
		}
	}
}

// statusOf sends a request without a body.
func statusOf(t *testing.T, method, url string) int {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	return response.StatusCode
}
