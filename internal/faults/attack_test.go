package faults

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/allo/reservations/internal/local"
	"github.com/allo/reservations/internal/pgtest"
	"github.com/allo/reservations/internal/route"
)

// hostileStrings are put wherever a caller may send a string.
var hostileStrings = []string{
	"'", "''; DROP TABLE inventory; --", `" OR 1=1 --`,
	"1) UNION SELECT usename, passwd FROM pg_shadow --", `\'; SELECT pg_sleep(10); --`,
	"$1", "%s%n", "{{7*7}}", "../../etc/passwd", "%2e%2e%2f", "\x00", "\r\nX-Injected: yes",
	"\n{\"level\":\"ERROR\"}", "\x1b[31mred", "\u202e",
	"<script>alert(1)</script>", strings.Repeat("A", 5000), "\xff\xfe", "NaN", "-1", "1e999",
	"9223372036854775808", "0x10", "true", "null", "{}",
}

// hostileRequests puts each hostile string into every place of a request.
func hostileRequests(row stockRow, id uuid.UUID) []*http.Request {
	var all []*http.Request
	add := func(method, path, body string, header ...string) {
		r := httptest.NewRequest(method, "/", strings.NewReader(body))
		u, err := url.Parse(path)
		if err != nil {
			return // no client can send it
		}
		r.URL, r.RequestURI = u, ""
		if body != "" {
			r.Header.Set("Content-Type", "application/json")
		}
		for i := 0; i+1 < len(header); i += 2 {
			r.Header[header[i]] = []string{header[i+1]}
		}
		all = append(all, r)
	}
	quote := func(s string) string {
		b, _ := json.Marshal(s) // a string always encodes
		return string(b)
	}
	// It asks for more than the stock: it gets as far as a valid request and changes nothing.
	tooMuch := fmt.Sprintf(`{"productId":%q,"warehouseId":%q,"quantity":1000}`, row.Product,
		row.Warehouse)
	for _, s := range hostileStrings {
		escaped := url.QueryEscape(s)
		add("GET", "/api/products?limit="+escaped, "")
		add("GET", "/api/products?cursor="+escaped, "")
		add("GET", "/api/warehouses?cursor="+escaped, "")
		add("GET", "/api/products?"+escaped+"="+escaped, "")
		for _, path := range []string{"/api/reservations/", "/api/", "/"} {
			add("GET", path+url.PathEscape(s), "")
		}
		for _, verb := range []string{"confirm", "release", "extend"} {
			add("POST", "/api/reservations/"+url.PathEscape(s)+"/"+verb, "")
			add("POST", "/api/reservations/"+id.String()+"/"+verb, s)
			add("POST", "/api/reservations/"+uuid.NewString()+"/"+verb, "", "Idempotency-Key", s)
		}
		add("POST", "/api/reservations", s)
		add("POST", "/api/reservations", quote(s))
		add("POST", "/api/reservations", fmt.Sprintf(`{%s:%s}`, quote(s), quote(s)))
		for _, field := range []string{
			"productId", "warehouseId", "quantity", "ttlSeconds",
			"items",
		} {
			add("POST", "/api/reservations",
				fmt.Sprintf(`{"productId":%q,"warehouseId":%q,"quantity":1,%q:%s}`, row.Product,
					row.Warehouse, field, quote(s)))
			add("POST", "/api/reservations", fmt.Sprintf(`{%q:%s}`, field, s))
		}
		for _, name := range []string{
			"Content-Type", "Accept", "Origin", "X-Forwarded-For",
			"X-Request-Id", "Cookie", "Authorization", "User-Agent", "Content-Encoding",
		} {
			add("POST", "/api/reservations", tooMuch, name, s)
		}
		add("POST", "/api/reservations", tooMuch, "Idempotency-Key", s)
	}
	return all
}

