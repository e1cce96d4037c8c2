package config

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestTheAuthorizersSettingsAreRead(t *testing.T) {
	t.Parallel()

	jwt := Auth{Kind: AuthJWT, JWTIssuer: "https://id.example/realms/shop", JWTAudience: "shop"}
	toThisMachine, reserve := jwt, jwt
	toThisMachine.JWTIssuer = "http://127.0.0.1:9400"
	reserve.Reserve = true
	iam := Auth{Kind: AuthIAM, AccessKeyID: "AKIATEST", SecretAccessKey: "hidden"}
	for _, c := range []struct {
		want Auth
		env  []string
	}{
		{Auth{}, []string{"AUTH", "none", "RESERVE_AUTH", "off"}},
		{jwt, []string{"AUTH", "jwt", "JWT_ISSUER", jwt.JWTIssuer, "JWT_AUDIENCE", "shop"}},
		{toThisMachine, []string{
			"AUTH", "jwt", "JWT_ISSUER", toThisMachine.JWTIssuer, "JWT_AUDIENCE", "shop",
		}},
		{reserve, []string{
			"AUTH", "jwt", "JWT_ISSUER", jwt.JWTIssuer, "JWT_AUDIENCE", "shop", "RESERVE_AUTH", "on",
		}},
		{iam, []string{
			"AUTH", "iam", "IAM_ACCESS_KEY_ID", "AKIATEST", "IAM_SECRET_ACCESS_KEY", "hidden",
		}},
	} {
		got, err := load(env(c.env...))
		if err != nil {
			t.Errorf("load(%v) = %v", c.env, err)
		}
		if diff := cmp.Diff(c.want, got.Auth); diff != "" {
			t.Errorf("load(%v) differs (-want +got):\n%s", c.env, diff)
		}
	}
}

func TestAnAuthorizerWithoutItsSettingsIsRefusedByName(t *testing.T) {
	t.Parallel()

	issuer := func(url string) []string {
		return []string{"AUTH", "jwt", "JWT_AUDIENCE", "shop", "JWT_ISSUER", url}
	}
	for _, c := range []struct {
		want string
		env  []string
	}{
		{"JWT_ISSUER is not set", []string{"AUTH", "jwt", "JWT_AUDIENCE", "shop"}},
		{"JWT_AUDIENCE is not set", []string{"AUTH", "jwt", "JWT_ISSUER", "https://id.example"}},
		{"IAM_ACCESS_KEY_ID is not set", []string{"AUTH", "iam", "IAM_SECRET_ACCESS_KEY", "hidden"}},
		{"IAM_SECRET_ACCESS_KEY is not set", []string{"AUTH", "iam", "IAM_ACCESS_KEY_ID", "A"}},
		{"JWT_ISSUER is set; it is for AUTH=jwt", []string{
			"AUTH", "iam", "JWT_ISSUER", "https://id.example",
		}},
		{"IAM_ACCESS_KEY_ID is", []string{
			"AUTH", "iam", "IAM_ACCESS_KEY_ID", "a/b", "IAM_SECRET_ACCESS_KEY", "hidden",
		}},
		{"JWT_ISSUER is", issuer("http://id.example")},
		{"JWT_ISSUER is", issuer("http://localhost.example")},
		{"JWT_ISSUER is", issuer("https://u:p@id.example")},
		{"JWT_ISSUER is", issuer("https://id.example?a=1")},
		{"JWT_ISSUER is", issuer("ftp://localhost")},
		{"JWT_ISSUER is", issuer("https://")},
	} {
		_, err := load(env(c.env...))
		if err == nil || !strings.Contains(err.Error(), c.want) ||
			strings.Contains(err.Error(), "hidden") {
			t.Errorf("load(%v) = %v, want an error with %q", c.env, err, c.want)
		}
	}
}

// A terminal may have the settings of the authorizer for `make run`. The other programs don't read
// them: neither a credential without AUTH nor an invalid value is an error to them.
func TestAProgramWithoutAGatewayDoesNotReadTheAuthorizersSettings(t *testing.T) {
	t.Setenv("AUTH", "nonsense")
	t.Setenv("IAM_ACCESS_KEY_ID", "AKIATEST")
	t.Setenv("HOLD_TTL", "7m")
	if _, err := Load(); err == nil || !strings.Contains(err.Error(), "IAM_ACCESS_KEY_ID") {
		t.Errorf("Load() = %v, want an error that names the credential", err)
	}
	c, err := LoadWithoutAuth()
	if err != nil || c.Auth != (Auth{}) || c.HoldTTL != 7*time.Minute {
		t.Errorf("LoadWithoutAuth() = %+v, %v, want the other settings", c, err)
	}
	t.Setenv("HOLD_TTL", "x")
	if _, err := LoadWithoutAuth(); err == nil || !strings.Contains(err.Error(), "HOLD_TTL") {
		t.Errorf("LoadWithoutAuth() = %v, want an error that names HOLD_TTL", err)
	}
}
