// Command infra is the CDK app. It synthesizes one stack with everything that the service needs in
// an AWS account, and the stacks beside it that the settings in the CDK's context ask for. The
// CDK's command line runs it (cdk.json). It also builds the functions, for the architecture that
// the settings choose.
package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/aws/aws-cdk-go/awscdk/v2"
	"github.com/aws/jsii-runtime-go"
	"github.com/cdklabs/cdk-nag-go/cdknag/v2"
)

func main() {
	err := synthesize()
	closeJSII()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// closeJSII ends the Node process that the CDK runs in. jsii waits for that process twice and
// reports the second wait as a failure on stderr, so stderr is muted meanwhile.
func closeJSII() {
	stderr := os.Stderr
	os.Stderr, _ = os.Open(os.DevNull)
	jsii.Close()
	os.Stderr = stderr
}

func synthesize() error {
	cdk := awscdk.NewApp(nil)
	settings, err := ReadSettings(contextOf(cdk))
	if err != nil {
		return fmt.Errorf("the context (-c key=value) is not valid:\n%w", err)
	}
	if err := settings.checkShell(os.Getenv); err != nil {
		return err
	}
	assets := filepath.Join("build", "lambda", settings.GOARCH())
	if err := build(settings.GOARCH(), assets); err != nil {
		return err
	}
	newStacks(cdk, settings, assets)
	return finish(cdk)
}

// newStacks creates the stacks of the app. By default there is one.
func newStacks(cdk awscdk.App, settings Settings, assets string) {
	main := newStack(cdk, settings, assets)
	newBackupStack(cdk, settings, main)
	newDelivery(cdk, settings)
}

// finish checks the app with cdk-nag's rules and writes the templates. A finding that nag.go
// doesn't suppress is an error, which the CDK has printed by then. The CDK panics on errors;
// finish returns them.
func finish(cdk awscdk.App) (err error) {
	defer func() {
		if value := recover(); value != nil {
			err = fmt.Errorf("synthesize: %v", value)
		}
	}()
	awscdk.Aspects_Of(cdk).Add(cdknag.NewAwsSolutionsChecks(nil), nil)
	cdk.Synth(nil)
	return nil
}

// contextOf returns the context from the command line and cdk.json.
func contextOf(cdk awscdk.App) map[string]any {
	all, ok := cdk.Node().GetAllContext(nil).(map[string]any)
	if !ok {
		return map[string]any{}
	}
	return all
}

// buildLimit allows for the first build on a machine, which compiles every dependency.
const buildLimit = 10 * time.Minute

// build builds every function, as `make build` does. The app does this itself because it alone
// knows the architecture: a build step before it would need the setting a second time.
func build(arch, out string) error {
	ctx, cancel := context.WithTimeout(context.Background(), buildLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, "make", "--no-print-directory",
		"build-for", "GOOS=linux", "ARCH="+arch, "OUT="+out)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr // stdout is for the template
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("build the functions for %s: %w", arch, err)
	}
	return nil
}
