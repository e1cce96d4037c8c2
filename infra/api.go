package main

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"

	"github.com/aws/aws-cdk-go/awscdk/v2"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsapigateway"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsapigatewayv2"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsapigatewayv2authorizers"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsapigatewayv2integrations"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsiam"
	"github.com/aws/aws-cdk-go/awscdk/v2/awslambda"
	"github.com/aws/aws-cdk-go/awscdk/v2/awslogs"
	"github.com/aws/constructs-go/constructs/v10"
	"github.com/aws/jsii-runtime-go"

	"github.com/allo/reservations/internal/route"
)

// api is the HTTP API with its only stage, $default. A named stage would be part of every path.
type api struct {
	scope constructs.Construct
	http  awsapigatewayv2.HttpApi
	stage awsapigatewayv2.HttpStage
	// metrics is the stage by its name. An alarm that refers to the stage itself would wait for it,
	// the stage waits for routes (throttleRoutes), and their functions' rollouts wait for the alarm.
	metrics   awsapigatewayv2.IHttpStage
	accessLog awslogs.LogGroup
	url       *string
}

// stageName is the name of the stage whose name isn't a part of the paths.
const stageName = "$default"

// newAPI creates the API without its routes (addRoutes).
func newAPI(scope constructs.Construct, s Settings) api {
	scope = constructs.NewConstruct(scope, jsii.String("Api"))
	a := api{scope: scope, http: awsapigatewayv2.NewHttpApi(scope, jsii.String("Http"),
		&awsapigatewayv2.HttpApiProps{
			ApiName: jsii.String(s.StackName()),
			Description: jsii.String(
				"Allo Reservations: stock that is held while the customer pays"),
			CreateDefaultStage: jsii.Bool(false),
			CorsPreflight:      cors(s),
			// With a custom domain, the API's own URL would be a way around it.
			DisableExecuteApiEndpoint: jsii.Bool(s.Domain != nil),
		})}
	a.accessLog = newLogGroup(scope, "AccessLogs", s, vendedName(s, "access"))
	a.stage = newStage(scope, s, a.http, a.accessLog)
	a.metrics = awsapigatewayv2.HttpStage_FromHttpStageAttributes(scope, jsii.String("Metrics"),
		&awsapigatewayv2.HttpStageAttributes{Api: a.http, StageName: jsii.String(stageName)})
	if s.Domain != nil {
		a.url = jsii.String("https://" + s.Domain.Name)
	} else { // The CDK refuses to name an endpoint that is disabled.
		a.url = a.http.ApiEndpoint()
	}
	return a
}

// addRoutes adds a route for each row of the route table, to the alias of the row's function. The
// table sends a GET or HEAD of any other path to the function web. The gateway answers every other
// request with its own 404, which costs no invocation.
func (a api) addRoutes(s Settings, functions []function, in *signIn) {
	authorizer, integrations := newAuthorizer(s, in), newIntegrations(a.scope, functions)
	routes := map[string]awsapigatewayv2.HttpRoute{}
	for _, r := range route.All() {
		routes[r.Key()] = addRoute(
			a.http, s, r.Guarded(s.ReserveAuth), integrations[r.Function], authorizer)
	}
	a.throttleRoutes(s, routes)
	a.invokeByRole(s, functions)
}

// newIntegrations returns an integration for each function's alias, by the function's name.
func newIntegrations(
	scope constructs.Construct, functions []function,
) map[string]awsapigatewayv2integrations.HttpLambdaIntegration {
	scope = constructs.NewConstruct(scope, jsii.String("Invoked"))
	integrations := map[string]awsapigatewayv2integrations.HttpLambdaIntegration{}
	for _, f := range functions {
		// The alias without its permissions: the gateway has a role (invokeByRole).
		alias := awslambda.Function_FromFunctionAttributes(scope, jsii.String(f.name),
			&awslambda.FunctionAttributes{
				FunctionArn:     f.alias.FunctionArn(),
				SameEnvironment: jsii.Bool(false),
				SkipPermissions: jsii.Bool(true),
			})
		integrations[f.name] = awsapigatewayv2integrations.NewHttpLambdaIntegration(
			jsii.String(f.name), alias, &awsapigatewayv2integrations.HttpLambdaIntegrationProps{
				Timeout:                awscdk.Duration_Seconds(jsii.Number(gatewayTimeout)),
				ScopePermissionToRoute: jsii.Bool(false),
			})
	}
	return integrations
}

