package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
)

// shape is the result of a study: whether the service stays as fast, small and cheap as it began.
// Figures depend on the machine; goals are ratios and counts.
type shape struct {
	Name    string             `json:"study"`
	Figures map[string]float64 `json:"figures"`
	Wanted  string             `json:"wanted"`
	Met     bool               `json:"met"`
}

// studies run one after another after the rounds, the one with the most data last.
var studies = []struct {
	name string
	run  func(ctx context.Context, s *server, o options) ([]shape, []*result, error)
}{
	{"overhead", overhead},
	{"cold-start", coldStart},
	{"memory", memory},
	{"sweep-spread", func(ctx context.Context, s *server, _ options) ([]shape, []*result, error) {
		return sweepUnderTraffic(ctx, s, "sweep-spread", manyRows)
	}},
	{"sweep-hot", func(ctx context.Context, s *server, _ options) ([]shape, []*result, error) {
		return sweepUnderTraffic(ctx, s, "sweep-hot", 1)
	}},
	{"steady", steady},
	{"old-snapshot", oldSnapshot},
	{"import", importShop},
	{"hold", tenMillion},
}

// study runs the selected studies. A quick bench has none.
func study(
	ctx context.Context, s *server, o options, stdout io.Writer,
) (shapes []shape, results []*result, err error) {
	for _, st := range studies {
		if o.quick || !strings.HasPrefix(st.name, o.only) {
			continue
		}
		o.progress(stdout, "study: %s", st.name)
		more, rows, err := st.run(ctx, s, o)
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", st.name, err)
		}
		shapes, results = append(shapes, more...), append(results, rows...)
	}
	return shapes, results, nil
}

func shapeDocument(shapes []shape) string {
	if shapes == nil {
		shapes = []shape{}
	}
	return indented(shapes)
}

// shapeTable returns the studies as a Markdown table.
func shapeTable(shapes []shape) string {
	if len(shapes) == 0 {
		return ""
	}
	var b strings.Builder
	b.WriteString("\n| study | figures | wanted | |\n|---|---|---|---|\n")
	for _, s := range shapes {
		var figures []string
		for _, name := range slices.Sorted(maps.Keys(s.Figures)) {
			figures = append(figures, fmt.Sprintf("%s %.4g", name, s.Figures[name]))
		}
		verdict := "met"
		if !s.Met {
			verdict = "missed"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", s.Name, strings.Join(figures, "; "), s.Wanted,
			verdict)
	}
	return b.String()
}
