package main

import (
	"errors"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/aws/aws-cdk-go/awscdk/v2/awslogs"

	"github.com/allo/reservations/internal/config"
)

// Settings are the choices of a deploy, from `-c key=value` and cdk.json's context. They are
// checked, and every default is filled in. README.md has the table of the keys.
type Settings struct {
	// Name and Env make up every name: the stack is NAME-ENV, a function is NAME-ENV-reserve.
	Name, Env string
	// Account and Region are where the stack is deployed. Empty means where the shell points.
	Account, Region string
	// Stage has the properties in which the environments differ.
	Stage Stage

	// Aurora means that the stack has its own database. Otherwise the secret SecretName has the URL
	// of an existing one.
	Aurora bool
	// Proxy puts an RDS Proxy between the functions and the cluster.
	Proxy bool
	// MaxACU is the cluster's maximum capacity, in Aurora capacity units.
	MaxACU     float64
	SecretName string
	// MigrateSecretName is the secret with the migration's URL; by default it is SecretName.
	MigrateSecretName string
	// ReaderLag is how far the cluster's reader may be behind. Empty leaves the functions' default.
	ReaderLag string
	// AppRole is the role to which the migration grants what the service uses. It is empty if the
	// service and the migration use the same role.
	AppRole string

	// Canary sends a tenth of the traffic to a new version for five minutes first. Otherwise all
	// traffic moves at once, and no alarm can stop it.
	Canary bool

	// Arch is the functions' architecture: arm64 or x86_64.
	Arch string
	// HoldTTL and MaxHold are durations for the functions. Empty leaves the functions' defaults.
	HoldTTL, MaxHold string
	// MaxPaymentHold, MaxUnits and MaxLines bound a hold. Empty leaves the functions' defaults.
	MaxPaymentHold, MaxUnits, MaxLines string
	// StockShown is what the open catalog shows of a stock row, exact or a number. Empty leaves the
	// functions' default.
	StockShown string
	// RetentionDays is after how many days resolved holds move to the archive, 0 for never. Empty
	// leaves the functions' default.
	RetentionDays string

	Auth Auth
	// JWTIssuer and JWTAudience are those of the tokens of AuthJWT. For AuthCognito JWTAudience has
	// the ids of more clients of the user pool, separated by commas, or is empty.
	JWTIssuer, JWTAudience string
	// Console is the console's client of AuthJWT's issuer.
	Console Console
	// MFA is whether the users of the stack's own user pool need a second factor.
	MFA MFA
	// ReserveAuth guards the route that reserves too.
	ReserveAuth bool

	// Sweeper enables the minute rule.
	Sweeper bool
	// SweeperConcurrency is the sweeper's reserved concurrency, 0 for none. An account with a quota
	// of 10 can't reserve any.
	SweeperConcurrency int

	// ThrottleRate is the number of requests a second that the gateway allows. ThrottleBurst is how
	// many it allows at once.
	ThrottleRate, ThrottleBurst int
	CORSOrigins                 []string

	// Capacity is what a sale needs of the database, of Lambda and of the gateway.
	Capacity Capacity

	// Events is how soon the events of the ledger are published.
	Events Events
	// Bus publishes the events to an EventBridge bus too.
	Bus      bool
	Queues   []Queue
	Webhooks []Webhook

	// Live tells the pages each change of the stock within a second or so.
	Live bool
	// CDN puts CloudFront before the API.
	CDN bool
	// CDNDomain is the CDN's custom domain, nil for none. Its certificate is in us-east-1.
	CDNDomain *Domain
	// WebACL is the ARN of a firewall of the CDN that exists already, or empty.
	WebACL string
	Edge
	// Zones are the availability zones of the network. Without any the CDK chooses two.
	Zones []string

	// Domain is the API's custom domain, nil for none.
	Domain *Domain

	Delivery Delivery

	Checks

	// Tracing lets X-Ray record calls of the functions.
	Tracing bool
	// AlarmEmail is subscribed to the alarms' topic, unless it is empty.
	AlarmEmail string
	Disaster

	// Owner and CostCentre are tags, unless they are empty.
	Owner, CostCentre string
	// PermissionsBoundary is the name of a managed policy that bounds every role, or empty.
	PermissionsBoundary string
}

