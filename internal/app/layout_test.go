package app_test

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/allo/reservations/internal/emf"
	"github.com/allo/reservations/internal/route"
)

const module = "github.com/allo/reservations"

// list runs go list at the root of the module.
func list(t *testing.T, args ...string) []string {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list"}, args...)...)
	cmd.Dir = "../.."
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list %v: %v", args, err)
	}
	return strings.Fields(string(out))
}

func functions(t *testing.T) []string {
	t.Helper()
	entries, err := os.ReadDir("../../functions")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestEveryRouteHasAFunctionAndNoFunctionIsUnused(t *testing.T) {
	t.Parallel()

	want := []string{
		"sweep", "migrate", "outbox", "relay", "deliver", "live-authorizer", "grant-scopes",
		"smoke",
	}
	for _, r := range route.All() {
		want = append(want, r.Function)
	}
	slices.Sort(want)
	want = slices.Compact(want)
	if got := functions(t); !slices.Equal(got, want) {
		t.Errorf("functions/ has %v, want %v for the routes, the rule and the deploy", got, want)
	}
}

func TestEveryMainIsShort(t *testing.T) {
	t.Parallel()

	const most = 25
	for _, name := range functions(t) {
		source, err := os.ReadFile(filepath.Join("../../functions", name, "main.go"))
		if err != nil {
			t.Fatal(err)
		}
		if lines := strings.Count(string(source), "\n"); lines > most {
			t.Errorf("functions/%s/main.go has %d lines, want at most %d", name, lines, most)
		}
	}
}

// No Lambda links the tests, the local stand-ins, the CDK or another function's libraries.
func TestALambdaLinksOnlyWhatItNeeds(t *testing.T) {
	t.Parallel()

	for _, name := range functions(t) {
		for _, dep := range list(t, "-deps", "./functions/"+name) {
			for _, unwanted := range []string{
				"testing", "github.com/aws/aws-cdk-go", "github.com/aws/jsii-runtime-go",
				"github.com/getkin/kin-openapi", "github.com/go-jose/go-jose/v4",
				module + "/internal/local", module + "/internal/pgtest", module + "/infra",
			} {
				if dep == unwanted || strings.HasPrefix(dep, unwanted+"/") {
					t.Errorf("functions/%s links %s", name, dep)
				}
			}
			if name != "migrate" && strings.HasPrefix(dep, "github.com/pressly/goose") {
				t.Errorf("functions/%s links %s, which only migrate needs", name, dep)
			}
			if name != "web" && strings.Contains(dep, "yaml") {
				t.Errorf("functions/%s links %s, which only web needs", name, dep)
			}
			if name != "migrate" && dep == "github.com/jackc/pgx/v5/stdlib" {
				t.Errorf("functions/%s links %s, which only migrate needs", name, dep)
			}
			noDatabase := []string{
				"web", "relay", "deliver", "live-authorizer", "list-webhooks", "redeliver-webhook",
				"grant-scopes", "smoke",
			}
			if slices.Contains(noDatabase, name) && strings.HasPrefix(dep, "github.com/jackc/pgx") {
				t.Errorf("functions/%s links %s, but it needs no database", name, dep)
			}
			const sdk = "github.com/aws/aws-sdk-go-v2"
			if strings.HasPrefix(dep, sdk+"/config") || strings.HasPrefix(dep, sdk+"/credentials") ||
				name != "relay" && strings.HasPrefix(dep, sdk+"/service/") {
				t.Errorf("functions/%s links %s, which is too large: see package awsapi", name, dep)
			}
			if name == "web" && strings.HasPrefix(dep, sdk) {
				t.Errorf("functions/web links %s, but it doesn't call AWS", dep)
			}
		}
	}
}

// imports maps each of our packages to its imports. It leaves tests out.
func imports(t *testing.T) map[string][]string {
	t.Helper()
	out := map[string][]string{}
	for _, line := range list(t, "-f", `{{.ImportPath}}{{range .Imports}}|{{.}}{{end}}`, "./...") {
		parts := strings.Split(line, "|")
		out[strings.TrimPrefix(parts[0], module+"/")] = parts[1:]
	}
	return out
}

func TestImportsPointOneWay(t *testing.T) {
	t.Parallel()

	const proxy = "github.com/awslabs/aws-lambda-go-api-proxy"
	allowed := map[string][]string{
		"internal/route":          {},
		"internal/config":         {},
		"internal/problem":        {},
		"internal/principal":      {},
		"internal/lambdahttp":     {"internal/principal", "internal/problem"},
		"internal/negotiate":      {},
		"internal/webui":          {"internal/negotiate", "internal/problem"},
		"internal/emf":            {},
		"internal/postgres":       {},
		"internal/awsapi":         {"internal/config"},
		"internal/awsdb":          {"internal/awsapi", "internal/config", "internal/postgres"},
		"migrations":              {},
		"internal/reservation":    {"internal/postgres", "internal/principal", "migrations"},
		"internal/stock":          {"internal/principal", "internal/reservation"},
		"internal/events":         {"internal/emf", "internal/events/channel"},
		"internal/events/channel": {},
		"internal/events/outbox": {
			"internal/events", "internal/events/channel", "internal/reservation",
		},
		"infra": {
			"internal/app/grant", "internal/config", "internal/emf", "internal/events", "internal/route",
		},
		"internal/app/grant": {"internal/config", "internal/principal", "internal/route"},
		"internal/httpapi": {
			"internal/events", "internal/events/channel", "internal/events/outbox",
			"internal/negotiate", "internal/principal", "internal/problem", "internal/reservation",
			"internal/route", "internal/stock",
		},
		"internal/events/awssink": {
			"internal/awsapi", "internal/config", "internal/events", "internal/events/channel",
		},
		"internal/app/liveauth": {"internal/events/channel"},
		"internal/app/relay": {
			"internal/config", "internal/emf", "internal/events", "internal/events/awssink",
			"internal/events/channel",
		},
		"internal/events/webhook": {"internal/events"},
		"internal/app/deliver": {
			"internal/awsapi", "internal/config", "internal/emf", "internal/events",
			"internal/events/webhook",
		},
		"internal/app/fault":     {"internal/emf"},
		"internal/app/objective": {"internal/app/fault", "internal/emf"},
		"internal/app/smoke": {
			"internal/awsapi", "internal/config", "internal/emf", "internal/route",
		},
		"internal/app/webhooks": {
			"internal/app/deliver", "internal/app/fault", "internal/config", "internal/emf",
			"internal/lambdahttp", "internal/principal", "internal/problem", "internal/route",
		},
	}
	for pkg, deps := range imports(t) {
		for _, dep := range deps {
			if strings.HasPrefix(dep, proxy) && pkg != "internal/lambdahttp" {
				t.Errorf("%s imports %s, which only internal/lambdahttp may", pkg, dep)
			}
			ours, isOurs := strings.CutPrefix(dep, module+"/")
			if want, bounded := allowed[pkg]; bounded && isOurs && !slices.Contains(want, ours) {
				t.Errorf("%s imports %s", pkg, ours)
			}
			if pkg == "internal/httpapi" &&
				(strings.Contains(dep, "pgx") || strings.Contains(dep, "aws-lambda")) {
				t.Errorf("internal/httpapi imports %s", dep)
			}
		}
	}
}

// sources calls check with each Go file of the module that isn't a test.
func sources(t *testing.T, check func(path, source string)) {
	t.Helper()
	err := filepath.WalkDir("../..", func(path string, entry os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := entry.Name()
		if entry.IsDir() &&
			(name == "node_modules" || name == "build" || (strings.HasPrefix(name, ".") && name != "..")) {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			return nil
		}
		source, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		check(path, string(source))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// The table of variables in package config is complete only if no other package reads the
// environment.
func TestOnlyConfigReadsTheEnvironment(t *testing.T) {
	t.Parallel()

	sources(t, func(path, source string) {
		dir := filepath.Base(filepath.Dir(path))
		for _, read := range []string{"os.Getenv", "os.LookupEnv", "os.Environ"} {
			// pgtest reads ALLO_TEST_PGBOUNCER, which is for tests only. Its documentation has it.
			if strings.Contains(source, read+"(") && dir != "config" && dir != "pgtest" {
				t.Errorf("%s calls %s", path, read)
			}
		}
	})
}

// The stack watches the metrics that package emf names. An alarm on one that nothing writes never
// rings.
func TestEveryMetricIsWritten(t *testing.T) {
	t.Parallel()

	written := regexp.MustCompile(`\bemf\.(\w+)\.(Value|Of)\(`)
	found := map[string]bool{}
	sources(t, func(_, source string) {
		for _, match := range written.FindAllStringSubmatch(source, -1) {
			found[match[1]] = true
		}
	})
	for _, m := range emf.All() {
		if !found[m.Name] {
			t.Errorf("nothing writes the metric %s", m.Name)
		}
		delete(found, m.Name)
	}
	if len(found) > 0 {
		t.Errorf("emf.All lacks the metrics %v", slices.Sorted(maps.Keys(found)))
	}
}

// A statement that names its columns outlives a migration that gives the function more of them.
func TestEveryStatementNamesAFunctionsColumns(t *testing.T) {
	t.Parallel()

	all := regexp.MustCompile(`(?i)\bSELECT\s+(\w+\.)?\*\s+FROM\s+\w+\s*\(`)
	if !all.MatchString("SELECT *\nFROM list_products($1)") {
		t.Error("the pattern doesn't match a statement that it must find")
	}
	sources(t, func(path, source string) {
		if found := all.FindString(source); found != "" {
			t.Errorf("%s has %q, want the columns named", path, found)
		}
	})
}

// A reader copies an example, and callers without authorization share their keys.
func TestEveryExampleHasARandomIdempotencyKey(t *testing.T) {
	t.Parallel()

	fixed := regexp.MustCompile(`(?i)idempotency-key:\s*[^$\s].*`)
	if !fixed.MatchString(`-H "Idempotency-Key: order-17"`) {
		t.Error("the pattern doesn't match an example that it must find")
	}
	pages := 0
	for _, pattern := range []string{"*.md", "infra/*.md", "internal/*/*.md", "internal/*/*/*.md"} {
		paths, err := filepath.Glob("../../" + pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range paths {
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			pages++
			if found := fixed.Find(text); found != nil {
				t.Errorf("%s has %q, want a variable or a command", path, found)
			}
		}
	}
	if pages < 4 {
		t.Errorf("there are %d pages, want the project's", pages)
	}
}
