package migrate_test

// catalogCalls are the calls that change the catalog.
var catalogCalls = []recordedCall{
	{
		"SELECT outcome, answer FROM put_products($1, $2, $3, $4, $5, $6, $7, $8)",
		[]string{
			"{" + newOne + "," + lease + "}", "{N,M}", "{new,cup}", "{ACTIVE,NULL}", "{7,NULL}",
			"{NULL,5}", "products", keyHash,
		},
		[]string{"PUT", "CREATED"},
	},
	{
		"SELECT outcome, answer FROM put_warehouses($1, $2, $3, $4, $5, $6)",
		[]string{"{" + newOne + "}", "{W}", "{there}", "{OPEN}", "", ""},
		[]string{"PUT", "CREATED"},
	},
	{
		`
SELECT last_product, last_warehouse, busy_products, busy_warehouses
FROM follow_catalog($1, $2, $3, $4)`,
		[]string{"{" + product + "}", "", lowest, lowest},
		[]string{"", "", "", ""},
	},
	{"CALL follow_busy_row($1, $2)", []string{product, warehouse}, nil},
	{"SELECT write_log_record()", nil, []string{""}},
}

// readCalls are those of the storefront and of the back office that read.
var readCalls = []recordedCall{
	{"SELECT 1", nil, []string{"1"}},
	{"SELECT outcome, answer FROM read_hold($1)", []string{cart}, []string{"RELEASED", `"hold": {`}},
	{
		`
SELECT product_id, product_name, sku, max_per_hold, max_per_owner,
       warehouse_id, warehouse_code, warehouse_name, total, reserved, (SELECT last_tick())
FROM list_catalog($1, $2, $3, $4, $5, $6)`,
		[]string{empty, lowest, "", "51", "5001", "1000000"},
		[]string{product, "cup", "M", "", "5", warehouse, "here", "here", "8", "0", ""},
	},
	{
		`
SELECT product_id, product_name, sku, max_per_hold, max_per_owner,
       warehouse_id, warehouse_code, warehouse_name, total, reserved, (SELECT last_tick()), place
FROM search_catalog($1, $2, $3, $4, $5, $6, $7)`,
		[]string{"{lamp}", "", "", "51", "1000", "5001", "1000000"},
		[]string{other, "lamp", "L", "", "", warehouse, "here", "here", "7", "1", "", ""},
	},
	{
		`
SELECT product_id, product_name, sku, max_per_hold, max_per_owner,
       warehouse_id, warehouse_code, warehouse_name, total, reserved, (SELECT last_tick())
FROM read_products($1, $2, $3, $4, $5, $6)`,
		[]string{"", "{L}", "", "", "5001", "1000000"},
		[]string{other, "lamp", "L", "", "", warehouse, "here", "here", "7", "1", ""},
	},
	{
		`
WITH page AS MATERIALIZED (
    SELECT w.id, w.code, w.name,
           sum(octet_length(w.code) + octet_length(w.name)) OVER (ORDER BY w.name, w.id) AS bytes
    FROM (SELECT id, code, name FROM warehouses
          WHERE (name, id) > (coalesce($1, (SELECT name FROM warehouses WHERE id = $2)), $2)
            AND status = 'OPEN'
          ORDER BY name, id LIMIT $3 + 1) w
)
SELECT id, code, name, (SELECT count(*) FROM page)
FROM page WHERE bytes <= $4 OR bytes = octet_length(code) + octet_length(name)
ORDER BY name, id LIMIT $3`,
		[]string{empty, lowest, "50", "1000000"},
		[]string{warehouse, "here", "here", "2"},
	},
	{
		`
SELECT (hold ->> 'id')::uuid, hold, matches, walked, seen_at, (hold ->> 'expires_at')::timestamptz,
       0, 0, 0, 0
FROM list_live_holds($1, $2, $3, $4, $5, $6)`,
		[]string{"", "", "-infinity", lowest, "51", "10000"},
		[]string{living, "PENDING", "t", "1", "20", "20", "0", "0", "0", "0"},
	},
	{
		`
SELECT (hold ->> 'id')::uuid, hold, matches, walked, seen_at, (hold ->> 'created_at')::timestamptz,
       0, 0, 0, 0
FROM list_holds($1, $2, $3, $4, $5, $6, $7, $8)`,
		[]string{"CONFIRMED", product, warehouse, "-infinity", "infinity", highest, "51", "51"},
		[]string{successor, "CONFIRMED", "t", "1", "20", "20", "0", "0", "0", "0"},
	},
	{
		`
SELECT id, hold, matches, walked, seen_at, seen_at, 0, 0, 0, 0
FROM list_holds_of($1, $2, $3, $4, $5, $6, $7, $8, $9)`,
		[]string{"ann", "", "", "", "", "", highest, "51", "51"},
		[]string{replacing, "RELEASED", "t", "1", "20", "20", "0", "0", "0", "0"},
	},
	{
		`
SELECT id, hold, matches, walked, seen_at, seen_at, 0, 0, 0, 0
FROM list_holds_of_code($1, $2, $3, $4)`,
		[]string{"{" + lowest + "}", "{" + highest + "}", "17", "51"},
		[]string{single, "CONFIRMED", "t", "", "20", "20", "0", "0", "0", "0"},
	},
	{
		`
SELECT id, hold, matches, walked, seen_at, at, tick, xid, begun, bound
FROM list_updated_holds($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)`,
		[]string{"", "", "", "2026-01-01", "-infinity", lowest, "0", "0", "0", "0", "51", "1000"},
		[]string{"0192d000", "{", "t", "1", "20", "20", "0", "0", "0", "0"},
	},
	{
		"SELECT n, whole FROM count_holds($1, $2, $3, $4, $5, $6, $7)",
		[]string{"RELEASED", "", "", "", "", "1000", "1000"},
		[]string{"3", "t"},
	},
	{
		"SELECT n, whole FROM count_products($1, $2)", []string{"{lamp}", "1000"}, []string{"1", "t"},
	},
	{
		"SELECT list_payments($1, $2)", []string{replacing, "100"}, []string{"pay 1"},
	},
	{"SELECT list_returns($1, $2)", []string{single, "100"}, []string{"parcel"}},
	{"SELECT hold_history($1, $2)", []string{single, "100"}, []string{`"version": 3`}},
	{
		`
SELECT product_id, warehouse_id, seq, at, kind::text, delta, total_after, source, reference, line,
       note, actor, reservation_id
FROM list_movements($1, $2, $3, $4)`,
		[]string{product, warehouse, "9223372036854775807", "51"},
		[]string{
			product, warehouse, "7", "20", "ADJUSTMENT", "5", "8", "", "", "", "delivery", "", "",
		},
	},
	{
		`
SELECT product_id, warehouse_id, seq, at, kind::text, delta, total_after, source, reference, line,
       note, actor, reservation_id
FROM list_document($1, $2, $3, $4, $5)`,
		[]string{"erp", "delivery", "infinity", "0", "51"},
		[]string{
			product, warehouse, "", "20", "ADJUSTMENT", "5", "", "erp", "delivery", "1", "", "erp", "",
		},
	},
	{
		`
SELECT product_id, sku, name, status, warehouse_id, warehouse_code, warehouse_status, total,
       reserved, seq
FROM list_stock($1, $2, $3, $4, $5, $6, $7, $8)`,
		[]string{"", "", "", "", "", "51", "1000", "1000000"},
		[]string{other, "L", "lamp", "ACTIVE", warehouse, "here", "OPEN", "7", "1", ""},
	},
	{
		`
SELECT product_id, sku, name, status, warehouse_id, warehouse_code, warehouse_status, total,
       reserved, seq
FROM find_stock($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)`,
		[]string{"{cup}", "", "", "", "", "", "", "", "51", "1000", "1000", "1000000"},
		[]string{product, "M", "cup", "ACTIVE", warehouse, "here", "OPEN", "8", "0", ""},
	},
	{
		"SELECT n, whole FROM count_stock($1, $2, $3, $4, $5, $6, $7, $8)",
		[]string{"{cup}", "", "", "", "", "", "1000", "1000"},
		[]string{"1", "t"},
	},
	{"SELECT operator_stats()", nil, []string{`"confirmed": `}},
	{
		"SELECT outcome, answer FROM erase_owner($1, $2, $3, $4, $5, $6)",
		[]string{"ann", "1000", "", "true", "", ""},
		[]string{"ERASED", ""},
	},
}

