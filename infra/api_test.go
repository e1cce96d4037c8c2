package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/allo/reservations/internal/route"
)

func TestEveryRouteOfTheTableGoesToItsFunctionsAlias(t *testing.T) {
	eachMode(t, func(t *testing.T, mode string, tpl template) {
		want, got := map[string]string{}, map[string]string{}
		for _, r := range route.All() {
			want[r.Key()] = r.Function
		}
		for _, r := range tpl.resources("AWS::ApiGatewayV2::Route") {
			got[fmt.Sprint(r.get("RouteKey"))] = tpl.functionBehind(mode, r)
		}
		if diff := gocmp.Diff(want, got); diff != "" {
			t.Errorf("routes (-want +got):\n%s", diff)
		}
	})
}

var reference = regexp.MustCompile(`"Ref":"([^"]+)"`)

// functionBehind returns the name of the function whose alias a route's integration invokes.
func (tpl template) functionBehind(mode string, r resource) string {
	target := reference.FindStringSubmatch(asJSON(r.get("Target")))
	if target == nil {
		return ""
	}
	aliases := tpl.resources("AWS::Lambda::Alias")
	for _, integration := range tpl.resources("AWS::ApiGatewayV2::Integration") {
		if integration.id != target[1] {
			continue
		}
		i := slices.IndexFunc(aliases, func(a resource) bool {
			return a.id == integration.get("IntegrationUri", "Ref") && a.get("Name") == liveAlias
		})
		if i < 0 {
			return ""
		}
		for name, f := range tpl.functions(mode) {
			if aliases[i].get("FunctionName", "Ref") == f.id {
				return name
			}
		}
	}
	return ""
}

// The scopes are written out here a second time, so that a scope lost from the table is found.
func TestOnlyThePaymentSideConfirmsAndOnlyTheOperatorLists(t *testing.T) {
	scopes := map[string]string{
		"POST /api/reservations/{id}/confirm":        "reservations:confirm",
		"POST /api/reservations/{id}/payment":        "reservations:confirm",
		"POST /api/reservations/{id}/payment/failed": "reservations:confirm",
		"POST /api/reservations/{id}/cancel":         "reservations:support",
		"POST /api/owners/erase":                     "reservations:support",
		"GET /api/reservations":                      "inventory:read",
		"HEAD /api/reservations":                     "inventory:read",
		"GET /api/stats":                             "inventory:read",
		"HEAD /api/stats":                            "inventory:read",
		"POST /api/catalog/products":                 "catalog:write",
		"POST /api/catalog/warehouses":               "catalog:write",
		"GET /api/stock":                             "inventory:read",
		"HEAD /api/stock":                            "inventory:read",
		"POST /api/stock/movements":                  "inventory:write",
		"GET /api/stock/movements":                   "inventory:read",
		"HEAD /api/stock/movements":                  "inventory:read",
		"POST /api/reservations/{id}/returns":        "inventory:write",
		"GET /api/reservations/{id}/history":         "inventory:read",
		"HEAD /api/reservations/{id}/history":        "inventory:read",
		"GET /api/reservations/{id}/payments":        "inventory:read",
		"HEAD /api/reservations/{id}/payments":       "inventory:read",
		"GET /api/reservations/{id}/returns":         "inventory:read",
		"HEAD /api/reservations/{id}/returns":        "inventory:read",
		"GET /api/events":                            "events:read",
		"HEAD /api/events":                           "events:read",
		"GET /api/webhooks":                          "events:read",
		"HEAD /api/webhooks":                         "events:read",
		"POST /api/webhooks/{name}/redeliver":        "events:write",
	}
	types := map[string]string{"": "NONE", "jwt": "JWT", "cognito": "JWT", "iam": "AWS_IAM"}
	eachMode(t, func(t *testing.T, mode string, tpl template) {
		guarded := 0
		scopes := maps.Clone(scopes)
		if modes[mode]["reserveAuth"] == "on" {
			scopes["POST /api/reservations"] = "reservations:write"
		}
		for _, r := range tpl.resources("AWS::ApiGatewayV2::Route") {
			wantType, wantScopes := "NONE", "null"
			if scope := scopes[fmt.Sprint(r.get("RouteKey"))]; scope != "" {
				guarded++
				wantType = types[modes[mode]["auth"]]
				if wantType == "JWT" {
					wantScopes = asJSON([]string{scope})
				}
			}
			gotType, _ := r.get("AuthorizationType").(string)
			gotScopes := asJSON(r.get("AuthorizationScopes"))
			if cmp.Or(gotType, "NONE") != wantType || gotScopes != wantScopes {
				t.Errorf("%v wants %q %s, should want %s %s",
					r.get("RouteKey"), gotType, gotScopes, wantType, wantScopes)
			}
			if wantType == "JWT" && r.get("AuthorizerId") == nil {
				t.Errorf("%v has no authorizer", r.get("RouteKey"))
			}
		}
		if guarded != len(scopes) {
			t.Errorf("the gateway has %d of the %d routes with a scope", guarded, len(scopes))
		}
	})
	authorizer := synth(t, "aurora-prod").only(t, "AWS::ApiGatewayV2::Authorizer")
	want := `{"Audience":["shop"],"Issuer":"https://issuer.example.com"}`
	if got := asJSON(authorizer.get("JwtConfiguration")); got != want {
		t.Errorf("the authorizer checks %s, want %s", got, want)
	}
}

