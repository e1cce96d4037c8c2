package app

import (
	"context"

	"github.com/allo/reservations/internal/awsdb"
	"github.com/allo/reservations/internal/config"
	"github.com/allo/reservations/internal/emf"
	"github.com/allo/reservations/internal/postgres"
)

// openReader makes the pool to the reader, which is as large as the writer's, or returns nil when
// there is no reader.
func (a *App) openReader(c config.Config, connections int) (*postgres.Reader, error) {
	source, err := awsdb.ReaderSource(c)
	if err != nil || source == nil {
		return nil, err
	}
	options := postgres.ReaderOptions{MaxLag: c.ReaderLag, OnFallback: a.observeFallback}
	return postgres.OpenReader(source, connections, options, logUnsafe(a.log))
}

// connectFirst connects to the server that the first call will ask. A function that has a reader
// reads there, and keeps no connection of the writer until it needs one.
func (a *App) connectFirst(ctx context.Context) error {
	if a.reader != nil {
		return a.reader.Connect(ctx)
	}
	return a.Connect(ctx)
}

// observeFallback counts a read that the writer answered in the reader's place. It logs each
// conflict and each read without a free connection, and whatever else the reader was found to be,
// which is once in each pause of the reader.
func (a *App) observeFallback(reason postgres.Fallback, err error) {
	a.metrics.Write(emf.ReaderFallbacks.Of(string(reason), 1))
	if err != nil {
		a.log.Warn("the writer answers a read", "reason", reason, "error", err.Error())
	}
}
