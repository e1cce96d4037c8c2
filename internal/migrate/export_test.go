package migrate

// UpWith is Up with the files of any release.
var UpWith = up
