package main

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/allo/reservations/internal/config"
)

// A variable that package config refuses stops each start of the function, and one that it doesn't
// know has no effect. Neither fails a deploy.
func TestConfigTakesTheVariablesOfEveryFunction(t *testing.T) {
	eachMode(t, func(t *testing.T, mode string, tpl template) {
		if err := tpl.checkVariables(t, mode); err != nil {
			t.Error(err)
		}
	})
}

// These are the controls of the test above.
func TestAVariableThatConfigRefusesIsFound(t *testing.T) {
	const mode = "aurora-console"
	for _, change := range []struct{ old, replacement string }{
		{`"GUARDED":"on"`, `"GUARDED":"yes"`},
		{`"DEMO":"off"`, `"DEMONSTRATION":"off"`},
		{`"wss://",{"Fn::GetAtt":["LiveApi`, `"https://",{"Fn::GetAtt":["LiveApi`},
		{`".amazoncognito.com"]]}`, `".amazoncognito.com/x"]]}`},
		{`"OIDC_CLIENT_ID":`, `"OIDC_CLIENT":`},
		{`"WEBHOOK_QUEUES":"[]"`, `"WEBHOOK_QUEUES":"none"`},
		{`"SMOKE_AUTH":"jwt"`, `"SMOKE_AUTH":"token"`},
		{`["confirm",{"Ref"`, `["confirm of",{"Ref"`},
		{`"SYNTHETIC_SKU":"CANARY"`, `"SYNTHETIC_SKU":"a canary"`},
	} {
		if changed(t, synth(t, mode), change.old, change.replacement).checkVariables(t, mode) == nil {
			t.Errorf("the test accepts %s", change.replacement)
		}
	}
}

// checkVariables returns what package config says of the functions' variables.
func (tpl template) checkVariables(t *testing.T, mode string) error {
	t.Helper()
	table, err := os.ReadFile("../internal/config/doc.go")
	if err != nil {
		t.Fatal(err)
	}
	var errs []error
	for name, f := range tpl.functions(mode) {
		variables, _ := f.get("Environment", "Variables").(map[string]any)
		values := map[string]string{}
		for variable, value := range variables {
			values[variable] = tpl.sample(value)
			if !strings.Contains(string(table), "\n//\t"+variable+" ") {
				errs = append(errs, fmt.Errorf("%s has %s, which config doesn't read", name, variable))
			}
		}
		if err := config.Check(values); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

// sample returns a value as CloudFormation could make it.
func (tpl template) sample(value any) string {
	if text, ok := value.(string); ok {
		return text
	}
	if join, ok := dig(value, "Fn::Join").([]any); ok {
		var parts []string
		for _, part := range asList(join[1]) {
			parts = append(parts, tpl.sample(part))
		}
		return secretText.ReplaceAllString(strings.Join(parts, fmt.Sprint(join[0])),
			strings.Repeat("x", originSecretLength))
	}
	if got, ok := dig(value, "Fn::GetAtt").([]any); ok {
		return tpl.sampleAttribute(fmt.Sprint(got[0]), fmt.Sprint(got[1]))
	}
	id, _ := dig(value, "Ref").(string)
	switch fmt.Sprint(dig(tpl.body, "Resources", id, "Type")) {
	case "AWS::Lambda::Alias", "AWS::SNS::Topic":
		return sampleARN
	case "AWS::Lambda::Version":
		return "arn:aws:lambda:eu-central-1:123456789012:function:allo-dev-example:7"
	case "<nil>":
		return map[string]string{
			"AWS::Region": "eu-central-1", "AWS::Partition": "aws", "AWS::AccountId": "123456789012",
			"AWS::StackId": "arn:aws:cloudformation:eu-central-1:123456789012:stack/allo-dev/1-2",
		}[id]
	case "AWS::Logs::LogGroup":
		return fmt.Sprint(dig(tpl.body, "Resources", id, "Properties", "LogGroupName"))
	default:
		return "1example23456789"
	}
}

// secretText matches a reference in whose place CloudFormation puts the text of a secret.
var secretText = regexp.MustCompile(`\{\{resolve:secretsmanager:[^}]*\}\}`)

const sampleARN = "arn:aws:sqs:eu-central-1:123456789012:allo-dev-example.fifo"

// sampleAttribute returns a value of a resource's attribute.
func (tpl template) sampleAttribute(id, attribute string) string {
	switch attribute {
	case "Arn", "TopicArn":
		return sampleARN
	case "ApiEndpoint":
		return "https://example.execute-api.eu-central-1.amazonaws.com"
	case "ProviderURL":
		return "https://cognito-idp.eu-central-1.amazonaws.com/eu-central-1_" + id[:8]
	default: // the name of a host
		return "example.eu-central-1.amazonaws.com"
	}
}
