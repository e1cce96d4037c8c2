package config

import (
	"log/slog"
	"maps"
	"os"
	"regexp"
	"slices"
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

// webhookText is an element of WEBHOOKS.
const webhookText = `{"name":"crm","url":"https://example.com/hook?token=hidden",` +
	`"types":["allo.reservation.confirmed"],"secret":"allo/crm"}`

func TestAnInvalidWebhookIsRefusedWithoutItsURL(t *testing.T) {
	t.Parallel()

	with := func(old, replacement string) string {
		return "[" + strings.Replace(webhookText, old, replacement, 1) + "]"
	}
	for value, want := range map[string]string{
		"{":                       "must be a JSON list",
		"[]x":                     "must be a JSON list",
		with(`"name"`, `"label"`): "must be a JSON list",
		"[" + strings.Repeat(webhookText+",", 10) + webhookText + "]": "of at most 10",
		"[" + webhookText + "," + webhookText + "]":                   "element 1 of WEBHOOKS has the name",
		with(`"crm"`, `"CRM"`):                                        "element 0 of WEBHOOKS: name must",
		with(`"crm"`, `""`):                                           "name must",
		with("https:", "http:"):                                       "url must be a URL with https",
		with("https://", "https://u@"):                                "url must",
		with("https://example.com", "https:"):                         "url must",
		with("example.com", "example.com:0"):                          "url must",
		with("example.com", "example.com:65536"):                      "url must",
		with(`"allo/crm"`, `"whsec_hidden"`):                          "not the signing secret",
		with("allo.reservation", "shop"):                              "types must",
		with(`"allo/crm"`, `"a b"`):                                   "secret must",
		with(`"allo/crm"`, `""`):                                      "secret must",
	} {
		_, err := load(env("WEBHOOKS", value))
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hidden") {
			t.Errorf("the error of WEBHOOKS=%s is %v, want one with %q", value, err, want)
		}
	}
}

// queueText is an element of WEBHOOK_QUEUES.
const queueText = `{"name":"crm","url":"https://example.com",` +
	`"queue":"arn:aws:sqs:r:1:allo-prod-webhook-crm.fifo"}`

func TestAnInvalidQueueOfAWebhookIsRefused(t *testing.T) {
	t.Parallel()

	with := func(old, replacement string) string {
		return "[" + strings.Replace(queueText, old, replacement, 1) + "]"
	}
	for value, want := range map[string]string{
		"{": "WEBHOOK_QUEUES must be a JSON list",
		"[" + strings.Repeat(queueText+",", 10) + queueText + "]": "of at most 10",
		"[" + queueText + "," + queueText + "]":                   "has the name of another",
		with(`"crm"`, `"CRM"`):                                    "element 0 of WEBHOOK_QUEUES: name",
		with("example.com", "example.com/hook?token=hidden"):      "url must have no path",
		with("example.com", "example.com?hidden"):                 "url must have no path",
		with("arn:aws:sqs:", "arn:aws:"):                          "queue must be the ARN",
		with("allo-prod", "allo prod"):                            "queue must be the ARN",
	} {
		_, err := load(env("WEBHOOK_QUEUES", value))
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hidden") {
			t.Errorf("the error of WEBHOOK_QUEUES=%s is %v, want one with %q", value, err, want)
		}
	}
}

func TestAnEmptyEnvironmentGivesTheDefaults(t *testing.T) {
	t.Parallel()

	got, err := load(env())
	if err != nil {
		t.Fatal(err)
	}
	want := Config{
		Host: "127.0.0.1", Port: 3000, HoldTTL: 10 * time.Minute, MaxHold: time.Hour,
		MaxPaymentHold: 24 * time.Hour, MaxUnits: 1000, MaxLines: 100,
		SweepInterval: time.Minute, LogLevel: slog.LevelInfo, MetricNamespace: "AlloReservations",
		EventSource: "allo-local", RelaySeconds: 59, ReaderLag: time.Second,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("load() differs (-want +got):\n%s", diff)
	}
}

