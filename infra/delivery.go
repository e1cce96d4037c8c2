package main

import (
	"github.com/aws/aws-cdk-go/awscdk/v2"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsiam"
	"github.com/aws/constructs-go/constructs/v10"
	"github.com/aws/jsii-runtime-go"
)

// cdnRegion is the region of what CloudFront reads, such as its certificates and its firewall.
const cdnRegion = "us-east-1"

// deploySession is how many seconds a workflow may have the role Deploy: as long as its job may
// run. The bootstrap's roles, which it takes, end after an hour (AWS STS's API reference,
// AssumeRole, on role chaining). The CDK's command line then takes them again (aws-cdk's issue
// 32287), for which it needs the role Deploy.
const deploySession = 90 * 60

// newDelivery creates the stack NAME-ENV-delivery: the roles of GitHub's workflows, and the watch
// for drift of the service's stack. It is a stack of its own, because that one has little room.
// Without a setting that asks for either there is none.
func newDelivery(app constructs.Construct, s Settings) {
	if s.Delivery.Repository == "" && !s.Delivery.Drift {
		return
	}
	props := stackProps(s)
	props.Description = jsii.String(
		"Allo Reservations, " + s.Env + ": the roles of the pipeline, and the watch for drift")
	stack := awscdk.NewStack(app, jsii.String(deliveryName(s)), props)
	if s.Delivery.Repository != "" {
		newPipelineRoles(stack, s)
	}
	if s.Delivery.Drift {
		newDriftWatch(stack, s)
	}
	tag(stack, s)
	foldPolicies(stack)
}

func deliveryName(s Settings) string { return s.StackName() + "-delivery" }

// newPipelineRoles creates the roles of GitHub's workflows: one that only compares, for pull
// requests, and one that deploys, for the GitHub environment with the name of env.
func newPipelineRoles(stack awscdk.Stack, s Settings) {
	provider := newProvider(stack, s)
	compare := newPipelineRole(stack, "Diff", provider, s, "pull_request",
		"Lets pull requests compare the stack with their template")
	compare.AddToPolicy(readingStacks(stack, s))
	deploy := newPipelineRole(stack, "Deploy", provider, s, "environment:"+s.Env,
		"Lets the GitHub environment "+s.Env+" deploy the stack")
	resource, _ := deploy.Node().DefaultChild().(awsiam.CfnRole)
	resource.SetMaxSessionDuration(jsii.Number(deploySession))
	deploy.AddToPolicy(allowOn(bootstrapRoles(stack, s), "sts:AssumeRole"))
	for _, role := range []awsiam.Role{compare, deploy} {
		// The command line asks for the zones of a region that is pinned, and names no resource.
		role.AddToPolicy(allowOn([]*string{jsii.String("*")}, "ec2:DescribeAvailabilityZones"))
		suppress(role, "AwsSolutions-IAM5", "The zones are no resource, and the id in a stack's ARN "+
			"isn't known before the stack is made")
	}
}

// newProvider returns the ARN of the account's OIDC provider for GitHub. One that it makes stays
// when the stack is deleted: an account can have only one, and other stacks' roles may trust it.
func newProvider(stack awscdk.Stack, s Settings) *string {
	if s.Delivery.Provider != "" {
		return jsii.String(s.Delivery.Provider)
	}
	return awsiam.NewOidcProviderNative(stack, jsii.String("GitHub"), &awsiam.OidcProviderNativeProps{
		Url:           jsii.String("https://" + githubHost),
		ClientIds:     jsii.Strings(stsAudience),
		RemovalPolicy: awscdk.RemovalPolicy_RETAIN_ON_UPDATE_OR_DELETE,
	}).OidcProviderArn()
}

// stsAudience is the audience of the tokens that aws-actions/configure-aws-credentials asks for.
const stsAudience = "sts.amazonaws.com"

// newPipelineRole creates a role for the workflows of the repository whose tokens have exactly one
// subject. No pattern: `repo:owner/name:*` would match a pull request too, and one that forgets the
// slash another owner's repository (GitHub Docs, "Configuring OpenID Connect in Amazon Web
// Services"). A pull request from a fork gets no token at all.
func newPipelineRole(
	stack awscdk.Stack, id string, provider *string, s Settings, context, description string,
) awsiam.Role {
	role := awsiam.NewRole(stack, jsii.String(id), &awsiam.RoleProps{
		Description: jsii.String(description),
		AssumedBy: awsiam.NewWebIdentityPrincipal(provider, &map[string]any{
			"StringEquals": map[string]any{
				githubHost + ":aud": stsAudience,
				githubHost + ":sub": "repo:" + s.Delivery.Repository + ":" + context,
			},
		}),
	})
	awscdk.NewCfnOutput(stack, jsii.String(id+"RoleArn"), &awscdk.CfnOutputProps{
		Value: role.RoleArn(), Description: jsii.String(description),
	})
	return role
}

// readingStacks allows what `cdk diff --method=template` asks of CloudFormation for the app's
// stacks. The command line would rather use the bootstrap's role for look-ups, and goes on without
// it: that role may read the whole account, and this one is open to every branch's code.
func readingStacks(stack awscdk.Stack, s Settings) awsiam.PolicyStatement {
	var arns []*string
	for _, region := range pipelineRegions(stack, s) {
		for _, name := range []string{s.StackName(), s.StackName() + "-*"} {
			arns = append(arns, stack.FormatArn(&awscdk.ArnComponents{
				Service: jsii.String("cloudformation"), Region: region,
				Resource: jsii.String("stack"), ResourceName: jsii.String(name + "/*"),
			}))
		}
	}
	return allowOn(arns, "cloudformation:DescribeStacks", "cloudformation:GetTemplate")
}

// allowOn allows actions on resources.
func allowOn(resources []*string, actions ...string) awsiam.PolicyStatement {
	return awsiam.NewPolicyStatement(&awsiam.PolicyStatementProps{
		Actions: jsii.Strings(actions...), Resources: &resources,
	})
}

// bootstrapRoles returns the ARNs of the roles that `cdk deploy` assumes: those that the CDK's
// bootstrap made for deploying and for publishing files. What a deploy may do is up to the
// bootstrap (AWS CDK Developer Guide, "Customize AWS CDK bootstrapping").
func bootstrapRoles(stack awscdk.Stack, s Settings) []*string {
	qualifier, ok := stack.Node().TryGetContext(jsii.String(
		"@aws-cdk/core:bootstrapQualifier")).(string)
	if !ok {
		qualifier = *awscdk.DefaultStackSynthesizer_DEFAULT_QUALIFIER()
	}
	var arns []*string
	for _, region := range pipelineRegions(stack, s) {
		for _, kind := range []string{"deploy", "file-publishing"} {
			arns = append(arns, stack.FormatArn(&awscdk.ArnComponents{
				Service: jsii.String("iam"), Region: jsii.String(""), Resource: jsii.String("role"),
				ResourceName: jsii.String(
					"cdk-" + qualifier + "-" + kind + "-role-" + *stack.Account() + "-" + *region),
			}))
		}
	}
	return arns
}

// pipelineRegions returns the regions of the app's stacks: the service's, with a CDN that of
// CloudFront, and that of the backups' copies.
func pipelineRegions(stack awscdk.Stack, s Settings) []*string {
	regions := []*string{stack.Region()}
	if s.CDN && s.Region != cdnRegion {
		regions = append(regions, jsii.String(cdnRegion))
	}
	if s.BackupRegion != "" && (!s.CDN || s.BackupRegion != cdnRegion) {
		regions = append(regions, jsii.String(s.BackupRegion))
	}
	return regions
}
