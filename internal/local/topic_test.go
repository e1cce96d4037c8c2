package local

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	lambdaevents "github.com/aws/aws-lambda-go/events"

	"github.com/allo/reservations/internal/app/deliver"
	"github.com/allo/reservations/internal/events"
	"github.com/allo/reservations/internal/events/webhook"
)

// testClock is a clock that stands still until the test moves it.
type testClock struct{ at time.Time }

func newTestClock() *testClock {
	return &testClock{time.Date(2026, 11, 28, 10, 0, 0, 0, time.UTC)}
}

func (c *testClock) now() time.Time { return c.at }

// held is the nth event of a hold.
func held(subject string, n int) events.Event {
	id := fmt.Sprintf("%s-%d", subject, n)
	return events.Event{
		ID: id, Subject: subject, Type: "allo.reservation.held",
		Body: []byte(`{"id":"` + id + `","type":"allo.reservation.held","subject":"` + subject + `"}`),
	}
}

// publish fails the test when the topic refuses an event.
func publish(t *testing.T, topic *Topic, batch ...events.Event) {
	t.Helper()
	if err := errors.Join(topic.Publish(t.Context(), batch)...); err != nil {
		t.Fatal(err)
	}
}

// receive returns the events' ids, with the number of the receive.
func receive(q *Queue, limit int) (ids []string, messages []lambdaevents.SQSMessage) {
	messages = q.Receive(limit)
	for _, m := range messages {
		ids = append(ids, m.Attributes["MessageDeduplicationId"]+" "+
			m.Attributes["ApproximateReceiveCount"])
	}
	return ids, messages
}

func wantIDs(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: %q, want %q", what, got, want)
	}
}

func TestATopicDropsTheRepeatsOfFiveMinutes(t *testing.T) {
	t.Parallel()

	clock := newTestClock()
	topic, q := NewTopic(nil, clock.now), NewQueue("q", nil, clock.now, quiet)
	topic.Subscribe(q)
	publish(t, topic, held("a", 1), held("b", 1))
	clock.at = clock.at.Add(dedupWindow - time.Second)
	publish(t, topic, held("a", 1), held("a", 2))
	ids, _ := receive(q, 10)
	wantIDs(t, "within five minutes", ids, "a-1 1", "b-1 1", "a-2 1")
	clock.at = clock.at.Add(time.Second)
	publish(t, topic, held("a", 1), held("a", 2))
	if len(topic.seen) != 2 || len(topic.recent) != 2 {
		t.Errorf("the topic remembers %d events, want 2", len(topic.seen))
	}
	if len(q.messages) != 4 {
		t.Errorf("after five minutes the queue has %d messages, want 4", len(q.messages))
	}
}

// After a restore the id of a lost event comes again for another one, within five minutes. The
// queue gets both, each once. The control has events without a source, whose ids are all that there
// is: the second one is lost.
func TestATopicTellsEpochsApart(t *testing.T) {
	t.Parallel()

	of := func(epoch, kind string) events.Event {
		return events.Event{ID: "h-2", Subject: "h", Type: kind, Body: fmt.Appendf(nil,
			`{"id":"h-2","source":"/allo/%s","type":%q,"subject":"h"}`, epoch, kind)}
	}
	for _, c := range []struct {
		first, second string
		want          []string
	}{
		{"11111111-0000", "22222222-0000", []string{"11111111-h-2 1", "22222222-h-2 1"}},
		{"", "", []string{"h-2 1"}},
	} {
		clock := newTestClock()
		topic, q := NewTopic(nil, clock.now), NewQueue("q", nil, clock.now, quiet)
		topic.Subscribe(q)
		publish(t, topic, of(c.first, events.TypeReleased))
		publish(t, topic, of(c.second, events.TypeConfirmed), of(c.first, events.TypeReleased))
		ids, messages := receive(q, 10)
		wantIDs(t, "an id of two epochs", ids, c.want...)
		for _, m := range messages { // dead letters that are sent again are the same events
			q.bury(m)
		}
		q.messages = nil
		q.Redeliver()
		ids, _ = receive(q, 10)
		wantIDs(t, "redelivered", ids, c.want...)
	}
}

