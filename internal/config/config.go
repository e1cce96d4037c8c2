package config

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"
)

// The bounds of the settings. With them a typing error stops the start.
const (
	// holdLimit is the longest MAX_HOLD. A longer hold takes stock out of the shop.
	holdLimit = 24 * time.Hour
	// paymentLimit is the longest MAX_PAYMENT_HOLD.
	paymentLimit = 7 * 24 * time.Hour
	// unitsLimit and linesLimit are the largest MAX_UNITS and MAX_LINES: no hold can have more.
	unitsLimit, linesLimit = 100_000_000, 100
	// sweepLimit is the longest SWEEP_INTERVAL. Dead holds are stored as PENDING for as long.
	sweepLimit = time.Hour
	// lagLimit is the longest READER_LAG. The console asks the writer for as long after a change of
	// its own (FRESH_FOR in internal/webui/static/assets/api.js).
	lagLimit = 10 * time.Second
	// shownLimit is the largest STOCK_SHOWN: the most units of one line of a hold.
	shownLimit = 1_000_000
	// The bounds of RETENTION_DAYS, unless it is 0. The keys of a day and the movements of an audit
	// are far younger than 30 days.
	leastRetention, mostRetention = 30, 36500
)

// Config has the values of the environment variables. The package's table has their meaning.
type Config struct {
	// DatabaseURL is a postgres:// URL. When it is empty, a Lambda uses DatabaseIAMURL, then
	// DatabaseSecret, and refuses to start without any. The local program knows only DatabaseURL,
	// and starts a server of its own when it is empty.
	DatabaseURL string
	// DatabaseIAMURL is a postgres:// URL without a password.
	DatabaseIAMURL string
	// DatabaseSecret is the name or the ARN of a secret of Secrets Manager with the URL.
	DatabaseSecret string
	// DatabaseReader is the host and the port of a server that follows the database, or empty. The
	// catalog, the operator's reads and the audit go there, with the user and the settings of the
	// database's own URL.
	DatabaseReader string
	// ReaderLag is how far that server may be behind. When it is further behind, the catalog and the
	// operator's reads go where the other calls do.
	ReaderLag time.Duration
	// AppRole is the role of the service when the migrations run as another role. The migrate
	// function grants it its rights. Empty means that both are one role.
	AppRole string
	// MigrateByHand makes the migrate function apply a release's versioned files only when it is
	// asked to, and not in a deploy.
	MigrateByHand bool
	// Provisioned says that Lambda started this environment before a call needs it.
	Provisioned bool
	// AWS has the Lambda's region and credentials.
	AWS AWS
	// Host and Port are where the local program listens.
	Host string
	Port int
	// HoldTTL is how long a hold lasts when the request doesn't say.
	HoldTTL time.Duration
	// MaxHold is the longest that a hold may last, extensions included.
	MaxHold time.Duration
	// MaxPaymentHold is the longest that a hold may last while it is being paid.
	MaxPaymentHold time.Duration
	// MaxUnits is the most units of a hold, and MaxLines the most lines.
	MaxUnits, MaxLines int
	// StockShown is the most units that the open catalog shows of a stock row, or zero when it shows
	// the exact figures.
	StockShown int
	// RetentionDays is how long resolved holds and movements stay before they move to the archive, or
	// zero when they stay for ever.
	RetentionDays int
	// SweepInterval is how often the local program sweeps. On AWS the EventBridge rule decides.
	SweepInterval time.Duration
	// Auth has the settings of the local gateway's authorizer.
	Auth Auth
	// Pages has the settings of the pages.
	Pages Pages
	// LogLevel is the lowest level that is logged.
	LogLevel slog.Level
	// MetricNamespace is the CloudWatch namespace of the service's metrics.
	MetricNamespace string
	// EventSource names the deployment in the events.
	EventSource string
	// TopicARN and BusName are where the relay publishes. Each may be empty.
	TopicARN, BusName string
	// LiveURL is the WebSocket of the live channel, and LiveHTTP the URL of its HTTP endpoint, to
	// which the relay publishes. A deployment without a live channel has neither.
	LiveURL, LiveHTTP string
	// OutboxFunction is the function that the relay asks for events.
	OutboxFunction string
	// RelaySeconds is how long a run of the relay goes on, or zero when it ends as soon as nothing is
	// left.
	RelaySeconds int
	// Webhooks are the endpoints to which the deliver function posts events.
	Webhooks []Webhook
	// WebhookQueues are the webhooks that an operator sees, with their queues.
	WebhookQueues []WebhookQueue
	// DeliverLogGroup is the log group of the deliver function, or empty.
	DeliverLogGroup string
	// Smoke has the settings of the smoke function.
	Smoke Smoke
	// OriginSecrets are the secrets that the CDN may show. Without any, callers may go around it.
	OriginSecrets []string
}

