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
		groups []Group
		want   string
	}{
		{nil, ""},
		{[]Group{{Dimension: "Outcome", Value: "HELD"}}, ""},
		{
			[]Group{{Metrics: []Metric{
				{"Expired", Count, 3}, {"SweepLag", Seconds, 1.5}, {"SweepDuration", Milliseconds, 0},
			}}},
			`{"Expired":3,"SweepDuration":0,"SweepLag":1.5,` +
				`"_aws":{"Timestamp":1732500000123,"CloudWatchMetrics":[` +
				`{"Namespace":"Allo/dev","Dimensions":[[]],"Metrics":[` +
				`{"Name":"Expired","Unit":"Count"},{"Name":"SweepLag","Unit":"Seconds"},` +
				`{"Name":"SweepDuration","Unit":"Milliseconds"}]}]}}` + "\n",
		},
		{
			[]Group{
				{Dimension: "Outcome", Value: "HELD", Metrics: []Metric{{"Reservations", Count, 1}}},
				{Metrics: []Metric{{"Shortages", Count, 2}}},
			},
			`{"Outcome":"HELD","Reservations":1,"Shortages":2,` +
				`"_aws":{"Timestamp":1732500000123,"CloudWatchMetrics":[` +
				`{"Namespace":"Allo/dev","Dimensions":[["Outcome"]],` +
				`"Metrics":[{"Name":"Reservations","Unit":"Count"}]},` +
				`{"Namespace":"Allo/dev","Dimensions":[[]],` +
				`"Metrics":[{"Name":"Shortages","Unit":"Count"}]}]}}` + "\n",
		},
		{[]Group{{Metrics: []Metric{{"Expired", Count, math.NaN()}}}}, ""},
	} {
		var out bytes.Buffer
		w := New(&out, "Allo/dev")
		w.now = func() time.Time { return time.UnixMilli(1732500000123) }
		w.Write(c.groups...)
		if got := out.String(); got != c.want {
			t.Errorf("Write(%+v) wrote\n%swant\n%s", c.groups, got, c.want)
		}
	}
}
