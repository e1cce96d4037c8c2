package main

import (
	"fmt"
	"math"
	"strings"
)

// prices is the price list of one region.
type prices struct {
	Region string `json:"region"`
	// Read is the day on which the sources were read.
	Read   string  `json:"read"`
	Prices []price `json:"prices"`
}

// price is what a number of units costs, in US dollars.
type price struct {
	ID     string  `json:"id"`
	USD    float64 `json:"usd"`
	Per    float64 `json:"per"`
	Unit   string  `json:"unit"`
	Source string  `json:"source"`
	// Of is when the source was written, or undated. It is empty if the source wasn't read.
	Of string `json:"of"`
	// Verified tells that the source was read and has the price. Otherwise the price is from memory,
	// and the source is where to look.
	Verified bool `json:"verified"`
}

// isOfCode tells that the source is a file of another project's code, which uses the price. It is a
// weaker proof than a page about prices.
func (p price) isOfCode() bool { return strings.HasPrefix(p.Source, "https://github.com/") }

// cost returns what an amount of a price's unit costs.
func (p prices) cost(id string, amount float64) float64 {
	for _, one := range p.Prices {
		if one.ID == id {
			return amount * one.USD / one.Per
		}
	}
	panic("the price list has no " + id) // a test asks for each
}

const (
	// hours is a month, as AWS counts it.
	hours   = 730.0
	seconds = hours * 3600
	// million is how many reservations the page is about.
	million = 1e6
	// memory is the functions' memory in GB. A function has a whole processor at 1,769 MB (AWS Lambda
	// Developer Guide, "Configure Lambda function memory"), and a share of one below.
	memory = 0.25
	share  = 256.0 / 1769
	// networkMs is what a round trip to the database takes on AWS at most, between zones and through
	// the proxy.
	networkMs = 2
	// freeSample and sampled are the traces of a function with active tracing: the first call of each
	// second and 5% of the rest (AWS X-Ray Developer Guide, "Configuring sampling rules").
	freeSample, sampled = 1.0, 0.05
	// writeIO is the writes of Aurora's storage for a verb, which commits twice. Each is charged as
	// one if it is under 4 KB, and ours are.
	writeIO = 2
	// vCPUs is the part of a processor in a capacity unit: an instance with two has 16 GB, and a unit
	// 2 GB. busy is how much of it may be used before Aurora adds more.
	vCPUs, busy = 0.25, 0.7
	// leastACU is the least capacity of an instance that Aurora takes.
	leastACU = 0.5
	// headers is the bytes of an answer's headers.
	headers = 500
	// rowBytes is what a reservation adds to the database: a hold with its line, its three rows of the
	// ledger, the key of each call and the indexes.
	rowBytes = 2500
	// eventsOf is the events of a reservation, and eventBytes the size of one.
	eventsOf, eventBytes = 3.0, 1100
	// proxyACU is the least that a proxy is charged for.
	proxyACU = 8
)

// step is a call of a reservation's way through the service.
type step struct {
	Route    string  // as in the route table
	Function string  //
	Per      float64 // how often for each reservation
	Why      string
	Writes   bool
	// DatabaseUs is the processor time of Postgres, in microseconds (internal/cmd/bench/results).
	DatabaseUs float64
}

// journey is what a reservation asks of the service, on average.
var journey = []step{
	{"GET /api/products", "list-products", 5, "a shopper looks at the catalog", false, 57},
	{"POST /api/reservations", "reserve", 1, "holds one line", true, 190},
	{"GET /api/reservations/{id}", "get-reservation", 3, "the checkout shows the hold", false, 70},
	{"POST /api/reservations/{id}/payment", "start-payment", 1, "goes to pay", true, 170},
	{"POST /api/reservations/{id}/confirm", "confirm", 1, "has paid", true, 170},
}

// measured is what was measured of a checkout.
type measured struct {
	On    string          `json:"on"`
	Calls map[string]call `json:"calls"` // by the route
	// Outbox is a call of the function outbox that has nothing to tell.
	Outbox call `json:"outbox"`
	// AccessLogBytes is a line of the gateway's access log.
	AccessLogBytes float64 `json:"accessLogBytes"`
	// PlatformBytes is what Lambda itself writes for a call, at its level INFO.
	PlatformBytes float64  `json:"platformBytes"`
	Dev           template `json:"dev"`
	Prod          template `json:"prod"`
}

