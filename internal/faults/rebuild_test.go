package faults

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/allo/reservations/internal/events"
	"github.com/allo/reservations/internal/events/outbox"
	"github.com/allo/reservations/internal/pgtest"
)

// rebuilt is a shop as a consumer knows it who has read its events, and nothing else.
type rebuilt struct {
	next string         // the cursor behind the events
	last map[string]int // the newest sequence, by subject
	rows map[stockRow]rebuiltRow
	// sold are the units that movements of kind SALE took.
	sold  map[stockRow]int
	holds map[uuid.UUID]rebuiltHold
}

// rebuiltRow is a stock row. The fields are those of the table.
type rebuiltRow struct{ Total, Reserved, Seq int }

// rebuiltHold is a hold as an event shows it.
type rebuiltHold struct {
	ID          uuid.UUID
	Status      string
	Version     int
	Quantity    *int
	ProductID   *uuid.UUID
	WarehouseID *uuid.UUID
	Items       []item
	CreatedAt   time.Time
	UpdatedAt   time.Time
	ExpiresAt   time.Time
	ConfirmedAt *time.Time
	ReleasedAt  *time.Time
	ExpiredAt   *time.Time
	Replaces    *uuid.UUID
}

// feedEvent is the body of an event.
type feedEvent struct {
	ID, Type, Subject, Sequence, PartitionKey string

	Time time.Time
	Data struct {
		Reservation *rebuiltHold
		// of a movement
		ProductID, WarehouseID uuid.UUID
		Seq, Delta, TotalAfter int
		Kind                   string
		At                     time.Time
	}
}

func newRebuilt() *rebuilt {
	return &rebuilt{
		last: map[string]int{}, rows: map[stockRow]rebuiltRow{}, sold: map[stockRow]int{},
		holds: map[uuid.UUID]rebuiltHold{},
	}
}

// takeEvents takes a tick and reads the events behind the shop's cursor over HTTP, to the end.
func (d *deployment) takeEvents(
	ctx context.Context, c client, shop *rebuilt,
) (bodies [][]byte, err error) {
	if _, err := outbox.New(d.service, outbox.Options{}).Tick(ctx); err != nil {
		return nil, err
	}
	for {
		path := "/api/events?limit=" + strconv.Itoa(outbox.MaxPage)
		if shop.next != "" {
			path += "&after=" + url.QueryEscape(shop.next)
		}
		r := c.send(ctx, http.MethodGet, path, "", nil)
		var page struct {
			Events []json.RawMessage
			Next   string
		}
		if !r.ok() {
			return nil, fmt.Errorf("the events were answered %d %s %w", r.Status, r.Body, r.Err)
		}
		if err := json.Unmarshal(r.Body, &page); err != nil {
			return nil, err
		}
		for _, body := range page.Events {
			bodies = append(bodies, body)
		}
		shop.next = page.Next
		if len(page.Events) == 0 {
			return bodies, nil
		}
	}
}

// fold takes the next event. It returns an error when the event can't follow the ones before.
func (s *rebuilt) fold(body []byte) error {
	var e feedEvent
	if err := json.Unmarshal(body, &e); err != nil {
		return fmt.Errorf("read the event %s: %w", body, err)
	}
	sequence, err := strconv.Atoi(e.Sequence)
	if err != nil || sequence != s.last[e.Subject]+1 || e.PartitionKey != e.Subject {
		return fmt.Errorf("event %s came after number %d of its subject: %w", body, s.last[e.Subject],
			err)
	}
	s.last[e.Subject] = sequence
	name := func(parts ...any) string { return fmt.Sprintf("%s-%d", fmt.Sprint(parts...), sequence) }
	switch h := e.Data.Reservation; {
	case e.Type == events.TypeMoved && e.ID == name(e.Data.ProductID, "-", e.Data.WarehouseID):
		err = s.foldMovement(e, sequence)
	case h != nil && e.ID == name(h.ID) && h.ID.String() == e.Subject:
		err = s.foldHold(e, *h, sequence)
	default:
		err = errors.New("its id or its type is another's")
	}
	if err != nil {
		return fmt.Errorf("event %s: %w", body, err)
	}
	return nil
}

