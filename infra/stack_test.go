package main

import (
	"maps"
	"strings"
	"testing"

	"github.com/aws/aws-cdk-go/awscdk/v2"
	"github.com/aws/aws-cdk-go/awscdk/v2/awssqs"
	"github.com/aws/jsii-runtime-go"
)

func TestCDKNagFindsNothing(t *testing.T) {
	eachMode(t, func(t *testing.T, _ string, tpl template) {
		for _, warning := range tpl.warnings {
			t.Error(warning)
		}
	})
}

// This is the control of the test above.
func TestAFindingOfCDKNagFailsTheSynth(t *testing.T) {
	cdk := newApp(t, nil, t.TempDir())
	stack := awscdk.NewStack(cdk, jsii.String("bad"), nil)
	awssqs.NewQueue(stack, jsii.String("PlainQueue"), nil)
	if err := finish(cdk); err == nil {
		t.Error("finish accepts a queue that allows plain HTTP")
	}
}

// maxResources leaves a tenth of CloudFormation's limit, 500 resources a stack, for later.
const maxResources = 450

func TestEveryStackStaysBelowTheLimitOfResources(t *testing.T) {
	eachMode(t, func(t *testing.T, mode string, tpl template) {
		count := len(tpl.resources(""))
		t.Logf("%s has %d resources", mode, count)
		if count == 0 || count > maxResources {
			t.Errorf("%s has %d resources, want at most %d", mode, count, maxResources)
		}
	})
}

// The largest stack has every part, and as many webhooks as the settings allow. A webhook has more
// resources than a queue.
func TestTheLargestStackIsBelowTheLimitToo(t *testing.T) {
	largest := maps.Clone(modes["aurora-prod"])
	var webhooks []string
	for i := range maxConsumers - 1 {
		name := string(rune('a' + i))
		webhooks = append(webhooks, name+"=https://"+name+".example.com/")
	}
	largest["auth"], largest["jwtIssuer"], largest["jwtAudience"] = "cognito", "", ""
	largest["live"], largest["cdn"], largest["cdnDomainName"] = "on", "on", "shop.example.com"
	largest["cdnCertificateArn"] = modes["external-prod"]["cdnCertificateArn"]
	largest["queues"], largest["webhooks"] = "z", strings.Join(webhooks, ",")
	largest["domainName"], largest["hostedZoneName"] = "api.example.com", "example.com"
	largest["hostedZoneId"], largest["alarmEmail"] = "Z123", "ops@example.com"
	largest["certificateArn"] = modes["external-prod"]["certificateArn"]
	largest["corsOrigins"] = "https://shop.example.com"
	largest["waf"], largest["region"], largest["botControl"] = "on", "eu-central-1", "on"
	largest["cdnOnly"], largest["cdnSecrets"] = "on", "1,2"
	largest["provisioned"] = strings.Join(saleFunctions()[:maxProvisioned], ":5,") + ":5"
	largest["sale"] = "2026-12-24T08:00/4h"
	tpl := synthesizeWith(t, largest)
	count := len(tpl.resources(""))
	t.Logf("the largest stack has %d resources", count)
	if count > maxResources {
		t.Errorf("the largest stack has %d resources, want at most %d", count, maxResources)
	}
	for _, warning := range tpl.warnings {
		t.Error(warning)
	}
}

func TestOnlyProdRefusesToBeDeleted(t *testing.T) {
	eachMode(t, func(t *testing.T, mode string, tpl template) {
		if tpl.protected != isProd(mode) {
			t.Errorf("termination protection = %v, want %v", tpl.protected, isProd(mode))
		}
	})
}

func TestTheOutputsNameWhatAnOperatorNeeds(t *testing.T) {
	eachMode(t, func(t *testing.T, _ string, tpl template) {
		for _, id := range []string{
			"ApiUrl", "DashboardUrl", "FunctionNames", "LostSweepsQueueUrl", "DatabaseAt", "Auth",
			"TopicArn",
		} {
			if value := dig(tpl.body, "Outputs", id, "Value"); value == nil || value == "" {
				t.Errorf("there is no output %s", id)
			}
		}
	})
	for mode, want := range map[string]bool{"aurora-dev": true, "aurora-prod": false} {
		if got := strings.Contains(synth(t, mode).outputs(), "DEMONSTRATION"); got != want {
			t.Errorf("%s: the outputs warn of a demonstration: %v, want %v", mode, got, want)
		}
	}
	jwt := "the scope reservations:confirm; reserving needs one with reservations:write"
	if outputs := synth(t, "aurora-prod").outputs(); !strings.Contains(outputs, jwt) {
		t.Errorf("the outputs don't name the scopes of confirming and reserving: %s", outputs)
	}
	for _, arn := range []string{
		"/POST/api/reservations/*/confirm", `/GET/api/reservations"`, "/GET/api/stats",
	} {
		if outputs := synth(t, "aurora-direct").outputs(); !strings.Contains(outputs, arn) {
			t.Errorf("the outputs don't name %s: %s", arn, outputs)
		}
	}
}

func TestEveryTagAndBoundaryIsApplied(t *testing.T) {
	tpl := synth(t, "external-prod")
	tags := asJSON(tpl.functions("external-prod")["reserve"].get("Tags"))
	for _, tag := range []string{
		`{"Key":"owner","Value":"checkout"}`, `{"Key":"env","Value":"prod"}`,
		`{"Key":"service","Value":"allo-reservations"}`,
	} {
		if !strings.Contains(tags, tag) {
			t.Errorf("the tags are %s, want %s among them", tags, tag)
		}
	}
	for _, r := range tpl.resources("AWS::IAM::Role") {
		if !strings.Contains(asJSON(r.get("PermissionsBoundary")), "policy/boundary") {
			t.Errorf("the role %s has no permissions boundary", r.id)
		}
	}
}