// Auth is how the gateway authenticates callers of the routes that have a scope in the route table.
type Auth string

// AuthNone is for demonstrations: anyone may confirm a hold without paying. AuthJWT wants a token
// with the route's scope, from an issuer of yours. AuthCognito wants one too, and makes the issuer:
// a user pool for the console's users and the payment side. AuthIAM wants a signed call from a role
// that may invoke the route.
const (
	AuthNone    Auth = "none"
	AuthJWT     Auth = "jwt"
	AuthCognito Auth = "cognito"
	AuthIAM     Auth = "iam"
)

// MFA is whether the console's users need a second factor, an authenticator app.
type MFA string

const (
	// MFAOptional lets each user choose.
	MFAOptional MFA = "optional"
	// MFARequired makes each user set up an app at the first sign-in.
	MFARequired MFA = "required"
)

// Domain is a custom domain name for the API or the CDN. Its certificate and its hosted zone exist
// already.
type Domain struct{ Name, CertificateARN, ZoneID, ZoneName string }

// Stage has the properties in which dev and prod differ.
type Stage struct {
	// Protected keeps the data when the stack is deleted, and refuses to delete the stack.
	Protected bool
	// Reader adds an instance in a second zone, which takes over if the writer's zone is lost.
	Reader       bool
	BackupDays   float64
	LogRetention awslogs.RetentionDays
	// LogDays is LogRetention as a number, for the logs that aren't in CloudWatch.
	LogDays float64
	// ArchiveDays is how long the topic keeps events for a replay, 0 for not at all. A topic with an
	// archive can't be deleted.
	ArchiveDays float64

	// The rest are the defaults of settings.

	// Auth guards prod even if the operator forgets to choose.
	Auth                        Auth
	MFA                         MFA
	Canary, Proxy               bool
	MinACU, MaxACU              float64
	ThrottleRate, ThrottleBurst int
	Events                      Events
	Objectives                  bool
}

var stages = map[string]Stage{
	"dev": {
		BackupDays:    1,
		LogRetention:  awslogs.RetentionDays_ONE_WEEK,
		LogDays:       7,
		Auth:          AuthNone,
		MFA:           MFAOptional,
		MinACU:        0.5,
		MaxACU:        4,
		ThrottleRate:  100,
		ThrottleBurst: 200,
		Events:        EventsMinute,
	},
	"prod": {
		Protected:     true,
		Reader:        true,
		BackupDays:    14,
		LogRetention:  awslogs.RetentionDays_THREE_MONTHS,
		LogDays:       90,
		ArchiveDays:   90,
		Auth:          AuthIAM,
		MFA:           MFARequired,
		Canary:        true,
		Proxy:         true,
		MinACU:        2,
		MaxACU:        16,
		ThrottleRate:  1000,
		ThrottleBurst: 2000,
		Events:        EventsOn,
		Objectives:    true,
	},
}

// Bounds of the settings.
const (
	// leastMaxACU keeps max_connections, which Aurora derives from the maximum capacity, above what
	// the gateway's throttle lets in.
	leastMaxACU = 2
	// mostMaxACU is Aurora's limit.
	mostMaxACU = 256
	// maxThrottle is an account's default quota of requests a second.
	maxThrottle = 10_000
	// maxSweeperConcurrency is ample: sweeps that overlap skip each other's holds.
	maxSweeperConcurrency = 10
	// mostName is the length of the stack's name and of a consumer's. It leaves room for what follows
	// in a resource's name: an archive of a bus has at most 48 characters, and a queue 80.
	mostName = 20
	// maxOrigins limits the CORS origins, which the gateway compares one by one.
	maxOrigins = 20
)

