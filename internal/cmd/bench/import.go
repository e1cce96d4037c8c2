package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/allo/reservations/internal/config"
	"github.com/allo/reservations/internal/local"
	"github.com/allo/reservations/internal/route"
)

// The shop that the study imports: its products, its warehouses, and the lines of a call.
const (
	importProducts, importWarehouses, importLines = 40_000, 6, 500
	// repeats is how often the study measures a call. It reports the median.
	repeats = 5
)

// shop is a shop that is loaded and read over HTTP, through the local gateway and the functions'
// own handlers. Its caller makes one call at a time.
type shop struct {
	s       *server
	gateway *httptest.Server
	end     func() error
}

func openShop(ctx context.Context, s *server) (*shop, error) {
	if err := s.exec(ctx, emptySQL); err != nil {
		return nil, err
	}
	functions, err := local.InProcess(
		config.Config{DatabaseURL: s.url(), HoldTTL: holdTTL, MaxHold: holdTTL}, 1, discard)
	if err != nil {
		return nil, err
	}
	gateway, err := local.NewGateway(route.All(), functions.HTTP, discard)
	if err != nil {
		return nil, errors.Join(err, functions.Close())
	}
	return &shop{s, httptest.NewServer(gateway), functions.Close}, nil
}

func (s *shop) close() error {
	s.gateway.Close()
	return s.end()
}

// call makes a call and returns its answer and how long it took.
func (s *shop) call(
	ctx context.Context, method, path, body string,
) (answer []byte, took time.Duration, err error) {
	request, err := http.NewRequestWithContext(ctx, method, s.gateway.URL+path,
		strings.NewReader(body))
	if err != nil {
		return nil, 0, err
	}
	request.Header.Set("Content-Type", "text/csv")
	begin := time.Now()
	response, err := s.gateway.Client().Do(request)
	if err != nil {
		return nil, 0, err
	}
	defer func() { _ = response.Body.Close() }()
	answer, err = io.ReadAll(response.Body)
	took = time.Since(begin)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s %s was answered %d: %.300s", method, path, response.StatusCode, answer)
	}
	return answer, took, err
}

// calls are the times of calls of one kind.
type calls []float64 // in ms

func (c *calls) add(took time.Duration) { *c = append(*c, float64(took.Microseconds())/1000) }

func (c *calls) slowest() (most float64) {
	for _, ms := range *c {
		most = max(most, ms)
	}
	return most
}

// importShop loads a shop of 240,000 stock rows by CSV in calls of 500 lines, and then reads it.
func importShop(ctx context.Context, s *server, _ options) (_ []shape, _ []*result, err error) {
	const mostSeconds, mostAgain = 3.0, 2.0
	sh, err := openShop(ctx, s)
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, sh.close()) }()
	begin := time.Now()
	products, err := sh.importCatalog(ctx)
	if err != nil {
		return nil, nil, err
	}
	var stock calls
	for first := 0; first < importProducts*importWarehouses; first += importLines {
		reference := strconv.Itoa(first)
		if err := sh.move(ctx, &stock, "import", reference, false, first, 1); err != nil {
			return nil, nil, err
		}
	}
	took := time.Since(begin)
	again, err := sh.moveAgain(ctx)
	if err != nil {
		return nil, nil, err
	}
	slowest := max(products.slowest(), stock.slowest()) / 1000
	shapes := []shape{{
		Name: "import",
		Figures: map[string]float64{
			"total s": took.Seconds(), "slowest call s": slowest, "calls": float64(len(products)) +
				float64(len(stock)),
			"500 products ms": median(products), "500 stock rows ms": median(stock),
			"500 deliveries ms": again[0], "500 deliveries together ms": again[1],
			"500 deliveries again ms": again[2],
		},
		Wanted: "no call over 3 s; 500 lines at 240,000 stock rows within 2 s",
		Met:    slowest < mostSeconds && max(again[0], again[1], again[2])/1000 < mostAgain,
	}}
	reads, err := sh.reads(ctx)
	if err != nil {
		return nil, nil, err
	}
	return append(shapes, reads), nil, audit(ctx, s)
}

// importCatalog loads the warehouses and the products.
func (s *shop) importCatalog(ctx context.Context) (products calls, err error) {
	var b strings.Builder
	b.WriteString("code,name\n")
	for n := range importWarehouses {
		fmt.Fprintf(&b, "W%d,Warehouse %d\n", n, n)
	}
	if _, _, err := s.call(ctx, "POST", "/api/catalog/warehouses", b.String()); err != nil {
		return nil, err
	}
	for first := 0; first < importProducts; first += importLines {
		b.Reset()
		b.WriteString("sku,name\n")
		for n := first; n < first+importLines; n++ {
			fmt.Fprintf(&b, "SKU-%d,%s\n", n, productName(n))
		}
		_, took, err := s.call(ctx, "POST", "/api/catalog/products", b.String())
		if err != nil {
			return nil, err
		}
		products.add(took)
	}
	return products, nil
}

