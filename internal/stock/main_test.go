package stock_test

import (
	"testing"

	"github.com/allo/reservations/internal/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }
