package main

import (
	"strings"

	"github.com/aws/aws-cdk-go/awscdk/v2"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsiam"
	"github.com/aws/aws-cdk-go/awscdk/v2/awslogs"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsssm"
	"github.com/aws/aws-cdk-go/awscdk/v2/awswafv2"
	"github.com/aws/aws-cdk-go/awscdk/v2/customresources"
	"github.com/aws/constructs-go/constructs/v10"
	"github.com/aws/jsii-runtime-go"
)

// edge is the firewall before the CDN. CloudFront's firewalls are in us-east-1, wherever the rest
// is, so it has a stack of its own there, which is deployed first.
type edge struct {
	stack awscdk.Stack
	// parameter is the name of the parameter that has the firewall's ARN.
	parameter string
}

// newEdge returns nil without waf=on. The scope is the app.
func newEdge(scope constructs.Construct, s Settings) *edge {
	if !s.WAF {
		return nil
	}
	props := stackProps(s)
	props.Description = jsii.String(
		"Allo Reservations, " + s.Env + ": the firewall before the CDN of " + s.StackName())
	props.Env = &awscdk.Environment{Account: optional(s.Account), Region: jsii.String(cdnRegion)}
	stack := awscdk.NewStack(scope, jsii.String(s.StackName()+"-edge"), props)
	// A name that begins with "aws" is refused, and the stack's may.
	e := &edge{stack: stack, parameter: "/firewall/" + s.StackName()}
	awsssm.NewStringParameter(stack, jsii.String("Arn"), &awsssm.StringParameterProps{
		ParameterName: jsii.String(e.parameter),
		StringValue:   newFirewall(stack, s).AttrArn(),
		Description:   jsii.String("The firewall before the CDN of " + s.StackName()),
	})
	tag(stack, s)
	return e
}

// firewallLogs is the id of the log group of the function that reads the firewall's ARN, with an
// external database. A stack with a cluster has that function, and its log, for the bootstrap.
const firewallLogs = "FirewallLogs"

// arn reads the firewall's ARN from the parameter, during a deploy of the stack. The CDK's own
// references to another region would lock the firewall while the CDN refers to it, and add a
// function to each stack whose log never ends.
func (e *edge) arn(scope constructs.Construct, s Settings) *string {
	stack := awscdk.Stack_Of(scope)
	stack.AddStackDependency(e.stack, jsii.String("the CDN's firewall"))
	call := &customresources.AwsSdkCall{
		Service:            jsii.String("SSM"),
		Action:             jsii.String("getParameter"),
		Region:             jsii.String(cdnRegion),
		Parameters:         map[string]any{"Name": e.parameter},
		PhysicalResourceId: customresources.PhysicalResourceId_Of(jsii.String(e.parameter)),
	}
	parameter := e.stack.FormatArn(&awscdk.ArnComponents{
		Service: jsii.String("ssm"), Resource: jsii.String("parameter"),
		ResourceName: jsii.String(strings.TrimPrefix(e.parameter, "/")),
		Account:      stack.Account(), Partition: stack.Partition(),
	})
	props := &customresources.AwsCustomResourceProps{
		OnCreate: call, OnUpdate: call,
		InstallLatestAwsSdk: jsii.Bool(false),
		Timeout:             awscdk.Duration_Minutes(jsii.Number(bootstrapTimeout)),
		Policy: customresources.AwsCustomResourcePolicy_FromStatements(
			&[]awsiam.PolicyStatement{allow("ssm:GetParameter", parameter)}),
	}
	if !s.Aurora { // The bootstrap of a cluster has the function already, with its role and its log.
		props.LogGroup = newLogGroup(scope, firewallLogs, s, "firewall")
		props.Role = newRole(constructs.NewConstruct(scope, jsii.String("FirewallFunction")),
			props.LogGroup.(awslogs.LogGroup))
	}
	return customresources.NewAwsCustomResource(scope, jsii.String("Firewall"), props).
		GetResponseField(jsii.String("Parameter.Value"))
}

const (
	// wafWindow is the time over which the firewall counts an address's reserves, in seconds. It is
	// AWS WAF's default.
	wafWindow = 300
	// wafRetryAfter is how long an address that sent too many should wait, in seconds.
	wafRetryAfter = "60"
	// rateLimited is the code of the answer to such an address.
	rateLimited = "RATE_LIMITED"
)

