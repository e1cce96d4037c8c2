package main

import "strings"

// Disaster are the settings for what goes wrong: migrations that take long, a lost region, and keys
// that somebody else owns.
type Disaster struct {
	// MigrateByHand means that a deploy applies no versioned file of the schema. It fails until
	// `make migrate-remote` has applied them.
	MigrateByHand bool
	// BackupRegion is the region that gets a copy of each day's backup, or empty.
	BackupRegion string
	// OwnKey encrypts what the stack keeps with a KMS key of the stack's own.
	OwnKey bool
}

// readDisaster reads the settings of Disaster. It comes after readDatabase.
func (s *Settings) readDisaster(r *reader) {
	s.MigrateByHand = r.oneOf("migrate", "deploy", "deploy", "manual") == "manual"
	s.OwnKey = r.onOff("kms", false)
	s.BackupRegion = r.match("backupRegion", "", regionPattern, "a region such as eu-west-1")
	switch {
	case s.BackupRegion == "":
	case !s.Aurora:
		r.fail("backupRegion is for db=aurora: the operator of an external database backs it up")
	case s.BackupRegion == s.Region:
		r.fail("backupRegion is %s, which is the stack's own region: name another one", s.Region)
	case partitionOf(s.BackupRegion) != partitionOf(s.Region) && s.Region != "":
		r.fail("backupRegion is %s, but AWS copies nothing there from %s: name a region of the same "+
			"partition", s.BackupRegion, s.Region)
	}
}

// partitionOf returns the partition of a region: AWS keeps China's and the government's apart.
func partitionOf(region string) string {
	for _, prefix := range []string{"cn-", "us-gov-", "us-iso", "eu-isoe-", "eusc-"} {
		if strings.HasPrefix(region, prefix) {
			return prefix
		}
	}
	return ""
}