func TestEveryVariableIsRead(t *testing.T) {
	t.Parallel()

	got, err := load(env(
		"DATABASE_URL", "postgres://u:p@h/d",
		"DATABASE_IAM_URL", "postgres://app@h:5432/d",
		"DATABASE_SECRET", "allo/database",
		"APP_ROLE", "allo_app",
		"MIGRATE", "manual",
		"METRIC_NAMESPACE", "AlloReservations/allo-prod",
		"AWS_REGION", "eu-central-1",
		"AWS_ACCESS_KEY_ID", "id",
		"AWS_SECRET_ACCESS_KEY", "key",
		"AWS_SESSION_TOKEN", "token",
		"AWS_LAMBDA_INITIALIZATION_TYPE", "provisioned-concurrency",
		"AWS_ENDPOINT_URL_SECRETS_MANAGER", "http://localhost:5000",
		"AWS_ENDPOINT_URL", "http://localhost:6000",
		"HOST", "0.0.0.0",
		"PORT", "8080",
		"HOLD_TTL", "30s",
		"MAX_HOLD", "2m",
		"MAX_PAYMENT_HOLD", "168h",
		"MAX_UNITS", "50",
		"MAX_LINES", "7",
		"STOCK_SHOWN", "5",
		"RETENTION_DAYS", "90",
		"DATABASE_READER", "reader.example.com:5432",
		"READER_LAG", "3s",
		"SWEEP_INTERVAL", "5s",
		"LOG_LEVEL", "debug",
		"WEBHOOKS", "["+webhookText+"]",
		"WEBHOOK_QUEUES", "["+queueText+"]",
		"DELIVER_LOG_GROUP", "/aws/lambda/allo-prod-deliver",
		"EVENT_SOURCE", "allo-prod",
		"TOPIC_ARN", "arn:aws:sns:eu-central-1:1:t.fifo",
		"BUS_NAME", "allo-prod",
		"LIVE_URL", "wss://live.example.com/event/realtime",
		"LIVE_HTTP", "https://api.example.com",
		"OUTBOX_FUNCTION", "outbox:live",
		"RELAY_SECONDS", "0",
		"DEMO", "on",
		"GUARDED", "on",
		"OIDC_ISSUER", "https://id.example.com/pool",
		"OIDC_CLIENT_ID", "console",
		"OIDC_TOKEN_ORIGIN", "https://shop.id.example.com",
		"OIDC_AUDIENCE", "https://shop.example.com/api",
		"OIDC_SCOPES", "openid,inventory:read",
		"SMOKE_FUNCTIONS", "reserve="+versionARN("reserve")+",health="+versionARN("health"),
		"SMOKE_AUTH", "jwt",
		"SMOKE_RESERVE_AUTH", "on",
		"STACK_ID", "arn:aws:cloudformation:eu-central-1:123456789012:stack/allo-prod/1-2",
		"PUBLIC_URL", "https://shop.example.com",
		"SYNTHETIC_SKU", "CANARY-1",
		"ORIGIN_SECRETS", firstSecret+","+secondSecret,
	))
	if err != nil {
		t.Fatal(err)
	}
	want := Config{
		DatabaseURL: "postgres://u:p@h/d", Host: "0.0.0.0", Port: 8080, HoldTTL: 30 * time.Second,
		MaxHold: 2 * time.Minute, StockShown: 5, RetentionDays: 90, SweepInterval: 5 * time.Second,
		DatabaseReader: "reader.example.com:5432", ReaderLag: 3 * time.Second,
		MaxPaymentHold: 168 * time.Hour, MaxUnits: 50, MaxLines: 7, LogLevel: slog.LevelDebug,
		DatabaseIAMURL: "postgres://app@h:5432/d", DatabaseSecret: "allo/database",
		AppRole: "allo_app", MigrateByHand: true, Provisioned: true,
		MetricNamespace: "AlloReservations/allo-prod",
		AWS: AWS{
			Region: "eu-central-1", AccessKeyID: "id", SecretAccessKey: "key", SessionToken: "token",
			SecretsEndpoint: "http://localhost:5000", Endpoint: "http://localhost:6000",
		},
		Webhooks: []Webhook{{
			Name: "crm", URL: "https://example.com/hook?token=hidden",
			Types: []string{"allo.reservation.confirmed"}, Secret: "allo/crm",
		}},
		WebhookQueues: []WebhookQueue{{
			Name: "crm", URL: "https://example.com", Queue: "arn:aws:sqs:r:1:allo-prod-webhook-crm.fifo",
		}},
		DeliverLogGroup: "/aws/lambda/allo-prod-deliver",
		EventSource:     "allo-prod",
		TopicARN:        "arn:aws:sns:eu-central-1:1:t.fifo", BusName: "allo-prod",
		OutboxFunction: "outbox:live",
		LiveURL:        "wss://live.example.com/event/realtime", LiveHTTP: "https://api.example.com",
		Pages: Pages{
			Demo: true, Guarded: true, OIDCIssuer: "https://id.example.com/pool",
			OIDCClientID: "console", OIDCTokenOrigin: "https://shop.id.example.com",
			OIDCAudience: "https://shop.example.com/api", OIDCScopes: []string{"openid", "inventory:read"},
		},
		Smoke: Smoke{
			Functions: map[string]string{
				"reserve": versionARN("reserve"), "health": versionARN("health"),
			},
			Auth: "jwt", ReserveAuth: true,
			Stack: "arn:aws:cloudformation:eu-central-1:123456789012:stack/allo-prod/1-2",
			URL:   "https://shop.example.com", SKU: "CANARY-1",
		},
		OriginSecrets: []string{firstSecret, secondSecret},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("load() differs (-want +got):\n%s", diff)
	}
}

