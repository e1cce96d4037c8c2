package main

import (
	"github.com/aws/aws-cdk-go/awscdk/v2"
	"github.com/aws/aws-cdk-go/awscdk/v2/awscloudwatch"
	"github.com/aws/aws-cdk-go/awscdk/v2/awslambda"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsrds"
	"github.com/aws/aws-cdk-go/awscdk/v2/customresources"
	"github.com/aws/constructs-go/constructs/v10"
	"github.com/aws/jsii-runtime-go"
)

// aurora is a cluster of the stack's own: Aurora PostgreSQL, Serverless v2. Its roles log in with
// IAM tokens, so no function knows a password.
type aurora struct {
	settings Settings
	network  network
	cluster  awsrds.DatabaseCluster
	proxy    awsrds.DatabaseProxy // nil without dbProxy=on
	// readers is the proxy's endpoint for reads, nil without a proxy or a reader.
	readers   awsrds.IDatabaseProxyEndpoint
	bootstrap customresources.AwsCustomResource
}

func newAurora(scope constructs.Construct, s Settings) *aurora {
	scope = constructs.NewConstruct(scope, jsii.String("Database"))
	a := &aurora{settings: s, network: newNetwork(scope, s)}
	a.cluster = newCluster(scope, s, a.network)
	a.cluster.Connections().AllowDefaultPortFrom(a.network.functions, jsii.String("functions"))
	if s.Proxy {
		a.proxy, a.readers = newProxy(scope, a)
	}
	a.bootstrap = newBootstrap(scope, s, a.cluster)
	a.keep()
	return a
}

func newCluster(scope constructs.Construct, s Settings, n network) awsrds.DatabaseCluster {
	// RDS would create this log group without a retention period, so the stack creates it first,
	// under the name that RDS uses.
	logs := newLogGroup(scope, "ClusterLogs", s, "/aws/rds/cluster/"+s.StackName()+"/postgresql")
	cluster := awsrds.NewDatabaseCluster(scope, jsii.String("Cluster"), &awsrds.DatabaseClusterProps{
		ClusterIdentifier: jsii.String(s.StackName()),
		Engine: awsrds.DatabaseClusterEngine_AuroraPostgres(&awsrds.AuroraPostgresClusterEngineProps{
			Version: awsrds.AuroraPostgresEngineVersion_VER_17_7(),
		}),
		Writer:                  newInstance("Writer", nil),
		Readers:                 newReaders(s),
		Vpc:                     n.vpc,
		VpcSubnets:              n.subnets,
		ServerlessV2MinCapacity: jsii.Number(s.Capacity.MinACU),
		ServerlessV2MaxCapacity: jsii.Number(s.MaxACU),
		DefaultDatabaseName:     jsii.String(databaseName),
		IamAuthentication:       jsii.Bool(true),
		StorageEncrypted:        jsii.Bool(true),
		// RDS keeps and rotates the master password. Only the bootstrap reads it.
		ManageMasterUserPassword: jsii.Bool(true),
		// The bootstrap uses the Data API, so it needs no place in the network.
		EnableDataApi: jsii.Bool(true),
		Parameters:    &map[string]*string{"rds.force_ssl": jsii.String("1")},
		Backup: &awsrds.BackupProps{
			Retention: awscdk.Duration_Days(jsii.Number(s.Stage.BackupDays)),
		},
		CopyTagsToSnapshot:    jsii.Bool(true),
		CloudwatchLogsExports: jsii.Strings("postgresql"),
		DeletionProtection:    jsii.Bool(s.Stage.Protected),
		RemovalPolicy:         awscdk.RemovalPolicy_DESTROY, // on prod it is kept: see keep
	})
	cluster.Node().AddDependency(logs)
	if !s.Stage.Protected {
		suppressDeletionProtection(cluster)
	}
	return cluster
}

// newInstance describes a cluster instance. A reader that scales with the writer has the writer's
// capacity, so it can take over at once.
func newInstance(id string, scaleWithWriter *bool) awsrds.IClusterInstance {
	return awsrds.ClusterInstance_ServerlessV2(jsii.String(id),
		&awsrds.ServerlessV2ClusterInstanceProps{
			// The functions embed the root certificates of this authority.
			CaCertificate:           awsrds.CaCertificate_RDS_CA_RSA2048_G1(),
			ScaleWithWriter:         scaleWithWriter,
			AutoMinorVersionUpgrade: jsii.Bool(true),
			PubliclyAccessible:      jsii.Bool(false),
		})
}

