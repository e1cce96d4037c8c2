package main

import (
	"encoding/json"
	"fmt"
	"regexp"

	"github.com/aws/aws-cdk-go/awscdk/v2"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsapigateway"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsapigatewayv2"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsapigatewayv2authorizers"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsapigatewayv2integrations"
	"github.com/aws/aws-cdk-go/awscdk/v2/awscertificatemanager"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsroute53"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsroute53targets"
	"github.com/aws/constructs-go/constructs/v10"
	"github.com/aws/jsii-runtime-go"

	"github.com/allo/reservations/internal/route"
)

// api is the HTTP API with its one stage, $default: a named stage would be a part of every path.
type api struct {
	http  awsapigatewayv2.HttpApi
	stage awsapigatewayv2.HttpStage
	url   *string
}

// newAPI routes each row of the route table to its function's alias. A request that no row matches gets
// the gateway's own 404 and invokes nothing.
func newAPI(scope constructs.Construct, s Settings, functions map[string]function) api {
	scope = constructs.NewConstruct(scope, jsii.String("Api"))
	a := api{http: awsapigatewayv2.NewHttpApi(scope, jsii.String("Http"), &awsapigatewayv2.HttpApiProps{
		ApiName:            jsii.String(s.StackName()),
		Description:        jsii.String("Allo Reservations: stock that is held while the customer pays"),
		CreateDefaultStage: jsii.Bool(false),
		CorsPreflight:      cors(s),
		// With a name of one's own the other one would be a way around it.
		DisableExecuteApiEndpoint: jsii.Bool(s.Domain != nil),
	})}
	authorizer := newAuthorizer(s)
	integrations := map[string]awsapigatewayv2integrations.HttpLambdaIntegration{}
	for _, r := range route.All() {
		if integrations[r.Function] == nil {
			integrations[r.Function] = awsapigatewayv2integrations.NewHttpLambdaIntegration(jsii.String(r.Function), functions[r.Function].alias,
				&awsapigatewayv2integrations.HttpLambdaIntegrationProps{Timeout: awscdk.Duration_Seconds(jsii.Number(gatewayTimeout))})
		}
		options := &awsapigatewayv2.AddRoutesOptions{
			Path:        jsii.String(r.Path),
			Methods:     &[]awsapigatewayv2.HttpMethod{awsapigatewayv2.HttpMethod(r.Method)},
			Integration: integrations[r.Function],
		}
		guarded := r.Scope != "" && authorizer != nil
		if guarded {
			options.Authorizer = authorizer
			if s.Auth == AuthJWT {
				options.AuthorizationScopes = jsii.Strings(r.Scope)
			}
		}
		for _, made := range *a.http.AddRoutes(options) {
			if !guarded {
				explainOpenRoute(made, s, r)
			}
		}
	}
	a.stage = newStage(scope, s, a.http)
	if s.Domain != nil {
		a.url = jsii.String("https://" + s.Domain.Name)
	} else {
		a.url = a.http.ApiEndpoint()
	}
	return a
}

// arn is what a policy names to allow calls of a route.
func (a api) arn(r route.Route) *string {
	return a.http.ArnForExecuteApi(jsii.String(r.Method), jsii.String(parameter.ReplaceAllString(r.Path, "*")), jsii.String("$default"))
}

// parameter is a place in a route's path that takes any value.
var parameter = regexp.MustCompile(`\{[^}]*\}`)

// newAuthorizer is what tells the payment side from a shopper, nil when nothing does. A signed call's permission is IAM's, on the route's ARN,
// which the outputs name.
func newAuthorizer(s Settings) awsapigatewayv2.IHttpRouteAuthorizer {
	switch s.Auth {
	case AuthJWT:
		return awsapigatewayv2authorizers.NewHttpJwtAuthorizer(jsii.String("Jwt"), jsii.String(s.JWTIssuer),
			&awsapigatewayv2authorizers.HttpJwtAuthorizerProps{JwtAudience: jsii.Strings(s.JWTAudience)})
	case AuthIAM:
		return awsapigatewayv2authorizers.NewHttpIamAuthorizer()
	default:
		return nil
	}
}

