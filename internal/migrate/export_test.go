package migrate

import (
	"context"
	"io/fs"

	"github.com/allo/reservations/internal/postgres"
)

// UpWith is UpAndGrant with the files of another release.
func UpWith(
	ctx context.Context, source postgres.Source, role string, schema, routines fs.FS,
) (applied []string, err error) {
	return run(ctx, source, Options{AppRole: role}, schema, routines)
}

// RunWith is Run with the files of another release.
var RunWith = run

// LockRoles is the statement with which a deploy locks the roles.
const LockRoles = lockRoles