// invokeByRole gives the gateway one role that may invoke the alias of each function. A permission
// on each alias would be a resource of the stack for each function, of which a stack can have only
// so many.
//
// The role names the aliases by their names, so it is there before any alias moves in a deploy.
func (a api) invokeByRole(s Settings, functions []function) {
	role := awsiam.NewRole(a.scope, jsii.String("Invoker"), &awsiam.RoleProps{
		AssumedBy:   servicePrincipal("apigateway.amazonaws.com"),
		Description: jsii.String("Lets the API's routes invoke the functions"),
	})
	var aliases []*string
	for _, f := range functions {
		aliases = append(aliases, functionARN(a.scope, s.StackName()+"-"+f.name+":"+liveAlias))
	}
	role.AddToPolicy(awsiam.NewPolicyStatement(&awsiam.PolicyStatementProps{
		Actions: jsii.Strings("lambda:InvokeFunction"), Resources: &aliases,
	}))
	for _, node := range *a.http.Node().FindAll(constructs.ConstructOrder_PREORDER) {
		if i, ok := node.(awsapigatewayv2.CfnIntegration); ok {
			i.SetCredentialsArn(role.RoleArn())
		}
	}
}

// addRoute adds a route. The authorizer guards it if its row in the table has a scope.
func addRoute(
	http awsapigatewayv2.HttpApi, s Settings, r route.Route,
	integration awsapigatewayv2integrations.HttpLambdaIntegration,
	authorizer awsapigatewayv2.IHttpRouteAuthorizer,
) awsapigatewayv2.HttpRoute {
	options := &awsapigatewayv2.AddRoutesOptions{
		Path:        jsii.String(r.Path),
		Methods:     &[]awsapigatewayv2.HttpMethod{awsapigatewayv2.HttpMethod(r.Method)},
		Integration: integration,
	}
	guarded := r.Scope != "" && authorizer != nil
	if guarded {
		options.Authorizer = authorizer
		if s.UsesTokens() {
			options.AuthorizationScopes = jsii.Strings(r.Scope)
		}
	}
	added := (*http.AddRoutes(options))[0] // one for each method
	if !guarded {
		suppressOpenRoute(added, s, r)
	}
	return added
}

// arn returns the ARN that an IAM policy names to allow calls of a route.
func (a api) arn(r route.Route) *string {
	return a.http.ArnForExecuteApi(jsii.String(r.Method),
		jsii.String(pathParameter.ReplaceAllString(r.Path, "*")), jsii.String(stageName))
}

// pathParameter matches a parameter of a route's path, such as {id}.
var pathParameter = regexp.MustCompile(`\{[^}]*\}`)

// newAuthorizer returns the authorizer for the routes that have a scope, nil for auth=none. With
// auth=iam, IAM decides by the permissions of the caller's role on the route's ARN; the stack's
// outputs name these ARNs.
func newAuthorizer(s Settings, in *signIn) awsapigatewayv2.IHttpRouteAuthorizer {
	switch s.Auth {
	case AuthCognito:
		// The pool's access tokens have no audience. The gateway then compares their client:
		// https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-jwt-authorizer.html
		clients := in.clients()
		if s.JWTAudience != "" {
			clients = append(clients, *jsii.Strings(strings.Split(s.JWTAudience, ",")...)...)
		}
		return awsapigatewayv2authorizers.NewHttpJwtAuthorizer(
			jsii.String("Jwt"), in.pool.UserPoolProviderUrl(),
			&awsapigatewayv2authorizers.HttpJwtAuthorizerProps{JwtAudience: &clients})
	case AuthJWT:
		return awsapigatewayv2authorizers.NewHttpJwtAuthorizer(
			jsii.String("Jwt"), jsii.String(s.JWTIssuer),
			&awsapigatewayv2authorizers.HttpJwtAuthorizerProps{
				JwtAudience: jsii.Strings(s.JWTAudience),
			})
	case AuthIAM:
		return awsapigatewayv2authorizers.NewHttpIamAuthorizer()
	default:
		return nil
	}
}

