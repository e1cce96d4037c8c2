package app

import (
	"context"
	"time"
)

// horizonLimit bounds the reading of the horizon, which comes before the sweep.
const horizonLimit = time.Second

// HorizonReport says how far the database keeps dead row versions for the sake of old transactions
// (reservation.Horizon).
type HorizonReport struct {
	OldestTransactionSeconds float64 `json:"oldestTransactionSeconds"`
	Transactions             int64   `json:"transactions"`
	// Complete is false when something is unknown (reservation.Horizon).
	Complete bool `json:"complete"`
}

// horizon reads the horizon. The sweep only reports its error.
func (a *App) horizon(ctx context.Context) (*HorizonReport, error) {
	ctx, cancel := context.WithTimeout(ctx, horizonLimit)
	defer cancel()
	h, err := a.Service.Horizon(ctx)
	if err != nil {
		return nil, err
	}
	return &HorizonReport{
		OldestTransactionSeconds: h.Oldest.Seconds(),
		Transactions:             h.Transactions,
		Complete:                 h.Complete,
	}, nil
}
