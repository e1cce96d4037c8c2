package browser

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/chromedp/chromedp"

	"github.com/allo/reservations/internal/app/grant"
	"github.com/allo/reservations/internal/local/demo"
	"github.com/allo/reservations/internal/pgtest"
)

// keepDownloads keeps what a page saves, in place of the browser's download folder.
const keepDownloads = `
window.saved = [];
const make = URL.createObjectURL;
URL.createObjectURL = (blob) => {
	saved.push(blob);
	return make.call(URL, blob);
};`

// drops drops a file on the page, and chooses gives it to the field, as a person does.
func (b *tab) drops(name, content string) {
	b.takes(name, content, `
	document.querySelector(".drop").dispatchEvent(
		new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true }))`)
}

func (b *tab) chooses(name, content string) {
	b.takes(name, content, `
	const field = document.querySelector("input[type=file]");
	field.files = data.files;
	field.dispatchEvent(new Event("change", { bubbles: true }))`)
}

func (b *tab) takes(name, content, how string) {
	b.t.Helper()
	b.until("document.querySelector('.drop')")
	eval[chromedp.Void](b, fmt.Sprintf(`{
		const data = new DataTransfer();
		data.items.add(new File([%q], %q, { type: "text/csv" }));
		%s;
	}`, content, name, how))
}

// downloaded returns the content of the last file that the page has saved.
func (b *tab) downloaded() string {
	b.t.Helper()
	return eval[string](b, "saved.at(-1).text()")
}

// delivery makes a file of stock. The lines with these numbers, which count from 1, are as wrong
// says. The file's first line is the header, and one line is empty.
func delivery(lines int, wrong map[int]string) string {
	var b strings.Builder
	b.WriteString("SKU;warehouse;delta;note;colour\r\n")
	for n := 1; n <= lines; n++ {
		if n == 10 {
			b.WriteString("\r\n")
		}
		if line, ok := wrong[n]; ok {
			b.WriteString(line + "\r\n")
			continue
		}
		p := demo.Products()[n%3]
		w := demo.Warehouses()[n/3%3]
		fmt.Fprintf(&b, "%s;%s;%d;\"Delivery; line %d\";red\r\n", p.SKU, w.Code, 1+n%4, n)
	}
	return b.String()
}

// An import of 1,200 lines is stopped, goes on after a reload, and waits while the shop is busy.
// Each line takes effect once. The refused ones are told with their lines. Corrected, they are
// imported under the same reference, and the others aren't applied again. Another operator sees
// the stock grow meanwhile.
func TestAnImportIsStoppedAndGoesOn(t *testing.T) {
	t.Parallel()
	s := newGuardedStack(t)
	b, watcher := s.newTab(keepDownloads), s.newTab()
	watcher.signIn(grant.GroupViewer, rowAddress(mug, newYork))
	mugs, shelf := demo.Products()[mug], demo.Warehouses()[newYork]
	file := delivery(1200, map[int]string{
		5:    mugs.SKU + ";" + shelf.Code + ";many;;",        // the page refuses it
		7:    "NONE-SUCH;" + shelf.Code + ";1;;",             // the API refuses it
		600:  mugs.SKU + ";" + shelf.Code + ";-999999;;",     // so does the stock
		1199: mugs.SKU + ";" + shelf.Code + ";1.5;\"a\nb\";", // two problems
	})
	b.signIn(grant.GroupStock, "/ops/import")
	b.sees("h2", "Choose a file")
	b.look("import-choose")
	b.drops("delivery.csv", "name,colour\nA,red\n")
	b.sees("[role=alert]", "The first line must name the columns")
	b.drops("delivery.csv", file)
	b.sees(".sum", "1,200 lines of stock: 1,198 can be imported, and 2 lines can’t.")
	b.sees(".notice.ignored", "colour")
	b.sees(".table", "delta must be a whole number")
	b.until("document.activeElement.textContent === 'delivery.csv'")
	b.look("import-ready")
	reference := eval[string](b, "document.querySelector('.settings input').value")
	if !strings.HasPrefix(reference, "delivery.csv 20") {
		t.Errorf("the proposed reference is %q", reference)
	}

	var calls atomic.Int64
	held := make(chan struct{})
	s.breakWith(func(_ http.ResponseWriter, r *http.Request) bool {
		isImport := r.Method == http.MethodPost && r.URL.Path == "/api/stock/movements"
		if isImport && calls.Add(1) == 2 {
			<-held
		}
		return false
	})
	b.clickText("Import 1,198 lines of stock")
	b.sees(".sum", "500 of 1,200 lines of stock")
	b.look("import-busy")
	watcher.sees(".table[aria-label='List of movements']", "Delivery; line ")
	b.clickText("Stop")
	b.sees("[role=status]", "Stopping after the lines under way")
	close(held)
	b.sees("h2", "delivery.csv stopped at 1,000 of 1,200")
	b.sees(".sum", "1,000 of 1,200 lines of stock")
	b.look("import-stopped")
	b.reload()
	b.sees(".unfinished", "1,000 of 1,200 lines sent")
	b.look("import-unfinished")
	b.chooses("delivery.csv", file)
	b.sees("h2", "delivery.csv stopped at 1,000 of 1,200")
	s.breakWith(unavailable)
	b.clickText("Continue")
	b.sees(".notice.warning", "The shop is busy or restarting. We keep trying.")
	s.mend()
	b.sees("h2", "delivery.csv: 1,196 imported, 4 refused")
	b.sees(".outcomes", "1,196 applied")
	b.sees(".outcomes", "4 refused")
	b.look("import-done")
	b.clickText("Download 4 lines with the problems")
	want := []string{
		"line,problem,sku,warehouse,delta,note,colour",
		"6,delta must be a whole number," + mugs.SKU,
		"8,There is no product with this SKU or id.,NONE-SUCH",
		"602,Less than zero would be left.", // the empty line counts in the file
		"1201,delta must be a whole number; note has a line break or another control character," +
			mugs.SKU,
	}
	saved := b.downloaded()
	for _, line := range want {
		if !strings.Contains(saved, line) {
			t.Errorf("the download is %q, want %q in it", saved, line)
		}
	}
	wantMovements := func(want int) {
		t.Helper()
		got := pgtest.QueryOne[int](s.db, "SELECT count(*) FROM stock_movements WHERE source = 'console'")
		if got != want {
			t.Errorf("%d lines made a movement, want %d", got, want)
		}
	}
	wantMovements(1196)

	b.clickText("Import another file")
	b.drops("delivery.csv", delivery(1200, nil))
	b.sees(".sum", "1,200 lines of stock without a problem.")
	// The proposed reference has today's date, which may be another one by now.
	eval[chromedp.Void](b, fmt.Sprintf(`{
		const field = document.querySelector(".settings input");
		field.value = %q;
		field.dispatchEvent(new Event("input", { bubbles: true }));
	}`, reference))
	b.clickText("Import 1,200 lines of stock")
	b.sees("h2", "delivery.csv is imported")
	b.sees(".outcomes", "4 applied")
	b.sees(".outcomes", "1,196 applied before, under the same reference")
	wantMovements(1200)
	total := pgtest.QueryOne[int](s.db,
		"SELECT total FROM inventory WHERE product_id = $1 AND warehouse_id = $2", mugs.ID, shelf.ID)
	watcher.rowFigures(total, 0, total)
	b.clickText("Import another file")
	b.drops("delivery.csv", delivery(1200, nil))
	b.sees(".importer .notice", "This file was imported on")
}

