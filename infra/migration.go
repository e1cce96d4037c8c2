package main

import (
	"github.com/aws/aws-cdk-go/awscdk/v2"
	"github.com/aws/aws-cdk-go/awscdk/v2/triggers"
	"github.com/aws/constructs-go/constructs/v10"
	"github.com/aws/jsii-runtime-go"
)

// newMigration makes the function that applies the migrations, and has each deploy run it: after the database, and before any other function
// has a new version, which is what an alias and so the traffic could move to. A migration that fails ends the deploy there, with the traffic
// on the old versions and a schema that suits them: migrations only add (migrations/, expand and contract). On a rollback the previous release's
// migrate runs again, and finds nothing to do.
func newMigration(scope constructs.Construct, s Settings, assets string, db database, before []function) function {
	scope = constructs.NewConstruct(scope, jsii.String("Migration"))
	migrate := newFunction(scope, s, assets, functionProps{
		name: "migrate", description: "Applies the migrations, at a deploy", timeout: migrateTimeout, db: db, as: migrator,
	})
	trigger := triggers.NewTrigger(scope, jsii.String("Trigger"), &triggers.TriggerProps{
		Handler:        migrate.function,
		InvocationType: triggers.InvocationType_REQUEST_RESPONSE,
		// It is the socket's, after which the caller would call again.
		Timeout: awscdk.Duration_Seconds(jsii.Number(triggerTimeout)),
	})
	trigger.ExecuteAfter(db.ready()...)
	for _, f := range before {
		trigger.ExecuteBefore(f.function.CurrentVersion())
	}
	return migrate
}