// versionARN returns the ARN of a function's version.
func versionARN(function string) string {
	return "arn:aws:lambda:eu-central-1:123456789012:function:allo-prod-" + function + ":7"
}

// documented reads the table in the package's documentation. It returns the default of each
// variable.
func documented(t *testing.T) map[string]string {
	t.Helper()
	source, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	defaults := map[string]string{}
	rows := regexp.MustCompile(`(?m)^//\t([A-Z_]+)  +(\S+)  +\S`)
	for _, row := range rows.FindAllStringSubmatch(string(source), -1) {
		defaults[row[1]] = row[2]
	}
	return defaults
}

func TestTheDocumentationHasEveryVariableAndItsDefault(t *testing.T) {
	t.Parallel()

	var read []string
	unset, err := load(func(name string) string { read = append(read, name); return "" })
	if err != nil {
		t.Fatal(err)
	}
	table := documented(t)
	slices.Sort(read)
	if diff := cmp.Diff(slices.Compact(read), slices.Sorted(maps.Keys(table))); diff != "" {
		t.Errorf("the table's variables differ from those that load() reads (-read +table):\n%s", diff)
	}
	for name, value := range table {
		if value == "-" {
			continue
		}
		got, err := load(env(name, value))
		if diff := cmp.Diff(unset, got); err != nil || diff != "" {
			t.Errorf("%s=%s isn't the default, %v (-default +got):\n%s", name, value, err, diff)
		}
	}
}

