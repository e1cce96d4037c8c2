package local

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/allo/reservations/internal/route"
)

// The account is the one of AWS's documentation.
const (
	accountID = "123456789012"
	apiID     = "local"
	region    = "us-east-1"
)

// stage has no prefix in the path. lambdahttp supports no other.
const stage = "$default"

// event is a request in payload format 2.0. Its JSON is byte for byte what the gateway sends. The
// type of aws-lambda-go would also encode fields that the gateway leaves out.
type event struct {
	Version               string            `json:"version"`
	RouteKey              string            `json:"routeKey"`
	RawPath               string            `json:"rawPath"`
	RawQueryString        string            `json:"rawQueryString"`
	Cookies               []string          `json:"cookies,omitempty"`
	Headers               map[string]string `json:"headers"`
	QueryStringParameters map[string]string `json:"queryStringParameters,omitempty"`
	RequestContext        requestContext    `json:"requestContext"`
	PathParameters        map[string]string `json:"pathParameters,omitempty"`
	Body                  string            `json:"body,omitempty"`
	IsBase64Encoded       bool              `json:"isBase64Encoded"`
}

type requestContext struct {
	AccountID    string             `json:"accountId"`
	APIID        string             `json:"apiId"`
	Authorizer   *authorizerContext `json:"authorizer,omitempty"`
	DomainName   string             `json:"domainName"`
	DomainPrefix string             `json:"domainPrefix"`
	HTTP         httpContext        `json:"http"`
	RequestID    string             `json:"requestId"`
	RouteKey     string             `json:"routeKey"`
	Stage        string             `json:"stage"`
	Time         string             `json:"time"`
	TimeEpoch    int64              `json:"timeEpoch"`
}

type httpContext struct {
	Method    string `json:"method"`
	Path      string `json:"path"`
	Protocol  string `json:"protocol"`
	SourceIP  string `json:"sourceIp"`
	UserAgent string `json:"userAgent"`
}

// timeLayout is how the gateway writes the time of a request: as in the common log format.
const timeLayout = "02/Jan/2006:15:04:05 -0700"

func newEvent(
	r *http.Request, matched route.Route, params map[string]string, body []byte,
	id string, now time.Time,
) event {
	domain := hostname(r.Host)
	prefix, _, _ := strings.Cut(domain, ".")
	text, encoded := encodeBody(r.Header.Get("Content-Type"), body)
	return event{
		Version:               "2.0",
		RouteKey:              matched.Key(),
		RawPath:               r.URL.Path,
		RawQueryString:        r.URL.RawQuery,
		Cookies:               splitCookies(r.Header["Cookie"]),
		Headers:               joinHeaders(r, len(body)),
		QueryStringParameters: joinQuery(r.URL.RawQuery),
		PathParameters:        params,
		Body:                  text,
		IsBase64Encoded:       encoded,
		RequestContext: requestContext{
			AccountID:    accountID,
			APIID:        apiID,
			DomainName:   domain,
			DomainPrefix: prefix,
			HTTP: httpContext{
				Method:    r.Method,
				Path:      r.URL.Path,
				Protocol:  r.Proto,
				SourceIP:  hostname(r.RemoteAddr),
				UserAgent: r.UserAgent(),
			},
			RequestID: id,
			RouteKey:  matched.Key(),
			Stage:     stage,
			Time:      now.UTC().Format(timeLayout),
			TimeEpoch: now.UnixMilli(),
		},
	}
}

// joinHeaders returns the event's headers: the names in lower case, duplicates joined with a comma,
// and the headers in which the gateway describes the caller. It leaves out the headers of the
// connection and the cookies, which are a field of their own.
func joinHeaders(r *http.Request, bodySize int) map[string]string {
	headers := make(map[string]string, len(r.Header)+5)
	for name, values := range r.Header {
		headers[strings.ToLower(name)] = strings.Join(values, ",")
	}
	for _, name := range strings.Split(headers["connection"], ",") {
		delete(headers, strings.ToLower(strings.TrimSpace(name)))
	}
	for _, name := range []string{
		"connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection",
		"te", "trailer", "transfer-encoding", "upgrade", "cookie",
	} {
		delete(headers, name)
	}
	headers["host"] = r.Host
	if bodySize > 0 {
		headers["content-length"] = strconv.Itoa(bodySize)
	}
	forwarded := hostname(r.RemoteAddr)
	if earlier := headers["x-forwarded-for"]; earlier != "" {
		forwarded = earlier + ", " + forwarded
	}
	headers["x-forwarded-for"] = forwarded
	headers["x-forwarded-proto"], headers["x-forwarded-port"] = protoAndPort(r)
	if headers["x-amzn-trace-id"] == "" {
		headers["x-amzn-trace-id"] = newTraceID(time.Now())
	}
	return headers
}

// protoAndPort returns the scheme and the port of the listener. A page that builds links from them
// leads back to this machine.
func protoAndPort(r *http.Request) (proto, port string) {
	proto, port = "http", "80"
	if r.TLS != nil {
		proto, port = "https", "443"
	}
	if addr, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr); ok {
		if _, p, err := net.SplitHostPort(addr.String()); err == nil {
			port = p
		}
	}
	return proto, port
}

// newTraceID returns an X-Ray trace header: the time in seconds and 96 random bits, in hexadecimal.
func newTraceID(now time.Time) string {
	var b [12]byte
	// crypto/rand never fails: it ends the program instead.
	_, _ = rand.Read(b[:])
	return fmt.Sprintf("Root=1-%08x-%s", now.Unix(), hex.EncodeToString(b[:]))
}

func splitCookies(headers []string) []string {
	var cookies []string
	for _, cookie := range strings.Split(strings.Join(headers, ";"), ";") {
		if cookie = strings.TrimSpace(cookie); cookie != "" {
			cookies = append(cookies, cookie)
		}
	}
	return cookies
}

// joinQuery decodes the parameters and joins duplicates with a comma. Malformed parameters stay as
// they are: the gateway refuses no query string.
func joinQuery(raw string) map[string]string {
	var params map[string]string
	for _, pair := range strings.Split(raw, "&") {
		if pair == "" {
			continue
		}
		name, value, _ := strings.Cut(pair, "=")
		name, value = unescapeQuery(name), unescapeQuery(value)
		if earlier, ok := params[name]; ok {
			value = earlier + "," + value
		}
		if params == nil {
			params = map[string]string{}
		}
		params[name] = value
	}
	return params
}

func unescapeQuery(s string) string {
	if decoded, err := url.QueryUnescape(s); err == nil {
		return decoded
	}
	return s
}

// encodeBody returns the body as JSON can carry it: text as it is, and any other body in base64.
func encodeBody(contentType string, body []byte) (text string, encoded bool) {
	if len(body) == 0 || isText(contentType) && utf8.Valid(body) {
		return string(body), false
	}
	return base64.StdEncoding.EncodeToString(body), true
}

// isText reports whether the gateway takes a body of this type for text, as observed on AWS. Forms,
// types that end in +json and bodies without a type are binary to it.
func isText(contentType string) bool {
	mediaType, _, _ := strings.Cut(contentType, ";")
	switch mediaType = strings.ToLower(strings.TrimSpace(mediaType)); mediaType {
	case "application/json", "application/xml", "application/javascript":
		return true
	}
	return strings.HasPrefix(mediaType, "text/")
}

// hostname returns an address without its port and without the brackets of IPv6.
func hostname(addr string) string {
	if host, _, err := net.SplitHostPort(addr); err == nil {
		return host
	}
	return strings.Trim(addr, "[]")
}
