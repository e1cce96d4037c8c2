package main

import (
	"github.com/aws/aws-cdk-go/awscdk/v2"
	"github.com/aws/aws-cdk-go/awscdk/v2/awscertificatemanager"
	"github.com/aws/aws-cdk-go/awscdk/v2/awscloudfront"
	"github.com/aws/aws-cdk-go/awscdk/v2/awscloudfrontorigins"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsroute53"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsroute53targets"
	"github.com/aws/aws-cdk-go/awscdk/v2/awss3"
	"github.com/aws/aws-cdk-go/awscdk/v2/awssecretsmanager"
	"github.com/aws/constructs-go/constructs/v10"
	"github.com/aws/jsii-runtime-go"
)

const (
	// catalogSeconds is how long the CDN keeps a page of the catalog, whatever Cache-Control says.
	catalogSeconds = 1
	// originSeconds is how long the CDN waits for the API. The gateway itself answers within 30 s.
	originSeconds = 30
	// keepAliveSeconds is how long an idle connection to the API stays open.
	keepAliveSeconds = 30
)

// cdnErrors are the answers that CloudFront would keep for ten seconds by default. A hold that
// isn't there yet and a database that is out of reach for a moment must not look so for longer.
var cdnErrors = []float64{400, 403, 404, 405, 414, 416, 500, 501, 502, 503, 504}

// corsHeaders are the headers by which the gateway knows a request of another origin's storefront.
var corsHeaders = []string{
	"Origin", "Access-Control-Request-Method", "Access-Control-Request-Headers",
}

// catalogQuery are the parameters of the catalog. The API ignores all others, so the CDN doesn't
// tell answers apart by them: a random one would pass the cache with each request.
var catalogQuery = []string{"cursor", "limit", "q", "sku", "total"}

// cdn is CloudFront before the API. It answers the shoppers who look at the catalog, so that a sale
// costs the database one read of each page a second and place, however many look.
type cdn struct {
	distribution awscloudfront.Distribution
	url          *string
	// secrets are those that the functions take. The CDN shows the first.
	secrets []awssecretsmanager.Secret
}

// newCDN returns nil without cdn=on. The edge is nil without waf=on.
func newCDN(scope constructs.Construct, s Settings, a api, e *edge) *cdn {
	scope = constructs.NewConstruct(scope, jsii.String("Cdn"))
	if !s.WAF && !s.Aurora {
		keepLogs(scope, firewallLogs, s, "firewall")
	}
	if !s.CDN {
		return nil
	}
	c := &cdn{secrets: newOriginSecrets(scope, s)}
	origin := newOrigin(s, a, c.secrets[0])
	props := &awscloudfront.DistributionProps{
		Comment:         jsii.String(s.StackName()),
		DefaultBehavior: passThrough(origin),
		AdditionalBehaviors: &map[string]*awscloudfront.BehaviorOptions{
			"/api/products*": cached(origin, newCatalogPolicy(scope, s)),
			"/assets/*":      cached(origin, awscloudfront.CachePolicy_CACHING_OPTIMIZED()),
		},
		ErrorResponses: neverKeepErrors(),
		HttpVersion:    awscloudfront.HttpVersion_HTTP2_AND_3,
		EnableLogging:  jsii.Bool(true),
		LogBucket:      newLogBucket(scope, s),
	}
	switch {
	case e != nil:
		props.WebAclId = e.arn(scope, s)
	case s.WebACL != "":
		props.WebAclId = jsii.String(s.WebACL)
	}
	if s.CDNDomain != nil {
		props.DomainNames = jsii.Strings(s.CDNDomain.Name)
		props.Certificate = awscertificatemanager.Certificate_FromCertificateArn(
			scope, jsii.String("Certificate"), jsii.String(s.CDNDomain.CertificateARN))
		props.MinimumProtocolVersion = awscloudfront.SecurityPolicyProtocol_TLS_V1_2_2021
	}
	c.distribution = awscloudfront.NewDistribution(scope, jsii.String("Distribution"), props)
	suppressDistribution(c.distribution, s)
	c.url = awscdk.Fn_Join(jsii.String(""),
		&[]*string{jsii.String("https://"), c.distribution.DistributionDomainName()})
	if s.CDNDomain != nil {
		c.url = jsii.String("https://" + s.CDNDomain.Name)
		newCDNRecord(scope, *s.CDNDomain, c.distribution)
	}
	return c
}

