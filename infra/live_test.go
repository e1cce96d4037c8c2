package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// wantPagesVariables returns the variables that tell the pages where the live channel and the
// sign-in are. A value of nil is a reference.
func wantPagesVariables(mode, name string) map[string]any {
	want := map[string]any{}
	if slices.Contains([]string{"relay", "live", "web"}, name) && modes[mode]["live"] == "on" {
		want["LIVE_URL"], want["LIVE_HTTP"] = nil, nil
	}
	if name != "web" {
		return want
	}
	want["DEMO"], want["GUARDED"] = "off", "on"
	switch modes[mode]["auth"] {
	case "":
		want["GUARDED"] = "off"
	case "cognito":
		for _, variable := range []string{"OIDC_ISSUER", "OIDC_CLIENT_ID", "OIDC_TOKEN_ORIGIN"} {
			want[variable] = nil
		}
	}
	return want
}

func TestTheLiveChannelIsOpenToPagesAndTheRelayAlonePublishes(t *testing.T) {
	for _, mode := range []string{"aurora-prod", "aurora-console"} {
		for _, problem := range synth(t, mode).liveProblems(t, mode) {
			t.Errorf("%s: %s", mode, problem)
		}
	}
}

// These are the controls of the test above.
func TestAFaultOfTheLiveChannelIsFound(t *testing.T) {
	const mode = "aurora-console"
	for name, change := range map[string]struct{ old, replacement string }{
		"anybody publishes": {
			`"DefaultPublishAuthModes":[{"AuthType":"AWS_IAM"}]`,
			`"DefaultPublishAuthModes":[{"AuthType":"AWS_LAMBDA"}]`,
		},
		"pages sign": {
			`"ConnectionAuthModes":[{"AuthType":"AWS_LAMBDA"}]`,
			`"ConnectionAuthModes":[{"AuthType":"AWS_IAM"}]`,
		},
		"an answer is kept": {
			`"AuthorizerResultTtlInSeconds":0`,
			`"AuthorizerResultTtlInSeconds":60`,
		},
		"no namespace for holds": {`"Name":"holds"`, `"Name":"hold"`},
		"every API's publisher": {
			`"/channelNamespace/stock"]]`, `"/channelNamespace/*"]]`,
		},
		"another function asked": {`"Principal":"appsync.amazonaws.com"`, `"Principal":"x"`},
		"another WebSocket":      {`"Dns.Realtime"`, `"Dns.Http"`},
		"plain HTTP": {
			`"https://",{"Fn::GetAtt":["LiveApi`,
			`"http://",{"Fn::GetAtt":["LiveApi`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			tpl := changed(t, synth(t, mode), change.old, change.replacement)
			if len(tpl.liveProblems(t, mode)) == 0 {
				t.Errorf("the test accepts %s", change.replacement)
			}
		})
	}
}

// changed returns a template with each occurrence of a text replaced, which must have some.
func changed(t *testing.T, tpl template, old, replacement string) (other template) {
	t.Helper()
	body := asJSON(tpl.body)
	text := strings.ReplaceAll(body, old, replacement)
	if text == body {
		t.Fatalf("the template has no %s", old)
	}
	if err := json.Unmarshal([]byte(text), &other.body); err != nil {
		t.Fatal(err)
	}
	return other
}

