package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/allo/reservations/internal/postgres"
)

// readers names the functions that read from the reader in place of the writer, where the sale is.
// The audit's snapshots would also make the writer's hot rows slow.
var readers = []string{
	"sweep", "list-products", "list-warehouses", "list-reservations", "list-movements", "list-stock",
	"stats", "history", "list-events",
}

// The sweeper reaches prod's reader past the proxy, and the others through the proxy's endpoint.
func TestReadsGoToTheReader(t *testing.T) {
	const direct, proxied = `"ReadEndpoint.Address"`, `"DatabaseClusterProxyReaders`
	for mode, want := range map[string]string{
		"aurora-dev": "", "aurora-direct": direct, "aurora-prod": proxied, "external-prod": "",
	} {
		tpl := synth(t, mode)
		for name, f := range tpl.functions(mode) {
			reader := asJSON(f.get("Environment", "Variables", "DATABASE_READER"))
			want := want
			if name == "sweep" && want != "" {
				want = direct
			}
			if !slices.Contains(readers, name) || want == "" {
				want = "null"
			}
			if !strings.Contains(reader, want) || want != "null" && !strings.Contains(reader, "5432") {
				t.Errorf("%s: %s reads from %s, want %s", mode, name, reader, want)
			}
		}
	}
}

// checkReadersEndpoint returns what is wrong with the proxy's endpoint for reads.
func (tpl template) checkReadersEndpoint(t *testing.T) (wrong []string) {
	t.Helper()
	endpoint, proxy := tpl.only(t, "AWS::RDS::DBProxyEndpoint"), tpl.only(t, "AWS::RDS::DBProxy")
	group := tpl.only(t, "AWS::RDS::DBProxyTargetGroup")
	if role := endpoint.get("TargetRole"); role != "READ_ONLY" {
		wrong = append(wrong, fmt.Sprint("its role is ", role))
	}
	groups := asJSON(endpoint.get("VpcSecurityGroupIds"))
	if groups != asJSON(proxy.get("VpcSecurityGroupIds")) || !strings.Contains(groups, "ProxyGroup") {
		wrong = append(wrong, "it isn't in the proxy's security group")
	}
	if asJSON(endpoint.get("VpcSubnetIds")) != asJSON(proxy.get("VpcSubnetIds")) {
		wrong = append(wrong, "it isn't in the proxy's subnets")
	}
	if !endpoint.dependsOn(group.id) {
		wrong = append(wrong, "it may be created before the proxy has its targets")
	}
	if !group.dependsOn("ClusterReader") {
		wrong = append(wrong, "the proxy's targets may lack the reader")
	}
	return wrong
}

func TestTheProxysEndpointForReads(t *testing.T) {
	tpl := synth(t, "aurora-prod")
	if wrong := tpl.checkReadersEndpoint(t); wrong != nil {
		t.Errorf("the endpoint for reads: %v", wrong)
	}
	endpoint := tpl.only(t, "AWS::RDS::DBProxyEndpoint")
	for old, replacement := range map[string]string{
		`"TargetRole":"READ_ONLY"`:                                      `"TargetRole":"READ_WRITE"`,
		asJSON(endpoint.get("VpcSecurityGroupIds")) + `,"VpcSubnetIds"`: `["sg-1"],"VpcSubnetIds"`,
	} {
		if changed(t, tpl, old, replacement).checkReadersEndpoint(t) == nil {
			t.Errorf("the test accepts %s", replacement)
		}
	}
	for _, mode := range []string{"aurora-dev", "aurora-direct", "external-prod"} {
		if n := len(synth(t, mode).resources("AWS::RDS::DBProxyEndpoint")); n != 0 {
			t.Errorf("%s has %d endpoints of a proxy, want none", mode, n)
		}
	}
}

func TestTheReasonsOfFallbacksAreThoseOfTheReader(t *testing.T) {
	t.Parallel()

	var want []string
	for _, reason := range postgres.Fallbacks() {
		want = append(want, string(reason))
	}
	if diff := cmp.Diff(want, fallbackReasons); diff != "" {
		t.Errorf("the alarm's reasons differ from the reader's (-want +got):\n%s", diff)
	}
}

// A stack without a reader has no alarm for one.
func TestReadsThatFallBackRingWhereThereIsAReader(t *testing.T) {
	for mode, want := range map[string]bool{
		"aurora-dev": false, "aurora-direct": true, "aurora-prod": true, "external-prod": false,
	} {
		found := false
		for _, a := range synth(t, mode).resources("AWS::CloudWatch::Alarm") {
			name, _ := a.get("AlarmName").(string)
			found = found || strings.HasSuffix(name, "-ReaderFallbacks")
		}
		if found != want {
			t.Errorf("%s has the alarm ReaderFallbacks: %t, want %t", mode, found, want)
		}
	}
}