// cors answers preflight requests from storefronts on other origins. The demo storefront is on the
// API's own origin and needs none.
func cors(s Settings) *awsapigatewayv2.CorsPreflightOptions {
	if len(s.CORSOrigins) == 0 {
		return nil
	}
	return &awsapigatewayv2.CorsPreflightOptions{
		AllowOrigins: jsii.Strings(s.CORSOrigins...),
		AllowMethods: &[]awsapigatewayv2.CorsHttpMethod{
			awsapigatewayv2.CorsHttpMethod_GET, awsapigatewayv2.CorsHttpMethod_POST,
		},
		AllowHeaders: jsii.Strings("content-type", "idempotency-key", "authorization"),
		ExposeHeaders: jsii.Strings(
			"location", "link", "retry-after", "idempotency-replayed", "x-request-id",
			"stock-as-of", "total-count"),
		MaxAge: awscdk.Duration_Hours(jsii.Number(1)),
	}
}

func newStage(
	scope constructs.Construct, s Settings, http awsapigatewayv2.HttpApi, log awslogs.LogGroup,
) awsapigatewayv2.HttpStage {
	props := &awsapigatewayv2.HttpStageProps{
		HttpApi:    http,
		AutoDeploy: jsii.Bool(true),
		// Metrics for each route are charged. Each function has its own metrics for free.
		DetailedMetricsEnabled: jsii.Bool(false),
		Throttle: &awsapigatewayv2.ThrottleSettings{
			RateLimit: jsii.Number(s.ThrottleRate), BurstLimit: jsii.Number(s.ThrottleBurst),
		},
		AccessLogSettings: &accessLog{
			destination: awsapigatewayv2.NewLogGroupLogDestination(log),
			format:      awsapigateway.AccessLogFormat_Custom(jsii.String(accessLogFormat())),
		},
	}
	if s.Domain != nil {
		props.DomainMapping = &awsapigatewayv2.DomainMappingOptions{
			DomainName: newDomain(scope, *s.Domain),
		}
	}
	return awsapigatewayv2.NewHttpStage(scope, jsii.String("Stage"), props)
}

// accessLog implements the CDK's interface for a stage's access log.
type accessLog struct {
	destination awsapigatewayv2.IAccessLogDestination
	format      awsapigateway.AccessLogFormat
}

func (a *accessLog) Destination() awsapigatewayv2.IAccessLogDestination { return a.destination }
func (a *accessLog) Format() awsapigateway.AccessLogFormat              { return a.format }

// accessLogFormat returns the format of an access log line: one JSON object for each request. It
// has the route and not the path, because a caller can write anything into the path. It doesn't
// have the token's sub, which may be a customer: an erasure can't reach a log.
//
// functionStatus is the status that our function answered. lambdaStatus is Lambda's own, such as
// 429 for a call that it throttled. AWS's page of the variables says both of the variable
// $context.integrationStatus, so the format has the names of which it says one.
func accessLogFormat() string {
	fields := map[string]string{
		"requestId":       "$context.requestId",
		"time":            "$context.requestTime",
		"route":           "$context.routeKey",
		"status":          "$context.status",
		"ip":              "$context.identity.sourceIp",
		"bytes":           "$context.responseLength",
		"latencyMs":       "$context.responseLatency",
		"functionMs":      "$context.integrationLatency",
		"functionStatus":  "$context.integration.status",
		"lambdaStatus":    "$context.integration.integrationStatus",
		"functionError":   "$context.integrationErrorMessage",
		"gatewayError":    "$context.error.message",
		"authorizerError": "$context.authorizer.error",
		"caller":          "$context.identity.userArn",
	}
	format, err := json.Marshal(fields)
	if err != nil {
		panic(fmt.Sprintf("encode a map of strings: %v", err))
	}
	return string(format)
}
