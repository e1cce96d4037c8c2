package awsapi

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"net/url"
	"time"

	"github.com/allo/reservations/internal/config"
)

// cloudFormation is asked for a stack's status. It takes a form and answers XML, with the stack's
// outputs and tags.
var cloudFormation = Service{
	Title: "CloudFormation", Host: "cloudformation",
	ContentType: "application/x-www-form-urlencoded; charset=utf-8",
	Timeout:     5 * time.Second, MaxAnswer: 1 << 20,
}

// StackStatus returns the status of a stack, such as UPDATE_IN_PROGRESS, by its id. The endpoint is
// a URL, or empty for the region's own.
func StackStatus(
	ctx context.Context, account config.AWS, endpoint, id string,
) (string, error) {
	form := url.Values{
		"Action": {"DescribeStacks"}, "Version": {"2010-05-15"}, "StackName": {id},
	}
	answer, _, err := NewClient(cloudFormation, account, endpoint).post(ctx, "DescribeStacks",
		[]byte(form.Encode()), map[string]string{"Content-Type": cloudFormation.ContentType})
	if err != nil {
		return "", err
	}
	var stacks struct {
		Statuses []string `xml:"DescribeStacksResult>Stacks>member>StackStatus"`
	}
	if err := xml.Unmarshal(answer, &stacks); err != nil {
		return "", fmt.Errorf("read the response of CloudFormation: %w", err)
	}
	if len(stacks.Statuses) != 1 {
		return "", errors.New("the response of CloudFormation doesn't have the stack's status")
	}
	return stacks.Statuses[0], nil
}