// AWS is the region and the credentials of a Lambda. Lambda sets all but the endpoint.
type AWS struct {
	Region, AccessKeyID, SecretAccessKey, SessionToken string
	// SecretsEndpoint is the URL of Secrets Manager, or empty for the region's own. Tests set it.
	SecretsEndpoint string
	// Endpoint is the URL of the services of the relay and of deliver, or empty for the region's own.
	// Tests set it.
	Endpoint string
}

// Load reads the environment. Its error names each invalid variable and the valid values.
func Load() (Config, error) { return load(os.Getenv) }

// LoadWithoutAuth is Load for a program that has no gateway. It doesn't read the settings of the
// authorizer, which may be set for another program, and leaves Auth empty.
func LoadWithoutAuth() (Config, error) {
	r := reader{getenv: os.Getenv}
	c := r.config()
	return c, errors.Join(r.errs...)
}

// Start reads the environment for a Lambda and makes its log. It logs the error and ends the
// process when a variable is invalid, or when the function needs a database and none is named.
func Start(needsDatabase bool) (Config, *slog.Logger) {
	c, err := Load()
	log := c.Logger()
	if err == nil && needsDatabase {
		err = c.checkDatabase()
	}
	if err != nil {
		log.Error("can't start", "error", err.Error())
		os.Exit(1)
	}
	return c, log
}

// checkDatabase checks that one of the three variables names a database. DatabaseIAMURL and
// DatabaseSecret also need the region and the credentials.
func (c Config) checkDatabase() error {
	if c.DatabaseURL != "" {
		return nil
	}
	if c.DatabaseIAMURL == "" && c.DatabaseSecret == "" {
		return errors.New(
			"none of DATABASE_URL, DATABASE_IAM_URL and DATABASE_SECRET is set; set one of them")
	}
	var errs []error
	for name, value := range map[string]string{
		"AWS_REGION": c.AWS.Region, "AWS_ACCESS_KEY_ID": c.AWS.AccessKeyID,
		"AWS_SECRET_ACCESS_KEY": c.AWS.SecretAccessKey,
	} {
		if value == "" {
			errs = append(errs, fmt.Errorf("%s is not set; DATABASE_IAM_URL and DATABASE_SECRET "+
				"need it, and Lambda sets it", name))
		}
	}
	return errors.Join(errs...)
}

// Logger makes the service's log: lines of JSON on standard output, where Lambda collects them.
func (c Config) Logger() *slog.Logger {
	return slog.New(slog.NewJSONHandler(os.Stdout, &slog.HandlerOptions{Level: c.LogLevel}))
}

// Check checks the variables that a deploy would set. It returns Load's error.
func Check(variables map[string]string) error {
	_, err := load(func(name string) string { return variables[name] })
	return err
}

func load(getenv func(string) string) (Config, error) {
	r := reader{getenv: getenv}
	c := r.config()
	c.Auth = r.auth()
	return c, errors.Join(r.errs...)
}

