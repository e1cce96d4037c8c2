// Package config is every environment variable that the service reads, with its default and its check. Nothing else reads the
// environment, so the README's table and this file are the whole truth.
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

// Bounds of the settings, so that a typing error stops the start instead of the shop.
const (
	// holdLimit is the longest MAX_HOLD: a hold that outlives a day is stock taken out of the shop.
	holdLimit = 24 * time.Hour
	// sweepLimit is the longest SWEEP_INTERVAL: the sweep is bookkeeping, but reports lag behind by as much.
	sweepLimit = time.Hour
)

// Config is what the environment says.
type Config struct {
	// DatabaseURL is a postgres:// URL. Where it is empty a Lambda asks DatabaseIAMURL, then DatabaseSecret, and refuses to start
	// when they are empty too. The local program knows only this one, and starts a server of its own when it is empty.
	DatabaseURL string
	// DatabaseIAMURL is a postgres:// URL without a password, which is made of AWS for each new connection.
	DatabaseIAMURL string
	// DatabaseSecret is the name or the ARN of a secret of Secrets Manager that holds the URL.
	DatabaseSecret string
	// AppRole is the role that the service connects as, where the migrations are another's: what it may do is granted to it by
	// the migrate function. Empty means that both are one role.
	AppRole string
	// AWS is what a call of AWS takes.
	AWS AWS
	// Host and Port are where the local program listens.
	Host string
	Port int
	// HoldTTL is how long a hold lasts that doesn't say how long.
	HoldTTL time.Duration
	// MaxHold is the longest that a hold may last, extensions included.
	MaxHold time.Duration
	// SweepInterval is how often the local program sweeps. In the cloud the EventBridge rule decides.
	SweepInterval time.Duration
	// LogLevel is the least level that is logged.
	LogLevel slog.Level
	// MetricNamespace is where CloudWatch keeps the service's metrics.
	MetricNamespace string
}

// AWS is where a Lambda runs and as whom, as its environment says. Lambda sets all but the endpoint.
type AWS struct {
	Region, AccessKeyID, SecretAccessKey, SessionToken string
	// SecretsEndpoint is where Secrets Manager is asked, when it isn't the region's own: a double of AWS on this machine.
	SecretsEndpoint string
}

// Load reads the environment. Its error names each variable that is wrong, and says what would be right.
func Load() (Config, error) { return load(os.Getenv) }

// Start reads the environment for a Lambda and makes its log. Where a variable is wrong the process ends, with a line that says
// which; so it does when the function can't do without a database and none is named.
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

// checkDatabase looks whether there is a database, and what it takes to reach it. AWS is asked only where DATABASE_URL is empty.
func (c Config) checkDatabase() error {
	if c.DatabaseURL != "" {
		return nil
	}
	if c.DatabaseIAMURL == "" && c.DatabaseSecret == "" {
		return errors.New("none of DATABASE_URL, DATABASE_IAM_URL and DATABASE_SECRET is set; set one of them")
	}
	var errs []error
	for name, value := range map[string]string{
		"AWS_REGION": c.AWS.Region, "AWS_ACCESS_KEY_ID": c.AWS.AccessKeyID, "AWS_SECRET_ACCESS_KEY": c.AWS.SecretAccessKey,
	} {
		if value == "" {
			errs = append(errs, fmt.Errorf("%s is not set, and DATABASE_IAM_URL and DATABASE_SECRET need it; a Lambda's environment has it", name))
		}
	}
	return errors.Join(errs...)
}

// Logger makes the service's log: JSON, a line an event, on standard output, where Lambda collects it.
func (c Config) Logger() *slog.Logger {
	return slog.New(slog.NewJSONHandler(os.Stdout, &slog.HandlerOptions{Level: c.LogLevel}))
}

// Check looks whether a function could start with these variables, for whoever sets them: its error is Load's.
func Check(variables map[string]string) error {
	_, err := load(func(name string) string { return variables[name] })
	return err
}

func load(getenv func(string) string) (Config, error) {
	r := reader{getenv: getenv}
	c := Config{
		DatabaseURL:    r.databaseURL("DATABASE_URL"),
		DatabaseIAMURL: r.iamURL("DATABASE_IAM_URL"),
		DatabaseSecret: r.matching("DATABASE_SECRET", secretID, "the name or the ARN of a secret of Secrets Manager"),
		AppRole:        r.matching("APP_ROLE", roleName, "the name of a role in lower case, such as allo_app"),
		AWS: AWS{
			Region:          r.matching("AWS_REGION", regionName, "a region of AWS, such as eu-central-1"),
			AccessKeyID:     getenv("AWS_ACCESS_KEY_ID"),
			SecretAccessKey: getenv("AWS_SECRET_ACCESS_KEY"),
			SessionToken:    getenv("AWS_SESSION_TOKEN"),
			SecretsEndpoint: r.endpoint("AWS_ENDPOINT_URL_SECRETS_MANAGER", "AWS_ENDPOINT_URL"),
		},
		Host:          r.host("HOST", "127.0.0.1"),
		Port:          r.integer("PORT", 3000, 1, 65535),
		HoldTTL:       r.duration("HOLD_TTL", 10*time.Minute, time.Second, holdLimit),
		MaxHold:       r.duration("MAX_HOLD", time.Hour, time.Second, holdLimit),
		SweepInterval: r.duration("SWEEP_INTERVAL", time.Minute, time.Second, sweepLimit),
		LogLevel:      r.level("LOG_LEVEL", slog.LevelInfo),

		MetricNamespace: r.matching("METRIC_NAMESPACE", namespace, "a name of letters, digits and ./-_#"),
	}
	if c.MetricNamespace == "" {
		c.MetricNamespace = defaultNamespace
	}
	if len(r.errs) == 0 && c.HoldTTL > c.MaxHold {
		r.errs = append(r.errs, fmt.Errorf("HOLD_TTL is %s, which is longer than MAX_HOLD, %s", c.HoldTTL, c.MaxHold))
	}
	return c, errors.Join(r.errs...)
}

