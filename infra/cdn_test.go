package main

import (
	"fmt"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/allo/reservations/internal/route"
)

// The ids of CloudFront's own policies, as its developer guide has them ("Use managed cache
// policies").
const (
	cachingDisabled     = "4135ea2d-6df8-44a3-9df3-4b5a84be39ad"
	cachingOptimized    = "658327ea-f89d-4fab-a63d-7e88639e58f6"
	allViewerExceptHost = "b689b0a8-53d0-40ab-baf2-68738e2966ac"
)

func TestTheCDNKeepsOnlyTheCatalogAndTheAssets(t *testing.T) {
	for _, mode := range []string{"aurora-console", "external-prod"} {
		for _, problem := range synth(t, mode).cdnProblems(t, mode) {
			t.Errorf("%s: %s", mode, problem)
		}
	}
}

// These are the controls of the test above.
func TestAFaultOfTheCDNIsFound(t *testing.T) {
	const mode = "external-prod"
	for name, change := range map[string]struct{ old, replacement string }{
		"holds are kept": {
			`"CachePolicyId":"` + cachingDisabled,
			`"CachePolicyId":"` + cachingOptimized,
		},
		"the host goes along":  {allViewerExceptHost, "216adef6-5c7f-47e4-b989-5492eafa07d3"},
		"a catalog of minutes": {`"MaxTTL":1`, `"MaxTTL":60`},
		"no-store is kept":     {`"MinTTL":0`, `"MinTTL":1`},
		"one page for all":     {`"QueryStringBehavior":"whitelist"`, `"QueryStringBehavior":"none"`},
		"another path":         {`"PathPattern":"/api/products*"`, `"PathPattern":"/api/*"`},
		"plain HTTP": {
			`"ViewerProtocolPolicy":"redirect-to-https"`,
			`"ViewerProtocolPolicy":"allow-all"`,
		},
		"plain HTTP behind": {
			`"OriginProtocolPolicy":"https-only"`,
			`"OriginProtocolPolicy":"http-only"`,
		},
		"old TLS": {
			`"MinimumProtocolVersion":"TLSv1.2_2021"`,
			`"MinimumProtocolVersion":"TLSv1"`,
		},
		"old TLS behind": {
			`"OriginSSLProtocols":["TLSv1.2"]`,
			`"OriginSSLProtocols":["TLSv1"]`,
		},
		"errors are kept": {
			`{"ErrorCachingMinTTL":0,"ErrorCode":503}`,
			`{"ErrorCachingMinTTL":9,"ErrorCode":503}`,
		},
		"no log":                      {`"Logging":`, `"Logged":`},
		"a log for ever":              {`"ExpirationInDays":90`, `"ExpirationInDays":900`},
		"an open log":                 {`"BlockPublicAcls":true`, `"BlockPublicAcls":false`},
		"no compression":              {`"Compress":true`, `"Compress":false`},
		"old HTTP":                    {`"HttpVersion":"http2and3"`, `"HttpVersion":"http1.1"`},
		"no firewall":                 {`"WebACLId":`, `"WebACL":`},
		"one origin's answer for all": {`"Headers":["Origin",`, `"Headers":["Accept",`},
	} {
		t.Run(name, func(t *testing.T) {
			tpl := changed(t, synth(t, mode), change.old, change.replacement)
			if len(tpl.cdnProblems(t, mode)) == 0 {
				t.Errorf("the test accepts %s", change.replacement)
			}
		})
	}
}

// cdnProblems says what is wrong with the CDN of a mode.
func (tpl template) cdnProblems(t *testing.T, mode string) (found []string) {
	t.Helper()
	config := tpl.only(t, "AWS::CloudFront::Distribution").get("DistributionConfig")
	want := map[string]any{
		"Enabled": true, "HttpVersion": "http2and3", "IPV6Enabled": true,
		"CustomErrorResponses": wantErrorResponses(), "WebACLId": nil, "ViewerCertificate": nil,
		"Aliases": nil,
	}
	if mode == "external-prod" {
		want["WebACLId"] = modes[mode]["cdnWebAcl"]
		want["Aliases"] = []any{"shop.example.com"}
		want["ViewerCertificate"] = map[string]any{
			"AcmCertificateArn":      modes[mode]["cdnCertificateArn"],
			"MinimumProtocolVersion": "TLSv1.2_2021", "SslSupportMethod": "sni-only",
		}
	}
	for key, value := range want {
		if diff := gocmp.Diff(value, dig(config, key)); diff != "" {
			found = append(found, fmt.Sprintf("%s (-want +got):\n%s", key, diff))
		}
	}
	found = append(found, tpl.behaviorProblems(t, mode, config)...)
	found = append(found, originProblems(mode, config)...)
	return append(found, tpl.cdnLogProblems(t, mode, config)...)
}

