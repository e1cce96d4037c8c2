package app_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/aws/aws-lambda-go/events"

	"github.com/allo/reservations/internal/pgtest"
)

// confirmAs sends a confirm under a key with the gateway's findings about the caller. It returns
// the status and the code of an error.
func (s *measuredApp) confirmAs(authorizer, hold, key string) (status int, code string) {
	s.t.Helper()
	event := events.APIGatewayV2HTTPRequest{
		Version: "2.0", RawPath: hold + "/confirm",
		// None of these makes a principal.
		Headers: map[string]string{
			"idempotency-key": key, "authorization": "Bearer forged", "x-amz-user-arn": "forged",
		},
	}
	event.RequestContext.HTTP.Method = http.MethodPost
	err := json.Unmarshal([]byte(authorizer), &event.RequestContext.Authorizer)
	if err != nil {
		s.t.Fatal(err)
	}
	response, err := s.app.HTTP("confirm")(s.t.Context(), event)
	if err != nil {
		s.t.Fatal(err)
	}
	var body struct{ Code string }
	if err := json.Unmarshal([]byte(response.Body), &body); err != nil {
		s.t.Fatal(err)
	}
	return response.StatusCode, body.Code
}

// From the gateway's event to the table: nobody's key is in the way of the payment side's.
func TestAKeyBelongsToThePrincipalOfTheEvent(t *testing.T) {
	t.Parallel()

	const (
		jwt   = `{"jwt": {"claims": {"iss": "https://id.example", "sub": "payments"}}}`
		other = `{"jwt": {"claims": {"iss": "https://id.example", "sub": "refunds"}}}`
		task1 = `{"iam": {"userArn": "arn:aws:sts::123456789012:assumed-role/payments/task-1"}}`
		task2 = `{"iam": {"userArn": "arn:aws:sts::123456789012:assumed-role/payments/task-2"}}`
		key   = "payment-17"
	)
	s := newStockedApp(t)
	reserve := func(key string) string {
		t.Helper()
		hold, _ := s.call("reserve", http.MethodPost, "/api/reservations", line(east, "1", "60"), key)
		if hold == "" {
			t.Fatal("the reserve failed")
		}
		return hold
	}
	want := func(authorizer, hold string, status int, code string) {
		t.Helper()
		gotStatus, gotCode := s.confirmAs(authorizer, hold, key)
		if gotStatus != status || gotCode != code {
			t.Errorf("%s confirms %s under %s = %d %s, want %d %s", authorizer, hold, key, gotStatus,
				gotCode, status, code)
		}
	}
	strangers := reserve(key)
	first, second, third := reserve(""), reserve(""), reserve("")

	want(jwt, first, http.StatusOK, "")
	want(other, second, http.StatusOK, "")
	want(task1, third, http.StatusOK, "")

	want(task2, third, http.StatusOK, "")
	for _, caller := range []string{"null", jwt, other, task1, task2} {
		want(caller, strangers, http.StatusUnprocessableEntity, "IDEMPOTENCY_KEY_REUSED")
	}
	want(`{"lambda": {"user": "payments"}}`, strangers, http.StatusBadRequest, "VALIDATION_FAILED")
}

// reserveAs sends a reserve with the gateway's findings about the caller, and returns the status.
func (s *measuredApp) reserveAs(authorizer, body string) int {
	s.t.Helper()
	event := events.APIGatewayV2HTTPRequest{
		Version: "2.0", RawPath: "/api/reservations", Body: body,
		Headers: map[string]string{
			"content-type": "application/json", "x-scope": "reservations:act-for-any",
		},
	}
	event.RequestContext.HTTP.Method = http.MethodPost
	if err := json.Unmarshal([]byte(authorizer), &event.RequestContext.Authorizer); err != nil {
		s.t.Fatal(err)
	}
	response, err := s.app.HTTP("reserve")(s.t.Context(), event)
	if err != nil {
		s.t.Fatal(err)
	}
	return response.StatusCode
}

// From the gateway's event to the table: a shopper's token says who the owner is, and no header
// gives the shopper a scope.
func TestTheOwnerOfAHoldIsThatOfTheEvent(t *testing.T) {
	t.Parallel()

	const token = `{"jwt": {"claims": {"iss": "i", "sub": "ann"%s}, "scopes": ["reservations:write"]}}`
	const forAny = `, "scope": "reservations:write reservations:act-for-any"`
	s := newStockedApp(t)
	named := strings.Replace(line(east, "1", "60"), "{", `{"owner":"bob",`, 1)
	for _, c := range []struct {
		authorizer, body string
		status           int
	}{
		{fmt.Sprintf(token, ""), line(east, "1", "60"), http.StatusCreated},
		{fmt.Sprintf(token, ""), named, http.StatusForbidden},
		{fmt.Sprintf(token, forAny), named, http.StatusCreated},
		{"null", named, http.StatusCreated},
	} {
		if got := s.reserveAs(c.authorizer, c.body); got != c.status {
			t.Errorf("%s reserves %s = %d, want %d", c.authorizer, c.body, got, c.status)
		}
	}
	const owners = "SELECT string_agg(owner, ' ' ORDER BY owner) FROM hold_parties"
	if got := pgtest.QueryOne[string](s.fixture, owners); got != "ann bob bob" {
		t.Errorf("the holds are of %s, want ann and twice bob", got)
	}
}