// newOrigin names the API as the place from which the CDN reads. The CDN shows it the secret with
// each request, whatever cdnOnly is: so turning that on later refuses nobody who comes through.
func newOrigin(s Settings, a api, secret awssecretsmanager.Secret) awscloudfront.IOrigin {
	var host *string
	if s.Domain != nil {
		host = jsii.String(s.Domain.Name)
	} else { // The host of a URL is between its second and its third slash.
		host = awscdk.Fn_Select(jsii.Number(2), awscdk.Fn_Split(jsii.String("/"), a.url, nil))
	}
	return awscloudfrontorigins.NewHttpOrigin(host, &awscloudfrontorigins.HttpOriginProps{
		ProtocolPolicy:     awscloudfront.OriginProtocolPolicy_HTTPS_ONLY,
		OriginSslProtocols: &[]awscloudfront.OriginSslPolicy{awscloudfront.OriginSslPolicy_TLS_V1_2},
		ReadTimeout:        awscdk.Duration_Seconds(jsii.Number(originSeconds)),
		KeepaliveTimeout:   awscdk.Duration_Seconds(jsii.Number(keepAliveSeconds)),
		CustomHeaders: &map[string]*string{
			originHeader: secret.SecretValue().UnsafeUnwrap(),
		},
	})
}

// passThrough keeps nothing, and passes on everything but the name of the host, by which the
// gateway knows its API. It passes on the token as well, because it keeps nothing (AWS re:Post,
// "How can I configure CloudFront to forward the Authorization header to the origin?").
func passThrough(origin awscloudfront.IOrigin) *awscloudfront.BehaviorOptions {
	return &awscloudfront.BehaviorOptions{
		Origin:         origin,
		AllowedMethods: awscloudfront.AllowedMethods_ALLOW_ALL(),
		CachePolicy:    awscloudfront.CachePolicy_CACHING_DISABLED(),
		OriginRequestPolicy: awscloudfront.
			OriginRequestPolicy_ALL_VIEWER_EXCEPT_HOST_HEADER(),
		ViewerProtocolPolicy: awscloudfront.ViewerProtocolPolicy_REDIRECT_TO_HTTPS,
		Compress:             jsii.Bool(true),
	}
}

// cached keeps answers by a policy. The API gets only what the policy tells answers apart by, so
// that nobody can put an answer into the cache that others shouldn't get.
func cached(
	origin awscloudfront.IOrigin, policy awscloudfront.ICachePolicy,
) *awscloudfront.BehaviorOptions {
	return &awscloudfront.BehaviorOptions{
		Origin:               origin,
		AllowedMethods:       awscloudfront.AllowedMethods_ALLOW_GET_HEAD_OPTIONS(),
		CachePolicy:          policy,
		ViewerProtocolPolicy: awscloudfront.ViewerProtocolPolicy_REDIRECT_TO_HTTPS,
		Compress:             jsii.Bool(true),
	}
}

