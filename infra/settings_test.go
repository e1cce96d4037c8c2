package main

import (
	"os"
	"regexp"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/allo/reservations/internal/events"
)

func TestInvalidSettingsAreRefused(t *testing.T) {
	t.Parallel()

	const (
		arn    = "arn:aws:acm:eu-west-1:123456789012:certificate/"
		cdnARN = "arn:aws:acm:us-east-1:123456789012:certificate/0"
	)
	for name, test := range map[string]struct {
		context map[string]any
		want    []string
	}{
		"unknown key": {
			map[string]any{"dbproxy": "on"}, []string{`"dbproxy" is unknown`, "dbProxy"},
		},
		"two unknown keys": {
			map[string]any{"a": 1, "b": true}, []string{`"a" is unknown`, `"b" is unknown`},
		},
		"key with a colon": {
			map[string]any{"auth:mode": "jwt"}, []string{`"auth:mode" is unknown`},
		},
		"unknown env":      {map[string]any{"env": "staging"}, []string{"env is", "dev, prod"}},
		"unknown database": {map[string]any{"db": "mysql"}, []string{"db is", "aurora, external"}},
		"name in capitals": {map[string]any{"name": "Shop!"}, []string{"name is"}},
		"name with --":     {map[string]any{"name": "a--b"}, []string{"name is"}},
		"name of 21 characters": {
			map[string]any{"name": "abcdefghij-bcdefghijk"}, []string{"name is"},
		},
		"consumer of 21 characters": {
			map[string]any{"queues": "a-b-c-d-e-f-g-h-i-j-k"}, []string{"queues has the name"},
		},
		"name that ends in -": {map[string]any{"name": "a-"}, []string{"name is"}},
		"architecture as Go names it": {
			map[string]any{"arch": "amd64"}, []string{"arch is", "x86_64"},
		},
		"proxy with an external database": {
			map[string]any{"db": "external", "dbProxy": "on"}, []string{"dbProxy is for db=aurora"},
		},
		"capacity of an external database": {
			map[string]any{"db": "external", "maxAcu": "8"}, []string{"maxAcu is for db=aurora"},
		},
		"secret with Aurora": {
			map[string]any{"databaseUrlSecret": "x"}, []string{"databaseUrlSecret is for db=external"},
		},
		"URL instead of a secret's name": {
			map[string]any{"db": "external", "databaseUrlSecret": "postgres://u:p@h/d"},
			[]string{"databaseUrlSecret is"},
		},
		"jwt without an issuer": {
			map[string]any{"auth": "jwt"}, []string{"auth=jwt needs jwtIssuer"},
		},
		"issuer without jwt": {
			map[string]any{"jwtIssuer": "https://a.example"}, []string{"are for auth=jwt"},
		},
		"issuer over plain HTTP": {
			map[string]any{"auth": "jwt", "jwtIssuer": "http://a", "jwtAudience": "b"},
			[]string{"https://"},
		},
		"issuer with a query": {
			map[string]any{"auth": "jwt", "jwtIssuer": "https://a.example/?x", "jwtAudience": "b"},
			[]string{"jwtIssuer is"},
		},
		"half a domain": {
			map[string]any{"domainName": "api.example.com"}, []string{"needs all of"},
		},
		"domain outside its zone": {
			map[string]any{
				"domainName": "api.example.org", "hostedZoneName": "example.com",
				"hostedZoneId": "Z1", "certificateArn": arn + "0",
			},
			[]string{"isn't in the zone"},
		},
		"two names of one domain": {
			map[string]any{
				"domainName": "a.example.com", "certificateArn": arn + "0", "cdn": "on",
				"cdnDomainName": "a.example.com", "cdnCertificateArn": cdnARN,
				"hostedZoneName": "example.com", "hostedZoneId": "Z1",
			},
			[]string{"domainName and cdnDomainName are both a.example.com"},
		},
		"zone of no domain": {
			map[string]any{"hostedZoneName": "example.com", "hostedZoneId": "Z1"},
			[]string{"are for domainName and cdnDomainName", "needs all of"},
		},
		"domain of the CDN without its zone": {
			map[string]any{"cdn": "on", "cdnDomainName": "a.example.com", "cdnCertificateArn": cdnARN},
			[]string{"needs all of cdnDomainName, cdnCertificateArn"},
		},
		"certificate of the CDN elsewhere": {
			map[string]any{"cdn": "on", "cdnCertificateArn": arn + "0"},
			[]string{"cdnCertificateArn is", "us-east-1"},
		},
		"firewall of a region": {
			map[string]any{
				"cdn":       "on",
				"cdnWebAcl": "arn:aws:wafv2:eu-west-1:123456789012:regional/webacl/shop/0a",
			},
			[]string{"cdnWebAcl is", "us-east-1"},
		},
		"firewall without a CDN": {
			map[string]any{
				"cdnWebAcl": "arn:aws:wafv2:us-east-1:123456789012:global/webacl/shop/0a",
			},
			[]string{"cdnWebAcl is for cdn=on"},
		},
		"CDN as a bool": {map[string]any{"cdn": true}, []string{"cdn is", "on, off"}},
		"live by the minute": {
			map[string]any{"live": "on"}, []string{"live=on needs events=on"},
		},
		"second factor of another issuer": {
			map[string]any{"mfa": "required"}, []string{"mfa is for auth=cognito"},
		},
		"second factor by a word": {
			map[string]any{"auth": "cognito", "mfa": "on"}, []string{"mfa is", "optional, required"},
		},
		"issuer beside the user pool": {
			map[string]any{"auth": "cognito", "jwtIssuer": "https://a.example"},
			[]string{"are for auth=jwt"},
		},
		"name that Cognito refuses": {
			map[string]any{"auth": "cognito", "name": "my-aws"}, []string{"name is", "Cognito refuses"},
		},
		"certificate without an id": {
			map[string]any{"certificateArn": arn}, []string{"certificateArn is"},
		},
		"e-mail in brackets": {map[string]any{"alarmEmail": "<a@b.co>"}, []string{"alarmEmail is"}},
		"e-mail of no host":  {map[string]any{"alarmEmail": "ops"}, []string{"alarmEmail is"}},
		"any origin":         {map[string]any{"corsOrigins": "*"}, []string{"corsOrigins"}},
		"any https origin":   {map[string]any{"corsOrigins": "https://*"}, []string{"corsOrigins"}},
		"any subdomain": {
			map[string]any{"corsOrigins": "https://*.example.com"}, []string{"corsOrigins"},
		},
		"origin in capitals": {
			map[string]any{"corsOrigins": "https://Shop.example.com"}, []string{"corsOrigins"},
		},
		"origin with the default port": {
			map[string]any{"corsOrigins": "https://shop.example.com:443"}, []string{"corsOrigins"},
		},
		"origin with a path": {
			map[string]any{"corsOrigins": "https://a.example/"}, []string{"corsOrigins"},
		},
		"no throttle":       {map[string]any{"throttleRate": 0}, []string{"throttleRate", "from 1"}},
		"too small cluster": {map[string]any{"maxAcu": "1"}, []string{"maxAcu", "from 2"}},
		"sweeper as a bool": {map[string]any{"sweeper": true}, []string{"sweeper is", "on, off"}},
		"duration without a unit": {
			map[string]any{"holdTtl": "10"}, []string{"holdTtl", "HOLD_TTL"},
		},
		"hold longer than the longest": {
			map[string]any{"holdTtl": "2h"}, []string{"holdTtl", "MAX_HOLD"},
		},
		"too short a retention": {
			map[string]any{"retentionDays": "29"}, []string{"retentionDays", "RETENTION_DAYS", "30"},
		},
		"too long a lag of the reader": {
			map[string]any{"env": "prod", "readerLag": "11s"}, []string{"readerLag", "READER_LAG", "10s"},
		},
		"a lag without a reader": {
			map[string]any{"readerLag": "2s"}, []string{"readerLag", "env=prod"},
		},
		"a lag of another's reader": {
			map[string]any{"env": "prod", "db": "external", "readerLag": "2s"},
			[]string{"readerLag", "db=aurora"},
		},
		"events as a switch": {
			map[string]any{"events": "true"}, []string{"events is", "on, minute, off"},
		},
		"bus as a bool":     {map[string]any{"bus": true}, []string{"bus is", "on, off"}},
		"queue in capitals": {map[string]any{"queues": "CRM"}, []string{`queues has the name "CRM"`}},
		"no queue":          {map[string]any{"queues": "crm,"}, []string{`queues has the name ""`}},
		"one queue twice":   {map[string]any{"queues": "crm,crm"}, []string{"crm twice"}},
		"hyphens alone":     {map[string]any{"queues": "a-b,ab"}, []string{"ab twice", "hyphens"}},
		"unknown event type": {
			map[string]any{"queues": "crm:held"}, []string{`"held"`, "allo.reservation.held"},
		},
		"event type twice": {
			map[string]any{"queues": "crm:allo.stock.moved|allo.stock.moved"},
			[]string{"crm has the type allo.stock.moved twice"},
		},
		"too many queues and webhooks": {
			map[string]any{"queues": "a,b,c,d,e,f,g,h,i,j", "webhooks": "k=https://k.example"},
			[]string{"11 queues and webhooks", "room for 10"},
		},
		"webhook without a URL": {
			map[string]any{"webhooks": "erp"}, []string{"element 1 is no name=url"},
		},
		"webhook over plain HTTP": {
			map[string]any{"webhooks": "erp=http://a.example"}, []string{"webhook erp", "https://"},
		},
		"webhook at an address": {
			map[string]any{"webhooks": "erp=https://169.254.169.254/"}, []string{"webhook erp", "name"},
		},
		"webhook at this machine": {
			map[string]any{"webhooks": "erp=https://localhost/"}, []string{"webhook erp"},
		},
		"webhook with a password": {
			map[string]any{"webhooks": "erp=https://u:p@a.example/"}, []string{"without a user"},
		},
		"webhook with a long URL": {
			map[string]any{"webhooks": "erp=https://a.example/" + strings.Repeat("x", maxURL)},
			[]string{"at most 200"},
		},
		"webhook's name in capitals": {
			map[string]any{"webhooks": "ERP=https://a.example"}, []string{`the name "ERP"`},
		},
		"webhook with an unknown member": {
			map[string]any{"webhooks": []any{map[string]any{"label": "erp"}}},
			[]string{"webhooks must be a list", "label"},
		},
		"webhook's list is no list": {
			map[string]any{"webhooks": map[string]any{"name": "erp"}},
			[]string{"webhooks must be a list"},
		},
		"webhook's secret is no name": {
			map[string]any{"webhooks": []any{map[string]any{
				"name": "erp", "url": "https://a.example", "secret": "whsec_MfKQ/x y",
			}}},
			[]string{"the secret of the webhook erp", "the name of a secret"},
		},
		"webhook's secret itself": {
			map[string]any{"webhooks": []any{map[string]any{
				"name": "erp", "url": "https://a.example", "secret": "whsec_MfKQ",
			}}},
			[]string{"the secret of the webhook erp", "not the signing secret"},
		},
		"webhook with a query": {
			map[string]any{"webhooks": "erp=https://a.example/hook?key=MfKQ9r8"},
			[]string{"webhook erp must have no query", "signature"},
		},
		"webhook with an empty query": {
			map[string]any{"webhooks": "erp=https://a.example/hook?"}, []string{"must have no query"},
		},
		"webhook at port 0": {
			map[string]any{"webhooks": "erp=https://a.example:0/"}, []string{"webhook erp", "port"},
		},
		"webhook at a large port": {
			map[string]any{"webhooks": "erp=https://a.example:65536/"}, []string{"webhook erp", "port"},
		},
		"webhook with little concurrency": {
			map[string]any{"webhooks": []any{map[string]any{
				"name": "erp", "url": "https://a.example", "concurrency": 1,
			}}},
			[]string{"concurrency of the webhook erp is 1", "from 2 to 50"},
		},
		"webhook with much concurrency": {
			map[string]any{"webhooks": []any{map[string]any{
				"name": "erp", "url": "https://a.example", "concurrency": 51,
			}}},
			[]string{"concurrency of the webhook erp is 51"},
		},
		"webhook with an unknown type": {
			map[string]any{"webhooks": []any{map[string]any{
				"name": "erp", "url": "https://a.example", "types": []any{"held"},
			}}},
			[]string{`erp has the type "held"`},
		},
		"webhooks too long for a function": {
			map[string]any{"webhooks": manyWebhooks()}, []string{"webhooks has", "room for 3072"},
		},
		"payment that lasts too long": {
			map[string]any{"maxPaymentHold": "169h"}, []string{"maxPaymentHold", "MAX_PAYMENT_HOLD", "168h"},
		},
		"no units": {
			map[string]any{"maxUnits": "0"}, []string{"maxUnits", "MAX_UNITS", "100000000"},
		},
		"too many lines": {
			map[string]any{"maxLines": "101"}, []string{"maxLines", "MAX_LINES", "100"},
		},
		"reserve guarded by nothing": {
			map[string]any{"reserveAuth": "on"},
			[]string{"reserveAuth=on needs auth=jwt, auth=cognito or auth=iam"},
		},
		"reserve guarded by a number": {
			map[string]any{"reserveAuth": "1", "auth": "iam"}, []string{"reserveAuth is", "on, off"},
		},
		"no stock shown": {
			map[string]any{"stockShown": "0"}, []string{"stockShown", "STOCK_SHOWN", "exact"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := ReadSettings(test.context)
			if err == nil {
				t.Fatal("ReadSettings accepts it")
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("the error is %q, want %q in it", err, want)
				}
			}
		})
	}
}

