// Command infra is the CDK app: one stack with everything that the service needs in an AWS account, for the settings in the context. The CDK's
// command line runs it (cdk.json). It builds the functions itself, for the architecture that the settings name.
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
	// jsii awaits its process twice, and tells of the second time, which finds it gone, as of a failure. What there is to tell was told.
	stderr := os.Stderr
	os.Stderr, _ = os.Open(os.DevNull)
	jsii.Close()
	os.Stderr = stderr
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func synthesize() error {
	cdk := awscdk.NewApp(nil)
	settings, err := ReadSettings(contextOf(cdk))
	if err != nil {
		return fmt.Errorf("the context (-c key=value) is not valid:\n%w", err)
	}
	assets := filepath.Join("build", "lambda", settings.GOARCH())
	if err := build(settings.GOARCH(), assets); err != nil {
		return err
	}
	newStack(cdk, settings, assets)
	return finish(cdk)
}

// finish writes the templates. What AWS's own rules find fault with is an error here, which the CDK has printed; what stands is explained in
// nag.go. The CDK tells of errors by a panic.
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

// contextOf is the context of the command line and of cdk.json.
func contextOf(cdk awscdk.App) map[string]any {
	all, ok := cdk.Node().GetAllContext(nil).(map[string]any)
	if !ok {
		return map[string]any{}
	}
	return all
}

// buildLimit is for the first build on a machine, which compiles everything.
const buildLimit = 10 * time.Minute

// build builds every function as `make build` does. Only here the architecture is known: a build before the app, which cdk.json could have,
// would have to be told it a second time.
func build(arch, out string) error {
	ctx, cancel := context.WithTimeout(context.Background(), buildLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, "make", "--no-print-directory", "build-for", "GOOS=linux", "ARCH="+arch, "OUT="+out)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr // the command line's own output is the template
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("build the functions for %s: %w", arch, err)
	}
	return nil
}