// cors answers preflights for storefronts on other origins. The page of our own is on the API's, and needs none.
func cors(s Settings) *awsapigatewayv2.CorsPreflightOptions {
	if len(s.CORSOrigins) == 0 {
		return nil
	}
	return &awsapigatewayv2.CorsPreflightOptions{
		AllowOrigins:  jsii.Strings(s.CORSOrigins...),
		AllowMethods:  &[]awsapigatewayv2.CorsHttpMethod{awsapigatewayv2.CorsHttpMethod_GET, awsapigatewayv2.CorsHttpMethod_POST},
		AllowHeaders:  jsii.Strings("content-type", "idempotency-key", "authorization"),
		ExposeHeaders: jsii.Strings("location", "link", "retry-after", "idempotency-replayed", "x-request-id"),
		MaxAge:        awscdk.Duration_Hours(jsii.Number(1)),
	}
}

func newStage(scope constructs.Construct, s Settings, http awsapigatewayv2.HttpApi) awsapigatewayv2.HttpStage {
	props := &awsapigatewayv2.HttpStageProps{
		HttpApi: http, AutoDeploy: jsii.Bool(true),
		// Metrics by route would be six times twelve, each paid for: a route is a function, which has its own for nothing.
		DetailedMetricsEnabled: jsii.Bool(false),
		Throttle:               &awsapigatewayv2.ThrottleSettings{RateLimit: jsii.Number(s.ThrottleRate), BurstLimit: jsii.Number(s.ThrottleBurst)},
		AccessLogSettings: &accessLog{
			destination: awsapigatewayv2.NewLogGroupLogDestination(newLogGroup(scope, "AccessLogs", s, "access")),
			format:      awsapigateway.AccessLogFormat_Custom(jsii.String(accessLogFormat())),
		},
	}
	if s.Domain != nil {
		domain := awsapigatewayv2.NewDomainName(scope, jsii.String("Domain"), &awsapigatewayv2.DomainNameProps{
			DomainName:     jsii.String(s.Domain.Name),
			Certificate:    awscertificatemanager.Certificate_FromCertificateArn(scope, jsii.String("Certificate"), jsii.String(s.Domain.CertificateARN)),
			SecurityPolicy: awsapigatewayv2.SecurityPolicy_TLS_1_2,
		})
		props.DomainMapping = &awsapigatewayv2.DomainMappingOptions{DomainName: domain}
		zone := awsroute53.HostedZone_FromHostedZoneAttributes(scope, jsii.String("Zone"), &awsroute53.HostedZoneAttributes{
			HostedZoneId: jsii.String(s.Domain.ZoneID), ZoneName: jsii.String(s.Domain.ZoneName),
		})
		awsroute53.NewARecord(scope, jsii.String("Record"), &awsroute53.ARecordProps{
			Zone: zone, RecordName: jsii.String(s.Domain.Name),
			Target: awsroute53.RecordTarget_FromAlias(
				awsroute53targets.NewApiGatewayv2DomainProperties(domain.RegionalDomainName(), domain.RegionalHostedZoneId())),
		})
	}
	return awsapigatewayv2.NewHttpStage(scope, jsii.String("Stage"), props)
}

// accessLog is a stage's log, as the CDK wants to be told of it.
type accessLog struct {
	destination awsapigatewayv2.IAccessLogDestination
	format      awsapigateway.AccessLogFormat
}

func (a *accessLog) Destination() awsapigatewayv2.IAccessLogDestination { return a.destination }
func (a *accessLog) Format() awsapigateway.AccessLogFormat              { return a.format }

// accessLogFormat is one JSON object a request. It names the route and not the path, as the path may hold what a caller wrote.
func accessLogFormat() string {
	fields := map[string]string{
		"requestId": "$context.requestId", "time": "$context.requestTime", "route": "$context.routeKey", "status": "$context.status",
		"ip": "$context.identity.sourceIp", "bytes": "$context.responseLength", "latencyMs": "$context.responseLatency",
		"functionMs": "$context.integrationLatency", "functionStatus": "$context.integrationStatus",
		"functionError": "$context.integrationErrorMessage", "gatewayError": "$context.error.message",
		"authorizerError": "$context.authorizer.error", "subject": "$context.authorizer.claims.sub", "caller": "$context.identity.userArn",
	}
	format, err := json.Marshal(fields)
	if err != nil {
		panic(fmt.Sprintf("encode a map of strings: %v", err))
	}
	return string(format)
}
