package awssink

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/allo/reservations/internal/config"
	"github.com/allo/reservations/internal/events/channel"
)

// fakeAppSync answers POST /event, and keeps what it was sent.
type fakeAppSync struct {
	mu            sync.Mutex
	calls         []call
	header        http.Header
	tries         int
	running, most int
	// answer, unless nil, answers in its place.
	answer func(w http.ResponseWriter, try int, c call) (mine bool)
	// pause is how long a call takes.
	pause time.Duration
}

func (f *fakeAppSync) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	var c call
	if err := json.Unmarshal(body, &c); err != nil || r.URL.Path != "/event" ||
		r.Method != http.MethodPost {
		http.Error(w, "malformed", http.StatusBadRequest)
		return
	}
	f.mu.Lock()
	f.tries++
	f.running++
	f.most, f.header = max(f.most, f.running), r.Header
	try := f.tries
	f.mu.Unlock()
	if f.pause > 0 {
		time.Sleep(f.pause) // a call of the service takes a while
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.running--
	if f.answer != nil && f.answer(w, try, c) {
		return
	}
	f.calls = append(f.calls, c)
	_, _ = io.WriteString(w, `{"failed":[],"successful":[{"identifier":"1","index":0}]}`)
}

// made returns how many calls have come. The server may still handle the last of them.
func (f *fakeAppSync) made() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.tries
}

func newAppSync(t *testing.T, fake *fakeAppSync) *appSync {
	t.Helper()
	server := httptest.NewServer(fake)
	t.Cleanup(server.Close)
	made := NewChannel(config.AWS{
		Region: "eu-central-1", AccessKeyID: "id", SecretAccessKey: "secret", SessionToken: "session",
	}, server.URL).(*appSync)
	made.retry = time.Microsecond
	return made
}

func messages(n int) (all []json.RawMessage) {
	for i := range n {
		all = append(all, json.RawMessage(fmt.Sprintf(`{"n":%d}`, i)))
	}
	return all
}

// A call has at most five messages, and its signature covers its body and its host.
func TestAChannelGetsItsMessagesInSignedCallsOfFive(t *testing.T) {
	t.Parallel()
	fake := &fakeAppSync{}
	a := newAppSync(t, fake)
	if err := a.Publish(t.Context(), channel.AllStock, messages(12)); err != nil {
		t.Fatal(err)
	}
	var sizes []int
	var got []string
	for _, c := range fake.calls {
		sizes, got = append(sizes, len(c.Events)), append(got, c.Events...)
		if c.Channel != "/stock/all" {
			t.Errorf("a call is to %s", c.Channel)
		}
	}
	slices.Sort(sizes)
	slices.Sort(got)
	if !slices.Equal(sizes, []int{2, 5, 5}) || len(slices.Compact(got)) != 12 || got[0] != `{"n":0}` {
		t.Errorf("the calls have %v messages: %v", sizes, got)
	}
	signature := fake.header.Get("Authorization")
	if !strings.HasPrefix(signature, "AWS4-HMAC-SHA256 Credential=id/") ||
		!strings.Contains(signature, "/eu-central-1/appsync/aws4_request") ||
		!strings.Contains(signature, "host;") ||
		fake.header.Get("X-Amz-Security-Token") != "session" ||
		fake.header.Get("Content-Type") != "application/json" {
		t.Errorf("the headers are %v", fake.header)
	}
	if err := a.Publish(t.Context(), channel.AllStock, nil); err != nil || len(fake.calls) != 3 {
		t.Errorf("without messages there is a call, or the error %v", err)
	}
}

