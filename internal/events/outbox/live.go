package outbox

import (
	"context"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/allo/reservations/internal/events"
	"github.com/allo/reservations/internal/events/channel"
	"github.com/allo/reservations/internal/reservation"
)

// The bounds of a page of the live channel. A stock row takes at most 250 bytes of the answer and a
// hold 120, so a page has a third of a megabyte, and a Lambda's answer has at most 6.
const (
	// MaxLiveStock is the most stock rows of a page. Reading so many takes a tenth of a second.
	MaxLiveStock = 1000
	// MaxLiveHolds is the most holds of a page. Each takes a call of the channel.
	MaxLiveHolds = 500
)

const claimLiveSQL = "SELECT leased, coalesce(batch, 0) FROM claim_live($1, $2, $3)"

// claimedLive is the answer of claim_live.
type claimedLive struct {
	Leased bool
	Batch  int64 // 0 when there is no news
}

const livePageSQL = `
SELECT class, product_id, warehouse_id, total, reserved, age, hold_id, version
FROM live_page($1, $2, $3, $4, $5, $6, $7, $8)`

// liveRow is a row of live_page: a stock row, or a hold.
type liveRow struct {
	Class                  *int
	ProductID, WarehouseID *uuid.UUID
	Total, Reserved        *int // nil for a stock row that isn't for sale
	Age                    float64
	HoldID                 *uuid.UUID
	Version                *int
}

// Live keeps that the relay has published a batch of the live channel, and reads the first page of
// the next one. With an After it reads the next page of the batch that the relay has.
//
// The page isn't Leased when another relay has the lease, or when the request comes too late. Live
// returns the errors of Tick.
func (o *Outbox) Live(ctx context.Context, r events.LiveRequest) (page events.LivePage, err error) {
	lease, err := uuid.Parse(r.Lease)
	if err != nil {
		return page, fmt.Errorf("the lease: %w", err)
	}
	if r.After != nil {
		page.Leased, page.AsOf = true, r.AsOf
		return page, o.fillLive(ctx, &page, lease, *r.After)
	}
	claimed, err := reservation.QueryRow(ctx, o.db, pgx.RowToStructByPos[claimedLive], claimLiveSQL,
		lease.String(), optional(r.AsOf), r.Release)
	if err != nil {
		return page, fmt.Errorf("claim the live channel: %w", err)
	}
	page.Leased, page.AsOf = claimed.Leased, claimed.Batch
	if page.AsOf == 0 {
		return page, nil
	}
	return page, o.fillLive(ctx, &page, lease, events.LivePlace{Class: -1})
}

// fillLive reads the part of the page's batch behind a place. It reads one row more of each kind
// than the page has, to see whether more follow.
func (o *Outbox) fillLive(
	ctx context.Context, page *events.LivePage, lease uuid.UUID, after events.LivePlace,
) error {
	rows, err := reservation.Query(ctx, o.db, pgx.RowToStructByPos[liveRow], livePageSQL,
		lease.String(), page.AsOf, after.Class, after.ProductID.String(), after.WarehouseID.String(),
		after.HoldID.String(), MaxLiveStock+1, MaxLiveHolds+1)
	if err != nil {
		return fmt.Errorf("read a page of the live channel: %w", err)
	}
	next := after
	stock, holds := 0, 0
	for _, row := range rows {
		if row.HoldID == nil {
			if stock++; stock > MaxLiveStock {
				continue
			}
			next.Class, next.ProductID, next.WarehouseID = *row.Class, *row.ProductID, *row.WarehouseID
			if row.Total != nil {
				page.Stock = append(page.Stock, o.stockMessage(row, page.AsOf))
			}
		} else {
			if holds++; holds > MaxLiveHolds {
				continue
			}
			next.HoldID = *row.HoldID
			page.Holds = append(page.Holds,
				channel.Hold{ReservationID: *row.HoldID, Version: *row.Version, AsOf: page.AsOf})
		}
		page.LagSeconds = max(page.LagSeconds, row.Age)
	}
	if stock <= MaxLiveStock {
		next.Class = noClass
	}
	if stock > MaxLiveStock || holds > MaxLiveHolds {
		page.After = &next
	}
	return nil
}

// noClass is behind the classes of all stock rows.
const noClass = 2

// stockMessage is the message of a stock row, as the catalog shows it.
func (o *Outbox) stockMessage(row liveRow, asOf int64) channel.Stock {
	message := channel.Stock{ProductID: *row.ProductID, WarehouseID: *row.WarehouseID, AsOf: asOf}
	message.AvailableStock, message.OrMore = reservation.Shown(*row.Total-*row.Reserved,
		o.opts.StockShown)
	if o.opts.StockShown == 0 {
		message.TotalQuantity, message.ReservedQuantity = row.Total, row.Reserved
	}
	return message
}