// config reads all settings but those of the authorizer.
func (r *reader) config() Config {
	c := Config{
		DatabaseURL:    r.databaseURL("DATABASE_URL"),
		DatabaseIAMURL: r.iamURL("DATABASE_IAM_URL"),
		DatabaseSecret: r.matching("DATABASE_SECRET", secretID,
			"the name or the ARN of a secret of Secrets Manager"),
		DatabaseReader: r.address("DATABASE_READER"),
		ReaderLag:      r.duration("READER_LAG", time.Second, lagLimit),
		AppRole: r.matching("APP_ROLE", roleName,
			"the name of a role in lower case, such as allo_app"),
		MigrateByHand: r.oneOf("MIGRATE", "deploy", "manual") == "manual",
		Provisioned:   r.getenv("AWS_LAMBDA_INITIALIZATION_TYPE") == "provisioned-concurrency",
		AWS: AWS{
			Region:          r.matching("AWS_REGION", regionName, "a region of AWS, such as eu-central-1"),
			AccessKeyID:     r.getenv("AWS_ACCESS_KEY_ID"),
			SecretAccessKey: r.getenv("AWS_SECRET_ACCESS_KEY"),
			SessionToken:    r.getenv("AWS_SESSION_TOKEN"),
			SecretsEndpoint: r.endpoint("AWS_ENDPOINT_URL_SECRETS_MANAGER", "AWS_ENDPOINT_URL"),
			Endpoint:        r.endpoint("AWS_ENDPOINT_URL"),
		},
		Host:          r.host("HOST", "127.0.0.1"),
		Port:          r.integer("PORT", 3000, 1, 65535),
		HoldTTL:       r.duration("HOLD_TTL", 10*time.Minute, holdLimit),
		MaxHold:       r.duration("MAX_HOLD", time.Hour, holdLimit),
		MaxUnits:      r.integer("MAX_UNITS", 1000, 1, unitsLimit),
		MaxLines:      r.integer("MAX_LINES", linesLimit, 1, linesLimit),
		StockShown:    r.stockShown("STOCK_SHOWN"),
		RetentionDays: r.retention("RETENTION_DAYS"),
		SweepInterval: r.duration("SWEEP_INTERVAL", time.Minute, sweepLimit),
		LogLevel:      r.level("LOG_LEVEL", slog.LevelInfo),

		MaxPaymentHold: r.duration("MAX_PAYMENT_HOLD", 24*time.Hour, paymentLimit),

		MetricNamespace: r.matching("METRIC_NAMESPACE", namespace,
			"a name of letters, digits and ./-_#"),
		EventSource:    r.matching("EVENT_SOURCE", stackName, "a name of letters, digits and hyphens"),
		TopicARN:       r.matching("TOPIC_ARN", resource, "the ARN of a topic"),
		BusName:        r.matching("BUS_NAME", resource, "the name or the ARN of a bus"),
		LiveURL:        r.url("LIVE_URL", "wss", "ws", "/event/realtime"),
		LiveHTTP:       r.url("LIVE_HTTP", "https", "http", ""),
		OutboxFunction: r.matching("OUTBOX_FUNCTION", resource, "the name or the ARN of a function"),
		RelaySeconds:   r.integer("RELAY_SECONDS", 59, 0, 800),
		Webhooks:       r.webhooks("WEBHOOKS"),
		WebhookQueues:  r.webhookQueues("WEBHOOK_QUEUES"),
		DeliverLogGroup: r.matching("DELIVER_LOG_GROUP", logGroup,
			"the name of a log group of CloudWatch"),
		OriginSecrets: r.originSecrets("ORIGIN_SECRETS"),
		Pages:         r.pages(),
		Smoke:         r.smoke(),
	}
	if c.EventSource == "" {
		c.EventSource = defaultSource
	}
	if c.MetricNamespace == "" {
		c.MetricNamespace = defaultNamespace
	}
	if len(r.errs) == 0 && c.HoldTTL > c.MaxHold {
		r.errs = append(r.errs,
			fmt.Errorf("HOLD_TTL is %s, which is longer than MAX_HOLD, %s", c.HoldTTL, c.MaxHold))
	}
	return c
}

// reader collects the errors, so that one start names every invalid variable.
type reader struct {
	getenv func(string) string
	errs   []error
}

func (r *reader) bad(name, value, want string) {
	r.errs = append(r.errs, fmt.Errorf("%s is %q; it must be %s", name, value, want))
}

