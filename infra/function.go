package main

import (
	"maps"
	"net/http"
	"path/filepath"
	"slices"
	"strings"

	"github.com/aws/aws-cdk-go/awscdk/v2"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsiam"
	"github.com/aws/aws-cdk-go/awscdk/v2/awslambda"
	"github.com/aws/aws-cdk-go/awscdk/v2/awslogs"
	"github.com/aws/constructs-go/constructs/v10"
	"github.com/aws/jsii-runtime-go"

	"github.com/allo/reservations/internal/route"
)

// Timeouts in seconds. Each outlasts the one inside it, so that the inner side can still answer:
// the gateway waits 29 s, an API function 10 s, a request 7 s (internal/httpapi), a statement 5 s
// and a lock 2 s (internal/migrate).
const (
	gatewayTimeout = 29
	apiTimeout     = 10
	// sweepTimeout ends a sweep before the next minute's sweep begins.
	sweepTimeout = 50
	// migrateTimeout outlasts a run of the migrations, which ends itself after 14 minutes
	// (internal/app/migration). Lambda's most is 900 seconds, and it isn't used in full: the CDK's
	// trigger waits for this function in a function of 900 seconds, and if Lambda ended both at once,
	// CloudFormation would hear of no result and wait for an hour.
	migrateTimeout = 870
	// poolTimeout is how long a user pool waits for its trigger (Cognito's developer guide,
	// "Customizing user pool workflows with Lambda triggers").
	poolTimeout = 5
	// triggerTimeout is how long a deploy waits for the migrate function.
	triggerTimeout = 885
)

// memory is the functions' memory in MiB. The service needs 30. Published measurements find no
// difference in cold starts between 128 and 1024.
const memory = 256

// liveAlias is the alias that traffic, the rule and the permissions refer to. A new version gets no
// traffic until the alias moves to it.
const liveAlias = "live"

// function is a Lambda function with its role and its log group, and its alias.
type function struct {
	name     string
	function awslambda.Function
	alias    awslambda.Alias
	logs     awslogs.LogGroup
	// backOffice says that no sale depends on the function. Such functions share their alarms, and a
	// new version gets all their traffic at once.
	backOffice bool
}

// functionProps are the properties in which the functions differ.
type functionProps struct {
	// name is the name of the function's directory, under functions/ and under the assets.
	name, description string
	// timeout is in seconds.
	timeout float64
	// db and as are the database and the role that the function uses. Without db it uses none.
	db database
	as role
	// reads says how the function reads from the database's reader, if there is one.
	reads readerUse
	// office is nil for a function that has a role and a log group of its own.
	office *office
	// rights are those of the office's role that the function has. With ownRights the role is the
	// function's own.
	rights rights
	// concurrency is the reserved concurrency, 0 for none.
	concurrency int
	// provisioned is how many environments wait for calls.
	provisioned int
	// variables are environment variables of this function alone.
	variables map[string]*string
	// async says what happens to an asynchronous event that the function failed on.
	async *awslambda.EventInvokeConfigOptions
}

// withoutDatabase are the functions of the route table that use no database.
var withoutDatabase = []string{"web", "live", "list-webhooks", "redeliver-webhook"}

// newRouteFunctions creates each function that the route table names.
func newRouteFunctions(
	scope constructs.Construct, s Settings, assets string, db database, o *office,
) []function {
	scope = constructs.NewConstruct(scope, jsii.String("Functions"))
	routes := map[string][]string{}
	reads, serves := map[string]readerUse{}, map[string]bool{}
	var names []string
	for _, r := range route.All() {
		if r.Method == http.MethodHead {
			continue // It goes to the function of its GET.
		}
		if routes[r.Function] == nil {
			names = append(names, r.Function)
		}
		routes[r.Function] = append(routes[r.Function], r.Key())
		if readsOnReader(r) {
			reads[r.Function] = sharedReader
		}
		serves[r.Function] = serves[r.Function] || !isBackOffice(r)
	}
	var functions []function
	for _, name := range names {
		p := functionProps{
			name: name, description: "Answers " + strings.Join(routes[name], ", "), timeout: apiTimeout,
			concurrency: s.Capacity.concurrency(name), provisioned: s.Capacity.Provisioned[name],
		}
		if !slices.Contains(withoutDatabase, name) {
			p.db, p.as, p.reads = db, roleApp, reads[name]
		}
		if !serves[name] {
			p.office, p.rights = o, officeRights(p)
		}
		f := newFunction(scope, s, assets, p)
		f.backOffice = !serves[name]
		functions = append(functions, f)
	}
	return functions
}

// officeRights returns which of the office's rights a function needs.
func officeRights(p functionProps) rights {
	switch {
	case slices.Contains(withOwnRights, p.name):
		return ownRights
	case p.db == nil:
		return noRights
	default:
		return appRights
	}
}

// aside are the functions of open routes on which no sale depends. Without live the pages poll, and
// only a monitor asks for the health.
var aside = []string{"live", "health"}

// isBackOffice reports whether no sale depends on a route: it is for the back office or the
// operator, or of a function that is aside.
func isBackOffice(r route.Route) bool {
	return r.Scope != "" && r.Scope != route.ScopeConfirm || slices.Contains(aside, r.Function)
}

