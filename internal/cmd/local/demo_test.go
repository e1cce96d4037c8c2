package main

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/allo/reservations/internal/config"
	"github.com/allo/reservations/internal/local/pgserver"
	"github.com/allo/reservations/internal/pgtest"
)

// post returns the status of an answer, and the id of the hold in it.
func post(t *testing.T, url, body string) (status int, id string) {
	t.Helper()
	response, err := http.Post(url, "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	var answer struct{ Reservation struct{ ID string } }
	_ = json.NewDecoder(response.Body).Decode(&answer) // a refusal has no hold
	return response.StatusCode, answer.Reservation.ID
}

// With a guarded API the demo's back end signs in as itself. Without a token the same call is
// refused, and without the flag nobody shops.
func TestTheDemoPaysAndShopsWithAuth(t *testing.T) {
	t.Parallel()

	opts, c := testOptions(t), testConfig()
	opts.auth, opts.demo = true, true
	c.MaxPaymentHold, c.MaxUnits, c.MaxLines = c.MaxHold, 1000, 100
	p := start(t, opts, c)
	if got := get(t, p.url+"/settings.json"); !strings.Contains(got, `"demo":true`) {
		t.Errorf("the settings are %s, want the demo", got)
	}
	status, hold := post(t, p.url+"/api/reservations", lastMug)
	if status != http.StatusCreated {
		t.Fatalf("reserving the last mug = %d, want 201", status)
	}
	if status, _ := post(t, p.url+"/api/reservations/"+hold+"/confirm", ""); status != 401 {
		t.Errorf("a confirm without a token = %d, want 401", status)
	}
	for _, step := range []string{"START", "PAY"} {
		body := `{"reservationId":"` + hold + `","paymentReference":"p","step":"` + step + `"}`
		if status, _ := post(t, p.url+"/demo/payments", body); status != http.StatusOK {
			t.Errorf("%s = %d, want 200", step, status)
		}
	}
	const mug = `{"productId":"0192d000-0000-7000-8000-000000000103"}`
	if status, _ := post(t, p.url+"/demo/sale/restock", mug); status != http.StatusOK {
		t.Errorf("a restock = %d, want 200", status)
	}
	url, _ := pgserver.RunningURL(opts.cluster(), databaseName)
	db := pgtest.NewFixture(t, pgtest.Database{DirectURL: url})
	db.WaitUntil("SELECT count(*) > 1 FROM reservations")
}

func TestTheDemoIsForThisMachine(t *testing.T) {
	t.Parallel()

	auth := config.Config{Auth: config.Auth{Kind: config.AuthJWT}}
	here := config.Config{DatabaseURL: "postgres://u@localhost/d"}
	there := config.Config{DatabaseURL: "postgres://u@db.example/d"}
	for _, test := range []struct {
		c      config.Config
		issuer *standIn
		want   bool
	}{
		{config.Config{}, nil, true},
		{here, nil, true},
		{there, nil, false},
		{auth, nil, false},
		{auth, &standIn{}, true},
	} {
		if got := isDemo(options{demo: true}, test.c, test.issuer); got != test.want {
			t.Errorf("isDemo(%+v) = %v, want %v", test.c.Auth, got, test.want)
		}
		if isDemo(options{}, test.c, test.issuer) {
			t.Error("without the flag it is the demo")
		}
	}
}
