package app

import (
	"context"
	"time"
)

// horizonLimit bounds the reading of the horizon. It fits into the time that a sweep leaves.
const horizonLimit = time.Second

// HorizonReport says how far the database keeps dead row versions for the sake of old transactions
// (reservation.Horizon).
type HorizonReport struct {
	OldestTransactionSeconds float64 `json:"oldestTransactionSeconds"`
	Transactions             int64   `json:"transactions"`
	// Complete is false when the service's role isn't told the ages of other roles' transactions.
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