var (
	namePattern     = regexp.MustCompile(`^[a-z](-?[a-z0-9])*$`)
	accountPattern  = regexp.MustCompile(`^[0-9]{12}$`)
	regionPattern   = regexp.MustCompile(`^[a-z]{2}(-[a-z]+)+-[0-9]$`)
	emailPattern    = regexp.MustCompile(`^[A-Za-z0-9._%+-]+@([A-Za-z0-9-]+\.)+[A-Za-z]{2,}$`)
	domainPattern   = regexp.MustCompile(`^([a-z0-9]([a-z0-9-]*[a-z0-9])?\.)+[a-z]{2,}$`)
	secretPattern   = regexp.MustCompile(`^[A-Za-z0-9/_+=.@-]{1,512}$`)
	tagPattern      = regexp.MustCompile(`^[\p{L}\p{N} _.:/=+@-]{0,256}$`)
	policyPattern   = regexp.MustCompile(`^[\w+=,.@-]{1,128}$`)
	rolePattern     = regexp.MustCompile(`^[a-z_][a-z0-9_]{0,62}$`)
	audiencePattern = regexp.MustCompile(`^\S{1,256}$`)
	zoneIDPattern   = regexp.MustCompile(`^Z[A-Z0-9]+$`)

	certificatePattern = regexp.MustCompile(
		`^arn:aws[a-z-]*:acm:[a-z0-9-]+:[0-9]{12}:certificate/[0-9a-f-]+$`)
	// cdnCertificatePattern and webACLPattern match what CloudFront takes: it reads certificates and
	// firewalls in us-east-1, wherever the stack is.
	cdnCertificatePattern = regexp.MustCompile(
		`^arn:aws:acm:us-east-1:[0-9]{12}:certificate/[0-9a-f-]+$`)
	webACLPattern = regexp.MustCompile(
		`^arn:aws:wafv2:us-east-1:[0-9]{12}:global/webacl/[A-Za-z0-9_-]{1,128}/[0-9a-f-]+$`)
	// reservedPattern matches the words that Cognito refuses in the domain of a user pool.
	reservedPattern = regexp.MustCompile(`aws|amazon|cognito`)
	// originPattern matches an origin as a browser sends it: lower case, no path, no star.
	originPattern = regexp.MustCompile(
		`^(https://([a-z0-9]([a-z0-9-]*[a-z0-9])?\.)+[a-z]{2,}|https?://localhost)(:[0-9]{1,5})?$`)
)

// The error messages name these as the valid values.
const (
	wantName = "a lower-case letter and then up to 19 lower-case letters, digits or single " +
		"hyphens, without a hyphen at the end"
	wantTag    = "a tag's value: letters, digits, spaces and _.:/=+@-"
	wantSecret = "the name of a secret in Secrets Manager" //nolint:gosec // no credential
)

// ReadSettings reads the context. Its error names every key that is unknown or invalid and says
// what is valid.
func ReadSettings(context map[string]any) (Settings, error) {
	r := newReader(context)
	s := read(r)
	r.refuseUnknown()
	return s, errors.Join(r.errs...)
}

// read reads every key.
func read(r *reader) Settings {
	s := Settings{
		Name:               r.name("name", "allo"),
		Env:                r.oneOf("env", "dev", slices.Sorted(maps.Keys(stages))...),
		Account:            r.match("account", "", accountPattern, "an AWS account's 12 digits"),
		Region:             r.match("region", "", regionPattern, "a region such as eu-central-1"),
		Aurora:             r.oneOf("db", "aurora", "aurora", "external") == "aurora",
		Arch:               r.oneOf("arch", "arm64", "arm64", "x86_64"),
		HoldTTL:            r.text("holdTtl", ""),
		MaxHold:            r.text("maxHold", ""),
		MaxPaymentHold:     r.text("maxPaymentHold", ""),
		MaxUnits:           r.text("maxUnits", ""),
		MaxLines:           r.text("maxLines", ""),
		StockShown:         r.text("stockShown", ""),
		RetentionDays:      r.text("retentionDays", ""),
		Sweeper:            r.onOff("sweeper", true),
		SweeperConcurrency: r.integer("sweeperConcurrency", 0, 0, maxSweeperConcurrency),
		CORSOrigins:        r.origins("corsOrigins"),
		AlarmEmail:         r.match("alarmEmail", "", emailPattern, "an e-mail address"),
		Tracing:            r.onOff("tracing", false),
		Owner:              r.match("owner", "", tagPattern, wantTag),
		CostCentre:         r.match("costCentre", "", tagPattern, wantTag),
		PermissionsBoundary: r.match("permissionsBoundary", "", policyPattern,
			"the name of a managed policy of the account"),
	}
	s.Stage = stages[s.Env]
	s.Canary = r.rollout(s.Stage.Canary)
	s.ThrottleRate = r.integer("throttleRate", s.Stage.ThrottleRate, 1, maxThrottle)
	s.ThrottleBurst = r.integer("throttleBurst", s.Stage.ThrottleBurst, 1, maxThrottle)
	s.readDatabase(r)
	s.readDisaster(r)
	s.readReader(r)
	s.readCapacity(r)
	s.readAuth(r)
	s.readDomains(r)
	s.readEdge(r)
	s.readZones(r)
	s.readFeed(r)
	s.readDelivery(r)
	s.readChecks(r)
	s.checkVariables(r)
	return s
}

