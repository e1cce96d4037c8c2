package workflows

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// root is the checkout.
const root = "../.."

// longest is the most minutes that a job may take: a first deploy with a database takes a quarter
// of an hour, and prod's canaries some minutes more.
const longest = 90

// workflow is what the tests read of a workflow, or of an action of our own.
type workflow struct {
	Name        string         `yaml:"name"`
	On          yaml.Node      `yaml:"on"`
	Permissions yaml.Node      `yaml:"permissions"`
	Concurrency *concurrency   `yaml:"concurrency"`
	Jobs        map[string]job `yaml:"jobs"`
	Runs        struct {
		Steps []step `yaml:"steps"`
	} `yaml:"runs"`
}

type job struct {
	If          string            `yaml:"if"`
	Uses        string            `yaml:"uses"`
	Environment string            `yaml:"environment"`
	Timeout     int               `yaml:"timeout-minutes"`
	Permissions map[string]string `yaml:"permissions"`
	Concurrency *concurrency      `yaml:"concurrency"`
	Steps       []step            `yaml:"steps"`
}

type concurrency struct {
	Group  string `yaml:"group"`
	Cancel bool   `yaml:"cancel-in-progress"`
}

type step struct {
	Uses string            `yaml:"uses"`
	Run  string            `yaml:"run"`
	With map[string]string `yaml:"with"`
	Env  map[string]string `yaml:"env"`
}

// files returns the workflows and our own actions, by their paths in the checkout.
func files(t *testing.T) map[string]string {
	t.Helper()
	found := map[string]string{}
	for _, pattern := range []string{".github/workflows/*", ".github/actions/*/action.yml"} {
		paths, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range paths {
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			found[strings.TrimPrefix(path, root+"/")] = string(text)
		}
	}
	return found
}

func TestTheWorkflowsKeepTheRules(t *testing.T) {
	t.Parallel()

	all := files(t)
	if len(all) < 5 {
		t.Fatalf("there are %d workflows and actions", len(all))
	}
	for _, problem := range problems(t, all) {
		t.Error(problem)
	}
}

