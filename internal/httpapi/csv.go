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

// csvField is a field of a CSV body, below the header.
type csvField struct {
	text string
	line int // on which the field begins, from 1, as an editor counts the body's lines
	// number counts the columns from 1.
	number int
}

// csvRow is a record of a CSV body, below the header.
type csvRow struct {
	line   int // on which the record begins
	fields map[string]csvField
}

// name is the name of a field in an error. A column that the header lacks has no number.
func (r csvRow) name(column string) string {
	if field, ok := r.fields[column]; ok {
		return csvPlace(field.line, field.number, column)
	}
	return fmt.Sprintf("line %d, column %s", r.line, column)
}

// csvPlace names a field by its line, and its column by number and, where the header has one, by
// name.
func csvPlace(line, number int, column string) string {
	place := fmt.Sprintf("line %d, column %d", line, number)
	if column != "" {
		place += " (" + column + ")"
	}
	return place
}

// text reads a field: nil when it is empty, or when the header lacks its column.
func (r csvRow) text(column string) *string {
	value := r.fields[column].text
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

// readCSV reads up to maxRows records of a CSV body (RFC 4180). Its first line that isn't empty is
// a header with some of these columns, in any order. The separator is the semicolon if the header
// has one, else the comma. Every field is data: a formula is the text of a formula.
func readCSV(body []byte, columns ...string) ([]csvRow, error) {
	body = bytes.TrimPrefix(body, []byte("\ufeff"))
	reader := csv.NewReader(bytes.NewReader(body))
	reader.FieldsPerRecord = -1 // readRow compares the numbers, and names the place
	first, _, _ := bytes.Cut(bytes.TrimLeft(body, "\r\n"), []byte("\n"))
	if bytes.ContainsRune(first, ';') {
		reader.Comma = ';'
	}
	header, err := readHeader(reader, columns)
	if err != nil {
		return nil, err
	}
	bad := fields{}
	var rows []csvRow
	for n := 0; n < maxRows; n++ {
		record, err := reader.Read()
		switch {
		case errors.Is(err, io.EOF) && n > 0:
			return rows, bad.err()
		case err != nil:
			return nil, csvError(err, record, header)
		}
		rows = append(rows, readRow(reader, record, header, bad))
	}
	return rows, bad.err()
}

// readHeader reads the names of the columns.
func readHeader(reader *csv.Reader, columns []string) ([]string, error) {
	header, err := reader.Read()
	if err != nil {
		return nil, csvError(err, header, nil)
	}
	bad := fields{}
	for i, column := range header {
		line, _ := reader.FieldPos(i)
		place := csvPlace(line, i+1, "")
		switch {
		case i == len(columns):
			return nil, invalid(place, fmt.Sprintf("must not be there: there are %d columns", i))
		case !slices.Contains(columns, column):
			bad.add(place, "must be one of "+strings.Join(columns, ", "))
		case slices.Contains(header[:i], column):
			bad.add(place, "must not be given twice")
		}
	}
	return header, bad.err()
}

// readRow takes the record that reader has read last.
func readRow(reader *csv.Reader, record, header []string, bad fields) csvRow {
	row := csvRow{fields: map[string]csvField{}}
	row.line, _ = reader.FieldPos(0)
	const message = "%s: the header has %d fields, and the record has %d"
	for i, text := range record {
		line, _ := reader.FieldPos(i)
		if i == len(header) {
			bad.add(csvPlace(line, i+1, ""),
				fmt.Sprintf(message, "must not be there", len(header), len(record)))
			return row
		}
		row.fields[header[i]] = csvField{text, line, i + 1}
		if !utf8.ValidString(text) || strings.ContainsRune(text, 0) {
			bad.add(row.name(header[i]), "must be UTF-8 without NUL")
		}
	}
	if n := len(record); n < len(header) {
		line, _ := reader.FieldPos(n - 1)
		bad.add(csvPlace(line+strings.Count(record[n-1], "\n"), n+1, header[n]),
			fmt.Sprintf(message, "is missing", len(header), n))
	}
	return row
}

// csvError is the error of a body that isn't CSV. record has the fields before the one that is
// wrong.
func csvError(err error, record, header []string) error {
	var syntax *csv.ParseError
	if !errors.As(err, &syntax) {
		return invalid("body", "must be CSV with a header and at least one more line")
	}
	line, column := syntax.StartLine, ""
	for _, text := range record {
		line += strings.Count(text, "\n")
	}
	if len(record) < len(header) {
		column = header[len(record)]
	}
	return invalid(csvPlace(line, len(record)+1, column), "must be valid CSV: "+syntax.Err.Error())
}
