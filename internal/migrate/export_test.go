package migrate

// UpWith is Up with the files of another release.
var UpWith = up

// LockRoles is the statement with which a deploy locks the roles.
const LockRoles = lockRoles
