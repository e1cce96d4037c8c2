package main

import (
	_ "embed"
	"strings"

	"github.com/aws/aws-cdk-go/awscdk/v2"
	"github.com/aws/aws-cdk-go/awscdk/v2/awscloudwatch"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsec2"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsiam"
	"github.com/aws/aws-cdk-go/awscdk/v2/awslambda"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsrds"
	"github.com/aws/aws-cdk-go/awscdk/v2/customresources"
	"github.com/aws/constructs-go/constructs/v10"
	"github.com/aws/jsii-runtime-go"
)

// bootstrapSQL makes the two roles.
//
//go:embed bootstrap.sql
var bootstrapSQL string

// Times of the database's.
const (
	// bootstrapTimeout is for one statement, and a cluster that wakes.
	bootstrapTimeout = 2 // minutes
	// borrowTimeout is how long the proxy lets a caller wait for a connection: less than a request may take (7 s).
	borrowTimeout = 5 // seconds
)

// aurora is a cluster of the stack's own: Aurora PostgreSQL, Serverless v2, where roles log in with IAM's tokens and no function knows a password.
type aurora struct {
	settings  Settings
	network   network
	cluster   awsrds.DatabaseCluster
	proxy     awsrds.DatabaseProxy
	bootstrap customresources.AwsCustomResource
}

func newAurora(scope constructs.Construct, s Settings) *aurora {
	scope = constructs.NewConstruct(scope, jsii.String("Database"))
	a := &aurora{settings: s, network: newNetwork(scope, s)}
	a.cluster = newCluster(scope, s, a.network)
	a.cluster.Connections().AllowDefaultPortFrom(a.network.functions, jsii.String("functions"))
	if s.Proxy {
		a.proxy = newProxy(scope, a)
	}
	a.bootstrap = newBootstrap(scope, s, a.cluster)
	return a
}

func newCluster(scope constructs.Construct, s Settings, n network) awsrds.DatabaseCluster {
	removal := awscdk.RemovalPolicy_DESTROY
	if s.Stage.Protected {
		removal = awscdk.RemovalPolicy_SNAPSHOT
	}
	instance := func(withWriter *bool) *awsrds.ServerlessV2ClusterInstanceProps {
		return &awsrds.ServerlessV2ClusterInstanceProps{
			CaCertificate: awsrds.CaCertificate_RDS_CA_RSA2048_G1(), // the functions embed this authority's roots
			// A reader that has the writer's size can take over from it at once.
			ScaleWithWriter: withWriter, AutoMinorVersionUpgrade: jsii.Bool(true), PubliclyAccessible: jsii.Bool(false),
		}
	}
	var readers *[]awsrds.IClusterInstance
	if s.Stage.Reader {
		readers = &[]awsrds.IClusterInstance{awsrds.ClusterInstance_ServerlessV2(jsii.String("Reader"), instance(jsii.Bool(true)))}
	}
	// RDS would make this log group itself, to be kept for ever; so it is made before, under the name that RDS will look for.
	logs := newLogGroup(scope, "ClusterLogs", s, "/aws/rds/cluster/"+s.StackName()+"/postgresql")
	cluster := awsrds.NewDatabaseCluster(scope, jsii.String("Cluster"), &awsrds.DatabaseClusterProps{
		ClusterIdentifier: jsii.String(s.StackName()),
		Engine:            awsrds.DatabaseClusterEngine_AuroraPostgres(&awsrds.AuroraPostgresClusterEngineProps{Version: awsrds.AuroraPostgresEngineVersion_VER_17_7()}),
		Writer:            awsrds.ClusterInstance_ServerlessV2(jsii.String("Writer"), instance(nil)),
		Readers:           readers,
		Vpc:               n.vpc, VpcSubnets: n.subnets,
		ServerlessV2MinCapacity: jsii.Number(s.Stage.MinACU), ServerlessV2MaxCapacity: jsii.Number(s.MaxACU),
		DefaultDatabaseName: jsii.String(databaseName),
		IamAuthentication:   jsii.Bool(true), StorageEncrypted: jsii.Bool(true),
		ManageMasterUserPassword: jsii.Bool(true), // RDS keeps and rotates it; only the bootstrap reads it
		EnableDataApi:            jsii.Bool(true), // for the bootstrap, which thus needs no place in the network
		Parameters:               &map[string]*string{"rds.force_ssl": jsii.String("1")},
		Backup:                   &awsrds.BackupProps{Retention: awscdk.Duration_Days(jsii.Number(s.Stage.BackupDays))},
		CopyTagsToSnapshot:       jsii.Bool(true),
		CloudwatchLogsExports:    jsii.Strings("postgresql"),
		DeletionProtection:       jsii.Bool(s.Stage.Protected),
		RemovalPolicy:            removal,
	})
	cluster.Node().AddDependency(logs)
	if !s.Stage.Protected {
		explainDevelopment(cluster)
	}
	return cluster
}

