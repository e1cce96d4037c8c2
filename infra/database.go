package main

import (
	"github.com/aws/aws-cdk-go/awscdk/v2/awslambda"
	"github.com/aws/aws-cdk-go/awscdk/v2/awssns"
	"github.com/aws/constructs-go/constructs/v10"
	"github.com/aws/jsii-runtime-go"
)

// database is the Postgres that the functions use: a cluster of the stack's own (aurora), or a
// server that exists already (external).
type database interface {
	// attach sets a function's variables, and its network if the database has one, so that it
	// connects as the role.
	attach(p *awslambda.FunctionProps, as role)
	// attachReader sets the variables with which a function reads from a reader, if there is one.
	attachReader(p *awslambda.FunctionProps, how readerUse)
	// grantReader allows the function to log in to the reader as the role.
	grantReader(fn awslambda.Function, as role, how readerUse)
	// grant allows the function to log in as the role.
	grant(fn awslambda.Function, as role)
	// migrationDependencies returns what must exist before the migrations run.
	migrationDependencies() []constructs.Construct
	// monitor adds the database's alarms and graphs.
	monitor(m *monitoring)
	// addBackups copies the data to another region, if the settings ask for it.
	addBackups(scope constructs.Construct, s Settings, alarms awssns.ITopic)
	// location describes where the data is, for the outputs.
	location() *string
}

// role is a Postgres role, one of the two that bootstrap.sql creates.
type role string

// roleMigrator owns the tables. roleApp has only the rights that the service uses.
const (
	roleMigrator role = "allo_migrator"
	roleApp      role = "allo_app"
)

// databaseName is the name of the cluster's database.
const databaseName = "allo"

// newDatabase creates the kind of database that the settings choose.
func newDatabase(scope constructs.Construct, s Settings) database {
	if s.Aurora {
		return newAurora(scope, s)
	}
	return newExternal(scope, s)
}

// setDatabaseVariables sets where a function finds its database. The function uses the first of
// DATABASE_URL, DATABASE_IAM_URL and DATABASE_SECRET that isn't empty. DATABASE_URL is always
// declared, and empty, because SAM can only override a variable that the template declares.
func setDatabaseVariables(p *awslambda.FunctionProps, iamURL, secret *string) {
	env := *p.Environment
	env["DATABASE_URL"] = jsii.String("")
	if iamURL != nil {
		env["DATABASE_IAM_URL"] = iamURL
	}
	if secret != nil {
		env["DATABASE_SECRET"] = secret
	}
}
