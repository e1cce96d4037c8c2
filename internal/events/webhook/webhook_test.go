package webhook

import (
	"context"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/allo/reservations/internal/events"
)

var event = events.Event{
	ID: "01990c1e-0000-7000-8000-000000000001-2", Type: "allo.reservation.confirmed",
	Subject: "01990c1e-0000-7000-8000-000000000001",
	Body:    []byte(`{"specversion":"1.0","id":"01990c1e-0000-7000-8000-000000000001-2"}`),
}

// secretsOf parses the texts of secrets.
func secretsOf(t *testing.T, texts ...string) []Secret {
	t.Helper()
	secrets, err := ParseSecrets(strings.Join(texts, " "))
	if err != nil {
		t.Fatal(err)
	}
	return secrets
}

// endpoint starts a TLS server on this machine, and a client that trusts it.
func endpoint(
	t *testing.T, allowLoopback bool, h http.HandlerFunc,
) (*httptest.Server, *Client) {
	t.Helper()
	server := httptest.NewTLSServer(h)
	t.Cleanup(server.Close)
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	return server, NewClient(Options{AllowLoopback: allowLoopback, Roots: roots})
}

// The vector is that of the specification's reference libraries.
func TestTheSignatureIsTheSpecificationsVector(t *testing.T) {
	t.Parallel()

	secrets := secretsOf(t, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
	got := Sign(secrets, "msg_p5jXN8AQM9LWM0D4loKWxJek", time.Unix(1614265330, 0),
		[]byte(`{"test": 2432232314}`))
	const want = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
	if got != want {
		t.Errorf("the signature is %s, want %s", got, want)
	}
}

// The reference library is the receiver. Each row but the first takes away one thing, and the
// receiver must notice.
func TestTheReferenceLibraryAcceptsWhatIsSent(t *testing.T) {
	t.Parallel()

	fresh, old, other := NewSecret(), NewSecret(), NewSecret()
	for name, c := range map[string]struct {
		sent     []string
		received string
		age      time.Duration
		body     string // replaces the one that was sent
		want     bool
	}{
		"one secret":                   {sent: []string{fresh}, received: fresh, want: true},
		"rotating, still the old one":  {sent: []string{fresh, old}, received: old, want: true},
		"rotating, already the new":    {sent: []string{fresh, old}, received: fresh, want: true},
		"rotated, still the old one":   {sent: []string{fresh}, received: old},
		"another's secret":             {sent: []string{fresh, old}, received: other},
		"an old attempt that repeats":  {sent: []string{fresh}, received: fresh, age: 6 * time.Minute},
		"another body under that sign": {sent: []string{fresh}, received: fresh, body: `{}`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			receiver, err := standardwebhooks.NewWebhook(c.received)
			if err != nil {
				t.Fatal(err)
			}
			var verified error
			server, client := endpoint(t, true, func(_ http.ResponseWriter, r *http.Request) {
				body, err := io.ReadAll(r.Body)
				if err != nil || string(body) != string(event.Body) || r.Method != http.MethodPost ||
					r.Header.Get("Content-Type") != "application/cloudevents+json" ||
					r.Header.Get("Webhook-Id") != event.ID {
					t.Errorf("the endpoint got %s %v %s, %v", r.Method, r.Header, body, err)
				}
				if c.body != "" {
					body = []byte(c.body)
				}
				verified = receiver.Verify(body, r.Header)
			})
			client.now = func() time.Time { return time.Now().Add(-c.age) }
			if err := errorOf(t, client, server.URL, secretsOf(t, c.sent...)); err != nil {
				t.Fatal(err)
			}
			if (verified == nil) != c.want {
				t.Errorf("the receiver says %v, want it to accept: %t", verified, c.want)
			}
		})
	}
}

// After a restore an id comes again for another event. Its webhook-id is another one, and it is the
// one that is signed. Without a source in the body, as in the control, the id is all that there is.
func TestAWebhookTellsEpochsApart(t *testing.T) {
	t.Parallel()

	secret := NewSecret()
	receiver, err := standardwebhooks.NewWebhook(secret)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	server, client := endpoint(t, true, func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil || receiver.Verify(body, r.Header) != nil {
			t.Errorf("the receiver refuses %s %v, %v", body, r.Header, err)
		}
		got = append(got, r.Header.Get("Webhook-Id"))
	})
	for _, body := range []string{
		`{"source":"/allo/11111111-0000"}`, `{"source":"/allo/22222222-0000"}`, `{}`,
	} {
		e := event
		e.Body = []byte(body)
		if _, err := client.Post(t.Context(), server.URL, secretsOf(t, secret), e); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{"11111111-" + event.ID, "22222222-" + event.ID, event.ID}
	if !slices.Equal(got, want) {
		t.Errorf("the webhook-ids are %v, want %v", got, want)
	}
}

