package main

import (
	"fmt"
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

var (
	partOfTheDay = regexp.MustCompile(`^Minutes (\d+) to (\d+): `)
	stepOfTheDay = regexp.MustCompile(`(?m)^\d+\. .*\((\d+) min\)`)
	deployOfADay = regexp.MustCompile(`within (\d+) minutes the outputs`)
)

// partOfDay is a part of the page's hour, or what comes after it.
type partOfDay struct {
	title        string
	begins, ends int
	steps        []int // the minutes of each
	deploys      []int // the minutes in which each deploy ends
}

// hourOf returns the parts of a page's hour, and the part that ends the day.
func hourOf(t *testing.T, page string) (hour []partOfDay, end partOfDay) {
	t.Helper()
	numbers := func(pattern *regexp.Regexp, text string) (all []int) {
		for _, match := range pattern.FindAllStringSubmatch(text, -1) {
			for _, digits := range match[1:] {
				n, err := strconv.Atoi(digits)
				if err != nil {
					t.Fatal(err)
				}
				all = append(all, n)
			}
		}
		return all
	}
	for _, text := range strings.Split(page, "\n## ")[1:] {
		title, _, _ := strings.Cut(text, "\n")
		part := partOfDay{
			title: title, steps: numbers(stepOfTheDay, text), deploys: numbers(deployOfADay, text),
		}
		if times := numbers(partOfTheDay, title); len(times) == 2 {
			part.begins, part.ends = times[0], times[1]
			hour = append(hour, part)
		} else if title == "The end" {
			end = part
		} else if len(part.steps) > 0 {
			t.Errorf("the part %q isn't in the hour, but its steps have minutes", title)
		}
	}
	if len(hour) != 3 || len(hour[0].steps) != 4 || len(hour[0].deploys) != 2 || len(end.steps) != 1 {
		t.Fatalf("the page has the hour %+v and the end %+v", hour, end)
	}
	return hour, end
}

func sumOf(minutes []int) (sum int) {
	for _, n := range minutes {
		sum += n
	}
	return sum
}

// hourProblems says why a page's hour can't be kept. Its steps 3 and 4 begin a deploy each, and the
// second and the third part need these.
func hourProblems(t *testing.T, page string) (problems []string) {
	t.Helper()
	hour, end := hourOf(t, page)
	for i, limit := range hour[0].deploys {
		if ready := sumOf(hour[0].steps[:2+i]) + limit; ready > hour[i+1].begins {
			problems = append(problems,
				fmt.Sprintf("%q needs a deploy that ends in minute %d", hour[i+1].title, ready))
		}
	}
	for i, part := range hour[1:] {
		if part.begins != hour[i].ends || part.begins+sumOf(part.steps) != part.ends {
			problems = append(problems, fmt.Sprintf("%q begins in minute %d and takes %d minutes",
				part.title, hour[i].ends, sumOf(part.steps)))
		}
	}
	if whole := hour[2].ends + sumOf(end.steps); whole > 60 {
		problems = append(problems, fmt.Sprintf("the hour has %d minutes", whole))
	}
	return problems
}

func TestTheFirstDayTakesAnHour(t *testing.T) {
	t.Parallel()

	page := firstDay(t)
	for _, problem := range hourProblems(t, page) {
		t.Error(problem)
	}
	for old, changed := range map[string]string{
		"within 30 minutes the outputs":  "within 40 minutes the outputs",
		"A shop and a hold** (4 min)":    "A shop and a hold** (5 min)",
		"Remove everything** (3 min)":    "Remove everything** (9 min)",
		"## Minutes 38 to 55: the prod ": "## Minutes 36 to 53: the prod ",
	} {
		if found := hourProblems(t, strings.Replace(page, old, changed, 1)); len(found) == 0 {
			t.Errorf("with %q the test finds nothing", changed)
		}
	}
}

// settingsOfTheDay returns the settings with which a page deploys its stack of a stage.
func settingsOfTheDay(t *testing.T, page, stage string) map[string]string {
	t.Helper()
	for _, command := range regexp.MustCompile(`make deploy ARGS='([^']+)'`).
		FindAllStringSubmatch(page, -1) {
		settings := map[string]string{}
		for _, setting := range regexp.MustCompile(`-c (\w+)=(\S+)`).
			FindAllStringSubmatch(command[1], -1) {
			settings[setting[1]] = setting[2]
		}
		if settings["name"] == "day" && stackOf(settings) == "day-"+stage {
			return settings
		}
	}
	t.Fatalf("the page deploys no stack of the stage %s", stage)
	return nil
}

// namesOfTheDay matches what the page's commands name of its two stacks, such as day-prod-readers.
var namesOfTheDay = regexp.MustCompile(`\bday-(dev|prod)(?:-[A-Za-z0-9-]+|/[a-z-]+)?(?:\.fifo)?\b`)

func TestTheFirstDayNamesWhatTheStacksHave(t *testing.T) {
	page, stacks := firstDay(t), map[string]string{}
	for _, stage := range []string{"dev", "prod"} {
		stacks[stage] = asJSON(draftOf(t, settingsOfTheDay(t, page, stage)).body)
	}
	problems := func(page string) (missing []string) {
		for _, match := range namesOfTheDay.FindAllStringSubmatch(page, -1) {
			named := regexp.MustCompile(`\b` + regexp.QuoteMeta(match[0]) + `"`)
			if !named.MatchString(stacks[match[1]]) {
				missing = append(missing, match[0])
			}
		}
		return missing
	}
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
