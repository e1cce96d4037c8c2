package reservation

import (
	"context"
	"strings"
	"testing"

	"github.com/allo/reservations/internal/principal"
)

// The names are in the databases of running services: with another name for a key, a retry after a
// deploy would make a second effect.
func TestStoredKeysStayTheSame(t *testing.T) {
	t.Parallel()

	for _, test := range []struct {
		principal principal.Principal
		key, want string
	}{
		{principal.Principal{}, "key", "key"},
		{
			principal.Principal{Kind: "jwt", ID: `sub "7" of "https://id.example"`},
			"key",
			",ddab56b991122524907ab2fa8bc8beea59626ed458b066cc555a5a396b48a883",
		},
		{
			principal.Principal{Kind: "iam", ID: "arn:aws:iam::123456789012:user/ann"},
			"key",
			",07f355b26906e091d5ec8bf1054ee9282af6603536d5d45eeba27d4f5a36afde",
		},
	} {
		if got := storedKey(test.principal, test.key); got != test.want {
			t.Errorf("storedKey(%+v, %q) = %q, want %q", test.principal, test.key, got, test.want)
		}
	}
}

func TestPrincipalsStoredKeysAreDifferentAndNoCallersKey(t *testing.T) {
	t.Parallel()

	long := strings.Repeat("k", MaxKeyLength)
	seen := map[string]bool{}
	for _, p := range []principal.Principal{
		{Kind: "jwt", ID: "a"},
		{Kind: "iam", ID: "a"},
		{Kind: "jwt", ID: "ab"},
		{Kind: "jwt", ID: long},
		{Kind: "jwt"},
		{Kind: "unnamed"},
	} {
		for _, key := range []string{"b", "", "bb", long} {
			stored := storedKey(p, key)
			var invalid InvalidError
			validateKey(context.Background(), &invalid, stored)
			if invalid.orNil() == nil {
				t.Errorf("an anonymous caller may send the key %q of %+v", stored, p)
			}
			if seen[stored] || len(stored) > MaxKeyLength || strings.Contains(stored, long) {
				t.Errorf("storedKey(%+v, %q) = %q, want a short name of its own", p, key, stored)
			}
			seen[stored] = true
		}
	}
}
