package config

import (
	"fmt"
	"strings"
)

// maxSmokeFunctions bounds SMOKE_FUNCTIONS: no deployment has more functions behind its gateway.
const maxSmokeFunctions = 50

// Smoke has the settings of the smoke function.
type Smoke struct {
	// Functions maps the names of functions in the route table to the ARNs of the versions that the
	// check of a deploy calls.
	Functions map[string]string
	// Auth is how the gateway authorizes callers: jwt, iam, or empty for not at all.
	Auth string
	// ReserveAuth says that reserving needs authorization too.
	ReserveAuth bool
	// Stack is the id of the stack that is deployed, or empty outside a deploy.
	Stack string
	// URL is the public address that the check of each five minutes calls, without a slash at its
	// end, or empty.
	URL string
	// SKU is the product of which that check holds a unit, or empty when it holds nothing.
	SKU string
}

var skuName = shape{length: 100, upper: true, others: "._/+:-"}

func (r *reader) smoke() Smoke {
	return Smoke{
		Functions:   r.smokeFunctions("SMOKE_FUNCTIONS"),
		Auth:        r.oneOf("SMOKE_AUTH", "none", "jwt", "iam"),
		ReserveAuth: r.oneOf("SMOKE_RESERVE_AUTH", "off", "on") == "on",
		Stack:       r.matching("STACK_ID", resource, "the id of a stack"),
		URL:         r.url("PUBLIC_URL", "https", "http", ""),
		SKU: r.matching("SYNTHETIC_SKU", skuName,
			"an SKU of at most 100 letters, digits and ._/+:-"),
	}
}

// smokeFunctions reads pairs of a name and an ARN, such as reserve=arn:..., separated by commas.
func (r *reader) smokeFunctions(name string) map[string]string {
	value := r.getenv(name)
	if value == "" {
		return nil
	}
	const want = "pairs such as reserve=arn:aws:lambda:...:allo-prod-reserve:7, separated by commas"
	pairs := strings.Split(value, ",")
	if len(pairs) > maxSmokeFunctions {
		r.errs = append(r.errs, fmt.Errorf("%s has %d functions; it may have at most %d", name,
			len(pairs), maxSmokeFunctions))
		return nil
	}
	functions := map[string]string{}
	for _, pair := range pairs {
		function, arn, _ := strings.Cut(pair, "=")
		if function == "" || !webhookName.fits(function) || !resource.fits(arn) ||
			strings.Count(arn, ":") != 7 {
			r.bad(name, pair, want)
			continue
		}
		functions[function] = arn
	}
	return functions
}
