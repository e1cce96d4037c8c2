package local

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
)

// answer is a function's answer in payload format 2.0, decoded.
type answer struct {
	status  int
	headers map[string]string
	cookies []string
	body    []byte
}

// decodeAnswer reads a function's payload. An error means that the gateway answers 500: the payload isn't JSON, or it has a
// statusCode but the rest isn't of the format.
func decodeAnswer(payload []byte) (answer, error) {
	if !json.Valid(payload) {
		return answer{}, errors.New("the answer isn't JSON")
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(payload, &fields); err != nil || fields["statusCode"] == nil {
		return inferAnswer(payload), nil //nolint:nilerr // what isn't in the format is a body, as payload 2.0 has it
	}
	var format struct {
		StatusCode      json.RawMessage `json:"statusCode"`
		Headers         map[string]any  `json:"headers"`
		Cookies         []string        `json:"cookies"`
		Body            string          `json:"body"`
		IsBase64Encoded bool            `json:"isBase64Encoded"`
	}
	if err := json.Unmarshal(payload, &format); err != nil {
		return answer{}, fmt.Errorf("the answer isn't of payload format 2.0: %w", err)
	}
	status, err := strconv.Atoi(strings.Trim(string(format.StatusCode), `"`))
	if err != nil || status < 200 || status > 599 {
		return answer{}, fmt.Errorf("the answer's statusCode %s isn't one", format.StatusCode)
	}
	body := []byte(format.Body)
	if format.IsBase64Encoded {
		if body, err = base64.StdEncoding.DecodeString(format.Body); err != nil {
			return answer{}, fmt.Errorf("the answer's body isn't base64: %w", err)
		}
	}
	headers := make(map[string]string, len(format.Headers))
	for name, value := range format.Headers {
		if headers[name], err = headerText(value); err != nil {
			return answer{}, fmt.Errorf("the answer's header %s: %w", name, err)
		}
	}
	return answer{status, headers, format.Cookies, body}, nil
}

// inferAnswer takes the whole of a payload without a statusCode as the body of a 200. A JSON string is the text it holds.
func inferAnswer(payload []byte) answer {
	body := payload
	var text *string
	if err := json.Unmarshal(payload, &text); err == nil && text != nil {
		body = []byte(*text)
	}
	return answer{
		status:  http.StatusOK,
		headers: map[string]string{"content-type": "application/json"},
		body:    body,
	}
}

// headerText writes a header's value that isn't a string as the gateway does.
func headerText(value any) (string, error) {
	switch value.(type) {
	case string, float64, bool:
		return fmt.Sprint(value), nil
	}
	return "", errors.New("its value is neither text, a number nor a boolean")
}

// send writes the answer. The request's id and the framing are the gateway's, whatever the function says of them, and a body
// without a type is plain text.
func (a answer) send(w http.ResponseWriter) {
	for name, value := range a.headers {
		switch http.CanonicalHeaderKey(name) {
		case "Apigw-Requestid", "Connection", "Content-Length", "Keep-Alive", "Trailer", "Transfer-Encoding", "Upgrade":
			continue
		}
		w.Header().Add(name, value)
	}
	for _, cookie := range a.cookies {
		w.Header().Add("Set-Cookie", cookie)
	}
	if len(a.body) > 0 && w.Header().Get("Content-Type") == "" {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	}
	w.WriteHeader(a.status)
	// A caller who has hung up is nobody to tell, and a 204 or 304 has no body.
	_, _ = w.Write(a.body)
}
