package e2e

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/allo/reservations/internal/config"
	"github.com/allo/reservations/internal/local"
	"github.com/allo/reservations/internal/local/demo"
)

// The parts of the demo catalog, by their names.
var (
	sanFrancisco = demo.Warehouses()[0].ID
	newYork      = demo.Warehouses()[1].ID
	losAngeles   = demo.Warehouses()[2].ID
	headphones   = demo.Products()[0].ID
	keyboard     = demo.Products()[1].ID
	mug          = demo.Products()[2].ID
)

func line(product, warehouse uuid.UUID, quantity int) string {
	return fmt.Sprintf(`{"productId":%q,"warehouseId":%q,"quantity":%d}`, product, warehouse,
		quantity)
}

func cart(lines ...string) string { return `{"items":[` + strings.Join(lines, ",") + `]}` }

func (d *deployment) reserve(body string) hold {
	d.t.Helper()
	a := d.post("/api/reservations", body).want(d.t, http.StatusCreated, "")
	h := a.hold(d.t)
	if got, want := a.header.Get("Location"), "/api/reservations/"+h.ID; got != want {
		d.t.Errorf("Location = %q, want %q", got, want)
	}
	return h
}

type product struct {
	ID, Name, SKU string
	Inventories   []struct {
		WarehouseID, WarehouseName                      string
		TotalQuantity, ReservedQuantity, AvailableStock int
	}
}

// stock reads the total, the reserved and the available units of a stock row from the catalog.
func (d *deployment) stock(productID, warehouseID uuid.UUID) [3]int {
	d.t.Helper()
	for _, p := range decode[[]product](d.t, d.get("/api/products").want(d.t, http.StatusOK, "")) {
		for _, i := range p.Inventories {
			if p.ID == productID.String() && i.WarehouseID == warehouseID.String() {
				return [3]int{i.TotalQuantity, i.ReservedQuantity, i.AvailableStock}
			}
		}
	}
	d.t.Fatalf("the catalog has no product %s in warehouse %s", productID, warehouseID)
	return [3]int{}
}

func (d *deployment) wantStock(productID, warehouseID uuid.UUID, total, reserved int) {
	d.t.Helper()
	got, want := d.stock(productID, warehouseID), [3]int{total, reserved, total - reserved}
	if got != want {
		d.t.Errorf("total, reserved, available of %s in %s = %v, want %v", productID, warehouseID,
			got, want)
	}
}

func TestCatalogListsTheDemoByName(t *testing.T) {
	eachTransport(t, func(t *testing.T, d *deployment) {
		a := d.get("/api/products").want(t, http.StatusOK, "")
		var got []string
		for _, p := range decode[[]product](t, a) {
			for _, i := range p.Inventories {
				got = append(got, fmt.Sprintf("%s %s %s %d", p.Name, p.SKU, i.WarehouseName,
					i.AvailableStock))
			}
		}
		want := []string{
			"Ceramic Mug CM-300 Los Angeles 1", "Ceramic Mug CM-300 New York 30",
			"Ceramic Mug CM-300 San Francisco 50",
			"Mechanical Keyboard MK-200 Los Angeles 15", "Mechanical Keyboard MK-200 New York 3",
			"Mechanical Keyboard MK-200 San Francisco 20",
			"Wireless Headphones WH-100 Los Angeles 8", "Wireless Headphones WH-100 New York 5",
			"Wireless Headphones WH-100 San Francisco 12",
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("catalog = %v, want %v", got, want)
		}
		if a.header.Get("X-Request-Id") == "" || a.header.Get("Link") != "" {
			t.Errorf("header = %v, want an X-Request-Id and no Link", a.header)
		}
		names := decode[[]struct{ ID, Name string }](t,
			d.get("/api/warehouses").want(t, http.StatusOK, ""))
		if len(names) != 3 || names[0].Name != "Los Angeles" || names[1].Name != "New York" ||
			names[2].Name != "San Francisco" {
			t.Errorf("warehouses = %v, want the demo's three by name", names)
		}
	})
}

