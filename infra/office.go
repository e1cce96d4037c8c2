package main

import (
	"github.com/aws/aws-cdk-go/awscdk/v2/awsiam"
	"github.com/aws/aws-cdk-go/awscdk/v2/awslogs"
	"github.com/aws/constructs-go/constructs/v10"
	"github.com/aws/jsii-runtime-go"
)

// office is what the functions share on which no sale depends: one log group, and one role for all
// that need the same rights. A role and a log group for each would be two resources of the stack,
// of which a stack can have only so many.
//
// The functions of a sale share nothing: their canaries run two versions at once, which must have
// one role, and their logs are read in a hurry.
//
// The log streams tell the functions apart. A stream of a group that isn't Lambda's own is named
// YYYY/MM/DD/FUNCTION[VERSION]ID:
// https://docs.aws.amazon.com/lambda/latest/dg/monitoring-cloudwatchlogs-loggroups.html
type office struct {
	scope constructs.Construct
	logs  awslogs.LogGroup
	roles map[rights]awsiam.Role
}

// rights are what a function may do beside writing its log. Each kind is the id of its role.
type rights string

const (
	// ownRights means that no other function may do the same.
	ownRights rights = ""
	// noRights is for functions that call nobody.
	noRights rights = "LogsOnly"
	// appRights is for functions that log in to the database as the app, on the writer or the reader.
	appRights rights = "Writer"
)

func newOffice(scope constructs.Construct, s Settings) *office {
	scope = constructs.NewConstruct(scope, jsii.String("BackOffice"))
	return &office{
		scope: scope, logs: newLogGroup(scope, "Logs", s, "back-office"),
		roles: map[rights]awsiam.Role{},
	}
}

// role returns the role of the functions with these rights.
func (o *office) role(r rights) awsiam.Role {
	if o.roles[r] == nil {
		o.roles[r] = newRole(constructs.NewConstruct(o.scope, jsii.String(string(r))), o.logs)
	}
	return o.roles[r]
}

// withOwnRights are the functions of the back office of which each may do something that no other
// function may (feed.showWebhooks).
var withOwnRights = []string{"list-webhooks", "redeliver-webhook"}