func newReaders(s Settings) *[]awsrds.IClusterInstance {
	if !s.Stage.Reader {
		return nil
	}
	return &[]awsrds.IClusterInstance{newInstance("Reader", jsii.Bool(true))}
}

// attach sends the app's role through the proxy if there is one. The migrator always connects to
// the cluster itself, because its lock and its transactions need a session of their own.
func (a *aurora) attach(p *awslambda.FunctionProps, as role) {
	host, query := a.cluster.ClusterEndpoint().Hostname(), ""
	if a.usesProxy(as) {
		// The proxy pins a session that has prepared statements, so the functions prepare none.
		host, query = a.proxy.Endpoint(), "?default_query_exec_mode=exec"
	}
	url := awscdk.Fn_Join(jsii.String(""), &[]*string{
		jsii.String("postgres://" + string(as) + "@"), host,
		jsii.String(":5432/" + databaseName + query),
	})
	setDatabaseVariables(p, url, nil)
	if as == roleMigrator {
		(*p.Environment)["APP_ROLE"] = jsii.String(string(roleApp))
	}
	a.network.attach(p, functionARN(a.cluster, a.settings.StackName()+"-*"))
}

func (a *aurora) grant(fn awslambda.Function, as role) {
	if a.usesProxy(as) {
		a.proxy.GrantConnect(fn, jsii.String(string(as)))
		return
	}
	a.cluster.GrantConnect(fn, jsii.String(string(as)))
}

func (a *aurora) usesProxy(as role) bool { return a.proxy != nil && as == roleApp }

func (a *aurora) migrationDependencies() []constructs.Construct {
	dependencies := []constructs.Construct{a.bootstrap, a.network.functions}
	if a.proxy != nil {
		dependencies = append(dependencies, a.proxy)
	}
	return dependencies
}

func (a *aurora) location() *string { return a.cluster.ClusterEndpoint().Hostname() }

// monitor adds alarms and graphs for the cluster's capacity and connections. A cluster at its
// capacity limit is slow. A cluster without free connections refuses new function environments.
func (a *aurora) monitor(m *monitoring) {
	metric := func(name, statistic string) awscloudwatch.Metric {
		return a.cluster.Metric(jsii.String(name), every(1, statistic))
	}
	capacity := metric("ACUUtilization", "Maximum")
	connections := metric("DatabaseConnections", "Maximum")
	m.addAlarm("DatabaseCapacity", capacity, alarm{
		above: 90, breaching: 5, outOf: 5,
		meaning: "The database used over 90% of its maximum capacity for five minutes",
	})
	m.addAlarm("DatabaseConnections", connections, alarm{
		above:     connectionsThreshold(a.settings.Capacity.MinACU, a.settings.MaxACU),
		breaching: 3, outOf: 3,
		meaning: "Over 80% of the database's connections are in use",
	})
	graphs := []graph{
		newGraph("Database capacity, % of the maximum", capacity),
		newGraph("Database connections", connections),
		newGraph("Database: deadlocks a second, commit latency (ms)",
			metric("Deadlocks", "Maximum"), metric("CommitLatency", "Average")),
	}
	if a.proxy != nil {
		graphs = append(graphs, monitorProxy(m, a.proxy))
	}
	if a.settings.Stage.Reader {
		graphs = append(graphs, monitorReader(m))
	}
	m.addRow(graphs...)
}

// connectionsThreshold returns 80% of the cluster's max_connections. Aurora derives that from the
// memory at the maximum capacity: one connection for each 9,531,392 bytes, and at most 5,000. An
// ACU has 2 GiB, of which the system takes up to a sixth. A cluster whose minimum capacity is half
// an ACU has at most 2,000 connections ("Performance and scaling for Aurora Serverless v2" in the
// Aurora user guide).
func connectionsThreshold(minACU, maxACU float64) float64 {
	const (
		bytesPerACU        = 2 << 30
		bytesPerConnection = 9_531_392
		usableShare        = 0.84
		maxConnections     = 5000
		maxOfHalfAnACU     = 2000
		alarmShare         = 0.8
	)
	connections := min(maxACU*bytesPerACU*usableShare/bytesPerConnection, maxConnections)
	if minACU < 1 {
		connections = min(connections, maxOfHalfAnACU)
	}
	return float64(int(connections * alarmShare))
}