func TestTheCatalogIsCompressedAndRevalidated(t *testing.T) {
	eachTransport(t, func(t *testing.T, d *deployment) {
		d.reserve(line(mug, newYork, 2))
		ask := func(method, path, accepted, copies string) answer {
			t.Helper()
			header := map[string]string{"Accept-Encoding": accepted}
			if copies != "" {
				header["If-None-Match"] = copies
			}
			q := request{method: method, path: path, header: header}
			if method == http.MethodHead {
				return d.sendRaw(q)
			}
			return d.send(q)
		}
		for _, path := range []string{
			"/api/products", "/api/products?sku=WH-100&sku=CM-300&sku=MK-200", "/api/openapi.json",
		} {
			whole := ask("GET", path, "identity", "").want(t, http.StatusOK, "")
			packed := ask("GET", path, "br, gzip", "")
			r, err := gzip.NewReader(bytes.NewReader(packed.body))
			if err != nil {
				t.Fatalf("GET %s = %d %v %q: %v", path, packed.status, packed.header, packed.body, err)
			}
			if body, err := io.ReadAll(r); err != nil || !bytes.Equal(body, whole.body) ||
				packed.header.Get("Content-Encoding") != "gzip" {
				t.Errorf("GET %s unpacks to %q, %v, want %q", path, body, err, whole.body)
			}
			if whole.header.Get("Content-Encoding") != "" ||
				whole.header.Get("ETag") == packed.header.Get("ETag") {
				t.Errorf("GET %s has the headers %v and compressed %v, want two ETags", path,
					whole.header, packed.header)
			}
			head := ask("HEAD", path, "gzip", "")
			for name, want := range map[string]string{
				"Content-Length":   strconv.Itoa(len(packed.body)),
				"Content-Encoding": "gzip", "ETag": packed.header.Get("ETag"),
				"Vary": "Accept-Encoding",
			} {
				if got := head.header.Get(name); got != want || len(head.body) > 0 {
					t.Errorf("HEAD %s has the %s %q and %d bytes, want %q and none", path, name, got,
						len(head.body), want)
				}
			}
			for _, method := range []string{"GET", "HEAD"} {
				for accepted, of := range map[string]answer{"gzip": packed, "identity": whole} {
					tag := of.header.Get("ETag")
					a := ask(method, path, accepted, `"other", W/`+tag)
					if a.status != http.StatusNotModified || len(a.body) > 0 ||
						a.header.Get("ETag") != tag || a.header.Get("Content-Encoding") != "" ||
						a.header.Get("Cache-Control") != of.header.Get("Cache-Control") {
						t.Errorf("%s %s with its ETag = %d %v with %d bytes, want 304", method, path,
							a.status, a.header, len(a.body))
					}
				}
			}
		}
		before := ask("GET", "/api/products", "gzip", "").header.Get("ETag")
		d.reserve(line(mug, newYork, 1))
		ask("GET", "/api/products", "gzip", before).want(t, http.StatusOK, "")
	})
}

var (
	nextLink  = regexp.MustCompile(`^<([^>]+)>; rel="next"$`)
	assetLink = regexp.MustCompile(`(?:src|href)="(/assets/[^"]+)"`)
)

func TestCatalogPagesAreLinked(t *testing.T) {
	eachTransport(t, func(t *testing.T, d *deployment) {
		var names []string
		for path := "/api/products?limit=1"; path != ""; {
			a := d.get(path).want(t, http.StatusOK, "")
			for _, p := range decode[[]product](t, a) {
				names = append(names, p.Name)
			}
			path = ""
			if m := nextLink.FindStringSubmatch(a.header.Get("Link")); m != nil {
				path = m[1]
			}
		}
		if want := "Ceramic Mug|Mechanical Keyboard|Wireless Headphones"; strings.Join(names,
			"|") != want {
			t.Errorf("pages = %v, want %s", names, want)
		}
		for _, query := range []string{
			"limit=0", "limit=201", "limit=x", "limit=", "cursor=",
			"cursor=%00", "cursor=AAAA",
		} {
			d.get("/api/products?"+query).want(t, http.StatusBadRequest, "VALIDATION_FAILED")
		}
		d.get("/api/products?limit=200").want(t, http.StatusOK, "")
	})
}

