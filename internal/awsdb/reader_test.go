package awsdb

import (
	"net/url"
	"testing"

	"github.com/allo/reservations/internal/config"
)

func TestTheReaderIsTheDatabaseAtAnotherAddress(t *testing.T) {
	t.Parallel()

	manager := newManager(t)
	manager.store("postgres://u:p@writer:5432/d")
	managed := account
	managed.SecretsEndpoint = manager.url
	for name, c := range map[string]config.Config{
		"a URL": {DatabaseURL: "postgres://u:p@writer:5432/d?target_session_attrs=read-write"},
		"a URL whose host is a parameter": {
			DatabaseURL: "postgres://u:p@/d?host=writer&port=5433",
		},
		"an IAM URL": {DatabaseIAMURL: "postgres://u@writer:5432/d", AWS: account},
		"a secret":   {DatabaseSecret: "allo/database", AWS: managed},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			none, err := ReaderSource(c)
			if none != nil || err != nil {
				t.Errorf("ReaderSource() without a reader = %v, %v, want nil", none, err)
			}
			c.DatabaseReader = "reader.example.com:6432"
			source, err := ReaderSource(c)
			if err != nil {
				t.Fatal(err)
			}
			target, err := source.Target(t.Context(), false)
			if err != nil {
				t.Fatal(err)
			}
			u, err := url.Parse(target.URL)
			if err != nil {
				t.Fatal(err)
			}
			query := u.Query()
			if u.Host != c.DatabaseReader || u.User.Username() != "u" || u.Path != "/d" ||
				query.Has("host") || query.Has("port") || query.Has("target_session_attrs") {
				t.Errorf("the reader's URL is %s, want the database's at %s", u.Redacted(),
					c.DatabaseReader)
			}
		})
	}
}
