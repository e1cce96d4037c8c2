// Package deploy rehearses what an operator does to an account, with the real CDK command line and without an account: bootstrap, a deploy whose
// migration fails, a deploy, a change of one function, one whose migration fails, and destroy.
//
// AWS's place is taken by double.py: moto's services, with a CloudFormation that is strict where moto's is lax. What is deployed is read back
// through AWS's own API; the functions' code is taken out of the double and run behind the Lambda Runtime API of package local, with the
// environment that the double says, against a Postgres that wants TLS and whose URL is in the double's Secrets Manager. What the double doesn't
// model is listed in internal/rehearsal/README.md, which the test holds against what it finds.
//
// It needs node, npm's packages of infra/ (`npm ci --prefix infra`), python3 with its venv module, and Go's modules.
package deploy
