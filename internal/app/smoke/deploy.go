package smoke

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"
)

// The product and the warehouse of the check of a deploy. Their names tell a shopper who sees them
// in the second in which they are for sale.
const (
	sku, warehouse = "smoke-test", "smoke-test"
	productName    = "Test of a deploy, not for sale"
)

const (
	// spare is how many units are free when the check begins. It needs one. Others are for shoppers'
	// programs that hold whatever is for sale.
	spare = 10
	// holdSeconds and extendedSeconds bound the hold of a run that dies.
	holdSeconds, extendedSeconds = 30, 60
	// followLimit is how long the catalog and the stock may be behind the database, and another run
	// may keep the product for sale, which takes it a second or two.
	followLimit = 15 * time.Second
	// leaveLimit is how long the unit of another run may be held that has just held it, and dies. It
	// is below runLimit.
	leaveLimit = extendedSeconds*time.Second + followLimit
)

// deployRun is one run of the check of a deploy.
type deployRun struct {
	caller

	id string
	// leave is leaveLimit.
	leave   time.Duration
	product string // its id, when it is known
	place   string // the warehouse's id
	hold    string
	// held is how many units were held, this run's among them, when the product was put away.
	held int
	// puts counts how often this run put the product up or away.
	puts int
}

// stockRow is the part of a stock row that the check reads.
type stockRow struct {
	Status, WarehouseStatus         string
	TotalQuantity, ReservedQuantity int
}

// check runs the check, and puts its product away whatever it found.
func (d *deployRun) check(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, runLimit)
	defer cancel()
	for _, step := range []func(context.Context) error{
		d.health, d.offer, d.fill, d.inCatalog,
		d.reserve, d.read, d.extend, d.close, d.release, d.payTooLate, d.isBack,
	} {
		if err := step(ctx); err != nil {
			return errors.Join(err, d.putAway(ctx))
		}
	}
	if err := d.putAway(ctx); err != nil {
		return err
	}
	return d.isGone(ctx)
}

// key returns the idempotency key of a call of this run.
func (d *deployRun) key(of string) string { return "smoke-" + d.id + "-" + of }

func (d *deployRun) health(ctx context.Context) error {
	return d.want(ctx, call{route: "GET /api/health"}, http.StatusOK, "", nil)
}

// offer puts the product and the warehouse up for sale.
func (d *deployRun) offer(ctx context.Context) error {
	return d.put(ctx, "OPEN", "ACTIVE")
}

// offerAgain puts the product up once more if another run has put it away.
func (d *deployRun) offerAgain(ctx context.Context) error {
	row, _, err := d.row(ctx, now)
	if err != nil || row.Status == "ACTIVE" && row.WarehouseStatus == "OPEN" {
		return err
	}
	return d.offer(ctx)
}

// putAway takes both out of the catalog. The product's limit keeps anybody from holding many.
func (d *deployRun) putAway(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), awayLimit)
	defer cancel()
	d.patience = time.Now().Add(awayLimit / 2)
	return d.away(ctx)
}

func (d *deployRun) away(ctx context.Context) error {
	return d.put(ctx, "CLOSED", "ARCHIVED")
}

// close puts the product away before the unit is given back, and counts the units that are held.
// From now on nobody can hold another one, so the count only falls, unless another run puts the
// product up again.
func (d *deployRun) close(ctx context.Context) error {
	if err := d.away(ctx); err != nil {
		return err
	}
	row, _, err := d.row(ctx, now)
	d.held = row.ReservedQuantity
	return err
}

// put gives the warehouse and the product a status. Each put has keys of its own, because a key
// that was used before has no effect.
func (d *deployRun) put(ctx context.Context, warehouseStatus, productStatus string) error {
	d.puts++
	key := fmt.Sprintf("put-%d", d.puts)
	type item = map[string]any
	items := func(i item) map[string]any { return map[string]any{"items": []item{i}} }
	var warehouses struct {
		Results []struct{ WarehouseID string }
	}
	var products struct{ Results []struct{ ProductID string } }
	err := errors.Join(
		d.want(ctx, call{
			route: "POST /api/catalog/products", key: d.key(key + "-product"),
			body: items(item{
				"sku": sku, "name": productName, "status": productStatus, "maxPerHold": 1,
			}),
		}, http.StatusOK, "", &products),
		d.want(ctx, call{
			route: "POST /api/catalog/warehouses", key: d.key(key + "-warehouse"),
			body: items(item{"code": warehouse, "name": productName, "status": warehouseStatus}),
		}, http.StatusOK, "", &warehouses))
	if err != nil {
		return err
	}
	if len(products.Results) != 1 || len(warehouses.Results) != 1 {
		return fmt.Errorf("the catalog made %d products and %d warehouses, want one of each",
			len(products.Results), len(warehouses.Results))
	}
	d.product, d.place = products.Results[0].ProductID, warehouses.Results[0].WarehouseID
	return nil
}

