package main

import (
	"os"
	"strings"
	"testing"
)

func TestWhatTheContextMayNotSay(t *testing.T) {
	t.Parallel()

	for name, test := range map[string]struct {
		context map[string]any
		want    []string
	}{
		"an unknown key":            {map[string]any{"dbproxy": "on"}, []string{`"dbproxy" is unknown`, "dbProxy"}},
		"two unknown keys":          {map[string]any{"a": 1, "b": true}, []string{`"a" is unknown`, `"b" is unknown`}},
		"an unknown environment":    {map[string]any{"env": "staging"}, []string{"env is", "dev, prod"}},
		"a database of no kind":     {map[string]any{"db": "mysql"}, []string{"db is", "aurora, external"}},
		"a bad name":                {map[string]any{"name": "Shop!"}, []string{"name is"}},
		"an architecture of no use": {map[string]any{"arch": "amd64"}, []string{"arch is", "x86_64"}},
		"a proxy without Aurora":    {map[string]any{"db": "external", "dbProxy": "on"}, []string{"dbProxy is for db=aurora"}},
		"a secret with Aurora":      {map[string]any{"databaseUrlSecret": "x"}, []string{"databaseUrlSecret is for db=external"}},
		"a URL for a secret":        {map[string]any{"db": "external", "databaseUrlSecret": "postgres://u:p@h/d"}, []string{"databaseUrlSecret is"}},
		"tokens of nobody":          {map[string]any{"auth": "jwt"}, []string{"auth=jwt needs jwtIssuer"}},
		"an issuer without jwt":     {map[string]any{"jwtIssuer": "https://a.example"}, []string{"are for auth=jwt"}},
		"an issuer over HTTP":       {map[string]any{"auth": "jwt", "jwtIssuer": "http://a", "jwtAudience": "b"}, []string{"https://"}},
		"half a domain":             {map[string]any{"domainName": "api.example.com"}, []string{"needs all of"}},
		"a domain elsewhere": {map[string]any{
			"domainName": "api.example.org", "hostedZoneName": "example.com", "hostedZoneId": "Z1",
			"certificateArn": "arn:aws:acm:eu-west-1:123456789012:certificate/x",
		}, []string{"isn't in the zone"}},
		"a name with two hyphens": {map[string]any{"name": "a--b"}, []string{"name is"}},
		"a name that ends so":     {map[string]any{"name": "a-"}, []string{"name is"}},
		"a key with a colon":      {map[string]any{"auth:mode": "jwt"}, []string{`"auth:mode" is unknown`}},
		"an issuer with a query":  {map[string]any{"auth": "jwt", "jwtIssuer": "https://a.example/?x", "jwtAudience": "b"}, []string{"jwtIssuer is"}},
		"a certificate of none":   {map[string]any{"certificateArn": "arn:aws:acm:eu-west-1:123456789012:certificate/"}, []string{"certificateArn is"}},
		"an address in brackets":  {map[string]any{"alarmEmail": "<a@b.co>"}, []string{"alarmEmail is"}},
		"any https origin":        {map[string]any{"corsOrigins": "https://*"}, []string{"corsOrigins"}},
		"any origin of a domain":  {map[string]any{"corsOrigins": "https://*.example.com"}, []string{"corsOrigins"}},
		"an origin in capitals":   {map[string]any{"corsOrigins": "https://Shop.example.com"}, []string{"corsOrigins"}},
		"an origin with its port": {map[string]any{"corsOrigins": "https://shop.example.com:443"}, []string{"corsOrigins"}},
		"any origin":              {map[string]any{"corsOrigins": "*"}, []string{"corsOrigins"}},
		"an origin with a path":   {map[string]any{"corsOrigins": "https://a.example/"}, []string{"corsOrigins"}},
		"no throttle":             {map[string]any{"throttleRate": 0}, []string{"throttleRate", "from 1"}},
		"too small a cluster":     {map[string]any{"maxAcu": "1"}, []string{"maxAcu", "from 2"}},
		"a sweeper half on":       {map[string]any{"sweeper": true}, []string{"sweeper is", "on, off"}},
		"a time of no unit":       {map[string]any{"holdTtl": "10"}, []string{"holdTtl", "HOLD_TTL"}},
		"longer than the longest": {map[string]any{"holdTtl": "2h"}, []string{"longer than MAX_HOLD"}},
		"no address":              {map[string]any{"alarmEmail": "ops"}, []string{"alarmEmail is"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := ReadSettings(test.context)
			if err == nil {
				t.Fatal("it was taken")
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("the error is %q, want %q in it", err, want)
				}
			}
		})
	}
}

func TestWhatTheContextMaySay(t *testing.T) {
	t.Parallel()

	s, err := ReadSettings(map[string]any{
		"@aws-cdk/core:flag": true, "availability-zones:account=1:region=x": []any{}, "corsOrigins": "https://shop.example.com,http://localhost:3000", "aws:cdk:enable-asset-metadata": true, "env": "prod", "throttleRate": 7, "db": "external",
	})
	if err != nil || s.ThrottleRate != 7 || s.SecretName != "allo-prod/database-url" || s.Proxy || !s.Stage.Protected || s.Auth != AuthIAM {
		t.Errorf("ReadSettings() = %+v, %v", s, err)
	}
	if s, err := ReadSettings(nil); err != nil || !s.Aurora || s.Env != "dev" || s.Arch != "arm64" || !s.Sweeper || s.Proxy {
		t.Errorf("ReadSettings() of nothing = %+v, %v", s, err)
	}
	if s, err := ReadSettings(map[string]any{"env": "prod"}); err != nil || !s.Proxy {
		t.Errorf("ReadSettings() of prod = %+v, %v, want a proxy", s, err)
	}
}

// The README's table has every key.
func TestTheContextIsInTheReadme(t *testing.T) {
	t.Parallel()

	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, err = ReadSettings(map[string]any{"nonsense": 1})
	_, keys, _ := strings.Cut(err.Error(), "the keys are ")
	for key := range strings.SplitSeq(strings.TrimSpace(keys), ", ") {
		if !strings.Contains(string(readme), "`"+key+"`") {
			t.Errorf("README.md doesn't have the context key %s", key)
		}
	}
}
