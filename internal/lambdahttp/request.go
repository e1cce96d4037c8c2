package lambdahttp

import (
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/aws/aws-lambda-go/events"
)

// request holds the event in net/http's terms. It replaces the fields of the library's request.
type request struct {
	method     string
	url        *url.URL
	host       string
	remoteAddr string
	header     http.Header
	body       []byte
}

// newRequest reads the event. It fails when no HTTP request could have caused the event, because
// net/http's own server would have refused it. The caller is shown the error's text.
func newRequest(event events.APIGatewayV2HTTPRequest) (request, error) {
	method, err := methodOf(event)
	if err != nil {
		return request{}, err
	}
	header, host, err := headerOf(event)
	if err != nil {
		return request{}, err
	}
	body, err := bodyOf(event)
	if err != nil {
		return request{}, err
	}
	return request{
		method:     method,
		url:        urlOf(event),
		host:       host,
		remoteAddr: remoteAddrOf(event.RequestContext.HTTP.SourceIP),
		header:     header,
		body:       body,
	}, nil
}

// on puts the request's fields into the library's request, which brings the context and the body.
func (q request) on(bare *http.Request) *http.Request {
	bare.Method = q.method
	bare.URL = q.url
	bare.RequestURI = q.url.RequestURI()
	bare.Host = q.host
	bare.RemoteAddr = q.remoteAddr
	bare.Header = q.header
	return bare
}

// methodOf returns the method of the request context. An event written by hand may have none; then
// the route key has it.
func methodOf(event events.APIGatewayV2HTTPRequest) (string, error) {
	method := event.RequestContext.HTTP.Method
	if first, _, ok := strings.Cut(event.RouteKey, " "); method == "" && ok && first != "ANY" {
		method = first
	}
	if !isToken(method) {
		return "", errors.New("invalid method")
	}
	return method, nil
}

// headerOf returns the headers and the host. It keeps every value whole, as net/http does: split at
// its comma, the Idempotency-Key "a,b" would become "a". To net/http the host is not a header. The
// gateway sends the cookies beside the headers. The CDN's secret is for this package alone.
func headerOf(event events.APIGatewayV2HTTPRequest) (header http.Header, host string, err error) {
	header = make(http.Header, len(event.Headers)+1)
	values := make([]string, 0, len(event.Headers)) // one array, as most headers have one value
	names := slices.AppendSeq(make([]string, 0, len(event.Headers)), maps.Keys(event.Headers))
	slices.Sort(names)
	for _, name := range names {
		if !isToken(name) {
			return nil, "", errors.New("invalid header name")
		}
		key := http.CanonicalHeaderKey(name)
		if len(header[key]) > 0 {
			header[key] = append(header[key], event.Headers[name])
			continue
		}
		n := len(values)
		values = append(values, event.Headers[name])
		header[key] = values[n : n+1 : n+1]
	}
	if len(event.Cookies) > 0 {
		header.Set("Cookie", strings.Join(event.Cookies, "; "))
	}
	for name, values := range header {
		if slices.ContainsFunc(values, hasControl) {
			return nil, "", fmt.Errorf("control character in the header %s", name)
		}
	}
	host = header.Get("Host")
	header.Del("Host")
	header.Del(OriginHeader)
	if host == "" && isHost(event.RequestContext.DomainName) {
		host = event.RequestContext.DomainName
	}
	if !isHost(host) {
		return nil, "", errors.New("invalid Host header")
	}
	return header, host, nil
}

func bodyOf(event events.APIGatewayV2HTTPRequest) ([]byte, error) {
	if !event.IsBase64Encoded {
		return []byte(event.Body), nil
	}
	body, err := base64.StdEncoding.DecodeString(event.Body)
	if err != nil {
		return nil, errors.New("invalid base64 in the body")
	}
	return body, nil
}

// urlOf returns a URL without scheme and host, like that of every request that net/http's server
// reads.
func urlOf(event events.APIGatewayV2HTTPRequest) *url.URL {
	u := &url.URL{RawQuery: queryOf(event)}
	escaped, ok := routePath(event.RouteKey, event.PathParameters)
	if !ok {
		u.Path = fallbackPath(event)
		return u
	}
	// There is no error: routePath escapes every segment. As in url.Parse, RawPath is set only where
	// the default escaping of Path differs from it.
	u.Path, _ = url.PathUnescape(escaped)
	if u.EscapedPath() != escaped {
		u.RawPath = escaped
	}
	return u
}