// A busy channel is asked again. One that refuses isn't, and neither is what it refuses for good.
func TestAChannelIsAskedAgainOnlyWhenItMaySucceed(t *testing.T) {
	t.Parallel()
	status := func(code, until int) func(http.ResponseWriter, int, call) bool {
		return func(w http.ResponseWriter, try int, _ call) bool {
			if try > until {
				return false
			}
			http.Error(w, `{"errors":[{"errorType":"X","message":"said so"}]}`, code)
			return true
		}
	}
	for name, c := range map[string]struct {
		answer func(http.ResponseWriter, int, call) bool
		tries  int
		want   string // in the error
	}{
		"a throttle that ends": {status(429, 2), 3, ""},
		"a throttle":           {status(429, 99), 3, "429"},
		"a fault that ends":    {status(503, 1), 2, ""},
		"a missing right":      {status(403, 99), 1, "said so"},
		"a malformed call":     {status(400, 99), 1, "400"},
		"a refused message": {func(w http.ResponseWriter, _ int, _ call) bool {
			_, _ = io.WriteString(w, `{"failed":[{"index":0,"code":500,"message":"too bad"}]}`)
			return true
		}, 3, "too bad"},
		"no JSON": {func(w http.ResponseWriter, _ int, _ call) bool {
			_, _ = io.WriteString(w, `<html>`)
			return true
		}, 3, "isn't JSON"},
	} {
		fake := &fakeAppSync{answer: c.answer}
		err := newAppSync(t, fake).Publish(t.Context(), "/holds/x", messages(1))
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) ||
			fake.made() != c.tries {
			t.Errorf("%s: Publish() = %v after %d tries, want %q after %d", name, err, fake.made(), c.want,
				c.tries)
		}
	}
}

// AppSync drops what is larger, and says nothing. So it isn't sent.
func TestALargeMessageIsRefusedBeforeItIsSent(t *testing.T) {
	t.Parallel()
	fake := &fakeAppSync{}
	a := newAppSync(t, fake)
	fits := json.RawMessage(`"` + strings.Repeat("x", channel.MaxBytes-2) + `"`)
	if err := a.Publish(t.Context(), channel.AllStock, []json.RawMessage{fits}); err != nil {
		t.Errorf("a message of %d bytes: %v", len(fits), err)
	}
	large := json.RawMessage(`"` + strings.Repeat("x", channel.MaxBytes-1) + `"`)
	err := a.Publish(t.Context(), channel.AllStock, []json.RawMessage{large})
	if err == nil || fake.made() != 1 {
		t.Errorf("a message of %d bytes: %v after %d calls, want an error and no call", len(large), err,
			fake.made())
	}
}

// The calls are bounded for all channels together.
func TestAChannelHasABoundedNumberOfCallsAtOnce(t *testing.T) {
	t.Parallel()
	fake := &fakeAppSync{pause: 2 * time.Millisecond}
	a := newAppSync(t, fake)
	var sending sync.WaitGroup
	for range 4 {
		sending.Go(func() {
			if err := a.Publish(t.Context(), channel.AllStock, messages(100)); err != nil {
				t.Error(err)
			}
		})
	}
	sending.Wait()
	if fake.made() != 80 || fake.most > maxChannelCalls || fake.most < 2 {
		t.Errorf("%d calls were made, %d of them at once, want 80 and at most %d", fake.made(), fake.most,
			maxChannelCalls)
	}
}

// A failure ends the calls that haven't begun, and so does the end of the caller's time.
func TestAFailureEndsTheOtherCalls(t *testing.T) {
	t.Parallel()
	fake := &fakeAppSync{answer: func(w http.ResponseWriter, _ int, _ call) bool {
		http.Error(w, "no", http.StatusForbidden)
		return true
	}}
	a := newAppSync(t, fake)
	if err := a.Publish(t.Context(), channel.AllStock, messages(5000)); err == nil ||
		fake.made() > 20*maxChannelCalls {
		t.Errorf("Publish() = %v after %d of 1000 calls, want an error soon", err, fake.made())
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	before := fake.made()
	if err := a.Publish(ctx, channel.AllStock, messages(5000)); err == nil {
		t.Error("a caller whose time is over gets no error")
	}
	if len(a.slots) != 0 || fake.made() > before+maxChannelCalls {
		t.Errorf("%d slots stay taken, after %d more calls", len(a.slots), fake.made()-before)
	}
}
