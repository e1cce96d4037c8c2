package deploy

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudformation"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
)

// traces are where a stack of that name would be found: calls whose answers have its name as long as there is something of it.
func traces() []question {
	return []question{
		{service: "lambda", path: "/2015-03-31/functions/"},
		{service: "events", target: "AWSEvents.ListRules"},
		{service: "sqs", target: "AmazonSQS.ListQueues"},
		{service: "logs", target: "Logs_20140328.DescribeLogGroups"},
		{service: "apigateway", path: "/v2/apis"},
		{service: "sns", form: "Action=ListTopics&Version=2010-03-31"},
		{service: "monitoring", form: "Action=DescribeAlarms&Version=2010-08-01"},
		{service: "monitoring", form: "Action=ListDashboards&Version=2010-08-01"},
		{service: "iam", form: "Action=ListRoles&Version=2010-05-08&MaxItems=1000"},
		{service: "cloudformation", form: "Action=DescribeStacks&Version=2010-05-15"},
	}
}

// found are the traces that there are.
func (d *double) found(t *testing.T) (out []question) {
	t.Helper()
	for _, q := range traces() {
		if strings.Contains(string(d.ask(t, q)), stack) {
			out = append(out, q)
		}
	}
	return out
}

// takenTable is what Postgres says of a table that is there already.
const takenTable = `relation "products" already exists`

// refusedStep is a first deploy onto a database that holds another's table. The deploy says why it failed, and takes back what it made: but for
// the stack, which CloudFormation keeps to be looked at, and the command line removes with the next deploy.
func (r *rehearsal) refusedStep(t *testing.T) {
	r.database.keep(t, r.double, secret, r.database.authority)
	r.database.exec(t, "CREATE TABLE products (ours text)")
	said, err := r.cli.deploy(t)
	if err == nil || !strings.Contains(said, takenTable) {
		t.Fatalf("cdk deploy = %v, want it to fail for the table that is taken", err)
	}
	if seen := r.trigger.invocations(); len(seen) == 0 || seen[0].err == nil {
		t.Fatalf("the trigger was asked %+v, want once, and to fail", seen)
	}
	left := r.double.found(t)
	if len(left) != 1 || left[0].service != "cloudformation" {
		t.Errorf("a deploy that failed leaves %+v, want the stack alone", left)
	}
	r.database.exec(t, "DROP SCHEMA public CASCADE; CREATE SCHEMA public")
}

// deployStep deploys the very assembly that was refused, and holds the order against what was seen when the migrations ran.
func (r *rehearsal) deployStep(t *testing.T) {
	said, err := r.cli.redeploy(t)
	if err != nil {
		t.Fatalf("cdk deploy: %v", err)
	}
	seen := r.trigger.invocations()
	if len(seen) != 1 || seen[0].err != nil || seen[0].request.RequestType != "Create" {
		t.Fatalf("the trigger was asked %+v, want once, to create, and to succeed", seen)
	}
	if !slices.Equal(seen[0].published, []string{"migrate"}) {
		t.Errorf("when the migrations ran, %v had versions, want migrate alone", seen[0].published)
	}
	migrations, err := filepath.Glob(filepath.Join(root, "migrations", "*.sql"))
	if err != nil {
		t.Fatal(err)
	}
	var report struct{ Applied []string }
	if err := json.Unmarshal([]byte(seen[0].answer), &report); err != nil || len(report.Applied) != len(migrations) {
		t.Errorf("migrate answers %s, %v, want all %d migrations", seen[0].answer, err, len(migrations))
	}
	if seen[0].tables != 0 || r.database.tables(t) == 0 {
		t.Errorf("there were %d tables before the migrations and are %d now, want none and some", seen[0].tables, r.database.tables(t))
	}
	if made, all := r.resources(t); made != all {
		t.Errorf("%d of the template's %d resources are there", made, all)
	} else {
		t.Logf("%d resources were made", made)
	}
	for _, output := range []string{"ApiUrl", "DashboardUrl", "FunctionNames", "LostSweepsQueueUrl"} {
		if !strings.Contains(said, stack+"."+output+" = ") {
			t.Errorf("the deploy doesn't tell %s", output)
		}
	}
	if found := r.double.found(t); len(found) != len(traces()) {
		t.Errorf("only in %+v there is something of the stack: the look for what is left would be blind", found)
	}
}