// errorOf posts the event, and returns the error.
func errorOf(t *testing.T, client *Client, to string, secrets []Secret) error {
	t.Helper()
	_, err := client.Post(t.Context(), to, secrets, event)
	return err
}

func TestSecretsAreReadStrictlyAndNotShown(t *testing.T) {
	t.Parallel()

	one, two := NewSecret(), NewSecret()
	of := func(bytes int) string {
		return secretPrefix + base64.StdEncoding.EncodeToString(make([]byte, bytes))
	}
	for text, want := range map[string]int{
		one: 1, one + "\n": 1, one + " " + two: 2, one + "\n" + two + "\n": 2,
		of(24): 1, of(64): 1,
		of(23): 0, of(65): 0, "": 0, " ": 0, "whsec_": 0, one[6:]: 0, "whsec_%": 0,
		one + "," + two: 0, one + " " + two + " " + one: 0,
	} {
		got, err := ParseSecrets(text)
		if len(got) != want || (err == nil) != (want > 0) {
			t.Errorf("ParseSecrets(%q) = %d secrets, %v, want %d", text, len(got), err, want)
		}
		if err != nil && len(text) > 10 && strings.Contains(err.Error(), text[6:10]) {
			t.Errorf("the error shows the secret: %v", err)
		}
	}
	for _, format := range []string{"%v", "%+v", "%#v", "%s"} {
		shown := fmt.Sprintf(format, secretsOf(t, one)[0])
		if shown != "whsec_***" {
			t.Errorf("%s shows a secret as %s", format, shown)
		}
	}
}

// follow receives an event whenever it is visible, until its last attempt, and returns the delays
// between the attempts.
func follow(t *testing.T, attemptTakes time.Duration) (waits []time.Duration) {
	t.Helper()
	var elapsed, attempted time.Duration
	for n := range Receives() {
		turn := TurnOf(elapsed)
		if turn.Hide > longestHide {
			t.Errorf("after %s an event is hidden for %s; SQS takes less than 12h", elapsed, turn.Hide)
		}
		if turn.Attempt && n > 0 {
			waits = append(waits, elapsed-attempted)
		}
		if turn.Attempt {
			attempted = elapsed
			elapsed += attemptTakes
		}
		if turn.Last != (n == Receives()-1) {
			t.Errorf("receive %d of %d is the last: %t", n+1, Receives(), turn.Last)
		}
		elapsed += turn.Hide
	}
	return waits
}

func TestTheScheduleIsTheSpecifications(t *testing.T) {
	t.Parallel()

	const want = "[5s 5m0s 30m0s 2h0m0s 5h0m0s 10h0m0s 14h0m0s 20h0m0s 24h0m0s]"
	if got := fmt.Sprint(follow(t, 0)); got != want {
		t.Errorf("the attempts wait %s, want %s", got, want)
	}
	if waits := follow(t, Timeout); len(waits) != len(Waits()) {
		t.Errorf("attempts that take %s wait %s, want %d waits", Timeout, waits, len(Waits()))
	}
}

func TestTheTimeSinceTheFirstReceiveChoosesTheTurn(t *testing.T) {
	t.Parallel()

	attempt := func(hide time.Duration) Turn { return Turn{Attempt: true, Hide: hide} }
	const third = 5*time.Minute + 5*time.Second // when the third attempt is due
	for elapsed, want := range map[time.Duration]Turn{
		-time.Second: attempt(6 * time.Second), // of another clock
		0:            attempt(5 * time.Second),
		// The queue was a second early.
		third - time.Second: attempt(30*time.Minute + time.Second),
		third - time.Minute: attempt(time.Minute),
		// The third attempt was missed.
		third + time.Hour: attempt(90 * time.Minute),
		// A delay goes on.
		26 * time.Hour:                {Hide: 5*time.Hour + 35*time.Minute + 5*time.Second},
		1000 * time.Hour:              {Attempt: true, Last: true},
		75*time.Hour + 35*time.Minute: {Hide: 5 * time.Second},
	} {
		if got := TurnOf(elapsed); got != want {
			t.Errorf("the turn after %s is %+v, want %+v", elapsed, got, want)
		}
	}
}

