package main

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// Delivery is how releases reach the stack, and how changes that no release made are noticed.
type Delivery struct {
	// Repository is the GitHub repository whose workflows may compare and deploy the stack, as the
	// repository's tokens name it: owner/name, or owner@id/name@id. Empty makes no roles.
	Repository string
	// Provider is the ARN of the account's OIDC provider for GitHub. Empty makes one.
	Provider string
	// Drift compares the stack with its template every day.
	Drift bool
}

// githubHost is the issuer of the tokens of GitHub's workflows, and the name of its OIDC provider.
const githubHost = "token.actions.githubusercontent.com"

var (
	// repositoryPattern matches a repository as its tokens' claim sub names it. The tokens of one
	// that was made or renamed since the summer of 2026 name the ids of the owner and of the
	// repository too, which no other repository ever gets (GitHub's changelog of 2026-04-23,
	// "Immutable subject claims for GitHub Actions OIDC tokens").
	repositoryPattern = regexp.MustCompile(
		`^[A-Za-z0-9][A-Za-z0-9_-]{0,38}(@[0-9]{1,20})?/[A-Za-z0-9._-]{1,100}(@[0-9]{1,20})?$`)
	providerPattern = regexp.MustCompile(
		`^arn:aws[a-z-]*:iam::[0-9]{12}:oidc-provider/` + regexp.QuoteMeta(githubHost) + `$`)
)

func (s *Settings) readDelivery(r *reader) {
	d := Delivery{
		Repository: r.match("githubRepo", "", repositoryPattern,
			"a GitHub repository as its tokens name it: owner/name or owner@id/name@id"),
		Provider: r.match("githubProvider", "", providerPattern,
			"the ARN of the account's OIDC provider for "+githubHost),
		Drift: r.onOff("drift", false),
	}
	if n := strings.Count(d.Repository, "@"); n == 1 {
		r.fail("githubRepo is %q; it must have the ids of both the owner and the repository, or none",
			d.Repository)
	}
	if d.Provider != "" && d.Repository == "" {
		r.fail("githubProvider is for githubRepo, whose roles trust the provider")
	}
	if d.Provider != "" && s.Account != "" && !strings.Contains(d.Provider, "::"+s.Account+":") {
		r.fail("githubProvider is %s; it must be of the account %s, as a role can't trust the "+
			"provider of another account", d.Provider, s.Account)
	}
	s.Delivery = d
}

// checkShell refuses a shell whose credentials are of another account or region than the settings
// name. The CDK's command line tells the app both in variables. Without credentials it tells no
// account: nothing can then be deployed, and there is nothing to refuse.
func (s Settings) checkShell(variable func(string) string) error {
	account, region := variable("CDK_DEFAULT_ACCOUNT"), variable("CDK_DEFAULT_REGION")
	if account == "" {
		return nil
	}
	var errs []error
	if s.Account != "" && s.Account != account {
		errs = append(errs, fmt.Errorf("the shell's credentials are of the account %s, and account "+
			"is %s: use the profile of that account, or change the setting", account, s.Account))
	}
	if s.Region != "" && s.Region != region {
		errs = append(errs, fmt.Errorf("the shell's region is %s, and region is %s: "+
			"set AWS_REGION=%s, or change the setting", region, s.Region, s.Region))
	}
	if s.BackupRegion != "" && s.BackupRegion == region {
		errs = append(errs, fmt.Errorf("backupRegion is %s, which is the shell's region and so the "+
			"stack's own: name another one", region))
	}
	return errors.Join(errs...)
}
