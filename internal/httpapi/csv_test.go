package httpapi

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/allo/reservations/internal/reservation"
)

func TestReadCSV(t *testing.T) {
	t.Parallel()

	for name, body := range map[string]string{
		"LF":               "sku,delta,note\nA,5,\nB,-1,\"x, \"\"y\"\"\"\n",
		"CRLF":             "sku,delta,note\r\nA,5,\r\nB,-1,\"x, \"\"y\"\"\"\r\n",
		"BOM, no last end": "\ufeffsku,delta,note\nA,5,\nB,-1,\"x, \"\"y\"\"\"",
		"semicolons":       "sku;delta;note\nA;5;\nB;-1;\"x, \"\"y\"\"\"\n",
		"other order":      "note,sku,delta\n,A,5\n\n\"x, \"\"y\"\"\",B,-1\n",
		"quoted fields":    "\"sku\",\"delta\",\"note\"\n\"A\",\"5\",\"\"\nB,-1,\"x, \"\"y\"\"\"\n",
	} {
		rows, err := readCSV([]byte(body), "sku", "delta", "note", "other")
		if err != nil {
			t.Errorf("%s: readCSV() = %v", name, err)
			continue
		}
		var got []string
		for _, row := range rows {
			note := "none"
			if text := row.text("note"); text != nil {
				note = *text
			}
			got = append(got, fmt.Sprint(row.line > 1, *row.text("sku"), " ",
				*row.number("delta", fields{}), " ", note, " ", row.text("other") == nil))
		}
		want := []string{"trueA 5 none true", `trueB -1 x, "y" true`}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: the rows differ (-want +got):\n%s", name, diff)
		}
	}
}

// A spreadsheet would run such a text as a formula. Here it is a name like any other.
func TestAFormulaIsData(t *testing.T) {
	t.Parallel()

	const formula = `=HYPERLINK("http://example.com")`
	rows, err := readCSV([]byte("note\n\""+strings.ReplaceAll(formula, `"`, `""`)+"\"\n"), "note")
	if err != nil || len(rows) != 1 || *rows[0].text("note") != formula {
		t.Errorf("readCSV() = %v, %v, want the formula as it was sent", rows, err)
	}
}

func TestInvalidCSVNamesLineAndColumn(t *testing.T) {
	t.Parallel()

	for body, want := range map[string][]string{
		"":                               {"body"},
		"sku,delta":                      {"body"},
		"sku,delta\n\n":                  {"body"},
		"sku,price\nA,1\n":               {"line 1, column 2"},
		"sku,sku\nA,A\n":                 {"line 1, column 2"},
		"SKU,delta\nA,1\n":               {"line 1, column 1"},
		"sku,delta\nA,1\nB\n":            {"line 3"},
		"sku,delta\nA,1,2\n":             {"line 2"},
		"sku,delta\nA,1\nB\"b,1\n":       {"line 3, column 2"},
		"sku,delta\nA\x00,1\nB,\xff\n":   {"line 2, column sku", "line 3, column delta"},
		"sku,delta\nA,1\n\"B,1\nC,1\n":   {"line 4, column 5"},
		"sku,delta\n\"A\nB\",1\nC,1.5\n": {"line 4, column delta"},
		"sku,delta\nA,one\n":             {"line 2, column delta"},
		"sku,delta\nA,99999999999999999": nil,
	} {
		rows, err := readCSV([]byte(body), "sku", "delta")
		if err == nil {
			bad := fields{}
			for _, row := range rows {
				row.number("delta", bad)
			}
			err = bad.err()
		}
		var got []string
		if bad := (*reservation.InvalidError)(nil); errors.As(err, &bad) {
			got = slices.Sorted(maps.Keys(bad.Fields))
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("readCSV(%q) = %v (-want +got):\n%s", body, err, diff)
		}
	}
}

// A body of 1 MiB has room for more errors than an answer may have.
func TestACSVThatIsWrongThroughoutHasFewErrors(t *testing.T) {
	t.Parallel()

	for name, body := range map[string]string{
		"rows":    "sku,delta\n" + strings.Repeat("\xff,\xff\n", 200_000),
		"columns": strings.Repeat("x,", 500_000),
	} {
		_, err := readCSV([]byte(body), "sku", "delta")
		var bad *reservation.InvalidError
		if !errors.As(err, &bad) || len(bad.Fields) > 2*maxRows {
			t.Errorf("%s: readCSV() = %.200v, want at most %d errors", name, err, 2*maxRows)
		}
	}
}
