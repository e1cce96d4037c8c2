package channel

import (
	"encoding/json"
	"testing"

	"github.com/google/uuid"
)

const someHold = "019aa6d2-7f3e-7cc4-a3a5-6f2b8f1f9e10"

// Everybody may hear of all stock and of one hold, and nobody of more.
func TestEverybodyMaySubscribeToStockAndToOneHold(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		operation, name string
		want            bool
	}{
		{Connect, "", true},
		{Subscribe, "/stock/all", true},
		{Subscribe, "/holds/" + someHold, true},
		{Subscribe, "", false},
		{Subscribe, "/*", false},
		{Subscribe, "/stock/*", false},
		{Subscribe, "/stock/all/*", false},
		{Subscribe, "/holds/*", false},
		{Subscribe, "/holds", false},
		{Subscribe, "/holds/" + someHold + "/*", false},
		{Subscribe, "/holds/019aa6d2-7f3e-7cc4-a3a5-6f2b8f1f9e1*", false},
		{Subscribe, "/holds/019AA6D2-7F3E-7CC4-A3A5-6F2B8F1F9E10", false},
		{Subscribe, "/holds/019aa6d27f3e7cc4a3a56f2b8f1f9e10", false},
		{Subscribe, "/holds/{019aa6d2-7f3e-7cc4-a3a5-6f2b8f1f9e}", false},
		{Publish, "/stock/all", false},
		{Publish, "/holds/" + someHold, false},
		{"", "/stock/all", false},
		{"event_subscribe", "/stock/all", false},
	} {
		if got := Allows(c.operation, c.name); got != c.want {
			t.Errorf("Allows(%q, %q) = %t, want %t", c.operation, c.name, got, c.want)
		}
	}
}

// The messages have the fields of the contract. A figure that is hidden is null.
func TestMessagesHaveTheFieldsOfTheContract(t *testing.T) {
	t.Parallel()
	id := uuid.MustParse(someHold)
	total, reserved := 5, 2
	for want, message := range map[string]any{
		`{"productId":"` + someHold + `","warehouseId":"` + someHold + `","totalQuantity":5,` +
			`"reservedQuantity":2,"availableStock":3,"asOf":7}`: Stock{
			ProductID: id, WarehouseID: id, TotalQuantity: &total, ReservedQuantity: &reserved,
			AvailableStock: 3, AsOf: 7,
		},
		`{"productId":"` + someHold + `","warehouseId":"` + someHold + `","totalQuantity":null,` +
			`"reservedQuantity":null,"availableStock":3,"orMore":true,"asOf":7}`: Stock{
			ProductID: id, WarehouseID: id, AvailableStock: 3, OrMore: true, AsOf: 7,
		},
		`{"reservationId":"` + someHold + `","version":2,"asOf":7}`: Hold{
			ReservationID: id, Version: 2, AsOf: 7,
		},
	} {
		got, err := json.Marshal(message)
		if err != nil || string(got) != want {
			t.Errorf("the message is %s, %v, want %s", got, err, want)
		}
	}
	if OfHold(id) != "/holds/"+someHold {
		t.Errorf("the channel of the hold is %s", OfHold(id))
	}
}
