package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
)

// result collects the rounds of one workload.
type result struct {
	workload workload
	runs     map[string][]*measurement
}

func newResult(w workload) *result { return &result{w, map[string][]*measurement{}} }

// reference and ours name the two designs of the ratio: the first and the last design of the
// workload.
func (r *result) reference() string { return r.workload.designs[0] }
func (r *result) ours() string      { return r.workload.designs[len(r.workload.designs)-1] }

func (r *result) add(m *measurement) { r.runs[m.design] = append(r.runs[m.design], m) }

// median returns the median of a figure over a design's rounds.
func (r *result) median(design string, figure func(*measurement) float64) float64 {
	var values []float64
	for _, m := range r.runs[design] {
		values = append(values, figure(m))
	}
	slices.Sort(values)
	return values[len(values)/2]
}

func (r *result) perSecond(design string) float64 {
	return r.median(design, (*measurement).perSecond)
}

// perCall is the median of a figure divided by the number of calls.
func (r *result) perCall(design string, figure func(*measurement) float64) float64 {
	return r.median(design, func(m *measurement) float64 { return figure(m) / float64(m.calls()) })
}

func us(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1000 }

// ratio returns ours to the reference, of the medians, and the least and the most of any round.
func (r *result) ratio() (ratio, least, most float64) {
	for i, m := range r.runs[r.ours()] {
		one := m.perSecond() / r.runs[r.reference()][i].perSecond()
		if i == 0 || one < least {
			least = one
		}
		most = max(most, one)
	}
	return r.perSecond(r.ours()) / r.perSecond(r.reference()), least, most
}

// row is the result of a workload in results.json.
type row struct {
	Workload     string   `json:"workload"`
	Callers      int      `json:"callers"`
	RTTMs        float64  `json:"rttMs"`
	FlushDelayMs float64  `json:"flushDelayMs"`
	Reference    figures  `json:"reference"`
	Plain        *figures `json:"plain,omitempty"`
	Outbox       *figures `json:"outbox,omitempty"`
	Ours         figures  `json:"ours"`
	Ratio        float64  `json:"ratio"`
	RatioLeast   float64  `json:"ratioLeast"`
	RatioMost    float64  `json:"ratioMost"`
	Rounds       int      `json:"rounds"`
}

// figures are the medians of one design.
type figures struct {
	OpsPerSecond float64 `json:"opsPerSecond"`
	P50Ms        float64 `json:"p50Ms"`
	P99Ms        float64 `json:"p99Ms"`
	P999Ms       float64 `json:"p999Ms"`
	// ServerCPUUs, ClientCPUUs and WALBytes are per call. HOTShare is the share of the updates of
	// stock rows.
	ServerCPUUs float64 `json:"serverCpuUs"`
	ClientCPUUs float64 `json:"clientCpuUs"`
	WALBytes    float64 `json:"walBytes"`
	HOTShare    float64 `json:"hotShare"`
	RoundTrips  float64 `json:"roundTrips"`
	Deadlocks   int64   `json:"deadlocks"`
	Retries     int64   `json:"retries"`
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func (r *result) figures(design string) figures {
	f := figures{
		OpsPerSecond: r.perSecond(design),
		P50Ms:        r.median(design, func(m *measurement) float64 { return ms(m.p50) }),
		P99Ms:        r.median(design, func(m *measurement) float64 { return ms(m.p99) }),
		P999Ms:       r.median(design, func(m *measurement) float64 { return ms(m.p999) }),
		ServerCPUUs:  r.perCall(design, func(m *measurement) float64 { return us(m.serverCPU) }),
		ClientCPUUs:  r.perCall(design, func(m *measurement) float64 { return us(m.clientCPU) }),
		WALBytes:     r.perCall(design, func(m *measurement) float64 { return float64(m.wal) }),
		RoundTrips:   r.median(design, func(m *measurement) float64 { return m.roundTrips }),
		HOTShare: r.median(design, func(m *measurement) float64 {
			return float64(m.hot) / max(1, float64(m.updates))
		}),
	}
	for _, m := range r.runs[design] {
		f.Deadlocks += m.deadlocks
		f.Retries += m.retries
	}
	return f
}

func (r *result) row() row {
	out := row{
		Workload: r.workload.name, Callers: r.workload.callers,
		RTTMs: ms(r.workload.rtt), FlushDelayMs: ms(r.workload.flush),
		Reference: r.figures(r.reference()), Ours: r.figures(r.ours()),
		Rounds: len(r.runs[r.ours()]),
	}
	out.Ratio, out.RatioLeast, out.RatioMost = r.ratio()
	for name, to := range map[string]**figures{"plain": &out.Plain, "outbox": &out.Outbox} {
		if slices.Contains(r.workload.designs, name) {
			f := r.figures(name)
			*to = &f
		}
	}
	return out
}

// document returns the results as JSON.
func document(results []*result) string {
	rows := []row{}
	for _, r := range results {
		rows = append(rows, r.row())
	}
	return indented(rows)
}

func indented(v any) string {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		panic(err) // numbers and strings always encode
	}
	return string(b) + "\n"
}

