package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/allo/reservations/internal/postgres"
	"github.com/allo/reservations/internal/reservation"
)

// holdTTL is how long the bench's holds last: longer than any run.
const holdTTL = time.Hour

// errShort is the refusal of every design when there is too little stock.
var errShort = errors.New("insufficient stock")

// design is one way to implement reservations, as one caller uses it: on a connection of its own,
// like a Lambda.
type design interface {
	// reserve holds the lines, which are sorted and merged. It returns errShort if a line is short.
	reserve(ctx context.Context, lines []reservation.Line) (uuid.UUID, error)
	// replay sends a reserve under a key. From the second time on it is a replay.
	replay(ctx context.Context, line reservation.Line, key string) error
	confirm(ctx context.Context, id uuid.UUID) error
	release(ctx context.Context, id uuid.UUID) error
	get(ctx context.Context, id uuid.UUID) error
	// page reads the page of the catalog after the product with this number, and counts its rows.
	page(ctx context.Context, after int) (rows int, err error)
	retries() int64
	close(ctx context.Context)
}

// designs has the constructor of each design by its name.
var designs = map[string]func(context.Context, string, *network) (design, error){
	"reference": newReference,
	"plain":     newPlain,
	"outbox":    newOutbox,
	"ours":      newOurs,

	"http-reference": newReferenceOverHTTP,
	"http-ours":      newOursOverHTTP,
}

// ours is the service itself.
type ours struct {
	pool    *postgres.Pool
	service *reservation.Service
}

func newOurs(ctx context.Context, url string, n *network) (design, error) {
	pool, err := postgres.Open(postgres.URL(url), 1,
		func(c *pgxpool.Config) { c.ConnConfig.DialFunc = n.dial })
	if err != nil {
		return nil, err
	}
	err = pool.Exec(ctx, "SELECT 1") // connects
	service := reservation.New(pool, reservation.Options{HoldTTL: holdTTL, MaxHold: holdTTL})
	return ours{pool, service}, err
}

func (o ours) reserve(ctx context.Context, lines []reservation.Line) (uuid.UUID, error) {
	return o.keyed(ctx, reservation.Request{Lines: lines})
}

func (o ours) keyed(ctx context.Context, r reservation.Request) (uuid.UUID, error) {
	answer, err := o.service.Reserve(ctx, r)
	var short *reservation.InsufficientStockError
	if errors.As(err, &short) {
		return uuid.UUID{}, errShort
	}
	return answer.Hold.ID, err
}

func (o ours) replay(ctx context.Context, line reservation.Line, key string) error {
	_, err := o.keyed(ctx, reservation.Request{Lines: []reservation.Line{line}, Key: key})
	return err
}

func (o ours) confirm(ctx context.Context, id uuid.UUID) error {
	_, err := o.service.Confirm(ctx, id, "")
	return err
}

func (o ours) release(ctx context.Context, id uuid.UUID) error {
	_, err := o.service.Release(ctx, id, "")
	return err
}

func (o ours) get(ctx context.Context, id uuid.UUID) error {
	detail, err := o.service.Get(ctx, id)
	if err == nil && detail.Hold.ID != id {
		return fmt.Errorf("read hold %s instead of %s", detail.Hold.ID, id)
	}
	return err
}

func (o ours) page(ctx context.Context, after int) (rows int, err error) {
	var cursor reservation.Cursor
	if after > 0 {
		cursor = reservation.Cursor{Name: productName(after - 1), ID: productID(after - 1)}
	}
	entries, _, err := o.service.ListProducts(ctx, cursor, pageSize)
	return len(entries), err
}

func (o ours) retries() int64        { return o.service.Retries() }
func (o ours) close(context.Context) { o.pool.Close() }

// reference is the usual design: a transaction that locks the row, reads it and writes, with one
// round trip a statement. Each statement is prepared once. It uses the same tables, indexes and
// constraints as the service, and commits as durably.
type reference struct{ conn *pgx.Conn }

func connect(ctx context.Context, url string, n *network) (*pgx.Conn, error) {
	config, err := pgx.ParseConfig(url)
	if err != nil {
		return nil, err
	}
	config.DialFunc = n.dial
	// It keeps the settings of the service's role that help it, above all the ban on sequential
	// scans: its plans too were made on an empty table. A generic plan does not know how short a
	// page is, and would read the whole catalog.
	config.RuntimeParams["plan_cache_mode"] = "auto"
	return pgx.ConnectConfig(ctx, config)
}

