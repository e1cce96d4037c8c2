package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	lambdaevents "github.com/aws/aws-lambda-go/events"
	"github.com/jackc/pgx/v5"

	"github.com/allo/reservations/internal/events"
	"github.com/allo/reservations/internal/local"
	"github.com/allo/reservations/internal/local/builttest"
	"github.com/allo/reservations/internal/pgtest"
)

// readmeBlock returns the text of a language from the page of the events.
func readmeBlock(t *testing.T, language string) string {
	t.Helper()
	page, err := os.ReadFile("../events/README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(page), "```"+language+"\n")
	text, _, found := strings.Cut(rest, "```\n")
	if !found {
		t.Fatalf("the page has no block of %s", language)
	}
	return text
}

// buildConsumer builds a program as a package of this module, which has what it imports.
func buildConsumer(t *testing.T, program string) string {
	t.Helper()
	dir := t.TempDir()
	source, binary := filepath.Join(dir, "main.go"), filepath.Join(dir, "bootstrap")
	root := builttest.Root(t)
	overlay, err := json.Marshal(map[string]map[string]string{
		"Replace": {filepath.Join(root, "internal/events/consumer/main.go"): source},
	})
	if err != nil {
		t.Fatal(err)
	}
	listed := filepath.Join(dir, "overlay.json")
	for name, text := range map[string][]byte{source: []byte(program), listed: overlay} {
		if err := os.WriteFile(name, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), "go", "build", "-overlay", listed, "-o", binary,
		"./internal/events/consumer")
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the program: %v\n%s", err, out)
	}
	return binary
}

// consumer is the page's consumer: its program, and its database's tables and function.
type consumer struct{ program, tables string }

func readmeConsumer(t *testing.T) consumer {
	t.Helper()
	return consumer{program: readmeBlock(t, "go"), tables: readmeBlock(t, "sql")}
}

// without returns the consumer without a guard, for a control.
func (c consumer) without(t *testing.T, guard string) consumer {
	t.Helper()
	changed := consumer{
		strings.Replace(c.program, guard, "", 1), strings.Replace(c.tables, guard, "", 1),
	}
	if changed == c {
		t.Fatalf("the page has no %s to remove", guard)
	}
	return changed
}

