package main

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
)

// personalRow returns the row of RUNBOOK.md's table of personal data that begins with a place.
func personalRow(t *testing.T, place string) string {
	t.Helper()
	runbook, err := os.ReadFile("RUNBOOK.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(runbook), "\n## Personal data\n")
	section, _, _ = strings.Cut(section, "\n## ")
	for line := range strings.Lines(section) {
		if strings.HasPrefix(line, "| "+place) {
			return line
		}
	}
	t.Fatalf("the table of personal data has no row of %s", place)
	return ""
}

func TestTheTableOfPersonalDataHasTheStacksTimes(t *testing.T) {
	t.Parallel()

	dev, prod := stages["dev"], stages["prod"]
	for place, wants := range map[string][]string{
		"the access log": {
			fmt.Sprintf("prod %v days", prod.LogDays), fmt.Sprintf("dev %v days", dev.LogDays),
		},
		"events": {
			fmt.Sprintf("%v days in the archive (prod)", prod.ArchiveDays),
			fmt.Sprintf("%d days in a queue", deadLetterDays),
		},
		"Aurora's backups": {
			fmt.Sprintf("prod %v days", prod.BackupDays), fmt.Sprintf("dev %v day ", dev.BackupDays),
		},
		"the copies": {fmt.Sprintf("%d days", copyDays)},
	} {
		row := personalRow(t, place)
		for _, want := range wants {
			if !strings.Contains(row, want) {
				t.Errorf("the row of %s is %q, want %q in it", place, row, want)
			}
		}
	}
}

// A field that is added to the access log may be personal: the table must then say so.
func TestTheAccessLogHasTheFieldsOfTheTable(t *testing.T) {
	tpl := synth(t, "aurora-dev")
	format, _ := tpl.only(t, "AWS::ApiGatewayV2::Stage").get("AccessLogSettings", "Format").(string)
	about := map[string]string{
		"ip": "$context.identity.sourceIp", "caller": "$context.identity.userArn",
	}
	impersonal := []string{
		"requestId", "requestTime", "routeKey", "status", "responseLength", "responseLatency",
		"integrationLatency", "integration.status", "integration.integrationStatus",
		"integrationErrorMessage", "error.message",
		"authorizer.error",
	}
	rest := format
	for _, name := range impersonal {
		rest = strings.ReplaceAll(rest, `"$context.`+name+`"`, "")
	}
	var personal []string
	for _, part := range strings.Split(rest, `"`) {
		if strings.HasPrefix(part, "$context.") {
			personal = append(personal, part)
		}
	}
	slices.Sort(personal)
	if diff := gocmp.Diff(slices.Sorted(maps.Values(about)), personal); diff != "" {
		t.Errorf("the personal fields of the access log (-table +log):\n%s", diff)
	}
	row := personalRow(t, "the access log")
	for _, want := range []string{
		"the caller's address", "the ARN of who signed", "No token's `sub`",
	} {
		if !strings.Contains(row, want) {
			t.Errorf("the row of the access log is %q, want %q in it", row, want)
		}
	}
}
