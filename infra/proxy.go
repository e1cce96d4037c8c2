package main

import (
	"github.com/aws/aws-cdk-go/awscdk/v2"
	"github.com/aws/aws-cdk-go/awscdk/v2/awscloudwatch"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsec2"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsiam"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsrds"
	"github.com/aws/constructs-go/constructs/v10"
	"github.com/aws/jsii-runtime-go"
)

const (
	// postgresPort is the port of the cluster and of the proxy.
	postgresPort = 5432
	// borrowTimeout is how many seconds the proxy lets a caller wait for a connection. It is less
	// than a request may take (7 s), so that the function can still answer.
	borrowTimeout = 5
	// proxyShare is how many percent of an instance's connections the proxy may open. The rest is for
	// what goes past it: the migration, the audit, an operator and RDS itself. AWS wants 30% of
	// headroom above the use, and at least 20% as the share.
	proxyShare = 50
	// proxyIdle is how many percent of an instance's connections the proxy keeps open without work.
	// They cost memory. The other 25% are opened in a surge: at most 757 with 16 ACUs, so within four
	// seconds, as each is a log-in of the 200 a second that IAM takes.
	proxyIdle = 25
)

// newProxy creates an RDS Proxy, which shares the cluster's connections among many function
// environments. It logs in to the cluster by IAM as the app's role. CDK 2.270 doesn't grant that
// permission to the proxy's role, so newProxy does.
//
// The shares follow "Configuring connection settings" in the Aurora user guide:
// https://docs.aws.amazon.com/AmazonRDS/latest/AuroraUserGuide/rds-proxy-connections.html
//
// RDS writes a proxy's name in lower case, and CloudWatch reports that name. The CDK's default name
// has capitals, with which an alarm would watch a proxy that doesn't exist. The stack's name is in
// lower case and within RDS's limit of 63 characters.
func newProxy(
	scope constructs.Construct, a *aurora,
) (awsrds.DatabaseProxy, awsrds.IDatabaseProxyEndpoint) {
	proxyRole := awsiam.NewRole(scope, jsii.String("ProxyRole"), &awsiam.RoleProps{
		AssumedBy: awsiam.NewServicePrincipal(jsii.String("rds.amazonaws.com"), nil),
	})
	a.cluster.GrantConnect(proxyRole, jsii.String(string(roleApp)))
	group := awsec2.NewSecurityGroup(scope, jsii.String("ProxyGroup"), &awsec2.SecurityGroupProps{
		Vpc:              a.network.vpc,
		AllowAllOutbound: jsii.Bool(false),
		Description:      jsii.String("The proxy: inbound from the functions, outbound to the cluster"),
	})
	proxy := a.cluster.AddProxy(jsii.String("Proxy"), &awsrds.DatabaseProxyOptions{
		DbProxyName:       jsii.String(a.settings.StackName()),
		Vpc:               a.network.vpc,
		VpcSubnets:        a.network.subnets,
		SecurityGroups:    &[]awsec2.ISecurityGroup{group},
		DefaultAuthScheme: awsrds.DefaultAuthScheme_IAM_AUTH,
		IamAuth:           jsii.Bool(true),
		RequireTLS:        jsii.Bool(true),
		Role:              proxyRole,
		BorrowTimeout:     awscdk.Duration_Seconds(jsii.Number(borrowTimeout)),

		MaxConnectionsPercent:     jsii.Number(proxyShare),
		MaxIdleConnectionsPercent: jsii.Number(proxyIdle),
	})
	group.Connections().AllowFrom(a.network.functions,
		awsec2.Port_Tcp(jsii.Number(postgresPort)), jsii.String("functions"))
	return proxy, newReadersEndpoint(a, proxy, group)
}

// monitorProxy adds the alarm for pinned connections and returns their graph.
func monitorProxy(m *monitoring, proxy awsrds.DatabaseProxy) graph {
	pinned := awscloudwatch.NewMetric(&awscloudwatch.MetricProps{
		Namespace:     jsii.String("AWS/RDS"),
		MetricName:    jsii.String("DatabaseConnectionsCurrentlySessionPinned"),
		DimensionsMap: &map[string]*string{"ProxyName": proxy.DbProxyName()},
		// Each of the proxy's machines reports its own connections.
		Statistic: jsii.String("Sum"),
		Period:    awscdk.Duration_Minutes(jsii.Number(1)),
	})
	m.addAlarm("ProxyPinned", pinned, alarm{
		above: 0, breaching: 5, outOf: 5,
		meaning: "The proxy pins connections, so function environments can't share them",
	})
	return newGraph("Proxy: pinned connections", pinned)
}
