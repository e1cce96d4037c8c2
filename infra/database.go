package main

import (
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
