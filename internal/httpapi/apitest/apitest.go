// Package apitest validates answers by the OpenAPI document. Only tests import it.
package apitest

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/gorillamux"
	"github.com/google/uuid"

	"github.com/allo/reservations/internal/httpapi/openapi"
)

// Validate fails the test if the document doesn't allow the answer: the request's path and method,
// or the answer's status, headers or body. It also checks a rule that the document can't express:
// the fields of a problem agree with each other and with the answer. It is safe for concurrent use.
func Validate(
	t testing.TB,
	req *http.Request,
	reqBody []byte,
	status int,
	header http.Header,
	body []byte,
) {
	t.Helper()
	if err := validate(req, reqBody, status, header, body); err != nil {
		t.Errorf(
			"%s %s %.200q = %d %s\nisn't an answer of the document: %v",
			req.Method,
			req.URL,
			reqBody,
			status,
			body,
			err,
		)
	}
}

func validate(
	req *http.Request,
	reqBody []byte,
	status int,
	header http.Header,
	body []byte,
) error {
	route, params, err := findRoute(req)
	if err != nil {
		return err
	}
	// The handler has read the request's body, so the library gets a copy.
	spent := req.Clone(context.Background())
	spent.Body = io.NopCloser(bytes.NewReader(reqBody))
	input := &openapi3filter.ResponseValidationInput{
		RequestValidationInput: &openapi3filter.RequestValidationInput{
			Request:    spent,
			PathParams: params,
			Route:      route,
		},
		Status:  status,
		Header:  header,
		Options: options(),
	}
	if header.Get("Content-Encoding") == "gzip" {
		if body, err = unpack(body); err != nil {
			return fmt.Errorf("its body isn't gzip: %w", err)
		}
	}
	input.SetBodyBytes(body)
	// The library skips some statuses. They must be in the document too.
	if route.Operation.Responses.Status(status) == nil {
		return errors.New("its status is not documented")
	}
	if err := openapi3filter.ValidateResponse(context.Background(), input); err != nil {
		return err
	}
	if status >= http.StatusBadRequest {
		return checkProblem(status, header, body)
	}
	return nil
}

func unpack(body []byte) ([]byte, error) {
	r, err := gzip.NewReader(bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}

func findRoute(req *http.Request) (*routers.Route, map[string]string, error) {
	router, err := loadRouter()
	if err != nil {
		return nil, nil, err
	}
	return router.FindRoute(req)
}

// loadRouter reads the document in its served form.
var loadRouter = sync.OnceValues(func() (routers.Router, error) {
	document, err := openapi.JSON()
	if err != nil {
		return nil, err
	}
	doc, err := openapi3.NewLoader().LoadFromData(document)
	if err != nil {
		return nil, err
	}
	if err := doc.Validate(context.Background()); err != nil {
		return nil, err
	}
	return gorillamux.NewRouter(doc)
})

// options makes the library strict: about statuses that aren't documented, and about formats for
// which the contract has narrower rules.
func options() *openapi3filter.Options {
	return &openapi3filter.Options{
		IncludeResponseStatus: true,
		SchemaValidationOptions: []openapi3.SchemaValidationOption{
			openapi3.WithStringFormatValidator("uuid", openapi3.NewCallbackValidator(checkUUID)),
			openapi3.WithStringFormatValidator(
				"date-time",
				openapi3.NewCallbackValidator(checkTime),
			),
		},
	}
}

func checkUUID(s string) error {
	id, err := uuid.Parse(s)
	if err == nil && id.String() != s {
		return fmt.Errorf("%q isn't a UUID in its canonical form", s)
	}
	return err
}

func checkTime(s string) error {
	if _, err := time.Parse(time.RFC3339Nano, s); err != nil {
		return err
	}
	if !strings.HasSuffix(s, "Z") {
		return fmt.Errorf("%q isn't in UTC", s)
	}
	return nil
}

// checkProblem compares a problem with the answer that has it as its body.
func checkProblem(status int, header http.Header, body []byte) error {
	var p struct {
		Type      string
		Status    int
		Detail    string
		Code      string
		Error     string
		RequestID string
		Details   json.RawMessage
		Shortages json.RawMessage
		Lines     json.RawMessage
		Limits    json.RawMessage
		// PaymentReference is nil when it is absent, and the text null when it is null.
		PaymentReference json.RawMessage
	}
	if err := json.Unmarshal(body, &p); err != nil {
		return err
	}
	switch {
	case p.Status != status:
		return fmt.Errorf("the problem's status is %d", p.Status)
	case p.Error != p.Detail:
		return fmt.Errorf("the problem's error is %q and its detail %q", p.Error, p.Detail)
	case p.RequestID != header.Get("X-Request-Id"):
		return fmt.Errorf(
			"the problem's requestId is %q and X-Request-Id %q",
			p.RequestID,
			header.Get("X-Request-Id"),
		)
	case (p.Details != nil) != (p.Code == "VALIDATION_FAILED"):
		return fmt.Errorf("the problem %s has the details %s", p.Code, p.Details)
	case (p.Shortages != nil) != (p.Code == "INSUFFICIENT_STOCK" || p.Code == "PAYMENT_LOST"):
		return fmt.Errorf("the problem %s has the shortages %s", p.Code, p.Shortages)
	case (p.Limits != nil) != (p.Code == "LIMIT_EXCEEDED") && p.Code != "PAYMENT_LOST":
		return fmt.Errorf("the problem %s has the limits %s", p.Code, p.Limits)
	case (p.PaymentReference != nil) != (p.Code == "ALREADY_PAID"):
		return fmt.Errorf("the problem %s has the payment %s", p.Code, p.PaymentReference)
	case (p.Lines != nil) != (p.Code == "NOT_FOR_SALE"):
		return fmt.Errorf("the problem %s has the lines %s", p.Code, p.Lines)
	}
	return nil
}
