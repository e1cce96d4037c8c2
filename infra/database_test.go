package main

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
)

func TestTheClusterIsEncryptedAndProtectedInProd(t *testing.T) {
	for _, mode := range []string{"aurora-dev", "aurora-prod", "aurora-direct"} {
		tpl := synth(t, mode)
		cluster := tpl.only(t, "AWS::RDS::DBCluster")
		want := map[string]any{
			"StorageEncrypted": true, "EnableIAMDatabaseAuthentication": true,
			"ManageMasterUserPassword": true, "EnableHttpEndpoint": true,
			"CopyTagsToSnapshot": true, "EngineVersion": "17.7",
			"DatabaseName": "allo", "EnableCloudwatchLogsExports": []any{"postgresql"},
			"DeletionProtection": false, "BackupRetentionPeriod": 1.0,
			"ServerlessV2ScalingConfiguration": map[string]any{"MinCapacity": 0.5, "MaxCapacity": 4.0},
		}
		policy, instances := "Delete", 1
		if isProd(mode) {
			policy, instances = "RetainExceptOnCreate", 2
			want["DeletionProtection"], want["BackupRetentionPeriod"] = true, 14.0
			want["ServerlessV2ScalingConfiguration"] = map[string]any{
				"MinCapacity": 2.0, "MaxCapacity": 16.0,
			}
			if modes[mode]["minAcu"] == "8" {
				want["ServerlessV2ScalingConfiguration"] = map[string]any{
					"MinCapacity": 8.0, "MaxCapacity": 16.0,
				}
			}
		}
		for property, value := range want {
			if diff := gocmp.Diff(value, cluster.get(property)); diff != "" {
				t.Errorf("%s: the cluster's %s (-want +got):\n%s", mode, property, diff)
			}
		}
		if got := cluster.attributes["DeletionPolicy"]; got != policy {
			t.Errorf("%s: the cluster's deletion policy is %v, want %s", mode, got, policy)
		}
		found := tpl.resources("AWS::RDS::DBInstance")
		if len(found) != instances {
			t.Errorf("%s: the cluster has %d instances, want %d", mode, len(found), instances)
		}
		for _, i := range found {
			// The functions trust this authority alone.
			if i.get("CACertificateIdentifier") != "rds-ca-rsa2048-g1" ||
				i.get("PubliclyAccessible") != false {
				t.Errorf("%s: the instance %s is %s", mode, i.id, asJSON(i.properties))
			}
		}
		parameters := tpl.only(t, "AWS::RDS::DBClusterParameterGroup")
		if got := parameters.get("Parameters", "rds.force_ssl"); got != "1" {
			t.Errorf("%s: rds.force_ssl is %v", mode, got)
		}
	}
}

// RDS creates the log group of a cluster itself, without a retention period, unless it finds it.
func TestTheClustersLogGroupExistsBeforeTheCluster(t *testing.T) {
	for _, mode := range []string{"aurora-dev", "aurora-prod"} {
		tpl := synth(t, mode)
		cluster, name := tpl.only(t, "AWS::RDS::DBCluster"), ""
		for _, g := range tpl.resources("AWS::Logs::LogGroup") {
			if cluster.dependsOn(g.id) {
				name, _ = g.get("LogGroupName").(string)
			}
		}
		if want := "/aws/rds/cluster/" + stackName(mode) + "/postgresql"; name != want {
			t.Errorf("%s: the cluster waits for the log group %q, want %s", mode, name, want)
		}
	}
}