// move sends a document of 500 lines, each of another stock row: the row numbered first, and then
// every step-th. It refuses an answer in which a line wasn't applied or replayed.
func (s *shop) move(
	ctx context.Context, times *calls, source, reference string, together bool, first, step int,
) error {
	var b strings.Builder
	b.WriteString("sku,warehouse,delta\n")
	for i := range importLines {
		n := (first + i*step) % (importProducts * importWarehouses)
		fmt.Fprintf(&b, "SKU-%d,W%d,100\n", n/importWarehouses, n%importWarehouses)
	}
	query := url.Values{
		"source": {source}, "reference": {reference}, "together": {strconv.FormatBool(together)},
	}
	answer, took, err := s.call(ctx, "POST", "/api/stock/movements?"+query.Encode(), b.String())
	if err != nil {
		return err
	}
	times.add(took)
	var results struct {
		Results []struct {
			Outcome string `json:"outcome"`
		} `json:"results"`
	}
	if err := json.Unmarshal(answer, &results); err != nil {
		return err
	}
	done := 0
	for _, r := range results.Results {
		if r.Outcome == "APPLIED" || r.Outcome == "REPLAYED" {
			done++
		}
	}
	if done != importLines {
		return fmt.Errorf("%d of %d lines were applied", done, importLines)
	}
	return nil
}

// moveAgain returns the median times of a document of deliveries to rows all over the shop: line by
// line, in one transaction, and sent again.
func (s *shop) moveAgain(ctx context.Context) (medians [3]float64, err error) {
	const step = 479 // so that the rows are spread over the shop
	for kind, together := range []bool{false, true, false} {
		var times calls
		for n := range repeats {
			reference := fmt.Sprintf("%t %d", together, n)
			if err := s.move(ctx, &times, "again", reference, together, n, step); err != nil {
				return medians, err
			}
		}
		medians[kind] = median(times)
	}
	return medians, nil
}

// reads measures the pages of the catalog and of the movements.
func (s *shop) reads(ctx context.Context) (shape, error) {
	figures := map[string]float64{}
	var pages calls
	for path := "/api/products?limit=200"; path != ""; {
		next, err := s.page(ctx, &pages, path)
		if err != nil {
			return shape{}, err
		}
		path = next
	}
	figures["catalog pages"], figures["a catalog page ms"] = float64(len(pages)), median(pages)
	figures["slowest catalog page ms"] = pages.slowest()
	var row struct{ Product, Warehouse string }
	err := s.s.admin.QueryRow(ctx, `
SELECT product_id::text, warehouse_id::text FROM stock_movements
ORDER BY seq DESC, product_id LIMIT 1`).Scan(&row.Product, &row.Warehouse)
	if err != nil {
		return shape{}, err
	}
	for name, path := range map[string]string{
		"movements of a document ms":  "source=import&reference=0&limit=500",
		"movements of a stock row ms": "productId=" + row.Product + "&warehouseId=" + row.Warehouse,
	} {
		var times calls
		for range repeats {
			if _, err := s.page(ctx, &times, "/api/stock/movements?"+path); err != nil {
				return shape{}, err
			}
		}
		figures[name] = median(times)
	}
	for name, sql := range map[string]string{
		"blocks of a catalog page": "SELECT product_id FROM list_catalog('Product 0030000', " +
			"'ffffffff-ffff-ffff-ffff-ffffffffffff', NULL, 200, 5000, 4000000)",
		"blocks of a document's movements": "SELECT * FROM stock_movements " +
			"WHERE source = 'import' AND reference = '0'",
		"blocks of a stock row's movements": fmt.Sprintf("SELECT * FROM stock_movements "+
			"WHERE product_id = '%s' AND warehouse_id = '%s' ORDER BY seq DESC LIMIT 51", row.Product,
			row.Warehouse),
	} {
		if figures[name], err = s.s.blocks(ctx, sql); err != nil {
			return shape{}, err
		}
	}
	const most = 100.0 // ms
	return shape{
		Name: "reads of 240,000 stock rows", Figures: figures, Wanted: "every page within 100 ms",
		Met: max(pages.slowest(), figures["movements of a document ms"],
			figures["movements of a stock row ms"]) < most,
	}, nil
}

// page reads a page and returns the path of the next one, or an empty path after the last.
func (s *shop) page(ctx context.Context, times *calls, path string) (next string, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.gateway.URL+path, nil)
	if err != nil {
		return "", err
	}
	begin := time.Now()
	response, err := s.gateway.Client().Do(request)
	if err != nil {
		return "", err
	}
	defer func() { _ = response.Body.Close() }()
	if _, err := io.Copy(io.Discard, response.Body); err != nil {
		return "", err
	}
	times.add(time.Since(begin))
	if response.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s was answered %d", path, response.StatusCode)
	}
	link, _, found := strings.Cut(response.Header.Get("Link"), ">")
	if !found {
		return "", nil
	}
	return strings.TrimPrefix(strings.TrimPrefix(link, "<"), s.gateway.URL), nil
}

// blocks returns how many blocks a statement reads, once its routines' plans are made.
func (s *server) blocks(ctx context.Context, sql string) (float64, error) {
	var answer []byte
	for range 2 {
		err := s.admin.QueryRow(ctx, "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) "+sql).Scan(&answer)
		if err != nil {
			return 0, err
		}
	}
	var plans []struct {
		Plan struct {
			Hit  float64 `json:"Shared Hit Blocks"`
			Read float64 `json:"Shared Read Blocks"`
		}
	}
	if err := json.Unmarshal(answer, &plans); err != nil {
		return 0, err
	}
	return plans[0].Plan.Hit + plans[0].Plan.Read, nil
}