func TestTheErrorOfAnInvalidValueNamesItsVariable(t *testing.T) {
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
		{"MAX_PAYMENT_HOLD", "168h0m1s"},
		{"MAX_PAYMENT_HOLD", "0s"},
		{"MAX_PAYMENT_HOLD", "7d"},
		{"MAX_UNITS", "0"},
		{"MAX_UNITS", "100000001"},
		{"MAX_UNITS", "1e3"},
		{"MAX_LINES", "0"},
		{"MAX_LINES", "101"},
		{"STOCK_SHOWN", "0"},
		{"STOCK_SHOWN", "-1"},
		{"STOCK_SHOWN", "1000001"},
		{"STOCK_SHOWN", "5+"},
		{"STOCK_SHOWN", "Exact"},
		{"RETENTION_DAYS", "29"},
		{"RETENTION_DAYS", "-1"},
		{"RETENTION_DAYS", "36501"},
		{"RETENTION_DAYS", "30d"},
		{"READER_LAG", "0s"},
		{"READER_LAG", "11s"},
		{"READER_LAG", "1500ms"},
		{"DATABASE_READER", "reader.example.com"},
		{"SWEEP_INTERVAL", "0s"},
		{"SWEEP_INTERVAL", "61m"},
		{"DATABASE_URL", "postgres://u:secret@h:99999/d"},
		{"DATABASE_URL", "postgres:///d"},
		{"DATABASE_IAM_URL", "postgres://u:secret@h:5432/d"},
		{"DATABASE_IAM_URL", "postgres://u@h:5432/d?password=secret"},
		{"DATABASE_IAM_URL", "postgres://h:5432/d"},
		{"DATABASE_IAM_URL", "postgres://u@h/d"},
		{"DATABASE_IAM_URL", "https://secret"},
		{"DATABASE_SECRET", "a secret's name"},
		{"APP_ROLE", "allo-app"},
		{"APP_ROLE", `a"; DROP`},
		{"MIGRATE", "on"},
		{"AWS_REGION", "eu/../"},
		{"AWS_ENDPOINT_URL", "localhost:5000"},
		{"AWS_ENDPOINT_URL_SECRETS_MANAGER", "ftp://localhost"},
		{"METRIC_NAMESPACE", "a metric"},
		{"EVENT_SOURCE", "allo/prod"},
		{"TOPIC_ARN", "a topic"},
		{"BUS_NAME", "a bus"},
		{"LIVE_URL", "https://live.example.com/event/realtime"},
		{"LIVE_URL", "wss://live.example.com/"},
		{"LIVE_URL", "wss:///event/realtime"},
		{"LIVE_URL", "wss://u:p@live.example.com/event/realtime"},
		{"LIVE_HTTP", "api.example.com"},
		{"LIVE_HTTP", "https://api.example.com/event"},
		{"LIVE_HTTP", "ftp://api.example.com"},
		{"OUTBOX_FUNCTION", "a function"},
		{"RELAY_SECONDS", "-1"},
		{"LOG_LEVEL", "loud"},
		{"LOG_LEVEL", "info+3"},
		{"AUTH", "JWT"},
		{"RESERVE_AUTH", "yes"},
		{"RESERVE_AUTH", "on"}, // with AUTH=none
		{"JWT_ISSUER", "https://id.example"},
		{"JWT_AUDIENCE", "shop"},
		{"IAM_ACCESS_KEY_ID", "AKIATEST"},
		{"IAM_SECRET_ACCESS_KEY", "hidden"},
		{"DEMO", "yes"},
		{"GUARDED", "true"},
		{"OIDC_ISSUER", "http://id.example"},
		{"OIDC_ISSUER", "https://id.example"}, // without a client
		{"OIDC_CLIENT_ID", "console"},         // without an issuer
		{"OIDC_CLIENT_ID", "a client"},
		{"OIDC_TOKEN_ORIGIN", "https://token.example"}, // without an issuer
		{"OIDC_TOKEN_ORIGIN", "https://token.example/path"},
		{"OIDC_TOKEN_ORIGIN", "http://token.example"},
		{"OIDC_AUDIENCE", "shop"}, // without an issuer
		{"OIDC_AUDIENCE", "a shop"},
		{"OIDC_AUDIENCE", strings.Repeat("x", maxAudience+1)},
		{"OIDC_SCOPES", "openid"}, // without an issuer
		{"OIDC_SCOPES", "inventory:read"},
		{"OIDC_SCOPES", "openid inventory:read"},
		{"OIDC_SCOPES", "openid,,inventory:read"},
	} {
		_, err := load(env(c.name, c.value))
		if err == nil || !strings.Contains(err.Error(), c.name) {
			t.Errorf("load() with %s=%q = %v, want an error that names it", c.name, c.value, err)
		}
		if err != nil && strings.HasSuffix(c.name, "_URL") && c.name != "AWS_ENDPOINT_URL" &&
			strings.Contains(err.Error(), "secret") {
			t.Errorf("the error of load() with %s contains its value: %v", c.name, err)
		}
	}
}