// table returns the results as a Markdown table.
func table(results []*result) string {
	if len(results) == 0 {
		return ""
	}
	var b strings.Builder
	b.WriteString("| workload | callers | RTT ms | flush + ms | reference /s, p50/p99 ms | " +
		"ours /s, p50/p99/p99.9 ms | ratio (rounds) | wanted | trips | server, client µs | " +
		"log B | HOT | deadlocks, retries |\n")
	b.WriteString("|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n")
	for _, r := range results {
		x := r.row()
		fmt.Fprintf(&b, "| %s | %d | %g | %g | %.0f, %.1f/%.1f | %.0f, %.1f/%.1f/%.1f | "+
			"**×%.2f** (%.2f to %.2f) | %s | %.2f | %.0f, %.0f | %.0f | %.1f %% | %d, %d |\n",
			x.Workload, x.Callers, x.RTTMs, x.FlushDelayMs, x.Reference.OpsPerSecond,
			x.Reference.P50Ms, x.Reference.P99Ms,
			x.Ours.OpsPerSecond, x.Ours.P50Ms, x.Ours.P99Ms, x.Ours.P999Ms, x.Ratio, x.RatioLeast,
			x.RatioMost, r.verdict(x),
			x.Ours.RoundTrips, x.Ours.ServerCPUUs, x.Ours.ClientCPUUs, x.Ours.WALBytes,
			100*x.Ours.HOTShare, x.Ours.Deadlocks, x.Ours.Retries)
		against := func(what string, f *figures, bar string) {
			if f != nil {
				fmt.Fprintf(&b, "| – against %s | | | | %.0f, %.1f/%.1f | | ×%.2f "+
					"| %s | | %.0f, %.0f | %.0f | | |\n",
					what, f.OpsPerSecond, f.P50Ms, f.P99Ms, x.Ours.OpsPerSecond/f.OpsPerSecond, bar,
					f.ServerCPUUs, f.ClientCPUUs, f.WALBytes)
			}
		}
		against("one plain statement", x.Plain, fmt.Sprintf("×%.2f", plainBar))
		against("it with a usual outbox line", x.Outbox, "")
	}
	return b.String()
}

// plainBar is the least throughput relative to one plain statement where no two callers want the
// same row.
const plainBar = 0.75

// verdict returns the goals, and whether one was missed.
func (r *result) verdict(x row) string {
	var wants []string
	met := true
	if r.workload.bar > 0 {
		wants = append(wants, fmt.Sprintf("×%g", r.workload.bar))
		met = met && x.Ratio >= r.workload.bar
	}
	if r.workload.tail > 0 {
		wants = append(wants, fmt.Sprintf("p99 ×%g", r.workload.tail))
		met = met && x.Ours.P99Ms <= r.workload.tail*x.Reference.P99Ms
	}
	if wants == nil {
		return ""
	}
	if !met {
		wants = append(wants, "(missed)")
	}
	return strings.Join(wants, ", ")
}