func TestAnswers(t *testing.T) {
	t.Parallel()

	date := time.Now().Add(time.Minute).UTC().Truncate(time.Second)
	for _, c := range []struct {
		status     int
		retryAfter string
		err        string
		gone       bool
		delay      time.Duration // when the schedule says 5 s
	}{
		{status: 200},
		{status: 204},
		{status: 299},
		{status: 300, err: "answered 300", delay: 5 * time.Second},
		{status: 301, err: "answered 301", delay: 5 * time.Second},
		{status: 400, err: "answered 400", delay: 5 * time.Second},
		{status: 410, err: "answered 410", gone: true, delay: 5 * time.Second},
		{status: 500, retryAfter: "60", err: "answered 500", delay: 5 * time.Second},
		{status: 429, retryAfter: "60", err: "answered 429", delay: time.Minute},
		{status: 503, retryAfter: "60", err: "answered 503", delay: time.Minute},
		{status: 503, retryAfter: "2", err: "answered 503", delay: 5 * time.Second},
		{status: 503, retryAfter: "999999", err: "answered 503", delay: maxRetryAfter},
		{status: 503, retryAfter: "-1", err: "answered 503", delay: 5 * time.Second},
		{status: 503, retryAfter: "99999999999999", err: "answered 503", delay: 5 * time.Second},
		{status: 503, retryAfter: "soon", err: "answered 503", delay: 5 * time.Second},
		{status: 503, err: "answered 503", delay: 5 * time.Second},
		{
			status: 429, retryAfter: date.Format(http.TimeFormat), err: "answered 429",
			delay: time.Minute,
		},
	} {
		server, client := endpoint(t, true, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", "/elsewhere")
			if c.retryAfter != "" {
				w.Header().Set("Retry-After", c.retryAfter)
			}
			w.WriteHeader(c.status)
		})
		client.now = func() time.Time { return date.Add(-time.Minute) }
		status, err := client.Post(t.Context(), server.URL, secretsOf(t, NewSecret()), event)
		if status != c.status {
			t.Errorf("the status is %d, want %d", status, c.status)
		}
		if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) ||
			Gone(err) != c.gone {
			t.Errorf("%d: the error is %v, gone %t, want %q", c.status, err, Gone(err), c.err)
		}
		if err != nil && Delay(5*time.Second, err) != c.delay {
			t.Errorf("%d %q: the delay is %s, want %s", c.status, c.retryAfter,
				Delay(5*time.Second, err), c.delay)
		}
		if err != nil && Delay(10*time.Hour, err) != 10*time.Hour {
			t.Errorf("%d: the endpoint shortened the schedule", c.status)
		}
	}
}

func TestARedirectIsNotFollowed(t *testing.T) {
	t.Parallel()

	var reached atomic.Int64
	server, client := endpoint(t, true, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/elsewhere" {
			reached.Add(1)
			return
		}
		http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
	})
	post := func() error {
		return errorOf(t, client, server.URL, secretsOf(t, NewSecret()))
	}
	if err := post(); err == nil || reached.Load() > 0 {
		t.Errorf("the redirect was followed %d times, %v", reached.Load(), err)
	}
	// The control: without the guard, the event goes there.
	client.client.CheckRedirect = nil
	if err := post(); err != nil || reached.Load() != 1 {
		t.Errorf("without the guard the redirect was followed %d times, %v", reached.Load(), err)
	}
}

func TestOnlyPublicAddressesAreDialled(t *testing.T) {
	t.Parallel()

	for text, want := range map[string]bool{
		"93.184.216.34": true, "8.8.8.8": true, "172.15.0.1": true, "172.32.0.1": true,
		"100.63.255.255": true, "100.128.0.0": true, "2606:4700::1111": true, "2001:200::1": true,
		"0.0.0.0": false, "0.1.2.3": false, "10.0.0.1": false, "100.64.0.1": false,
		"127.0.0.1": false, "127.255.255.254": false, "169.254.169.254": false, "172.16.0.1": false,
		"172.31.255.255": false, "192.0.0.8": false, "192.0.2.1": false, "192.88.99.1": false,
		"192.168.1.1": false, "198.18.0.1": false, "198.51.100.1": false, "203.0.113.1": false,
		"224.0.0.1": false, "239.255.255.250": false, "240.0.0.1": false, "255.255.255.255": false,
		"::": false, "::1": false, "::127.0.0.1": false, "::ffff:93.184.216.34": false,
		"::ffff:127.0.0.1": false, "64:ff9b::7f00:1": false, "64:ff9b:1::1": false, "100::1": false,
		"fc00::1": false, "fd00:ec2::254": false, "fe80::1": false, "fe80::1%eth0": false,
		"fec0::1": false, "ff02::1": false, "2001::1": false, "2001:db8::1": false,
		"2002:7f00:1::": false, "3fff::1": false, "4000::1": false, "5f00::1": false,
	} {
		a := netip.MustParseAddr(text)
		if got := public(a); got != want {
			t.Errorf("public(%s) = %t, want %t", text, got, want)
		}
		err := guard(false)("tcp", netip.AddrPortFrom(a, 443).String(), nil)
		if (err == nil) != want {
			t.Errorf("the dialler's guard says %v about %s", err, text)
		}
		if err := guard(true)("tcp", netip.AddrPortFrom(a, 443).String(), nil); (err == nil) !=
			(want || a.IsLoopback()) {
			t.Errorf("the guard that allows loopback says %v about %s", err, text)
		}
	}
}

