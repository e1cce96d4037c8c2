#!/usr/bin/env bash
# Fetches what the pages use of other people's: Preact, htm and Pico CSS, which are served, and axe-core, which only the browser's tests use.
# Versions are pinned, with the integrity that the npm registry states for their archives; an archive that differs ends this with an error,
# and nothing is replaced. To raise a version take the new one's from `npm view <package> version dist.integrity`.
set -euo pipefail
cd "$(dirname "$0")"
served=static/vendor
tested=../e2e/browser/testdata
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# fetch package version integrity: unpacks the archive to $work/<package>/.
fetch() {
  local archive got
  archive=$work/$(npm pack "$1@$2" --silent --pack-destination "$work")
  got=sha512-$(openssl dgst -sha512 -binary "$archive" | openssl base64 -A)
  if [ "$got" != "$3" ]; then
    echo "$1@$2 has the integrity $got, not $3: look at what changed before you trust it." >&2
    exit 1
  fi
  mkdir -p "$work/$1"
  tar -xzf "$archive" -C "$work/$1" --strip-components=1
}

fetch preact 11.2.0 sha512-/HfHI/7N84e6GrWBJ3J280z3mLaRJiDcSvj/A+y/4AbLnND/1UlGHe1sR6oYuTGwId0nP7dqDU9OnLxMPZ7xBg==
fetch htm 3.1.1 sha512-983Vyg8NwUE7JkZ6NmOqpCZ+sh1bKv2iYTlUkzlWmA5JD2acKoxd4KVxbMmxX/85mtfdnDmTFoNKcg5DGAvxNQ==
fetch @picocss/pico 2.1.1 sha512-kIDugA7Ps4U+2BHxiNHmvgPIQDWPDU4IeU6TNRdvXQM1uZX+FibqDQT2xUOnnO2yq/LUHcwnGlu1hvf4KfXnMg==
fetch axe-core 4.14.1 sha512-FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ==

mkdir -p "$served"/{preact,htm,pico} "$tested/axe-core"
install -m 644 "$work/preact/dist/preact.mjs" "$work/preact/hooks/dist/hooks.mjs" "$work/preact/LICENSE" "$served/preact/"
install -m 644 "$work/htm/dist/htm.mjs" "$work/htm/LICENSE" "$served/htm/"
install -m 644 "$work/@picocss/pico/css/pico.fluid.classless.indigo.min.css" "$served/pico/pico.css"
install -m 644 "$work/@picocss/pico/LICENSE.md" "$served/pico/LICENSE"
install -m 644 "$work/axe-core/axe.min.js" "$work/axe-core/LICENSE" "$tested/axe-core/"
echo "Vendored Preact 11.2.0, htm 3.1.1 and Pico CSS 2.1.1 in internal/webui/$served, and axe-core 4.14.1 for the browser's tests."