// duration reads whole seconds, at least one.
func (r *reader) duration(name string, fallback, most time.Duration) time.Duration {
	value := r.getenv(name)
	if value == "" {
		return fallback
	}
	d, err := time.ParseDuration(value)
	if err != nil || d < time.Second || d > most {
		r.bad(name, value,
			fmt.Sprintf("a duration from %s to %s, such as %s", time.Second, most, fallback))
		return fallback
	}
	if d%time.Second != 0 {
		r.bad(name, value, "a whole number of seconds")
	}
	return d
}

func (r *reader) integer(name string, fallback, least, most int) int {
	value := r.getenv(name)
	if value == "" {
		return fallback
	}
	n, err := strconv.Atoi(value)
	if err != nil || n < least || n > most {
		r.bad(name, value, fmt.Sprintf("a number from %d to %d", least, most))
		return fallback
	}
	return n
}

// exactStock is the value of STOCK_SHOWN that shows all figures.
const exactStock = "exact"

// stockShown returns zero for exactStock.
func (r *reader) stockShown(name string) int {
	value := r.getenv(name)
	if value == "" || value == exactStock {
		return 0
	}
	n, err := strconv.Atoi(value)
	if err != nil || n < 1 || n > shownLimit {
		r.bad(name, value, fmt.Sprintf("%s or a number from 1 to %d", exactStock, shownLimit))
		return 0
	}
	return n
}

// retention returns zero for 0, which archives nothing.
func (r *reader) retention(name string) int {
	value := r.getenv(name)
	if value == "" || value == "0" {
		return 0
	}
	n, err := strconv.Atoi(value)
	if err != nil || n < leastRetention || n > mostRetention {
		r.bad(name, value,
			fmt.Sprintf("0 or a number of days from %d to %d", leastRetention, mostRetention))
		return 0
	}
	return n
}

func (r *reader) host(name, fallback string) string {
	value := r.getenv(name)
	if value == "" {
		return fallback
	}
	if _, err := url.Parse("http://" + net.JoinHostPort(value, "1")); err != nil {
		r.bad(name, value, "a host name or an IP address")
	}
	return value
}

// address reads an optional host and port.
func (r *reader) address(name string) string {
	value := r.getenv(name)
	if value == "" {
		return ""
	}
	host, port, err := net.SplitHostPort(value)
	if n, portErr := strconv.ParseUint(port, 10, 16); err != nil || portErr != nil || n == 0 ||
		host == "" || strings.ContainsAny(host, "/@?#, ") {
		r.bad(name, value, "a host and a port, such as reader.example.com:5432")
	}
	return value
}

func (r *reader) level(name string, fallback slog.Level) slog.Level {
	value := r.getenv(name)
	if value == "" {
		return fallback
	}
	levels := map[string]slog.Level{
		"debug": slog.LevelDebug,
		"info":  slog.LevelInfo,
		"warn":  slog.LevelWarn,
		"error": slog.LevelError,
	}
	level, ok := levels[strings.ToLower(value)]
	if !ok {
		r.bad(name, value, "debug, info, warn or error")
		return fallback
	}
	return level
}

// databaseURL checks only the form. Its error doesn't repeat the value, which has a password.
func (r *reader) databaseURL(name string) string {
	value := r.getenv(name)
	if value == "" {
		return ""
	}
	u, err := url.Parse(value)
	bad := err != nil || (u.Scheme != "postgres" && u.Scheme != "postgresql") ||
		(u.Host == "" && !u.Query().Has("host"))
	if !bad && u.Port() != "" {
		port, err := strconv.Atoi(u.Port())
		bad = err != nil || port < 1 || port > 65535
	}
	if bad {
		r.errs = append(r.errs, fmt.Errorf("%s must be a URL such as "+
			"postgres://user:password@host:5432/database", name))
	}
	return value
}

// iamURL also checks that there is a user, a host and a port, for which the token is made, and no
// password, because the token takes its place.
func (r *reader) iamURL(name string) string {
	value := r.databaseURL(name)
	u, err := url.Parse(value)
	if value == "" || err != nil {
		return value // empty, or reported already
	}
	_, hasPassword := u.User.Password()
	if hasPassword || u.Query().Has("password") || u.User.Username() == "" || u.Hostname() == "" ||
		u.Port() == "" {
		r.errs = append(r.errs, fmt.Errorf("%s must have a user, a host and a port, and no "+
			"password: postgres://user@host:5432/database", name))
	}
	return value
}