// nameServer answers each question for an IPv4 address with this one, and others with nothing.
func nameServer(t *testing.T, address [4]byte) *net.Resolver {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	go func() {
		buffer := make([]byte, 512)
		for {
			n, from, err := conn.ReadFrom(buffer)
			if err != nil {
				return
			}
			_, _ = conn.WriteTo(dnsAnswer(buffer[:n], address), from)
		}
	}()
	return &net.Resolver{
		PreferGo: true,
		Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "udp", conn.LocalAddr().String())
		},
	}
}

// dnsAnswer is the answer to a query with one question.
func dnsAnswer(query []byte, address [4]byte) []byte {
	end := 12 // the header's size
	for query[end] != 0 {
		end += int(query[end]) + 1
	}
	end += 5 // the root's label, the type and the class
	isA := query[end-3] == 1
	answer := append([]byte{}, query[:end]...)
	answer[2], answer[3] = 0x81, 0x80 // an answer, recursion available
	copy(answer[4:12], []byte{0, 1, 0, 0, 0, 0, 0, 0})
	if isA {
		answer[7] = 1
		answer = append(answer, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4)
		answer = append(answer, address[:]...)
	}
	return answer
}

// The attempts try to reach what only the machine itself can reach. The last one, without the
// guard, shows that the name would have led there.
func TestAForbiddenAddressIsNotReached(t *testing.T) {
	t.Parallel()

	var reached atomic.Int64
	server, client := endpoint(t, false, func(http.ResponseWriter, *http.Request) {
		reached.Add(1)
	})
	client.dialer.Resolver = nameServer(t, [4]byte{127, 0, 0, 1})
	_, port, _ := net.SplitHostPort(server.Listener.Addr().String())
	named := "https://example.com:" + port + "/hook"
	post := func(to string) error {
		return errorOf(t, client, to, secretsOf(t, NewSecret()))
	}
	for _, to := range []string{
		named,
		server.URL,
		"https://[::ffff:127.0.0.1]:" + port,
		"https://169.254.169.254/latest/meta-data/",
		"https://[fd00:ec2::254]/",
		"https://[64:ff9b::a9fe:a9fe]/",
		"https://0.0.0.0:" + port,
	} {
		forbidden := (*ForbiddenAddressError)(nil)
		if err := post(to); !errors.As(err, &forbidden) {
			t.Errorf("posting to %s gives %v, want that its address is forbidden", to, err)
		}
	}
	// An unusual notation of an address is a name, which leads to this machine too.
	for _, to := range []string{
		"https://2130706433:" + port, "https://0x7f.1:" + port, "https://0177.0.0.1:" + port,
	} {
		if err := post(to); err == nil {
			t.Errorf("posting to %s succeeds", to)
		}
	}
	if reached.Load() > 0 {
		t.Errorf("the server was reached %d times", reached.Load())
	}

	client.dialer.Control = nil
	if err := post(named); err != nil || reached.Load() != 1 {
		t.Errorf("without the guard the server was reached %d times, %v", reached.Load(), err)
	}
}