func TestTheErrorNamesEveryInvalidVariable(t *testing.T) {
	t.Parallel()

	_, err := load(env("PORT", "x", "HOLD_TTL", "y"))
	if err == nil || !strings.Contains(err.Error(), "PORT") ||
		!strings.Contains(err.Error(), "HOLD_TTL") {
		t.Errorf("load() = %v, want PORT and HOLD_TTL named", err)
	}
}

func TestALambdaNeedsADatabaseAndItsCredentials(t *testing.T) {
	t.Parallel()

	account := AWS{Region: "eu-central-1", AccessKeyID: "id", SecretAccessKey: "key"}
	for _, c := range []struct {
		config Config
		want   []string
	}{
		{Config{DatabaseURL: "postgres://u:p@h/d"}, nil},
		{Config{DatabaseIAMURL: "postgres://u@h:5432/d", AWS: account}, nil},
		{Config{DatabaseSecret: "s", AWS: account}, nil},
		{Config{}, []string{"DATABASE_URL", "DATABASE_IAM_URL", "DATABASE_SECRET"}},
		{
			Config{DatabaseSecret: "s"},
			[]string{"AWS_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"},
		},
		{
			Config{
				DatabaseIAMURL: "postgres://u@h:5432/d", AWS: AWS{Region: "r", AccessKeyID: "id"},
			},
			[]string{"AWS_SECRET_ACCESS_KEY"},
		},
	} {
		err := c.config.checkDatabase()
		if (err != nil) != (c.want != nil) {
			t.Errorf("checkDatabase() of %+v = %v, want an error: %t", c.config, err, c.want != nil)
		}
		for _, name := range c.want {
			if err == nil || !strings.Contains(err.Error(), name) {
				t.Errorf("checkDatabase() of %+v = %v, want it to name %s", c.config, err, name)
			}
		}
	}
}

// A setting reaches a function through its environment. One that isn't set leaves the default.
func TestTheEnvironmentOfAFunctionHasTheSettings(t *testing.T) {
	t.Parallel()

	want, err := load(env("MAX_PAYMENT_HOLD", "2h", "MAX_UNITS", "50", "MAX_LINES", "7",
		"STOCK_SHOWN", "5", "HOLD_TTL", "30s", "DEMO", "on", "GUARDED", "on",
		"OIDC_ISSUER", "https://id.example.com", "OIDC_CLIENT_ID", "console",
		"OIDC_TOKEN_ORIGIN", "https://token.example.com", "OIDC_AUDIENCE", "shop",
		"OIDC_SCOPES", "openid,inventory:read", "ORIGIN_SECRETS", firstSecret))
	if err != nil {
		t.Fatal(err)
	}
	unset := want
	unset.MaxPaymentHold, unset.MaxUnits, unset.MaxLines = 0, 0, 0
	defaults := want
	defaults.MaxPaymentHold, defaults.MaxUnits, defaults.MaxLines = 24*time.Hour, 1000, 100
	for _, c := range []struct{ config, want Config }{{want, want}, {unset, defaults}} {
		var pairs []string
		for _, variable := range c.config.Environ() {
			name, value, _ := strings.Cut(variable, "=")
			pairs = append(pairs, name, value)
		}
		got, err := load(env(pairs...))
		if diff := cmp.Diff(c.want, got); err != nil || diff != "" {
			t.Errorf("the settings of the function differ, %v (-want +got):\n%s", err, diff)
		}
	}
}