func TestTheBootstrapCreatesTheRolesWhenTheWriterRuns(t *testing.T) {
	for _, mode := range []string{"aurora-dev", "aurora-prod", "aurora-direct"} {
		bootstrap := synth(t, mode).only(t, "Custom::AWS")
		if !bootstrap.dependsOn("ClusterWriter") {
			t.Errorf("%s: the bootstrap depends on %s, want the cluster's writer among it",
				mode, asJSON(bootstrap.attributes["DependsOn"]))
		}
		for _, when := range []string{"Create", "Update"} {
			call := asJSON(bootstrap.get(when))
			for _, part := range []string{"executeStatement", "allo_migrator", "allo_app"} {
				if !strings.Contains(call, part) {
					t.Errorf("%s: on %s the bootstrap calls %s, want %s in it", mode, when, call, part)
				}
			}
			if strings.Contains(call, "-- ") {
				t.Errorf("%s: the bootstrap sends comments: %s", mode, call)
			}
		}
	}
}

func TestTheProxyWantsTLSAndIAM(t *testing.T) {
	proxy := synth(t, "aurora-prod").only(t, "AWS::RDS::DBProxy")
	if proxy.get("RequireTLS") != true || proxy.get("DefaultAuthScheme") != "IAM_AUTH" {
		t.Errorf("the proxy is %s", asJSON(proxy.properties))
	}
	group := synth(t, "aurora-prod").only(t, "AWS::RDS::DBProxyTargetGroup")
	want := map[string]any{
		"ConnectionBorrowTimeout": float64(borrowTimeout),
		"MaxConnectionsPercent":   50.0, "MaxIdleConnectionsPercent": 25.0,
	}
	if diff := gocmp.Diff(want, group.get("ConnectionPoolConfigurationInfo")); diff != "" {
		t.Errorf("the proxy's connections (-want +got):\n%s", diff)
	}
}

// The proxy pins a session that has prepared statements. The migrator needs a session of its own.
func TestFunctionsConnectThroughTheProxyWithoutPreparedStatements(t *testing.T) {
	const unprepared = "default_query_exec_mode=exec"
	for mode, proxied := range map[string]bool{
		"aurora-dev": false, "aurora-direct": false, "aurora-prod": true,
	} {
		for name, f := range synth(t, mode).functions(mode) {
			if slices.Contains(databaseless, name) {
				continue
			}
			user, host := roleApp, "Endpoint.Address"
			if proxied {
				host = "Endpoint"
			}
			if name == "migrate" {
				user, host = roleMigrator, "Endpoint.Address"
			}
			url := asJSON(f.get("Environment", "Variables", "DATABASE_IAM_URL"))
			wantUnprepared := host == "Endpoint" // the proxy's
			if !strings.Contains(url, `"postgres://`+string(user)+`@"`) ||
				!strings.Contains(url, `"`+host+`"`) ||
				strings.Contains(url, unprepared) != wantUnprepared {
				t.Errorf("%s: %s connects to %s, want the role %s, the host %s, and %s: %v",
					mode, name, url, user, host, unprepared, wantUnprepared)
			}
		}
	}
}

func TestNoTemplateHasAPassword(t *testing.T) {
	password := regexp.MustCompile(`postgres(ql)?://[^@"/]*:[^@"/]*@`)
	if !password.MatchString(`"postgres://user:password@host/db"`) {
		t.Fatal("the pattern doesn't find a password")
	}
	eachMode(t, func(t *testing.T, _ string, tpl template) {
		if found := password.Find(tpl.json); found != nil {
			t.Errorf("the template has %s", found)
		}
	})
}

func TestTheConnectionsAlarmRingsAtFourFifths(t *testing.T) {
	t.Parallel()

	// max_connections is 757 at 4 ACU, and 5,000 at most; with a minimum of half an ACU it is 2,000 at
	// most.
	for acu, want := range map[[2]float64]float64{
		{0.5, 4}: 605, {0.5, 16}: 1600, {0.5, 256}: 1600, {2, 4}: 605, {2, 16}: 2422, {1, 256}: 4000,
	} {
		if got := connectionsThreshold(acu[0], acu[1]); got != want {
			t.Errorf("connectionsThreshold(%v, %v) = %v, want %v", acu[0], acu[1], got, want)
		}
	}
}