// Each is one change after which a workflow could do more than it should, or would fail.
func TestAWorkflowThatBreaksARuleIsFound(t *testing.T) {
	t.Parallel()

	const ci, diff, deploy, release, action = ".github/workflows/ci.yml", ".github/workflows/diff.yml",
		".github/workflows/deploy.yml", ".github/workflows/release.yml", ".github/actions/aws/action.yml"
	for name, test := range map[string]struct{ file, old, replacement, want string }{
		"action by its tag": {
			ci, "actions/checkout@3d3c42e5aac5ba805825da76410c181273ba90b1", "actions/checkout@v7",
			"isn't named by its commit",
		},
		"action without its version": {ci, " # v7.0.1", "", "has no comment with its version"},
		"two commits of an action": {
			action, "b7ad1dad31e06c5925ef5d2fc7ad053ef454303e", strings.Repeat("a", 40),
			"two commits of actions/setup-go",
		},
		"default permissions": {release, "permissions: {}", "env: {}", "no permissions of its own"},
		"all permissions": {
			ci, "  contents: read\n\n#", "  contents: write\n\n#", "contents: write",
		},
		"token for the tests": {
			ci, "  contents: read\n\n#", "  id-token: write\n\n#", "id-token: write",
		},
		"comments of a job":  {diff, "id-token: write", "pull-requests: write", "pull-requests: write"},
		"token of a release": {release, "contents: write", "id-token: write", "id-token: write"},
		"code of forks": {
			diff, "on:\n  pull_request:", "on:\n  pull_request_target:", "starts on pull_request_target",
		},
		"deploy by hand": {
			deploy, "on:\n  push:", "on:\n  workflow_dispatch:\n  push:", "starts on workflow_dispatch",
		},
		"deploy from anywhere": {deploy, "[main]", `["**"]`, "deploys on a push to other branches"},
		"deploy of a pull request": {
			diff, "vars.PROD_DIFF_ROLE", "vars.PROD_DEPLOY_ROLE", "takes PROD_DEPLOY_ROLE",
		},
		"dev with the role of prod": {
			deploy, "vars.DEV_DEPLOY_ROLE", "vars.PROD_DEPLOY_ROLE", "the role of another environment",
		},
		"account of another environment": {
			deploy, "-c env=dev -c account=${{ vars.DEV_ACCOUNT }}",
			"-c env=dev -c account=${{ vars.PROD_ACCOUNT }}", "names PROD_ACCOUNT",
		},
		"no account":            {diff, " -c account=${{ vars.DEV_ACCOUNT }}", "", "doesn't pin"},
		"no environment":        {deploy, "environment: prod", "name: prod", "deploys outside of"},
		"the other environment": {deploy, "environment: prod", "environment: dev", "deploys outside of"},
		"deploy that is cut off": {
			deploy, "cancel-in-progress: false", "cancel-in-progress: true", "may be cut off",
		},
		"two deploys at once": {deploy, "group: deploy-prod", "group: deploy-dev", "waits for"},
		"deploy before the tests": {
			deploy, "uses: ./.github/workflows/ci.yml", "uses: ./.github/workflows/diff.yml",
			"doesn't run the tests",
		},
		"diff of a fork": {
			diff, " &&\n      github.event.pull_request.head.repo.full_name == github.repository", "",
			"runs for forks",
		},
		"no end":                {ci, "timeout-minutes: 60", "name: x", "has no timeout"},
		"late end":              {ci, "timeout-minutes: 60", "timeout-minutes: 91", "has no timeout"},
		"unknown target":        {release, "make sbom", "make bom", "there is no target bom"},
		"unknown script":        {ci, "run: .ci/run", "run: .ci/start", ".ci/start"},
		"credentials that stay": {ci, "persist-credentials: false", "fetch-depth: 1", "keeps the token"},
		"text in a script": {
			release, `VERSION="$GITHUB_REF_NAME"`, `VERSION="${{ github.ref_name }}"`, "in a script",
		},
		"no concurrency": {release, "concurrency:", "defaults:", "no concurrency"},
		"another account": {
			action, "allowed-account-ids: ${{ inputs.account }}", "mask-aws-account-id: true",
			"doesn't check the account",
		},
		"a role for an hour": {
			action, "role-duration-seconds: ${{ inputs.seconds }}", "mask-aws-account-id: true",
			"doesn't say how long",
		},
		"a role that ends before the job": {
			deploy, "seconds: 5400", "seconds: 3600", "for 3600 seconds, and may run for 5400",
		},
		"a job that outlasts its role": {
			diff, "timeout-minutes: 30", "timeout-minutes: 31", "for 1800 seconds, and may run for 1860",
		},
		"a key": {
			action, "role-to-assume: ${{ inputs.role }}",
			"role-to-assume: x\n        aws-access-key-id: ${{ secrets.KEY }}", "secrets",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			all := files(t)
			changed := strings.ReplaceAll(all[test.file], test.old, test.replacement)
			if changed == all[test.file] {
				t.Fatalf("%s has no %q", test.file, test.old)
			}
			all[test.file] = changed
			found := strings.Join(problems(t, all), "\n")
			if !strings.Contains(found, test.want) {
				t.Errorf("the problems are %q, want %q among them", found, test.want)
			}
		})
	}
}

// checker collects what is wrong with the workflows.
type checker struct {
	targets map[string]bool   // of the Makefile
	commits map[string]string // of the actions
	found   []string
}

func (c *checker) wrong(format string, args ...any) {
	c.found = append(c.found, fmt.Sprintf(format, args...))
}

// problems says what is wrong with the workflows and actions.
func problems(t *testing.T, all map[string]string) []string {
	t.Helper()
	c := &checker{targets: targets(t), commits: map[string]string{}}
	for _, path := range slices.Sorted(maps.Keys(all)) {
		var w workflow
		if err := yaml.Unmarshal([]byte(all[path]), &w); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		c.checkPins(path, all[path])
		if strings.Contains(all[path], "secrets.") {
			c.wrong("%s reads secrets: the workflows need no key", path)
		}
		c.checkSteps(path, w.Runs.Steps)
		if strings.HasPrefix(path, ".github/workflows/") {
			c.checkWorkflow(path, w)
		}
	}
	return c.found
}

