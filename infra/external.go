package main

import (
	"github.com/aws/aws-cdk-go/awscdk/v2/awslambda"
	"github.com/aws/aws-cdk-go/awscdk/v2/awssecretsmanager"
	"github.com/aws/aws-cdk-go/awscdk/v2/awssns"
	"github.com/aws/constructs-go/constructs/v10"
	"github.com/aws/jsii-runtime-go"
)

// external is a Postgres that the stack doesn't manage. The stack has no network then. A secret
// that exists before the deploy has the database's URL. The functions read the secret when they
// connect, so the URL is in no variable, template or log.
//
// The migration may have a secret of its own. It needs one where the service goes through a
// pooler, because migrations must not, and where the service's role doesn't own the tables.
type external struct {
	secrets map[role]awssecretsmanager.ISecret
	names   map[role]string
	appRole string
}

func newExternal(scope constructs.Construct, s Settings) *external {
	e := &external{
		secrets: map[role]awssecretsmanager.ISecret{},
		names:   map[role]string{roleApp: s.SecretName, roleMigrator: s.MigrateSecretName},
		appRole: s.AppRole,
	}
	for as, id := range map[role]string{roleApp: "DatabaseUrl", roleMigrator: "MigrateUrl"} {
		e.secrets[as] = awssecretsmanager.Secret_FromSecretNameV2(
			scope, jsii.String(id), jsii.String(e.names[as]))
	}
	return e
}

func (e *external) attach(p *awslambda.FunctionProps, as role) {
	setDatabaseVariables(p, nil, jsii.String(e.names[as]))
	if as == roleMigrator && e.appRole != "" {
		(*p.Environment)["APP_ROLE"] = jsii.String(e.appRole)
	}
}

// grant lets the function read the secret. If a customer-managed key encrypts the secret, the
// operator must grant kms:Decrypt to the functions' roles.
func (e *external) grant(fn awslambda.Function, as role) { e.secrets[as].GrantRead(fn, nil) }

// attachReader does nothing: the stack knows of no reader of a server that isn't its own.
func (e *external) attachReader(*awslambda.FunctionProps, readerUse) {}

func (e *external) grantReader(awslambda.Function, role, readerUse) {}

func (e *external) migrationDependencies() []constructs.Construct { return nil }

func (e *external) monitor(*monitoring) {}

// addBackups does nothing: readDisaster refuses the setting.
func (e *external) addBackups(constructs.Construct, Settings, awssns.ITopic) {}

func (e *external) location() *string {
	return jsii.String("the URL in the secret " + e.names[roleApp])
}
