package local

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/aws/aws-lambda-go/events"
)

// response is a function's answer in payload format 2.0, decoded.
type response struct {
	status  int
	headers map[string]string
	cookies []string
	body    []byte
}

// newResponse takes the answer of a function in this process. It returns the same response and the
// same error as decodeResponse does for the answer's JSON.
func newResponse(out events.APIGatewayV2HTTPResponse) (response, error) {
	valid := areUTF8(out.Headers) && utf8.ValidString(out.Body) &&
		!slices.ContainsFunc(out.Cookies, func(cookie string) bool { return !utf8.ValidString(cookie) })
	if !valid {
		payload, err := json.Marshal(out)
		if err != nil {
			return response{}, fmt.Errorf("encode the function's answer: %w", err)
		}
		return decodeResponse(payload)
	}
	if err := checkStatus(out.StatusCode); err != nil {
		return response{}, err
	}
	body, err := decodeBody(out.Body, out.IsBase64Encoded)
	if err != nil {
		return response{}, err
	}
	return response{out.StatusCode, out.Headers, out.Cookies, body}, nil
}

// decodeResponse reads a function's payload. It fails when the payload isn't JSON, or has a
// statusCode but is otherwise not in the format. The gateway then answers 500.
func decodeResponse(payload []byte) (response, error) {
	if !json.Valid(payload) {
		return response{}, errors.New("the function's answer isn't JSON")
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(payload, &fields); err != nil || fields["statusCode"] == nil {
		return inferResponse(payload), nil //nolint:nilerr // payload 2.0 takes it as a body
	}
	var format struct {
		StatusCode      json.RawMessage `json:"statusCode"`
		Headers         map[string]any  `json:"headers"`
		Cookies         []string        `json:"cookies"`
		Body            string          `json:"body"`
		IsBase64Encoded bool            `json:"isBase64Encoded"`
	}
	if err := json.Unmarshal(payload, &format); err != nil {
		return response{}, fmt.Errorf("the function's answer isn't in payload format 2.0: %w", err)
	}
	status, err := strconv.Atoi(strings.Trim(string(format.StatusCode), `"`))
	if err != nil {
		return response{}, fmt.Errorf("the function's answer has an invalid statusCode: %s",
			format.StatusCode)
	}
	if err := checkStatus(status); err != nil {
		return response{}, err
	}
	body, err := decodeBody(format.Body, format.IsBase64Encoded)
	if err != nil {
		return response{}, err
	}
	headers := make(map[string]string, len(format.Headers))
	for name, value := range format.Headers {
		if headers[name], err = headerText(value); err != nil {
			return response{}, fmt.Errorf("the function's answer has an invalid header %s: %w", name, err)
		}
	}
	return response{status, headers, format.Cookies, body}, nil
}

func checkStatus(status int) error {
	if status < 200 || status > 599 {
		return fmt.Errorf("the function's answer has an invalid statusCode: %d", status)
	}
	return nil
}

func decodeBody(body string, isBase64 bool) ([]byte, error) {
	if !isBase64 {
		return []byte(body), nil
	}
	decoded, err := base64.StdEncoding.DecodeString(body)
	if err != nil {
		return nil, fmt.Errorf("the function's answer has a body that isn't base64: %w", err)
	}
	return decoded, nil
}

// inferResponse makes a 200 of a payload without a statusCode: the whole payload is the body. A
// JSON string is the text that it holds.
func inferResponse(payload []byte) response {
	body := payload
	var text *string
	if err := json.Unmarshal(payload, &text); err == nil && text != nil {
		body = []byte(*text)
	}
	return response{
		status:  http.StatusOK,
		headers: map[string]string{"content-type": "application/json"},
		body:    body,
	}
}

// headerText returns the text that the gateway writes for a header's value.
func headerText(value any) (string, error) {
	switch value.(type) {
	case string, float64, bool:
		return fmt.Sprint(value), nil
	}
	return "", errors.New("its value is neither text, a number nor a boolean")
}

// send writes the response. The gateway sets the request's id and the framing, whatever the
// function says of them. A body without a type is plain text. The answer to a HEAD has the body's
// length instead of the body.
func (a response) send(w http.ResponseWriter, method string) {
	header := w.Header()
	for name, value := range a.headers {
		switch http.CanonicalHeaderKey(name) {
		case "Apigw-Requestid", "Connection", "Content-Length", "Keep-Alive", "Trailer",
			"Transfer-Encoding", "Upgrade":
			continue
		}
		header.Add(name, value)
	}
	for _, cookie := range a.cookies {
		header.Add("Set-Cookie", cookie)
	}
	if len(a.body) > 0 && header.Get("Content-Type") == "" {
		header.Set("Content-Type", "text/plain; charset=utf-8")
	}
	if method == http.MethodHead && len(a.body) > 0 {
		header.Set("Content-Length", strconv.Itoa(len(a.body)))
		w.WriteHeader(a.status)
		return
	}
	w.WriteHeader(a.status)
	// A write fails when the caller has hung up, or the status allows no body. Neither matters.
	_, _ = w.Write(a.body)
}