// defaultNamespace is the default of METRIC_NAMESPACE. The stack sets another one, which ends in
// the stack's name.
const defaultNamespace = "AlloReservations"

// defaultSource is the default of EVENT_SOURCE. The stack sets its own name.
const defaultSource = "allo-local"

// shape limits a value to a length and to ASCII letters, digits and some other characters. A
// regular expression would add two milliseconds to every start (measured).
type shape struct {
	length int
	upper  bool   // whether capital letters may occur
	others string // the other characters that may occur
}

// The shapes of the names that are sent to AWS and to Postgres. Each allows every valid name.
var (
	secretID   = shape{length: 1000, upper: true, others: "/_+=.@:-"}
	roleName   = shape{length: 63, others: "_"}
	regionName = shape{length: 64, others: "-"}
	namespace  = shape{length: 255, upper: true, others: "./_#-"}
	stackName  = shape{length: 128, upper: true, others: "-"}
	resource   = shape{length: 512, upper: true, others: ":/._$-"}
	logGroup   = shape{length: 512, upper: true, others: "/._#-"}
)

func (s shape) fits(value string) bool {
	for _, c := range []byte(value) {
		ok := 'a' <= c && c <= 'z' || '0' <= c && c <= '9' || s.upper && 'A' <= c && c <= 'Z' ||
			strings.IndexByte(s.others, c) >= 0
		if !ok {
			return false
		}
	}
	return len(value) <= s.length
}

func (r *reader) matching(name string, shape shape, want string) string {
	value := r.getenv(name)
	if value != "" && !shape.fits(value) {
		r.bad(name, value, want)
	}
	return value
}

// endpoint reads the first of the variables that is set, like AWS's own libraries.
func (r *reader) endpoint(names ...string) string {
	for _, name := range names {
		value := r.getenv(name)
		if value == "" {
			continue
		}
		if u, err := url.Parse(value); err != nil || (u.Scheme != "http" && u.Scheme != "https") ||
			u.Host == "" {
			r.bad(name, value, "a URL such as http://localhost:5000")
		}
		return value
	}
	return ""
}

// url reads an optional URL of one of two schemes, with a host and this path, and nothing else.
func (r *reader) url(name, scheme, local, path string) string {
	value := r.getenv(name)
	if value == "" {
		return ""
	}
	u, err := url.Parse(value)
	if err != nil || u.Scheme != scheme && u.Scheme != local || u.Hostname() == "" ||
		u.String() != u.Scheme+"://"+u.Host+path {
		r.bad(name, value, fmt.Sprintf("a URL such as %s://example.com%s", scheme, path))
	}
	return value
}

// Environ returns the environment for a function that runs on this machine.
func (c Config) Environ() []string {
	shown := exactStock
	if c.StockShown > 0 {
		shown = strconv.Itoa(c.StockShown)
	}
	return append([]string{
		"DATABASE_URL=" + c.DatabaseURL,
		"HOLD_TTL=" + c.HoldTTL.String(),
		"MAX_HOLD=" + c.MaxHold.String(),
		"MAX_PAYMENT_HOLD=" + orDefault(c.MaxPaymentHold.String(), c.MaxPaymentHold == 0),
		"MAX_UNITS=" + orDefault(strconv.Itoa(c.MaxUnits), c.MaxUnits == 0),
		"MAX_LINES=" + orDefault(strconv.Itoa(c.MaxLines), c.MaxLines == 0),
		"STOCK_SHOWN=" + shown,
		"RETENTION_DAYS=" + strconv.Itoa(c.RetentionDays),
		"LOG_LEVEL=" + c.LogLevel.String(),
		"EVENT_SOURCE=" + c.EventSource,
		"LIVE_URL=" + c.LiveURL,
		"LIVE_HTTP=" + c.LiveHTTP,
		"ORIGIN_SECRETS=" + strings.Join(c.OriginSecrets, ","),
	}, c.Pages.environ()...)
}

// orDefault returns a variable's value, or empty where it isn't set: the function then has its
// default.
func orDefault(value string, unset bool) string {
	if unset {
		return ""
	}
	return value
}