func wantErrorResponses() (all []any) {
	for _, status := range cdnErrors {
		all = append(all, map[string]any{"ErrorCode": status, "ErrorCachingMinTTL": 0.0})
	}
	return all
}

// behaviorProblems says what the CDN keeps that it may not, and passes on that it may not.
func (tpl template) behaviorProblems(t *testing.T, mode string, config any) (found []string) {
	t.Helper()
	policy := tpl.only(t, "AWS::CloudFront::CachePolicy")
	headers := map[string]any{"HeaderBehavior": "none"}
	if modes[mode]["corsOrigins"] != "" {
		headers = map[string]any{"HeaderBehavior": "whitelist", "Headers": []any{
			"Origin", "Access-Control-Request-Method", "Access-Control-Request-Headers",
		}}
	}
	behaviors := map[string]any{"": dig(config, "DefaultCacheBehavior")}
	for _, b := range asList(dig(config, "CacheBehaviors")) {
		behaviors[fmt.Sprint(dig(b, "PathPattern"))] = b
	}
	type keeps struct {
		CachePolicy, RequestPolicy, Methods any
		Compress, Protocol                  any
	}
	const viewers = "redirect-to-https"
	reads := []any{"GET", "HEAD", "OPTIONS"}
	want := map[string]keeps{
		"": {
			cachingDisabled, allViewerExceptHost,
			[]any{"GET", "HEAD", "OPTIONS", "PUT", "PATCH", "POST", "DELETE"},
			true, viewers,
		},
		"/api/products*": {map[string]any{"Ref": policy.id}, nil, reads, true, viewers},
		"/assets/*":      {cachingOptimized, nil, reads, true, viewers},
	}
	got := map[string]keeps{}
	for path, b := range behaviors {
		got[path] = keeps{
			dig(b, "CachePolicyId"), dig(b, "OriginRequestPolicyId"), dig(b, "AllowedMethods"),
			dig(b, "Compress"), dig(b, "ViewerProtocolPolicy"),
		}
	}
	if diff := gocmp.Diff(want, got); diff != "" {
		found = append(found, "the behaviors (-want +got):\n"+diff)
	}
	catalog := policy.get("CachePolicyConfig")
	wantCatalog := map[string]any{
		"MinTTL": 0.0, "DefaultTTL": 0.0, "MaxTTL": 1.0,
		"ParametersInCacheKeyAndForwardedToOrigin": map[string]any{
			"QueryStringsConfig": map[string]any{
				"QueryStringBehavior": "whitelist",
				"QueryStrings":        []any{"cursor", "limit", "q", "sku", "total"},
			},
			"CookiesConfig": map[string]any{"CookieBehavior": "none"},
			"HeadersConfig": headers,

			"EnableAcceptEncodingGzip": true, "EnableAcceptEncodingBrotli": true,
		},
	}
	for key, value := range wantCatalog {
		if diff := gocmp.Diff(value, dig(catalog, key)); diff != "" {
			found = append(found, fmt.Sprintf("the catalog's %s (-want +got):\n%s", key, diff))
		}
	}
	return found
}

