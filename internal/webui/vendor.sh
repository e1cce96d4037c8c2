#!/usr/bin/env bash
# Fetches the packages of others that the pages use: Preact, htm, Pico CSS, oauth4webapi, Papa Parse
# and Swagger UI, which we serve, and axe-core, which only the browser tests use. Versions are
# pinned, with the integrity that the npm registry states for each archive. An archive that differs
# ends the script with an error and replaces nothing. `npm view PACKAGE version dist.integrity`
# shows the values of a new version.
#
# Swagger UI is the viewer of /api/docs. Of redoc, RapiDoc, openapi-explorer, Scalar, Stoplight
# Elements and itself it is the only one that needs neither eval nor inline styles, which the pages'
# Content-Security-Policy forbids.
set -euo pipefail
cd "$(dirname "$0")"
served=static/vendor
tested=../e2e/browser/testdata
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# fetch PACKAGE VERSION INTEGRITY unpacks the archive to $work/PACKAGE/.
fetch() {
  local archive got
  archive=$work/$(npm pack "$1@$2" --silent --pack-destination "$work")
  got=sha512-$(openssl dgst -sha512 -binary "$archive" | openssl base64 -A)
  if [ "$got" != "$3" ]; then
    echo "$1@$2 has the integrity $got, not $3. Find out why before you trust it." >&2
    exit 1
  fi
  mkdir -p "$work/$1"
  tar -xzf "$archive" -C "$work/$1" --strip-components=1
}

# put PACKAGE FOLDER TARGET=SOURCE... installs files of a package below FOLDER.
put() {
  local package=$1 folder=$2 file
  shift 2
  mkdir -p "$folder"
  for file in "$@"; do
    install -m 644 "$work/$package/${file#*=}" "$folder/${file%%=*}"
  done
}

fetch preact 11.2.0 \
  sha512-/HfHI/7N84e6GrWBJ3J280z3mLaRJiDcSvj/A+y/4AbLnND/1UlGHe1sR6oYuTGwId0nP7dqDU9OnLxMPZ7xBg==
fetch htm 3.1.1 \
  sha512-983Vyg8NwUE7JkZ6NmOqpCZ+sh1bKv2iYTlUkzlWmA5JD2acKoxd4KVxbMmxX/85mtfdnDmTFoNKcg5DGAvxNQ==
fetch @picocss/pico 2.1.1 \
  sha512-kIDugA7Ps4U+2BHxiNHmvgPIQDWPDU4IeU6TNRdvXQM1uZX+FibqDQT2xUOnnO2yq/LUHcwnGlu1hvf4KfXnMg==
fetch papaparse 5.7.1 \
  sha512-qOR+UDWv6D3hMxnWWOk0ZpBdCkd+kw5Yh7aXOaNSQU8A+73EA2bhW7EiUix/hY0yulUi5FRvt7PpYSI2VDvY0g==
fetch oauth4webapi 3.8.8 \
  sha512-8N28E+a/oxfXWBgOMt+ZP/JUf/XR+IFbvkAEPP3gznXOMv9BpAAwiIj0TFNz3tGTPc0ZQ8zmWBNgN1nAys0gng==
fetch swagger-ui-dist 5.35.0 \
  sha512-U06rpMtW9V3XPGOBeamTUSr0Z09jMX4IJuANpE/EZbAhw0G8CgwrzU4YmXkn/h0wCDNsXdGarTNNHC3sU8yVUQ==
fetch axe-core 4.14.1 \
  sha512-FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ==

put preact "$served/preact" \
  preact.mjs=dist/preact.mjs hooks.mjs=hooks/dist/hooks.mjs LICENSE=LICENSE
put htm "$served/htm" htm.mjs=dist/htm.mjs LICENSE=LICENSE
put @picocss/pico "$served/pico" \
  pico.css=css/pico.fluid.classless.indigo.min.css LICENSE=LICENSE.md
put papaparse "$served/papaparse" papaparse.mjs=papaparse.min.js LICENSE=LICENSE
# Papa Parse is a CommonJS module. Between these two lines it is one that a browser can import.
sed -i -e '1i const exports = {}, module = { exports };' -e '$a export default module.exports;' \
  "$served/papaparse/papaparse.mjs"
put oauth4webapi "$served/oauth4webapi" \
  oauth4webapi.mjs=build/index.js LICENSE=LICENSE.md
put swagger-ui-dist "$served/swagger-ui" \
  swagger-ui.js=swagger-ui-bundle.js swagger-ui.css=swagger-ui.css \
  LICENSE=LICENSE NOTICE=NOTICE LICENSE.bundled=swagger-ui-bundle.js.LICENSE.txt
# A Lambda's binary must stay small: Swagger UI's script has 1.7 MB.
gzip -9nf "$served"/swagger-ui/swagger-ui.{js,css}
put axe-core "$tested/axe-core" axe.min.js=axe.min.js LICENSE=LICENSE
echo "Vendored the pages' packages in internal/webui/$served, and axe-core for the browser tests."