// liveProblems says what is wrong with the live channel of a mode.
func (tpl template) liveProblems(t *testing.T, mode string) (found []string) {
	t.Helper()
	wrong := func(format string, args ...any) { found = append(found, fmt.Sprintf(format, args...)) }
	api, authorizer := tpl.only(t, "AWS::AppSync::Api"), tpl.functions(mode)["live-authorizer"]
	config := api.get("EventConfig")
	for key, want := range map[string]string{
		"ConnectionAuthModes":       `[{"AuthType":"AWS_LAMBDA"}]`,
		"DefaultSubscribeAuthModes": `[{"AuthType":"AWS_LAMBDA"}]`,
		"DefaultPublishAuthModes":   `[{"AuthType":"AWS_IAM"}]`,
	} {
		if got := asJSON(dig(config, key)); got != want {
			wrong("%s is %s, want %s", key, got, want)
		}
	}
	providers := asJSON(dig(config, "AuthProviders"))
	for _, part := range []string{
		`"AuthorizerResultTtlInSeconds":0`, `"AuthorizerUri":{"Ref":"Liveliveauthorizer`,
	} {
		if !strings.Contains(providers, part) {
			wrong("the authorizer is %s, want %s in it", providers, part)
		}
	}
	var namespaces []string
	for _, n := range tpl.resources("AWS::AppSync::ChannelNamespace") {
		namespaces = append(namespaces, fmt.Sprint(n.get("Name")))
		if n.get("PublishAuthModes") != nil || n.get("SubscribeAuthModes") != nil {
			wrong("the namespace %v has rules of its own", n.get("Name"))
		}
	}
	slices.Sort(namespaces)
	if !slices.Equal(namespaces, []string{"holds", "stock"}) {
		wrong("the namespaces are %v", namespaces)
	}
	if !tpl.isAskedBy(authorizer, "appsync.amazonaws.com", api.id) {
		wrong("AppSync may not ask live-authorizer")
	}
	return append(found, tpl.livePlaceProblems(mode, api)...)
}

// livePlaceProblems says what is wrong with the functions that use the channel.
func (tpl template) livePlaceProblems(mode string, api resource) (found []string) {
	wrong := func(format string, args ...any) { found = append(found, fmt.Sprintf(format, args...)) }
	for variable, want := range map[string]string{
		"LIVE_URL": `{"Fn::Join":["",["wss://",{"Fn::GetAtt":["` + api.id +
			`","Dns.Realtime"]},"/event/realtime"]]}`,
		"LIVE_HTTP": `{"Fn::Join":["",["https://",{"Fn::GetAtt":["` + api.id + `","Dns.Http"]}]]}`,
	} {
		for _, name := range []string{"relay", "live", "web"} {
			f, there := tpl.functions(mode)[name]
			got := asJSON(f.get("Environment", "Variables", variable))
			if there && got != want {
				wrong("%s of %s is %s, want %s", variable, name, got, want)
			}
		}
	}
	published := allowedResources(
		tpl.roleStatements(roleOf(tpl.functions(mode)["relay"], "Role")), "appsync:EventPublish")
	if len(published) == 0 {
		wrong("the relay may not publish")
	}
	for _, on := range published {
		for _, resource := range resourcesIn(on) {
			if !strings.HasSuffix(resource, `/channelNamespace/stock"]]}`) &&
				!strings.HasSuffix(resource, `/channelNamespace/holds"]]}`) {
				wrong("the relay may publish to %s", resource)
			}
		}
	}
	return found
}

// resourcesIn returns the resources of a statement, from its JSON: one, or a list.
func resourcesIn(text string) (all []string) {
	var value any
	if err := json.Unmarshal([]byte(text), &value); err != nil {
		panic(err)
	}
	for _, one := range asList(value) {
		all = append(all, asJSON(one))
	}
	return all
}

// isAskedBy reports whether a service may invoke a function's alias, for one resource alone.
func (tpl template) isAskedBy(f resource, service, id string) bool {
	return slices.ContainsFunc(tpl.resources("AWS::Lambda::Permission"), func(p resource) bool {
		alias, _ := p.get("FunctionName", "Ref").(string)
		a := dig(tpl.body, "Resources", alias)
		return p.get("Principal") == service && p.get("Action") == "lambda:InvokeFunction" &&
			strings.Contains(asJSON(p.get("SourceArn")), `"`+id+`"`) &&
			dig(a, "Type") == "AWS::Lambda::Alias" &&
			dig(a, "Properties", "FunctionName", "Ref") == f.id
	})
}

func TestWithoutLiveThereIsNoChannel(t *testing.T) {
	for _, mode := range []string{"aurora-dev", "external-prod"} {
		tpl := synth(t, mode)
		if found := tpl.resources("AWS::AppSync::Api"); len(found) > 0 {
			t.Errorf("%s has a channel without live=on", mode)
		}
		if strings.Contains(tpl.outputs(), "LiveUrl") {
			t.Errorf("%s has an output of a channel", mode)
		}
	}
	if outputs := synth(t, "aurora-console").outputs(); !strings.Contains(outputs, `"LiveUrl"`) {
		t.Errorf("the outputs don't name the live channel: %s", outputs)
	}
}