// originProblems says what is wrong with the way from the CDN to the API.
func originProblems(mode string, config any) (found []string) {
	origins := asList(dig(config, "Origins"))
	if len(origins) != 1 {
		return []string{fmt.Sprintf("the CDN has %d origins", len(origins))}
	}
	want := map[string]any{
		"OriginProtocolPolicy": "https-only", "OriginSSLProtocols": []any{"TLSv1.2"},
		"OriginReadTimeout": 30.0, "OriginKeepaliveTimeout": 30.0,
	}
	if diff := gocmp.Diff(want, dig(origins[0], "CustomOriginConfig")); diff != "" {
		found = append(found, "the origin (-want +got):\n"+diff)
	}
	host := asJSON(dig(origins[0], "DomainName"))
	wantHost := `"ApiEndpoint"`
	if modes[mode]["domainName"] != "" {
		wantHost = `"api.example.com"`
	}
	if !strings.Contains(host, wantHost) {
		found = append(found, "the CDN reads from "+host)
	}
	return found
}

// cdnLogProblems says what is wrong with the CDN's access log.
func (tpl template) cdnLogProblems(t *testing.T, mode string, config any) (found []string) {
	t.Helper()
	bucket := tpl.only(t, "AWS::S3::Bucket")
	if to := asJSON(dig(config, "Logging", "Bucket")); !strings.Contains(to, bucket.id) {
		found = append(found, "the log goes to "+to)
	}
	days, policy := 7.0, "Delete"
	if isProd(mode) {
		days, policy = 90.0, "RetainExceptOnCreate"
	}
	want := map[string]any{
		"LifecycleConfiguration": map[string]any{
			"Rules": []any{map[string]any{"ExpirationInDays": days, "Status": "Enabled"}},
		},
		"PublicAccessBlockConfiguration": map[string]any{
			"BlockPublicAcls": true, "BlockPublicPolicy": true, "IgnorePublicAcls": true,
			"RestrictPublicBuckets": true,
		},
	}
	for key, value := range want {
		if diff := gocmp.Diff(value, bucket.get(key)); diff != "" {
			found = append(found, fmt.Sprintf("the log's %s (-want +got):\n%s", key, diff))
		}
	}
	if bucket.attributes["DeletionPolicy"] != policy {
		found = append(found, fmt.Sprintf("on deletion the log's policy is %v, want %s",
			bucket.attributes["DeletionPolicy"], policy))
	}
	return found
}

// A route that has a scope, or that is about one shopper's hold, must never be one of the kept
// ones.
func TestTheKeptPathsAreTheCatalogsAlone(t *testing.T) {
	kept := 0
	for _, r := range route.All() {
		for _, b := range asList(dig(synth(t, "aurora-console").
			only(t, "AWS::CloudFront::Distribution").get("DistributionConfig"), "CacheBehaviors")) {
			pattern := fmt.Sprint(dig(b, "PathPattern"))
			if !strings.HasPrefix(r.Path, strings.TrimSuffix(pattern, "*")) {
				continue
			}
			kept++
			if r.Function != "list-products" || r.Scope != "" || r.OptionalScope != "" {
				t.Errorf("the CDN keeps the answers of %s", r.Key())
			}
		}
	}
	if kept != 4 {
		t.Errorf("the CDN keeps %d routes, want GET and HEAD of the catalog and of one product", kept)
	}
}

func TestTheCDNHasItsOutputAndItsRecord(t *testing.T) {
	const mode = "external-prod"
	tpl := synth(t, mode)
	record := tpl.named(t, "AWS::Route53::RecordSet", "Name", "shop.example.com.")
	if !strings.Contains(asJSON(record.get("AliasTarget")), "CdnDistribution") {
		t.Errorf("the record leads to %s", asJSON(record.properties))
	}
	if url := dig(tpl.body, "Outputs", "CdnUrl", "Value"); url != "https://shop.example.com" {
		t.Errorf("the output CdnUrl is %v", url)
	}
	url := asJSON(dig(synth(t, "aurora-console").body, "Outputs", "CdnUrl", "Value"))
	if !strings.Contains(url, `"https://",{"Fn::GetAtt":["CdnDistribution`) {
		t.Errorf("without a domain, the output CdnUrl is %s", url)
	}
	for _, mode := range []string{"aurora-dev", "aurora-prod"} {
		tpl := synth(t, mode)
		if len(tpl.resources("AWS::CloudFront::Distribution")) > 0 ||
			strings.Contains(tpl.outputs(), "CdnUrl") {
			t.Errorf("%s has a CDN without cdn=on", mode)
		}
	}
}
