package main

import (
	"github.com/aws/aws-cdk-go/awscdk/v2"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsappsync"
	"github.com/aws/aws-cdk-go/awscdk/v2/awscloudwatch"
	"github.com/aws/constructs-go/constructs/v10"
	"github.com/aws/jsii-runtime-go"
)

// liveNamespaces are the namespaces of the channels: /stock/all has the stock, and /holds/ID has
// what happens to one hold.
var liveNamespaces = []string{"stock", "holds"}

// liveCache is how many seconds AppSync keeps an answer of the authorizer. It is zero, because
// AppSync may keep it for the token alone, and every page has the same token. An answer to a page
// that connects would then open every channel, the holds of all shoppers among them.
const liveCache = 0

// live is the way by which the pages hear of the stock and of their own hold while it changes: an
// AppSync Event API. It keeps the pages' WebSockets, so that no function of ours runs for a page
// that waits. The relay publishes, and nobody else may.
type live struct {
	api awsappsync.EventApi
	// authorizer says which channels a page may follow.
	authorizer function
}

// newLive returns nil without live=on. GET /api/live then tells the pages to poll.
func newLive(scope constructs.Construct, s Settings, assets string, o *office) *live {
	if !s.Live {
		return nil
	}
	scope = constructs.NewConstruct(scope, jsii.String("Live"))
	l := &live{authorizer: newFunction(scope, s, assets, functionProps{
		name:        "live-authorizer",
		description: "Says which live channels a page may follow",
		timeout:     apiTimeout,
		office:      o,
		rights:      noRights,
	})}
	pages := &[]awsappsync.AppSyncAuthorizationType{awsappsync.AppSyncAuthorizationType_LAMBDA}
	relay := &[]awsappsync.AppSyncAuthorizationType{awsappsync.AppSyncAuthorizationType_IAM}
	l.api = awsappsync.NewEventApi(scope, jsii.String("Api"), &awsappsync.EventApiProps{
		ApiName: jsii.String(s.StackName() + "-live"),
		AuthorizationConfig: &awsappsync.EventApiAuthConfig{
			AuthProviders: &[]*awsappsync.AppSyncAuthProvider{
				{AuthorizationType: awsappsync.AppSyncAuthorizationType_IAM},
				{
					AuthorizationType: awsappsync.AppSyncAuthorizationType_LAMBDA,
					LambdaAuthorizerConfig: &awsappsync.AppSyncLambdaAuthorizerConfig{
						Handler:         l.authorizer.alias,
						ResultsCacheTtl: awscdk.Duration_Seconds(jsii.Number(liveCache)),
					},
				},
			},
			ConnectionAuthModeTypes:       pages,
			DefaultSubscribeAuthModeTypes: pages,
			DefaultPublishAuthModeTypes:   relay,
		},
	})
	for _, name := range liveNamespaces {
		l.api.AddChannelNamespace(jsii.String(name), nil)
	}
	return l
}

// functions returns the live channel's own functions.
func (l *live) functions() []function {
	if l == nil {
		return nil
	}
	return []function{l.authorizer}
}

// connect tells the relay and the pages where the channel is, and lets the relay publish.
func (l *live) connect(relay *function, routed []function) {
	if l == nil {
		return
	}
	setVariables(append([]function{*relay}, routed...), []string{"relay", "live", "web"},
		map[string]*string{"LIVE_URL": l.url(), "LIVE_HTTP": l.http()})
	for _, name := range liveNamespaces {
		l.api.Grant(relay.function, awsappsync.AppSyncEventResource_OfChannelNamespace(
			jsii.String(name)), jsii.String("appsync:EventPublish"))
	}
}

// url returns the URL of the pages' WebSockets.
func (l *live) url() *string {
	return awscdk.Fn_Join(jsii.String(""),
		&[]*string{jsii.String("wss://"), l.api.RealtimeDns(), jsii.String("/event/realtime")})
}

// http returns the URL to which the relay publishes.
func (l *live) http() *string {
	return awscdk.Fn_Join(jsii.String(""), &[]*string{jsii.String("https://"), l.api.HttpDns()})
}

// metric returns a metric of the calls that publish. The pages' connections have others.
func (l *live) metric(name string) awscloudwatch.IMetric {
	return awscloudwatch.NewMetric(&awscloudwatch.MetricProps{
		Namespace: jsii.String("AWS/AppSync"), MetricName: jsii.String(name),
		// Event APIs have another dimension than GraphQL's:
		// https://docs.aws.amazon.com/appsync/latest/eventapi/cw-metrics.html
		DimensionsMap: &map[string]*string{"EventAPIId": l.api.ApiId()},
		Statistic:     jsii.String("Sum"),
		Period:        awscdk.Duration_Minutes(jsii.Number(1)),
	})
}