// call is a call of a built function.
type call struct {
	// Ms is the median time, on the machine that measured, which has a whole processor for it.
	Ms float64 `json:"ms"`
	// LogBytes and AnswerBytes are means.
	LogBytes    float64 `json:"logBytes"`
	AnswerBytes float64 `json:"answerBytes"`
	// SentBytes is the mean of the answers as the function sends them: it compresses the answer to a
	// GET that is long enough. CloudFront passes such an answer on as it is, and compresses nothing
	// below 1,000 bytes (Amazon CloudFront Developer Guide, "Serve compressed files").
	SentBytes float64 `json:"sentBytes"`
}

// template is what was counted in a synthesized template.
type template struct {
	AlarmMetrics int `json:"alarmMetrics"`
	// CompositeAlarms join other alarms.
	CompositeAlarms int `json:"compositeAlarms"`
	Functions       int `json:"functions"`
	Instances       int `json:"instances"` // of Aurora
	// MinACU is the least capacity of each instance.
	MinACU  float64 `json:"minAcu"`
	Proxies int     `json:"proxies"`
	// Tracing and PlatformLogs tell whether the functions are traced, and whether Lambda writes its
	// own lines for each call.
	Tracing      bool `json:"tracing"`
	PlatformLogs bool `json:"platformLogs"`
	// EventsOn tells that the relay runs all the time.
	EventsOn bool `json:"eventsOn"`
}

// line is a line of a bill, in US dollars.
type line struct {
	Name string
	USD  float64
}

func total(lines []line) (sum float64) {
	for _, l := range lines {
		sum += l.USD
	}
	return sum
}

// billedMs returns what Lambda charges for a call, in whole milliseconds: an upper bound, as if all
// its time were the processor's, of which a function has a share.
func billedMs(c call) float64 { return math.Ceil(c.Ms/share + networkMs) }

// tracesOf returns the share of a function's calls that X-Ray records, at a rate a second.
func tracesOf(rate float64) float64 {
	if rate <= freeSample {
		return 1
	}
	return (freeSample + sampled*(rate-freeSample)) / rate
}

// perMillion returns what a million reservations cost beside the stack's floor, at a rate of
// reservations a second, in a stack like t.
func perMillion(p prices, m measured, t template, rate float64) []line {
	var calls, gbSeconds, ownLogs, bytes, traces, writes float64
	for _, s := range journey {
		c, n := m.Calls[s.Route], s.Per*million
		calls += n
		gbSeconds += n * billedMs(c) / 1000 * memory
		ownLogs += n * c.LogBytes
		bytes += n * (c.SentBytes + headers)
		traces += n * tracesOf(s.Per*rate)
		if s.Writes {
			writes += n * writeIO
		}
	}
	events := eventsOf * million
	lines := []line{
		{"the gateway's calls", p.cost("httpAPI", calls)},
		{"data to the internet", p.cost("transfer", bytes)},
		{"Lambda: invocations", p.cost("lambdaRequests", calls)},
		{"Lambda: time", p.cost("lambdaGBs", gbSeconds)},
		{"logs: the gateway's access log", p.cost("logs", calls*m.AccessLogBytes)},
		{"logs: the functions' own lines", p.cost("logs", ownLogs)},
	}
	if t.PlatformLogs {
		lines = append(lines, line{"logs: Lambda's own lines", p.cost("logs", calls*m.PlatformBytes)})
	}
	if t.Tracing {
		lines = append(lines, line{"X-Ray", p.cost("traces", traces)})
	}
	return append(lines,
		line{"Aurora: capacity above the least", aurora(p, t, rate)},
		line{"Aurora: writes", p.cost("auroraIO", writes)},
		line{"Aurora: storage, each month", p.cost("auroraStorage", million*rowBytes)},
		line{"the topic", p.cost("snsFIFO", events) + p.cost("snsFIFOBytes", events*eventBytes)},
	)
}

// callsOf returns the calls of a million reservations.
func callsOf() (calls float64) {
	for _, s := range journey {
		calls += s.Per * million
	}
	return calls
}

// behindCDN returns what a million reservations cost more when CloudFront stands before the API. It
// takes every call, and sends the same bytes as the gateway would. What the gateway sends to it is
// free. The catalog's calls don't reach the gateway, except one a second for each page and place.
func behindCDN(p prices, m measured) float64 {
	bytes := 0.0
	for _, s := range journey {
		bytes += s.Per * million * (m.Calls[s.Route].SentBytes + headers)
	}
	catalog := journey[0]
	c, n := m.Calls[catalog.Route], catalog.Per*million
	saved := p.cost("transfer", bytes) + p.cost("httpAPI", n) + p.cost("lambdaRequests", n) +
		p.cost("lambdaGBs", n*billedMs(c)/1000*memory) +
		p.cost("logs", n*(c.LogBytes+m.AccessLogBytes))
	return p.cost("cdnRequests", callsOf()) + p.cost("cdnBytes", bytes) - saved
}