// variables maps each setting that the functions read as it is to its variable.
func (s *Settings) variables() map[string]string {
	return map[string]string{
		"HOLD_TTL": s.HoldTTL, "MAX_HOLD": s.MaxHold, "MAX_PAYMENT_HOLD": s.MaxPaymentHold,
		"MAX_UNITS": s.MaxUnits, "MAX_LINES": s.MaxLines, "STOCK_SHOWN": s.StockShown,
		"RETENTION_DAYS": s.RetentionDays,
	}
}

// checkVariables checks what the functions would check at their start.
func (s *Settings) checkVariables(r *reader) {
	all := s.variables()
	for _, check := range []struct {
		keys      string
		variables []string
	}{
		{"holdTtl and maxHold", []string{"HOLD_TTL", "MAX_HOLD"}},
		{"maxPaymentHold", []string{"MAX_PAYMENT_HOLD"}},
		{"maxUnits", []string{"MAX_UNITS"}},
		{"maxLines", []string{"MAX_LINES"}},
		{"stockShown", []string{"STOCK_SHOWN"}},
		{"retentionDays", []string{"RETENTION_DAYS"}},
	} {
		given := map[string]string{}
		for _, name := range check.variables {
			given[name] = all[name]
		}
		if err := config.Check(given); err != nil {
			r.fail(check.keys+": %w", err)
		}
	}
}

func (s *Settings) readDatabase(r *reader) {
	s.Proxy = r.onOff("dbProxy", s.Aurora && s.Stage.Proxy)
	s.MaxACU = float64(r.integer("maxAcu", int(s.Stage.MaxACU), leastMaxACU, mostMaxACU))
	example := s.StackName() + "/database-url"
	s.SecretName = r.match("databaseUrlSecret", example, secretPattern,
		wantSecret+", such as "+example)
	s.MigrateSecretName = r.match("migrateUrlSecret", s.SecretName, secretPattern, wantSecret)
	s.AppRole = r.match("appRole", "", rolePattern, "the name of a Postgres role")
	for _, key := range []string{"dbProxy", "maxAcu"} {
		if !s.Aurora && r.given(key) {
			r.fail("%s is for db=aurora: the stack doesn't manage an external database", key)
		}
	}
	for _, key := range []string{"databaseUrlSecret", "migrateUrlSecret", "appRole"} {
		if s.Aurora && r.given(key) {
			r.fail("%s is for db=external: Aurora needs no secret and has the stack's own roles", key)
		}
	}
}

