package migrate

// UpWith is Up with the files of another release.
var UpWith = up
