package browser

import (
	"strings"
	"testing"

	"github.com/allo/reservations/internal/config"
	"github.com/allo/reservations/internal/local/demo"
)

// The states of the shop that no test of a flow comes by.

func TestGalleryOfTheShop(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	done := make(chan struct{})
	s.breakWith(hanging(done))
	b := s.newTab()
	b.visit("/")
	b.until("document.querySelector('.card.waiting')")
	b.look("shop-loading")
	close(done)
	s.mend()
	b.sees("h1", "We hold it while you pay.")
	b.stands("Travel Bottle", "In stock")
	b.wantStill()
	b.look("shop")
	b.visit("/product/" + demo.Products()[mug].ID.String())
	b.sees(".place.picked", "New York")
	b.wantStill()
	b.look("product")

	for _, warehouse := range []int{losAngeles, newYork} { // the shopper's own choice stays
		b.click(".place input[value='" + demo.Warehouses()[warehouse].ID.String() + "']")
	}
	b.add1()
	h := s.reserve(600, line(camera, sanFrancisco, 2), line(camera, newYork, 1),
		line(mug, newYork, 30))
	b.sees(".place.picked", "Sold out")
	b.sees(".buy > button", "Get it from")
	b.look("product-sold-out")
	b.visit("/")
	b.stands("Film Camera", "Sold out")
	b.sees(addButton("Film Camera")+", [aria-label='Sold out: Film Camera']", "Sold out")
	b.look("shop-sold-out")

	// What is in the cart sells out, in view of the shopper.
	s.resolve(h.ID, "release")
	b.click(openCart)
	b.lines("1 Ceramic Mug From New York")
	s.reserve(600, line(mug, newYork, 30))
	b.sees(".trouble", "Sold out in New York. Los Angeles has 1.")
	b.look("cart-sold-out")
	b.click("dialog .remove")
	b.sees("dialog", "Your cart is empty.")
	b.click("dialog .toast button")
	b.lines("1 Ceramic Mug From New York")
	b.click("dialog .remove")
	b.click(closePanel)
	b.until("!document.querySelector('dialog')")
	b.click(openCart)
	b.look("cart-empty")
	if text := b.shown(); strings.Contains(text, "NaN") || strings.Contains(text, "undefined") {
		t.Errorf("the page shows %q", text)
	}
}

// add1 puts one unit into the cart, on a product's page.
func (b *tab) add1() {
	b.t.Helper()
	b.click(".buy button[type=submit]")
	b.sees(openCart, "1")
}

func TestGalleryOfTheShopInTrouble(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	b := s.newTab()
	s.breakWith(unavailable)
	b.visit("/")
	b.sees("main", "We can’t show this right now")
	b.look("shop-error")
	b.offline(true)
	b.sees("main", "You are offline")
	b.sees("main", "This page loads as soon as you are back online.")
	b.look("shop-offline-at-first")
	s.mend()
	b.offline(false)
	b.stands("Ceramic Mug", "In stock")
	s.breakWith(unavailable)
	b.sees(".connection", "busy or restarting")
	b.look("shop-stale")
	s.mend()
	b.until("!document.querySelector('.connection').textContent")
	b.add("Ceramic Mug", newYork)
	b.offline(true)
	b.sees(".connection", "You are offline")
	b.click(openCart)
	b.sees("dialog .connection", "You are offline")
	b.until("[...document.querySelectorAll('.connection')].filter((node) => " +
		"node.checkVisibility()).length === 1")
	b.look("cart-offline")
	b.click(closePanel)
	b.offline(false)
	b.until("!document.querySelector('.connection').textContent")

	s.db.Exec("TRUNCATE products, inventory, stock_movements, reservations, reservation_items")
	b.sees("main", "The shelves are empty")
	b.look("shop-empty")
}

// A shop of somebody's own has no demo prices.
func TestOnlyTheDemoHasPrices(t *testing.T) {
	t.Parallel()
	s := newStack(t, func(c *config.Config) { c.Pages.Demo = false })
	b := s.newTab()
	b.visit("/")
	b.add("Ceramic Mug", newYork)
	b.click(openCart)
	b.lines("1 Ceramic Mug From New York")
	b.look("cart-without-prices")
	b.click(closePanel)
	b.visit("/product/" + demo.Products()[mug].ID.String())
	b.sees(".place.picked", "New York")
	if found := eval[bool](b, "document.body.textContent.includes('$')"); found {
		t.Error("the shop shows a price, want none outside of the demo")
	}
}
