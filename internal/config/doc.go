// Package config reads every environment variable of the service, with its default and its check.
// Nothing else reads the environment. An invalid value stops the start, with a line that names the
// variable.
//
//	variable                          default           meaning
//	DATABASE_URL                      -                 postgres:// URL of the database. Unset, `make run` starts an
//	                                                    embedded Postgres. In a Lambda it wins over the next two.
//	DATABASE_IAM_URL                  -                 postgres://user@host:5432/db of RDS, without a password. Each
//	                                                    connection gets an IAM token. TLS is verified in full.
//	DATABASE_SECRET                   -                 name or ARN of a secret of Secrets Manager with the URL, as text
//	                                                    or {"url": ..., "ca": ...}. Read when connecting, kept for 5
//	                                                    minutes. TLS is verified in full.
//	DATABASE_READER                   -                 host:port of a server that follows the database. The audit and
//	                                                    the operator's reads go there, with the user of the database's
//	                                                    URL. Unset, they go where the other calls do.
//	APP_ROLE                          -                 role to which the migrate function grants the service's rights.
//	METRIC_NAMESPACE                  AlloReservations  CloudWatch namespace of the functions' metrics.
//	AWS_REGION                        -                 set by Lambda. The IAM URL and the secret need it.
//	AWS_ACCESS_KEY_ID                 -                 as AWS_REGION.
//	AWS_SECRET_ACCESS_KEY             -                 as AWS_REGION.
//	AWS_SESSION_TOKEN                 -                 as AWS_REGION, with temporary credentials only.
//	AWS_ENDPOINT_URL_SECRETS_MANAGER  -                 URL of Secrets Manager, instead of the region's own.
//	AWS_ENDPOINT_URL                  -                 the same, unless the one above is set, and of the services that
//	                                                    relay and deliver call.
//	HOST                              127.0.0.1         address on which `make run` listens.
//	PORT                              3000              port on which `make run` listens, 1 to 65535.
//	HOLD_TTL                          10m               how long a hold lasts when the request doesn't say, 1s to 24h.
//	MAX_HOLD                          60m               the longest that a hold may last, extensions included, 1s to 24h.
//	STOCK_SHOWN                       exact             the most units that the open catalog shows of a stock row, 1 to
//	                                                    1000000. Totals are then null. exact shows all figures.
//	RETENTION_DAYS                    0                 after how many days a resolved hold, and a movement that an audit
//	                                                    has verified, moves to the archive, 30 to 36500. 0 is never.
//	SWEEP_INTERVAL                    1m                how often `make run` sweeps, 1s to 1h. On AWS the rule decides.
//	EVENT_SOURCE                      allo-local        name of the deployment in the source of its events.
//	TOPIC_ARN                         -                 SNS FIFO topic to which the relay publishes.
//	BUS_NAME                          -                 EventBridge bus to which the relay publishes.
//	OUTBOX_FUNCTION                   -                 function that the relay asks for events.
//	RELAY_SECONDS                     55                how long a run of the relay goes on, 0 to 800. With 0 it ends as
//	                                                    soon as nothing is left.
//	WEBHOOKS                          -                 the endpoints of the deliver function: a JSON list of {name,
//	                                                    url, types, secret}, at most 10. secret names a secret of
//	                                                    Secrets Manager with whsec_..., or with two of them.
//	LOG_LEVEL                         info              debug, info, warn or error.
package config
