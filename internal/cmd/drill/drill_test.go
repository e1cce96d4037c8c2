package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/allo/reservations/internal/events"
)

// small makes a drill that is over soon.
func small(t *testing.T, out *bytes.Buffer) *drill {
	t.Helper()
	d, err := newDrill(t.Context(), options{
		root: "../../..", sell: time.Second, unnoticed: 500 * time.Millisecond,
	}, out)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

func TestADrillSaysWhatItTookAndLost(t *testing.T) {
	t.Parallel()

	var out bytes.Buffer
	if err := small(t, &out).run(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := regexp.MustCompile(`RTO [0-9.]+m?s \(restored in .*audited in .*\)\n` +
		`  RPO [0-9.]+m?s \([1-9][0-9]* of [1-9][0-9]* sales are lost\)\n  [1-9][0-9]* sales since`)
	if !want.Match(out.Bytes()) {
		t.Errorf("the report is %q, want the measured times and losses", out.String())
	}
}

// These are the controls: what the drill is there to find.
func TestADrillFindsAForgottenEpoch(t *testing.T) {
	t.Parallel()

	var out bytes.Buffer
	d := small(t, &out)
	if err := d.breakShop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := d.takeOver(t.Context(), ""); err == nil ||
		!strings.Contains(err.Error(), "published with two meanings") {
		t.Errorf("without a new epoch the drill = %v", err)
	}
}

func TestADrillFindsAMistakeThatIsStillThereAndASaleThatIsGone(t *testing.T) {
	t.Parallel()

	var out bytes.Buffer
	d := small(t, &out)
	if err := d.breakShop(t.Context()); err != nil {
		t.Fatal(err)
	}
	conn, err := d.first.connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	if _, err := d.lost(t.Context(), conn); err == nil ||
		!strings.Contains(err.Error(), "wrong name") {
		t.Errorf("on the broken server lost() = %v", err)
	}
	d.sold = append(d.sold, sale{answered: d.moment.Add(-time.Second)}) // no server knows it
	if _, err := d.lost(t.Context(), conn); err == nil || !strings.Contains(err.Error(), "is gone") {
		t.Errorf("with a sale that is gone lost() = %v", err)
	}
}

func TestConsumersTellEventsApartBySourceAndID(t *testing.T) {
	t.Parallel()

	publish := func(c *consumers, body string) {
		c.Publish(t.Context(), []events.Event{{Body: json.RawMessage(body)}})
	}
	c := newConsumers()
	publish(c, `{"source": "a", "id": "1", "data": 1}`)
	publish(c, `{"source": "a", "id": "1", "data": 1}`)
	publish(c, `{"source": "b", "id": "1", "data": 2}`)
	if err := c.contradiction(); err != nil {
		t.Error(err)
	}
	publish(c, `{"source": "b", "id": "1", "data": 3}`)
	if c.contradiction() == nil {
		t.Error("the consumers accept two meanings of one event")
	}
	sold := []sale{{hold: uuid.New()}}
	if c.missing(sold) == nil {
		t.Error("the consumers don't miss the event of a sale")
	}
	c.Publish(t.Context(), []events.Event{{
		Subject: sold[0].hold.String(), Type: events.TypeConfirmed, Body: []byte(`{"source": "c"}`),
	}})
	if err := c.missing(sold); err != nil {
		t.Error(err)
	}
	c = newConsumers()
	publish(c, `{"id": "1"}`)
	if c.contradiction() == nil {
		t.Error("the consumers accept an event without a source")
	}
}

// The dump needs the client programs of the server's version, which few machines have.
func TestADrillRunsTheRunbooksDump(t *testing.T) {
	t.Parallel()

	version, err := exec.Command("pg_dump", "--version").Output()
	path, lookErr := exec.LookPath("pg_dump")
	if err != nil || lookErr != nil || !regexp.MustCompile(` 1[789]\.`).Match(version) {
		t.Skipf("this machine has no pg_dump of Postgres 17 or later: %s", version)
	}
	var out bytes.Buffer
	d := small(t, &out)
	d.client = filepath.Dir(path)
	if err := d.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(out.String(), "dumped and loaded in"); n != 2 {
		t.Errorf("the report is %q, want the dump in two servers", out.String())
	}
}

func TestTheRunbookHasCommandsThatBashCanRead(t *testing.T) {
	t.Parallel()

	text, err := os.ReadFile("../../../infra/RUNBOOK.md")
	if err != nil {
		t.Fatal(err)
	}
	commands := dumpBlock.FindSubmatch(text)
	if commands == nil {
		t.Fatal("RUNBOOK.md has no commands that begin with pg_dump")
	}
	output, err := exec.Command("bash", "-n", "-c", string(commands[1])).CombinedOutput()
	if err != nil {
		t.Errorf("bash can't read the runbook's commands: %v: %s", err, output)
	}
	for _, want := range []string{`psql "$cluster"`, "TRUNCATE", "-f dump.sql"} {
		if !bytes.Contains(commands[1], []byte(want)) {
			t.Errorf("the commands are %s, want %s in them", commands[1], want)
		}
	}
}