// newCatalogPolicy keeps a page of the catalog for as long as its Cache-Control says, which is a
// second. The query is the page. An answer to another origin's storefront names that origin.
func newCatalogPolicy(scope constructs.Construct, s Settings) awscloudfront.ICachePolicy {
	headers := awscloudfront.CacheHeaderBehavior_None()
	if len(s.CORSOrigins) > 0 {
		headers = awscloudfront.CacheHeaderBehavior_AllowList(*jsii.Strings(corsHeaders...)...)
	}
	return awscloudfront.NewCachePolicy(scope, jsii.String("Catalog"),
		&awscloudfront.CachePolicyProps{
			// A policy's name is one of the account's in all regions.
			CachePolicyName: awscdk.Fn_Join(jsii.String("-"), &[]*string{
				jsii.String(s.StackName()), jsii.String("catalog"), awscdk.Aws_REGION(),
			}),
			Comment: jsii.String("The catalog, for a second"),
			// Nothing is kept that the API doesn't allow to be kept.
			MinTtl:     awscdk.Duration_Seconds(jsii.Number(0)),
			DefaultTtl: awscdk.Duration_Seconds(jsii.Number(0)),
			MaxTtl:     awscdk.Duration_Seconds(jsii.Number(catalogSeconds)),
			QueryStringBehavior: awscloudfront.CacheQueryStringBehavior_AllowList(
				*jsii.Strings(catalogQuery...)...),
			HeaderBehavior:             headers,
			CookieBehavior:             awscloudfront.CacheCookieBehavior_None(),
			EnableAcceptEncodingGzip:   jsii.Bool(true),
			EnableAcceptEncodingBrotli: jsii.Bool(true),
		})
}

func neverKeepErrors() *[]*awscloudfront.ErrorResponse {
	var all []*awscloudfront.ErrorResponse
	for _, status := range cdnErrors {
		all = append(all, &awscloudfront.ErrorResponse{
			HttpStatus: jsii.Number(status), Ttl: awscdk.Duration_Seconds(jsii.Number(0)),
		})
	}
	return &all
}

// newLogBucket creates the bucket of the CDN's access log, which is kept as long as the API's.
// CloudFront writes it with an access list of its own. Its newer kind of log, in CloudWatch, can be
// created only by a stack in us-east-1.
func newLogBucket(scope constructs.Construct, s Settings) awss3.Bucket {
	removal := awscdk.RemovalPolicy_DESTROY
	if s.Stage.Protected {
		removal = awscdk.RemovalPolicy_RETAIN_ON_UPDATE_OR_DELETE
	}
	bucket := awss3.NewBucket(scope, jsii.String("Logs"), &awss3.BucketProps{
		ObjectOwnership:   awss3.ObjectOwnership_BUCKET_OWNER_PREFERRED,
		Encryption:        awss3.BucketEncryption_S3_MANAGED,
		BlockPublicAccess: awss3.BlockPublicAccess_BLOCK_ALL(),
		EnforceSSL:        jsii.Bool(true),
		LifecycleRules: &[]*awss3.LifecycleRule{{
			Expiration: awscdk.Duration_Days(jsii.Number(s.Stage.LogDays)),
		}},
		RemovalPolicy:     removal,
		AutoDeleteObjects: jsii.Bool(!s.Stage.Protected),
	})
	suppressLogOfTheLog(bucket)
	return bucket
}

func newCDNRecord(
	scope constructs.Construct, d Domain, distribution awscloudfront.Distribution,
) {
	zone := awsroute53.HostedZone_FromHostedZoneAttributes(scope, jsii.String("Zone"),
		&awsroute53.HostedZoneAttributes{
			HostedZoneId: jsii.String(d.ZoneID), ZoneName: jsii.String(d.ZoneName),
		})
	awsroute53.NewARecord(scope, jsii.String("Record"), &awsroute53.ARecordProps{
		Zone:       zone,
		RecordName: jsii.String(d.Name),
		Target: awsroute53.RecordTarget_FromAlias(
			awsroute53targets.NewCloudFrontTarget(distribution)),
	})
}

// pages returns the URLs at which the pages are.
func (c *cdn) pages(a api) []*string {
	if c == nil {
		return []*string{a.url}
	}
	return []*string{a.url, c.url}
}

// publicURL returns the shoppers' address: the CDN's, or else the API's.
func (c *cdn) publicURL(a api) *string {
	if c == nil {
		return a.url
	}
	return c.url
}

// describe declares the CDN's output.
func (c *cdn) describe(output func(id, description string, value *string)) {
	if c != nil {
		output("CdnUrl", "The URL of the shop for shoppers, behind CloudFront", c.url)
	}
}
