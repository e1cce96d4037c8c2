package lambdahttp

import (
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/aws/aws-lambda-go/events"
)

// problem is the RFC 9457 document of the HTTP contract, for the answers that no handler gives.
type problem struct {
	Type      string `json:"type"`
	Title     string `json:"title"`
	Status    int    `json:"status"`
	Detail    string `json:"detail"`
	Code      string `json:"code"`
	Error     string `json:"error"`
	RequestID string `json:"requestId"`
}

func newProblem(status int, code, detail, requestID string) problem {
	return problem{
		Type:      "urn:allo:problem:" + code,
		Title:     http.StatusText(status),
		Status:    status,
		Detail:    detail,
		Code:      code,
		Error:     detail,
		RequestID: requestID,
	}
}

// internalError says nothing about what happened: the log has it, under the same request id.
func internalError(requestID string) problem {
	return newProblem(http.StatusInternalServerError, "INTERNAL", "Something went wrong on our side.", requestID)
}

// malformed answers an event that newRequest refused.
func malformed(err error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		detail := fmt.Sprintf("The request is malformed: %v.", err)
		newProblem(http.StatusBadRequest, "MALFORMED_REQUEST", detail, RequestID(r.Context())).write(w)
	}
}

func (p problem) write(w http.ResponseWriter) {
	for name, value := range p.headers() {
		w.Header().Set(name, value)
	}
	w.WriteHeader(p.Status)
	// Both writers are buffers and never fail.
	_, _ = w.Write(p.body())
}

// response is for where the library, which makes every other response, has failed.
func (p problem) response() events.APIGatewayV2HTTPResponse {
	return events.APIGatewayV2HTTPResponse{StatusCode: p.Status, Headers: p.headers(), Body: string(p.body())}
}

func (p problem) headers() map[string]string {
	return map[string]string{
		"Cache-Control": "no-store",
		"Content-Type":  "application/problem+json",
		"X-Request-Id":  clean(p.RequestID),
	}
}

// body can't fail to marshal: a problem is strings and a number.
func (p problem) body() []byte {
	body, _ := json.Marshal(p)
	return body
}