// fill makes spare units free, whatever an earlier run left. A count that finds the same makes no
// movement.
func (d *deployRun) fill(ctx context.Context) error {
	row, _, err := d.row(ctx, lately)
	if err != nil {
		return err
	}
	q := call{
		route: "POST /api/stock/movements", key: d.key("fill"),
		body: map[string]any{
			"source": "smoke", "reference": d.id, "onHeld": "CLAMP",
			"lines": []map[string]any{{
				"sku": sku, "warehouse": warehouse, "counted": row.ReservedQuantity + spare,
			}},
		},
	}
	var moved struct{ Results []struct{ Outcome string } }
	if err := d.want(ctx, q, http.StatusOK, "", &moved); err != nil {
		return err
	}
	if len(moved.Results) != 1 || moved.Results[0].Outcome == "REFUSED" {
		return fmt.Errorf("%s answered %+v, want one count that is applied", q, moved.Results)
	}
	return d.until(ctx, "the stock that was counted isn't in the list",
		func() (bool, error) {
			row, there, err := d.row(ctx, lately)
			return there && row.TotalQuantity-row.ReservedQuantity > 0, err
		})
}

// lately says that a stock row may be read from a server that follows the database, and now that it
// mustn't.
const lately, now = false, true

// row reads the stock row as an operator. It isn't there before the first movement.
func (d *deployRun) row(ctx context.Context, fresh bool) (row stockRow, there bool, err error) {
	var rows []stockRow
	q := call{
		route: "GET /api/stock", query: url.Values{"sku": {sku}, "warehouse": {warehouse}},
		fresh: fresh,
	}
	if err := d.want(ctx, q, http.StatusOK, "", &rows); err != nil || len(rows) == 0 {
		return row, false, err
	}
	return rows[0], true, nil
}

// inCatalog wants a shopper to see the product.
func (d *deployRun) inCatalog(ctx context.Context) error {
	return d.until(ctx, "the catalog doesn't show the product with free units",
		func() (bool, error) {
			free, err := d.shown(ctx)
			if err != nil || free > 0 {
				return true, err
			}
			return false, d.offerAgain(ctx)
		})
}

// isGone wants no shopper to see the product. Another run may have put it up again, and puts it
// away when it ends. If that run has died, this one does.
func (d *deployRun) isGone(ctx context.Context) error {
	err := d.untilGone(ctx)
	if !errors.As(err, new(*lateError)) || ctx.Err() != nil {
		return err
	}
	if err := d.away(ctx); err != nil {
		return err
	}
	return d.untilGone(ctx)
}

func (d *deployRun) untilGone(ctx context.Context) error {
	return d.until(ctx, "the catalog still shows the product that was put away",
		func() (bool, error) { free, err := d.shown(ctx); return free < 0, err })
}

// shown returns the free units that the catalog shows, and -1 when it doesn't show the product.
func (d *deployRun) shown(ctx context.Context) (free int, err error) {
	var products []struct {
		ID          string
		Inventories []struct{ AvailableStock int }
	}
	q := call{route: "GET /api/products", query: url.Values{"sku": {sku}}}
	if err := d.want(ctx, q, http.StatusOK, "", &products); err != nil {
		return 0, err
	}
	if len(products) == 0 {
		return -1, nil
	}
	if len(products) > 1 || products[0].ID != d.product {
		return 0, fmt.Errorf("%s answered %+v, want the product %s alone", q, products, d.product)
	}
	for _, i := range products[0].Inventories {
		free += i.AvailableStock
	}
	return free, nil
}

// reservation is the part of a hold that the checks read.
type reservation struct {
	Reservation struct{ ID, Status string }
}

