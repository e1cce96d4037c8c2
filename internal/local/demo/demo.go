// Package demo is the shop that a newcomer sees under `make run`, and what happens in it. Its
// catalog has twelve products in three warehouses; one stock row has a single unit. Server pays for
// holds as the back end of a shop does, runs the flash sale, and sends gentle shoppers.
//
// It is for one machine only. Nothing here runs in a Lambda.
package demo

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/allo/reservations/internal/postgres"
)

// connectTimeout bounds the connect to one address.
const connectTimeout = 15 * time.Second

// SeedEmpty seeds a database that has neither products nor warehouses, and leaves any other as it
// is. It reports whether it seeded.
func SeedEmpty(ctx context.Context, databaseURL string) (seeded bool, err error) {
	return seedEmpty(ctx, databaseURL, Products())
}

// SeedSmall is SeedEmpty with the products of the README alone. Tests that count the catalog use
// it.
func SeedSmall(ctx context.Context, databaseURL string) (seeded bool, err error) {
	return seedEmpty(ctx, databaseURL, Products()[:readmeProducts])
}

func seedEmpty(
	ctx context.Context, databaseURL string, products []Product,
) (seeded bool, err error) {
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
		return insert(ctx, tx, products)
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

// resetSQL removes all data, and the result of the last audit. An audit that is under way begins
// again. The new movements have the numbers of the old ones, so the events' epoch is a new one. The
// ticks, the sinks and live stay: they say how far a relay that runs now has read, and name no
// data.
const resetSQL = `
TRUNCATE products, warehouses, inventory, stock_movements, old_stock_adjustments, stock_closings,
         reservations, reservation_items, returns, hold_payments, hold_parties, replacements,
         idempotency_keys, last_audit, ledger, parked, minute_counts,
         archived_reservations, archived_items, archived_movements, archived_ledger,
         archived_months, archived_stock, archive_position;
UPDATE audit_state SET began = NULL, part = '', after = '', violations = 0, found = '[]';
UPDATE stream SET epoch = gen_random_uuid(), archived = '0'`

// maxResets is how often Reset tries. A service that runs reads the tables in other orders than
// TRUNCATE locks them, so that Postgres may end the reset to resolve a deadlock.
const maxResets = 10

// Reset removes all data and seeds anew.
func Reset(ctx context.Context, databaseURL string) (err error) {
	for range maxResets {
		err = inTx(ctx, databaseURL, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, resetSQL); err != nil {
				return err
			}
			return insert(ctx, tx, Products())
		})
		if !postgres.Retryable(err) {
			return err
		}
	}
	return err
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

func insert(ctx context.Context, tx pgx.Tx, products []Product) error {
	var batch pgx.Batch
	for _, w := range Warehouses() {
		batch.Queue("INSERT INTO warehouses (id, code, name) VALUES ($1, $2, $3)", w.ID, w.Code, w.Name)
	}
	for _, p := range products {
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
