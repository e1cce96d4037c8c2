package main

import (
	"github.com/aws/aws-cdk-go/awscdk/v2/awsec2"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsiam"
	"github.com/aws/aws-cdk-go/awscdk/v2/awslambda"
	"github.com/aws/constructs-go/constructs/v10"
	"github.com/aws/jsii-runtime-go"
)

// network is the functions' way to the cluster: two zones, no way in or out but within. The functions need no internet: a login's token is
// signed in the function itself, logs and metrics leave through Lambda.
type network struct {
	vpc       awsec2.Vpc
	subnets   *awsec2.SubnetSelection
	functions awsec2.SecurityGroup
}

// zones is how many availability zones the network spans: what a cluster asks for at least.
const zones = 2

func newNetwork(scope constructs.Construct, s Settings) network {
	n := network{subnets: &awsec2.SubnetSelection{SubnetType: awsec2.SubnetType_PRIVATE_ISOLATED}}
	n.vpc = awsec2.NewVpc(scope, jsii.String("Vpc"), &awsec2.VpcProps{
		MaxAzs:                       jsii.Number(zones),
		NatGateways:                  jsii.Number(0),
		RestrictDefaultSecurityGroup: jsii.Bool(true),
		SubnetConfiguration: &[]*awsec2.SubnetConfiguration{
			{Name: jsii.String("isolated"), SubnetType: awsec2.SubnetType_PRIVATE_ISOLATED, CidrMask: jsii.Number(24)},
		},
	})
	flow := newLogGroup(scope, "FlowLogs", s, "flow")
	n.vpc.AddFlowLog(jsii.String("Flow"), &awsec2.FlowLogOptions{
		Destination: awsec2.FlowLogDestination_ToCloudWatchLogs(flow, nil),
		TrafficType: awsec2.FlowLogTrafficType_REJECT, // what was refused: nothing should be
	})
	n.functions = awsec2.NewSecurityGroup(scope, jsii.String("FunctionsGroup"), &awsec2.SecurityGroupProps{
		Vpc:              n.vpc,
		AllowAllOutbound: jsii.Bool(false),
		Description:      jsii.String("All functions share it: out to Postgres, and nothing else"),
	})
	return n
}

// attach puts a function into the network, and lets Lambda, but not the function's own code, handle its network interface: the denial
// is AWS's advice, as Lambda asks for these permissions on the function's role.
func (n network) attach(p *awslambda.FunctionProps, functionARN *string) {
	p.Vpc, p.VpcSubnets = n.vpc, n.subnets
	p.SecurityGroups = &[]awsec2.ISecurityGroup{n.functions}
	actions := jsii.Strings("ec2:CreateNetworkInterface", "ec2:DescribeNetworkInterfaces", "ec2:DescribeSubnets", "ec2:DeleteNetworkInterface",
		"ec2:AssignPrivateIpAddresses", "ec2:UnassignPrivateIpAddresses")
	p.Role.AddToPrincipalPolicy(awsiam.NewPolicyStatement(&awsiam.PolicyStatementProps{
		Sid: jsii.String("LambdaHandlesTheNetworkInterface"), Actions: actions, Resources: jsii.Strings("*"), // EC2 knows no narrower resource here
	}))
	p.Role.AddToPrincipalPolicy(awsiam.NewPolicyStatement(&awsiam.PolicyStatementProps{
		Sid: jsii.String("TheCodeDoesNot"), Effect: awsiam.Effect_DENY, Actions: actions, Resources: jsii.Strings("*"),
		Conditions: &map[string]any{"ArnEquals": map[string]any{"lambda:SourceFunctionArn": []*string{functionARN}}},
	}))
}
