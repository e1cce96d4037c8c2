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
		"blank lines":      "\n\r\nsku;delta;note\nA;5;\n\nB;-1;\"x, \"\"y\"\"\"\n",
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
			got = append(got, fmt.Sprint(row.line > 1, " ", *row.text("sku"), " ",
				*row.number("delta", fields{}), " ", note, " ", row.text("other") == nil))
		}
		want := []string{"true A 5 none true", `true B -1 x, "y" true`}
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
		"":              {"body"},
		"\n\r\n":        {"body"},
		"sku,delta":     {"body"},
		"sku,delta\n\n": {"body"},
		// The header.
		"sku,price\nA,1\n":             {"line 1, column 2"},
		"sku,sku\nA,A\n":               {"line 1, column 2"},
		"SKU,delta\nA,1\n":             {"line 1, column 1"},
		"sku,delta,sku\nA,1,A\n":       {"line 1, column 3"},
		"sku,\"delta\nA,1\n":           {"line 1, column 2"},
		"\ufeff\r\n\nsku;price\nA;1\n": {"line 3, column 2"},
		"\n\"sku\nprice\",x\nA,1\n":    {"line 2, column 1", "line 3, column 2"},
		// The number of fields.
		"sku,delta\nA,1\nB\n":            {"line 3, column 2 (delta)"},
		"sku,delta\nA,1,2,3\n":           {"line 2, column 3"},
		"\n\nsku,delta\nA\n\n\"B\nb\"\n": {"line 4, column 2 (delta)", "line 7, column 2 (delta)"},
		"sku,delta\n\"A\nB\",1,2\n":      {"line 3, column 3"},
		// The quotation marks.
		"sku,delta\nA,1\nB\"b,1\n":         {"line 3, column 1 (sku)"},
		"sku,delta\nA,1\n\"B\"b,1\n":       {"line 3, column 1 (sku)"},
		"sku,delta\nA,1\n\"B,1\nC,1\n":     {"line 3, column 1 (sku)"},
		"sku,delta\nA,1\nB,\"1\nC,1\n":     {"line 3, column 2 (delta)"},
		"sku,delta\n\"A\nB\n\",\"1\nC,1\n": {"line 4, column 2 (delta)"},
		"sku,delta\nA,1,\"x\n":             {"line 2, column 3"},
		// The fields.
		"sku,delta\nA\x00,1\nB,\xff\n":       {"line 2, column 1 (sku)", "line 3, column 2 (delta)"},
		"delta;sku\r\n1;\"A\r\nB\"\r\n1.5;C": {"line 4, column 1 (delta)"},
		"sku,delta\n\"A\nB\",one\nC,1\n":     {"line 3, column 2 (delta)"},
		"sku,delta\nA, 1\n":                  {"line 2, column 2 (delta)"},
		"sku,delta\nA,99999999999999999":     nil,
		"sku,delta\nA,\nB,\"\"\n":            nil,
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

// An optional field that is empty says nothing. It is no zero.
func TestAnEmptyFieldIsAbsent(t *testing.T) {
	t.Parallel()

	rows, err := readCSV([]byte("sku,delta,note\n,,\"\"\n0,0,0\n"), "sku", "delta", "note")
	if err != nil || len(rows) != 2 {
		t.Fatalf("readCSV() = %v, %v, want two rows", rows, err)
	}
	bad := fields{}
	empty, zero := rows[0], rows[1]
	if empty.text("sku") != nil || empty.text("note") != nil || empty.number("delta", bad) != nil {
		t.Errorf("the empty fields of %+v are there", empty)
	}
	if n := zero.number("delta", bad); n == nil || *n != 0 || bad.err() != nil {
		t.Errorf("the field 0 is %v, %v, want zero", n, bad)
	}
}

// A body of 1 MiB has room for more errors than an answer may have.
func TestACSVThatIsWrongThroughoutHasFewErrors(t *testing.T) {
	t.Parallel()

	for name, body := range map[string]string{
		"rows":    "sku,delta\n" + strings.Repeat("\xff,\xff\n", 200_000),
		"columns": strings.Repeat("x,", 500_000),
		"numbers": "sku,delta\n" + strings.Repeat("x\n", 500_000),
	} {
		_, err := readCSV([]byte(body), "sku", "delta")
		var bad *reservation.InvalidError
		if !errors.As(err, &bad) || len(bad.Fields) > 2*maxRows {
			t.Errorf("%s: readCSV() = %.200v, want at most %d errors", name, err, 2*maxRows)
		}
	}
}