func (s *rebuilt) foldMovement(e feedEvent, sequence int) error {
	m, row := e.Data, stockRow{e.Data.ProductID, e.Data.WarehouseID}
	total := s.rows[row].Total + m.Delta
	if m.TotalAfter != total || m.Seq != sequence || !m.At.Equal(e.Time) ||
		e.Subject != row.Product.String()+"/"+row.Warehouse.String() {
		return fmt.Errorf("want a total of %d", total)
	}
	s.rows[row] = rebuiltRow{Total: total, Seq: m.Seq}
	switch m.Kind {
	case "SALE":
		s.sold[row] -= m.Delta
	case "OPENING", "ADJUSTMENT", "COUNT", "RETURN":
	default:
		return fmt.Errorf("there is no kind of movement %s", m.Kind)
	}
	return nil
}

// statusOf is the status of a hold after an event.
var statusOf = map[string]string{
	events.TypeHeld: "PENDING", events.TypeExtended: "PENDING", events.TypePaymentStarted: "PENDING",
	events.TypePaymentFailed: "PENDING", events.TypeConfirmed: "CONFIRMED",
	events.TypeReleased: "RELEASED", events.TypeExpired: "EXPIRED",
}

func (s *rebuilt) foldHold(e feedEvent, h rebuiltHold, sequence int) error {
	want := h
	before, known := s.holds[h.ID]
	if known {
		want = before
		want.UpdatedAt = h.UpdatedAt
		if before.Status != "PENDING" || h.UpdatedAt.Before(before.UpdatedAt) {
			return fmt.Errorf("the hold was %s at %s", before.Status, before.UpdatedAt)
		}
	}
	want.Status, want.Version = statusOf[e.Type], sequence
	want.ConfirmedAt, want.ReleasedAt, want.ExpiredAt = nil, nil, nil
	switch want.Status {
	case "CONFIRMED":
		want.ConfirmedAt = &h.UpdatedAt
	case "RELEASED":
		want.ReleasedAt = &h.UpdatedAt
	case "EXPIRED":
		want.ExpiredAt = &h.UpdatedAt
	default:
		want.ExpiresAt = h.ExpiresAt // a verb may have moved it
	}
	want.Quantity, want.ProductID, want.WarehouseID = nil, nil, nil
	if len(h.Items) == 1 {
		want.Quantity = &h.Items[0].Quantity
		want.ProductID, want.WarehouseID = &h.Items[0].ProductID, &h.Items[0].WarehouseID
	}
	if !reflect.DeepEqual(h, want) || !h.UpdatedAt.Equal(e.Time) || known == (sequence == 1) ||
		len(h.Items) == 0 {
		return fmt.Errorf("want the hold %+v", want)
	}
	s.holds[h.ID] = h
	return nil
}

// The tables as compare reads them.
const (
	stockSQL = `
SELECT product_id AS product, warehouse_id AS warehouse, total, reserved, seq FROM inventory`
	holdsSQL = `
SELECT r.id, r.status, r.version, r.created_at AS "createdAt", r.updated_at AS "updatedAt",
       r.expires_at AS "expiresAt", p.old_id AS replaces,
       (SELECT json_agg(json_build_object('productId', i.product_id,
                                          'warehouseId', i.warehouse_id, 'quantity', i.quantity)
                        ORDER BY i.product_id, i.warehouse_id)
        FROM (SELECT l.product_id, l.warehouse_id, l.quantity
              FROM reservation_items l WHERE l.reservation_id = r.id
              UNION ALL
              SELECT r.product_id, r.warehouse_id, r.quantity WHERE r.product_id IS NOT NULL) i
       ) AS items
FROM reservations r LEFT JOIN replacements p ON p.new_id = r.id`
)