// A URL may have a token, and the secret may be the signing secret by mistake.
func TestAnInvalidWebhookIsRefusedWithoutItsSecrets(t *testing.T) {
	t.Parallel()

	const token = "MfKQ9r8"
	const secret = `[{"name": "erp", "url": "https://a.example", "secret": `
	for name, webhooks := range map[string]any{
		"the secret itself": secret + `"whsec_` + token + `"}]`,
		"two secrets":       secret + `"x ` + token + `"}]`,
		"an http URL":       "erp=http://a.example/hook/" + token,
		"a URL's query":     "erp=https://a.example/hook?token=" + token,
		"a URL alone":       "https://a.example/" + token,
		"a number":          `[{"name": "erp", "url": 7, "secret": "` + token + `"}]`,
	} {
		_, err := ReadSettings(map[string]any{"webhooks": webhooks})
		if err == nil || strings.Contains(err.Error(), token) {
			t.Errorf("%s: the error is %v, want one without %s", name, err, token)
		}
	}
}

// manyWebhooks returns ten webhooks that together are too long for a function's variables.
func manyWebhooks() (list []any) {
	for i := range maxConsumers {
		name := string(rune('a' + i))
		list = append(list, map[string]any{
			"name": name, "types": events.Types(),
			"url": "https://" + name + ".example/" + strings.Repeat("x", 150),
		})
	}
	return list
}