// TestHostileInputNeverCausesA5xx sends hostile strings to every place of every route. None gets a
// 5xx, none changes anything, and none comes back where a browser would run it.
func TestHostileInputNeverCausesA5xx(t *testing.T) {
	d := newDeployment(t)
	row := d.addProduct(1, 10)[0]
	gateway, err := local.NewGateway(route.All(), d.functions.HTTP, discardLog())
	if err != nil {
		t.Fatal(err)
	}
	held := reserveUntilCreated(t, newClient(d.url, 1), row, "held").Reservation
	requests := hostileRequests(row, held.ID)
	for _, r := range requests {
		shown := fmt.Sprintf("%s %.80q %.80q", r.Method, r.URL, r.Header)
		recorder := httptest.NewRecorder()
		gateway.ServeHTTP(recorder, r)
		answer := recorder.Result()
		if answer.StatusCode >= 500 {
			t.Errorf("%s = %d %s", shown, answer.StatusCode, recorder.Body)
		}
		if answer.Header.Get("X-Injected") != "" {
			t.Errorf("%s injected a header into the answer", shown)
		}
		if kind := answer.Header.Get("Content-Type"); strings.HasPrefix(r.URL.Path, "/api/") &&
			strings.Contains(kind, "html") {
			t.Errorf("%s was answered with Content-Type %s", shown, kind)
		}
		if answer.StatusCode/100 == 2 && r.Method == http.MethodPost &&
			!strings.Contains(r.URL.Path, held.ID.String()) {
			t.Errorf("%s = %d %s, want it refused", shown, answer.StatusCode, recorder.Body)
		}
	}
	if n := pgtest.QueryOne[int](d.db, "SELECT count(*) FROM inventory"); n != 1 {
		t.Errorf("there are %d stock rows, want 1", n)
	}
	if n := pgtest.QueryOne[int](d.db, "SELECT count(*) FROM reservations"); n != 1 {
		t.Errorf("there are %d holds, want 1", n)
	}
	d.audit()
	t.Logf("%d hostile requests", len(requests))
}

// TestMalformedHTTPIsRefused sends bytes that no HTTP client would send.
func TestMalformedHTTPIsRefused(t *testing.T) {
	d := newDeployment(t)
	address := strings.TrimPrefix(d.url, "http://")
	const host = "Host: shop\r\n"
	for name, text := range map[string]string{
		"TLS instead of HTTP":      "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
		"an empty line":            "\r\n\r\n",
		"no version":               "GET /api/health\r\n\r\n",
		"an unknown version":       "GET /api/health HTTP/9.9\r\n" + host + "\r\n",
		"no host":                  "GET /api/health HTTP/1.1\r\n\r\n",
		"two hosts":                "GET /api/health HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
		"a space in a header name": "GET /api/health HTTP/1.1\r\n" + host + "X Y: z\r\n\r\n",
		"two Content-Lengths": "POST /api/reservations HTTP/1.1\r\n" + host +
			"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}x",
		"a negative Content-Length": "POST /api/reservations HTTP/1.1\r\n" + host +
			"Content-Length: -1\r\n\r\n",
		"a chunk without a size": "POST /api/reservations HTTP/1.1\r\n" + host +
			"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
		"an unknown transfer coding": "POST /api/reservations HTTP/1.1\r\n" + host +
			"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
		"a header of 64 KB": "GET /api/health HTTP/1.1\r\n" + host + "X-Long: " +
			strings.Repeat("a", 64<<10) + "\r\n\r\n",
		"ten thousand headers": "GET /api/health HTTP/1.1\r\n" + host +
			strings.Repeat("X-A: b\r\n", 10_000) + "\r\n",
		"a NUL in the path": "GET /api/\x00health HTTP/1.1\r\n" + host + "\r\n",
		"an unknown method": "DROP /api/reservations HTTP/1.1\r\n" + host + "\r\n",
	} {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		if err := conn.SetDeadline(time.Now().Add(answerLimit)); err != nil {
			t.Fatal(err)
		}
		// The server may have answered and closed before it has read everything.
		_, _ = io.WriteString(conn, text)
		answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err == nil {
			answer.Body.Close()
		}
		if err == nil && answer.StatusCode/100 != 4 &&
			answer.StatusCode != http.StatusNotImplemented &&
			answer.StatusCode != http.StatusHTTPVersionNotSupported {
			t.Errorf("%s: answered %s, want a 4xx, 501 or 505", name, answer.Status)
		}
		if slow := net.Error(nil); errors.As(err, &slow) && slow.Timeout() {
			t.Errorf("%s: no answer within %s", name, answerLimit)
		}
		conn.Close()
	}
	if r := newClient(d.url, 1).send(t.Context(), "GET", "/api/health", "", nil); !r.ok() {
		t.Errorf("after that, health answers %d %s %v", r.Status, r.Body, r.Err)
	}
}

