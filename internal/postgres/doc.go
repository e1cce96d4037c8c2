// Package postgres connects the service to its database: where the database is, a pool that
// survives a Lambda's freezes and a pooler in transaction mode, a reader whose answers are no older
// than a bound, the meaning of errors, and a check that the server keeps the commits that it
// acknowledges.
//
// # The parameters of a URL
//
// The URL says where the database is and how to reach it. The service, the migration, the seed and
// psql read its parameters by one rule ([Target.Config]), which refuses every other parameter by
// name:
//
//	parameter                                what happens
//	host, port, user, password, dbname       honoured, like the URL's own parts; a list of hosts is
//	                                         tried in order
//	passfile                                 honoured, when the URL has no password
//	sslmode, sslrootcert, sslcert,           honoured; with an IAM token or a secret, package awsdb
//	sslcertmode, sslkey,                     makes sslmode verify-full
//	sslsni, sslnegotiation
//	channel_binding, require_auth,           honoured
//	min_protocol_version,
//	max_protocol_version
//	target_session_attrs                     any, read-write and primary are honoured; the others are
//	                                         refused, because the service writes
//	connect_timeout                          honoured, if it is shorter than the program's own: 5 s
//	                                         for the service, 15 s for the migration; 0 means none
//	application_name                         honoured; allo-reservations without it
//	default_query_exec_mode                  cache_statement keeps statements prepared, even through
//	                                         a pooler; exec prepares none; the others are refused
//	options, search_path, timezone,          refused, as is every other setting of the server: the
//	synchronous_commit, fsync,               migration sets the settings on which the promises depend
//	statement_timeout, lock_timeout,         on the role, where poolers leave them alone
//	default_transaction_isolation, ...
//	service, servicefile                     refused: a file would decide where the database is
//	pool_max_conns, ..., and                 refused: the service decides about its pool and its
//	statement_cache_capacity,                statements
//	description_cache_capacity
//	hostaddr, keepalives, gssencmode, ...    refused: the driver doesn't have them
//	pgbouncer, schema, ...                   refused: other libraries' parameters
//
// A parameter that is given twice is refused too. Of the environment, the driver reads libpq's PG
// variables for the parts that the URL lacks. PGOPTIONS and PGTZ are refused, like the parameters
// that they stand for.
package postgres
