package liveauth

import (
	"encoding/json"
	"testing"
)

// ask sends a question as AppSync writes it.
func ask(t *testing.T, operation, channel string) string {
	t.Helper()
	var r Request
	err := json.Unmarshal([]byte(`{"authorizationToken": "anyone", "requestContext": {
		"apiId": "aaaaaa123123123example123", "accountId": "111122223333",
		"requestId": "f4081827-1111-4444-5555-5cf4695f339f", "operation": "`+operation+`",
		"channelNamespaceName": "stock", "channel": "`+channel+`"},
		"requestHeaders": {"host": "x"}}`), &r)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := Handle(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(answer)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// The answer is never one to keep: a kept yes to a connect could open a channel.
func TestAppSyncGetsAnAnswerThatItDoesNotKeep(t *testing.T) {
	t.Parallel()
	const yes, no = `{"isAuthorized":true,"ttlOverride":0}`, `{"isAuthorized":false,"ttlOverride":0}`
	for _, c := range []struct{ operation, channel, want string }{
		{"EVENT_CONNECT", "", yes},
		{"EVENT_SUBSCRIBE", "/stock/all", yes},
		{"EVENT_SUBSCRIBE", "/holds/019aa6d2-7f3e-7cc4-a3a5-6f2b8f1f9e10", yes},
		{"EVENT_SUBSCRIBE", "/holds/*", no},
		{"EVENT_SUBSCRIBE", "/*", no},
		{"EVENT_PUBLISH", "/stock/all", no},
	} {
		if got := ask(t, c.operation, c.channel); got != c.want {
			t.Errorf("the answer to %s of %q is %s, want %s", c.operation, c.channel, got, c.want)
		}
	}
	if got, err := Lambda()(t.Context(), Request{}); err != nil || got.IsAuthorized {
		t.Errorf("an empty question is answered with %+v, %v", got, err)
	}
}