func TestATopicRefusesWhatSNSRefuses(t *testing.T) {
	t.Parallel()

	large := held("a", 1)
	large.Body = []byte(`"` + strings.Repeat("x", maxMessage) + `"`)
	for body, want := range map[string]bool{
		string(large.Body): true, "\"\u0001\"": true, "\"\ufffe\"": true, "\"\uffff\"": true,
		"\"\xff\"": true, "\"\x7f\ufffd\U0001ffff\"\t\r\n": false, `"\ufffe"`: false,
	} {
		e := held("a", 1)
		e.Body = []byte(body)
		errs := NewTopic(nil, time.Now).Publish(t.Context(), []events.Event{e, held("b", 1)})
		refused := (*events.RefusedError)(nil)
		if got := errors.As(errs[0], &refused); got != want || errs[1] != nil {
			t.Errorf("the errors of %.20q are %v, want a refusal of the first: %t", body, errs, want)
		}
	}
}

func TestAQueueKeepsTheOrderOfAGroup(t *testing.T) {
	t.Parallel()

	clock := newTestClock()
	q := NewQueue("q", nil, clock.now, quiet)
	for _, e := range []events.Event{held("a", 1), held("a", 2), held("b", 1), held("a", 3)} {
		q.Send(e)
	}
	ids, first := receive(q, 1)
	wantIDs(t, "first", ids, "a-1 1")
	ids, second := receive(q, 10)
	wantIDs(t, "while a-1 is hidden", ids, "b-1 1")
	ids, _ = receive(q, 10)
	wantIDs(t, "while both are hidden", ids)

	if err := errors.Join(q.Hide(t.Context(), first[0], time.Hour), q.Delete(second[0])); err != nil {
		t.Fatal(err)
	}
	clock.at = clock.at.Add(time.Hour - time.Second)
	ids, _ = receive(q, 10)
	wantIDs(t, "before the hour", ids)
	clock.at = clock.at.Add(time.Second)
	ids, again := receive(q, 2)
	wantIDs(t, "after the hour", ids, "a-1 2", "a-2 1")
	if err := q.Delete(first[0]); !errors.Is(err, errReceipt) {
		t.Errorf("an old receipt deletes a message: %v", err)
	}
	if err := errors.Join(q.Delete(again[0]), q.Delete(again[1])); err != nil {
		t.Fatal(err)
	}
	ids, _ = receive(q, 10)
	wantIDs(t, "the rest", ids, "a-3 1")

	// Without an answer, the message comes back by itself.
	clock.at = clock.at.Add(visibilityTimeout)
	ids, _ = receive(q, 10)
	wantIDs(t, "after the visibility timeout", ids, "a-3 2")
}

func TestAQueueTakesItsTypesOnly(t *testing.T) {
	t.Parallel()

	q := NewQueue("q", []string{"allo.stock.moved"}, time.Now, quiet)
	q.Send(held("a", 1))
	moved := held("b", 1)
	moved.Type = "allo.stock.moved"
	q.Send(moved)
	ids, _ := receive(q, 10)
	wantIDs(t, "received", ids, "b-1 1")
}

func TestAMessageThatNobodyTakesIsADeadLetter(t *testing.T) {
	t.Parallel()

	if maxReceives <= webhook.Receives() {
		t.Errorf("the queue gives up after %d receives, before the webhook does after %d",
			maxReceives, webhook.Receives())
	}
	var log strings.Builder
	clock := newTestClock()
	q := NewQueue("q", nil, clock.now, slog.New(slog.NewTextHandler(&log, nil)))
	q.Send(held("a", 1))
	q.Send(held("a", 2))
	for range maxReceives {
		if ids, _ := receive(q, 1); len(ids) != 1 || ids[0][:3] != "a-1" {
			t.Fatalf("received %v, want a-1", ids)
		}
		clock.at = clock.at.Add(visibilityTimeout)
	}
	ids, _ := receive(q, 1)
	wantIDs(t, "after the last receive of a-1", ids, "a-2 1")
	if dead := q.DeadLetters(); len(dead) != 1 || dead[0].Attributes["MessageGroupId"] != "a" {
		t.Errorf("the dead letters are %v, want a-1", dead)
	}
	if strings.Count(log.String(), "event=a-1") != 1 {
		t.Errorf("the log is\n%swant a line for a-1", &log)
	}
}

