package main

import (
	"fmt"
	"math"
	"strings"
)

// Sizes in the chart, in pixels.
const (
	chartWidth = 760
	labelWidth = 250
	barHeight  = 18
	rowHeight  = 26
	headHeight = 56
)

// chart draws the ratios as bars, in SVG. The scale is logarithmic so that 1.5 and 35 are both
// readable.
func chart(results []*result) string {
	most := 1.0
	for _, r := range results {
		ratio, _, high := r.ratio()
		most = max(most, ratio, high)
	}
	scale := float64(chartWidth-labelWidth-70) / math.Log10(most*1.05)
	x := func(ratio float64) float64 { return labelWidth + max(0, math.Log10(max(ratio, 1)))*scale }

	var b strings.Builder
	height := headHeight + rowHeight*len(results) + 12
	fmt.Fprintf(&b,
		`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" `+
			`font-family="system-ui, sans-serif" font-size="12">`+"\n",
		chartWidth, height, chartWidth, height)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="#fff"/>`+"\n", chartWidth, height)
	b.WriteString(`<text x="12" y="22" font-size="15" font-weight="600" fill="#111">` +
		"Calls a second, as a multiple of the usual design</text>\n")
	b.WriteString(`<text x="12" y="40" fill="#555">` +
		"medians of interleaved rounds; the line spans the rounds; logarithmic scale</text>\n")
	for _, grid := range []float64{1, 2, 5, 10, 20, 50, 100} {
		if grid <= most*1.05 {
			fmt.Fprintf(&b,
				`<line x1="%.1f" x2="%.1f" y1="%d" y2="%d" stroke="#ddd"/>`+
					`<text x="%.1f" y="%d" fill="#777" text-anchor="middle">×%g</text>`+"\n",
				x(grid), x(grid), headHeight, height-8, x(grid), headHeight-4, grid)
		}
	}
	for i, r := range results {
		ratio, least, high := r.ratio()
		y := headHeight + rowHeight*i + 6
		fmt.Fprintf(&b, `<text x="12" y="%d" fill="#111">%s</text>`, y+13, r.workload.label())
		fmt.Fprintf(&b, `<rect x="%d" y="%d" width="%.1f" height="%d" fill="#2f6fde"/>`, labelWidth,
			y, max(1, x(ratio)-labelWidth), barHeight)
		fmt.Fprintf(&b,
			`<line x1="%.1f" x2="%.1f" y1="%d" y2="%d" stroke="#0b2a66" stroke-width="2"/>`,
			x(least), x(high), y+barHeight/2, y+barHeight/2)
		fmt.Fprintf(&b, `<text x="%.1f" y="%d" fill="#111" font-weight="600">×%.1f</text>`+"\n",
			max(x(ratio), x(high))+6, y+13, ratio)
	}
	b.WriteString("</svg>\n")
	return b.String()
}

func (w workload) label() string { return label(w.name, w.callers, ms(w.rtt), ms(w.flush)) }

func label(name string, callers int, rttMs, flushMs float64) string {
	text := name
	if callers > 1 {
		text += fmt.Sprintf(", %d callers", callers)
	}
	if rttMs > 0 {
		text += fmt.Sprintf(", %g ms", rttMs)
	}
	if flushMs > 0 {
		text += fmt.Sprintf(", flush +%g ms", flushMs)
	}
	return text
}
