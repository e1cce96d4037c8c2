package config

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func env(pairs ...string) func(string) string {
	values := map[string]string{}
	for i := 0; i < len(pairs); i += 2 {
		values[pairs[i]] = pairs[i+1]
	}
	return func(name string) string { return values[name] }
}

func TestAnEmptyEnvironmentGivesTheDefaults(t *testing.T) {
	t.Parallel()

	got, err := load(env())
	if err != nil {
		t.Fatal(err)
	}
	want := Config{
		Host: "127.0.0.1", Port: 3000, HoldTTL: 10 * time.Minute, MaxHold: time.Hour,
		SweepInterval: time.Minute, LogLevel: slog.LevelInfo, EarlyRelease: true,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("load() differs (-want +got):\n%s", diff)
	}
}

func TestEveryVariableIsRead(t *testing.T) {
	t.Parallel()

	got, err := load(env("DATABASE_URL", "postgres://u:p@h/d", "HOST", "0.0.0.0", "PORT", "8080", "HOLD_TTL", "30s",
		"MAX_HOLD", "2m", "SWEEP_INTERVAL", "5s", "LOG_LEVEL", "debug", "EARLY_RELEASE", "off"))
	if err != nil {
		t.Fatal(err)
	}
	want := Config{
		DatabaseURL: "postgres://u:p@h/d", Host: "0.0.0.0", Port: 8080, HoldTTL: 30 * time.Second,
		MaxHold: 2 * time.Minute, SweepInterval: 5 * time.Second, LogLevel: slog.LevelDebug,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("load() differs (-want +got):\n%s", diff)
	}
}

func TestABadValueIsRefusedByTheNameOfItsVariable(t *testing.T) {
	t.Parallel()

	for _, c := range []struct{ name, value string }{
		{"DATABASE_URL", "mysql://u:secret@h/d"},
		{"DATABASE_URL", "://secret"},
		{"HOST", "a b"},
		{"PORT", "0"},
		{"PORT", "65536"},
		{"PORT", "http"},
		{"HOLD_TTL", "999ms"},
		{"HOLD_TTL", "1500ms"},
		{"HOLD_TTL", "10"},
		{"HOLD_TTL", "61m"}, // longer than MAX_HOLD's default
		{"MAX_HOLD", "24h1s"},
		{"MAX_HOLD", "-1s"},
		{"SWEEP_INTERVAL", "0s"},
		{"SWEEP_INTERVAL", "61m"},
		{"DATABASE_URL", "postgres://u:secret@h:99999/d"},
		{"DATABASE_URL", "postgres:///d"},
		{"LOG_LEVEL", "loud"},
		{"LOG_LEVEL", "info+3"},
		{"EARLY_RELEASE", "yes"},
	} {
		_, err := load(env(c.name, c.value))
		if err == nil || !strings.Contains(err.Error(), c.name) {
			t.Errorf("load() with %s=%q = %v, want an error that names it", c.name, c.value, err)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("load() with %s gives away its value: %v", c.name, err)
		}
	}
}

func TestOneStartNamesEveryBadVariable(t *testing.T) {
	t.Parallel()

	_, err := load(env("PORT", "x", "HOLD_TTL", "y"))
	if err == nil || !strings.Contains(err.Error(), "PORT") || !strings.Contains(err.Error(), "HOLD_TTL") {
		t.Errorf("load() = %v, want PORT and HOLD_TTL named", err)
	}
}