func TestQueuesAndWebhooksAreRead(t *testing.T) {
	t.Parallel()

	want := []Webhook{
		{"erp", "https://erp.example/hook", nil, "allo-dev/webhook-erp", leastConcurrency},
		{"crm", "https://crm.example:8443/a/1", nil, "allo-dev/webhook-crm", leastConcurrency},
	}
	for name, value := range map[string]any{
		"pairs": "erp=https://erp.example/hook,crm=https://crm.example:8443/a/1",
		"JSON": `[{"name": "erp", "url": "https://erp.example/hook"},
			{"name": "crm", "url": "https://crm.example:8443/a/1"}]`,
		"objects": []any{
			map[string]any{"name": "erp", "url": "https://erp.example/hook"},
			map[string]any{"name": "crm", "url": "https://crm.example:8443/a/1"},
		},
	} {
		s, err := ReadSettings(map[string]any{"webhooks": value})
		if diff := gocmp.Diff(want, s.Webhooks); err != nil || diff != "" {
			t.Errorf("webhooks from %s: %v, (-want +got):\n%s", name, err, diff)
		}
	}
	s, err := ReadSettings(map[string]any{
		"queues": "fulfilment:allo.reservation.confirmed|allo.reservation.released,crm",
		"webhooks": []any{map[string]any{
			"name": "erp", "url": "https://erp.example", "secret": "shop/erp",
			"types": []any{"allo.stock.moved"}, "concurrency": mostConcurrency,
		}},
	})
	wantQueues := []Queue{
		{Name: "fulfilment", Types: []string{events.TypeConfirmed, events.TypeReleased}}, {Name: "crm"},
	}
	want = []Webhook{{
		Name: "erp", URL: "https://erp.example", Types: []string{events.TypeMoved},
		Secret: "shop/erp", Concurrency: mostConcurrency,
	}}
	diff := gocmp.Diff(wantQueues, s.Queues) + gocmp.Diff(want, s.Webhooks)
	if err != nil || diff != "" {
		t.Errorf("queues and webhooks: %v, (-want +got):\n%s", err, diff)
	}
}

