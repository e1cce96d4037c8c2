package main

import (
	"os"
	"regexp"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
)

func TestInvalidSettingsAreRefused(t *testing.T) {
	t.Parallel()

	const arn = "arn:aws:acm:eu-west-1:123456789012:certificate/"
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
		"unknown env":         {map[string]any{"env": "staging"}, []string{"env is", "dev, prod"}},
		"unknown database":    {map[string]any{"db": "mysql"}, []string{"db is", "aurora, external"}},
		"name in capitals":    {map[string]any{"name": "Shop!"}, []string{"name is"}},
		"name with --":        {map[string]any{"name": "a--b"}, []string{"name is"}},
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
		!s.Stage.Protected || s.Auth != AuthIAM || len(s.CORSOrigins) != 2 {
		t.Errorf("ReadSettings(prod, external) = %+v, %v", s, err)
	}
	s, err = ReadSettings(nil)
	if err != nil || !s.Aurora || s.Env != "dev" || s.Arch != "arm64" || !s.Sweeper || s.Proxy {
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
