package main

import (
	"github.com/aws/aws-cdk-go/awscdk/v2/awsec2"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsiam"
	"github.com/aws/aws-cdk-go/awscdk/v2/awslambda"
	"github.com/aws/aws-cdk-go/awscdk/v2/awssecretsmanager"
	"github.com/aws/constructs-go/constructs/v10"
	"github.com/aws/jsii-runtime-go"
)

// database is where the functions reach Postgres, of one of two kinds.
type database interface {
	// attach lets a function reach it as a role: its variables, and its network when it has one.
	attach(p *awslambda.FunctionProps, as role)
	// grant lets the function log in as that role.
	grant(fn awslambda.Function, as role)
	// ready is what has to be there before the migrations run.
	ready() []constructs.Construct
	// watch adds what there is to see of it.
	watch(w *watch)
	// describe is its line in the outputs.
	describe() *string
}

// role is a role of Postgres, of the two that bootstrap.sql makes.
type role string

// The migrator owns the tables; the app does with them what the service does, and nothing else.
const (
	migrator role = "allo_migrator"
	app      role = "allo_app"
)

// databaseName is the cluster's database, which begins with the service's name as the roles do.
const databaseName = "allo"

// newDatabase makes the kind that the settings ask for.
func newDatabase(scope constructs.Construct, s Settings) database {
	if s.Aurora {
		return newAurora(scope, s)
	}
	return newExternal(scope, s)
}

// setVariables declares the three variables of which the first that isn't empty says where the database is. DATABASE_URL is declared and
// empty: SAM and a local run can only override what is declared.
func setVariables(p *awslambda.FunctionProps, iamURL, secret *string) {
	env := *p.Environment
	env["DATABASE_URL"] = jsii.String("")
	if iamURL != nil {
		env["DATABASE_IAM_URL"] = iamURL
	}
	if secret != nil {
		env["DATABASE_SECRET"] = secret
	}
}

// external is a Postgres that somebody else runs: no network of its own, and a secret with the URL, made before the deploy. The functions
// read it when they connect, so the URL is in no variable, no template and no log. The migration may have a secret of its own: where the
// service goes through a pooler, it must not, and where it is another role, the service needn't own the tables.
type external struct {
	secrets map[role]awssecretsmanager.ISecret
	names   map[role]string
	appRole string
}

func newExternal(scope constructs.Construct, s Settings) *external {
	e := &external{names: map[role]string{app: s.SecretName, migrator: s.MigrateSecretName}, appRole: s.AppRole}
	e.secrets = map[role]awssecretsmanager.ISecret{}
	for as, id := range map[role]string{app: "DatabaseUrl", migrator: "MigrateUrl"} {
		e.secrets[as] = awssecretsmanager.Secret_FromSecretNameV2(scope, jsii.String(id), jsii.String(e.names[as]))
	}
	return e
}

func (e *external) attach(p *awslambda.FunctionProps, as role) {
	setVariables(p, nil, jsii.String(e.names[as]))
	if as == migrator && e.appRole != "" {
		(*p.Environment)["APP_ROLE"] = jsii.String(e.appRole)
	}
}

// grant lets the function read the secret. One that is encrypted with a key of one's own needs kms:Decrypt for the functions' roles too.
func (e *external) grant(fn awslambda.Function, as role) { e.secrets[as].GrantRead(fn, nil) }

func (e *external) ready() []constructs.Construct { return nil }

func (e *external) watch(*watch) {}

func (e *external) describe() *string {
	return jsii.String("the URL in the secret " + e.names[app])
}

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

// attachNetwork puts a function into the network, and lets Lambda, but not the function's own code, handle its network interface: the denial
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
