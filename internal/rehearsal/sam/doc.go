// Package sam rehearses, with AWS's own SAM, what the CDK synthesizes: the template is valid to it, it mounts the routes of the table and no
// other, and its functions, in containers as SAM runs them, serve every route and sweep, on a real Postgres.
//
// It takes python3 with its venv, and npm for the CDK. The containers take root and Debian's podman, runc and busybox-static besides, with the
// plugins for their network (containernetworking-plugins and iptables): an engine of the test's own, whose image is made here, since none can
// be pulled everywhere. Where they are missing that part is skipped, and says why. With -engine=unix:///var/run/docker.sock the containers run
// on that engine, with the image of AWS's that SAM pulls.
//
//	go test -v ./internal/rehearsal/sam
package sam