func TestValidSettingsAreRead(t *testing.T) {
	t.Parallel()

	s, err := ReadSettings(map[string]any{
		"env": "prod", "db": "external", "throttleRate": 7,
		"corsOrigins": "https://shop.example.com,http://localhost:3000",
		// The CDK's own keys.
		"@aws-cdk/core:flag": true, "availability-zones:account=1:region=x": []any{},
		"aws:cdk:enable-asset-metadata": true,
	})
	if err != nil || s.ThrottleRate != 7 || s.SecretName != "allo-prod/database-url" || s.Proxy ||
		!s.Stage.Protected || s.Auth != AuthIAM || len(s.CORSOrigins) != 2 || s.Events != EventsOn {
		t.Errorf("ReadSettings(prod, external) = %+v, %v", s, err)
	}
	s, err = ReadSettings(nil)
	if err != nil || !s.Aurora || s.Env != "dev" || s.Arch != "arm64" || !s.Sweeper || s.Proxy ||
		s.Events != EventsMinute || s.Bus {
		t.Errorf("ReadSettings(nil) = %+v, %v", s, err)
	}
	if s, err := ReadSettings(map[string]any{"env": "prod"}); err != nil || !s.Proxy {
		t.Errorf("ReadSettings(prod) = %+v, %v, want a proxy", s, err)
	}
}