func TestProductsAreChosenBySKUAndByID(t *testing.T) {
	eachTransport(t, func(t *testing.T, d *deployment) {
		d.reserve(line(mug, newYork, 2))
		chosen := decode[[]product](t, d.get("/api/products?sku=WH-100&sku=CM-300&sku=none").
			want(t, http.StatusOK, ""))
		if len(chosen) != 2 || chosen[0].SKU != "CM-300" || chosen[1].SKU != "WH-100" {
			t.Fatalf("products = %+v, want the mug and the headphones by name", chosen)
		}
		one := decode[product](t, d.get("/api/products/"+mug.String()).want(t, http.StatusOK, ""))
		if a, b := marshal(t, one), marshal(t, chosen[0]); a != b ||
			one.Inventories[1].ReservedQuantity != 2 || one.Inventories[1].AvailableStock != 28 {
			t.Errorf("the mug is %s alone and %s among others, want 28 in New York", a, b)
		}
		d.get("/api/products/"+uuid.NewString()).want(t, http.StatusNotFound, "PRODUCT_NOT_FOUND")
		for _, id := range []string{"50%25", "%00", "a%2Fb", "x"} {
			d.sendRaw(request{method: "GET", path: "/api/products/" + id}).
				want(t, http.StatusNotFound, "PRODUCT_NOT_FOUND")
		}
		for _, query := range []string{
			"sku=", "sku=%00", "sku=A&limit=1", "sku=A&cursor=x",
			strings.TrimPrefix(strings.Repeat("&sku=A", 51), "&"),
		} {
			d.get("/api/products?"+query).want(t, http.StatusBadRequest, "VALIDATION_FAILED")
		}
	})
}

// STOCK_SHOWN reaches the functions over every transport.
func TestTheCatalogAndARefusalShowAtMostSoManyUnits(t *testing.T) {
	t.Parallel()
	for _, tr := range []transport{inProcess, overHTTP, binaries} {
		t.Run(string(tr), func(t *testing.T) {
			t.Parallel()
			exact := deploy(t, tr)
			d := deployWith(t, tr, config.Config{
				DatabaseURL: exact.db.URL, HoldTTL: 10 * time.Minute, MaxHold: time.Hour,
				LogLevel: slog.LevelError, StockShown: 5,
			})
			a := d.get("/api/products/"+mug.String()).want(t, http.StatusOK, "")
			var got []string
			for _, i := range decode[struct {
				Inventories []struct {
					TotalQuantity, ReservedQuantity *int
					AvailableStock                  int
					OrMore                          bool
				}
			}](t, a).Inventories {
				got = append(got, fmt.Sprint(i.TotalQuantity, i.ReservedQuantity, i.AvailableStock,
					i.OrMore))
			}
			const want = "[<nil> <nil> 1 false <nil> <nil> 5 true <nil> <nil> 5 true]"
			if fmt.Sprint(got) != want {
				t.Errorf("the mug's units are %v, want %s", got, want)
			}
			a = d.post("/api/reservations", line(mug, newYork, 99)).
				want(t, http.StatusConflict, "INSUFFICIENT_STOCK")
			if !strings.Contains(string(a.body), `"available":5,"orMore":true`) {
				t.Errorf("the refusal is %s, want 5 or more", a.body)
			}
			exact.wantStock(mug, newYork, 30, 0)
		})
	}
}

