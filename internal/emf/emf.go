// Package emf writes metrics in CloudWatch's embedded metric format: a line of JSON on standard output, which CloudWatch Logs reads as metrics.
// It needs no agent, no call and no permission, and it is one line, so it needs no library.
package emf

import (
	"encoding/json"
	"io"
	"time"
)

// Unit is a metric's unit, as CloudWatch names it.
type Unit string

// The units that the service has.
const (
	Count        Unit = "Count"
	Seconds      Unit = "Seconds"
	Milliseconds Unit = "Milliseconds"
)

// Metric is one value.
type Metric struct {
	Name  string
	Unit  Unit
	Value float64
}

// Group is metrics that are counted apart by a dimension, or by none.
type Group struct {
	// Dimension and Value are both empty for metrics that have no dimension.
	Dimension, Value string
	Metrics          []Metric
}

// Writer writes the metrics of a namespace. It is safe for concurrent use where what it writes to is.
type Writer struct {
	to        io.Writer
	namespace string
	now       func() time.Time
}

// New makes a Writer.
func New(to io.Writer, namespace string) *Writer {
	return &Writer{to: to, namespace: namespace, now: time.Now}
}

// directive says which of a line's fields are metrics, and which is their dimension.
type directive struct {
	Namespace  string
	Dimensions [][]string
	Metrics    []definition
}

type definition struct {
	Name string
	Unit Unit
}

// Write writes the groups in one line, or none where none has a metric. No two of a line's metrics and dimensions have one name.
func (w *Writer) Write(groups ...Group) {
	line := map[string]any{}
	var directives []directive
	for _, g := range groups {
		if len(g.Metrics) == 0 {
			continue
		}
		d := directive{Namespace: w.namespace, Dimensions: [][]string{{}}}
		if g.Dimension != "" {
			d.Dimensions = [][]string{{g.Dimension}}
			line[g.Dimension] = g.Value
		}
		for _, m := range g.Metrics {
			d.Metrics = append(d.Metrics, definition{m.Name, m.Unit})
			line[m.Name] = m.Value
		}
		directives = append(directives, d)
	}
	if directives == nil {
		return
	}
	line["_aws"] = struct {
		Timestamp         int64
		CloudWatchMetrics []directive
	}{w.now().UnixMilli(), directives}
	// Strings and finite numbers always encode; of a number that is neither there is nothing to tell. Who can't write to its own output can
	// tell nobody.
	if text, err := json.Marshal(line); err == nil {
		_, _ = w.to.Write(append(text, '\n'))
	}
}
