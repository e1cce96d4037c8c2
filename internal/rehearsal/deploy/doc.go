// Package deploy rehearses what an operator does to an AWS account, with the CDK's real command
// line and without an account: bootstrap, a deploy whose migration fails, a deploy, a change of one
// function, another deploy whose migration fails, and destroy.
//
// double.py takes the place of AWS: moto's services, with a CloudFormation that is strict where
// moto's is lax. The test reads the deployed resources back through AWS's API. It takes the
// functions' code out of the double and runs it behind the Lambda Runtime API of package local,
// with the double's environment, against a Postgres that requires TLS and whose URL is in the
// double's Secrets Manager. internal/rehearsal/README.md lists what the double doesn't model, and
// the test checks that list.
//
// It needs node, the npm packages of infra/ (`npm ci --prefix infra`), python3 with its venv
// module, and Go's modules.
package deploy
