// Package emf writes metrics in CloudWatch's embedded metric format: lines of JSON on standard
// output, from which CloudWatch Logs makes metrics. The format needs no agent, no call and no
// permission.
package emf

import (
	"encoding/json"
	"io"
	"slices"
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

// Value is one value of a metric.
type Value struct {
	metric Metric
	of     string
	value  float64
}

// Value makes a value of a metric without a dimension.
func (m Metric) Value(value float64) Value { return Value{metric: m, value: value} }

// Of makes a value of a metric with a dimension. The dimension is a function's name, for example.
func (m Metric) Of(dimension string, value float64) Value {
	return Value{metric: m, of: dimension, value: value}
}

// Writer writes the metrics of a namespace. A nil Writer writes nothing. A Writer is safe for
// concurrent use if its io.Writer is.
type Writer struct {
	to        io.Writer
	namespace string
	now       func() time.Time
}

// New makes a Writer that writes to an output, for a namespace of CloudWatch.
func New(to io.Writer, namespace string) *Writer {
	return &Writer{to: to, namespace: namespace, now: time.Now}
}

// directive names the fields of a line that are metrics with the same dimension.
type directive struct {
	Namespace  string
	Dimensions [][]string
	Metrics    []definition
}

type definition struct {
	Name string
	Unit Unit
}

// Write writes values in one line, or nothing without a value. A line has at most one value of a
// metric, and one value of a dimension.
func (w *Writer) Write(values ...Value) {
	if w == nil || len(values) == 0 {
		return
	}
	line := map[string]any{}
	var directives []directive
	for _, v := range values {
		dimensions := []string{}
		if v.metric.Dimension != "" {
			dimensions = append(dimensions, v.metric.Dimension)
			line[v.metric.Dimension] = v.of
		}
		line[v.metric.Name] = v.value
		directives = add(directives, w.namespace, dimensions, definition{v.metric.Name, v.metric.Unit})
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

// add adds a metric to the directive with its dimensions.
func add(
	directives []directive, namespace string, dimensions []string, metric definition,
) []directive {
	for i := range directives {
		if d := &directives[i]; slices.Equal(d.Dimensions[0], dimensions) {
			d.Metrics = append(d.Metrics, metric)
			return directives
		}
	}
	return append(directives, directive{namespace, [][]string{dimensions}, []definition{metric}})
}
