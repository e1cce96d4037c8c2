package main

import (
	"github.com/aws/aws-cdk-go/awscdk/v2"
	"github.com/aws/aws-cdk-go/awscdk/v2/triggers"
	"github.com/aws/constructs-go/constructs/v10"
	"github.com/aws/jsii-runtime-go"
)

// newMigration creates the function that applies the migrations, and a trigger that runs it in each
// deploy that changes it. It runs after the database is ready and before any function of `before`
// publishes a version, so before any traffic can reach new code.
//
// With migrate=manual the run applies the release's routines and rights, and fails if the schema
// lacks one of the release's files.
//
// A failed migration ends the deploy: traffic stays on the old versions, which work with the new
// schema because migrations only add (expand and contract). During the rollback the previous
// release's migrate runs again.
func newMigration(
	scope constructs.Construct, s Settings, assets string, db database, before []function,
) function {
	scope = constructs.NewConstruct(scope, jsii.String("Migration"))
	migrate := newFunction(scope, s, assets, functionProps{
		name:        "migrate",
		description: "Applies the migrations during a deploy",
		timeout:     migrateTimeout,
		db:          db,
		as:          roleMigrator,
		variables:   migrationVariables(s),
	})
	trigger := triggers.NewTrigger(scope, jsii.String("Trigger"), &triggers.TriggerProps{
		Handler:        migrate.function,
		InvocationType: triggers.InvocationType_REQUEST_RESPONSE,
		// The trigger's connection times out after this, and the trigger would then call again.
		Timeout: awscdk.Duration_Seconds(jsii.Number(triggerTimeout)),
	})
	trigger.ExecuteAfter(db.migrationDependencies()...)
	for _, f := range before {
		trigger.ExecuteBefore(f.function.CurrentVersion())
	}
	return migrate
}

// migrationVariables tells the function who applies the versioned files.
func migrationVariables(s Settings) map[string]*string {
	if !s.MigrateByHand {
		return nil
	}
	return map[string]*string{"MIGRATE": jsii.String("manual")}
}