// aurora returns what the capacity above the least costs while a million reservations come in. The
// reader scales with the writer, so each instance costs as much.
func aurora(p prices, t template, rate float64) float64 {
	above := math.Max(0, acusAt(rate)-t.MinACU) * float64(t.Instances)
	return p.cost("acu", above*million/rate/3600)
}

// acusAt returns the capacity units that a rate of reservations a second needs.
func acusAt(rate float64) float64 {
	us := 0.0
	for _, s := range journey {
		us += s.Per * s.DatabaseUs
	}
	return math.Max(leastACU, math.Ceil(2*rate*us/1e6/vCPUs/busy)/2)
}

// metrics are how many metrics of our own an idle stack writes in each hour: those of the sweeper
// and the audit, and those of the relay for each place and sink. used is how many more a stack in
// use writes: the outcomes of the journey and what goes wrong now and then.
const idleMetrics, usedMetrics = 12, 14

// asking returns what a number of calls of the outbox costs.
func asking(p prices, m measured, calls float64) float64 {
	return p.cost("lambdaRequests", calls) + p.cost("lambdaGBs",
		calls*billedMs(m.Outbox)/1000*memory) + p.cost("logs", calls*m.Outbox.LogBytes)
}

// busMonth returns what a bus costs a month without an event, in a stack whose relay runs all the
// time: the relay asks the outbox twice a second for the bus too, and three alarms watch it.
func busMonth(p prices, m measured) float64 {
	const asksASecond, alarms = 2, 3
	return asking(p, m, seconds*asksASecond) + p.cost("alarm", alarms)
}

// busyMonth returns what a topic, or a bus, costs a month more while events come all the time and
// the relay runs all the time: it asks the outbox for each of the two places twice a second instead
// of once. Where more than 500 events come in half a second it also asks once for each further page
// of 500, which isn't counted here.
func busyMonth(p prices, m measured) float64 {
	const moreAsksASecond = 2
	return asking(p, m, seconds*moreAsksASecond)
}

// floor returns what an idle stack like t costs a month.
func floor(p prices, m measured, t template) []line {
	lines := []line{
		{"Aurora, at its least", p.cost("acu", t.MinACU*float64(t.Instances)*hours)},
	}
	if t.Proxies > 0 {
		lines = append(lines, line{"RDS Proxy, at its least", p.cost("proxyACU", proxyACU*hours)})
	}
	minutes := seconds / 60
	relay := []line{{"the relay, each minute", p.cost("lambdaGBs", minutes*0.5*memory)}}
	asked, calls := 2.0, minutes*2 // of the outbox; the sweeper's and the relay's
	if t.EventsOn {
		asked = 2 * 60
		relay = []line{{"the relay, all the time", p.cost("lambdaGBs", minutes*59*memory)}}
	}
	outbox := minutes * asked
	relay = append(relay, line{
		fmt.Sprintf("the outbox, which the relay asks %g times a minute", asked), asking(p, m, outbox),
	})
	lines = append(lines, relay...)
	if t.PlatformLogs {
		written := (outbox + calls) * m.PlatformBytes
		lines = append(lines, line{"logs: Lambda's own lines", p.cost("logs", written)})
	}
	if t.Tracing {
		lines = append(lines,
			line{"X-Ray", p.cost("traces", outbox*tracesOf(asked/60)+calls)})
	}
	if t.CompositeAlarms > 0 {
		lines = append(lines, line{
			fmt.Sprintf("%d alarms that join others", t.CompositeAlarms),
			p.cost("compositeAlarm", float64(t.CompositeAlarms)),
		})
	}
	return append(lines,
		line{"the sweeper, each minute", p.cost("lambdaRequests", calls) + p.cost("lambdaGBs",
			minutes*0.1*memory)},
		line{
			fmt.Sprintf("alarms, on %d metrics", t.AlarmMetrics),
			p.cost("alarm", float64(t.AlarmMetrics)),
		},
		line{fmt.Sprintf("%d metrics of our own", idleMetrics), p.cost("metric", idleMetrics)},
		line{"the database's secret", p.cost("secret", 1)},
	)
}