var (
	usesLine = regexp.MustCompile(`(?m)^ *-? *uses: (\S+)(.*)$`)
	commit   = regexp.MustCompile(`^([a-z-]+/[a-z-]+)@([0-9a-f]{40})$`)
	version  = regexp.MustCompile(`^ # v\d+\.\d+\.\d+$`)
	variable = regexp.MustCompile(`vars\.((DEV|PROD)_[A-Z_]+)`)
	target   = regexp.MustCompile(`(?m)^([a-z-]+):`)
	makes    = regexp.MustCompile(`\bmake ([a-z-]+)`)
	script   = regexp.MustCompile(`(?m)(?:^|\s)(\.ci/\S+)`)
)

// targets returns the targets of the Makefile.
func targets(t *testing.T) map[string]bool {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for _, m := range target.FindAllStringSubmatch(string(text), -1) {
		found[m[1]] = true
	}
	return found
}

// checkPins checks that each action of others is named by its commit, the same everywhere, with its
// version beside it for the reader: whoever has an action's repository can move its tags.
func (c *checker) checkPins(path, text string) {
	for _, m := range usesLine.FindAllStringSubmatch(text, -1) {
		if strings.HasPrefix(m[1], "./") {
			continue
		}
		pin := commit.FindStringSubmatch(m[1])
		if pin == nil {
			c.wrong("%s: the action %s isn't named by its commit", path, m[1])
			continue
		}
		if !version.MatchString(m[2]) {
			c.wrong("%s: the action %s has no comment with its version", path, m[1])
		}
		if other, ok := c.commits[pin[1]]; ok && other != pin[2] {
			c.wrong("%s: there are two commits of %s", path, pin[1])
		}
		c.commits[pin[1]] = pin[2]
	}
}

// checkSteps checks that commands exist, that no text of a caller becomes part of a script, and
// that the token of the workflow isn't left in the checkout.
func (c *checker) checkSteps(path string, steps []step) {
	for _, s := range steps {
		if strings.Contains(s.Run, "${{") {
			c.wrong("%s: an expression stands in a script: %s", path, s.Run)
		}
		for _, m := range makes.FindAllStringSubmatch(s.Run, -1) {
			if !c.targets[m[1]] {
				c.wrong("%s: there is no target %s in the Makefile", path, m[1])
			}
		}
		for _, m := range script.FindAllStringSubmatch(s.Run, -1) {
			if info, err := os.Stat(filepath.Join(root, m[1])); err != nil || info.Mode()&0o100 == 0 {
				c.wrong("%s: %s can't be run", path, m[1])
			}
		}
		if strings.HasPrefix(s.Uses, "actions/checkout@") && s.With["persist-credentials"] != "false" {
			c.wrong("%s: the checkout keeps the token", path)
		}
		if strings.HasPrefix(s.Uses, "aws-actions/") &&
			s.With["allowed-account-ids"] != "${{ inputs.account }}" {
			c.wrong("%s: the action doesn't check the account", path)
		}
		if strings.HasPrefix(s.Uses, "aws-actions/") &&
			s.With["role-duration-seconds"] != "${{ inputs.seconds }}" {
			c.wrong("%s: the action doesn't say how long it needs the role", path)
		}
	}
}

// triggers are the events on which a workflow may start. pull_request_target and workflow_run would
// start it with the rights of main and the code of a fork.
var triggers = map[string][]string{
	"ci": {"pull_request", "workflow_call"}, "diff": {"pull_request"},
	"deploy": {"push"}, "release": {"push"}, "nightly": {"schedule", "workflow_dispatch"},
}

func (c *checker) checkWorkflow(path string, w workflow) {
	for i := 0; i < len(w.On.Content); i += 2 {
		if event := w.On.Content[i].Value; !slices.Contains(triggers[w.Name], event) {
			c.wrong("%s starts on %s", path, event)
		}
	}
	var on struct {
		Push struct {
			Branches []string `yaml:"branches"`
		} `yaml:"push"`
	}
	if err := w.On.Decode(&on); err != nil {
		c.wrong("%s: %v", path, err)
	}
	if w.Name == "deploy" && !slices.Equal(on.Push.Branches, []string{"main"}) {
		c.wrong("%s deploys on a push to other branches than main", path)
	}
	if w.Permissions.IsZero() {
		c.wrong("%s has no permissions of its own: a token can write by default", path)
	}
	var permissions map[string]string
	if err := w.Permissions.Decode(&permissions); err != nil && !w.Permissions.IsZero() {
		c.wrong("%s: %v", path, err)
	}
	c.checkPermissions(path, permissions, nil)
	if tests, ok := w.Jobs["ci"]; w.Name == "deploy" &&
		(!ok || tests.Uses != "./.github/workflows/ci.yml") {
		c.wrong("%s doesn't run the tests first", path)
	}
	for _, name := range slices.Sorted(maps.Keys(w.Jobs)) {
		c.checkJob(path+", job "+name, w, name)
	}
}

