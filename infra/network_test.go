package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
)

func TestNothingIsOpenToTheInternet(t *testing.T) {
	world := func(r resource) bool {
		properties := maps.Clone(r.properties)
		if strings.HasPrefix(r.id, "DatabaseClusterSecurityGroup") {
			// The CDK lets a cluster call out. In an isolated subnet there is no way out.
			delete(properties, "SecurityGroupEgress")
		}
		text := asJSON(properties)
		return strings.Contains(text, "0.0.0.0/0") || strings.Contains(text, "::/0")
	}
	eachMode(t, func(t *testing.T, mode string, tpl template) {
		groups := slices.Concat(
			tpl.resources("AWS::EC2::SecurityGroup"),
			tpl.resources("AWS::EC2::SecurityGroupIngress"),
			tpl.resources("AWS::EC2::SecurityGroupEgress"))
		for _, r := range groups {
			if world(r) {
				t.Errorf("%s is open to the internet: %s", r.id, asJSON(r.properties))
			}
		}
		for _, kind := range []string{
			"AWS::EC2::NatGateway", "AWS::EC2::InternetGateway", "AWS::EC2::VPCEndpoint",
		} {
			if found := tpl.resources(kind); len(found) > 0 {
				t.Errorf("there is a %s, which nothing needs", kind)
			}
		}
		if isExternal(mode) {
			if found := tpl.resources("AWS::EC2::VPC"); len(found) > 0 {
				t.Error("an external database needs no network")
			}
			return
		}
		if log := tpl.only(t, "AWS::EC2::FlowLog"); log.get("TrafficType") != "REJECT" {
			t.Errorf("the flow log has the traffic %v", log.get("TrafficType"))
		}
		tpl.only(t, "Custom::VpcRestrictDefaultSG") // closes the VPC's default group
	})
}

func TestFunctionsReachTheClusterOnThePostgresPort(t *testing.T) {
	direct := [][2]string{{"FunctionsGroup", "ClusterSecurityGroup"}}
	for mode, hops := range map[string][][2]string{
		"aurora-dev":    direct,
		"aurora-direct": direct,
		"aurora-prod": append(direct,
			[2]string{"FunctionsGroup", "ProxyGroup"}, [2]string{"ProxyGroup", "ClusterSecurityGroup"}),
	} {
		tpl := synth(t, mode)
		// has reports whether a rule of the kind joins the groups of the hop.
		has := func(kind, own, other string, ownPart, otherPart string) bool {
			return slices.ContainsFunc(tpl.resources(kind), func(r resource) bool {
				return strings.Contains(asJSON(r.get(own)), ownPart) &&
					strings.Contains(asJSON(r.get(other)), otherPart)
			})
		}
		for _, hop := range hops {
			from, to := hop[0], hop[1]
			out := has("AWS::EC2::SecurityGroupEgress",
				"GroupId", "DestinationSecurityGroupId", from, to)
			in := has("AWS::EC2::SecurityGroupIngress", "GroupId", "SourceSecurityGroupId", to, from)
			if !in || !out {
				t.Errorf("%s: from %s to %s: outbound %v, inbound %v", mode, from, to, out, in)
			}
		}
	}
}

// The zones are those of the settings, and the CDK asks AWS for none, whose answer a synth without
// credentials wouldn't get.
func TestTheZonesAreThoseOfTheSettings(t *testing.T) {
	zones := []string{"eu-central-1a", "eu-central-1c"}
	settings := map[string]string{
		"account": "123456789012", "region": "eu-central-1", "azs": strings.Join(zones, ","),
	}
	tpl := synthesizeWith(t, settings)
	var got []string
	for _, subnet := range tpl.resources("AWS::EC2::Subnet") {
		got = append(got, fmt.Sprint(subnet.get("AvailabilityZone")))
	}
	slices.Sort(got)
	if !slices.Equal(got, zones) {
		t.Errorf("the subnets are in %v, want %v", got, zones)
	}
	if manifest := synthesizeApp(t, settings).manifest; strings.Contains(
		string(manifest), `"missing"`) {
		t.Errorf("the CDK asks AWS for something: %s", manifest)
	}
	for _, warning := range tpl.warnings {
		t.Error(warning)
	}

	// The control: without azs it asks for the account's zones.
	if manifest := draft.synthesize(t, with(settings, "azs", "")).manifest; !strings.Contains(
		string(manifest), `"availability-zones:account=123456789012`) {
		t.Errorf("without azs the CDK asks AWS for nothing: %s", manifest)
	}
}