// fallbackPath returns the decoded path as it is. Without a route nothing tells which of its
// slashes was a %2F.
func fallbackPath(event events.APIGatewayV2HTTPRequest) string {
	path := event.RawPath
	if path == "" {
		path = event.RequestContext.HTTP.Path
	}
	if !strings.HasPrefix(path, "/") {
		path = "/" + path
	}
	return path
}

// routePath returns the route's pattern with the escaped parameters filled in. rawPath would not
// do: the gateway has decoded it, so an id of "a%2Fb" has become two segments, and "%25" no longer
// parses. ok is false when the key is $default or a parameter is missing.
func routePath(key string, params map[string]string) (escaped string, ok bool) {
	_, pattern, _ := strings.Cut(key, " ")
	pattern, ok = strings.CutPrefix(pattern, "/")
	if !ok {
		return "", false
	}
	segments := strings.Split(pattern, "/")
	for i, segment := range segments {
		if segments[i], ok = fill(segment, params); !ok {
			return "", false
		}
	}
	return "/" + strings.Join(segments, "/"), true
}

// fill fills in and escapes one segment of a pattern. A literal stays, {name} becomes one segment
// whatever its value is, and the slashes in the value of {name+} separate segments.
func fill(segment string, params map[string]string) (escaped string, ok bool) {
	name, isParam := strings.CutPrefix(segment, "{")
	name, closed := strings.CutSuffix(name, "}")
	if !isParam || !closed {
		return escapeSegment(segment), true
	}
	name, greedy := strings.CutSuffix(name, "+")
	value, ok := params[name]
	if !ok {
		return "", false
	}
	if !greedy {
		return escapeSegment(value), true
	}
	parts := strings.Split(value, "/")
	for i, part := range parts {
		parts[i] = escapeSegment(part)
	}
	return strings.Join(parts, "/"), true
}

// escapeSegment also escapes the dots of "." and "..". They got through the gateway, so the caller
// had escaped them. Unescaped, they would make ServeMux redirect to another path.
func escapeSegment(segment string) string {
	if segment == "." || segment == ".." {
		return strings.Repeat("%2E", len(segment))
	}
	return url.PathEscape(segment)
}

// queryOf escapes the bytes that a request line can't hold and leaves the rest as it came. The
// handler sees the same values, and r.RequestURI and a redirect that repeats the query stay one
// line.
func queryOf(event events.APIGatewayV2HTTPRequest) string {
	if event.RawQueryString == "" {
		return queryFromParameters(event.QueryStringParameters)
	}
	var b strings.Builder
	for _, c := range []byte(event.RawQueryString) {
		if c <= ' ' || c >= 0x7f || strings.IndexByte(`"#<>`, c) >= 0 {
			fmt.Fprintf(&b, "%%%02X", c)
			continue
		}
		b.WriteByte(c)
	}
	return b.String()
}

// queryFromParameters serves events written by hand, which often have no raw query.
func queryFromParameters(params map[string]string) string {
	values := make(url.Values, len(params))
	for name, value := range params {
		values.Set(name, value)
	}
	return values.Encode()
}

// remoteAddrOf adds a port to the address: net/http's has one, and net.SplitHostPort fails without.
// It is 0, because the gateway doesn't pass the caller's port on.
func remoteAddrOf(sourceIP string) string {
	if _, err := netip.ParseAddr(sourceIP); err != nil {
		sourceIP = netip.IPv4Unspecified().String()
	}
	return net.JoinHostPort(sourceIP, "0")
}

// isToken reports whether s is a token of RFC 9110. Methods and header names are tokens.
func isToken(s string) bool {
	for _, c := range []byte(s) {
		if !isAlphanumeric(c) && strings.IndexByte("!#$%&'*+-.^_`|~", c) < 0 {
			return false
		}
	}
	return s != ""
}

// isHost reports whether s has only bytes that a host and port may have. HTTP/1.0 allows an empty
// host.
func isHost(s string) bool {
	for _, c := range []byte(s) {
		if !isAlphanumeric(c) && strings.IndexByte("!$%&'()*+,-.:;=[]_~", c) < 0 {
			return false
		}
	}
	return true
}

// hasControl reports whether a header's value has a byte that RFC 9110 forbids there. It allows
// bytes from 0x80.
func hasControl(value string) bool {
	for _, c := range []byte(value) {
		if isControl(c) {
			return true
		}
	}
	return false
}

func isControl(c byte) bool { return c < ' ' && c != '\t' || c == 0x7f }

func isAlphanumeric(c byte) bool {
	return '0' <= c && c <= '9' || 'A' <= c && c <= 'Z' || 'a' <= c && c <= 'z'
}