// newProxy pools connections for many environments. It logs in as the function did, by IAM, which CDK 2.270 gives its role no permission for.
func newProxy(scope constructs.Construct, a *aurora) awsrds.DatabaseProxy {
	proxyRole := awsiam.NewRole(scope, jsii.String("ProxyRole"), &awsiam.RoleProps{AssumedBy: awsiam.NewServicePrincipal(jsii.String("rds.amazonaws.com"), nil)})
	a.cluster.GrantConnect(proxyRole, jsii.String(string(app)))
	group := awsec2.NewSecurityGroup(scope, jsii.String("ProxyGroup"), &awsec2.SecurityGroupProps{
		Vpc: a.network.vpc, AllowAllOutbound: jsii.Bool(false), Description: jsii.String("The proxy: in from the functions, out to the cluster"),
	})
	proxy := a.cluster.AddProxy(jsii.String("Proxy"), &awsrds.DatabaseProxyOptions{
		Vpc: a.network.vpc, VpcSubnets: a.network.subnets, SecurityGroups: &[]awsec2.ISecurityGroup{group},
		DefaultAuthScheme: awsrds.DefaultAuthScheme_IAM_AUTH, IamAuth: jsii.Bool(true), RequireTLS: jsii.Bool(true), Role: proxyRole,
		BorrowTimeout: awscdk.Duration_Seconds(jsii.Number(borrowTimeout)),
	})
	group.Connections().AllowFrom(a.network.functions, awsec2.Port_Tcp(jsii.Number(postgresPort)), jsii.String("functions"))
	return proxy
}

// postgresPort is the cluster's, and the proxy's.
const postgresPort = 5432

// newBootstrap runs bootstrap.sql through the Data API, as the master user: a role that logs in by IAM has to be made by one that doesn't.
func newBootstrap(scope constructs.Construct, s Settings, cluster awsrds.DatabaseCluster) customresources.AwsCustomResource {
	call := &customresources.AwsSdkCall{
		Service: jsii.String("RDSData"),
		Action:  jsii.String("executeStatement"),
		Parameters: map[string]any{
			"resourceArn": cluster.ClusterArn(), "secretArn": cluster.Secret().SecretArn(), "database": databaseName, "sql": withoutComments(bootstrapSQL),
		},
		PhysicalResourceId: customresources.PhysicalResourceId_Of(jsii.String("bootstrap")),
	}
	logs := newLogGroup(scope, "BootstrapLogs", s, "bootstrap")
	resource := customresources.NewAwsCustomResource(scope, jsii.String("Bootstrap"), &customresources.AwsCustomResourceProps{
		OnCreate: call, OnUpdate: call,
		InstallLatestAwsSdk: jsii.Bool(false), // what runs at a deploy shouldn't change by itself
		LogGroup:            logs,
		Role:                newRole(constructs.NewConstruct(scope, jsii.String("BootstrapFunction")), logs),
		Timeout:             awscdk.Duration_Minutes(jsii.Number(bootstrapTimeout)),
		Policy: customresources.AwsCustomResourcePolicy_FromStatements(&[]awsiam.PolicyStatement{
			awsiam.NewPolicyStatement(&awsiam.PolicyStatementProps{
				Actions: jsii.Strings("rds-data:ExecuteStatement"), Resources: &[]*string{cluster.ClusterArn()},
			}),
			awsiam.NewPolicyStatement(&awsiam.PolicyStatementProps{
				Actions: jsii.Strings("secretsmanager:GetSecretValue"), Resources: &[]*string{cluster.Secret().SecretArn()},
			}),
		}),
	})
	resource.Node().AddDependency(cluster) // with its writer: without one there is nobody to run a statement
	return resource
}

