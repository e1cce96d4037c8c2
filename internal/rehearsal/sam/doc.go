// Package sam rehearses the synthesized template with AWS's own SAM: SAM accepts the template,
// mounts exactly the routes of the table, and runs the functions in containers, which serve every
// route and sweep, on a real Postgres.
//
// It needs python3 with its venv module, and npm for the CDK. The containers also need root and
// Debian's podman, runc, busybox-static, containernetworking-plugins and iptables. The engine is
// the test's own, and so is its image, because AWS's image can't be pulled everywhere. Without
// these packages that part is skipped, and the test says why. With
// -engine=unix:///var/run/docker.sock the containers run on that engine, with AWS's image.
//
//	go test -v ./internal/rehearsal/sam
package sam
