package migrations

// VersionTable is where goose records the applied files.
const VersionTable = "goose_versions"

// Right is a privilege on a table or a sequence.
type Right struct {
	Table, Privilege string
	// Columns are the columns of an UPDATE, separated by ", ". Empty means the whole table.
	Columns string
}

// ServiceRights are the privileges of the service's role. It may delete old idempotency keys, old
// counts of minutes, parked events and the parties of holds, and nothing else. It can't change the
// product, the warehouse or the quantity of a hold, the SKU of a product, the code of a warehouse,
// a movement, or a return. Most routines run with their caller's rights, so they add nothing.
// archive_holds and archive_movements may delete what they have copied to the archive.
//
// A release that needs another right adds it here. A right that a release no longer needs goes one
// release later, because both releases run while a deploy moves the traffic.
func ServiceRights() []Right {
	return []Right{
		{Table: "products", Privilege: "SELECT"},
		{Table: "products", Privilege: "INSERT"},
		{"products", "UPDATE", "name, status, max_per_hold, max_per_owner, changed_at"},
		{Table: "warehouses", Privilege: "SELECT"},
		{Table: "warehouses", Privilege: "INSERT"},
		{"warehouses", "UPDATE", "name, status, changed_at"},
		{Table: "inventory", Privilege: "SELECT"},
		{Table: "inventory", Privilege: "INSERT"},
		{"inventory", "UPDATE", "total, seq, reserved, first_end, epoch"},
		{"inventory", "UPDATE", "open, max_per_hold, max_per_owner"},
		{Table: "stock_movements", Privilege: "SELECT"},
		{Table: "stock_movements", Privilege: "INSERT"},
		{Table: "stock_adjustments", Privilege: "SELECT"}, // a view, for the audit
		{Table: "reservations", Privilege: "SELECT"},
		{Table: "reservations", Privilege: "INSERT"},
		{"reservations", "UPDATE", "status, created_at, updated_at, expires_at, version, paying"},
		{Table: "reservation_items", Privilege: "SELECT"},
		{Table: "reservation_items", Privilege: "INSERT"},
		{"reservation_items", "UPDATE", "counted, expires_at"},
		{Table: "ledger", Privilege: "SELECT"},
		{Table: "ledger", Privilege: "INSERT"},
		{"ledger", "UPDATE", "at, expires_at"},
		{Table: "hold_payments", Privilege: "SELECT"},
		{Table: "hold_payments", Privilege: "INSERT"},
		{"hold_payments", "UPDATE", "outcome, at, successor, short"},
		{Table: "replacements", Privilege: "SELECT"},
		{Table: "replacements", Privilege: "INSERT"},
		{Table: "hold_parties", Privilege: "SELECT"},
		{Table: "hold_parties", Privilege: "INSERT"},
		{Table: "hold_parties", Privilege: "DELETE"}, // erases an owner
		{Table: "returns", Privilege: "SELECT"},
		{Table: "returns", Privilege: "INSERT"},
		{Table: "idempotency_keys", Privilege: "SELECT"},
		{Table: "idempotency_keys", Privilege: "INSERT"},
		{Table: "idempotency_keys", Privilege: "UPDATE"},
		{Table: "idempotency_keys", Privilege: "DELETE"},
		{Table: "archived_reservations", Privilege: "SELECT"},
		{Table: "archived_items", Privilege: "SELECT"},
		{Table: "archived_movements", Privilege: "SELECT"},
		{Table: "archived_ledger", Privilege: "SELECT"},
		{Table: "archived_months", Privilege: "SELECT"}, // for the audit, as the next one
		{Table: "archived_stock", Privilege: "SELECT"},
		{Table: "last_audit", Privilege: "SELECT"},
		{Table: "last_audit", Privilege: "INSERT"}, // by the sweeper, as all that follow but one
		{Table: "last_audit", Privilege: "UPDATE"},
		{Table: "audit_state", Privilege: "SELECT"},
		{Table: "audit_state", Privilege: "UPDATE"},
		{Table: "stock_closings", Privilege: "SELECT"},
		{Table: "stock_closings", Privilege: "INSERT"},
		{Table: "stock_closings", Privilege: "UPDATE"},
		{Table: "ticks", Privilege: "SELECT"}, // by the outbox, as those that follow but the last
		{Table: "ticks", Privilege: "INSERT"},
		{Table: "minute_counts", Privilege: "SELECT"},
		{Table: "minute_counts", Privilege: "INSERT"},
		{Table: "minute_counts", Privilege: "UPDATE"},
		{Table: "minute_counts", Privilege: "DELETE"}, // by the sweeper
		{Table: "sinks", Privilege: "SELECT"},
		{Table: "sinks", Privilege: "INSERT"},
		{Table: "sinks", Privilege: "UPDATE"},
		{Table: "parked", Privilege: "SELECT"},
		{Table: "parked", Privilege: "INSERT"},
		{Table: "parked", Privilege: "DELETE"},
		{Table: "stream", Privilege: "SELECT"},
		{Table: "live", Privilege: "SELECT"},
		{Table: "live", Privilege: "UPDATE"},
		{Table: "flush_mark", Privilege: "INSERT"},
		{Table: "flush_mark", Privilege: "UPDATE"},
		{Table: "flush_mark", Privilege: "SELECT"},
		{Table: "log_records", Privilege: "UPDATE"}, // a sequence
		{Table: VersionTable, Privilege: "SELECT"},  // for the health check
	}
}
