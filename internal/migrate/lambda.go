package migrate

import (
	"context"

	"github.com/allo/reservations/internal/config"
)

// Report is what the migrate function answers whoever invoked it.
type Report struct {
	Applied []string `json:"applied"`
}

// Lambda is the handler of the migrate function.
func Lambda() func(context.Context) (Report, error) {
	c, log := config.Start(true)
	return func(ctx context.Context) (Report, error) {
		applied, err := Up(ctx, c.DatabaseURL)
		log.Info("migrate", "applied", applied, "error", err)
		return Report{Applied: append([]string{}, applied...)}, err
	}
}