func newReference(ctx context.Context, url string, n *network) (design, error) {
	conn, err := connect(ctx, url, n)
	return reference{conn}, err
}

const (
	lockStockSQL = `
SELECT total, reserved FROM inventory WHERE product_id = $1 AND warehouse_id = $2 FOR UPDATE`
	addHeldSQL = `
UPDATE inventory SET reserved = reserved + $3 WHERE product_id = $1 AND warehouse_id = $2`
	newHoldSQL = `
INSERT INTO reservations (id, product_id, warehouse_id, quantity,
                          created_at, updated_at, expires_at)
VALUES ($1, $2, $3, $4, now(), now(), now() + interval '1 hour')`
	newLineSQL = `
INSERT INTO reservation_items (reservation_id, product_id, warehouse_id, expires_at, quantity)
VALUES ($1, $2, $3, now() + interval '1 hour', $4)`
)

func (r reference) reserve(ctx context.Context, lines []reservation.Line) (uuid.UUID, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return id, err
	}
	return id, pgx.BeginFunc(ctx, r.conn, func(tx pgx.Tx) error {
		quantity := 0
		for _, line := range lines {
			if err := holdLine(ctx, tx, line); err != nil {
				return err
			}
			quantity += line.Quantity
		}
		if len(lines) == 1 {
			_, err := tx.Exec(ctx, newHoldSQL, id, lines[0].ProductID, lines[0].WarehouseID,
				quantity)
			return err
		}
		if _, err := tx.Exec(ctx, newHoldSQL, id, nil, nil, quantity); err != nil {
			return err
		}
		for _, line := range lines {
			if _, err := tx.Exec(ctx, newLineSQL, id, line.ProductID, line.WarehouseID,
				line.Quantity); err != nil {
				return err
			}
		}
		return nil
	})
}

func holdLine(ctx context.Context, tx pgx.Tx, line reservation.Line) error {
	var total, reserved int
	if err := tx.QueryRow(ctx, lockStockSQL, line.ProductID, line.WarehouseID).Scan(&total,
		&reserved); err != nil {
		return err
	}
	if total-reserved < line.Quantity {
		return errShort
	}
	_, err := tx.Exec(ctx, addHeldSQL, line.ProductID, line.WarehouseID, line.Quantity)
	return err
}

// replay looks the key up in a transaction, as a middleware in front of the verb does.
func (r reference) replay(ctx context.Context, line reservation.Line, key string) error {
	return pgx.BeginFunc(ctx, r.conn, func(tx pgx.Tx) error {
		var answer []byte
		err := tx.QueryRow(ctx, `SELECT answer FROM idempotency_keys WHERE key = $1 FOR UPDATE`,
			key).Scan(&answer)
		if !errors.Is(err, pgx.ErrNoRows) {
			return err
		}
		id, err := uuid.NewV7()
		if err != nil {
			return err
		}
		if err := holdLine(ctx, tx, line); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, newHoldSQL, id, line.ProductID, line.WarehouseID,
			line.Quantity); err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `INSERT INTO idempotency_keys VALUES ($1, $2, $3, now())`, key,
			make([]byte, 32), fmt.Sprintf(`{"id": %q}`, id))
		return err
	})
}

const (
	lockHoldSQL = `
SELECT status::text, expires_at > now() FROM reservations WHERE id = $1 FOR UPDATE`
	endHoldSQL = `
WITH ended AS (
    UPDATE reservations
    SET status = $2::text::reservation_status, updated_at = now(), version = version + 1
    WHERE id = $1
    RETURNING id, updated_at, expires_at, version
)
INSERT INTO ledger (at, expires_at, hold_id, version, kind, cause)
SELECT updated_at, expires_at, id, version,
       CASE $2::text WHEN 'CONFIRMED' THEN 'c' ELSE 'r' END, 'v'
FROM ended`
	sellStockSQL = `
WITH sold AS (
    UPDATE inventory i
    SET total = i.total - r.quantity, reserved = i.reserved - r.quantity, seq = i.seq + 1
    FROM reservations r
    WHERE r.id = $1 AND i.product_id = r.product_id AND i.warehouse_id = r.warehouse_id
    RETURNING i.product_id, i.warehouse_id, i.seq, i.total, r.id, r.quantity
)
INSERT INTO stock_movements (product_id, warehouse_id, seq, at, reservation_id, kind, delta,
                             total_after)
SELECT product_id, warehouse_id, seq, now(), id, 'SALE', -quantity, total FROM sold`
	freeStockSQL = `
UPDATE inventory i SET reserved = i.reserved - r.quantity
FROM reservations r
WHERE r.id = $1 AND i.product_id = r.product_id AND i.warehouse_id = r.warehouse_id`
)