// reservePath is the route that takes stock off the shelf.
const reservePath = "/api/reservations"

// newFirewall creates the web ACL. It lets everything through that no rule blocks. The rules are in
// the order of their price: bot control is charged for each request that it looks at.
func newFirewall(scope constructs.Construct, s Settings) awswafv2.CfnWebACL {
	const body = `{"type":"urn:allo:problem:` + rateLimited + `","title":"Too many requests",` +
		`"status":429,"code":"` + rateLimited + `","detail":"Too many holds from this address. ` +
		`Try again in some minutes.","error":"Too many holds from this address. ` +
		`Try again in some minutes."}`
	rules := []any{
		managed("reputation", "AWSManagedRulesAmazonIpReputationList"),
		managed("bad-inputs", "AWSManagedRulesKnownBadInputsRuleSet"),
		reserveRate(s),
		managed("common", "AWSManagedRulesCommonRuleSet", countedRules...),
	}
	if s.BotControl {
		rules = append(rules, botControl())
	}
	for i, rule := range rules {
		rule.(*awswafv2.CfnWebACL_RuleProperty).Priority = jsii.Number(i)
	}
	return awswafv2.NewCfnWebACL(scope, jsii.String("Firewall"), &awswafv2.CfnWebACLProps{
		Name:        jsii.String(s.StackName()),
		Description: jsii.String("The firewall before the CDN of " + s.StackName()),
		Scope:       jsii.String("CLOUDFRONT"),
		DefaultAction: &awswafv2.CfnWebACL_DefaultActionProperty{
			Allow: &awswafv2.CfnWebACL_AllowActionProperty{},
		},
		CustomResponseBodies: map[string]any{rateLimited: &awswafv2.CfnWebACL_CustomResponseBodyProperty{
			ContentType: jsii.String("APPLICATION_JSON"), Content: jsii.String(body),
		}},
		Rules:            &rules,
		VisibilityConfig: visible(s.StackName()),
	})
}

// countedRules are rules of AWS's core rule set that would refuse good requests, so they only
// count (AWS WAF's developer guide, "Baseline rule groups"):
//
//   - a body may have 64 KiB, and a document of the back office 1 MiB. The rule refuses 8 KB.
//   - a query may have fifty SKUs. The rule refuses 2,048 bytes.
//   - a body has names, notes and references of any text, JSON or CSV: "<3", "../", a URL. The
//     service never takes them for a path or a URL, and its pages escape them.
//   - a back end may leave out its User-Agent.
//
// The rule group for SQL isn't used at all: the service never makes SQL of a request.
var countedRules = []string{
	"SizeRestrictions_BODY", "SizeRestrictions_QUERYSTRING", "CrossSiteScripting_BODY",
	"GenericLFI_BODY", "GenericRFI_BODY", "NoUserAgent_HEADER",
}

// managed returns a rule that applies one of AWS's rule groups. The rules in counted only count.
func managed(name, group string, counted ...string) *awswafv2.CfnWebACL_RuleProperty {
	statement := &awswafv2.CfnWebACL_ManagedRuleGroupStatementProperty{
		VendorName: jsii.String("AWS"), Name: jsii.String(group),
	}
	var overrides []any
	for _, rule := range counted {
		overrides = append(overrides, &awswafv2.CfnWebACL_RuleActionOverrideProperty{
			Name: jsii.String(rule),
			ActionToUse: &awswafv2.CfnWebACL_RuleActionProperty{
				Count: &awswafv2.CfnWebACL_CountActionProperty{},
			},
		})
	}
	if len(overrides) > 0 {
		statement.RuleActionOverrides = &overrides
	}
	return &awswafv2.CfnWebACL_RuleProperty{
		Name: jsii.String(name),
		Statement: &awswafv2.CfnWebACL_StatementProperty{
			ManagedRuleGroupStatement: statement,
		},
		// The group's own actions.
		OverrideAction: &awswafv2.CfnWebACL_OverrideActionProperty{
			None: map[string]any{},
		},
		VisibilityConfig: visible(name),
	}
}

