package main

import (
	"slices"

	"github.com/aws/aws-cdk-go/awscdk/v2"
	"github.com/aws/constructs-go/constructs/v10"
)

// keptKinds are the resources that a cluster needs to go on. CloudFormation would delete an
// instance whose cluster refuses to be deleted, and so end the database.
var keptKinds = []string{
	"AWS::RDS::DBCluster", "AWS::RDS::DBInstance", "AWS::RDS::DBSubnetGroup",
	"AWS::RDS::DBClusterParameterGroup", "AWS::EC2::SecurityGroup", "AWS::EC2::VPC",
	"AWS::EC2::Subnet",
}

// keep leaves prod's database alone when a deploy takes it out of the stack, as one with another
// `db` does, and when the stack is deleted: the cluster, its instances and what they need stay and
// go on. After a first deploy that failed they are deleted, because they would block the next
// attempt.
func (a *aurora) keep() {
	if !a.settings.Stage.Protected {
		return
	}
	for _, scope := range []constructs.IConstruct{a.cluster, a.network.vpc} {
		for _, node := range *scope.Node().FindAll(constructs.ConstructOrder_PREORDER) {
			resource, ok := node.(awscdk.CfnResource)
			if ok && slices.Contains(keptKinds, *resource.CfnResourceType()) {
				resource.ApplyRemovalPolicy(awscdk.RemovalPolicy_RETAIN_ON_UPDATE_OR_DELETE, nil)
			}
		}
	}
}
