package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
)

func TestTheCapacityOfASaleIsRead(t *testing.T) {
	t.Parallel()

	s, err := ReadSettings(map[string]any{
		"env": "prod", "minAcu": 4.5, "provisioned": "reserve:50,list-products:1000",
		"sale": "2026-12-24T08:00/90m", "confirmConcurrency": "30", "throttleRate": "700",
		"reserveBurst": "9",
	})
	want := Capacity{
		MinACU: 4.5, Provisioned: map[string]int{"reserve": 50, "list-products": 1000},
		Sale: &Sale{
			Begin: time.Date(2026, 12, 24, 8, 0, 0, 0, time.UTC),
			End:   time.Date(2026, 12, 24, 9, 30, 0, 0, time.UTC),
		},
		ConfirmConcurrency: 30, ReserveRate: 700, ReserveBurst: 9,
	}
	if diff := gocmp.Diff(want, s.Capacity); diff != "" || err != nil {
		t.Errorf("the capacity (-want +got):\n%s%v", diff, err)
	}
	for env, least := range map[string]float64{"dev": 0.5, "prod": 2} {
		s, err := ReadSettings(map[string]any{"env": env})
		if err != nil || s.Capacity.MinACU != least || s.Capacity.Sale != nil ||
			len(s.Capacity.Provisioned) != 0 || s.Capacity.ConfirmConcurrency != 0 ||
			s.Capacity.ReserveRate != s.ThrottleRate || s.Capacity.ReserveBurst != s.ThrottleBurst {
			t.Errorf("the capacity of %s is %+v, %v", env, s.Capacity, err)
		}
	}
}

func TestAnInvalidCapacityIsRefused(t *testing.T) {
	t.Parallel()

	sale := func(value string) map[string]string {
		return map[string]string{"provisioned": "reserve:50", "sale": value}
	}
	for name, test := range map[string]struct {
		settings map[string]string
		want     string
	}{
		"a quarter of a unit": {map[string]string{"minAcu": "0.75"}, "minAcu is"},
		"no unit":             {map[string]string{"minAcu": "0"}, "from 0.5 to maxAcu"},
		"no number":           {map[string]string{"minAcu": "NaN"}, "a number of halves"},
		"an endless number":   {map[string]string{"minAcu": "Inf"}, "a number of halves"},
		"more than the most": {
			map[string]string{"minAcu": "8.5", "maxAcu": "8"}, "to maxAcu, which is 8",
		},
		"capacity of an external database": {
			map[string]string{"db": "external", "minAcu": "2"}, "minAcu is for db=aurora",
		},
		"a function of the back office": {
			map[string]string{"provisioned": "stats:5"}, "the functions are",
		},
		"no function":     {map[string]string{"provisioned": "reserv:5"}, `has "reserv:5"`},
		"no environments": {map[string]string{"provisioned": "reserve:0"}, `has "reserve:0"`},
		"no count":        {map[string]string{"provisioned": "reserve"}, `has "reserve"`},
		"a function twice": {
			map[string]string{"provisioned": "reserve:5,reserve:6"}, "has reserve twice",
		},
		"too many functions": {
			map[string]string{"provisioned": "web:1,reserve:1,confirm:1,release:1,extend:1,list-products:1"},
			"a stack has room for 5",
		},
		"too many environments": {
			map[string]string{"provisioned": "reserve:1001"}, "it may have at most 1000",
		},
		"more than is reserved": {
			map[string]string{"provisioned": "confirm:11", "confirmConcurrency": "10"},
			"confirmConcurrency allows it only 10",
		},
		"too much reserved": {
			map[string]string{"confirmConcurrency": "151"}, "a whole number from 0 to 150",
		},
		"no reserves": {map[string]string{"reserveRate": "0"}, "reserveRate is"},
		"a sale of nothing": {
			map[string]string{"sale": "2026-12-24T08:00/4h"}, "sale needs provisioned",
		},
		"a sale without an end":    {sale("2026-12-24T08:00"), "sale is"},
		"a sale in another zone":   {sale("2026-12-24T08:00+05:30/4h"), "a begin in UTC"},
		"a sale with seconds":      {sale("2026-12-24T08:00:00/4h"), "a begin in UTC"},
		"a sale on no day":         {sale("2026-02-30T08:00/4h"), "a begin in UTC"},
		"a sale of no time":        {sale("2026-12-24T08:00/0h"), "from 10m to 72h"},
		"a sale of weeks":          {sale("2026-12-24T08:00/240h"), "from 10m to 72h"},
		"a sale of half a minute":  {sale("2026-12-24T08:00/10m30s"), "from 10m to 72h"},
		"a sale that ends before":  {sale("2026-12-24T08:00/-4h"), "from 10m to 72h"},
		"a sale of a bare number":  {sale("2026-12-24T08:00/4"), "from 10m to 72h"},
		"a sale with a blank":      {sale("2026-12-24 08:00/4h"), "a begin in UTC"},
		"a sale with two lengths":  {sale("2026-12-24T08:00/4h/5h"), "from 10m to 72h"},
		"a sale with no begin":     {sale("/4h"), "a begin in UTC"},
		"a sale in natural speech": {sale("tomorrow"), "a begin in UTC"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			context := map[string]any{}
			for key, value := range test.settings {
				context[key] = value
			}
			_, err := ReadSettings(context)
			if err == nil || !strings.Contains(strings.ToLower(err.Error()), strings.ToLower(test.want)) {
				t.Errorf("the error is %v, want %q in it", err, test.want)
			}
		})
	}
}

// COST.md reckons with the least capacity that the settings have by default.
func TestTheCostsHaveTheLeastCapacityOfTheStages(t *testing.T) {
	t.Parallel()

	source, err := os.ReadFile("../internal/cmd/cost/measures.json")
	if err != nil {
		t.Fatal(err)
	}
	if problem := costProblem(source); problem != "" {
		t.Error(problem)
	}

	// This is the control.
	other := strings.Replace(string(source), `"minAcu": 2`, `"minAcu": 0.5`, 1)
	if costProblem([]byte(other)) == "" {
		t.Error("the test accepts another least capacity of prod")
	}
}

// costProblem says in which stage the measures differ from the settings.
func costProblem(measures []byte) string {
	var measured struct {
		Dev, Prod struct{ MinACU float64 }
	}
	if err := json.Unmarshal(measures, &measured); err != nil {
		return err.Error()
	}
	for name, got := range map[string]float64{
		"dev": measured.Dev.MinACU, "prod": measured.Prod.MinACU,
	} {
		if want := stages[name].MinACU; got != want {
			return fmt.Sprintf("the costs of %s have a least capacity of %v, and the stage %v: type "+
				"make cost-measure", name, got, want)
		}
	}
	return ""
}
