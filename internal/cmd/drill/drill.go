package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/allo/reservations/internal/local/pgserver"
)

// drill is one rehearsal. Its servers and the archive of the log are in one directory.
type drill struct {
	options
	out      io.Writer
	bin, dir string
	first    *server
	// consumers hear the events of every server.
	consumers *consumers
	// sold are the sales that were answered before the mistake was noticed.
	sold []sale
	// moment is the one before the mistake, by the first server's clock. noticed is when the calls
	// were stopped.
	moment, noticed time.Time
}

func newDrill(ctx context.Context, o options, out io.Writer) (d *drill, err error) {
	d = &drill{options: o, out: out, consumers: newConsumers()}
	if d.bin, err = pgserver.Find(o.root); err != nil {
		return nil, err
	}
	if d.dir, err = os.MkdirTemp("", "allo-drill-"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(d.dir))
		}
	}()
	// The servers may run as another user. Their data directories have modes of their own.
	//nolint:gosec // the directory itself holds nothing secret
	if err := errors.Join(os.Chmod(d.dir, 0o755), os.Mkdir(d.archive(), 0o700)); err != nil {
		return nil, err
	}
	if _, err := pgserver.Unprivileged(d.archive()); err != nil {
		return nil, err
	}
	d.first, err = d.startFirst(ctx)
	return d, err
}

func (d *drill) close() error { return errors.Join(d.first.Stop(), os.RemoveAll(d.dir)) }

// archive is the folder of the first server's log.
func (d *drill) archive() string { return filepath.Join(d.dir, "archive") }

// backup is the folder of the first server's base backup.
func (d *drill) backup() string { return filepath.Join(d.dir, "backup") }

// mistake is what the shop wants to undo. No call fails because of it.
const mistake = "UPDATE products SET name = 'overwritten', changed_at = clock_timestamp()"

// run does the whole drill.
func (d *drill) run(ctx context.Context) error {
	if err := d.breakShop(ctx); err != nil {
		return err
	}
	if err := d.takeOver(ctx, "begin_epoch"); err != nil {
		return err
	}
	if d.client == "" {
		d.say("Without -client DIR the dump of infra/RUNBOOK.md isn't rehearsed.")
		return nil
	}
	if err := d.loadDump(ctx, "its dump in the first server", d.first, "begin_epoch"); err != nil {
		return err
	}
	other, err := d.startOther(ctx)
	if err != nil {
		return err
	}
	return errors.Join(d.loadDump(ctx, "its dump in a new server", other, "rebase_stream"),
		other.Stop())
}

// breakShop sells on the first server, makes a base backup meanwhile, makes the mistake, and sells
// on until it is noticed.
func (d *drill) breakShop(ctx context.Context) error {
	s, err := d.open(d.first)
	if err != nil {
		return err
	}
	sell := s.startSelling(ctx)
	backup := d.baseBackup(ctx)
	if err := errors.Join(backup, sell.wait(ctx, d.sell)); err != nil {
		return errors.Join(err, s.close())
	}
	var moment time.Time
	admin, err := d.first.connect(ctx)
	if err != nil {
		return errors.Join(err, s.close())
	}
	defer func() { _ = admin.Close(context.WithoutCancel(ctx)) }()
	if err := admin.QueryRow(ctx, "SELECT clock_timestamp()").Scan(&moment); err != nil {
		return errors.Join(err, s.close())
	}
	_, err = admin.Exec(ctx, mistake)
	err = errors.Join(err, sell.wait(ctx, d.unnoticed))
	d.sold, d.moment, d.noticed = sell.stop(), moment, time.Now()
	// The rest of the log goes to the archive. Aurora's log is always there.
	_, switchErr := admin.Exec(ctx, "SELECT pg_switch_wal()")
	// The consumers hear of the sales that will be undone.
	err = errors.Join(err, switchErr, s.drain(ctx), s.close(), d.consumers.missing(d.sold))
	if err != nil {
		return err
	}
	d.say("A shop made %d sales. The products' names were overwritten, which was noticed %s later.",
		len(d.sold), rounded(d.noticed.Sub(moment)))
	return nil
}