// withoutComments leaves out the lines that are for people: the Data API looks for parameters' names in all that it is sent.
func withoutComments(sql string) string {
	var lines []string
	for line := range strings.Lines(sql) {
		if !strings.HasPrefix(strings.TrimSpace(line), "--") {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "")
}

// attach sends the app through the proxy when there is one, and the migrator to the cluster itself: its lock and its transactions want a
// session of their own.
func (a *aurora) attach(p *awslambda.FunctionProps, as role) {
	host, query := a.cluster.ClusterEndpoint().Hostname(), ""
	if a.proxy != nil && as == app {
		// The proxy pins a session that has prepared statements of its own.
		host, query = a.proxy.Endpoint(), "?default_query_exec_mode=exec"
	}
	url := *awscdk.Fn_Join(jsii.String(""), &[]*string{jsii.String("postgres://" + string(as) + "@"), host, jsii.String(":5432/" + databaseName + query)})
	setVariables(p, jsii.String(url), nil)
	if as == migrator {
		(*p.Environment)["APP_ROLE"] = jsii.String(string(app))
	}
	a.network.attach(p, functionARN(a.cluster, *p.FunctionName))
}

func (a *aurora) grant(fn awslambda.Function, as role) {
	if a.proxy != nil && as == app {
		a.proxy.GrantConnect(fn, jsii.String(string(as)))
		return
	}
	a.cluster.GrantConnect(fn, jsii.String(string(as)))
}

func (a *aurora) ready() []constructs.Construct {
	ready := []constructs.Construct{a.bootstrap, a.network.functions}
	if a.proxy != nil {
		ready = append(ready, a.proxy)
	}
	return ready
}

func (a *aurora) describe() *string { return a.cluster.ClusterEndpoint().Hostname() }

// watch adds the cluster's capacity and connections. A full cluster is slow, and one out of connections refuses the next environment.
func (a *aurora) watch(w *watch) {
	metric := func(name, statistic string) awscloudwatch.Metric {
		return a.cluster.Metric(jsii.String(name), &awscloudwatch.MetricOptions{Statistic: jsii.String(statistic), Period: awscdk.Duration_Minutes(jsii.Number(1))})
	}
	capacity, connections := metric("ACUUtilization", "Maximum"), metric("DatabaseConnections", "Maximum")
	w.alarm("DatabaseCapacity", capacity, alarm{above: 90, periods: 5, of: 5, means: "the database has used nine tenths of the capacity that it may have, for five minutes"})
	w.alarm("DatabaseConnections", connections, alarm{above: connectionsAlarm(a.settings.MaxACU), periods: 3, of: 3, means: "four fifths of the database's connections are taken"})
	graphs := []graph{
		w.graph("Database capacity, % of the most", capacity),
		w.graph("Database connections", connections),
		w.graph("Database: deadlocks, commit latency (ms)", metric("Deadlocks", "Sum"), metric("CommitLatency", "Average")),
	}
	if a.proxy != nil {
		pinned := awscloudwatch.NewMetric(&awscloudwatch.MetricProps{
			Namespace: jsii.String("AWS/RDS"), MetricName: jsii.String("DatabaseConnectionsCurrentlySessionPinned"),
			DimensionsMap: &map[string]*string{"ProxyName": a.proxy.DbProxyName()},
			Statistic:     jsii.String("Maximum"), Period: awscdk.Duration_Minutes(jsii.Number(1)),
		})
		w.alarm("ProxyPinned", pinned, alarm{above: 0, periods: 5, of: 5, means: "the proxy pins connections, so that environments can't share them"})
		graphs = append(graphs, w.graph("Proxy: pinned connections", pinned))
	}
	w.row(graphs...)
}

// connectionsAlarm is four fifths of max_connections, which Aurora derives from the most memory that the cluster may have: an ACU is 2 GiB, of
// which the system has up to a sixth, a connection 9,531,392 bytes, and a cluster that may shrink to half an ACU has 2,000 at most.
func connectionsAlarm(maxACU float64) float64 {
	const perACU, perConnection, left, most, share = 2 << 30, 9_531_392, 0.84, 2000, 0.8
	return float64(int(min(maxACU*perACU*left/perConnection, most) * share))
}
