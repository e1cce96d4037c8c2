package stock

import "github.com/allo/reservations/internal/reservation"

// Service is the back office of a shop. It is safe for concurrent use.
type Service struct{ db *reservation.Service }

// New makes a Service on the database of another one. Both count their retries together.
func New(db *reservation.Service) *Service { return &Service{db: db} }

// outcome is the result of a routine: the outcome's name, and its data as JSON or nil.
type outcome struct {
	Name string
	Data []byte
}

// The outcomes of the routines.
const (
	outcomePut       = "PUT"
	outcomeReplayed  = "REPLAYED"
	outcomeInvalid   = "INVALID"
	outcomeKeyReused = "KEY_REUSED"
	outcomeKeyInUse  = "KEY_IN_USE"
)