// In an import of products or warehouses, the API refuses a call with one wrong line. The page
// leaves that line out and sends the others again. If the account may not import, the import stops
// and says which permission is missing. A shopper sees a new product by itself.
func TestProductsAndWarehousesAreImported(t *testing.T) {
	t.Parallel()
	s := newGuardedStack(t)
	b, shopper := s.newTab(keepDownloads), s.newTab()
	shopper.visit("/?q=big")
	shopper.sees(".blank", "Nothing found")
	b.signIn(grant.GroupStock, "/ops/import")
	b.chooses("products.csv", "sku,name,status,maxPerHold\nLAMP-1,\"Lamp, \"\"big\"\"\",active,2\n"+
		"LAMP-2,,,\nLAMP-1,Twice,,\n"+demo.Products()[mug].SKU+",,,5\nLAMP-3,Lamp,OLD,\n")
	b.sees(".sum", "5 products: 3 can be imported, and 2 lines can’t.")
	b.sees(".table", "sku is on line 2 already")
	b.sees(".table", "status must be ACTIVE or ARCHIVED")
	s.breakWith(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodPost {
			return false
		}
		w.WriteHeader(http.StatusForbidden)
		_, _ = w.Write([]byte(`{"message":"Forbidden"}`))
		return true
	})
	b.clickText("Import 3 products")
	b.sees("[role=alert]", "It needs the permission catalog:write.")
	s.mend()
	b.clickText("Continue")
	b.sees(".outcomes", "1 new")
	b.sees(".outcomes", "1 changed")
	b.sees(".outcomes", "3 refused")
	b.sees(".table", "name is required, because the sku is new")
	if name := pgtest.QueryOne[string](s.db,
		"SELECT name FROM products WHERE sku = 'LAMP-1'"); name != `Lamp, "big"` {
		t.Errorf("the product's name is %q", name)
	}
	shopper.sees(".cards", `Lamp, "big"`)

	b.clickText("Import another file")
	b.chooses("warehouses.csv", "\ufeffcode\tname\nPARIS\tParis\n")
	b.sees(".sum", "1 warehouse without a problem.")
	b.clickText("Import 1 warehouse")
	b.sees(".outcomes", "1 new")
	b.clickText("Import another file")
	eval[chromedp.Void](b, `{
		const data = new DataTransfer();
		data.items.add(new File([new Uint8Array([115, 107, 117, 10, 228])], "old.csv"));
		const field = document.querySelector("input[type=file]");
		field.files = data.files;
		field.dispatchEvent(new Event("change", { bubbles: true }));
	}`)
	b.sees("[role=alert]", "The file isn’t UTF-8 text.")
}

// An account that may not move stock doesn't see the import page. A file of products needs the
// right to the catalog.
func TestWhoMayImport(t *testing.T) {
	t.Parallel()
	s := newGuardedStack(t)
	b := s.newTab()
	b.signIn(grant.GroupSupport, "/ops/import")
	b.sees("h1", "Your account can’t open this page")
	b.until("document.querySelector('nav') && !document.querySelector('nav a[href=\"/ops/import\"]')")

	b = s.newTab()
	b.signIn(grant.GroupStock, "/ops/import")
	b.chooses("products.csv", "sku,name\nLAMP-1,Lamp\n")
	b.clickText("Import 1 product")
	b.sees(".outcomes", "1 new")
	if n := pgtest.QueryOne[int](s.db,
		"SELECT count(*) FROM products WHERE sku = 'LAMP-1'"); n != 1 {
		t.Errorf("there are %d such products, want one", n)
	}
}
