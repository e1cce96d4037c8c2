package httpapi

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/allo/reservations/internal/stock"
)

// csvRow is a record of a CSV body, below the header.
type csvRow struct {
	line   int // of the body, from 1
	fields map[string]string
}

// name is the name of a field in an error.
func (r csvRow) name(column string) string {
	return fmt.Sprintf("line %d, column %s", r.line, column)
}

// text reads a field: nil when it is empty, or when the header lacks its column.
func (r csvRow) text(column string) *string {
	value := r.fields[column]
	if value == "" {
		return nil
	}
	return &value
}

// number reads a field that is a whole number: nil when text is nil. A number that doesn't fit
// becomes the nearest one that does, as in JSON.
func (r csvRow) number(column string, bad fields) *wholeNumber {
	text := r.text(column)
	if text == nil {
		return nil
	}
	value, err := strconv.ParseInt(*text, 10, 64)
	if err != nil && !errors.Is(err, strconv.ErrRange) {
		bad.add(r.name(column), "must be a whole number")
	}
	n := wholeNumber(value)
	return &n
}

// maxRows is one more than a request may have, so that the service refuses what readCSV returns. A
// body has room for more wrong rows than an answer could name.
const maxRows = max(stock.MaxItems, stock.MaxLines) + 1

// readCSV reads up to maxRows records of a CSV body (RFC 4180). Its first line is a header with
// some of these columns, in any order. The separator is the semicolon if the header has one, else
// the comma. Every field is data: a formula is the text of a formula.
func readCSV(body []byte, columns ...string) ([]csvRow, error) {
	body = bytes.TrimPrefix(body, []byte("\ufeff"))
	reader := csv.NewReader(bytes.NewReader(body))
	if first, _, _ := bytes.Cut(body, []byte("\n")); bytes.ContainsRune(first, ';') {
		reader.Comma = ';'
	}
	bad := fields{}
	header, err := reader.Read()
	if err != nil {
		return nil, csvError(err)
	}
	if len(header) > len(columns) {
		return nil, invalid(fmt.Sprintf("line 1, column %d", len(columns)+1),
			fmt.Sprintf("must be one of %d columns at most", len(columns)))
	}
	for i, column := range header {
		name := fmt.Sprintf("line 1, column %d", i+1)
		switch {
		case !slices.Contains(columns, column):
			bad.add(name, "must be one of "+strings.Join(columns, ", "))
		case slices.Contains(header[:i], column):
			bad.add(name, "must not be given twice")
		}
	}
	if err := bad.err(); err != nil {
		return nil, err
	}
	var rows []csvRow
	for len(rows) < maxRows {
		record, err := reader.Read()
		if errors.Is(err, io.EOF) && len(rows) > 0 {
			return rows, bad.err()
		}
		if err != nil {
			return nil, csvError(err)
		}
		row := csvRow{fields: map[string]string{}}
		row.line, _ = reader.FieldPos(0)
		for i, column := range header {
			row.fields[column] = record[i]
			if !utf8.ValidString(record[i]) || strings.ContainsRune(record[i], 0) {
				bad.add(row.name(column), "must be UTF-8 without NUL")
			}
		}
		rows = append(rows, row)
	}
	return rows, bad.err()
}

// csvError is the error of a body that isn't CSV.
func csvError(err error) error {
	var syntax *csv.ParseError
	switch {
	case errors.As(err, &syntax) && errors.Is(err, csv.ErrFieldCount):
		return invalid(fmt.Sprintf("line %d", syntax.Line), "must have as many fields as the header")
	case errors.As(err, &syntax):
		return invalid(fmt.Sprintf("line %d, column %d", syntax.Line, syntax.Column),
			"must be valid CSV: "+syntax.Err.Error())
	default:
		return invalid("body", "must be CSV with a header and at least one more line")
	}
}