func TestRepeatedConfirmTakesUnitsOnce(t *testing.T) {
	eachTransport(t, func(t *testing.T, d *deployment) {
		h := d.reserve(line(headphones, newYork, 2))
		d.wantStock(headphones, newYork, 5, 2)
		if h.Status != "PENDING" || *h.Quantity != 2 || *h.ProductID != headphones.String() ||
			len(h.Items) != 1 || h.ConfirmedAt != nil {
			t.Errorf("hold = %+v, want two headphones pending", h)
		}
		if life := h.ExpiresAt.Sub(h.CreatedAt); life != 10*time.Minute {
			t.Errorf("the hold lasts %v, want the default of 10m", life)
		}
		for range 2 {
			c := d.post("/api/reservations/"+h.ID+"/confirm", "").want(t, http.StatusOK, "").hold(t)
			if c.Status != "CONFIRMED" || c.ConfirmedAt == nil || c.ReleasedAt != nil {
				t.Errorf("hold = %+v, want it confirmed", c)
			}
		}
		d.wantStock(headphones, newYork, 3, 0)
		d.post("/api/reservations/"+h.ID+"/release", "").
			want(t, http.StatusConflict, "RESERVATION_CONFIRMED")
		d.post("/api/reservations/"+h.ID+"/extend", `{"ttlSeconds":60}`).
			want(t, http.StatusConflict, "RESERVATION_CONFIRMED")
	})
}

func TestRepeatedReleaseReturnsUnitsOnce(t *testing.T) {
	eachTransport(t, func(t *testing.T, d *deployment) {
		h := d.reserve(line(keyboard, newYork, 3))
		d.post("/api/reservations", line(keyboard, newYork, 1)).
			want(t, http.StatusConflict, "INSUFFICIENT_STOCK")
		for range 2 {
			r := d.post("/api/reservations/"+h.ID+"/release", "{}").
				want(t, http.StatusOK, "").hold(t)
			if r.Status != "RELEASED" || r.ReleasedAt == nil {
				t.Errorf("hold = %+v, want it released", r)
			}
		}
		d.wantStock(keyboard, newYork, 3, 0)
		d.post("/api/reservations/"+h.ID+"/confirm", "").
			want(t, http.StatusConflict, "RESERVATION_RELEASED")
		d.post("/api/reservations/"+h.ID+"/extend", `{"ttlSeconds":60}`).
			want(t, http.StatusConflict, "RESERVATION_RELEASED")
	})
}

func TestExpiredHoldFreesTheLastUnitAtOnce(t *testing.T) {
	eachTransport(t, func(t *testing.T, d *deployment) {
		first := d.reserve(line(mug, losAngeles, 1))
		a := d.post("/api/reservations", line(mug, losAngeles, 1)).
			want(t, http.StatusConflict, "INSUFFICIENT_STOCK")
		short := decode[struct {
			Shortages []struct {
				ProductID, WarehouseID string
				Requested, Available   int
			}
		}](t, a).Shortages
		if len(short) != 1 || short[0].ProductID != mug.String() || short[0].Requested != 1 ||
			short[0].Available != 0 {
			t.Errorf("shortages = %+v, want the mug, 1 of 0", short)
		}

		d.killDayAgo(first)
		d.wantStock(mug, losAngeles, 1, 0)
		second := d.reserve(line(mug, losAngeles, 1))
		d.post("/api/reservations/"+first.ID+"/confirm", "").
			want(t, http.StatusGone, "RESERVATION_EXPIRED")
		d.post("/api/reservations/"+first.ID+"/extend", `{"ttlSeconds":60}`).
			want(t, http.StatusGone, "RESERVATION_EXPIRED")
		if r := d.post("/api/reservations/"+first.ID+"/release", "").
			want(t, http.StatusOK, "").hold(t); r.Status != "EXPIRED" || r.ExpiredAt == nil {
			t.Errorf("release of an expired hold = %+v, want EXPIRED", r)
		}
		d.post("/api/reservations/"+second.ID+"/confirm", "").want(t, http.StatusOK, "")
		d.wantStock(mug, losAngeles, 0, 0)
	})
}

type view struct {
	Reservation      hold
	Product          *struct{ ID, Name, SKU string }
	Warehouse        *struct{ ID, Name string }
	RemainingSeconds int
	Expired          bool
	ServerTime       time.Time
}

