package postgres

import "time"

// The pool's bounds, for the tests.
const (
	ConnectTimeout = connectTimeout
	DialTimeout    = dialTimeout
	UnackedTimeout = unackedTimeout
	MaxPrepared    = maxPrepared
	MaxWaiting     = maxWaiting
	ReaderQueue    = readerQueue
)

// SetPingAfter changes how long a connection may be idle before it is pinged.
func (p *Pool) SetPingAfter(d time.Duration) { p.pingAfter = d }

// SetLimit changes how long a statement of Fresh may take.
func (r *Reader) SetLimit(d time.Duration) { r.limit = d }

// SetPause changes how long a reader that can't be used isn't asked again.
func (r *Reader) SetPause(d time.Duration) { r.pauseFor = d }

// SetPatience changes how long a read waits for a connection.
func (r *Reader) SetPatience(d time.Duration) { r.patience = d }

// Waiting counts the callers in the queue of the reader.
func (r *Reader) Waiting() int64 { return r.pool.Waiting() }

// SetPingAfter changes how long a connection to the reader may be idle before it is pinged.
func (r *Reader) SetPingAfter(d time.Duration) { r.pool.SetPingAfter(d) }

// Reconnect lets the next read make a new connection.
func (r *Reader) Reconnect() { r.pool.Reset() }

// KeepSiblings lets the connections that are open now stay open when one of them breaks.
func (p *Pool) KeepSiblings() { p.resets.Add(1) }

// Unnamed reports whether the pool has stopped preparing statements.
func (p *Pool) Unnamed() bool { return p.unnamed.Load() }

// Waiting counts the callers in the queue.
func (p *Pool) Waiting() int64 { return p.waiting.Load() }

// HasCode reports whether err is Postgres's error with the SQLSTATE.
func HasCode(err error, code string) bool { return hasCode(err, code) }

// Honoured returns the names of the parameters that a URL may have.
func Honoured() (names []string) {
	for _, p := range honoured {
		names = append(names, p.name)
	}
	return names
}
