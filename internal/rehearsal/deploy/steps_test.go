package deploy

import (
	"encoding/json"
	"fmt"
	"io/fs"
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

// traces returns calls whose answers have the stack's name while there is any resource of it.
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

// found returns the traces whose answers have the stack's name.
func (d *double) found(t *testing.T) (out []question) {
	t.Helper()
	for _, q := range traces() {
		if strings.Contains(string(d.callAWS(t, q)), stack) {
			out = append(out, q)
		}
	}
	return out
}

// takenTable is Postgres's error for a table that exists already.
const takenTable = `relation "products" already exists`

// refusedStep deploys a first time onto a database that already has a table of the same name. The
// deploy must say why it failed and remove what it created. Only the stack itself stays:
// CloudFormation keeps it for inspection, and the command line removes it in the next deploy.
func (r *rehearsal) refusedStep(t *testing.T) {
	r.database.keep(t, r.double, secret, r.database.authority)
	r.database.exec(t, "CREATE TABLE products (ours text)")
	said, err := r.cli.deploy(t)
	if err == nil || !strings.Contains(said, takenTable) {
		t.Fatalf("cdk deploy = %v, want it to fail because the table exists", err)
	}
	if seen, smokes := r.trigger.invocations(); len(seen) == 0 || seen[0].err == nil ||
		len(smokes) > 0 {
		t.Fatalf("the triggers' invocations are %+v, %+v, want a migration that failed", seen, smokes)
	}
	left := r.double.found(t)
	if len(left) != 1 || left[0].service != "cloudformation" {
		t.Errorf("a failed deploy leaves %+v, want only the stack", left)
	}
	r.database.exec(t, "DROP SCHEMA public CASCADE; CREATE SCHEMA public")
}

// deployStep deploys the same assembly again, and checks what existed when the migrations ran.
func (r *rehearsal) deployStep(t *testing.T) {
	said, err := r.cli.redeploy(t)
	if err != nil {
		t.Fatalf("cdk deploy: %v", err)
	}
	seen, smokes := r.trigger.invocations()
	wantSmoke(t, smokes, nil)
	if len(seen) != 1 || seen[0].err != nil || seen[0].request.RequestType != "Create" {
		t.Fatalf("the trigger's invocations are %+v, want one that created and succeeded", seen)
	}
	if !slices.Equal(seen[0].published, []string{"migrate"}) {
		t.Errorf("when the migrations ran, %v had versions, want only migrate", seen[0].published)
	}
	var report struct{ Applied []string }
	want := migrationFiles(t)
	if err := json.Unmarshal([]byte(seen[0].answer), &report); err != nil ||
		!slices.Equal(report.Applied, want) {
		t.Errorf("migrate answers %s, %v, want it to apply %v", seen[0].answer, err, want)
	}
	if seen[0].tables != 0 || r.database.tables(t) == 0 {
		t.Errorf(
			"there were %d tables before the migrations and are %d now, want none and some",
			seen[0].tables, r.database.tables(t),
		)
	}
	if created, all := r.resources(t); created != all {
		t.Errorf("CloudFormation created %d of the template's %d resources", created, all)
	} else {
		t.Logf("CloudFormation created %d resources", created)
	}
	for _, output := range []string{
		"ApiUrl", "DashboardUrl", "FunctionNames", "LostSweepsQueueUrl", "TopicArn",
		"QueueArncrm",
	} {
		if !strings.Contains(said, stack+"."+output+" = ") {
			t.Errorf("the deploy's output doesn't have %s", output)
		}
	}
	if found := r.double.found(t); len(found) != len(traces()) {
		t.Errorf(
			"only %+v have the stack's name, so the search for remains would miss some", found,
		)
	}
}

// wantSmoke wants one smoke test that succeeded, when only these functions had an alias.
func wantSmoke(t *testing.T, smokes []invocation, serving []string) {
	t.Helper()
	if len(smokes) != 1 || smokes[0].err != nil ||
		!strings.Contains(smokes[0].answer, `"check":"deploy"`) {
		t.Fatalf("the smoke tests are %+v, want one that succeeded", smokes)
	}
	if !slices.Equal(smokes[0].serving, serving) {
		t.Errorf("when the smoke test ran, %v had aliases, want %v", smokes[0].serving, serving)
	}
}

// migrationFiles returns the files that a migration of an empty database applies, in their order:
// the versioned files, then the routines' files.
func migrationFiles(t *testing.T) (files []string) {
	t.Helper()
	folder := os.DirFS(filepath.Join(root, "migrations"))
	for _, pattern := range []string{"*.sql", "procedures/*.sql"} {
		found, err := fs.Glob(folder, pattern)
		if err != nil || len(found) == 0 {
			t.Fatalf("migrations has %v for %s, %v, want some files", found, pattern, err)
		}
		files = append(files, found...)
	}
	return files
}

// resources counts the resources that the double created, and those of the template.
func (r *rehearsal) resources(t *testing.T) (created, all int) {
	t.Helper()
	var template struct{ Resources map[string]any }
	if err := json.Unmarshal([]byte(r.double.template(t)), &template); err != nil {
		t.Fatal(err)
	}
	client := cloudformation.NewFromConfig(r.double.config())
	got, err := client.DescribeStackResources(
		within(t, callLimit),
		&cloudformation.DescribeStackResourcesInput{StackName: aws.String(stack)},
	)
	if err != nil {
		t.Fatal(err)
	}
	return len(got.StackResources), len(template.Resources)
}

// served is the version that an alias serves, and the hash of its code.
type served struct{ version, code string }

func (d *double) served(t *testing.T) map[string]served {
	t.Helper()
	client, out := lambda.NewFromConfig(d.config()), map[string]served{}
	for _, name := range names() {
		f := aws.String(stack + "-" + name)
		got, err := client.GetAlias(
			within(t, callLimit), &lambda.GetAliasInput{FunctionName: f, Name: aws.String(alias)},
		)
		if err != nil {
			t.Fatal(err)
		}
		code, err := client.GetFunction(
			within(t, callLimit),
			&lambda.GetFunctionInput{FunctionName: f, Qualifier: got.FunctionVersion},
		)
		if err != nil {
			t.Fatal(err)
		}
		out[name] = served{aws.ToString(got.FunctionVersion), aws.ToString(code.Configuration.CodeSha256)}
	}
	return out
}

// versions counts a function's versions without $LATEST.
func (d *double) versions(t *testing.T, name string) int {
	t.Helper()
	got, err := lambda.NewFromConfig(d.config()).ListVersionsByFunction(within(t, callLimit),
		&lambda.ListVersionsByFunctionInput{FunctionName: aws.String(stack + "-" + name)})
	if err != nil {
		t.Fatal(err)
	}
	return len(got.Versions) - 1
}

// A change of the function health whose output shows that it runs.
const (
	healthFile    = "functions/health/main.go"
	healthMain    = "func main() {"
	healthChanged = "func main() {\n\tprintln(\"" + healthSays + "\")\n\t"
	healthSays    = "this is the second release"
)

// brokenStep deploys a changed health together with a migration that fails. The changed health must
// get no traffic, and the old one must keep working.
func (r *rehearsal) brokenStep(t *testing.T) {
	before, versions := r.double.served(t), r.double.versions(t, "migrate")
	restore := r.cli.change(t, healthFile, healthMain, healthChanged)
	defer restore()
	broken := filepath.Join(r.cli.tree, "migrations", "9999_broken.sql")
	const migration = "-- +goose Up\nALTER TABLE no_such_table ADD COLUMN x int;\n"
	if err := os.WriteFile(broken, []byte(migration), 0o600); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(broken)
	said, err := r.cli.deploy(t)
	if err == nil || !strings.Contains(said, "no_such_table") {
		t.Fatalf("cdk deploy = %v, want it to fail because of the migration", err)
	}
	seen, smokes := r.trigger.invocations()
	if len(smokes) > 0 {
		t.Errorf("the smoke test ran before the migrations: %+v", smokes)
	}
	if len(seen) != 2 || seen[0].err == nil || seen[1].err != nil {
		t.Fatalf(
			"the trigger's invocations are %+v, want the new migrations to fail, "+
				"and then the old ones to succeed in the rollback",
			seen,
		)
	}
	if !slices.Equal(seen[0].published, names()) {
		t.Errorf(
			"while a release serves calls %v have versions, want all", seen[0].published,
		)
	}
	if after := r.double.served(t); !maps.Equal(before, after) {
		t.Errorf("the aliases serve %v, want what they served before, %v", after, before)
	}
	if after := r.double.versions(t, "migrate"); after != versions {
		t.Errorf(
			"migrate has %d versions and had %d: the failed one would make the next deploy fail", after,
			versions,
		)
	}
	if status := r.status(t); status != "UPDATE_ROLLBACK_COMPLETE" {
		t.Errorf("the stack is %s, want it rolled back", status)
	}
	send[map[string]any](
		t, serve(t, r.double, fetchAll(t, r), r.routes), http.MethodGet, "/api/health", nil,
		http.StatusOK,
	)
}

// A reserve that starts, connects to nothing and answers each call with 500.
const (
	reserveFile    = "functions/reserve/main.go"
	reserveMain    = `func main() { lambda.Start(app.Lambda().HTTP("reserve")) }`
	reserveChanged = `func main() {
	_ = app.Lambda
	lambda.Start(func() (map[string]any, error) {
		return map[string]any{"statusCode": 500, "body": "broken on purpose"}, nil
	})
}`
)

// smokeStep deploys a reserve that is broken. The smoke test must refuse it, so that it gets no
// traffic, and the old one must keep working. While the stack goes back, the smoke test of the
// release before runs, and passes.
func (r *rehearsal) smokeStep(t *testing.T) {
	before, versions := r.double.served(t), r.double.versions(t, "reserve")
	defer r.cli.change(t, reserveFile, reserveMain, reserveChanged)()
	said, err := r.cli.deploy(t)
	const want = "POST /api/reservations answered 500 broken on purpose; want 201"
	if err == nil || !strings.Contains(said, want) ||
		!strings.Contains(said, "the smoke test failed, so the traffic stays on the old versions") {
		t.Fatalf("cdk deploy = %v, want it to fail because %s", err, want)
	}
	migrations, smokes := r.trigger.invocations()
	if len(migrations) > 0 || len(smokes) != 2 || smokes[0].err == nil || smokes[1].err != nil {
		t.Fatalf("the migrations are %+v and the smoke tests %+v, want one that fails, and then that "+
			"of the release before", migrations, smokes)
	}
	if after := r.double.served(t); !maps.Equal(before, after) {
		t.Errorf("the aliases serve %v, want what they served before, %v", after, before)
	}
	if after := r.double.versions(t, "reserve"); after != versions {
		t.Errorf("reserve has %d versions and had %d", after, versions)
	}
	if status := r.status(t); status != "UPDATE_ROLLBACK_COMPLETE" {
		t.Errorf("the stack is %s, want it rolled back", status)
	}
	const forSale = "SELECT count(*) FROM products WHERE sku = 'smoke-test' AND status = 'ACTIVE'"
	if n := r.database.count(t, forSale); n != 0 {
		t.Error("the product of the smoke test is for sale")
	}
	s := serve(t, r.double, fetchAll(t, r), r.routes)
	shelf := s.shelf(t)
	send[reservation](t, s, http.MethodPost, "/api/reservations", map[string]any{
		"productId": shelf.product, "warehouseId": shelf.WarehouseID, "quantity": 1,
	}, http.StatusCreated)
}

func (r *rehearsal) status(t *testing.T) string {
	t.Helper()
	client := cloudformation.NewFromConfig(r.double.config())
	got, err := client.DescribeStacks(
		within(t, callLimit), &cloudformation.DescribeStacksInput{StackName: aws.String(stack)},
	)
	if err != nil || len(got.Stacks) != 1 {
		t.Fatalf("DescribeStacks() = %+v, %v, want one", got, err)
	}
	return string(got.Stacks[0].StackStatus)
}

// changeStep deploys a change of one line in health.
func (r *rehearsal) changeStep(t *testing.T) {
	before := r.double.served(t)
	defer r.cli.change(t, healthFile, healthMain, healthChanged)()
	if _, err := r.cli.deploy(t); err != nil {
		t.Fatalf("cdk deploy: %v", err)
	}
	seen, smokes := r.trigger.invocations()
	if len(seen) != 0 {
		t.Errorf("the migrations ran again: %+v", seen)
	}
	wantSmoke(t, smokes, slices.DeleteFunc(names(), func(name string) bool {
		return name == "migrate"
	}))
	after := r.double.served(t)
	var changed []string
	for name := range before {
		was, is := before[name], after[name]
		if was != is {
			changed = append(changed, name)
		}
		// The smoke function knows the others' versions, so it gets one of its own with each.
		if (was.version == is.version) != (was.code == is.code) && name != "smoke" {
			t.Errorf("%s changed from %+v to %+v: its version and its code must change together",
				name, was, is)
		}
	}
	slices.Sort(changed)
	if !slices.Equal(changed, []string{"health", "smoke"}) {
		t.Errorf("%v changed, want only health, and smoke, which calls it", changed)
	}
	s := serve(t, r.double, fetchAll(t, r), r.routes)
	send[map[string]any](t, s, http.MethodGet, "/api/health", nil, http.StatusOK)
	if !strings.Contains(s.said.String(), healthSays) {
		t.Errorf("the output of health is %q, want that of the new release", s.said)
	}
}

// listStep compares the README's list with what the double skipped.
func (r *rehearsal) listStep(t *testing.T) {
	n := r.double.notes(t)
	var found []string
	for _, list := range []struct {
		what  string
		names map[string][]string
	}{
		{"skipped, not created", n.Skipped},
		{"the property is lost", n.Lost},
		{"created by the double, skipped by moto's CloudFormation", n.Added},
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
		t.Errorf(
			"internal/rehearsal/README.md lists between %q and %q\n%s\nwant\n%s", begin, end, listed,
			strings.Join(found, "\n"),
		)
	}
}

// destroyStep destroys the stack and looks for what is left.
func (r *rehearsal) destroyStep(t *testing.T) {
	_, err := r.cli.run(t, r.cli.tree, "destroy", stack, "--force", "--app", r.cli.output)
	if err != nil {
		t.Fatalf("cdk destroy: %v", err)
	}
	if left := r.double.found(t); len(left) != 0 {
		t.Errorf("after destroy these still have the stack's name: %+v", left)
	}
	if r.database.tables(t) == 0 {
		t.Error("destroy removed the tables of the external database")
	}
}