func TestAFullQueueMakesDeadLettersAndSaysSo(t *testing.T) {
	t.Parallel()

	var log strings.Builder
	q := NewQueue("q", nil, time.Now, slog.New(slog.NewTextHandler(&log, nil)))
	for n := range maxQueued {
		q.Send(held("a", n))
	}
	if log.Len() > 0 {
		t.Errorf("a queue that isn't full says:\n%s", &log)
	}
	for n := range maxDead + 1 {
		q.Send(held("a", maxQueued+n))
	}
	dead := q.DeadLetters()
	if len(q.messages) != maxQueued || len(dead) != maxDead ||
		dead[0].Attributes["MessageDeduplicationId"] != fmt.Sprintf("a-%d", maxQueued+1) {
		t.Errorf("the queue has %d messages and %d dead letters", len(q.messages), len(dead))
	}
	lines := strings.Count(log.String(), "\n")
	first := fmt.Sprintf(`event=a-%d reason="the queue is full"`, maxQueued)
	if lines != maxDead+1 || !strings.Contains(log.String(), first) {
		t.Errorf("the log has %d lines, want one with %s for each dead letter", lines, first)
	}
}

// The lag is that of the oldest event that waits, also of one that failed before newer ones were
// taken.
func TestAQueueTellsHowLongItsOldestEventHasWaited(t *testing.T) {
	t.Parallel()

	clock := newTestClock()
	q := NewQueue("q", nil, clock.now, quiet)
	want := func(waiting int, lag time.Duration, dead int) {
		t.Helper()
		if w, l, d := q.Counts(); w != waiting || l != lag || d != dead {
			t.Errorf("Counts() = %d, %s, %d, want %d, %s, %d", w, l, d, waiting, lag, dead)
		}
	}
	want(0, 0, 0)
	q.Send(held("a", 1))
	clock.at = clock.at.Add(time.Minute)
	q.Send(held("b", 1))
	_, messages := receive(q, 2)
	if err := errors.Join(q.Hide(t.Context(), messages[0], time.Hour),
		q.Delete(messages[1])); err != nil {
		t.Fatal(err)
	}
	want(1, time.Minute, 0)
	if err := errors.Join(q.Bury(t.Context(), "", messages[0]), q.Delete(messages[0])); err != nil {
		t.Fatal(err)
	}
	want(0, 0, 1)
	q.Redeliver()
	clock.at = clock.at.Add(time.Second)
	want(1, time.Second, 0) // since the redelivery
}

func TestRunDeletesWhatTheConsumerTook(t *testing.T) {
	t.Parallel()

	q := NewQueue("q", nil, time.Now, quiet)
	var _ deliver.Queues = q
	q.Send(held("a", 1))
	q.Send(held("a", 2))
	q.Send(held("a", 3))
	var got []string
	ctx, cancel := context.WithCancel(t.Context())
	q.Run(ctx, func(
		ctx context.Context, batch lambdaevents.SQSEvent,
	) (r lambdaevents.SQSEventResponse, err error) {
		m := batch.Records[0]
		id := m.Attributes["MessageDeduplicationId"] + " " + m.Attributes["ApproximateReceiveCount"]
		got = append(got, id)
		switch id {
		case "a-1 1": // failed
			r.BatchItemFailures = []lambdaevents.SQSBatchItemFailure{{ItemIdentifier: m.MessageId}}
			return r, q.Hide(ctx, m, 0)
		case "a-2 1": // crashed
			_ = q.Hide(ctx, m, 0)
			panic("a bug")
		case "a-2 2": // an error
			return r, errors.Join(q.Hide(ctx, m, 0), errors.New("not now"))
		case "a-3 1":
			cancel()
		}
		return r, nil
	}, quiet)
	wantIDs(t, "consumed", got, "a-1 1", "a-1 2", "a-2 1", "a-2 2", "a-2 3", "a-3 1")
	if len(q.messages) > 0 {
		t.Errorf("the queue keeps %d messages", len(q.messages))
	}
}

// archived returns the lines of a file in the archive's directory.
func archived(t *testing.T, dir, name string) []string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
}

