package main

import (
	"errors"
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/aws/aws-cdk-go/awscdk/v2/awslogs"

	"github.com/allo/reservations/internal/config"
)

// Settings are what a deploy may choose, by `-c key=value` or in cdk.json's context: checked, with every default filled in.
type Settings struct {
	// Name and Env name everything: the stack is NAME-ENV, a function NAME-ENV-reserve.
	Name, Env string
	// Stage is what the environments differ in.
	Stage Stage

	// Aurora says whether the stack has a database of its own. Otherwise SecretName names the secret with the URL of one that exists.
	Aurora     bool
	Proxy      bool
	MaxACU     float64
	SecretName string
	// MigrateSecretName is the secret with the migration's URL, and AppRole whom it grants what the service uses, where these differ.
	MigrateSecretName, AppRole string

	// Arch is what the functions are built for: arm64 or x86_64.
	Arch string
	// HoldTTL and MaxHold are handed to the functions, which check them; empty leaves their defaults.
	HoldTTL, MaxHold string

	Auth                   Auth
	JWTIssuer, JWTAudience string

	Sweeper bool
	// SweeperConcurrency is the sweeper's reserved concurrency, 0 for none: reserving any fails on an account whose quota is 10.
	SweeperConcurrency int

	// ThrottleRate is how many requests a second the gateway lets through, ThrottleBurst how many at once.
	ThrottleRate, ThrottleBurst int
	CORSOrigins                 []string
	Domain                      *Domain

	// AlarmEmail is subscribed to the alarms' topic, when it isn't empty.
	AlarmEmail          string
	Owner, CostCentre   string
	PermissionsBoundary string
}

// Auth is how the gateway tells the payment side from a shopper. Routes that have a scope in the route table are the former's.
type Auth string

// The ways. None is for demonstrations: anyone may confirm a hold that nobody paid for.
const (
	AuthNone Auth = "none"
	AuthJWT  Auth = "jwt"
	AuthIAM  Auth = "iam"
)

// Domain is a name of one's own for the API. Its certificate and its zone exist already.
type Domain struct{ Name, CertificateARN, ZoneID, ZoneName string }

// Stage is what dev and prod differ in.
type Stage struct {
	// Protected keeps data when the stack is deleted, and the stack from being deleted.
	Protected bool
	// Reader is a second instance in another zone, which takes over when the writer's is lost.
	Reader bool
	// Canary sends a tenth of the traffic to a new version for five minutes first.
	Canary     bool
	BackupDays float64
	Logs       awslogs.RetentionDays
	MinACU     float64
	// What the context doesn't choose otherwise. Who forgets to say how the payment side is told from shoppers has prod closed, not open.
	Auth                        Auth
	Proxy                       bool
	MaxACU                      float64
	ThrottleRate, ThrottleBurst int
}

// stages are the environments there are.
var stages = map[string]Stage{
	"dev":  {Auth: AuthNone, BackupDays: 1, Logs: awslogs.RetentionDays_ONE_WEEK, MinACU: 0.5, MaxACU: 4, ThrottleRate: 100, ThrottleBurst: 200},
	"prod": {Protected: true, Reader: true, Canary: true, Auth: AuthIAM, BackupDays: 14, Logs: awslogs.RetentionDays_THREE_MONTHS, MinACU: 0.5, MaxACU: 16, Proxy: true, ThrottleRate: 1000, ThrottleBurst: 2000},
}

// Bounds of what the context chooses.
const (
	// leastACU keeps max_connections, which Aurora derives from the largest capacity, above what the gateway's throttle lets in.
	leastACU = 2
	// mostACU is Aurora's own limit.
	mostACU = 256
	// mostThrottle is an account's default quota of requests a second.
	mostThrottle = 10_000
	// mostConcurrency is what the sweeper could ever use: sweeps that overlap skip each other's holds.
	mostConcurrency = 10
	// mostOrigins bounds the CORS origins, which the gateway compares one by one.
	mostOrigins = 20
)

var (
	namePattern     = regexp.MustCompile(`^[a-z]([a-z0-9]|-[a-z0-9]){0,19}$`)
	emailPattern    = regexp.MustCompile(`^[A-Za-z0-9._%+-]+@([A-Za-z0-9-]+\.)+[A-Za-z]{2,}$`)
	domainPattern   = regexp.MustCompile(`^([a-z0-9]([a-z0-9-]*[a-z0-9])?\.)+[a-z]{2,}$`)
	secretPattern   = regexp.MustCompile(`^[A-Za-z0-9/_+=.@-]{1,512}$`)
	tagPattern      = regexp.MustCompile(`^[\p{L}\p{N} _.:/=+@-]{0,256}$`)
	certificateName = regexp.MustCompile(`^arn:aws[a-z-]*:acm:[a-z0-9-]+:[0-9]{12}:certificate/[0-9a-f-]+$`)
	// originPattern is an origin as a browser sends it: no upper case, no path, and no star.
	originPattern = regexp.MustCompile(`^(https://([a-z0-9]([a-z0-9-]*[a-z0-9])?\.)+[a-z]{2,}|https?://localhost)(:[0-9]{1,5})?$`)
	// lookedUp is how the CDK names in the context what it has looked up in an account.
	lookedUp = regexp.MustCompile(`^[a-z-]+:account=`)
)