func TestTheStageThrottlesAndLogsEveryCall(t *testing.T) {
	eachMode(t, func(t *testing.T, mode string, tpl template) {
		stage := tpl.only(t, "AWS::ApiGatewayV2::Stage")
		if stage.get("StageName") != "$default" || stage.get("AutoDeploy") != true {
			t.Errorf("the stage is %s", asJSON(stage.properties))
		}
		rate, burst := 100.0, 200.0
		if isProd(mode) {
			rate, burst = 1000.0, 2000.0
		}
		if modes[mode]["throttleRate"] == "50" {
			rate = 50
		}
		want := map[string]any{
			"DetailedMetricsEnabled": false,
			"ThrottlingRateLimit":    rate, "ThrottlingBurstLimit": burst,
		}
		if diff := gocmp.Diff(want, stage.get("DefaultRouteSettings")); diff != "" {
			t.Errorf("the stage's settings (-want +got):\n%s", diff)
		}
		var log map[string]string
		format, _ := stage.get("AccessLogSettings", "Format").(string)
		if err := json.Unmarshal([]byte(format), &log); err != nil {
			t.Errorf("the access log isn't JSON: %v", err)
		}
		for _, field := range []string{"requestId", "time", "route", "status", "functionError"} {
			if log[field] == "" {
				t.Errorf("the access log has no %s: %s", field, format)
			}
		}
		if strings.Contains(strings.ToLower(format), "path") {
			t.Errorf("the access log has the path, into which a caller can write anything: %s", format)
		}
		if strings.Contains(format, "claims") {
			t.Errorf("the access log has a claim, which may name a customer: %s", format)
		}
		if stage.get("AccessLogSettings", "DestinationArn") == nil {
			t.Error("the access log has no destination")
		}
	})
}

func TestTheAPIHasTheOriginsAndTheDomainOfTheSettings(t *testing.T) {
	plain := synth(t, "external-dev").only(t, "AWS::ApiGatewayV2::Api")
	if plain.get("CorsConfiguration") != nil || plain.get("DisableExecuteApiEndpoint") == true {
		t.Errorf("without corsOrigins and domainName the API is %s", asJSON(plain.properties))
	}
	tpl := synth(t, "external-prod")
	api := tpl.only(t, "AWS::ApiGatewayV2::Api")
	if api.get("DisableExecuteApiEndpoint") != true {
		t.Error("the API's own URL is a way around the custom domain")
	}
	want := map[string]any{
		"AllowOrigins": []any{"https://shop.example.com"},
		"AllowMethods": []any{"GET", "POST"},
		"AllowHeaders": []any{"content-type", "idempotency-key", "authorization"},
		"ExposeHeaders": []any{
			"location", "link", "retry-after", "idempotency-replayed", "x-request-id", "stock-as-of",
			"total-count",
		},
		"MaxAge": 3600.0,
	}
	if diff := gocmp.Diff(want, api.get("CorsConfiguration")); diff != "" {
		t.Errorf("CORS (-want +got):\n%s", diff)
	}
	domain := tpl.only(t, "AWS::ApiGatewayV2::DomainName")
	configurations := asList(domain.get("DomainNameConfigurations"))
	if domain.get("DomainName") != "api.example.com" || len(configurations) != 1 ||
		dig(configurations[0], "SecurityPolicy") != "TLS_1_2" ||
		dig(configurations[0], "CertificateArn") != modes["external-prod"]["certificateArn"] {
		t.Errorf("the domain is %s", asJSON(domain.properties))
	}
	mapping := tpl.only(t, "AWS::ApiGatewayV2::ApiMapping")
	if mapping.get("ApiId", "Ref") != api.id {
		t.Errorf("the domain leads to %s", asJSON(mapping.properties))
	}
	record := tpl.named(t, "AWS::Route53::RecordSet", "Name", "api.example.com.")
	if record.get("Type") != "A" {
		t.Errorf("the record is %s", asJSON(record.properties))
	}
}