func (r reference) confirm(ctx context.Context, id uuid.UUID) error {
	return r.resolve(ctx, id, "CONFIRMED", sellStockSQL)
}

func (r reference) release(ctx context.Context, id uuid.UUID) error {
	return r.resolve(ctx, id, "RELEASED", freeStockSQL)
}

func (r reference) resolve(ctx context.Context, id uuid.UUID, status, stockSQL string) error {
	return pgx.BeginFunc(ctx, r.conn, func(tx pgx.Tx) error {
		var was string
		var alive bool
		if err := tx.QueryRow(ctx, lockHoldSQL, id).Scan(&was, &alive); err != nil {
			return err
		}
		if was != "PENDING" || !alive {
			return fmt.Errorf("hold %s is %s", id, was)
		}
		if _, err := tx.Exec(ctx, endHoldSQL, id, status); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, stockSQL, id)
		return err
	})
}

// get is one prepared statement: the least that reading a hold can cost.
func (r reference) get(ctx context.Context, id uuid.UUID) error {
	const sql = `
SELECT r.status::text, p.name
FROM reservations r LEFT JOIN products p ON p.id = r.product_id WHERE r.id = $1`
	var status, name string
	return r.conn.QueryRow(ctx, sql, id).Scan(&status, &name)
}

// page reads by OFFSET, as most catalogs do.
func (r reference) page(ctx context.Context, after int) (n int, err error) {
	rows, err := r.conn.Query(ctx, `
SELECT p.id, p.name, p.sku, w.id, w.name, i.total, i.reserved
FROM (SELECT id, name, sku FROM products ORDER BY name, id OFFSET $1 LIMIT $2) p
JOIN inventory i ON i.product_id = p.id JOIN warehouses w ON w.id = i.warehouse_id
ORDER BY p.name, p.id, w.name`, after, pageSize)
	if err != nil {
		return 0, err
	}
	for rows.Next() {
		n++
	}
	return n, rows.Err()
}

func (r reference) retries() int64            { return 0 }
func (r reference) close(ctx context.Context) { _ = r.conn.Close(ctx) }

// plain is the best of the ordinary designs: one prepared statement with the guard and the insert.
// Like any other it keeps its row locked until its commit is flushed. It reserves single lines
// only.
type plain struct {
	reference
	sql string
}

func newPlain(ctx context.Context, url string, n *network) (design, error) {
	conn, err := connect(ctx, url, n)
	return plain{reference{conn}, plainSQL}, err
}

// newOutbox makes plain with the line of the usual outbox: the event as JSON, in the same
// statement. A relay deletes the line when it has published it, which isn't measured.
func newOutbox(ctx context.Context, url string, n *network) (design, error) {
	conn, err := connect(ctx, url, n)
	return plain{reference{conn}, outboxSQL}, err
}

const (
	madeSQL = `
WITH held AS (
    UPDATE inventory SET reserved = reserved + $4
    WHERE product_id = $2 AND warehouse_id = $3 AND total - reserved >= $4
    RETURNING 1
), made AS (
    INSERT INTO reservations (id, product_id, warehouse_id, quantity,
                              created_at, updated_at, expires_at)
    SELECT $1, $2, $3, $4, now(), now(), now() + interval '1 hour' FROM held
    RETURNING created_at, expires_at
)`
	plainSQL  = madeSQL + " SELECT count(*) FROM made"
	outboxSQL = madeSQL + `, told AS (
    INSERT INTO bench_outbox (topic, subject, event)
    SELECT 'reservations', $1, jsonb_build_object(
               'id', $1::uuid || '-1', 'type', 'reservation.held', 'time', created_at,
               'reservationId', $1::uuid, 'productId', $2::uuid, 'warehouseId', $3::uuid,
               'quantity', $4::integer, 'expiresAt', expires_at)
    FROM made
)
SELECT count(*) FROM made`
)

func (p plain) reserve(ctx context.Context, lines []reservation.Line) (uuid.UUID, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return id, err
	}
	var made int
	line := lines[0]
	if err := p.conn.QueryRow(ctx, p.sql, id, line.ProductID, line.WarehouseID,
		line.Quantity).Scan(&made); err != nil {
		return id, err
	}
	if made == 0 {
		return id, errShort
	}
	return id, nil
}