func TestOnlyHTTPSIsUsed(t *testing.T) {
	t.Parallel()

	strict, local := NewClient(Options{}), NewClient(Options{AllowLoopback: true})
	for text, want := range map[string][2]bool{ // strict, local
		"https://example.com/hook?token=1": {true, true},
		"https://127.0.0.1/":               {true, true}, // the dialler decides
		"http://127.0.0.1:9000/hook":       {false, true},
		"http://[::1]:9000/hook":           {false, true},
		"http://localhost:9000/hook":       {false, true},
		"http://example.com/hook":          {false, false},
		"http://127.0.0.1.example.com/":    {false, false},
		"http://10.0.0.1/":                 {false, false},
		"ftp://example.com/":               {false, false},
		"https://user@example.com/":        {false, false},
		"https://example.com/#part":        {false, false},
		"https:///hook":                    {false, false},
		"example.com":                      {false, false},
		"":                                 {false, false},
		"https://exa mple.com":             {false, false},
	} {
		got := [2]bool{strict.CheckURL(text) == nil, local.CheckURL(text) == nil}
		if got != want {
			t.Errorf("CheckURL(%q) allows %v, want %v", text, got, want)
		}
	}
	err := errorOf(t, strict, "http://example.com/?token=17", nil)
	if err == nil || !strings.Contains(err.Error(), "https") || strings.Contains(err.Error(), "17") {
		t.Errorf("posting over http gives %v", err)
	}
}

func TestNoProxyOfTheEnvironmentIsUsed(t *testing.T) {
	t.Parallel()

	proxied := make(chan string, 1)
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		proxied <- r.Method
		w.WriteHeader(http.StatusForbidden)
	}))
	t.Cleanup(proxy.Close)
	server, client := endpoint(t, true, func(http.ResponseWriter, *http.Request) {})
	transport := client.client.Transport.(*http.Transport)
	if transport.Proxy != nil {
		t.Fatal("the client uses a proxy")
	}
	// The control: a proxy would get the request, and resolve the name where no guard sees it.
	address, _ := url.Parse(proxy.URL)
	transport.Proxy = http.ProxyURL(address)
	err := errorOf(t, client, server.URL, secretsOf(t, NewSecret()))
	if err == nil || <-proxied != http.MethodConnect {
		t.Errorf("the proxy isn't asked, %v", err)
	}
}

func TestASlowEndpointFails(t *testing.T) {
	t.Parallel()

	asked, release := make(chan struct{}, 2), make(chan struct{})
	server, client := endpoint(t, true, func(http.ResponseWriter, *http.Request) {
		asked <- struct{}{}
		<-release
	})
	if client.client.Timeout != Timeout {
		t.Errorf("the client waits for %s, want %s", client.client.Timeout, Timeout)
	}
	secrets := secretsOf(t, NewSecret())
	client.client.Timeout = 300 * time.Millisecond
	err := errorOf(t, client, server.URL, secrets)
	if timeout := net.Error(nil); !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Errorf("a silent endpoint gives %v, want a timeout", err)
	}
	// The control: without the limit, the attempt lasts until the endpoint answers.
	client.client.Timeout = 0
	done := make(chan error)
	go func() { done <- errorOf(t, client, server.URL, secrets) }()
	<-asked
	select {
	case err := <-done:
		t.Errorf("the attempt ended with %v before the endpoint answered", err)
	default:
	}
	close(release)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestAHugeAnswerIsCut(t *testing.T) {
	t.Parallel()

	whole := make(chan bool, 2)
	server, client := endpoint(t, true, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/header" {
			w.Header().Set("X-Long", strings.Repeat("x", 2*maxHeader))
			return
		}
		chunk := make([]byte, 1<<20)
		for range 64 {
			if _, err := w.Write(chunk); err != nil {
				whole <- false
				return
			}
		}
		whole <- true
	})
	secrets := secretsOf(t, NewSecret())
	post := func(path string) error {
		return errorOf(t, client, server.URL+path, secrets)
	}
	if err := post("/body"); err != nil || <-whole {
		t.Errorf("the long body was read whole, %v", err)
	}
	if err := post("/header"); err == nil {
		t.Error("the long header was read whole")
	}
	// The controls: with higher limits, both are read.
	client.maxAnswer = 1 << 30
	if err := post("/body"); err != nil || !<-whole {
		t.Errorf("without the limit the long body wasn't read whole, %v", err)
	}
	client.client.Transport.(*http.Transport).MaxResponseHeaderBytes = 1 << 20
	if err := post("/header"); err != nil {
		t.Errorf("without the limit the long header gives %v", err)
	}
}

func TestADeadEndpointFails(t *testing.T) {
	t.Parallel()

	server, client := endpoint(t, true, nil)
	server.Close()
	status, err := client.Post(t.Context(), server.URL+"/?token=17", secretsOf(t, NewSecret()), event)
	if status != 0 || err == nil || Gone(err) || strings.Contains(err.Error(), "token") {
		t.Errorf("a dead endpoint gives %d, %v", status, err)
	}
	if Delay(time.Minute, err) != time.Minute {
		t.Error("a dead endpoint changes the schedule")
	}
}