// feedCalls are those of the outbox.
var feedCalls = []recordedCall{
	{"SELECT take_tick()", nil, []string{"1"}},
	{
		`
SELECT leased, coalesce(done, 0), coalesce(batch, 0), coalesce(after, ''), last, epoch,
       (SELECT count(*) FROM parked p WHERE p.sink = sink_of($1))
FROM claim_sink($1, $2, $3, $4, $5, $6, $7, $8)`,
		[]string{"topic/holds", lease, "", "", "", "[]", "", "false"},
		[]string{"t", "", "", "", "", "-", "0"},
	},
	{
		`
SELECT e.place, e.age, e.event,
       EXISTS (SELECT FROM parked p
               WHERE p.sink = sink_of($1) AND p.subject = e.subject
                 AND substring(p.id FROM '[0-9]+$')::bigint
                     <= coalesce(e.event ->> 'version', e.event ->> 'seq')::bigint)
FROM read_events($2, $3, $4, $5, $6) e`,
		[]string{"topic/holds", "0", "1", "", "", "101"},
		[]string{"", "", "{", "f"},
	},
	{
		"SELECT park_followers($1, $2, $3)::text",
		[]string{"topic", lease, "[]"},
		[]string{""},
	},
	{
		`
SELECT outcome, epoch, coalesce(done, 0), coalesce(batch, 0), coalesce(after, ''), event
FROM follow_events($1, $2, $3, $4, $5, $6)`,
		[]string{"", "", "", "", "", "101"},
		[]string{"OK", "-", "0", "1", "h ", "{"},
	},
	{
		`
SELECT outcome, epoch, coalesce(done, 0), coalesce(batch, 0), coalesce(after, ''), event
FROM follow_events_since($1, $2, $3)`,
		[]string{"2026-01-01", "", "101"},
		[]string{"OK", "-", "0", "1", "h ", "{"},
	},
	{
		"SELECT leased, coalesce(batch, 0) FROM claim_live($1, $2, $3)",
		[]string{lease, "", "false"},
		[]string{"t", "0"},
	},
	{
		`
SELECT class, product_id, warehouse_id, total, reserved, age, hold_id, version
FROM live_page($1, $2, $3, $4, $5, $6, $7, $8)`,
		[]string{lease, "1", "-1", lowest, lowest, lowest, "1001", "501"},
		nil,
	},
}