// reader collects what is wrong, so that one start names every bad variable.
type reader struct {
	getenv func(string) string
	errs   []error
}

func (r *reader) bad(name, value, want string) {
	r.errs = append(r.errs, fmt.Errorf("%s is %q; it must be %s", name, value, want))
}

func (r *reader) duration(name string, fallback, least, most time.Duration) time.Duration {
	value := r.getenv(name)
	if value == "" {
		return fallback
	}
	d, err := time.ParseDuration(value)
	if err != nil || d < least || d > most {
		r.bad(name, value, fmt.Sprintf("a duration from %s to %s, such as %s", least, most, fallback))
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

func (r *reader) level(name string, fallback slog.Level) slog.Level {
	value := r.getenv(name)
	if value == "" {
		return fallback
	}
	levels := map[string]slog.Level{"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError}
	level, ok := levels[strings.ToLower(value)]
	if !ok {
		r.bad(name, value, "debug, info, warn or error")
		return fallback
	}
	return level
}

// databaseURL checks the shape only, and never repeats the value: it holds a password.
func (r *reader) databaseURL(name string) string {
	value := r.getenv(name)
	if value == "" {
		return ""
	}
	u, err := url.Parse(value)
	bad := err != nil || (u.Scheme != "postgres" && u.Scheme != "postgresql") || (u.Host == "" && !u.Query().Has("host"))
	if !bad && u.Port() != "" {
		port, err := strconv.Atoi(u.Port())
		bad = err != nil || port < 1 || port > 65535
	}
	if bad {
		r.errs = append(r.errs, fmt.Errorf("%s must be a URL such as postgres://user:password@host:5432/database", name))
	}
	return value
}

// iamURL checks what goes beyond databaseURL: the token is made for a user and a host, and stands where a password would.
func (r *reader) iamURL(name string) string {
	value := r.databaseURL(name)
	u, err := url.Parse(value)
	if value == "" || err != nil {
		return value // none, or told already
	}
	_, hasPassword := u.User.Password()
	if hasPassword || u.Query().Has("password") || u.User.Username() == "" || u.Hostname() == "" || u.Port() == "" {
		r.errs = append(r.errs, fmt.Errorf("%s must name the user, the host and the port, and no password: postgres://user@host:5432/database", name))
	}
	return value
}

// defaultNamespace is where the metrics are unless METRIC_NAMESPACE says otherwise. The stack puts its own name behind it.
const defaultNamespace = "AlloReservations"

// shape is what a value is made of: at most so many ASCII letters and digits, and what else may be among them. It is no regular expression, whose
// compiling was measured at two milliseconds of every start.
type shape struct {
	most    int
	upper   bool
	between string
}

// The shapes of what is sent to AWS and to Postgres. Each is wider than any name that exists.
var (
	secretID   = shape{most: 1000, upper: true, between: "/_+=.@:-"}
	roleName   = shape{most: 63, between: "_"}
	regionName = shape{most: 64, between: "-"}
	namespace  = shape{most: 255, upper: true, between: "./_#-"}
)

func (s shape) fits(value string) bool {
	for _, c := range []byte(value) {
		ok := 'a' <= c && c <= 'z' || '0' <= c && c <= '9' || s.upper && 'A' <= c && c <= 'Z' || strings.IndexByte(s.between, c) >= 0
		if !ok {
			return false
		}
	}
	return len(value) <= s.most
}

func (r *reader) matching(name string, shape shape, want string) string {
	value := r.getenv(name)
	if value != "" && !shape.fits(value) {
		r.bad(name, value, want)
	}
	return value
}

// endpoint reads the first of the variables that is set, as AWS's own libraries do.
func (r *reader) endpoint(names ...string) string {
	for _, name := range names {
		value := r.getenv(name)
		if value == "" {
			continue
		}
		if u, err := url.Parse(value); err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
			r.bad(name, value, "a URL such as http://localhost:5000")
		}
		return value
	}
	return ""
}

// Environ is the configuration as the environment of a function that runs on this machine.
func (c Config) Environ() []string {
	return []string{
		"DATABASE_URL=" + c.DatabaseURL,
		"HOLD_TTL=" + c.HoldTTL.String(),
		"MAX_HOLD=" + c.MaxHold.String(),
		"LOG_LEVEL=" + c.LogLevel.String(),
	}
}
