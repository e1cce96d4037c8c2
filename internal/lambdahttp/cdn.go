package lambdahttp

import (
	"crypto/sha256"
	"crypto/subtle"
	"net/http"
	"strings"

	"github.com/aws/aws-lambda-go/events"

	"github.com/allo/reservations/internal/problem"
)

// OriginHeader is the header in which the CDN shows its secret to the function. CloudFront sets it
// on each request to its origin, and overwrites what a caller wrote into it (CloudFront's developer
// guide, "Add custom headers to origin requests"). No handler sees it.
const OriginHeader = "X-Origin-Verify"

// CodeNotThroughCDN is the code of the answer to a caller who went around the CDN.
const CodeNotThroughCDN = "NOT_THROUGH_CDN"

// Option changes what New makes.
type Option func(*adapter)

// OnlyThroughCDN refuses callers who went around the CDN, and with it around the firewall, before
// anything else is done for them: they get 403 NOT_THROUGH_CDN. A request came through the CDN if
// OriginHeader has one of the secrets. More than one is valid while the CDN changes to another one.
// Without secrets nobody is refused.
//
// Two kinds of requests need no secret. One is a request that the gateway has authorized: its
// caller is known, and a signature of IAM is for the host of the API, so that it can't go through
// the CDN. The other is an event without an API's id: no gateway made it, but somebody who may
// invoke the function itself.
func OnlyThroughCDN(secrets []string) Option {
	return func(a *adapter) {
		for _, secret := range secrets {
			a.secrets = append(a.secrets, sha256.Sum256([]byte(secret)))
		}
	}
}

// refuses reports whether the caller went around the CDN.
func (a adapter) refuses(event events.APIGatewayV2HTTPRequest) bool {
	context := event.RequestContext
	if len(a.secrets) == 0 || context.Authorizer != nil || context.APIID == "" {
		return false
	}
	return !a.isSecret(originHeaderOf(event))
}

// isSecret compares sums of one length, and always with each secret, so that the time that it takes
// tells nothing.
func (a adapter) isSecret(text string) bool {
	sum, found := sha256.Sum256([]byte(text)), 0
	for _, secret := range a.secrets {
		found |= subtle.ConstantTimeCompare(sum[:], secret[:])
	}
	return found == 1
}

// originHeaderOf returns the header's value. The gateway writes names in lower case, and an event
// that is written by hand may not.
func originHeaderOf(event events.APIGatewayV2HTTPRequest) string {
	for name, value := range event.Headers {
		if strings.EqualFold(name, OriginHeader) {
			return value
		}
	}
	return ""
}

// notThroughCDN answers a caller who went around the CDN. It isn't logged: the gateway's access log
// has it, and a flood of such calls should cost no more lines.
func notThroughCDN(w http.ResponseWriter, r *http.Request) {
	p := problem.New(http.StatusForbidden, CodeNotThroughCDN, "Not through the CDN",
		"This address is closed. Use the shop's public address.")
	newOwnAnswer(p, RequestID(r.Context())).write(w)
}