// settingsRow matches a row of the README's table of settings: key, default, prod's default.
var settingsRow = regexp.MustCompile("(?m)^\\| `([a-zA-Z]+)` \\|([^|]*)\\|([^|]*)\\|")

func TestTheReadmesTableHasEverySettingAndItsDefaults(t *testing.T) {
	t.Parallel()

	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	type defaults struct{ Dev, Prod string }
	documented := map[string]defaults{}
	_, section, _ := strings.Cut(string(readme), "\n## Settings\n")
	section, _, _ = strings.Cut(section, "\n## ")
	for _, row := range settingsRow.FindAllStringSubmatch(section, -1) {
		if _, twice := documented[row[1]]; twice {
			t.Errorf("README.md has the key %s twice", row[1])
		}
		documented[row[1]] = defaults{strings.Trim(row[2], "` "), strings.Trim(row[3], "` ")}
	}
	known := map[string]defaults{}
	dev, prod := defaultsOf("dev"), defaultsOf("prod")
	for key := range dev {
		d := defaults{dev[key], prod[key]}
		if d.Prod == d.Dev {
			d.Prod = "" // The table names prod's default where it differs.
		}
		known[key] = d
	}
	if diff := gocmp.Diff(known, documented); diff != "" {
		t.Errorf("the table of settings in README.md (-code +README):\n%s", diff)
	}
}

// defaultsOf returns every key and its default in an environment. Names have NAME-ENV for the
// stack's name.
func defaultsOf(env string) map[string]string {
	r := newReader(map[string]any{"env": env})
	s := read(r)
	for key, value := range r.defaults {
		r.defaults[key] = strings.ReplaceAll(value, s.StackName(), "NAME-ENV")
	}
	return r.defaults
}
