package main

import (
	"slices"
	"strconv"
	"strings"
)

// Edge are the choices of what stands between the shoppers and the API.
type Edge struct {
	// WAF puts a firewall of the stack's own before the CDN.
	WAF bool
	// WAFRate is how many reserves the firewall lets one address send in wafWindow seconds.
	WAFRate int
	// BotControl lets AWS's bot control look at each reserve too.
	BotControl bool
	// CDNOnly makes the functions refuse who goes around the CDN.
	CDNOnly bool
	// CDNSecrets are the numbers of the secrets that the functions take from the CDN. The CDN shows
	// the first one.
	CDNSecrets []int
}

// Bounds of the settings.
const (
	// defaultWAFRate is a hundred shoppers behind one address, of a carrier, a school or an office,
	// who send three reserves each in the five minutes.
	defaultWAFRate = 300
	// leastWAFRate is AWS WAF's minimum. mostWAFRate is above what a stage of the gateway lets through
	// in the window.
	leastWAFRate, mostWAFRate = 10, 1_000_000
	// maxCDNSecrets are two: the one that the CDN shows, and the one before it or after it.
	maxCDNSecrets = 2
	// mostCDNSecret bounds a secret's number, which is part of a logical id.
	mostCDNSecret = 999
	// leastZones is what a cluster needs. mostZones is what Aurora's storage uses.
	leastZones, mostZones = 2, 3
)

// readEdge reads the firewall and who may go around the CDN. It comes after readDomains.
func (s *Settings) readEdge(r *reader) {
	s.WAF = r.onOff("waf", false)
	s.WAFRate = r.integer("wafRate", defaultWAFRate, leastWAFRate, mostWAFRate)
	s.BotControl = r.onOff("botControl", false)
	s.CDNOnly = r.onOff("cdnOnly", false)
	s.CDNSecrets = r.cdnSecrets("cdnSecrets")
	for _, key := range []string{"waf", "cdnOnly", "cdnSecrets"} {
		if !s.CDN && r.given(key) {
			r.fail("%s is for cdn=on", key)
		}
	}
	for _, key := range []string{"wafRate", "botControl"} {
		if !s.WAF && r.given(key) {
			r.fail("%s is for waf=on", key)
		}
	}
	if s.BotControl && r.given("syntheticSku") {
		r.fail("botControl=on refuses the reserves of programs, so of the synthetic check too: " +
			"leave out one of botControl and syntheticSku")
	}
	if s.WAF && s.WebACL != "" {
		r.fail("waf=on makes a firewall, and cdnWebAcl names another one: give one of the two")
	}
}

// cdnSecrets reads the numbers of the CDN's secrets, such as 1 or 1,2.
func (r *reader) cdnSecrets(key string) (numbers []int) {
	value := r.text(key, "1")
	for item := range strings.SplitSeq(value, ",") {
		n, err := strconv.Atoi(item)
		if err != nil || n < 1 || n > mostCDNSecret || slices.Contains(numbers, n) ||
			len(numbers) == maxCDNSecrets {
			r.fail("%s is %q; it must be one number from 1 to %d, or two different ones separated by "+
				"a comma: the CDN shows the first, and the functions take both", key, value, mostCDNSecret)
			return nil
		}
		numbers = append(numbers, n)
	}
	return numbers
}

// readZones reads the availability zones of the network.
func (s *Settings) readZones(r *reader) {
	value := r.text("azs", "")
	if value == "" {
		return
	}
	s.Zones = strings.Split(value, ",")
	if !s.Aurora {
		r.fail("azs is for db=aurora: the stack has no network with an external database")
	}
	if s.Region == "" {
		r.fail("azs needs region: a zone's name begins with the name of its region")
	}
	bad := len(s.Zones) < leastZones || len(s.Zones) > mostZones
	for i, zone := range s.Zones {
		letter, found := strings.CutPrefix(zone, s.Region)
		bad = bad || !found || len(letter) != 1 || letter < "a" || letter > "z" ||
			slices.Contains(s.Zones[:i], zone)
	}
	if bad && s.Region != "" {
		r.fail("azs is %q; it must be %d or %d different zones of the region, separated by commas, "+
			"such as %[4]sa,%[4]sb", value, leastZones, mostZones, s.Region)
	}
}