// sweepCalls are those of the sweeper.
var sweepCalls = []recordedCall{
	{"SELECT next_flush_mark()::text", nil, []string{""}},
	{"SELECT keep_flush_mark($1::text::xid8)", []string{"3"}, []string{""}},
	{
		`
SELECT expired, units, coalesce(extract(epoch FROM oldest), 0)::float8, more
FROM sweep_holds($1)`,
		[]string{"1000"},
		[]string{"0", "0", "0", "f"},
	},
	{"SELECT removed FROM sweep_keys($1)", []string{"1000"}, []string{"0"}},
	{"SELECT oldest_seconds, transactions, complete FROM read_horizon()", nil, []string{"", "", "t"}},
	{
		"SELECT run, part, after, since, seen, next_seen FROM begin_audit($1)",
		[]string{"NEW"},
		[]string{"1", "", "", "", "1:1:", ":"},
	},
	{"SELECT run FROM audit_state WHERE kind = $1", []string{"NEW"}, []string{"1"}},
	{
		"SELECT pass_slice($1, $2, $3, $4, $5, $6, $7, $8::text::jsonb)",
		[]string{"NEW", "1", empty, empty, "keys", "-infinity", "0", "[]"},
		[]string{"t"},
	},
	{
		"SELECT close_stock($1::text[]::uuid[], $2::text[]::uuid[], $3, $4, $5)",
		[]string{"{" + product + "}", "{" + warehouse + "}", "{0}", "{1}", "{9}"},
		[]string{""},
	},
	{
		"SELECT violations, found::text FROM end_audit($1, $2, $3, $4, $5)",
		[]string{"NEW", "1", "true", "0", ""},
		[]string{"0", "[]"},
	},
	{"SELECT began IS NOT NULL FROM audit_state WHERE kind = 'FULL'", nil, []string{"f"}},
	{"SELECT keep_audit($1, $2)", []string{"0", "false"}, []string{""}},
	{
		"SELECT archived, reached, more FROM archive_holds($1, $2, $3)",
		[]string{"40 days", "0001-01-01", "1000"},
		[]string{"0", "", "f"},
	},
	{
		"SELECT archived, more FROM archive_movements($1, $2, $3)",
		[]string{"40 days", "1000", "1000"},
		[]string{"0", "f"},
	},
}