// ReadSettings reads the context. Its error names each key that is unknown or wrong, and says what would be right.
func ReadSettings(context map[string]any) (Settings, error) {
	r := reader{context: context, known: map[string]bool{}}
	s := Settings{
		Name:                r.match("name", "allo", namePattern, "a letter and up to 20 lower-case letters, digits or single hyphens, the last no hyphen"),
		Env:                 r.oneOf("env", "dev", slices.Sorted(maps.Keys(stages))...),
		Aurora:              r.oneOf("db", "aurora", "aurora", "external") == "aurora",
		Arch:                r.oneOf("arch", "arm64", "arm64", "x86_64"),
		HoldTTL:             r.text("holdTtl"),
		MaxHold:             r.text("maxHold"),
		Sweeper:             r.oneOf("sweeper", "on", "on", "off") == "on",
		SweeperConcurrency:  r.integer("sweeperConcurrency", 0, 0, mostConcurrency),
		CORSOrigins:         r.origins("corsOrigins"),
		AlarmEmail:          r.match("alarmEmail", "", emailPattern, "an e-mail address"),
		Owner:               r.match("owner", "", tagPattern, "a tag's value: letters, digits, spaces and _.:/=+@-"),
		CostCentre:          r.match("costCentre", "", tagPattern, "a tag's value: letters, digits, spaces and _.:/=+@-"),
		PermissionsBoundary: r.match("permissionsBoundary", "", regexp.MustCompile(`^[\w+=,.@-]{1,128}$`), "the name of a managed policy of the account"),
	}
	s.Stage = stages[s.Env]
	s.ThrottleRate = r.integer("throttleRate", s.Stage.ThrottleRate, 1, mostThrottle)
	s.ThrottleBurst = r.integer("throttleBurst", s.Stage.ThrottleBurst, 1, mostThrottle)
	s.readDatabase(&r)
	s.readAuth(&r)
	s.readDomain(&r)
	if err := config.Check(map[string]string{"HOLD_TTL": s.HoldTTL, "MAX_HOLD": s.MaxHold}); err != nil {
		r.fail("holdTtl and maxHold: %w", err)
	}
	r.refuseUnknown()
	return s, errors.Join(r.errs...)
}

func (s *Settings) readDatabase(r *reader) {
	onOff := func(on bool) string {
		if on {
			return "on"
		}
		return "off"
	}
	s.Proxy = r.oneOf("dbProxy", onOff(s.Aurora && s.Stage.Proxy), "on", "off") == "on"
	s.MaxACU = float64(r.integer("maxAcu", int(s.Stage.MaxACU), leastACU, mostACU))
	s.SecretName = r.match("databaseUrlSecret", s.StackName()+"/database-url", secretPattern, "the name of a secret in Secrets Manager, such as "+s.StackName()+"/database-url")
	s.MigrateSecretName = r.match("migrateUrlSecret", s.SecretName, secretPattern, "the name of a secret in Secrets Manager")
	s.AppRole = r.match("appRole", "", regexp.MustCompile(`^[a-z_][a-z0-9_]{0,62}$`), "the name of a role of Postgres")
	for _, key := range []string{"dbProxy", "maxAcu"} {
		if !s.Aurora && r.given(key) {
			r.fail("%s is for db=aurora: an external database has its own", key)
		}
	}
	for _, key := range []string{"databaseUrlSecret", "migrateUrlSecret", "appRole"} {
		if s.Aurora && r.given(key) {
			r.fail("%s is for db=external: Aurora is reached without a secret, by roles of the stack's own", key)
		}
	}
}

func (s *Settings) readAuth(r *reader) {
	s.Auth = Auth(r.oneOf("auth", string(s.Stage.Auth), string(AuthNone), string(AuthJWT), string(AuthIAM)))
	s.JWTIssuer = r.httpsURL("jwtIssuer")
	s.JWTAudience = r.match("jwtAudience", "", regexp.MustCompile(`^\S{1,256}$`), "the audience that the tokens are for")
	if s.Auth == AuthJWT && (s.JWTIssuer == "" || s.JWTAudience == "") {
		r.fail("auth=jwt needs jwtIssuer and jwtAudience: who issues the tokens, and for whom")
	}
	if s.Auth != AuthJWT && (r.given("jwtIssuer") || r.given("jwtAudience")) {
		r.fail("jwtIssuer and jwtAudience are for auth=jwt")
	}
}

