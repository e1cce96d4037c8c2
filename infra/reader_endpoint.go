package main

import (
	"slices"
	"strconv"

	"github.com/aws/aws-cdk-go/awscdk/v2"
	"github.com/aws/aws-cdk-go/awscdk/v2/awscloudwatch"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsec2"
	"github.com/aws/aws-cdk-go/awscdk/v2/awslambda"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsrds"
	"github.com/aws/jsii-runtime-go"

	"github.com/allo/reservations/internal/config"
	"github.com/allo/reservations/internal/emf"
	"github.com/allo/reservations/internal/route"
)

// readerUse says how a function reads from the database's reader.
type readerUse int

const (
	// noReader reads from the writer alone.
	noReader readerUse = iota
	// sharedReader goes through the proxy, if there is one: many environments read at once.
	sharedReader
	// ownReader goes to the reader itself. The audit sets parameters of its transactions, which pins
	// a session of the proxy until its end (Amazon Aurora User Guide, "Avoiding pinning an RDS
	// Proxy"), and it runs once at a time.
	ownReader
)

// openReads are the functions of open routes that read from the reader: the catalog. A hold by its
// id isn't among them, because a shopper reads it just after the reserve or the payment. Neither is
// the health, which is about reserving.
var openReads = []string{"list-products", "list-warehouses"}

// readsOnReader reports whether a route's function reads from the reader: the catalog's, the
// operator's and those of the events' consumers.
func readsOnReader(r route.Route) bool {
	return r.Scope == route.ScopeRead || r.Scope == route.ScopeEvents ||
		slices.Contains(openReads, r.Function)
}

// newReadersEndpoint adds the proxy's endpoint for reads, or returns nil for a cluster without a
// reader: RDS Proxy wants one when the endpoint is created. The endpoint doesn't lead to the writer
// while no reader is available. Its callers then wait for the borrow timeout (Amazon Aurora User
// Guide, "Using reader endpoints with Aurora clusters"), so the functions wait for a second at most
// and read from the writer (internal/postgres).
//
// The endpoint has its own network interfaces. Without a security group they would be in the
// network's default group, which lets nothing in.
func newReadersEndpoint(
	a *aurora, proxy awsrds.DatabaseProxy, group awsec2.ISecurityGroup,
) awsrds.IDatabaseProxyEndpoint {
	if !a.settings.Stage.Reader {
		return nil
	}
	endpoint := proxy.AddEndpoint(jsii.String("Readers"), &awsrds.DatabaseProxyEndpointOptions{
		DbProxyEndpointName: jsii.String(a.settings.StackName() + "-readers"),
		Vpc:                 a.network.vpc,
		VpcSubnets:          a.network.subnets,
		SecurityGroups:      &[]awsec2.ISecurityGroup{group},
		TargetRole:          awsrds.ProxyEndpointTargetRole_READ_ONLY,
	})
	// The proxy learns of the cluster and its reader by its target group, which waits for both.
	endpoint.Node().AddDependency(proxy.Node().FindChild(jsii.String("ProxyTargetGroup")))
	return endpoint
}

// attachReader names the endpoint of the reader.
func (a *aurora) attachReader(p *awslambda.FunctionProps, how readerUse) {
	if !a.settings.Stage.Reader {
		return
	}
	host := a.cluster.ClusterReadEndpoint().Hostname()
	if a.readsThroughProxy(how) {
		host = a.readers.Endpoint()
	}
	(*p.Environment)["DATABASE_READER"] = awscdk.Fn_Join(jsii.String(":"), &[]*string{
		host, jsii.String(strconv.Itoa(postgresPort)),
	})
	if a.settings.ReaderLag != "" {
		(*p.Environment)["READER_LAG"] = jsii.String(a.settings.ReaderLag)
	}
}

// grantReader allows a function that goes through the proxy to log in to the cluster itself too, if
// it reads there. The right to log in to the proxy covers all of its endpoints.
func (a *aurora) grantReader(fn awslambda.Function, as role, how readerUse) {
	if a.settings.Stage.Reader && a.usesProxy(as) && !a.readsThroughProxy(how) {
		a.cluster.GrantConnect(fn, jsii.String(string(as)))
	}
}

func (a *aurora) readsThroughProxy(how readerUse) bool {
	return a.readers != nil && how == sharedReader
}

// readReader reads how far the reader may be behind, and checks what the functions would check at
// their start.
func (s *Settings) readReader(r *reader) {
	s.ReaderLag = r.text("readerLag", "")
	if !r.given("readerLag") {
		return
	}
	if err := config.Check(map[string]string{"READER_LAG": s.ReaderLag}); err != nil {
		r.fail("readerLag: %w", err)
	}
	if !s.Aurora || !s.Stage.Reader {
		r.fail("readerLag is for db=aurora with env=prod: other stacks have no reader")
	}
}

// fallbackReasons are the values of the dimension of emf.ReaderFallbacks.
var fallbackReasons = []string{"unreachable", "lagging", "conflict", "schema", "busy"}

// monitorReader adds the alarm for reads that the writer answers in the reader's place, and returns
// their graph. A reader cancels a read now and then, and a fail-over takes a minute.
func monitorReader(m *monitoring) graph {
	var reasons []awscloudwatch.IMetric
	for _, reason := range fallbackReasons {
		reasons = append(reasons, m.serviceMetric(emf.ReaderFallbacks, reason, "Sum", 1))
	}
	m.addAlarm("ReaderFallbacks", sum(reasons), alarm{
		above: 5, breaching: 5, outOf: 5,
		meaning: "The writer has answered reads in the reader's place for five minutes",
	})
	return newGraph("Reads that the writer answered for the reader, by reason", reasons...)
}