// newFunction creates a function from its directory in assets. The directory has one file, the
// executable bootstrap, built for the settings' architecture.
func newFunction(
	scope constructs.Construct, s Settings, assets string, p functionProps,
) function {
	scope = constructs.NewConstruct(scope, jsii.String(p.name))
	role, logs := newIdentity(scope, s, p)
	props := &awslambda.FunctionProps{
		FunctionName:  jsii.String(s.StackName() + "-" + p.name),
		Description:   jsii.String(p.description),
		Runtime:       awslambda.Runtime_PROVIDED_AL2023(),
		Architecture:  architecture(s),
		Handler:       jsii.String("bootstrap"),
		Code:          awslambda.Code_FromAsset(jsii.String(filepath.Join(assets, p.name)), nil),
		MemorySize:    jsii.Number(memory),
		Timeout:       awscdk.Duration_Seconds(jsii.Number(p.timeout)),
		Role:          role,
		Environment:   variables(s, p.variables),
		Tracing:       tracing(s),
		LoggingFormat: awslambda.LoggingFormat_JSON, // for Lambda's own lines
		// Lambda's lines of each call (platform.start, platform.report) are of level INFO. They cost as
		// much as our own line, which says more. Those of failed calls are of level WARN (AWS Lambda
		// Developer Guide, "Log-level filtering").
		SystemLogLevelV2: awslambda.SystemLogLevel_WARN,
		LogGroup:         logs,
		RecursiveLoop:    awslambda.RecursiveLoop_TERMINATE,
		// Old versions stay, so that an operator can move the alias back. A version from a deploy
		// that was rolled back is removed: it would make the next deploy of the same code fail.
		CurrentVersionOptions: &awslambda.VersionOptions{
			RemovalPolicy: awscdk.RemovalPolicy_RETAIN_ON_UPDATE_OR_DELETE,
		},
	}
	if p.concurrency > 0 {
		props.ReservedConcurrentExecutions = jsii.Number(p.concurrency)
	}
	if p.db != nil {
		p.db.attach(props, p.as)
		if p.reads != noReader {
			p.db.attachReader(props, p.reads)
		}
	} else {
		setDatabaseVariables(props, nil, nil)
	}
	f := function{
		name: p.name, logs: logs,
		function: awslambda.NewFunction(scope, jsii.String("Function"), props),
	}
	if p.db != nil {
		p.db.grant(f.function, p.as)
		if p.reads != noReader {
			p.db.grantReader(f.function, p.as, p.reads)
		}
	}
	suppressWildcards(f.function)
	f.alias = newAlias(scope, s, f.function, p)
	return f
}

func newAlias(
	scope constructs.Construct, s Settings, f awslambda.Function, p functionProps,
) awslambda.Alias {
	props := &awslambda.AliasProps{AliasName: jsii.String(liveAlias), Version: f.CurrentVersion()}
	if p.async != nil {
		props.RetryAttempts = p.async.RetryAttempts
		props.MaxEventAge = p.async.MaxEventAge
		props.OnFailure = p.async.OnFailure
	}
	if p.provisioned > 0 && s.Capacity.Sale == nil {
		props.ProvisionedConcurrentExecutions = jsii.Number(p.provisioned)
	}
	alias := awslambda.NewAlias(scope, jsii.String("Alias"), props)
	if s.Capacity.Sale != nil {
		provision(alias, p.provisioned, *s.Capacity.Sale)
	}
	return alias
}

// variables returns the environment variables that every function has, and a function's own.
func variables(s Settings, own map[string]*string) *map[string]*string {
	env := map[string]*string{"METRIC_NAMESPACE": jsii.String(metricNamespace(s))}
	maps.Copy(env, own)
	for name, value := range s.variables() {
		if value != "" {
			env[name] = jsii.String(value)
		}
	}
	return &env
}

// tracing returns whether X-Ray records calls. Lambda fixes how many: the first of each second of
// each function and 5% of the rest, which is every call of a quiet stack.
func tracing(s Settings) awslambda.Tracing {
	if s.Tracing {
		return awslambda.Tracing_ACTIVE
	}
	return awslambda.Tracing_DISABLED
}

func architecture(s Settings) awslambda.Architecture {
	if s.Arch == "x86_64" {
		return awslambda.Architecture_X86_64()
	}
	return awslambda.Architecture_ARM_64()
}

// newIdentity returns a function's role and its log group: its own, or those of the office.
func newIdentity(
	scope constructs.Construct, s Settings, p functionProps,
) (awsiam.Role, awslogs.LogGroup) {
	switch {
	case p.office == nil:
		logs := newLogGroup(scope, "Logs", s, p.name)
		return newRole(scope, logs), logs
	case p.rights == ownRights:
		return newRole(scope, p.office.logs), p.office.logs
	default:
		return p.office.role(p.rights), p.office.logs
	}
}

// newRole creates a function's role. At first it may only write to the function's log group; AWS's
// managed policy would let it write to every log group of the account.
func newRole(scope constructs.Construct, logs awslogs.LogGroup) awsiam.Role {
	role := awsiam.NewRole(scope, jsii.String("Role"), &awsiam.RoleProps{
		AssumedBy: awsiam.NewServicePrincipal(jsii.String("lambda.amazonaws.com"), nil),
	})
	logs.GrantWrite(role)
	return role
}

// setVariables adds environment variables to the functions with these names.
func setVariables(functions []function, names []string, variables map[string]*string) {
	for _, f := range functions {
		if !slices.Contains(names, f.name) {
			continue
		}
		for _, key := range slices.Sorted(maps.Keys(variables)) {
			f.function.AddEnvironment(jsii.String(key), variables[key], nil)
		}
	}
}

// functionARN returns a function's ARN by its name, for use before the function exists.
func functionARN(scope constructs.Construct, name string) *string {
	return awscdk.Stack_Of(scope).FormatArn(&awscdk.ArnComponents{
		Service:      jsii.String("lambda"),
		Resource:     jsii.String("function"),
		ResourceName: jsii.String(name),
		ArnFormat:    awscdk.ArnFormat_COLON_RESOURCE_NAME,
	})
}