// database makes the consumer's own database. It returns the program's environment.
func (c consumer) database(t *testing.T) (*pgx.Conn, []string) {
	t.Helper()
	db := pgtest.NewEmpty(t)
	conn, err := pgx.Connect(t.Context(), db.DirectURL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	if _, err := conn.Exec(t.Context(), c.tables); err != nil {
		t.Fatal(err)
	}
	to := conn.Config()
	return conn, []string{
		"PGHOST=" + to.Host, "PGPORT=" + strconv.Itoa(int(to.Port)), "PGDATABASE=" + to.Database,
		"PGUSER=" + to.User, "PGPASSWORD=" + to.Password,
	}
}

// holdEvent is an event of a hold as it is published, but for what the program doesn't read.
func holdEvent(epoch, hold, kind string, sequence int) events.Event {
	id := hold + "-" + strconv.Itoa(sequence)
	return events.Event{
		ID: id, Subject: hold, Type: "allo.reservation." + kind,
		Body: fmt.Appendf(nil, `{"specversion":"1.0","id":%q,"source":"/allo-test/%s",`+
			`"type":"allo.reservation.%s","subject":%q,"sequence":"%010d"}`, id, epoch, kind, hold,
			sequence),
	}
}

// start starts the consumer. It returns what hands it a batch, and what reads its parcels.
func (c consumer) start(t *testing.T) (
	take local.Consumer, parcels func() []string,
) {
	t.Helper()
	db, env := c.database(t)
	runtime := local.NewRuntime(local.RuntimeConfig{
		Name: "consumer", Binary: buildConsumer(t, c.program), Env: env, Stderr: t.Output(),
	})
	t.Cleanup(func() { _ = runtime.Close() })
	take = func(
		ctx context.Context, batch lambdaevents.SQSEvent,
	) (response lambdaevents.SQSEventResponse, err error) {
		payload, err := json.Marshal(batch)
		if err != nil {
			return response, err
		}
		answer, err := runtime.Invoke(ctx, payload)
		if err != nil {
			return response, err
		}
		return response, json.Unmarshal(answer, &response)
	}
	return take, func() []string {
		t.Helper()
		rows, err := db.Query(t.Context(), "SELECT hold FROM parcels ORDER BY hold")
		if err != nil {
			t.Fatal(err)
		}
		found, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
}

// consume publishes the batches, the dedup window apart, and runs the consumer on a queue of the
// topic until the queue is empty. It returns the parcels.
func (c consumer) consume(t *testing.T, batches ...[]events.Event) []string {
	t.Helper()
	take, parcels := c.start(t)
	now := time.Now()
	clock := func() time.Time { return now }
	log := slog.New(slog.DiscardHandler)
	topic, queue := local.NewTopic(nil, clock), local.NewQueue("fulfilment.fifo", nil, clock, log)
	topic.Subscribe(queue)
	total := 0
	for _, batch := range batches {
		for _, err := range topic.Publish(t.Context(), batch) {
			if err != nil {
				t.Fatal(err)
			}
		}
		total += len(batch)
		now = now.Add(6 * time.Minute)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	taken := 0
	queue.Run(ctx, func(
		ctx context.Context, batch lambdaevents.SQSEvent,
	) (lambdaevents.SQSEventResponse, error) {
		response, err := take(ctx, batch)
		if err != nil || len(response.BatchItemFailures) > 0 {
			t.Errorf("the program answers %v, %v", response, err)
		}
		if taken += len(batch.Records); taken == total {
			cancel()
		}
		return response, err
	}, log)
	if taken != total {
		t.Fatalf("the program took %d of %d events", taken, total)
	}
	return parcels()
}

// The page's consumer gets each event at least once, and old events again after newer ones.
func TestThePagesConsumerMakesOneParcelAHold(t *testing.T) {
	t.Parallel()

	const a, b = "01990c1e-0000-7000-8000-00000000000a", "01990c1e-0000-7000-8000-00000000000b"
	first := []events.Event{
		holdEvent("e", a, "held", 1), holdEvent("e", b, "held", 1), holdEvent("e", a, "extended", 2),
		holdEvent("e", a, "confirmed", 10), holdEvent("e", b, "released", 2),
	}
	again := []events.Event{holdEvent("e", a, "extended", 2), holdEvent("e", a, "confirmed", 10)}
	page := readmeConsumer(t)
	const most = 30
	if lines := strings.Count(page.program, "\n"); lines > most {
		t.Errorf("the program has %d lines, want at most %d", lines, most)
	}
	// After a restore, a hold is confirmed whose release is undone, under a number from before.
	restored := []events.Event{holdEvent("f", b, "confirmed", 2)}
	if got := page.consume(t, first, again, restored); !slices.Equal(got, []string{a, b}) {
		t.Errorf("the parcels are %v, want one of each confirmed hold", got)
	}

	// The control: a program that doesn't compare the sequence sends the parcel twice.
	careless := page.without(t, "WHERE subjects.sequence < excluded.sequence")
	if got := careless.consume(t, first, again); !slices.Equal(got, []string{a, a}) {
		t.Errorf("without the guard the parcels are %v, want two", got)
	}
}

// One event of a batch can't be taken. Those behind it of its subject are kept with it, and the
// other subjects go on.
func TestThePagesConsumerKeepsOnlyAFailedSubject(t *testing.T) {
	t.Parallel()

	batch := lambdaevents.SQSEvent{}
	for _, e := range []events.Event{
		holdEvent("e", "a", "held", 1), holdEvent("e", "b", "held", 1),
		{ID: "a-2", Subject: "a"},
		holdEvent("e", "a", "confirmed", 3), holdEvent("e", "b", "confirmed", 2),
	} {
		batch.Records = append(batch.Records, lambdaevents.SQSMessage{
			MessageId: e.ID, Body: string(e.Body),
			Attributes: map[string]string{"MessageGroupId": e.Subject},
		})
	}
	handOut := func(c consumer) (kept, parcels []string) {
		t.Helper()
		take, read := c.start(t)
		response, err := take(t.Context(), batch)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range response.BatchItemFailures {
			kept = append(kept, f.ItemIdentifier)
		}
		return kept, read()
	}
	page := readmeConsumer(t)
	kept, parcels := handOut(page)
	if !slices.Equal(kept, []string{"a-2", "a-3"}) || !slices.Equal(parcels, []string{"b"}) {
		t.Errorf("the program keeps %v and made the parcels %v, want only b's", kept, parcels)
	}

	// The control: a program that doesn't mind the subject takes a later event before a failed one.
	page.program = strings.Replace(page.program, "if failed[group] == nil", "if true", 1)
	kept, parcels = handOut(page)
	if !slices.Equal(kept, []string{"a-2"}) || !slices.Equal(parcels, []string{"a", "b"}) {
		t.Errorf("without the guard it keeps %v and made the parcels %v", kept, parcels)
	}
}
