package emf

import (
	"bytes"
	"math"
	"testing"
	"time"
)

func TestALineHasTheEmbeddedMetricFormat(t *testing.T) {
	t.Parallel()

	for _, c := range []struct {
		values []Value
		want   string
	}{
		{nil, ""},
		{
			[]Value{Expired.Value(3), SweepLag.Value(1.5), SweepDuration.Value(0)},
			`{"Expired":3,"SweepDuration":0,"SweepLag":1.5,` +
				`"_aws":{"Timestamp":1732500000123,"CloudWatchMetrics":[` +
				`{"Namespace":"Allo/dev","Dimensions":[[]],"Metrics":[` +
				`{"Name":"Expired","Unit":"Count"},{"Name":"SweepLag","Unit":"Seconds"},` +
				`{"Name":"SweepDuration","Unit":"Milliseconds"}]}]}}` + "\n",
		},
		{
			[]Value{Reservations.Of("HELD", 1), Shortages.Value(2), Retries.Value(1)},
			`{"Outcome":"HELD","Reservations":1,"Retries":1,"Shortages":2,` +
				`"_aws":{"Timestamp":1732500000123,"CloudWatchMetrics":[` +
				`{"Namespace":"Allo/dev","Dimensions":[["Outcome"]],` +
				`"Metrics":[{"Name":"Reservations","Unit":"Count"}]},` +
				`{"Namespace":"Allo/dev","Dimensions":[[]],` +
				`"Metrics":[{"Name":"Shortages","Unit":"Count"},{"Name":"Retries","Unit":"Count"}]}` +
				`]}}` + "\n",
		},
		{[]Value{Expired.Value(math.NaN())}, ""},
	} {
		var out bytes.Buffer
		w := New(&out, "Allo/dev")
		w.now = func() time.Time { return time.UnixMilli(1732500000123) }
		w.Write(c.values...)
		if got := out.String(); got != c.want {
			t.Errorf("Write(%+v) wrote\n%swant\n%s", c.values, got, c.want)
		}
	}
}

func TestANilWriterWritesNothing(t *testing.T) {
	t.Parallel()

	var none *Writer
	none.Write(Expired.Value(1))
}

// CloudWatch takes the fields of a line for metrics and dimensions by their names. Metrics may
// share a dimension.
func TestEveryNameIsUsedOnce(t *testing.T) {
	t.Parallel()

	metrics, dimensions := map[string]bool{}, map[string]bool{}
	for _, m := range All() {
		if metrics[m.Name] {
			t.Errorf("two metrics have the name %s", m.Name)
		}
		metrics[m.Name], dimensions[m.Dimension] = true, true
	}
	for name := range metrics {
		if dimensions[name] {
			t.Errorf("a metric and a dimension have the name %s", name)
		}
	}
}