// readTable reads the rows of a statement.
func readTable[T any](db *pgtest.Fixture, sql string) (rows []T, err error) {
	data := pgtest.QueryOne[string](db, "SELECT coalesce(json_agg(s), '[]')::text FROM ("+sql+") s")
	return rows, json.Unmarshal([]byte(data), &rows)
}

// compare compares the shop with the tables. Each hold that is dead must have been swept.
func (s *rebuilt) compare(db *pgtest.Fixture) error {
	stock, err := readTable[struct {
		stockRow
		rebuiltRow
	}](db, stockSQL)
	holds, err2 := readTable[rebuiltHold](db, holdsSQL)
	faults := []error{err, err2}
	report := func(format string, args ...any) {
		faults = append(faults, fmt.Errorf(format, args...))
	}
	rows, sold := maps.Clone(s.rows), map[stockRow]int{}
	for _, h := range s.holds {
		for _, i := range h.Items {
			row := stockRow{i.ProductID, i.WarehouseID}
			switch h.Status {
			case "PENDING":
				shelf := rows[row]
				shelf.Reserved += i.Quantity
				rows[row] = shelf
			case "CONFIRMED":
				sold[row] += i.Quantity
			}
		}
	}
	if !maps.Equal(sold, s.sold) {
		report("the confirmed holds have the units %v, and the sales took %v", sold, s.sold)
	}
	for _, there := range stock {
		if rows[there.stockRow] != there.rebuiltRow {
			report("the stock row %+v is %+v by the events", there, rows[there.stockRow])
		}
	}
	for _, there := range holds {
		if led := s.holds[there.ID]; led.text() != there.text() {
			report("the hold %s is %s by the events", there.text(), led.text())
		}
	}
	if len(stock) != len(rows) || len(holds) != len(s.holds) {
		report("there are %d stock rows and %d holds, and %d and %d by the events", len(stock),
			len(holds), len(rows), len(s.holds))
	}
	return errors.Join(faults...)
}

// text writes the fields of a hold that the tables have too.
func (h rebuiltHold) text() string {
	at := func(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }
	replaces := "none"
	if h.Replaces != nil {
		replaces = h.Replaces.String()
	}
	return fmt.Sprint(h.ID, " ", h.Status, " ", h.Version, " ", at(h.CreatedAt), " ", at(h.UpdatedAt),
		" ", at(h.ExpiresAt), " ", h.Items, " replaces ", replaces)
}

// tradeAllKinds makes an event of each type, of holds with one line and with two.
func tradeAllKinds(t *testing.T, d *deployment, c client) {
	t.Helper()
	ctx, rows := t.Context(), d.addProduct(2, 100)
	one := item{rows[0].Product, rows[0].Warehouse, 2}
	two := item{rows[1].Product, rows[1].Warehouse, 3}
	must := func(r reply) uuid.UUID {
		t.Helper()
		if !r.ok() || r.Reservation == nil {
			t.Fatalf("a call was answered %d %s %v", r.Status, r.Body, r.Err)
		}
		return r.Reservation.ID
	}
	sold := must(c.reserve(ctx, "", 600, one, two))
	must(c.extend(ctx, sold, "", 900))
	must(c.pay(ctx, sold, "", paymentNames[0], 1200))
	must(c.fail(ctx, sold, "", paymentNames[0], 600))
	must(c.act(ctx, sold, "confirm", ""))
	must(c.bringBack(ctx, sold, "return", returned{item: one}))
	must(c.act(ctx, must(c.reserve(ctx, "", 600, one)), "release", ""))
	old := must(c.reserve(ctx, "", 600, two))
	must(c.order(ctx, "", reserveBody{Items: []item{one}, Replaces: &old}))
	dead := must(c.reserve(ctx, "", 600, one, two))
	d.db.Kill(dead)
	if err := d.sweep(ctx); err != nil {
		t.Fatal(err)
	}
}

