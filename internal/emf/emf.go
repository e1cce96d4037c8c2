// Package emf writes metrics in CloudWatch's embedded metric format: lines of JSON on standard
// output, from which CloudWatch Logs makes metrics. The format needs no agent, no call and no
// permission.
package emf

import (
	"encoding/json"
	"io"
	"time"
)

// Unit is a metric's unit, as CloudWatch names it.
type Unit string

// The units of the service's metrics.
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

// Group is a set of metrics with one dimension or none.
type Group struct {
	// Dimension and Value are both empty for metrics without a dimension.
	Dimension, Value string
	Metrics          []Metric
}

// Writer writes the metrics of a namespace. It is safe for concurrent use if its io.Writer is.
type Writer struct {
	to        io.Writer
	namespace string
	now       func() time.Time
}

// New makes a Writer that writes to an output, for a namespace of CloudWatch.
func New(to io.Writer, namespace string) *Writer {
	return &Writer{to: to, namespace: namespace, now: time.Now}
}

// directive names the fields of a line that are metrics, and their dimension.
type directive struct {
	Namespace  string
	Dimensions [][]string
	Metrics    []definition
}

type definition struct {
	Name string
	Unit Unit
}

// Write writes the groups in one line. It writes nothing when no group has a metric. The names of
// all metrics and dimensions of a line must differ.
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
	// Only an infinite value or a NaN can't be encoded. A failed write to the standard output can't
	// be reported anywhere.
	if text, err := json.Marshal(line); err == nil {
		_, _ = w.to.Write(append(text, '\n'))
	}
}
