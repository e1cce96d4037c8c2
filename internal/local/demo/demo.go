// Package demo holds the catalog that a newcomer sees: three products in three warehouses. One
// stock row has a single unit.
package demo

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/allo/reservations/internal/postgres"
)

// connectTimeout bounds the connect to one address.
const connectTimeout = 15 * time.Second

// Warehouse is a warehouse of the demo catalog.
type Warehouse struct {
	ID   uuid.UUID
	Code string
	Name string
}

// Product is a product of the demo catalog. Its stock is in the order of Warehouses.
type Product struct {
	ID    uuid.UUID
	Name  string
	SKU   string
	Stock [3]int
}

// Warehouses returns the demo's warehouses. Their ids are fixed, so that the README's commands
// work.
func Warehouses() [3]Warehouse {
	return [3]Warehouse{
		{newID("0001"), "SF", "San Francisco"},
		{newID("0002"), "NY", "New York"},
		{newID("0003"), "LA", "Los Angeles"},
	}
}

func newID(end string) uuid.UUID { return uuid.MustParse("0192d000-0000-7000-8000-00000000" + end) }

// Products returns the demo's products. Los Angeles has one mug only.
func Products() [3]Product {
	return [3]Product{
		{newID("0101"), "Wireless Headphones", "WH-100", [3]int{12, 5, 8}},
		{newID("0102"), "Mechanical Keyboard", "MK-200", [3]int{20, 3, 15}},
		{newID("0103"), "Ceramic Mug", "CM-300", [3]int{50, 30, 1}},
	}
}

// SeedEmpty seeds a database that has neither products nor warehouses, and leaves any other as it
// is. It reports whether it seeded.
func SeedEmpty(ctx context.Context, databaseURL string) (seeded bool, err error) {
	err = inTx(ctx, databaseURL, func(tx pgx.Tx) error {
		// Two programs that start at once would both find it empty. The lock lets the second one see
		// the first one's catalog.
		if _, err := tx.Exec(ctx, "LOCK TABLE products IN SHARE ROW EXCLUSIVE MODE"); err != nil {
			return err
		}
		var empty bool
		const isEmpty = "SELECT NOT EXISTS (SELECT FROM products) AND NOT EXISTS (SELECT FROM warehouses)"
		if err := tx.QueryRow(ctx, isEmpty).Scan(&empty); err != nil {
			return err
		}
		if !empty {
			return nil
		}
		seeded = true
		return insert(ctx, tx)
	})
	return seeded, err
}

// ErrNotLocal means that a database is on another machine, where a reset could remove real data.
var ErrNotLocal = errors.New("the database is not on this machine")

// RefuseRemote returns ErrNotLocal for a database on another machine. Call it before anything else
// that leads to a Reset.
func RefuseRemote(databaseURL string) error {
	if !isLocal(databaseURL) {
		return ErrNotLocal
	}
	return nil
}

// Reset removes all data and seeds anew. The new movements have the numbers of the old ones, so the
// events' epoch is a new one.
func Reset(ctx context.Context, databaseURL string) error {
	return inTx(ctx, databaseURL, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `
TRUNCATE products, warehouses, inventory, stock_movements, old_stock_adjustments,
         reservations, reservation_items, idempotency_keys, archived_reservations, archived_items,
         archived_movements, archived_months, archived_stock, ledger, archived_ledger, parked,
         minute_counts`); err != nil {
			return err
		}
		const sql = "UPDATE stream SET epoch = gen_random_uuid(), archived = '0'"
		if _, err := tx.Exec(ctx, sql); err != nil {
			return err
		}
		return insert(ctx, tx)
	})
}

func inTx(ctx context.Context, databaseURL string, fn func(pgx.Tx) error) error {
	config, err := postgres.Target{URL: databaseURL}.Config(connectTimeout)
	if err != nil {
		return fmt.Errorf("connect to seed: %w", err)
	}
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return fmt.Errorf("connect to seed: %w", err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if err := pgx.BeginFunc(ctx, conn, fn); err != nil {
		return fmt.Errorf("seed: %w", err)
	}
	return nil
}

func insert(ctx context.Context, tx pgx.Tx) error {
	var batch pgx.Batch
	for _, w := range Warehouses() {
		batch.Queue("INSERT INTO warehouses (id, code, name) VALUES ($1, $2, $3)", w.ID, w.Code, w.Name)
	}
	for _, p := range Products() {
		batch.Queue("INSERT INTO products (id, name, sku) VALUES ($1, $2, $3)", p.ID, p.Name, p.SKU)
		for i, w := range Warehouses() {
			batch.Queue("INSERT INTO inventory (product_id, warehouse_id, total) VALUES ($1, $2, $3)",
				p.ID, w.ID, p.Stock[i])
		}
	}
	return tx.SendBatch(ctx, &batch).Close()
}

// isLocal reports whether every host of the URL is this machine: a loopback address, localhost or a
// socket.
func isLocal(databaseURL string) bool {
	config, err := pgx.ParseConfig(databaseURL)
	if err != nil {
		return false
	}
	hosts := []string{config.Host}
	for _, fallback := range config.Fallbacks {
		hosts = append(hosts, fallback.Host)
	}
	// The query may name another host, which a reader of the URL could overlook.
	if u, err := url.Parse(databaseURL); err == nil {
		hosts = append(hosts, config.Host, u.Hostname())
	}
	for _, host := range hosts {
		ip := net.ParseIP(host)
		loopback := host == "localhost" || (ip != nil && ip.IsLoopback()) || host == "" || host[0] == '/'
		if !loopback {
			return false
		}
	}
	return true
}
