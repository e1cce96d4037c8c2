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

// consumerDatabase makes the consumer's own database. It returns the program's environment.
func consumerDatabase(t *testing.T) (*pgx.Conn, []string) {
	t.Helper()
	db := pgtest.NewEmpty(t)
	conn, err := pgx.Connect(t.Context(), db.DirectURL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	if _, err := conn.Exec(t.Context(), readmeBlock(t, "sql")); err != nil {
		t.Fatal(err)
	}
	c := conn.Config()
	return conn, []string{
		"PGHOST=" + c.Host, "PGPORT=" + strconv.Itoa(int(c.Port)), "PGDATABASE=" + c.Database,
		"PGUSER=" + c.User, "PGPASSWORD=" + c.Password,
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

// consume publishes the batches, the dedup window apart, and runs the program on a queue of the
// topic until the queue is empty. It returns the parcels.
func consume(t *testing.T, program string, batches ...[]events.Event) []string {
	t.Helper()
	db, env := consumerDatabase(t)
	runtime := local.NewRuntime(local.RuntimeConfig{
		Name: "consumer", Binary: buildConsumer(t, program), Env: env, Stderr: t.Output(),
	})
	defer runtime.Close()
	now := time.Now()
	clock := func() time.Time { return now }
	topic, queue := local.NewTopic(nil, clock), local.NewQueue("fulfilment.fifo", nil, clock)
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
	) (none lambdaevents.SQSEventResponse, err error) {
		payload, err := json.Marshal(batch)
		if err != nil {
			return none, err
		}
		if _, err := runtime.Invoke(ctx, payload); err != nil {
			t.Error(err)
		}
		if taken += len(batch.Records); taken == total {
			cancel()
		}
		return none, nil
	}, slog.New(slog.DiscardHandler))
	rows, err := db.Query(t.Context(), "SELECT hold FROM parcels ORDER BY hold")
	if err != nil {
		t.Fatal(err)
	}
	parcels, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil || taken != total {
		t.Fatalf("the program took %d of %d events, %v", taken, total, err)
	}
	return parcels
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
	program := readmeBlock(t, "go")
	const most = 30
	if lines := strings.Count(program, "\n"); lines > most {
		t.Errorf("the program has %d lines, want at most %d", lines, most)
	}
	// After a restore, a hold is confirmed whose release is undone, under a number from before.
	restored := []events.Event{holdEvent("f", b, "confirmed", 2)}
	if got := consume(t, program, first, again, restored); !slices.Equal(got, []string{a, b}) {
		t.Errorf("the parcels are %v, want one of each confirmed hold", got)
	}

	// The control: a program that doesn't compare the sequence sends the parcel twice.
	careless := strings.Replace(program, "WHERE subjects.sequence < excluded.sequence", "", 1)
	if careless == program {
		t.Fatal("the program has no guard to remove")
	}
	if got := consume(t, careless, first, again); !slices.Equal(got, []string{a, a}) {
		t.Errorf("without the guard the parcels are %v, want two", got)
	}
}
