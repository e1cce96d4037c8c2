package main

import (
	"github.com/aws/aws-cdk-go/awscdk/v2"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsiam"
	"github.com/aws/constructs-go/constructs/v10"
	"github.com/aws/jsii-runtime-go"
)

// rightsName is the name of the policy in each role. It differs from the names that the CDK gives
// to policies: a deploy that takes a policy out of the stack removes it from its role by its name.
const rightsName = "rights"

// foldPolicies writes each role's policy into the role itself. The CDK makes a resource of each
// policy, and a stack can have only so many. The rights are the same.
func foldPolicies(stack awscdk.Stack) {
	for _, node := range *stack.Node().FindAll(constructs.ConstructOrder_PREORDER) {
		role, ok := node.(awsiam.Role)
		if !ok {
			continue
		}
		resource, _ := role.Node().DefaultChild().(awsiam.CfnRole)
		policy, ok := role.Node().TryFindChild(jsii.String("DefaultPolicy")).(awsiam.Policy)
		if !ok || resource == nil {
			continue
		}
		resource.SetPolicies(&[]any{&awsiam.CfnRole_PolicyProperty{
			PolicyName: jsii.String(rightsName), PolicyDocument: policy.Document(),
		}})
		role.Node().TryRemoveChild(jsii.String("DefaultPolicy"))
	}
}