func TestExpiredHoldReadsTheSameBeforeAndAfterTheSweep(t *testing.T) {
	eachTransport(t, func(t *testing.T, d *deployment) {
		h := d.reserve(line(headphones, sanFrancisco, 1))
		v := decode[view](t, d.get("/api/reservations/"+h.ID).want(t, http.StatusOK, ""))
		if v.Product.SKU != "WH-100" || v.Warehouse.Name != "San Francisco" || v.Expired ||
			v.RemainingSeconds < 590 || v.RemainingSeconds > 600 {
			t.Errorf("view = %+v, want the headphones with about 600 s left", v)
		}
		d.killDayAgo(h)
		before := decode[view](t, d.get("/api/reservations/"+h.ID).want(t, http.StatusOK, ""))
		if !before.Expired || before.RemainingSeconds != 0 ||
			before.Reservation.Status != "EXPIRED" || before.Reservation.ExpiredAt == nil {
			t.Errorf("view = %+v, want it expired", before)
		}
		report := d.sweep()
		if report.Expired != 1 || report.Units != 1 || report.OldestSeconds < 80_000 {
			t.Errorf("sweep = %+v, want one hold of one unit that expired most of a day ago",
				report)
		}
		after := decode[view](t, d.get("/api/reservations/"+h.ID).want(t, http.StatusOK, ""))
		after.ServerTime = before.ServerTime
		if b, a := marshal(t, before), marshal(t, after); b != a {
			t.Errorf("the hold reads %s before the sweep and %s after it", b, a)
		}
		if again := d.sweep(); again.Expired != 0 {
			t.Errorf("second sweep = %+v, want nothing expired", again)
		}
	})
}