// resources counts what the double has made of the template.
func (r *rehearsal) resources(t *testing.T) (made, all int) {
	t.Helper()
	var template struct{ Resources map[string]any }
	if err := json.Unmarshal([]byte(r.double.template(t)), &template); err != nil {
		t.Fatal(err)
	}
	client := cloudformation.NewFromConfig(r.double.config())
	got, err := client.DescribeStackResources(within(t, callLimit), &cloudformation.DescribeStackResourcesInput{StackName: aws.String(stack)})
	if err != nil {
		t.Fatal(err)
	}
	return len(got.StackResources), len(template.Resources)
}

// served is what an alias serves: a version, and its code.
type served struct{ version, code string }

func (d *double) served(t *testing.T) map[string]served {
	t.Helper()
	client, out := lambda.NewFromConfig(d.config()), map[string]served{}
	for _, name := range names() {
		f := aws.String(stack + "-" + name)
		got, err := client.GetAlias(within(t, callLimit), &lambda.GetAliasInput{FunctionName: f, Name: aws.String(alias)})
		if err != nil {
			t.Fatal(err)
		}
		code, err := client.GetFunction(within(t, callLimit), &lambda.GetFunctionInput{FunctionName: f, Qualifier: got.FunctionVersion})
		if err != nil {
			t.Fatal(err)
		}
		out[name] = served{aws.ToString(got.FunctionVersion), aws.ToString(code.Configuration.CodeSha256)}
	}
	return out
}

// versions counts a function's, but for $LATEST.
func (d *double) versions(t *testing.T, name string) int {
	t.Helper()
	got, err := lambda.NewFromConfig(d.config()).ListVersionsByFunction(within(t, callLimit),
		&lambda.ListVersionsByFunctionInput{FunctionName: aws.String(stack + "-" + name)})
	if err != nil {
		t.Fatal(err)
	}
	return len(got.Versions) - 1
}

// healthMain is the main function of health, before and after a change that can be seen when it runs.
const (
	healthFile    = "functions/health/main.go"
	healthMain    = "func main() {"
	healthChanged = "func main() {\n\tprintln(\"" + healthSays + "\")\n\t"
	healthSays    = "this is the second release"
)

