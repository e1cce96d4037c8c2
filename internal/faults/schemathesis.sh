#!/usr/bin/env bash
# Feeds the served OpenAPI document to schemathesis, with all checks but one (see
# schemathesis.toml), against the local program on a database of its own.
#   schemathesis.sh PROGRAM EXAMPLES
# SEED is the seed of the examples. Without it the seed is always the same, so that two runs of one
# commit ask the same.
set -euo pipefail
program=$1 examples=$2
version=4.32.5
port=3557
dir=build/schemathesis

installed() { "$dir/bin/schemathesis" --version 2>/dev/null | grep -o '[0-9.]*$'; }
if [ "$(installed || true)" != "$version" ]; then
  rm -rf "$dir"
  python3 -m venv "$dir"
  "$dir/bin/pip" install --quiet --disable-pip-version-check "schemathesis==$version"
fi

PORT=$port MAX_HOLD=24h LOG_LEVEL=warn "$program" run -with-parent -still \
  -data build/schemathesis-data >build/schemathesis.log 2>&1 &
server=$!
trap 'kill $server 2>/dev/null; wait $server 2>/dev/null || true' EXIT
for _ in $(seq 600); do
  if curl -fs "http://localhost:$port/api/health" >/dev/null; then break; fi
  kill -0 $server || { cat build/schemathesis.log; exit 1; }
  sleep 0.1
done

seed=${SEED:-1}
echo "schemathesis $version, seed $seed"
# One worker: with two, Python 3.11 may end with "AST constructor recursion depth mismatch", because
# it counts the depth for all threads together.
"$dir/bin/schemathesis" --config-file internal/faults/schemathesis.toml \
  run "http://localhost:$port/api/openapi.json" \
  --checks all --exclude-checks unsupported_method --max-examples "$examples" \
  --workers 1 --seed "$seed" --no-color
