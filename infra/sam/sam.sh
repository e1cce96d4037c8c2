#!/usr/bin/env bash
# Runs the functions of the synthesized template in containers, with AWS's own SAM.
# The container engine is Docker, or the one at DOCKER_HOST.
#   sam.sh api [OPTION...]             serve the API on http://localhost:3001; options go to SAM
#   sam.sh sweep [EVENT] [OPTION...]   invoke the sweeper; EVENT defaults to infra/sam/minute.json
#   sam.sh synth                       only synthesize the template, as api and sweep do first
#   sam.sh lint                        run sam validate --lint on the existing template
#   sam.sh tool                        only install the pinned SAM
# The database is that of DATABASE_URL. Without it, it is the embedded one of `make run`, which is
# started if it isn't running.
# Variables: OUT, the folder of the synthesized assembly (build/sam/cdk.out); SYNTH=no, to use the
# assembly that is there; PORT (3001).
set -euo pipefail
cd "$(dirname "$0")/../.."
version=1.164.0
dir=$PWD/build/sam
out=${OUT:-build/sam/cdk.out}
if [[ $out != /* ]]; then out=$PWD/$out; fi
sam=$dir/venv/bin/sam
# SAM keeps its files in the checkout instead of the home directory, and sends no telemetry.
export __SAM_CLI_APP_DIR=$dir/home SAM_CLI_TELEMETRY=0
# SAM wants a region. The functions call no AWS service, so any region will do, without an account.
export AWS_DEFAULT_REGION=${AWS_DEFAULT_REGION:-us-east-1}

tool() {
  mkdir -p "$__SAM_CLI_APP_DIR"
  if [ -x "$sam" ] && "$sam" --version 2>/dev/null | grep -q "version $version\$"; then return; fi
  if ! command -v python3 >/dev/null; then
    echo "SAM needs python3 with its venv module: install Python 3.10 or later." >&2
    exit 1
  fi
  echo "Installing SAM $version into build/sam/venv." >&2
  rm -rf "$dir/venv"
  python3 -m venv "$dir/venv"
  "$dir/venv/bin/pip" install --quiet --disable-pip-version-check "aws-sam-cli==$version"
}

# Synthesizes the template for this machine's architecture: another one would need an emulator.
synth() {
  case $(uname -m) in
    x86_64 | amd64) arch=x86_64 ;;
    aarch64 | arm64) arch=arm64 ;;
    *) echo "Lambda doesn't support the architecture $(uname -m)." >&2; exit 1 ;;
  esac
  # With an external database a function needs nothing but DATABASE_URL. It never reads the secret.
  make --no-print-directory synth \
    ARGS="-c db=external -c databaseUrlSecret=unread -c arch=$arch --quiet --output $out" >&2
}

find_template() {
  template=$(find "$out" -maxdepth 1 -name '*.template.json')
  if [ ! -f "$template" ]; then
    echo "$out must have exactly one template: run infra/sam/sam.sh synth." >&2
    exit 1
  fi
}

# Starts the bridge. It runs until this process ends, which by then is SAM.
open_bridge() {
  go build -o build/bin/bridge ./infra/sam/bridge
  environment=$dir/environment.$$.json # the bridge removes it when it ends
  exec 3< <(exec build/bin/bridge -template "$template" -env-file "$environment" \
    ${DOCKER_HOST:+-engine "$DOCKER_HOST"})
  read -r _ <&3 || exit 1
}

# Removes two warnings: that a resource other than a function has no function id, and that there
# is no AWS login.
without_noise() {
  grep --line-buffered -v -e '^Cannot detect function id' -e '^No current session found' >&2
}

run_sam() {
  local command=$1
  shift
  exec "$sam" local "$command" "$@" --template "$template" --env-vars "$environment" \
    --layer-cache-basedir "$dir/layers" 2> >(without_noise)
}

prepare() {
  tool
  if [ "${SYNTH:-yes}" != no ]; then synth; fi
  find_template
  open_bridge
}

verb=${1:-}
shift || true
case $verb in
  api)
    prepare
    # Like Lambda, reuse a function's container for its next request.
    run_sam start-api --port "${PORT:-3001}" --warm-containers LAZY "$@"
    ;;
  sweep)
    event=infra/sam/minute.json
    if [[ ${1:-} == *.json ]]; then event=$1; shift; fi
    prepare
    sweeper=$(grep -o '"[^"]*-sweep"' "$template" | head -1 | tr -d '"')
    run_sam invoke "$sweeper" --event "$event" "$@"
    ;;
  synth) synth ;;
  lint)
    tool
    find_template
    # cfn-lint reads .cfnlintrc, which waives one rule, from the current directory.
    cd infra/sam
    exec "$sam" validate --lint --template "$template"
    ;;
  tool) tool ;;
  *) sed -n '2,12s/^# //p' "$0" >&2; exit 2 ;;
esac
