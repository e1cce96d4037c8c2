#!/usr/bin/env bash
# Runs the functions of the synthesized template in containers, with AWS's own SAM, on Docker or podman (DOCKER_HOST says which).
#   sam.sh api [OPTION...]             serve the API on http://localhost:3001 (sam local start-api); options go to SAM
#   sam.sh sweep [EVENT] [OPTION...]   invoke the sweeper with an EventBridge event, infra/sam/minute.json by default
#   sam.sh synth                       make the template again, which the two do as well
#   sam.sh lint                        sam validate --lint, on the template that is there
#   sam.sh tool                        put the pinned SAM there, and nothing else
# The database is that of DATABASE_URL, else the embedded one of `make run`, which is started where it isn't running.
# In the environment: OUT, where the assembly is or goes (build/sam/cdk.out); SYNTH=no takes the one that is there; PORT (3001).
set -euo pipefail
cd "$(dirname "$0")/../.."
version=1.164.0
dir=$PWD/build/sam
out=${OUT:-build/sam/cdk.out}
if [[ $out != /* ]]; then out=$PWD/$out; fi
sam=$dir/venv/bin/sam
# SAM keeps what it knows in the checkout instead of the home directory, and tells nobody about it.
export __SAM_CLI_APP_DIR=$dir/home SAM_CLI_TELEMETRY=0
# The template names no region and the functions call nothing of AWS's: any will do, and no account is needed.
export AWS_DEFAULT_REGION=${AWS_DEFAULT_REGION:-us-east-1}

tool() {
  mkdir -p "$__SAM_CLI_APP_DIR"
  if [ -x "$sam" ] && "$sam" --version 2>/dev/null | grep -q "version $version\$"; then return; fi
  command -v python3 >/dev/null || { echo "SAM needs python3 with its venv: install Python 3.10 or later." >&2; exit 1; }
  echo "Putting SAM $version into build/sam/venv." >&2
  rm -rf "$dir/venv"
  python3 -m venv "$dir/venv"
  "$dir/venv/bin/pip" install --quiet --disable-pip-version-check "aws-sam-cli==$version"
}

# The functions are built for this machine: a container of another architecture would need an emulator.
synth() {
  case $(uname -m) in
    x86_64 | amd64) arch=x86_64 ;;
    aarch64 | arm64) arch=arm64 ;;
    *) echo "Lambda knows no machine such as this $(uname -m)." >&2; exit 1 ;;
  esac
  # With an external database there is nothing of AWS's between a function and its DATABASE_URL. The secret is named and never read.
  make --no-print-directory synth ARGS="-c db=external -c databaseUrlSecret=unread -c arch=$arch --quiet --output $out" >&2
}

find_template() {
  template=$(find "$out" -maxdepth 1 -name '*.template.json')
  if [ ! -f "$template" ]; then echo "$out must hold one template: infra/sam/sam.sh synth makes it." >&2; exit 1; fi
}

# Leaves the bridge running until this process ends, which is then SAM.
open_bridge() {
  go build -o build/bin/bridge ./infra/sam/bridge
  environment=$dir/environment.$$.json # The bridge removes it in the end.
  exec 3< <(exec build/bin/bridge -template "$template" -env-file "$environment" ${DOCKER_HOST:+-engine "$DOCKER_HOST"})
  read -r _ <&3 || exit 1
}

# SAM says of every resource that isn't a function that it can't find the function's name, and that nobody has logged in to AWS.
quieter() { grep --line-buffered -v -e '^Cannot detect function id' -e '^No current session found' >&2; }

run_sam() {
  local command=$1
  shift
  exec "$sam" local "$command" "$@" --template "$template" --env-vars "$environment" --layer-cache-basedir "$dir/layers" 2> >(quieter)
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
    # A function keeps its container, as in Lambda, instead of getting one for each request.
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
    # cfn-lint reads its .cfnlintrc, with the one rule that is waived, where it runs.
    cd infra/sam
    exec "$sam" validate --lint --template "$template"
    ;;
  tool) tool ;;
  *) sed -n '2,9s/^# //p' "$0" >&2; exit 2 ;;
esac
