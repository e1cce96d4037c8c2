package main

import (
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

func firstDay(t *testing.T) string {
	t.Helper()
	page, err := os.ReadFile("FIRST-DAY.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(page)
}

// The page promises an hour: its steps' minutes, and those in which one waits for the first deploy.
func TestTheFirstDayTakesAnHour(t *testing.T) {
	t.Parallel()

	page, sum := firstDay(t), 0
	for _, step := range regexp.MustCompile(`\((\d+) min\)`).FindAllStringSubmatch(page, -1) {
		minutes, err := strconv.Atoi(step[1])
		if err != nil {
			t.Fatal(err)
		}
		sum += minutes
	}
	if sum+7 != 60 {
		t.Errorf("the steps take %d minutes and the wait 7, want an hour", sum)
	}
	said := "Each step has its minutes, " + strconv.Itoa(sum) + " together. You wait seven more"
	if !strings.Contains(page, said) {
		t.Errorf("the page doesn't say %q", said)
	}
}

// namesOfTheDay matches what the page's commands name of its two stacks, such as day-prod-readers.
var namesOfTheDay = regexp.MustCompile(`\bday-(dev|prod)(?:-[A-Za-z0-9-]+|/[a-z-]+)?(?:\.fifo)?\b`)

func TestTheFirstDayNamesWhatTheStacksHave(t *testing.T) {
	stacks := map[string]string{
		"dev":  asJSON(synth(t, "aurora-dev").body),
		"prod": asJSON(synth(t, "aurora-prod").body),
	}
	problems := func(page string) (missing []string) {
		for _, match := range namesOfTheDay.FindAllStringSubmatch(page, -1) {
			name := strings.Replace(match[0], "day-", "allo-", 1)
			if !regexp.MustCompile(`\b` + regexp.QuoteMeta(name) + `"`).MatchString(stacks[match[1]]) {
				missing = append(missing, match[0])
			}
		}
		return missing
	}
	page := firstDay(t)
	for _, name := range problems(page) {
		t.Errorf("no resource has the name %s", name)
	}
	if n := len(namesOfTheDay.FindAllString(page, -1)); n < 20 {
		t.Errorf("the test finds %d names on the page", n)
	}
	wrong := strings.ReplaceAll(page, "day-prod-readers", "day-prod-reader")
	if found := problems(wrong); len(found) != 1 {
		t.Errorf("with a wrong name the test finds %v", found)
	}
}