// rebuild folds events and compares what they lead to with the tables.
func rebuild(db *pgtest.Fixture, bodies [][]byte) error {
	shop := newRebuilt()
	for _, body := range bodies {
		if err := shop.fold(body); err != nil {
			return err
		}
	}
	return shop.compare(db)
}

// notInTables are the fields of an event that say nothing about stock rows and holds as they are.
var notInTables = []string{
	"specversion", "source", "datacontenttype", "dataschema", "data.cause", "data.actor",
	"data.source", "data.reservationId",
}

// otherValues returns copies of an event that differ in one value each, by the value's path.
func otherValues(t *testing.T, body []byte) map[string][]byte {
	t.Helper()
	var event map[string]any
	if err := json.Unmarshal(body, &event); err != nil {
		t.Fatal(err)
	}
	others := map[string][]byte{}
	var walk func(path string, value any, set func(any))
	walk = func(path string, value any, set func(any)) {
		var other any = "x"
		switch v := value.(type) {
		case map[string]any:
			for name, child := range v {
				walk(strings.TrimPrefix(path+"."+name, "."), child, func(c any) { v[name] = c })
			}
			return
		case []any:
			for i, child := range v {
				walk(path+"."+strconv.Itoa(i), child, func(c any) { v[i] = c })
			}
			return
		case float64:
			other = v + 1
		case string:
			if at, err := time.Parse(time.RFC3339Nano, v); err == nil {
				other = at.Add(time.Microsecond).Format(time.RFC3339Nano)
			} else if _, err := uuid.Parse(v); err == nil {
				other = uuid.NewString()
			} else {
				other = v + "1"
			}
		case nil:
			other = time.Now().UTC().Format(time.RFC3339Nano) // a time, unless it doesn't parse
		}
		set(other)
		text, err := json.Marshal(event)
		if err != nil {
			t.Fatal(err)
		}
		others[path] = text
		set(value)
	}
	walk("", event, nil)
	return others
}

// TestTheRebuildNoticesEachWrongEvent is the control of the rebuilt shops: an event that is
// missing, that comes twice or too late, or that has another value anywhere.
func TestTheRebuildNoticesEachWrongEvent(t *testing.T) {
	d := newDeployment(t)
	c := newClient(d.url, 1)
	tradeAllKinds(t, d, c)
	bodies, err := d.takeEvents(t.Context(), c, newRebuilt())
	if err != nil {
		t.Fatal(err)
	}
	if err := rebuild(d.db, bodies); err != nil {
		t.Fatalf("the events don't lead to the tables: %v", err)
	}
	types, tried := map[string]bool{}, 0
	for n, body := range bodies {
		var e feedEvent
		if err := json.Unmarshal(body, &e); err != nil {
			t.Fatal(err)
		}
		types[e.Type] = true
		wrong := map[string][][]byte{
			"left out":      slices.Delete(slices.Clone(bodies), n, n+1),
			"sent twice":    slices.Insert(slices.Clone(bodies), n, body),
			"sent too late": append(slices.Delete(slices.Clone(bodies), n, n+1), body),
		}
		if s := e.Subject; !slices.ContainsFunc(bodies[n+1:], func(later []byte) bool {
			return strings.Contains(string(later), `"subject":"`+s+`"`)
		}) {
			delete(wrong, "sent too late") // it comes last of its subject all the same
		}
		for path, other := range otherValues(t, body) {
			moved := path == "data.reservation.expiresAt" && e.Data.Reservation.Status == "PENDING"
			if !slices.Contains(notInTables, path) && !moved { // a later event may have another end
				wrong["with another "+path] = slices.Replace(slices.Clone(bodies), n, n+1, other)
			}
		}
		for what, all := range wrong {
			tried++
			if rebuild(d.db, all) == nil {
				t.Errorf("event %s, %s, led to the same tables", body, what)
			}
		}
	}
	if len(types) != len(events.Types()) {
		t.Errorf("the events have the types %v, want all", slices.Sorted(maps.Keys(types)))
	}
	t.Logf("%d events, wrong in %d ways", len(bodies), tried)
}