func (s *Settings) readDomain(r *reader) {
	d := Domain{
		Name:           r.match("domainName", "", domainPattern, "a lower-case host name such as api.example.com"),
		CertificateARN: r.match("certificateArn", "", certificateName, "the ARN of a certificate in ACM, in the stack's region"),
		ZoneID:         r.match("hostedZoneId", "", regexp.MustCompile(`^Z[A-Z0-9]+$`), "the id of a hosted zone in Route 53"),
		ZoneName:       r.match("hostedZoneName", "", domainPattern, "the hosted zone's name, such as example.com"),
	}
	switch {
	case d == Domain{}:
	case d.Name == "" || d.CertificateARN == "" || d.ZoneID == "" || d.ZoneName == "":
		r.fail("a domain of one's own needs all of domainName, certificateArn, hostedZoneId and hostedZoneName")
	case d.Name != d.ZoneName && !strings.HasSuffix(d.Name, "."+d.ZoneName):
		r.fail("domainName %q isn't in the zone %q", d.Name, d.ZoneName)
	default:
		s.Domain = &d
	}
}

// StackName is the stack's, and what the names of all that it makes begin with.
func (s Settings) StackName() string { return s.Name + "-" + s.Env }

// GOARCH is what Go calls the functions' architecture.
func (s Settings) GOARCH() string {
	if s.Arch == "x86_64" {
		return "amd64"
	}
	return "arm64"
}

// reader collects what is wrong, so that one synth names every bad key.
type reader struct {
	context map[string]any
	known   map[string]bool
	errs    []error
}

func (r *reader) fail(format string, args ...any) {
	r.errs = append(r.errs, fmt.Errorf(format, args...))
}

func (r *reader) given(key string) bool { return r.text(key) != "" }

// text is a key's value: a string on the command line, but maybe a number or a bool in cdk.json.
func (r *reader) text(key string) string {
	r.known[key] = true
	if value, ok := r.context[key]; ok && value != nil {
		return fmt.Sprint(value)
	}
	return ""
}

func (r *reader) match(key, fallback string, pattern *regexp.Regexp, want string) string {
	value := r.text(key)
	if value == "" {
		return fallback
	}
	if !pattern.MatchString(value) {
		r.fail("%s is %q; it must be %s", key, value, want)
	}
	return value
}

func (r *reader) oneOf(key, fallback string, values ...string) string {
	value := r.text(key)
	if value == "" {
		return fallback
	}
	if !slices.Contains(values, value) {
		r.fail("%s is %q; it must be one of %s", key, value, strings.Join(values, ", "))
		return fallback
	}
	return value
}

func (r *reader) integer(key string, fallback, least, most int) int {
	value := r.text(key)
	if value == "" {
		return fallback
	}
	n, err := strconv.Atoi(value)
	if err != nil || n < least || n > most {
		r.fail("%s is %q; it must be a whole number from %d to %d", key, value, least, most)
		return fallback
	}
	return n
}

func (r *reader) httpsURL(key string) string {
	value := r.text(key)
	if value == "" {
		return ""
	}
	if u, err := url.Parse(value); err != nil || u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
		r.fail("%s is %q; it must be a URL that begins with https:// and has no query", key, value)
	}
	return value
}

// origins reads origins with commas between them. A star isn't one of them: a storefront knows where it is served from.
func (r *reader) origins(key string) []string {
	value := r.text(key)
	if value == "" {
		return nil
	}
	origins := strings.Split(value, ",")
	if len(origins) > mostOrigins {
		r.fail("%s has %d origins; it may have %d", key, len(origins), mostOrigins)
	}
	for _, origin := range origins {
		if !originPattern.MatchString(origin) || strings.HasSuffix(origin, ":443") {
			r.fail("%s has %q; it must be origins such as https://shop.example.com, with commas between them", key, origin)
		}
	}
	return origins
}

// refuseUnknown names the keys that nothing reads: a typing error would otherwise deploy the default. The CDK has keys of its own.
func (r *reader) refuseUnknown() {
	for _, key := range slices.Sorted(maps.Keys(r.context)) {
		cdks := strings.HasPrefix(key, "@") || strings.HasPrefix(key, "aws:") || lookedUp.MatchString(key)
		if !r.known[key] && !cdks {
			r.fail("the context key %q is unknown; the keys are %s", key, strings.Join(slices.Sorted(maps.Keys(r.known)), ", "))
		}
	}
}