func marshal(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

type sweepReport struct {
	Expired, Units int
	OldestSeconds  float64
}

// sweep invokes the sweeper with the event of the minute rule.
func (d *deployment) sweep() sweepReport {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	body, err := d.functions.Sweep.Invoke(ctx, local.ScheduledEvent(time.Now()))
	if err != nil {
		d.t.Fatal(err)
	}
	return decode[sweepReport](d.t, answer{body: body})
}

func TestCartIsHeldWholeOrNotAtAll(t *testing.T) {
	eachTransport(t, func(t *testing.T, d *deployment) {
		h := d.reserve(cart(line(mug, losAngeles, 1), line(keyboard, newYork, 1),
			line(keyboard, newYork, 1)))
		if h.ProductID != nil || h.WarehouseID != nil || h.Quantity != nil || len(h.Items) != 2 {
			t.Errorf("hold = %+v, want a cart of two lines", h)
		}
		v := decode[view](t, d.get("/api/reservations/"+h.ID).want(t, http.StatusOK, ""))
		if v.Product != nil || v.Warehouse != nil || len(v.Reservation.Items) != 2 {
			t.Errorf("view = %+v, want no product or warehouse for a cart", v)
		}
		a := d.post("/api/reservations", cart(line(mug, losAngeles, 1), line(keyboard, newYork, 2),
			line(headphones, newYork, 1))).
			want(t, http.StatusConflict, "INSUFFICIENT_STOCK")
		if short := decode[struct{ Shortages []struct{ Available int } }](t,
			a).Shortages; len(short) != 2 || short[0].Available+short[1].Available != 1 {
			t.Errorf("shortages = %+v, want both short lines", short)
		}
		d.wantStock(headphones, newYork, 5, 0)
		d.post("/api/reservations",
			cart(line(mug, newYork, 1), line(uuid.New(), newYork, 1))).
			want(t, http.StatusNotFound, "INVENTORY_NOT_FOUND")
		d.wantStock(mug, newYork, 30, 0)
		d.post("/api/reservations/"+h.ID+"/confirm", "").want(t, http.StatusOK, "")
		d.wantStock(keyboard, newYork, 1, 0)
		d.wantStock(mug, losAngeles, 0, 0)
	})
}

func TestExtendCountsFromNowUpToTheLimit(t *testing.T) {
	eachTransport(t, func(t *testing.T, d *deployment) {
		h := d.reserve(line(mug, newYork, 1))
		e := d.post("/api/reservations/"+h.ID+"/extend", `{"ttlSeconds":3000}`).
			want(t, http.StatusOK, "").hold(t)
		if !e.ExpiresAt.After(h.ExpiresAt) || e.Status != "PENDING" {
			t.Errorf("extended hold = %+v, want a later end than %v", e, h.ExpiresAt)
		}
		for _, seconds := range []string{"3600", "3601", "9000000000"} {
			d.post("/api/reservations/"+h.ID+"/extend", `{"ttlSeconds":`+seconds+`}`).
				want(t, http.StatusUnprocessableEntity, "EXTENSION_LIMIT")
		}
		for _, body := range []string{
			`{}`, `{"ttlSeconds":0}`, `{"ttlSeconds":1.5}`,
			`{"ttlSeconds":"60"}`, ``,
		} {
			d.post("/api/reservations/"+h.ID+"/extend", body).
				want(t, http.StatusBadRequest, "VALIDATION_FAILED")
		}
	})
}

func (d *deployment) postWithKey(path, key, body string) answer {
	d.t.Helper()
	return d.send(request{
		method: "POST", path: path, body: body,
		header: map[string]string{"Idempotency-Key": key},
	})
}

func TestIdempotencyKeyMakesOneHoldAndOneAnswer(t *testing.T) {
	eachTransport(t, func(t *testing.T, d *deployment) {
		first := d.postWithKey("/api/reservations", "order 7", line(mug, newYork, 2)).
			want(t, http.StatusCreated, "")
		again := d.postWithKey("/api/reservations", "order 7",
			cart(line(mug, newYork, 1), line(mug, newYork, 1))).want(t, http.StatusCreated, "")
		if string(first.body) != string(again.body) ||
			again.header.Get("Idempotency-Replayed") != "true" ||
			first.header.Get("Idempotency-Replayed") != "" ||
			again.header.Get("Location") != first.header.Get("Location") {
			t.Errorf("replay = %s %v, want %s again, marked as replayed", again.body, again.header,
				first.body)
		}
		d.postWithKey("/api/reservations", "order 7", line(mug, newYork, 3)).
			want(t, http.StatusUnprocessableEntity, "IDEMPOTENCY_KEY_REUSED")
		d.wantStock(mug, newYork, 30, 2)

		path := "/api/reservations/" + first.hold(t).ID
		d.postWithKey(path+"/confirm", "order 7", "").
			want(t, http.StatusUnprocessableEntity, "IDEMPOTENCY_KEY_REUSED")
		confirmed := d.postWithKey(path+"/confirm", "order 7 paid", "").want(t, http.StatusOK, "")
		replayed := d.postWithKey(path+"/confirm", "order 7 paid", "").want(t, http.StatusOK, "")
		if string(confirmed.body) != string(replayed.body) ||
			replayed.header.Get("Idempotency-Replayed") != "true" {
			t.Errorf("replayed confirm = %s, want %s, marked as replayed", replayed.body,
				confirmed.body)
		}
		d.wantStock(mug, newYork, 28, 0)
	})
}

func TestConcurrentRequestsWithOneKeyMakeOneHold(t *testing.T) {
	eachTransport(t, func(t *testing.T, d *deployment) {
		ids := map[string]int{}
		fresh := 0
		for _, a := range sendConcurrently(24,
			func() answer {
				return d.postWithKey("/api/reservations", "same key",
					line(headphones, losAngeles, 1))
			}) {
			a.want(t, http.StatusCreated, "")
			ids[a.hold(t).ID]++
			if a.header.Get("Idempotency-Replayed") == "" {
				fresh++
			}
		}
		if len(ids) != 1 || fresh != 1 {
			t.Errorf("24 requests under one key made the holds %v, %d answers not replayed; "+
				"want one of each", ids, fresh)
		}
		d.wantStock(headphones, losAngeles, 8, 1)
	})
}

// sendConcurrently sends n requests at once.
func sendConcurrently(n int, send func() answer) []answer {
	answers := make([]answer, n)
	var group sync.WaitGroup
	for i := range answers {
		group.Go(func() { answers[i] = send() })
	}
	group.Wait()
	return answers
}

func TestOneOf64CallersGetsTheLastUnit(t *testing.T) {
	eachTransport(t, func(t *testing.T, d *deployment) {
		count := map[int]int{}
		for _, a := range sendConcurrently(64,
			func() answer { return d.post("/api/reservations", line(mug, losAngeles, 1)) }) {
			count[a.status]++
		}
		if count[http.StatusCreated] != 1 || count[http.StatusConflict] != 63 {
			t.Errorf("64 callers for the last unit got %v, want one 201 and 63 times 409", count)
		}
		d.wantStock(mug, losAngeles, 1, 1)
	})
}

func TestInvalidRequestsAreRefused(t *testing.T) {
	eachTransport(t, func(t *testing.T, d *deployment) {
		h := d.reserve(line(mug, newYork, 1))
		big := `{"productId":"` + strings.Repeat("a", 64<<10) + `"}`
		ok := line(mug, newYork, 1)
		const path = "/api/reservations"
		get := func(path string) request { return request{method: "GET", path: path} }
		post := func(body string) request {
			return request{method: "POST", path: path, body: body}
		}
		with := func(name, value string) request {
			r := post(ok)
			r.header = map[string]string{name: value}
			return r
		}
		confirm := func(id, body string) request {
			return request{method: "POST", path: path + "/" + id + "/confirm", body: body}
		}
		injection := url.PathEscape("'; DROP TABLE reservations --")
		for _, c := range []struct {
			request
			status int
			code   string
		}{
			{post(big), 413, "BODY_TOO_LARGE"},
			{with("Content-Type", "text/plain"), 415, "UNSUPPORTED_MEDIA_TYPE"},
			{post(ok + ok), 400, "VALIDATION_FAILED"},
			{post(`{"Quantity":1}`), 400, "VALIDATION_FAILED"},
			{post(strings.Repeat("[", 30_000)), 400, "VALIDATION_FAILED"},
			{post("\xff\xfe"), 400, "VALIDATION_FAILED"},
			{post(""), 400, "VALIDATION_FAILED"},
			{with("Idempotency-Key", "a,b"), 400, "VALIDATION_FAILED"},
			{with("Idempotency-Key", ""), 400, "VALIDATION_FAILED"},
			{with("Idempotency-Key", strings.Repeat("k", 256)), 400, "VALIDATION_FAILED"},
			{confirm(h.ID, `{"x":1}`), 400, "VALIDATION_FAILED"},
			{get(path + "/" + uuid.NewString()), 404, "RESERVATION_NOT_FOUND"},
			{get(path + "/50%25"), 404, "RESERVATION_NOT_FOUND"},
			{get(path + "/%00"), 404, "RESERVATION_NOT_FOUND"},
			{get(path + "/a%2Fb"), 404, "RESERVATION_NOT_FOUND"},
			{get(path + "/" + injection), 404, "RESERVATION_NOT_FOUND"},
			{confirm("%ff", ""), 404, "RESERVATION_NOT_FOUND"},
			{get("/api/nothing"), 404, "NOT_FOUND"},
			{request{method: "DELETE", path: path + "/" + h.ID}, 404, ""},
			{request{method: "PUT", path: "/api/products"}, 404, ""},
		} {
			a := d.sendRaw(c.request)
			a.want(t, c.status, c.code)
			if c.code != "" && (a.header.Get("X-Request-Id") == "" ||
				a.header.Get("Content-Type") != "application/problem+json") {
				t.Errorf("%s %s: header = %v, want a problem with a request id", c.method, c.path,
					a.header)
			}
		}
		d.wantStock(mug, newYork, 30, 1)
	})
}

func TestPagesAndOpenAPIDocumentAreServed(t *testing.T) {
	eachTransport(t, func(t *testing.T, d *deployment) {
		for _, path := range []string{"/", "/reservation/" + uuid.NewString()} {
			a := d.get(path).want(t, http.StatusOK, "")
			if !strings.HasPrefix(a.header.Get("Content-Type"), "text/html") ||
				!strings.Contains(a.header.Get("Content-Security-Policy"), "default-src 'self'") {
				t.Errorf("GET %s: header = %v, want HTML with a strict Content-Security-Policy",
					path, a.header)
			}
			for _, m := range assetLink.FindAllStringSubmatch(string(a.body), -1) {
				d.get(m[1]).want(t, http.StatusOK, "")
			}
		}
		document := decode[struct{ OpenAPI string }](t,
			d.get("/api/openapi.json").want(t, http.StatusOK, ""))
		if !strings.HasPrefix(document.OpenAPI, "3.1") {
			t.Errorf("openapi = %q, want 3.1", document.OpenAPI)
		}
		if h := decode[struct{ Status string }](t, d.get("/api/health").
			want(t, http.StatusOK, "")); h.Status != "ok" {
			t.Errorf("health = %+v, want ok", h)
		}
	})
}

// Nothing listens on port 1 of this machine.
func TestServiceAnswers503WithoutItsDatabase(t *testing.T) {
	t.Parallel()
	for _, tr := range []transport{inProcess, overHTTP, binaries} {
		t.Run(string(tr), func(t *testing.T) {
			t.Parallel()
			d := deployOn(t, tr, "postgres://nobody:none@127.0.0.1:1/none")
			for _, q := range []request{
				{method: "GET", path: "/api/health"},
				{method: "GET", path: "/api/products"},
				{method: "GET", path: "/api/products?sku=CM-300"},
				{method: "GET", path: "/api/products/" + mug.String()},
				{method: "GET", path: "/api/reservations"},
				{method: "GET", path: "/api/warehouses"},
				{method: "GET", path: "/api/stats"},
				{method: "GET", path: "/api/stock?limit=1"},
				{method: "GET", path: "/api/stock/movements?source=s&reference=r"},
				{method: "GET", path: "/api/events"},
				{
					method: "POST", path: "/api/catalog/products",
					body: `{"items":[{"sku":"A","name":"A"}]}`,
				},
				{
					method: "POST", path: "/api/catalog/warehouses", body: "code,name\nA,A\n",
					header: map[string]string{"Content-Type": "text/csv"},
				},
				{
					method: "POST", path: "/api/stock/movements",
					body: `{"source":"s","reference":"r",` +
						`"lines":[{"sku":"A","warehouse":"A","delta":1}]}`,
				},
				{
					method: "POST", path: "/api/stock/movements?source=s&reference=r&together=true",
					body:   "sku,warehouse,delta\nA,A,1\n",
					header: map[string]string{"Content-Type": "text/csv"},
				},
				{
					method: "POST", path: "/api/reservations/" + uuid.NewString() + "/returns",
					body: `{"reference":"r","lines":[` + line(mug, newYork, 1) + `]}`,
				},
				{method: "GET", path: "/api/reservations/" + uuid.NewString() + "/returns"},
				{method: "GET", path: "/api/reservations/" + uuid.NewString() + "/payments"},
				{method: "GET", path: "/api/reservations/" + uuid.NewString() + "/history"},
				{method: "POST", path: "/api/reservations/" + uuid.NewString() + "/confirm"},
				{method: "POST", path: "/api/reservations/" + uuid.NewString() + "/release"},
				{
					method: "POST", path: "/api/reservations/" + uuid.NewString() + "/extend",
					body: `{"ttlSeconds":60}`,
				},
				{method: "GET", path: "/api/reservations/" + uuid.NewString()},
				{method: "POST", path: "/api/reservations", body: line(mug, newYork, 1)},
				{
					method: "POST", path: "/api/reservations/" + uuid.NewString() + "/payment",
					body: with(named("p"), `"ttlSeconds":60`),
				},
				{
					method: "POST", path: "/api/reservations/" + uuid.NewString() + "/payment/failed",
					body: named("p"),
				},
				{method: "POST", path: "/api/reservations/" + uuid.NewString() + "/cancel"},
				{method: "POST", path: "/api/owners/erase", body: `{"owner":"ann"}`},
			} {
				a := d.sendRaw(q).want(t, http.StatusServiceUnavailable, "DATABASE_UNAVAILABLE")
				if a.header.Get("Retry-After") == "" {
					t.Errorf("%s %s: header = %v, want Retry-After", q.method, q.path, a.header)
				}
			}
			d.get("/").want(t, http.StatusOK, "")
		})
	}
}
