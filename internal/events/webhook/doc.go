// Package webhook posts events to endpoints, signed as Standard Webhooks says
// (https://www.standardwebhooks.com). The body is the CloudEvent, byte for byte.
//
// # What an endpoint gets
//
//	POST <url>
//	content-type: application/cloudevents+json
//	webhook-id: eight digits of the epoch, "-" and the event's id, the same in each attempt
//	webhook-timestamp: the attempt's time, in Unix seconds
//	webhook-signature: v1,<base64 of HMAC-SHA256(key, id "." timestamp "." body)>
//
// The epoch is the last part of the event's source. After a restore of the database it is another
// one, and the id of a lost event may come again for a new one (events.Event.DedupID). The previous
// release sends the event's id alone, so during a deploy an event may come under both. A receiver
// that goes by the event's source, id and sequence takes it once all the same.
//
// While a secret is exchanged, the signature has two parts, separated by a space: one of the new
// secret and one of the old.
//
// # What the answers mean
//
// A 2xx status within Timeout is success. 410 means that the endpoint is gone for good. Everything
// else is a failure, a redirect too: a signed event isn't sent to a place that its owner didn't
// configure. Waits are the delays after failures; with 429 and 503 the endpoint can ask for a
// longer one by Retry-After, up to maxRetryAfter.
//
// # Which addresses are dialled
//
// An endpoint's URL is configuration, but its host's addresses are whatever its DNS says at that
// moment. So each dialled address is checked after it was resolved: only public addresses are
// allowed (public). The proxy of the environment isn't used, because it would resolve the name by
// itself. Connections aren't kept, so each attempt resolves and checks again.
package webhook