// TestSlowClientsDoNotBlockOthers lets two hundred clients begin a request and never finish it.
func TestSlowClientsDoNotBlockOthers(t *testing.T) {
	// The server waits 10 s for a header, and a minute for a body. A reserve that waits for one of the
	// slow clients takes as long.
	const slow, headerLimit, reserveLimit = 200, 30 * time.Second, 9 * time.Second
	d := newDeployment(t)
	s, row := newClient(d.url, 1), d.addProduct(1, 1000)[0]
	var closed sync.WaitGroup
	for n := range slow {
		conn, err := net.Dial("tcp", strings.TrimPrefix(d.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		text := "GET /api/health HTTP/1.1\r\nHost: shop\r\nX-Slow: "
		if n%2 == 0 {
			text = "POST /api/reservations HTTP/1.1\r\nHost: shop\r\n" +
				"Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
		}
		if _, err := io.WriteString(conn, text); err != nil {
			t.Fatal(err)
		}
		if n%2 == 0 {
			continue // a body may take a minute: the largest over a slow line needs it
		}
		closed.Go(func() {
			_ = conn.SetReadDeadline(time.Now().Add(headerLimit))
			if _, err := io.ReadAll(conn); err != nil {
				t.Errorf("a client that never ends its header was not disconnected within %s: %v",
					headerLimit, err)
			}
		})
	}
	for range 100 {
		if r := s.reserve(t.Context(), "", 0,
			item{row.Product, row.Warehouse, 1}); r.Status != http.StatusCreated ||
			r.Took > reserveLimit {
			t.Fatalf("beside the slow clients a reserve was answered %d %s %v after %s", r.Status,
				r.Body, r.Err, r.Took)
		}
	}
	closed.Wait()
}

// TestLogsHoldNoSecretsOfCallers sends secrets and line breaks in every place. Each line of the log
// must be one JSON object without the secret.
func TestLogsHoldNoSecretsOfCallers(t *testing.T) {
	const secret = "hunter2hunter2"
	db := pgtest.New(t)
	var log lines
	c := settings(db.URL)
	logger := slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	functions, err := local.InProcess(c, 1, logger)
	if err != nil {
		t.Fatal(err)
	}
	defer functions.Close()
	gateway, err := local.NewGateway(route.All(), functions.HTTP, logger)
	if err != nil {
		t.Fatal(err)
	}
	row := attach(t, db, "").addProduct(1, 1)[0]
	send := func(method, path, body string) {
		r := httptest.NewRequest(method, path, strings.NewReader(body))
		r.Header = http.Header{
			"Content-Type": {"application/json"}, "Authorization": {"Bearer " + secret},
			"Cookie":          {"session=" + secret},
			"Idempotency-Key": {secret + "1"}, "User-Agent": {secret + "\n{\"level\":\"ERROR\"}"},
			"X-Request-Id": {secret},
		}
		gateway.ServeHTTP(httptest.NewRecorder(), r)
	}
	for _, body := range []string{
		secret, `{"` + secret + `":1}`, `{"productId":"` + secret + `\nx"}`,
		fmt.Sprintf(`{"productId":%q,"warehouseId":%q,"quantity":2}`, row.Product, row.Warehouse),
		fmt.Sprintf(`{"productId":%q,"warehouseId":%q,"quantity":1}`, row.Product, row.Warehouse),
	} {
		send("POST", "/api/reservations", body)
		send("POST", "/api/reservations/"+secret+"%0A%0Dx/confirm", body)
		send("GET", "/api/products?cursor="+secret+"%0A", "")
		send("GET", "/"+secret+"%0Anowhere", "")
	}
	// The same with a database that fails: its errors carry the most detail.
	broken := settings("postgres://allo:" + secret + "@127.0.0.1:1/allo?sslmode=disable")
	down, err := local.InProcess(broken, 1, logger)
	if err != nil {
		t.Fatal(err)
	}
	defer down.Close()
	if gateway, err = local.NewGateway(route.All(), down.HTTP, logger); err != nil {
		t.Fatal(err)
	}
	send("GET", "/api/products", "")
	send("POST", "/api/reservations", fmt.Sprintf(`{"productId":%q,"warehouseId":%q,"quantity":1}`,
		row.Product, row.Warehouse))

	if len(log.all) == 0 {
		t.Fatal("nothing was logged")
	}
	for _, line := range log.all {
		var object map[string]any
		if err := json.Unmarshal(line, &object); err != nil ||
			bytes.Count(line, []byte("\n")) != 1 {
			t.Errorf("a line of the log is not one JSON object: %q", line)
		}
		if bytes.Contains(line, []byte(secret)) {
			t.Errorf("a line of the log holds a secret of a caller, or a password: %s", line)
		}
	}
}

// lines collects the writes of a log, one by one.
type lines struct {
	mu  sync.Mutex
	all [][]byte
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, slices.Clone(p))
	return len(p), nil
}

// TestNotFoundTakesTheSameTimeForAnyID compares ids next to a hold's with random ones: the time of
// a 404 must not tell which holds exist.
func TestNotFoundTakesTheSameTimeForAnyID(t *testing.T) {
	const asked = 400
	d := newDeployment(t)
	s, row := newClient(d.url, 1), d.addProduct(1, 1000)[0]
	near := make([]uuid.UUID, 0, asked)
	for range asked {
		id := s.reserve(t.Context(), "", 0, item{row.Product, row.Warehouse, 1}).Reservation.ID
		id[15] ^= 1
		near = append(near, id)
	}
	var nearTook, farTook []time.Duration
	for _, id := range near {
		a, b := s.get(t.Context(), id), s.get(t.Context(), uuid.Must(uuid.NewRandom()))
		if a.Status != http.StatusNotFound || b.Status != http.StatusNotFound || a.Code != b.Code {
			t.Fatalf("answers = %d %s and %d %s, want two equal 404s", a.Status, a.Body, b.Status,
				b.Body)
		}
		nearTook, farTook = append(nearTook, a.Took), append(farTook, b.Took)
	}
	ratio := float64(percentile(nearTook, 0.5)) / float64(percentile(farTook, 0.5))
	if ratio < 0.8 || ratio > 1.25 {
		t.Errorf("a 404 for an id next to a hold's takes %.2f times as long as for another", ratio)
	}
	t.Logf("median of %d: %s next to a hold's id, %s elsewhere", asked, percentile(nearTook, 0.5),
		percentile(farTook, 0.5))
}

// TestIDsCantBeGuessed looks at the random bits of ids made in a row: each bit is set half of the
// time, and no random part repeats.
func TestIDsCantBeGuessed(t *testing.T) {
	const made = 2000
	d := newDeployment(t)
	s, row := newClient(d.url, 8), d.addProduct(1, made)[0]
	var mu sync.Mutex
	var ids []uuid.UUID
	runConcurrently(8, func(int) {
		for range made / 8 {
			r := s.reserve(t.Context(), "", 0, item{row.Product, row.Warehouse, 1})
			if r.Reservation == nil {
				t.Errorf("a reserve was answered %d %s %v", r.Status, r.Body, r.Err)
				return
			}
			mu.Lock()
			ids = append(ids, r.Reservation.ID)
			mu.Unlock()
		}
	})
	seen := map[[8]byte]bool{}
	var set [62]int
	for _, id := range ids {
		if id.Version() != 7 || id.Variant() != uuid.RFC4122 {
			t.Fatalf("%s is not a UUIDv7", id)
		}
		tail := [8]byte(id[8:])
		tail[0] &= 0x3f // the variant's two bits
		if seen[tail] {
			t.Errorf("the random part of %s is not new", id)
		}
		seen[tail] = true
		for bit := range set {
			set[bit] += int(tail[(bit+2)/8]>>(7-(bit+2)%8)) & 1
		}
	}
	// Six standard deviations: with 62 bits, one run in eight million has a bit beyond the bound.
	bound := 6 * math.Sqrt(float64(len(ids))) / 2
	for bit, n := range set {
		if math.Abs(float64(n)-float64(len(ids))/2) > bound {
			t.Errorf("random bit %d is set in %d of %d ids", bit, n, len(ids))
		}
	}
}

// FuzzAnyRequest feeds whole requests to the gateway, the handlers and Postgres: none gets a 5xx.
func FuzzAnyRequest(f *testing.F) {
	d := newDeployment(f)
	row := d.addProduct(1, 10)[0]
	gateway, err := local.NewGateway(route.All(), d.functions.HTTP, discardLog())
	if err != nil {
		f.Fatal(err)
	}
	good := fmt.Sprintf(`{"productId":%q,"warehouseId":%q,"quantity":1,"ttlSeconds":1}`,
		row.Product, row.Warehouse)
	for _, r := range route.All() {
		path := strings.NewReplacer("{id}", row.Product.String(), "{file}",
			"index.html").Replace(r.Path)
		f.Add(r.Method, path, "limit=1&cursor=a", "Idempotency-Key", "key", "application/json",
			[]byte(good))
	}
	for n, s := range hostileStrings {
		f.Add("POST", "/api/reservations", s, "X-A", s, "application/json",
			fmt.Appendf(nil, `{"items":[{"productId":%q,"quantity":%d}]}`, s, n))
	}
	f.Fuzz(func(t *testing.T, method, path, query, name, value, contentType string, body []byte) {
		u, err := url.ParseRequestURI(path)
		if err != nil || method == "" ||
			strings.ContainsFunc(method, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
			t.Skip("net/http refuses it")
		}
		u.RawQuery = query
		r := httptest.NewRequest("GET", "/", bytes.NewReader(body))
		r.Method, r.URL = method, u
		r.Header = http.Header{
			"Content-Type":                {contentType},
			http.CanonicalHeaderKey(name): {value},
		}
		recorder := httptest.NewRecorder()
		gateway.ServeHTTP(recorder, r)
		if recorder.Code >= 500 {
			t.Errorf("%s %s?%s %q %q %q = %d %s", method, path, query, name, value, body,
				recorder.Code, recorder.Body)
		}
	})
}
