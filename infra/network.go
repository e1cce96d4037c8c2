package main

import (
	"github.com/aws/aws-cdk-go/awscdk/v2"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsec2"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsiam"
	"github.com/aws/aws-cdk-go/awscdk/v2/awslambda"
	"github.com/aws/constructs-go/constructs/v10"
	"github.com/aws/jsii-runtime-go"
)

// network connects the functions to the cluster. It has no route to the internet, and the
// functions need none: they sign their login tokens themselves, and their logs and metrics leave
// through Lambda.
type network struct {
	vpc       awsec2.Vpc
	subnets   *awsec2.SubnetSelection
	functions awsec2.SecurityGroup
}

// zones is the number of availability zones of the network when the settings name none: a cluster
// needs at least two.
const zones = 2

func newNetwork(scope constructs.Construct, s Settings) network {
	n := network{subnets: &awsec2.SubnetSelection{SubnetType: awsec2.SubnetType_PRIVATE_ISOLATED}}
	props := &awsec2.VpcProps{
		NatGateways:                  jsii.Number(0),
		RestrictDefaultSecurityGroup: jsii.Bool(true),
		SubnetConfiguration: &[]*awsec2.SubnetConfiguration{{
			Name:       jsii.String("isolated"),
			SubnetType: awsec2.SubnetType_PRIVATE_ISOLATED,
			CidrMask:   jsii.Number(24),
		}},
	}
	if len(s.Zones) > 0 {
		props.AvailabilityZones = jsii.Strings(s.Zones...)
	} else {
		props.MaxAzs = jsii.Number(zones)
	}
	n.vpc = awsec2.NewVpc(scope, jsii.String("Vpc"), props)
	n.vpc.AddFlowLog(jsii.String("Flow"), &awsec2.FlowLogOptions{
		Destination: awsec2.FlowLogDestination_ToCloudWatchLogs(
			newLogGroup(scope, "FlowLogs", s, "flow"), nil),
		TrafficType: awsec2.FlowLogTrafficType_REJECT, // rejected traffic is never expected here
	})
	n.functions = awsec2.NewSecurityGroup(scope, jsii.String("FunctionsGroup"),
		&awsec2.SecurityGroupProps{
			Vpc:              n.vpc,
			AllowAllOutbound: jsii.Bool(false),
			Description:      jsii.String("The functions: outbound to Postgres only"),
		})
	return n
}

// pinZones answers the CDK's question for the zones that an account has in a region, if the
// settings name them. Otherwise a synth with an account and a region would ask AWS.
func (s Settings) pinZones(stack awscdk.Stack) {
	if len(s.Zones) > 0 && s.Account != "" && s.Region != "" {
		key := "availability-zones:account=" + s.Account + ":region=" + s.Region
		stack.Node().SetContext(jsii.String(key), jsii.Strings(s.Zones...))
	}
}

// networkInterfaceActions are what Lambda needs to connect a function to a VPC.
var networkInterfaceActions = []string{
	"ec2:CreateNetworkInterface", "ec2:DescribeNetworkInterfaces", "ec2:DescribeSubnets",
	"ec2:DeleteNetworkInterface", "ec2:AssignPrivateIpAddresses", "ec2:UnassignPrivateIpAddresses",
}

// attach puts a function into the network. Lambda acts with the function's role to manage the
// network interface, so the role gets those permissions; a second statement denies them to the
// function's own code, as AWS recommends. Functions can share a role, so that statement names all
// functions of the stack.
func (n network) attach(p *awslambda.FunctionProps, functionARNs *string) {
	p.Vpc, p.VpcSubnets = n.vpc, n.subnets
	p.SecurityGroups = &[]awsec2.ISecurityGroup{n.functions}
	p.Role.AddToPrincipalPolicy(awsiam.NewPolicyStatement(&awsiam.PolicyStatementProps{
		Sid:       jsii.String("LambdaHandlesTheNetworkInterface"),
		Actions:   jsii.Strings(networkInterfaceActions...),
		Resources: jsii.Strings("*"), // EC2 supports no narrower resource here
	}))
	p.Role.AddToPrincipalPolicy(awsiam.NewPolicyStatement(&awsiam.PolicyStatementProps{
		Sid:       jsii.String("TheCodeDoesNot"),
		Effect:    awsiam.Effect_DENY,
		Actions:   jsii.Strings(networkInterfaceActions...),
		Resources: jsii.Strings("*"),
		Conditions: &map[string]any{
			"ArnLike": map[string]any{"lambda:SourceFunctionArn": []*string{functionARNs}},
		},
	}))
}