// brokenStep deploys a new health together with a migration that fails. The new health gets no traffic; the old one goes on.
func (r *rehearsal) brokenStep(t *testing.T) {
	before, versions := r.double.served(t), r.double.versions(t, "migrate")
	restore := r.cli.change(t, healthFile, healthMain, healthChanged)
	defer restore()
	broken := filepath.Join(r.cli.tree, "migrations", "9999_broken.sql")
	if err := os.WriteFile(broken, []byte("-- +goose Up\nALTER TABLE no_such_table ADD COLUMN x int;\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(broken)
	said, err := r.cli.deploy(t)
	if err == nil || !strings.Contains(said, "no_such_table") {
		t.Fatalf("cdk deploy = %v, want it to fail for the migration", err)
	}
	seen := r.trigger.invocations()
	if len(seen) != 2 || seen[0].err == nil || seen[1].err != nil {
		t.Fatalf("the trigger was asked %+v, want the new migrations to fail and, to go back, the old ones to find nothing to do", seen)
	}
	if !slices.Equal(seen[0].published, names()) {
		t.Errorf("with a release in service %v have versions, want all: the look at what migrations run before is blind", seen[0].published)
	}
	if after := r.double.served(t); !maps.Equal(before, after) {
		t.Errorf("the aliases serve %v, want what they served before, %v", after, before)
	}
	if after := r.double.versions(t, "migrate"); after != versions {
		t.Errorf("migrate has %d versions, and had %d: the one that failed stays, and would be in the way of the next try", after, versions)
	}
	if status := r.status(t); status != "UPDATE_ROLLBACK_COMPLETE" {
		t.Errorf("the stack is %s, want it rolled back", status)
	}
	send[map[string]any](t, serve(t, r.double, fetchAll(t, r), r.routes), http.MethodGet, "/api/health", nil, http.StatusOK)
}

func (r *rehearsal) status(t *testing.T) string {
	t.Helper()
	client := cloudformation.NewFromConfig(r.double.config())
	got, err := client.DescribeStacks(within(t, callLimit), &cloudformation.DescribeStacksInput{StackName: aws.String(stack)})
	if err != nil || len(got.Stacks) != 1 {
		t.Fatalf("DescribeStacks() = %+v, %v, want one", got, err)
	}
	return string(got.Stacks[0].StackStatus)
}

// changeStep deploys a health that differs by one line.
func (r *rehearsal) changeStep(t *testing.T) {
	before := r.double.served(t)
	defer r.cli.change(t, healthFile, healthMain, healthChanged)()
	if _, err := r.cli.deploy(t); err != nil {
		t.Fatalf("cdk deploy: %v", err)
	}
	if seen := r.trigger.invocations(); len(seen) != 0 {
		t.Errorf("the migrations ran again: %+v", seen)
	}
	after := r.double.served(t)
	var changed []string
	for name := range before {
		was, is := before[name], after[name]
		if was != is {
			changed = append(changed, name)
		}
		if (was.version == is.version) != (was.code == is.code) {
			t.Errorf("%s went from %+v to %+v: a version and its code change together", name, was, is)
		}
	}
	if !slices.Equal(changed, []string{"health"}) {
		t.Errorf("%v changed, want health alone", changed)
	}
	s := serve(t, r.double, fetchAll(t, r), r.routes)
	send[map[string]any](t, s, http.MethodGet, "/api/health", nil, http.StatusOK)
	if !strings.Contains(s.said.String(), healthSays) {
		t.Errorf("health says %q, want the new one's words", s.said)
	}
}

// listStep holds the list of the README against what was found.
func (r *rehearsal) listStep(t *testing.T) {
	n := r.double.notes(t)
	var found []string
	for _, list := range []struct {
		what  string
		names map[string][]string
	}{
		{"not made at all", n.Skipped},
		{"a property that is lost", n.Lost},
		{"made by the double, passed over by moto's CloudFormation", n.Added},
	} {
		for _, name := range slices.Sorted(maps.Keys(list.names)) {
			found = append(found, fmt.Sprintf("- `%s`: %s", name, list.what))
		}
	}
	t.Logf("what moto's CloudFormation doesn't model of the stack:\n%s", strings.Join(found, "\n"))
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	const begin, end = "<!-- found -->\n", "\n<!-- /found -->"
	_, rest, _ := strings.Cut(string(readme), begin)
	listed, _, ok := strings.Cut(rest, end)
	if !ok || listed != strings.Join(found, "\n") {
		t.Errorf("internal/rehearsal/README.md lists between %q and %q\n%s\nwant\n%s", begin, end, listed, strings.Join(found, "\n"))
	}
}

// destroyStep destroys.
func (r *rehearsal) destroyStep(t *testing.T) {
	if _, err := r.cli.run(t, r.cli.tree, "destroy", stack, "--force", "--app", r.cli.output); err != nil {
		t.Fatalf("cdk destroy: %v", err)
	}
	if left := r.double.found(t); len(left) != 0 {
		t.Errorf("after destroy there is something left in %+v", left)
	}
	if r.database.tables(t) == 0 {
		t.Error("the tables are gone: an external database isn't the stack's to destroy")
	}
}