// writes are what workflows may write, with which action's or command's help.
var writes = map[string]string{"id-token": "./.github/actions/aws", "contents": "gh release create"}

// checkPermissions checks that who can write needs it.
func (c *checker) checkPermissions(where string, permissions map[string]string, steps []step) {
	for scope, access := range permissions {
		if access == "read" && scope == "contents" {
			continue
		}
		needed := slices.ContainsFunc(steps, func(s step) bool {
			means := writes[scope]
			return means != "" && (s.Uses == means || strings.HasPrefix(s.Run, means))
		})
		if access != "write" || !needed {
			c.wrong("%s has the permission %s: %s", where, scope, access)
		}
	}
}

func (c *checker) checkJob(where string, w workflow, name string) {
	j := w.Jobs[name]
	c.checkPermissions(where, j.Permissions, j.Steps)
	c.checkSteps(where, j.Steps)
	if j.Uses == "" && (j.Timeout < 1 || j.Timeout > longest) {
		c.wrong("%s has no timeout of at most %d minutes", where, longest)
	}
	if j.Uses == "" && j.Concurrency == nil && w.Concurrency == nil {
		c.wrong("%s has no concurrency", where)
	}
	if w.Name == "diff" && !strings.Contains(
		j.If, "github.event.pull_request.head.repo.full_name == github.repository") {
		c.wrong("%s runs for forks, which get no token", where)
	}
	for _, s := range j.Steps {
		if s.Uses == writes["id-token"] {
			c.checkAWS(where, w, name)
			if seconds := strconv.Itoa(j.Timeout * 60); s.With["seconds"] != seconds {
				c.wrong("%s has its role for %s seconds, and may run for %s", where, s.With["seconds"],
					seconds)
			}
		}
	}
}

// checkAWS checks a job that takes a role. Its name is that of its environment.
func (c *checker) checkAWS(where string, w workflow, name string) {
	j, prefix, deploys := w.Jobs[name], strings.ToUpper(name)+"_", w.Name == "deploy"
	role := prefix + map[bool]string{true: "DEPLOY_ROLE", false: "DIFF_ROLE"}[deploys]
	for _, s := range j.Steps {
		for _, text := range slices.Concat(
			slices.Collect(maps.Values(s.With)), slices.Collect(maps.Values(s.Env))) {
			for _, m := range variable.FindAllStringSubmatch(text, -1) {
				switch {
				case strings.HasSuffix(m[1], "_ROLE") && !strings.HasPrefix(m[1], prefix):
					c.wrong("%s takes %s, the role of another environment", where, m[1])
				case strings.HasSuffix(m[1], "_ROLE") && m[1] != role:
					c.wrong("%s takes %s, and should take %s", where, m[1], role)
				case !strings.HasPrefix(m[1], prefix):
					c.wrong("%s names %s", where, m[1])
				}
			}
		}
		pinned := "-c env=" + name + " -c account=${{ vars." + prefix + "ACCOUNT }}" +
			" -c region=${{ vars." + prefix + "REGION }}"
		if strings.Contains(s.Run, "make ") && !strings.Contains(s.Env["SETTINGS"], pinned) {
			c.wrong("%s doesn't pin the environment, the account and the region: %q",
				where, s.Env["SETTINGS"])
		}
	}
	if !deploys {
		if j.Environment != "" {
			c.wrong("%s takes the environment %s for a comparison", where, j.Environment)
		}
		return
	}
	if j.Environment != name {
		c.wrong("%s deploys outside of the environment %s, whose rules guard it", where, name)
	}
	if j.Concurrency == nil || j.Concurrency.Cancel {
		c.wrong("%s may be cut off by the next one", where)
	} else if j.Concurrency.Group != "deploy-"+name {
		c.wrong("%s waits for the group %s", where, j.Concurrency.Group)
	}
}