// reserve holds a unit. When another run has just put the product away, it puts the product up
// again.
func (d *deployRun) reserve(ctx context.Context) error {
	wasAway := false
	return d.until(ctx, "a reserve answers NOT_FOR_SALE, although the product was put up again,",
		func() (bool, error) {
			if wasAway {
				if err := d.offer(ctx); err != nil {
					return true, err
				}
			}
			hold, err := d.holdUnit(ctx, d.product, d.place, d.key("reserve"))
			if wasAway = isProblem(err, "NOT_FOR_SALE"); wasAway {
				return false, nil
			}
			d.hold = hold
			return true, err
		})
}

// holdUnit holds a unit of a product for holdSeconds, and returns the hold's id.
func (c *caller) holdUnit(ctx context.Context, product, place, key string) (string, error) {
	q := call{
		route: "POST /api/reservations", key: key,
		body: map[string]any{
			"productId": product, "warehouseId": place, "quantity": 1, "ttlSeconds": holdSeconds,
		},
	}
	var made reservation
	if err := c.want(ctx, q, http.StatusCreated, "", &made); err != nil {
		return "", err
	}
	if made.Reservation.ID == "" || made.Reservation.Status != "PENDING" {
		return "", fmt.Errorf("%s answered %+v, want a hold that is PENDING", q, made.Reservation)
	}
	return made.Reservation.ID, nil
}

// read reads the hold, and wants the operator to see its unit.
func (d *deployRun) read(ctx context.Context) error {
	if err := d.isNow(ctx, d.hold, "PENDING"); err != nil {
		return err
	}
	return d.until(ctx, "the stock doesn't show the unit that is held",
		func() (bool, error) {
			row, _, err := d.row(ctx, lately)
			return row.ReservedQuantity > 0, err
		})
}

// isNow wants the hold to have a status.
func (c *caller) isNow(ctx context.Context, hold, status string) error {
	q := call{route: "GET /api/reservations/{id}", id: hold}
	return c.becomes(ctx, q, status)
}

// becomes makes a call about a hold, after which the hold has a status.
func (c *caller) becomes(ctx context.Context, q call, status string) error {
	var got reservation
	if err := c.want(ctx, q, http.StatusOK, "", &got); err != nil {
		return err
	}
	if got.Reservation.ID != q.id || got.Reservation.Status != status {
		return fmt.Errorf("%s answered with %+v, want the hold to be %s", q, got.Reservation, status)
	}
	return nil
}

func (d *deployRun) extend(ctx context.Context) error {
	return d.becomes(ctx, call{
		route: "POST /api/reservations/{id}/extend", id: d.hold, key: d.key("extend"),
		body: map[string]any{"ttlSeconds": extendedSeconds},
	}, "PENDING")
}

// release releases the hold.
func (d *deployRun) release(ctx context.Context) error {
	return errors.Join(d.free(ctx, d.hold, d.key("release")), d.isNow(ctx, d.hold, "RELEASED"))
}

// free releases a hold.
func (c *caller) free(ctx context.Context, hold, key string) error {
	return c.becomes(ctx,
		call{route: "POST /api/reservations/{id}/release", id: hold, key: key}, "RELEASED")
}

// payTooLate wants the payment side to be refused, because the hold is released. So the check
// reaches these functions and sells nothing.
func (d *deployRun) payTooLate(ctx context.Context) error {
	const released = "RESERVATION_RELEASED"
	return errors.Join(
		d.want(ctx, call{
			route: "POST /api/reservations/{id}/payment", id: d.hold, key: d.key("payment"),
			body: map[string]any{"paymentReference": "smoke", "ttlSeconds": holdSeconds},
		}, http.StatusConflict, released, nil),
		d.want(ctx, call{
			route: "POST /api/reservations/{id}/confirm", id: d.hold, key: d.key("confirm"),
		}, http.StatusConflict, released, nil))
}

// isBack wants fewer units to be held than at close. Somebody else's hold from before close counts
// on both sides, so it doesn't matter that it lasts for longer than this run. Another run may have
// held a unit since. It soon gives the unit back, or the hold ends by itself.
//
// The count doesn't say whose unit came back. If somebody else's hold from before close ends
// meanwhile, the count falls although this run's release gave nothing back. Two runs are of the
// same deploy, so a release that gives nothing back gives none of their units back, and both wait
// in vain.
func (d *deployRun) isBack(ctx context.Context) error {
	return d.within(ctx, d.leave, "the unit that was released isn't back in the stock",
		func() (bool, error) {
			row, _, err := d.row(ctx, now)
			return row.ReservedQuantity < d.held, err
		})
}