// reserveRate returns the rule that bounds the reserves of an address. It blocks the address, with
// 429, for as long as its rate is too high.
func reserveRate(s Settings) *awswafv2.CfnWebACL_RuleProperty {
	const name = "reserve-rate"
	return &awswafv2.CfnWebACL_RuleProperty{
		Name: jsii.String(name),
		Statement: &awswafv2.CfnWebACL_StatementProperty{
			RateBasedStatement: &awswafv2.CfnWebACL_RateBasedStatementProperty{
				AggregateKeyType:    jsii.String("IP"),
				Limit:               jsii.Number(s.WAFRate),
				EvaluationWindowSec: jsii.Number(wafWindow),
				ScopeDownStatement:  reserves(),
			},
		},
		Action: &awswafv2.CfnWebACL_RuleActionProperty{
			Block: &awswafv2.CfnWebACL_BlockActionProperty{
				CustomResponse: &awswafv2.CfnWebACL_CustomResponseProperty{
					ResponseCode:          jsii.Number(429),
					CustomResponseBodyKey: jsii.String(rateLimited),
					ResponseHeaders: &[]any{&awswafv2.CfnWebACL_CustomHTTPHeaderProperty{
						Name: jsii.String("Retry-After"), Value: jsii.String(wafRetryAfter),
					}},
				},
			},
		},
		VisibilityConfig: visible(name),
	}
}

// botControl returns the rule for AWS's bot control, at the level that tells bots by what they
// send. It looks at reserves alone: they take stock, and each request that it looks at has a price.
// So back ends and monitors, which are bots too, may call the other routes.
func botControl() *awswafv2.CfnWebACL_RuleProperty {
	rule := managed("bots", "AWSManagedRulesBotControlRuleSet")
	statement := rule.Statement.(*awswafv2.CfnWebACL_StatementProperty).
		ManagedRuleGroupStatement.(*awswafv2.CfnWebACL_ManagedRuleGroupStatementProperty)
	statement.ScopeDownStatement = reserves()
	statement.ManagedRuleGroupConfigs = &[]any{&awswafv2.CfnWebACL_ManagedRuleGroupConfigProperty{
		AwsManagedRulesBotControlRuleSet: &awswafv2.CfnWebACL_AWSManagedRulesBotControlRuleSetProperty{
			InspectionLevel: jsii.String("COMMON"),
		},
	}}
	return rule
}

// reserves returns the statement that matches a reserve, however its path is written. The gateway
// decodes a path before it looks for the route.
func reserves() *awswafv2.CfnWebACL_StatementProperty {
	method := match(&awswafv2.CfnWebACL_FieldToMatchProperty{Method: map[string]any{}}, "POST",
		"NONE")
	path := match(&awswafv2.CfnWebACL_FieldToMatchProperty{UriPath: map[string]any{}}, reservePath,
		"URL_DECODE", "NORMALIZE_PATH")
	return &awswafv2.CfnWebACL_StatementProperty{
		AndStatement: &awswafv2.CfnWebACL_AndStatementProperty{Statements: &[]any{method, path}},
	}
}

// match returns the statement that a part of the request is exactly a text, after the
// transformations.
func match(
	field *awswafv2.CfnWebACL_FieldToMatchProperty, text string, transformations ...string,
) *awswafv2.CfnWebACL_StatementProperty {
	var all []any
	for i, kind := range transformations {
		all = append(all, &awswafv2.CfnWebACL_TextTransformationProperty{
			Priority: jsii.Number(i), Type: jsii.String(kind),
		})
	}
	return &awswafv2.CfnWebACL_StatementProperty{
		ByteMatchStatement: &awswafv2.CfnWebACL_ByteMatchStatementProperty{
			FieldToMatch: field, SearchString: jsii.String(text),
			PositionalConstraint: jsii.String("EXACTLY"), TextTransformations: &all,
		},
	}
}

// visible turns on the metrics of a rule, in us-east-1, and samples of its requests.
func visible(name string) *awswafv2.CfnWebACL_VisibilityConfigProperty {
	return &awswafv2.CfnWebACL_VisibilityConfigProperty{
		CloudWatchMetricsEnabled: jsii.Bool(true), SampledRequestsEnabled: jsii.Bool(true),
		MetricName: jsii.String(name),
	}
}
