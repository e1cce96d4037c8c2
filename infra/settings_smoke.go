package main

import "regexp"

// Checks are the settings of what tells whether the service works for its callers.
type Checks struct {
	// Smoke checks the new versions in each deploy, before the traffic moves to them.
	Smoke bool
	// Synthetic checks the public address each five minutes.
	Synthetic bool
	// SyntheticSKU is the product of which that check holds a unit for a moment. Without one it holds
	// nothing.
	SyntheticSKU string
	// Objectives adds the alarms of the service level objectives.
	Objectives bool
	// AlarmTopicARN is a topic that exists already, such as a pager's. The alarms notify it too.
	AlarmTopicARN string
}

var (
	skuPattern = regexp.MustCompile(`^[A-Za-z0-9._/+:-]{1,100}$`)
	// alarmTopicPattern matches a topic whose order doesn't matter: an alarm can't publish to a FIFO
	// topic, whose name ends in .fifo.
	alarmTopicPattern = regexp.MustCompile(
		`^arn:aws[a-z-]*:sns:([a-z0-9-]+):[0-9]{12}:[A-Za-z0-9_-]{1,256}$`)
)

// readChecks reads the settings of the checks. It follows those on which they depend.
func (s *Settings) readChecks(r *reader) {
	s.Smoke = r.onOff("smoke", true)
	s.Synthetic = r.onOff("synthetic", false)
	s.SyntheticSKU = r.match("syntheticSku", "", skuPattern,
		"the SKU of a product, of at most 100 letters, digits and ._/+:-")
	s.Objectives = r.onOff("slo", s.Stage.Objectives)
	s.AlarmTopicARN = r.match("alarmTopicArn", "", alarmTopicPattern,
		"the ARN of a standard SNS topic, such as arn:aws:sns:eu-central-1:123456789012:pager")
	if s.Synthetic && !s.Sweeper {
		r.fail("synthetic=on needs sweeper=on: the alarm knows by the minute rule that the stack runs")
	}
	if !s.Synthetic && r.given("syntheticSku") {
		r.fail("syntheticSku is for synthetic=on")
	}
	if s.ReserveAuth && r.given("syntheticSku") {
		r.fail("syntheticSku needs reserveAuth=off: the check has no token and can't hold a unit")
	}
	if topic := alarmTopicPattern.FindStringSubmatch(s.AlarmTopicARN); topic != nil &&
		s.Region != "" && topic[1] != s.Region {
		r.fail("alarmTopicArn is in %s and the stack in %s: an alarm notifies topics of its own region",
			topic[1], s.Region)
	}
}
