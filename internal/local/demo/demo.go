// Package demo is the catalog that a newcomer sees: three products in three warehouses, and a last mug to fight for.
package demo

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// Warehouse is a place of the demo catalog.
type Warehouse struct {
	ID   uuid.UUID
	Name string
}

// Product is an article of the demo catalog, with its stock in the order of Warehouses.
type Product struct {
	ID    uuid.UUID
	Name  string
	SKU   string
	Stock [3]int
}

// Warehouses lists the demo's warehouses. Their ids are fixed, so that what the README shows can be typed.
func Warehouses() [3]Warehouse {
	return [3]Warehouse{
		{uuid.MustParse("0192d000-0000-7000-8000-000000000001"), "San Francisco"},
		{uuid.MustParse("0192d000-0000-7000-8000-000000000002"), "New York"},
		{uuid.MustParse("0192d000-0000-7000-8000-000000000003"), "Los Angeles"},
	}
}

// Products lists the demo's products. The mug in Los Angeles is the last unit.
func Products() [3]Product {
	return [3]Product{
		{uuid.MustParse("0192d000-0000-7000-8000-000000000101"), "Wireless Headphones", "WH-100", [3]int{12, 5, 8}},
		{uuid.MustParse("0192d000-0000-7000-8000-000000000102"), "Mechanical Keyboard", "MK-200", [3]int{20, 3, 15}},
		{uuid.MustParse("0192d000-0000-7000-8000-000000000103"), "Ceramic Mug", "CM-300", [3]int{50, 30, 1}},
	}
}

// SeedEmpty seeds a database without products, and leaves any other as it is. It reports whether it seeded.
func SeedEmpty(ctx context.Context, databaseURL string) (seeded bool, err error) {
	err = inTx(ctx, databaseURL, func(tx pgx.Tx) error {
		// Two that start at once would both find it empty: the lock lets the second see the first's catalog.
		if _, err := tx.Exec(ctx, "LOCK TABLE products IN SHARE ROW EXCLUSIVE MODE"); err != nil {
			return err
		}
		var empty bool
		if err := tx.QueryRow(ctx, "SELECT NOT EXISTS (SELECT FROM products) AND NOT EXISTS (SELECT FROM warehouses)").Scan(&empty); err != nil {
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

// ErrNotLocal means that a database is on another machine, where a reset would take real data.
var ErrNotLocal = errors.New("the database is not on this machine")

// RefuseRemote returns ErrNotLocal for a database on another machine. Whoever resets one asks first, before anything is done to it.
func RefuseRemote(databaseURL string) error {
	if !isLocal(databaseURL) {
		return ErrNotLocal
	}
	return nil
}

// Reset removes everything and seeds anew.
func Reset(ctx context.Context, databaseURL string) error {
	return inTx(ctx, databaseURL, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `
TRUNCATE products, warehouses, inventory, stock_adjustments, reservations, reservation_items, idempotency_keys`); err != nil {
			return err
		}
		return insert(ctx, tx)
	})
}

func inTx(ctx context.Context, databaseURL string, fn func(pgx.Tx) error) error {
	conn, err := pgx.Connect(ctx, databaseURL)
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
		batch.Queue("INSERT INTO warehouses (id, name) VALUES ($1, $2)", w.ID, w.Name)
	}
	for _, p := range Products() {
		batch.Queue("INSERT INTO products (id, name, sku) VALUES ($1, $2, $3)", p.ID, p.Name, p.SKU)
		for i, w := range Warehouses() {
			batch.Queue("INSERT INTO inventory (product_id, warehouse_id, total) VALUES ($1, $2, $3)", p.ID, w.ID, p.Stock[i])
		}
	}
	return tx.SendBatch(ctx, &batch).Close()
}

// isLocal reports whether every host of the URL is this machine: a loopback address, its name, or a socket.
func isLocal(databaseURL string) bool {
	config, err := pgx.ParseConfig(databaseURL)
	if err != nil {
		return false
	}
	hosts := []string{config.Host}
	for _, fallback := range config.Fallbacks {
		hosts = append(hosts, fallback.Host)
	}
	// The host may also stand in the query, where a reader of the URL would overlook it.
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
