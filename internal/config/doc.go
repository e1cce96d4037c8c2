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
//	DATABASE_READER                   -                 host:port of a server that follows the database. The catalog, the
//	                                                    operator's reads and the audit go there, with the user of the
//	                                                    database's URL. Unset, they go where the other calls do.
//	READER_LAG                        1s                how far that server may be behind, 1s to 10s. When it is further
//	                                                    behind, the catalog and the operator's reads go where the other
//	                                                    calls do. 1s is what caches may keep a page of the catalog for.
//	APP_ROLE                          -                 role to which the migrate function grants the service's rights.
//	MIGRATE                           deploy            deploy or manual: whether a deploy's run of the migrate function
//	                                                    applies the versioned files, or only checks that they are applied.
//	METRIC_NAMESPACE                  AlloReservations  CloudWatch namespace of the functions' metrics.
//	AWS_REGION                        -                 set by Lambda. The IAM URL and the secret need it.
//	AWS_ACCESS_KEY_ID                 -                 as AWS_REGION.
//	AWS_SECRET_ACCESS_KEY             -                 as AWS_REGION.
//	AWS_SESSION_TOKEN                 -                 as AWS_REGION, with temporary credentials only.
//	AWS_LAMBDA_INITIALIZATION_TYPE    -                 set by Lambda. With provisioned-concurrency, a function connects
//	                                                    before it asks for its first call.
//	AWS_ENDPOINT_URL_SECRETS_MANAGER  -                 URL of Secrets Manager, instead of the region's own.
//	AWS_ENDPOINT_URL                  -                 the same, unless the one above is set, and of the services that
//	                                                    relay, deliver and smoke call.
//	HOST                              127.0.0.1         address on which `make run` listens.
//	PORT                              3000              port on which `make run` listens, 1 to 65535.
//	HOLD_TTL                          10m               how long a hold lasts when the request doesn't say, 1s to 24h.
//	MAX_HOLD                          60m               the longest that a hold may last, extensions included, 1s to 24h.
//	MAX_PAYMENT_HOLD                  24h               the longest that a hold may last while it is being paid, 1s to 168h.
//	MAX_UNITS                         1000              the most units of a hold, 1 to 100000000.
//	MAX_LINES                         100               the most lines of a hold, 1 to 100.
//	STOCK_SHOWN                       exact             the most units that the open catalog shows of a stock row, 1 to
//	                                                    1000000. Totals are then null. exact shows all figures.
//	RETENTION_DAYS                    0                 after how many days a resolved hold, and a movement that an audit
//	                                                    has verified, moves to the archive, 30 to 36500. 0 is never.
//	SWEEP_INTERVAL                    1m                how often `make run` sweeps, 1s to 1h. On AWS the rule decides.
//	AUTH                              none              who may call the routes with a scope under `make run`: none is
//	                                                    everybody, jwt needs a token, iam a signature. internal/local
//	                                                    says how to run it. On AWS the stack's setting decides.
//	JWT_ISSUER                        -                 URL of the tokens' issuer, as in their iss, with AUTH=jwt.
//	JWT_AUDIENCE                      -                 the tokens' aud or client_id, with AUTH=jwt.
//	IAM_ACCESS_KEY_ID                 -                 the test credential's id, letters and digits, with AUTH=iam.
//	IAM_SECRET_ACCESS_KEY             -                 its secret: any text.
//	RESERVE_AUTH                      off               on guards POST /api/reservations too, with AUTH=jwt or iam.
//	DEMO                              off               on shows demo prices, demo payments and the flash sale. make run
//	                                                    turns it on.
//	GUARDED                           off               on tells the pages that callers need permission. make run sets it
//	                                                    with AUTH.
//	OIDC_ISSUER                       -                 URL of the OpenID Connect issuer of the console's accounts.
//	OIDC_CLIENT_ID                    -                 the console's public client there.
//	OIDC_TOKEN_ORIGIN                 -                 origin of the issuer's token endpoint, where it is another one, as
//	                                                    with Cognito's domain.
//	OIDC_AUDIENCE                     -                 API that the console names to the issuer, which Auth0 needs: the
//	                                                    audience of the tokens. Unset, the console names none.
//	OIDC_SCOPES                       -                 scopes that the console asks for, separated by commas, with openid
//	                                                    among them. Unset, it asks for openid alone, and the issuer adds
//	                                                    the account's scopes.
//	EVENT_SOURCE                      allo-local        name of the deployment in the source of its events.
//	TOPIC_ARN                         -                 SNS FIFO topic to which the relay publishes.
//	BUS_NAME                          -                 EventBridge bus to which the relay publishes.
//	LIVE_URL                          -                 WebSocket of the live channel, wss://host/event/realtime. Without
//	                                                    it the pages poll.
//	LIVE_HTTP                         -                 https://host of the same channel, to which the relay publishes.
//	OUTBOX_FUNCTION                   -                 function that the relay asks for events.
//	RELAY_SECONDS                     59                how long a run of the relay goes on, 0 to 800. With 0 it ends as
//	                                                    soon as nothing is left.
//	WEBHOOKS                          -                 the endpoints of the deliver function: a JSON list of {name,
//	                                                    url, types, secret}, at most 10. secret names a secret of
//	                                                    Secrets Manager with whsec_..., or with two of them.
//	WEBHOOK_QUEUES                    -                 the webhooks that an operator sees: a JSON list of {name, url,
//	                                                    types, queue}, at most 10. url is the endpoint's scheme and
//	                                                    host alone, and queue is the ARN of the webhook's queue.
//	DELIVER_LOG_GROUP                 -                 log group of the deliver function, which tells the last
//	                                                    deliveries.
//	SMOKE_FUNCTIONS                   -                 versions that the smoke function calls in a deploy: pairs such
//	                                                    as reserve=ARN, separated by commas, at most 50.
//	SMOKE_AUTH                        none              how the gateway authorizes callers: none, jwt or iam. The smoke
//	                                                    function's own calls name a caller accordingly.
//	SMOKE_RESERVE_AUTH                off               on says that reserving needs authorization too.
//	STACK_ID                          -                 id of the stack that is deployed. The smoke function asks
//	                                                    CloudFormation whether it is being rolled back.
//	PUBLIC_URL                        -                 address that the smoke function calls each five minutes.
//	SYNTHETIC_SKU                     -                 SKU of which it then holds a unit for a moment. Without one it
//	                                                    holds nothing.
//	ORIGIN_SECRETS                    -                 the secrets that the CDN may show, at most two, separated by a
//	                                                    comma, each 32 to 128 letters and digits. Set, a caller who
//	                                                    went around the CDN gets 403, unless the gateway authorized
//	                                                    the call.
//	LOG_LEVEL                         info              debug, info, warn or error.
package config