// takeOver restores the moment on a second server, which then takes the first one's place. The
// routine begins a new epoch of the events.
func (d *drill) takeOver(ctx context.Context, routine string) error {
	start := time.Now()
	second, err := d.restore(ctx)
	if err != nil {
		return err
	}
	restored := time.Since(start)
	err = d.reopen(ctx, "a second server, from the base backup and the log", second, routine,
		start, "restored in "+rounded(restored).String())
	return errors.Join(err, second.Stop())
}

// endLeases ends the lease of the relay that ran at the restored moment. It lasts for a minute,
// which is shorter than a restore on AWS, and longer than one here.
const endLeases = "UPDATE sinks SET leased_until = '-infinity', lease = NULL"

// reopen begins a new epoch, audits, and sells again. It says how long that took since start, and
// what was lost.
func (d *drill) reopen(
	ctx context.Context, name string, on *server, routine string, start time.Time, parts string,
) error {
	conn, err := on.connect(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	if _, err := conn.Exec(ctx, endLeases); err != nil {
		return fmt.Errorf("end the leases: %w", err)
	}
	if routine != "" {
		if _, err := conn.Exec(ctx, "SELECT "+routine+"()"); err != nil {
			return fmt.Errorf("%s: %w", routine, err)
		}
	}
	lost, err := d.lost(ctx, conn)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	s, err := d.open(on)
	if err != nil {
		return err
	}
	audit := time.Now()
	err = s.audit(ctx)
	audited := time.Since(audit)
	sell := s.startSelling(ctx)
	err = errors.Join(err, sell.first(ctx))
	rto := time.Since(start)
	err = errors.Join(err, sell.wait(ctx, d.unnoticed))
	again := sell.stop()
	err = errors.Join(err, s.drain(ctx), s.close(), d.consumers.missing(again),
		d.consumers.contradiction())
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	d.say("%s:\n  RTO %s (%s, audited in %s)\n  RPO %s (%d of %d sales are lost)\n  %d sales since",
		name, rounded(rto), parts, rounded(audited), rounded(d.noticed.Sub(d.moment)), lost,
		len(d.sold), len(again))
	return nil
}

// lost counts the sales that a server doesn't know. It returns an error if one from before the
// moment is among them, or if the mistake is still there.
func (d *drill) lost(ctx context.Context, conn *pgx.Conn) (lost int, err error) {
	var ids []string
	for _, sale := range d.sold {
		ids = append(ids, sale.hold.String())
	}
	rows, err := conn.Query(ctx,
		"SELECT id::text FROM reservations WHERE id = ANY($1::uuid[]) AND status = 'CONFIRMED'", ids)
	if err != nil {
		return 0, err
	}
	known := map[uuid.UUID]bool{}
	found, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return 0, err
	}
	for _, id := range found {
		known[uuid.MustParse(id)] = true
	}
	for _, sale := range d.sold {
		if known[sale.hold] {
			continue
		}
		lost++
		if sale.answered.Before(d.moment) {
			return lost, fmt.Errorf("the sale %s was answered %s before the restored moment and is gone",
				sale.hold, d.moment.Sub(sale.answered))
		}
	}
	var wrong int
	const sql = "SELECT count(*) FROM products WHERE name = 'overwritten'"
	if err := conn.QueryRow(ctx, sql).Scan(&wrong); err != nil {
		return lost, err
	}
	if wrong > 0 {
		return lost, fmt.Errorf("%d products still have the wrong name", wrong)
	}
	return lost, nil
}

func (d *drill) say(format string, args ...any) { fmt.Fprintf(d.out, format+"\n", args...) }

func rounded(d time.Duration) time.Duration { return d.Round(10 * time.Millisecond) }