func (s *Settings) readAuth(r *reader) {
	s.Auth = Auth(r.oneOf("auth", string(s.Stage.Auth),
		string(AuthNone), string(AuthJWT), string(AuthCognito), string(AuthIAM)))
	s.JWTIssuer = r.httpsURL("jwtIssuer")
	s.JWTAudience = r.match("jwtAudience", "", audiencePattern, "the audience of the tokens")
	if s.Auth == AuthJWT && (s.JWTIssuer == "" || s.JWTAudience == "") {
		r.fail("auth=jwt needs jwtIssuer and jwtAudience: the issuer and the audience of the tokens")
	}
	if s.Auth != AuthJWT && r.given("jwtIssuer") || !s.UsesTokens() && r.given("jwtAudience") {
		r.fail("jwtIssuer and jwtAudience are for auth=jwt; auth=cognito takes jwtAudience alone, " +
			"for more clients of its user pool")
	}
	s.readConsole(r)
	s.MFA = MFA(r.oneOf("mfa", string(s.Stage.MFA), string(MFAOptional), string(MFARequired)))
	if s.Auth != AuthCognito && r.given("mfa") {
		r.fail("mfa is for auth=cognito: the stack doesn't manage the users of another issuer")
	}
	if s.Auth == AuthCognito && reservedPattern.MatchString(s.Name) {
		r.fail("name is %q; with auth=cognito it must not have aws, amazon or cognito in it: "+
			"it is a part of the sign-in's domain, and Cognito refuses these words there", s.Name)
	}
	s.ReserveAuth = r.onOff("reserveAuth", false)
	if s.ReserveAuth && s.Auth == AuthNone {
		r.fail("reserveAuth=on needs auth=jwt, auth=cognito or auth=iam: " +
			"with auth=none nobody can be authorized")
	}
}

// UsesTokens reports whether callers show a token with the route's scope.
func (s Settings) UsesTokens() bool { return s.Auth == AuthJWT || s.Auth == AuthCognito }

// readDomains reads the API's custom domain, the CDN and its custom domain.
func (s *Settings) readDomains(r *reader) {
	zone := Domain{
		ZoneID: r.match("hostedZoneId", "", zoneIDPattern, "the id of a Route 53 hosted zone"),
		ZoneName: r.match("hostedZoneName", "", domainPattern,
			"the hosted zone's name, such as example.com"),
	}
	s.Domain = r.domain(zone, "domainName", "certificateArn", certificatePattern,
		"the ARN of an ACM certificate in the stack's region")
	s.CDN = r.onOff("cdn", false)
	s.CDNDomain = r.domain(zone, "cdnDomainName", "cdnCertificateArn", cdnCertificatePattern,
		"the ARN of an ACM certificate in us-east-1, where CloudFront reads it")
	s.WebACL = r.match("cdnWebAcl", "", webACLPattern,
		"the ARN of a web ACL of AWS WAF for CloudFront, in us-east-1")
	for _, key := range []string{"cdnDomainName", "cdnCertificateArn", "cdnWebAcl"} {
		if !s.CDN && r.given(key) {
			r.fail("%s is for cdn=on", key)
		}
	}
	if s.Domain != nil && s.CDNDomain != nil && s.Domain.Name == s.CDNDomain.Name {
		r.fail("domainName and cdnDomainName are both %s: the CDN calls the API by a name of its own",
			s.Domain.Name)
	}
	if (zone != Domain{}) && !r.given("domainName") && !r.given("cdnDomainName") {
		r.fail("hostedZoneId and hostedZoneName are for domainName and cdnDomainName: " +
			"a custom domain needs all of its keys")
	}
}

// domain reads a custom domain in a zone: the keys of its name and its certificate. It returns nil
// for none.
func (r *reader) domain(
	zone Domain, nameKey, certificateKey string, certificate *regexp.Regexp, want string,
) *Domain {
	d := zone
	d.Name = r.match(nameKey, "", domainPattern, "a lower-case host name such as api.example.com")
	d.CertificateARN = r.match(certificateKey, "", certificate, want)
	switch {
	case d.Name == "" && d.CertificateARN == "":
		return nil
	case d.Name == "" || d.CertificateARN == "" || d.ZoneID == "" || d.ZoneName == "":
		r.fail("a custom domain needs all of %s, %s, hostedZoneId and hostedZoneName",
			nameKey, certificateKey)
		return nil
	case d.Name != d.ZoneName && !strings.HasSuffix(d.Name, "."+d.ZoneName):
		r.fail("%s %q isn't in the zone %q", nameKey, d.Name, d.ZoneName)
		return nil
	}
	return &d
}

// StackName returns the stack's name, with which the names of all its resources begin.
func (s Settings) StackName() string { return s.Name + "-" + s.Env }

// GOARCH returns Go's name for the functions' architecture.
func (s Settings) GOARCH() string {
	if s.Arch == "x86_64" {
		return "amd64"
	}
	return "arm64"
}
