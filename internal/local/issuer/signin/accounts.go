package signin

import (
	"slices"

	"github.com/allo/reservations/internal/app/grant"
	"github.com/allo/reservations/internal/principal"
	"github.com/allo/reservations/internal/route"
)

// account is a user of the console.
type account struct {
	// Group is the account's only group, and its id: the sub of its tokens.
	Group string
	// Name is the name of a person who might have the account.
	Name string
	// May says what the group may do.
	May string
}

// accounts returns one account for each group.
func accounts() []account {
	all := []account{
		{grant.GroupViewer, "Vera Lind", "Sees holds, stock and events, and changes nothing."},
		{grant.GroupStock, "Sam Okoro", "Also changes the catalog and the stock."},
		{grant.GroupSupport, "Priya Nair", "Also helps customers: releases holds."},
		{grant.GroupAdmin, "Ada Brandt", "May do everything."},
	}
	return all
}

// findAccount returns the account of a group.
func findAccount(group string) (account, bool) {
	all := accounts()
	n := slices.IndexFunc(all, func(a account) bool { return a.Group == group })
	if n < 0 {
		return account{}, false
	}
	return all[n], true
}

// scopesOf returns the scopes of a subject: those of the account's group, or of a client that signs
// in as itself.
func scopesOf(subject string) []string {
	scopes := grant.Scopes(subject)
	switch subject {
	case PaymentsID:
		scopes = []string{route.ScopeConfirm}
	case DemoID:
		scopes = []string{
			route.ScopeConfirm, route.ScopeReserve, route.ScopeRead, route.ScopeWrite,
			principal.ScopeActForAny,
		}
	}
	return scopes
}
