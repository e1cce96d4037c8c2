package browser

import (
	"fmt"
	"testing"
)

// After a restore the numbers of the changes begin lower. A page that was open meanwhile takes what
// it reads half a minute after the last push, and the pushes after that. The control is a read that
// is soon after the push: it may be older, and changes nothing.
func TestAPageFollowsARestoredShop(t *testing.T) {
	t.Parallel()
	b := newStack(t).newTab()
	b.visit("/")
	b.sees("h1", "We hold it while you pay.")
	source := eval[string](b, "performance.getEntriesByType('resource').map(({ name }) => name)"+
		".find((name) => /\\/live-stock\\.[^/]*js$/.test(name))")
	got := eval[string](b, fmt.Sprintf(`import(%q).then(({ Pushed }) => {
		let now = 1_000;
		performance.now = () => now;
		const pushed = new Pushed();
		const read = (asOf, availableStock) =>
			[{ id: "p", asOf, inventories: [{ warehouseId: "w", availableStock }] }];
		const push = (asOf, availableStock) =>
			pushed.keep({ productId: "p", warehouseId: "w", asOf, availableStock });
		const shown = (items) => pushed.applied(items)[0].inventories[0].availableStock;
		const out = [push(900, 4), pushed.forget(read(400, 7)), shown(read(400, 7))];
		out.push(push(401, 6), shown(read(400, 7)));
		now += 30_001;
		out.push(pushed.forget(read(402, 5)), shown(read(402, 5)));
		out.push(push(403, 3), shown(read(402, 5)));
		return out.join(" ");
	})`, source))
	const want = "true false 4 false 4 true 5 true 3"
	if got != want {
		t.Errorf("the page shows %s, want %s", got, want)
	}
}