func TestTheArchiveIsBounded(t *testing.T) {
	t.Parallel()

	dir := filepath.Join(t.TempDir(), "data")
	a, err := OpenArchive(dir)
	if err != nil {
		t.Fatal(err)
	}
	line := string(held("a", 1).Body)
	a.max = int64(3*len(line) + 3) // three lines
	topic := NewTopic(a, time.Now)
	for n := range 8 {
		publish(t, topic, held("a", n))
		publish(t, topic, held("a", n)) // dropped
	}
	wantIDs(t, "the older file", archived(t, dir, olderFile), string(held("a", 3).Body),
		string(held("a", 4).Body), string(held("a", 5).Body))
	wantIDs(t, "the file", archived(t, dir, archiveFile), string(held("a", 6).Body),
		string(held("a", 7).Body))
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}

	// A program that ended while it wrote leaves a part of a line.
	file, err := os.OpenFile(filepath.Join(dir, archiveFile), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := file.WriteString(`{"id":`); err != nil {
		t.Fatal(err)
	}
	_ = file.Close()
	if a, err = OpenArchive(dir); err != nil {
		t.Fatal(err)
	}
	spaced := held("b", 1)
	spaced.Body = []byte("{\n \"id\": \"b-1\" }")
	if err := a.Append(spaced); err != nil {
		t.Fatal(err)
	}
	wantIDs(t, "the file after a crash", archived(t, dir, archiveFile), string(held("a", 6).Body),
		string(held("a", 7).Body), `{"id":"b-1"}`)

	spaced.Body = []byte("{")
	if refused := (*events.RefusedError)(nil); !errors.As(a.Append(spaced), &refused) {
		t.Error("the archive takes what isn't JSON")
	}
	if err := errors.Join(a.Close(), a.Close()); err != nil {
		t.Error(err)
	}
	// What the archive can't take isn't published, so that the relay tries again.
	q := NewQueue("q", nil, time.Now, quiet)
	topic.archive = a
	topic.Subscribe(q)
	if errs := topic.Publish(t.Context(), []events.Event{held("c", 1)}); errs[0] == nil {
		t.Error("a closed archive takes an event")
	}
	if len(q.messages) > 0 || topic.seen["c-1"] {
		t.Error("the queue has an event that the archive doesn't have")
	}
}

func TestFollowPrintsALineForEachEvent(t *testing.T) {
	t.Parallel()

	dir := t.TempDir()
	var out strings.Builder
	f := follower{path: filepath.Join(dir, archiveFile), to: &out, skip: true}
	defer f.close()
	poll := func(want string) {
		t.Helper()
		out.Reset()
		if err := f.poll(); err != nil {
			t.Fatal(err)
		}
		if got := out.String(); got != want {
			t.Errorf("Follow printed\n%swant\n%s", got, want)
		}
	}
	poll("") // there is no archive yet

	a, err := OpenArchive(dir)
	if err != nil {
		t.Fatal(err)
	}
	add := func(body string) {
		t.Helper()
		if err := a.Append(events.Event{Body: []byte(body)}); err != nil {
			t.Fatal(err)
		}
	}
	for range shownBefore + 1 {
		add(`{"time":"2026-11-28T10:00:00.123456Z","type":"allo.reservation.held","subject":"s",` +
			`"sequence":"0000000001","data":{"cause":"verb",` +
			`"reservation":{"items":[{"quantity":2},{"quantity":1}]}}}`)
	}
	const line = "10:00:00.123  reservation.held              s  1  units 3, lines 2, by verb\n"
	poll(strings.Repeat(line, shownBefore))
	add(`{"time":"2026-11-28T10:00:01Z","type":"allo.stock.moved","subject":"p/w",` +
		`"sequence":"0000000120","data":{"kind":"ADJUSTMENT","delta":-5,"totalAfter":20}}`)
	poll("10:00:01.000  stock.moved                   p/w  120  units -5, now 20, adjustment\n")
	poll("")

	// The file is replaced: neither the old one's last line nor the new one's first is missed.
	add(`{}`)
	a.max = 1
	add(`[]`)
	const empty = "00:00:00.000                                    units +0, now 0, \n"
	poll(empty + "(a line that isn't an event)\n")
	poll("")
}

func TestFollowEndsWithItsContext(t *testing.T) {
	t.Parallel()

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var out strings.Builder
	if err := Follow(ctx, t.TempDir(), &out); err != nil ||
		!strings.Contains(out.String(), "Waiting for `make run`") {
		t.Errorf("Follow printed %q, %v", &out, err)
	}
	path := filepath.Join(t.TempDir(), archiveFile)
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := Follow(ctx, filepath.Dir(path), new(strings.Builder)); err == nil {
		t.Error("an archive that can't be read has no error")
	}
}
