package main

import (
	"slices"
	"strings"
	"testing"
)

func TestInvalidSettingsOfTheEdgeAreRefused(t *testing.T) {
	t.Parallel()

	cdn := func(more ...any) map[string]any {
		context := map[string]any{"cdn": "on", "region": "eu-central-1"}
		for i := 0; i < len(more); i += 2 {
			context[more[i].(string)] = more[i+1]
		}
		return context
	}
	zones := func(azs string) map[string]any {
		return map[string]any{"region": "eu-central-1", "azs": azs}
	}
	const wantZones = "2 or 3 different zones of the region"
	for name, test := range map[string]struct {
		context map[string]any
		want    string
	}{
		"firewall without a CDN": {
			map[string]any{"waf": "on", "region": "eu-west-1"}, "waf is for cdn=on",
		},
		"two firewalls": {
			cdn("waf", "on", "cdnWebAcl",
				"arn:aws:wafv2:us-east-1:123456789012:global/webacl/shop/0a"),
			"give one of the two",
		},
		"firewall as a bool":      {cdn("waf", true), "waf is"},
		"rate without a firewall": {cdn("wafRate", "100"), "wafRate is for waf=on"},
		"bots without a firewall": {cdn("botControl", "on"), "botControl is for waf=on"},
		"bots and a check that is one": {
			cdn("waf", "on", "botControl", "on", "synthetic", "on", "syntheticSku", "MUG"),
			"leave out one of botControl and syntheticSku",
		},
		"rate below AWS's minimum": {cdn("waf", "on", "wafRate", 9), "from 10 to 1000000"},
		"rate of a word":           {cdn("waf", "on", "wafRate", "few"), "wafRate is"},
		"only a CDN without one":   {map[string]any{"cdnOnly": "on"}, "cdnOnly is for cdn=on"},
		"secrets without a CDN":    {map[string]any{"cdnSecrets": "2"}, "cdnSecrets is for cdn=on"},
		"secret 0":                 {cdn("cdnSecrets", 0), "from 1 to 999"},
		"secret 1000":              {cdn("cdnSecrets", 1000), "from 1 to 999"},
		"one secret twice":         {cdn("cdnSecrets", "1,1"), "two different ones"},
		"three secrets":            {cdn("cdnSecrets", "1,2,3"), "two different ones"},
		"a secret itself":          {cdn("cdnSecrets", "abc"), "cdnSecrets is"},
		"an empty secret":          {cdn("cdnSecrets", "1,"), "cdnSecrets is"},
		"zones without a region": {
			map[string]any{"azs": "eu-central-1a,eu-central-1b"}, "azs needs region",
		},
		"zones without a network": {
			map[string]any{"db": "external", "region": "eu-west-1", "azs": "eu-west-1a,eu-west-1b"},
			"azs is for db=aurora",
		},
		"one zone": {zones("eu-central-1a"), wantZones},
		"four zones": {
			zones("eu-central-1a,eu-central-1b,eu-central-1c,eu-central-1d"), wantZones,
		},
		"one zone twice":          {zones("eu-central-1a,eu-central-1a"), wantZones},
		"a zone of another place": {zones("eu-central-1a,eu-west-1b"), wantZones},
		"letters alone":           {zones("a,b"), wantZones},
		"a zone's id":             {zones("euc1-az1,euc1-az2"), wantZones},
		"zones with a space":      {zones("eu-central-1a, eu-central-1b"), wantZones},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := ReadSettings(test.context)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("the error is %v, want %q in it", err, test.want)
			}
		})
	}
}

func TestValidSettingsOfTheEdgeAreRead(t *testing.T) {
	t.Parallel()

	s, err := ReadSettings(map[string]any{
		"cdn": "on", "waf": "on", "wafRate": 50, "botControl": "on", "cdnOnly": "on",
		"cdnSecrets": "2,1", "region": "eu-central-1", "azs": "eu-central-1b,eu-central-1a",
	})
	if err != nil || !s.WAF || s.WAFRate != 50 || !s.BotControl || !s.CDNOnly ||
		!slices.Equal(s.CDNSecrets, []int{2, 1}) ||
		!slices.Equal(s.Zones, []string{"eu-central-1b", "eu-central-1a"}) {
		t.Errorf("ReadSettings() = %+v, %v", s.Edge, err)
	}
	s, err = ReadSettings(nil)
	if err != nil || s.WAF || s.WAFRate != defaultWAFRate || s.BotControl || s.CDNOnly ||
		!slices.Equal(s.CDNSecrets, []int{1}) || s.Zones != nil {
		t.Errorf("ReadSettings(nil) = %+v, %v", s.Edge, err)
	}
}
